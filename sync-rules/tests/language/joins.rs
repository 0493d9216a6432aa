//! Write-time joins against a naive reading of the SQL: after any changes, each user sees the rows the filters say.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture::{Service, service};

const RULES: &str = "
bucket_definitions:
  user_data:
    parameters:
      - { name: user_id, type: string }
    data:
      - { table: members, filter: 'user_id = :user_id' }
      - { table: households, filter: 'id IN (SELECT household_id FROM members WHERE user_id = :user_id)' }
      - { table: habits, filter: ':user_id = user_id' }
      - table: habits
        filter: |
          archived = 0
            AND household_id IN (SELECT household_id FROM members WHERE user_id = :user_id AND role = 'full')
      - table: completions
        filter: >-
          habit_id IN (SELECT id FROM habits WHERE archived = 0 AND household_id IN
            (SELECT m.household_id FROM members AS m WHERE m.user_id = :user_id))
  shared:
    parameters:
      - { name: user_id, type: string }
      - { name: role, type: string }
    data:
      - table: completions
        filter: |
          habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)
            AND household_id IN (SELECT household_id FROM members WHERE user_id = :user_id AND role = :role)
";

/// A table that is joined with itself: households stand for folders here, whose owner is `user` and parent `household`.
const NESTED: &str = "
bucket_definitions:
  mine:
    parameters: [{ name: user_id, type: string }]
    data:
      - { table: households, filter: 'household_id IN (SELECT id FROM households WHERE user_id = :user_id)' }
      - table: households
        filter: |
          archived = 1 AND household_id IN (SELECT id FROM households WHERE household_id IN
            (SELECT id FROM households WHERE user_id = :user_id))
";

/// A row of any table; `None` is NULL.
#[derive(Debug, Clone)]
struct Row {
    table: &'static str,
    id: u8,
    user: Option<u8>,
    household: Option<u8>,
    habit: Option<u8>,
    role: &'static str,
    archived: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Put(Row),
    Delete(&'static str, u8),
}

fn text(prefix: &str, number: Option<u8>) -> Value {
    number.map_or(Value::Null, |number| Value::String(format!("{prefix}{number}")))
}

/// Ids of different tables never meet, unless a reference says so.
fn prefix(table: &str) -> &'static str {
    match table {
        "members" => "m",
        "households" => "o",
        "habits" => "h",
        _ => "c",
    }
}

impl Row {
    fn key(&self) -> (&'static str, u8) {
        (self.table, self.id)
    }

    fn json(&self) -> Value {
        json!({
            "id": text(prefix(self.table), Some(self.id)),
            "user_id": text("u", self.user),
            "household_id": text("o", self.household),
            "habit_id": text("h", self.habit),
            "role": self.role,
            "archived": self.archived,
        })
    }
}

fn table() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["members", "households", "habits", "completions"])
}

fn reference() -> impl Strategy<Value = Option<u8>> {
    prop::option::weighted(0.9, 0..4u8)
}

fn change() -> impl Strategy<Value = Change> {
    let role = prop::sample::select(vec!["full", "guest"]);
    let row = (table(), 0..4u8, reference(), reference(), reference(), role, any::<bool>()).prop_map(
        |(table, id, user, household, habit, role, archived)| {
            Change::Put(Row { table, id, user, household, habit, role, archived })
        },
    );
    prop_oneof![4 => row, 1 => (table(), 0..4u8).prop_map(|(table, id)| Change::Delete(table, id))]
}

/// What the filters say, read row by row.
fn expected(rows: &[Row], user: u8, role: &str) -> BTreeSet<String> {
    let of = |table: &'static str| rows.iter().filter(move |row| row.table == table);
    let is_user = |row: &Row| row.user == Some(user);
    let same = |left: Option<u8>, right: Option<u8>| left.is_some() && left == right;
    let is_member = |household: Option<u8>, accept: &dyn Fn(&Row) -> bool| {
        of("members").any(|member| is_user(member) && same(member.household, household) && accept(member))
    };
    let sees = |row: &Row| match row.table {
        "members" => is_user(row),
        "households" => is_member(Some(row.id), &|_| true),
        "habits" => is_user(row) || (!row.archived && is_member(row.household, &|member| member.role == "full")),
        _ => {
            let habits = || of("habits").filter(|habit| row.habit == Some(habit.id));
            let by_household = habits().any(|habit| !habit.archived && is_member(habit.household, &|_| true));
            let shared = habits().any(is_user) && is_member(row.household, &|member| member.role == role);
            by_household || shared
        }
    };
    rows.iter().filter(|row| sees(row)).map(|row| format!("{}/{}{}", row.table, prefix(row.table), row.id)).collect()
}

/// What the filters over the table joined with itself say.
fn expected_nested(rows: &[Row], user: u8) -> BTreeSet<String> {
    let parent = |row: &Row| rows.iter().find(|other| Some(other.id) == row.household);
    let is_mine = |row: &Row| row.user == Some(user);
    let sees = |row: &Row| {
        let by_parent = parent(row).is_some_and(is_mine);
        let by_grandparent = row.archived && parent(row).and_then(parent).is_some_and(is_mine);
        by_parent || by_grandparent
    };
    rows.iter().filter(|row| sees(row)).map(|row| format!("households/o{}", row.id)).collect()
}

fn check(service: &mut Service, rows: &[Row]) -> Result<(), TestCaseError> {
    for user in 0..4u8 {
        for role in ["full", "guest"] {
            let token = json!({"sub": format!("u{user}"), "parameters": {"role": role}});
            prop_assert_eq!(service.visible(token), expected(rows, user, role), "user {} as {}", user, role);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_user_sees_the_rows_the_filters_say(changes in prop::collection::vec(change(), 1..40)) {
        let mut service = service(RULES);
        let mut rows: Vec<Row> = Vec::new();
        for change in changes {
            match change {
                Change::Put(row) => {
                    rows.retain(|known| known.key() != row.key());
                    service.put(row.table, row.json());
                    rows.push(row);
                }
                Change::Delete(table, id) => {
                    rows.retain(|known| known.key() != (table, id));
                    service.delete(table, &text(prefix(table), Some(id)));
                }
            }
            check(&mut service, &rows)?;
        }
    }

    #[test]
    fn a_table_joined_with_itself_follows_its_own_rows(changes in prop::collection::vec(change(), 1..40)) {
        let mut service = service(NESTED);
        let mut rows: Vec<Row> = Vec::new();
        for change in changes {
            match change {
                Change::Put(row) => {
                    let row = Row { table: "households", ..row };
                    rows.retain(|known| known.id != row.id);
                    service.put("households", row.json());
                    rows.push(row);
                }
                Change::Delete(_, id) => {
                    rows.retain(|known| known.id != id);
                    service.delete("households", &text("o", Some(id)));
                }
            }
            for user in 0..4u8 {
                let visible = service.visible(json!({"sub": format!("u{user}")}));
                prop_assert_eq!(visible, expected_nested(&rows, user), "user {}", user);
            }
        }
    }
}
