//! Random histories of commits, resets and reopenings, compared with a model as naive as can be.

use std::collections::{BTreeMap, BTreeSet};

use kairos_sync_protocol::operation::OpKind;
use proptest::{prelude::*, sample::select, test_runner::TestRunner};

use super::{
    super::{BucketTotals, Checkpoint, Dependency},
    *,
};

const BUCKETS: [&str; 4] = ["b1", "b2", "b3", "b4"];
const LOOKUPS: [&str; 3] = ["l1", "l2", "l3"];
const VALUES: [&str; 4] = ["", "v1", "v2", "v3"];
const IDENTITIES: [&str; 4] = ["", "a", "a\u{0}", "b"];
const TABLES: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    Commit(Box<Batch>),
    Reset,
    Reopen,
}

/// What must be there, without indexes.
#[derive(Default)]
struct Model {
    last_op_id: u64,
    checkpoint: Option<Checkpoint>,
    operations: Vec<(BucketName, Operation)>,
    rows: BTreeMap<RowKey, StoredRow>,
    lookups: BTreeMap<(LookupKey, RowKey), BTreeSet<LookupValue>>,
    dependents: BTreeSet<(LookupKey, RowKey)>,
    replication_state: Option<Bytes>,
}

pub(in crate::storage) fn random_histories_equal_the_model<E: Engine>(new: &dyn Fn() -> E) {
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&prop::collection::vec(step(), 1..25), |steps| {
        let engine = new();
        let mut store = engine.open();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Commit(batch) => model.commit(&*store, *batch),
                Step::Reset => {
                    store.reset().unwrap();
                    model = Model { last_op_id: model.last_op_id, ..Model::default() };
                }
                Step::Reopen => {
                    drop(store);
                    store = engine.open();
                }
            }
            model.check(&*store);
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

impl Model {
    fn commit(&mut self, store: &dyn BucketStore, mut batch: Batch) {
        if self.checkpoint.is_some() {
            batch.visible_at.get_or_insert(Lsn::new(77));
        }
        let commit = store.commit(batch.clone()).unwrap();
        let had = self.operations.len();
        for operation in &batch.operations {
            self.append(operation);
        }
        for (key, row) in batch.rows {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        let mut changed = BTreeSet::new();
        for (key, row, values) in batch.lookups {
            let after: BTreeSet<_> = values.into_iter().collect();
            let before = self.lookups.insert((key.clone(), row), after.clone()).unwrap_or_default();
            if before != after {
                changed.insert(key);
            }
        }
        for (key, row, change) in batch.dependents {
            match change {
                Dependency::Added => self.dependents.insert((key, row)),
                Dependency::Removed => self.dependents.remove(&(key, row)),
            };
        }
        self.replication_state = batch.replication_state.or_else(|| self.replication_state.take());
        self.checkpoint = batch.visible_at.map(|lsn| Checkpoint { op_id: op_id(self.last_op_id), lsn });

        assert_eq!(commit.checkpoint, self.checkpoint);
        let buckets: BTreeSet<_> = batch.operations.into_iter().map(|operation| operation.output.bucket).collect();
        assert!(commit.buckets.iter().map(|growth| &growth.bucket).eq(&buckets), "each once, in order");
        for growth in commit.buckets {
            let appended: Vec<_> = self.operations[had..].iter().filter(|(of, _)| *of == growth.bucket).collect();
            let added = BucketTotals {
                count: appended.len() as u64,
                checksum: appended.iter().map(|(_, operation)| operation.checksum).sum(),
                last_op_id: appended.last().unwrap().1.op_id,
            };
            assert_eq!((growth.first_op_id, growth.added), (appended[0].1.op_id, added));
        }
        assert_eq!(commit.lookups.len(), changed.len(), "each once");
        assert_eq!(commit.lookups.into_iter().collect::<BTreeSet<_>>(), changed);
    }

    fn append(&mut self, new: &NewOperation) {
        self.last_op_id += 1;
        let operation = Operation {
            op_id: op_id(self.last_op_id),
            op: if new.data.is_some() { OpKind::Put } else { OpKind::Remove },
            object_type: Some(new.output.object_type.to_string()),
            object_id: Some(new.output.object_id.to_string()),
            checksum: new.checksum,
            subkey: Some(new.subkey.to_string()),
            data: new.data.as_deref().map(str::to_owned),
        };
        self.operations.push((new.output.bucket.clone(), operation));
    }

    fn check(&self, store: &dyn BucketStore) {
        self.check_buckets(store);
        self.check_rows(store);
        self.check_lookups(store);
        assert_eq!(store.replication_state().unwrap(), self.replication_state);
        assert_eq!(store.stats().unwrap().operation_count, self.operations.len() as u64);
        assert_eq!(store.stats().unwrap().row_count, self.rows.len() as u64);
    }

    fn check_buckets(&self, store: &dyn BucketStore) {
        let view = store.view().unwrap();
        assert_eq!(view.checkpoint(), self.checkpoint);
        for bucket in BUCKETS.map(name) {
            let all: Vec<_> =
                self.operations.iter().filter(|(of, _)| *of == bucket).map(|(_, op)| op.clone()).collect();
            let totals = BucketTotals {
                count: all.len() as u64,
                checksum: all.iter().map(|operation| operation.checksum).sum(),
                last_op_id: all.last().map(|operation| operation.op_id).unwrap_or_default(),
            };
            let visible = self.checkpoint.map(|_| totals).unwrap_or_default();
            assert_eq!(view.bucket(&bucket).unwrap(), visible);
            for (after, upto, bytes_max) in [(0, u64::MAX >> 1, 200), (self.last_op_id / 2, self.last_op_id, 1 << 20)] {
                let (after, upto) = (op_id(after), op_id(upto));
                let expect = all.iter().filter(|operation| (after.next()..=upto).contains(&operation.op_id));
                let read = read_all(store, &bucket, after, upto, bytes_max).unwrap();
                assert!(read.iter().eq(expect), "{bucket} from {after} to {upto}");
            }
        }
    }

    fn check_rows(&self, store: &dyn BucketStore) {
        for table in (0..TABLES).map(TableId) {
            let keys: Vec<_> = self.rows.keys().filter(|key| key.table == table).cloned().collect();
            let paged = pages(|after| store.rows_of_table(table, after, 2).unwrap());
            assert_eq!(paged, keys);
            let with_states = pages(|after: Option<&(RowKey, StoredRow)>| {
                let bytes_max = [1, 1 << 20][after.map_or(0, |(key, _)| key.identity.len() % 2)];
                store.stored_rows(table, after.map(|(key, _)| key), 2, bytes_max).unwrap()
            });
            let expect = self.rows.iter().filter(|(key, _)| key.table == table);
            assert!(with_states.iter().map(|(key, row)| (key, row)).eq(expect), "of table {table:?}");
        }
        for (key, row) in &self.rows {
            assert_eq!(store.row(key).unwrap().as_ref(), Some(row));
        }
    }

    fn check_lookups(&self, store: &dyn BucketStore) {
        let view = store.view().unwrap();
        for key in LOOKUPS.map(lookup) {
            let of_key = self.lookups.iter().filter(|((of, _), values)| *of == key && !values.is_empty());
            let entries: Vec<_> =
                of_key.map(|((_, row), values)| (row.clone(), values.iter().cloned().collect::<Vec<_>>())).collect();
            assert_eq!(store.lookup_entries(&key).unwrap(), entries);
            let distinct: BTreeSet<_> = entries.into_iter().flat_map(|(_, values)| values).collect();
            let visible = if self.checkpoint.is_some() { distinct } else { BTreeSet::new() };
            assert_eq!(view.lookup(&key).unwrap(), visible.into_iter().collect::<Vec<_>>());
            let rows: Vec<_> =
                self.dependents.iter().filter(|(of, _)| *of == key).map(|(_, row)| row.clone()).collect();
            assert_eq!(pages(|after| store.dependents(&key, after, 2).unwrap()), rows);
        }
    }
}

/// All pages of two keys, one after the other.
fn pages<T>(page: impl Fn(Option<&T>) -> Vec<T>) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    loop {
        let next = page(all.last());
        assert!(next.len() <= 2);
        if next.is_empty() {
            return all;
        }
        all.extend(next);
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any_batch().prop_map(|batch| Step::Commit(Box::new(batch))),
        1 => Just(Step::Reset),
        2 => Just(Step::Reopen),
    ]
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let values = || prop::collection::vec(select(&VALUES[..]), 0..3);
    let stored = (".{0,8}", prop::collection::vec(select(&BUCKETS[..]), 0..3))
        .prop_map(|(image, buckets)| row(&image, buckets.into_iter().map(|bucket| output(bucket, "1")).collect()));
    let change = prop_oneof![3 => Just(Dependency::Added), 1 => Just(Dependency::Removed)];
    (
        prop::collection::vec(operation(), 0..12),
        prop::collection::btree_map(row_key(), prop::option::of(stored), 0..5),
        prop::collection::vec((select(&LOOKUPS[..]), row_key(), values()), 0..5),
        prop::collection::vec((select(&LOOKUPS[..]), row_key(), change), 0..5),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
        prop::option::weighted(0.7, any::<u64>()),
    )
        .prop_map(|(operations, rows, lookups, dependents, state, visible_at)| Batch {
            operations,
            rows: rows.into_iter().collect(),
            lookups: lookups.into_iter().map(|(key, row, texts)| (lookup(key), row, super::values(&texts))).collect(),
            dependents: dependents.into_iter().map(|(key, row, change)| (lookup(key), row, change)).collect(),
            replication_state: state.map(Bytes::from),
            visible_at: visible_at.map(Lsn::new),
            ..Batch::default()
        })
}

fn operation() -> impl Strategy<Value = NewOperation> {
    let data = prop::option::weighted(0.8, ".{0,40}");
    (select(&BUCKETS[..]), ".{0,6}", any::<u32>(), data).prop_map(|(bucket, id, bits, data)| NewOperation {
        output: output(bucket, &id),
        subkey: "k".into(),
        checksum: Checksum::from_bits(bits),
        data: data.map(Into::into),
    })
}

fn row_key() -> impl Strategy<Value = RowKey> {
    (0..TABLES, select(&IDENTITIES[..])).prop_map(|(table, identity)| key(table, identity))
}
