//! A made-up source: its rules, its rows, and the transactions that change them.

use std::collections::{BTreeMap, BTreeSet};

use kairos_sync_protocol::WriteCheckpointId;
use serde_json::json;

use super::client::Rows;
use crate::{fuzz::Random, storage::WriteCheckpointKey};

pub(super) const RULES: &str = "bucket_definitions:
  mine:
    priority: 0
    parameters: SELECT request.user_id() AS user_id
    data: ['SELECT * FROM notes WHERE owner = bucket.user_id']
  team:
    priority: 1
    parameters: SELECT team FROM members WHERE user_id = request.user_id()
    data: ['SELECT * FROM tasks WHERE team = bucket.team']
  all:
    priority: 2
    data: ['SELECT * FROM news']
  archive:
    priority: 3
    parameters: SELECT team FROM members WHERE user_id = request.user_id()
    data: ['SELECT * FROM old WHERE team = bucket.team']
";
pub(super) const USERS: [&str; 3] = ["ann", "ben", "eve"];
const TEAMS: [&str; 3] = ["red", "blue", "green"];
/// Table, definition and priority.
const TABLES: [(&str, &str, u64); 4] =
    [("notes", "mine", 0), ("tasks", "team", 1), ("news", "all", 2), ("old", "archive", 3)];

/// Users and their teams.
pub(super) type Members = BTreeSet<(&'static str, &'static str)>;

/// The source as of one transaction.
#[derive(Debug, Clone, Default)]
pub(super) struct Version {
    /// By table and id: whose it is (a user, a team, or nobody's), and its data.
    pub(super) rows: BTreeMap<(String, String), (&'static str, String)>,
    pub(super) members: Members,
}

impl Version {
    /// Whether a user's rows, of all tables or of those up to a priority, are these.
    pub(super) fn shows(&self, user: &str, priority: Option<u64>, rows: &Rows) -> bool {
        let is_shown = |table: &str, owner: &'static str| match table {
            "notes" => owner == user,
            "news" => true,
            _ => self.members.iter().any(|(member, team)| *member == user && *team == owner),
        };
        let is_wanted = |table: &str| {
            let priority_of = TABLES.iter().find(|(name, ..)| *name == table).map(|(_, _, priority)| *priority);
            priority.is_none_or(|priority| priority_of.is_some_and(|of| of <= priority))
        };
        let shown = self.rows.iter().filter(|((table, _), (owner, _))| is_wanted(table) && is_shown(table, owner));
        shown.map(|(key, (_, data))| (key, data)).eq(rows.iter())
    }

    /// The next version, with what a transaction of so many changes does. `numbers` makes data that was never there.
    pub(super) fn next(&self, random: &mut Random, count: usize, numbers: &mut usize) -> (Self, Change) {
        let mut version = self.clone();
        let mut operations = Vec::new();
        for _ in 0..count {
            if random.chance(10) {
                let member = (*random.pick(&USERS), *random.pick(&TEAMS));
                if !version.members.remove(&member) {
                    version.members.insert(member);
                }
                continue;
            }
            let (table, ..) = *random.pick(&TABLES);
            let owner = match table {
                "notes" => *random.pick(&USERS),
                "news" => "",
                _ => *random.pick(&TEAMS),
            };
            let id_count = if count > 100 { 2_000 } else { 8 };
            let key = (table.to_owned(), format!("r{}", random.below(id_count)));
            let before = version.rows.get(&key).map(|(owner, _)| *owner);
            let leaves = random.chance(25);
            if let Some(before) = before.filter(|before| leaves || *before != owner) {
                operations.push(Operation::of(table, &key.1, before, None));
                version.rows.remove(&key);
            }
            if !leaves {
                *numbers += 1;
                // Now and then large enough that a line holds few.
                let padding = if random.chance(2) { 100_000 } else { 0 };
                let data = json!({"id": key.1, "n": *numbers, "pad": "x".repeat(padding)}).to_string();
                operations.push(Operation::of(table, &key.1, owner, Some(data.clone())));
                version.rows.insert(key, (owner, data));
            }
        }
        let members = version.members.clone();
        (version, Change { operations, members, write_checkpoints: Vec::new() })
    }

    /// All rows, as a copy brings them.
    pub(super) fn copied(&self) -> Vec<Operation> {
        let row = |((table, id), (owner, data)): (&(String, String), &(&str, String))| {
            let (table, ..) = TABLES.iter().find(|(name, ..)| name == table).expect("a table");
            Operation::of(table, id, owner, Some(data.clone()))
        };
        self.rows.iter().map(row).collect()
    }
}

/// What a transaction does.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub(super) operations: Vec<Operation>,
    /// All there are then.
    pub(super) members: Members,
    pub(super) write_checkpoints: Vec<(WriteCheckpointKey, WriteCheckpointId)>,
}

/// A row that comes into a bucket, changes there, or leaves it.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    /// Without what the store puts in front.
    pub(super) bucket: String,
    pub(super) table: &'static str,
    pub(super) id: String,
    /// `None` when it leaves.
    pub(super) data: Option<String>,
}

impl Operation {
    fn of(table: &'static str, id: &str, owner: &str, data: Option<String>) -> Self {
        let (_, definition, _) = TABLES.iter().find(|(name, ..)| *name == table).expect("a table");
        let owner = if owner.is_empty() { String::new() } else { format!("\"{owner}\"") };
        Self { bucket: format!("{definition}[{owner}]"), table, id: id.to_owned(), data }
    }
}
