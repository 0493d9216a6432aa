//! Whatever happens in whatever batches, clients end with what the rules say about the rows there are.

use std::collections::{BTreeMap, BTreeSet};

use kairos_sync_protocol::{
    BucketName, OpId,
    operation::{OpKind, Operation},
};
use kairos_sync_rules::compile;
use proptest::prelude::*;

use super::*;
use crate::{
    lsn::Lsn,
    postgres::{catalog, pgoutput::IdentitySetting, value::ColumnType, walsender::SystemIdentity},
    replication::{
        copy::copied::read_rows, evaluated::distinct, plans::Plans, relations::Relations, state::ReplicationState,
        unsettled::Unsettled,
    },
    storage::MemoryStore,
};

pub(in crate::replication) const RULES: &str = r#"
bucket_definitions:
  user_data:
    parameters:
      - name: user_id
        type: string
    data:
      - table: habits
        filter: "user_id = :user_id"
      - table: completions
        filter: "habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)"
"#;

pub(in crate::replication) const HABITS: u32 = 10;
pub(in crate::replication) const COMPLETIONS: u32 = 20;

/// A change of one of few rows, so that they meet.
#[derive(Debug, Clone)]
pub(in crate::replication) enum Change {
    SetHabit { id: u8, user: u8 },
    SetCompletion { id: u8, habit: u8 },
    MoveHabit { id: u8, to: u8 },
    Delete { table: u32, id: u8 },
    Truncate { table: u32 },
}

pub(in crate::replication) fn change() -> impl Strategy<Value = Change> {
    let table = || prop::sample::select(vec![HABITS, COMPLETIONS]);
    prop_oneof![
        4 => (0..4u8, 0..3u8).prop_map(|(id, user)| Change::SetHabit { id, user }),
        4 => (0..6u8, 0..4u8).prop_map(|(id, habit)| Change::SetCompletion { id, habit }),
        2 => (0..4u8, 0..4u8).prop_map(|(id, to)| Change::MoveHabit { id, to }),
        2 => (table(), 0..6u8).prop_map(|(table, id)| Change::Delete { table, id }),
        1 => table().prop_map(|table| Change::Truncate { table }),
    ]
}

/// Both tables as SQL would have them: id to the other column.
#[derive(Debug, Default)]
pub(in crate::replication) struct Model(BTreeMap<u32, BTreeMap<u8, u8>>);

impl Model {
    /// Does the change and says it as the stream would. Those Postgres would refuse are left out.
    pub(in crate::replication) fn change(&mut self, change: &Change) -> Option<StreamChange> {
        match *change {
            Change::SetHabit { id, user } => Some(self.set(HABITS, id, user)),
            Change::SetCompletion { id, habit } => Some(self.set(COMPLETIONS, id, habit)),
            Change::MoveHabit { id, to } => {
                let habits = self.0.entry(HABITS).or_default();
                if id == to || habits.contains_key(&to) {
                    return None;
                }
                let user = habits.remove(&id)?;
                habits.insert(to, user);
                Some(StreamChange::Upsert { table: HABITS, old: Some(key(id)), new: tuple(to, user) })
            }
            Change::Delete { table, id } => {
                self.0.entry(table).or_default().remove(&id)?;
                Some(StreamChange::Delete { table, old: key(id) })
            }
            Change::Truncate { table } => {
                self.0.remove(&table);
                Some(StreamChange::Truncate { table })
            }
        }
    }

    fn set(&mut self, table: u32, id: u8, value: u8) -> StreamChange {
        self.0.entry(table).or_default().insert(id, value);
        StreamChange::Upsert { table, old: None, new: tuple(id, value) }
    }

    /// User, table and id of everything a user is to have.
    pub(in crate::replication) fn expected(&self) -> BTreeSet<(String, String, String)> {
        let rows = |table| self.0.get(&table).into_iter().flatten();
        let mut expected = BTreeSet::new();
        for (habit, user) in rows(HABITS) {
            expected.insert((user.to_string(), "habits".to_owned(), habit.to_string()));
            for (completion, _) in rows(COMPLETIONS).filter(|(_, of)| *of == habit) {
                expected.insert((user.to_string(), "completions".to_owned(), completion.to_string()));
            }
        }
        expected
    }
}

