//! Promises about compaction, and about buckets that begin anew: whoever syncs in steps across it ends up as who syncs at once, and as the history says.
//!
//! A client here is as the protocol describes it, and knows nothing of the service.

use std::collections::BTreeMap;

use kairos_sync_protocol::operation::OpKind;
use proptest::{prelude::*, sample::select, test_runner::TestRunner};

use super::{super::BucketTotals, *};

const BUCKETS: [&str; 2] = ["b1", "b2"];

/// Rows by id.
type Rows = BTreeMap<String, String>;

#[derive(Debug, Clone)]
enum Step {
    /// Puts (with data that was never there) and removals of small ids in either bucket.
    Commit(Vec<(&'static str, u8, bool)>),
    Compact,
    /// A bucket turns out to be damaged, and is mended.
    Mend(&'static str),
    Reopen,
    /// A client looks at the newest state, if it has completed the one before.
    Look(usize),
    /// It reads some operations.
    Read(usize, usize),
}

/// All states there were: rows of each bucket by its last op id then, which the store gives.
#[derive(Default)]
struct History {
    number: u32,
    buckets: BTreeMap<(&'static str, OpId), Rows>,
    newest: BTreeMap<&'static str, Rows>,
}

/// One bucket on a device.
#[derive(Default)]
struct Client {
    rows: Rows,
    added: Checksum,
    position: OpId,
    /// What it was promised, and since when what it has is valid.
    target: Option<BucketTotals>,
    valid_from: OpId,
    completed: usize,
}

pub(in crate::storage) fn syncing_in_steps_equals_syncing_at_once<E: Engine>(new: &dyn Fn() -> E) {
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&prop::collection::vec(step(), 1..120), |steps| {
        let engine = new();
        let mut store = engine.open();
        let mut history = History::default();
        // Two for each bucket.
        let mut clients: Vec<_> = BUCKETS.iter().cycle().take(4).map(|bucket| (*bucket, Client::default())).collect();
        for step in steps {
            match step {
                Step::Commit(changes) => history.commit(&*store, &changes),
                Step::Compact => drop(store.compact().unwrap()),
                Step::Mend(bucket) => history.mend(&*store, bucket),
                Step::Reopen => {
                    drop(store);
                    store = engine.open();
                }
                Step::Look(number) => {
                    let (bucket, client) = &mut clients[number];
                    client.look(&*store, bucket);
                }
                Step::Read(number, bytes_max) => {
                    let (bucket, client) = &mut clients[number];
                    client.read(&*store, bucket, bytes_max, &history);
                }
            }
            for bucket in BUCKETS {
                history.check(&*store, bucket);
            }
        }
        for (bucket, client) in &mut clients {
            client.target = None;
            client.look(&*store, bucket);
            while client.target.is_some() {
                client.read(&*store, bucket, 200, &history);
            }
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

impl History {
    fn commit(&mut self, store: &dyn BucketStore, changes: &[(&'static str, u8, bool)]) {
        let mut operations = Vec::new();
        for (bucket, id, leaves) in changes {
            self.number += 1;
            let id = id.to_string();
            let mut operation = if *leaves { remove(bucket, &id) } else { put(bucket, &id) };
            // Any numbers will do, so that no sum is right by chance.
            operation.checksum = Checksum::from_bits(self.number.wrapping_mul(2_654_435_761));
            let rows = self.newest.entry(bucket).or_default();
            if *leaves {
                rows.remove(&id);
            } else {
                let data = format!(r#"{{"n":{}}}"#, self.number);
                operation.data = Some(data.as_str().into());
                rows.insert(id, data);
            }
            operations.push(operation);
        }
        store.commit(batch(operations)).unwrap();
        self.remember(store);
    }

    fn mend(&mut self, store: &dyn BucketStore, bucket: &'static str) {
        let commit = store.empty_buckets(&[name(bucket)]).unwrap();
        assert_eq!(commit.checkpoint, store.view().unwrap().checkpoint(), "what was visible stays so");
        if commit.emptied.is_empty() {
            return;
        }
        let refused = [
            store.view().unwrap().bucket(&name(bucket)).err(),
            store.operations(&name(bucket), OpId::ZERO, op_id(9_999), 300).err(),
        ];
        assert_eq!(refused.map(|error| error.unwrap().code()), ["STORE-0106"; 2]);
        assert_eq!(store.damaged_buckets(9).unwrap(), [name(bucket)]);
        let rows = self.newest.get(bucket).into_iter().flatten();
        let again = rows.map(|(id, data)| NewOperation { data: Some(data.as_str().into()), ..put(bucket, id) });
        store.commit(batch(again.collect())).unwrap();
        store.buckets_mended(&[name(bucket)]).unwrap();
        assert!(store.damaged_buckets(9).unwrap().is_empty());
        self.remember(store);
    }

    fn remember(&mut self, store: &dyn BucketStore) {
        let view = store.view().unwrap();
        for (bucket, rows) in &self.newest {
            self.buckets.insert((bucket, view.bucket(&name(bucket)).unwrap().last_op_id), rows.clone());
        }
    }

    /// Who syncs at once gets the newest state, and as many operations as the totals say.
    fn check(&self, store: &dyn BucketStore, bucket: &'static str) {
        let totals = store.view().unwrap().bucket(&name(bucket)).unwrap();
        let mut client = Client { target: Some(totals), ..Client::default() };
        let all = read_all(store, &name(bucket), OpId::ZERO, totals.last_op_id, 300).unwrap();
        assert_eq!(all.len() as u64, totals.count);
        for operation in all {
            client.apply(operation);
        }
        assert_eq!(client.added, totals.checksum);
        assert_eq!(client.rows, self.newest.get(bucket).cloned().unwrap_or_default());
    }
}

impl Client {
    fn look(&mut self, store: &dyn BucketStore, bucket: &str) {
        if self.target.is_none() {
            self.target = Some(store.view().unwrap().bucket(&name(bucket)).unwrap());
        }
    }

    fn read(&mut self, store: &dyn BucketStore, bucket: &'static str, bytes_max: usize, history: &History) {
        let Some(target) = self.target else { return };
        let range = store.operations(&name(bucket), self.position, target.last_op_id, bytes_max).unwrap();
        let json = range.json.array().unwrap();
        let operations: Vec<Operation> = serde_json::from_slice(&json).unwrap();
        for operation in operations {
            self.apply(operation);
        }
        self.valid_from = self.valid_from.max(range.valid_from);
        if range.has_more {
            return;
        }
        self.target = None;
        if self.valid_from > target.last_op_id {
            let visible = store.view().unwrap().bucket(&name(bucket)).unwrap();
            assert!(self.valid_from <= visible.last_op_id, "a state that has it is visible");
            return;
        }
        assert!(self.position >= target.last_op_id || target.count == 0, "nothing is missing");
        assert_eq!(self.added, target.checksum);
        assert_eq!(self.rows, history.buckets.get(&(bucket, target.last_op_id)).cloned().unwrap_or_default());
        self.completed += 1;
    }

    fn apply(&mut self, operation: Operation) {
        let Operation { op_id, op, object_id, checksum, data, .. } = operation;
        assert!(op_id > self.position, "ids ascend");
        self.position = op_id;
        self.added += checksum;
        match op {
            OpKind::Put => drop(self.rows.insert(object_id.unwrap(), data.unwrap())),
            OpKind::Remove => drop(self.rows.remove(&object_id.unwrap())),
            OpKind::Move => {}
            OpKind::Clear => {
                self.rows.clear();
                self.added = checksum;
            }
        }
    }
}

/// After so many changes of few rows, hardly more is downloaded than there is.
pub(in crate::storage) fn compaction_leaves_little<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    for round in 0..200_u64 {
        let changes = (0..10).map(|id| put("b", &id.to_string())).chain([put("b", "gone"), remove("b", "gone")]);
        store.commit(batch(changes.collect())).unwrap();
        if round % 20 == 19 {
            while store.compact().unwrap() {}
        }
    }
    let before = store.view().unwrap().bucket(&name("b")).unwrap();
    // What an engine has not yet put away may be left.
    assert!(before.count < 12 * 200 / 2, "{} operations for 10 rows", before.count);
    assert_eq!(store.stats().unwrap().operation_count, before.count);
    let all = read_all(&*store, &name("b"), OpId::ZERO, before.last_op_id, usize::MAX).unwrap();
    assert_eq!(all.first().map(|operation| operation.op), Some(OpKind::Clear));
    drop(store);
    let store = engine.open();
    assert_eq!(store.view().unwrap().bucket(&name("b")).unwrap(), before);
}

pub(in crate::storage) fn a_view_keeps_its_state_while_operations_become_fewer<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let changes = || (0..50).map(|_| put("b", "1")).collect();
    store.commit(batch(changes())).unwrap();
    let view = store.view().unwrap();
    let before = view.bucket(&name("b")).unwrap();
    while store.compact().unwrap() {}
    assert_eq!(view.bucket(&name("b")).unwrap(), before);
    drop(view);
    let after = store.view().unwrap().bucket(&name("b")).unwrap();
    assert_eq!((after.checksum, after.last_op_id), (before.checksum, before.last_op_id));
}

pub(in crate::storage) fn nothing_is_compacted_while_nothing_is_visible<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let operations = (0..50).map(|_| put("b", "1")).collect();
    store.commit(Batch { visible_at: None, ..batch(operations) }).unwrap();
    while store.compact().unwrap() {}
    let all = read_all(&*store, &name("b"), OpId::ZERO, op_id(50), usize::MAX).unwrap();
    assert!(all.len() == 50 && all.iter().all(|operation| operation.op == OpKind::Put));
}

fn step() -> impl Strategy<Value = Step> {
    let change = (select(&BUCKETS[..]), 0..6_u8, prop::bool::weighted(0.3));
    prop_oneof![
        6 => prop::collection::vec(change, 0..12).prop_map(Step::Commit),
        6 => Just(Step::Compact),
        1 => select(&BUCKETS[..]).prop_map(Step::Mend),
        1 => Just(Step::Reopen),
        4 => (0..4_usize).prop_map(Step::Look),
        4 => (0..4_usize, 0..600_usize).prop_map(|(client, bytes_max)| Step::Read(client, bytes_max)),
    ]
}