pub(in crate::replication) enum StreamChange {
    Upsert { table: u32, old: Option<OldTuple>, new: Tuple },
    Delete { table: u32, old: OldTuple },
    Truncate { table: u32 },
}

fn text(number: u8) -> TupleValue {
    TupleValue::Text(number.to_string().into())
}

fn tuple(id: u8, value: u8) -> Tuple {
    Tuple(vec![text(id), text(value)])
}

fn key(id: u8) -> OldTuple {
    OldTuple::Key(Tuple(vec![text(id), TupleValue::Null]))
}

pub(in crate::replication) fn state() -> ReplicationState {
    let table = |oid, name: &str, other: &str| catalog::Table {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        identity: IdentitySetting::Default,
        columns: [("id", true), (other, false)]
            .map(|(name, in_primary_key)| catalog::Column {
                name: name.to_owned(),
                type_oid: 25,
                read_as: ColumnType::Text,
                in_primary_key,
                in_identity_index: false,
            })
            .to_vec(),
        row_filter: None,
        unpublished_key: Vec::new(),
        unlisted: Vec::new(),
        listings: Vec::new(),
        published_by: String::new(),
        published_apart_by: None,
        partitions: Vec::new(),
        is_partitioned: false,
        hides_rows: false,
        is_readable: true,
        rows_estimated: 0,
    };
    let system = SystemIdentity { system_id: String::new(), timeline: String::new(), head: Lsn::ZERO };
    let tables = [table(HABITS, "habits", "user_id"), table(COMPLETIONS, "completions", "habit_id")];
    ReplicationState::fresh(&system, String::new(), Vec::new(), &tables)
}

fn is_copied(row: &Tuple) -> bool {
    matches!(&row.0[0], TupleValue::Text(id) if id.last().is_some_and(|digit| digit % 2 == 0))
}

/// A row as `COPY` prints it.
fn line(row: &Tuple) -> Bytes {
    let text = |value: &TupleValue| match value {
        TupleValue::Text(text) => text.to_vec(),
        _ => b"\\N".to_vec(),
    };
    row.0.iter().map(text).collect::<Vec<_>>().join(&b'\t').into()
}

pub(in crate::replication) fn apply(applier: &mut Applier<'_>, relations: &Relations<'_>, change: StreamChange) {
    let table = |oid| relations.by_oid(oid).expect("a table of the test");
    match change {
        // Half of the rows come as a copy brings them; those of the joined table ask lookups.
        StreamChange::Upsert { table: oid, old: None, new } if is_copied(&new) => {
            let table = table(oid);
            let layout = table.layout(table.current_layout()).expect("a layout");
            for row in read_rows(layout, vec![line(&new)]).expect("a row") {
                assert_eq!(matches!(row.found, Found::Image(_)), oid == COMPLETIONS);
                assert!(applier.copied(table, row, Verdict::Compare).expect("applies"));
            }
        }
        StreamChange::Upsert { table: oid, old, new } => {
            applier.upsert(table(oid), old, new).map(|outcome| assert_eq!(outcome, Upserted::Done)).expect("applies");
        }
        StreamChange::Delete { table: oid, old } => applier.delete(table(oid), old).expect("applies"),
        StreamChange::Truncate { table: oid } => {
            applier.truncate(table(oid)).expect("applies");
            let mut after = None;
            while let Some(last) = applier.truncate_page(table(oid), after.as_ref()).expect("applies") {
                after = Some(last);
            }
        }
    }
}

/// Rows of a bucket as a client has them after applying all its operations.
pub(in crate::replication) fn client_rows(store: &MemoryStore, bucket: &BucketName) -> BTreeSet<(String, String)> {
    let upto = store.view().expect("a view").checkpoint().expect("a checkpoint").op_id;
    let range = store.operations(bucket, OpId::ZERO, upto, usize::MAX).expect("operations");
    assert!(!range.has_more, "few operations");
    let json = range.json.array().expect("whole");
    let mut rows = BTreeSet::new();
    for operation in serde_json::from_slice::<Vec<Operation>>(&json).expect("operations") {
        let key = (operation.object_type.expect("a table"), operation.object_id.expect("an id"), operation.subkey);
        if operation.op == OpKind::Put {
            rows.insert(key)
        } else {
            rows.remove(&key)
        };
    }
    rows.into_iter().map(|(object_type, id, _)| (object_type, id)).collect()
}

/// The parts in which the changes an applier has are stored. Each is made once the one before is stored, from what was
/// left then; and once more, as after a crash.
pub(in crate::replication) fn parts<'s>(
    store: &'s MemoryStore,
    relations: &Relations<'_>,
    applier: Applier<'s>,
    part: PartSize,
) -> impl Iterator<Item = Batch> {
    let (mut unsettled, mut changes) = (Unsettled::default(), Some(applier));
    std::iter::from_fn(move || {
        let mut applier = match changes.take() {
            Some(applier) => applier,
            None if unsettled.is_empty() => return None,
            None => {
                let stored = serde_json::to_string(&unsettled).expect("JSON");
                Applier::new(store).settle(relations, &mut unsettled, part).expect("settles");
                unsettled = serde_json::from_str(&stored).expect("what was stored");
                Applier::new(store)
            }
        };
        applier.settle(relations, &mut unsettled, part).expect("settles");
        Some(applier.finish())
    })
}

proptest! {
    #[test]
    fn clients_have_what_the_rules_say(
        batches in prop::collection::vec(prop::collection::vec(change(), 1..8), 1..12),
        rows in 1..20_usize,
    ) {
        let plans = Plans::one(compile(RULES, "public").plan.expect("valid rules"));
        let store = MemoryStore::new();
        let prefix = store.bucket_prefix().expect("a prefix");
        let relations = Relations::new(&plans, prefix.clone(), &state().tables, BTreeSet::new());
        let (mut model, mut buckets) = (Model::default(), BTreeSet::new());
        for (number, changes) in (1..).zip(&batches) {
            let mut applier = Applier::new(&store);
            for change in changes {
                if let Some(change) = model.change(change) {
                    apply(&mut applier, &relations, change);
                }
            }
            let part = PartSize { bytes: usize::MAX, rows };
            for batch in parts(&store, &relations, applier, part) {
                let batch = Batch { visible_at: Some(Lsn::new(number)), ..batch };
                buckets.extend(store.commit(batch).expect("commits").buckets.into_iter().map(|growth| growth.bucket));
            }
            let mut found = BTreeSet::new();
            for bucket in &buckets {
                let user: String = bucket.as_str()[prefix.len()..].chars().filter(char::is_ascii_digit).collect();
                for (table, id) in client_rows(&store, bucket) {
                    found.insert((user.clone(), table, id));
                }
            }
            prop_assert_eq!(found, model.expected());
        }
    }
}

fn output(bucket: u8, id: u8) -> RowOutput {
    let bucket = BucketName::new(format!("b[{bucket}]"));
    RowOutput { bucket, object_type: "items".into(), object_id: id.to_string().into() }
}

fn outputs() -> impl Strategy<Value = Vec<RowOutput>> {
    prop::collection::vec((0..5u8, 0..5u8).prop_map(|(bucket, id)| output(bucket, id)), 0..25)
}

proptest! {
    /// Few outputs are searched and many are hashed: both are to give what a set gives.
    #[test]
    fn few_and_many_outputs_are_told_apart_alike(old in outputs(), new in outputs()) {
        let rows = |part: &[RowOutput]| -> Vec<EvaluatedRow> {
            let row = |(number, output): (usize, &RowOutput)| EvaluatedRow {
                bucket: output.bucket.clone(),
                object_type: Arc::clone(&output.object_type),
                object_id: Arc::clone(&output.object_id),
                data: number.to_string().into(),
            };
            part.iter().enumerate().map(row).collect()
        };
        let distinct = distinct(rows(&new), &mut Vec::new());
        for (at, Put { output, data, .. }) in distinct.iter().enumerate() {
            prop_assert!(!distinct[..at].iter().any(|earlier| earlier.output == *output), "{output:?} occurs twice");
            let last = new.iter().rposition(|each| each == output).expect("it was given");
            prop_assert_eq!(&**data, last.to_string(), "the last of several counts");
        }
        prop_assert_eq!(distinct.len(), new.iter().collect::<HashSet<_>>().len());

        let kept: HashSet<_> = new.iter().collect();
        let gone: Vec<_> = old.iter().filter(|output| !kept.contains(output)).cloned().collect();
        prop_assert_eq!(outputs_gone(&old, &distinct), gone);
    }
}
