//! Runs as replication meets them, beside a map.

use std::{collections::BTreeMap, ops::Bound, sync::atomic::Ordering, thread};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    super::{
        super::{
            Batch, BucketStore, CompactionOptions, RowKey, SqliteOptions, SqliteStore, StoredRow, StraightLimits,
            TableId, Verification,
        },
        Inner,
    },
    filter::KeyHash,
    list::{Run, RunList},
    read::MergedRuns,
};

/// Nothing happens by itself, and rows go past the tail from a few bytes on.
fn options() -> SqliteOptions {
    SqliteOptions {
        fold_operations: usize::MAX,
        fold_bytes: usize::MAX,
        straight: StraightLimits { row_bytes: 20_000, ..StraightLimits::default() },
        compaction: CompactionOptions { bytes_per_second: 0, ..CompactionOptions::default() },
        ..SqliteOptions::default()
    }
}

fn key(number: u32) -> RowKey {
    RowKey { table: TableId(number % 2), identity: number.to_be_bytes().into() }
}

/// Long enough that a hundred rows are several blocks, and not alike.
fn image(number: u32, version: u32) -> String {
    let parts = (0..16).map(|part| (number * 31 + part).wrapping_mul(version * 2 + 2_654_435_761).to_string());
    parts.collect::<Vec<_>>().join(" ")
}

fn row(image: &str) -> StoredRow {
    StoredRow { image: image.to_owned().into(), ..StoredRow::default() }
}

#[derive(Debug, Clone)]
enum Step {
    /// Rows from a number on get states of a version, or are forgotten.
    Commit {
        from: u32,
        count: u32,
        apart: u32,
        version: Option<u32>,
    },
    Fold,
    /// So many slices.
    Merge(usize),
    Open,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let version = prop::option::weighted(0.8, 0..100_u32);
    let commit = (0..600_u32, 1..300_u32, 1..4_u32, version).prop_map(|(from, count, apart, version)| Step::Commit {
        from,
        count,
        apart,
        version,
    });
    prop_oneof![
        12 => commit,
        4 => Just(Step::Fold),
        4 => (1..4_usize).prop_map(Step::Merge),
        2 => Just(Step::Open),
        1 => Just(Step::Reset),
    ]
}

/// A store, and what its rows must be.
struct Pair {
    folder: TempDir,
    store: Option<SqliteStore>,
    rows: BTreeMap<RowKey, String>,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), options()).unwrap();
        Self { folder, store: Some(store), rows: BTreeMap::new() }
    }

    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    fn inner(&self) -> &Inner {
        &self.store().inner
    }

    fn open_again(&mut self) {
        self.store = None;
        let found = Verification::of(self.folder.path(), &mut |_| {}).unwrap();
        assert!(found.is_whole(), "{found:?}");
        assert_eq!(found.row_count, self.rows.len() as u64);
        self.store = Some(SqliteStore::open(self.folder.path(), options()).unwrap());
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Commit { from, count, apart, version } => {
                let mut rows = Vec::new();
                for number in (0..count).map(|number| from + number * apart) {
                    let image = version.map(|version| image(number, version));
                    rows.push((key(number), image.as_deref().map(row)));
                    match image {
                        Some(image) => drop(self.rows.insert(key(number), image)),
                        None => drop(self.rows.remove(&key(number))),
                    }
                }
                self.store().commit(Batch { rows, ..Batch::default() }).unwrap();
            }
            Step::Fold => self.inner().fold().unwrap(),
            Step::Merge(slices) => {
                for _ in 0..slices {
                    self.inner().merge_runs().unwrap();
                }
            }
            Step::Open => self.open_again(),
            Step::Reset => {
                self.store().reset().unwrap();
                self.rows.clear();
            }
        }
    }

    /// One by one, and by pages.
    fn check(&self) {
        assert_eq!(self.store().stats().unwrap().row_count, self.rows.len() as u64);
        for number in (0..1_500).step_by(7) {
            let found = self.store().row(&key(number)).unwrap();
            assert_eq!(found, self.rows.get(&key(number)).map(|image| row(image)), "row {number}");
        }
        for table in [TableId(0), TableId(1)] {
            let expected: Vec<_> = self.rows.iter().filter(|(key, _)| key.table == table).collect();
            let (mut keys, mut rows): (Vec<RowKey>, Vec<(RowKey, StoredRow)>) = (Vec::new(), Vec::new());
            loop {
                let page = self.store().rows_of_table(table, keys.last(), 50).unwrap();
                let is_last = page.is_empty();
                keys.extend(page);
                if is_last {
                    break;
                }
            }
            loop {
                let after = rows.last().map(|(key, _)| key.clone());
                let page = self.store().stored_rows(table, after.as_ref(), 70, 10_000).unwrap();
                let is_last = page.is_empty();
                rows.extend(page);
                if is_last {
                    break;
                }
            }
            assert_eq!(keys.iter().collect::<Vec<_>>(), expected.iter().map(|(key, _)| *key).collect::<Vec<_>>());
            let found: Vec<_> = rows.iter().map(|(key, row)| (key, row.image.to_vec())).collect();
            let expected: Vec<_> = expected.iter().map(|(key, image)| (*key, image.as_bytes().to_vec())).collect();
            assert_eq!(found, expected);
        }
    }

    fn run_count(&self) -> usize {
        self.inner().runs.list().len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rows_are_what_they_were_set_to(steps in prop::collection::vec(step(), 1..40)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.take(step);
            pair.check();
        }
        pair.inner().fold().unwrap();
        pair.inner().merge_all_runs().unwrap();
        prop_assert!(pair.run_count() <= 1);
        pair.check();
        pair.open_again();
        pair.check();
    }
}

fn commit(pair: &mut Pair, from: u32, count: u32, version: Option<u32>) {
    pair.take(&Step::Commit { from, count, apart: 1, version });
}

#[test]
fn runs_side_by_side_are_merged_without_being_written_again() {
    let mut pair = Pair::new();
    for part in 0..8 {
        assert_eq!(pair.inner().merge_runs().unwrap(), None, "{part} runs");
        // Of one table: neighbours in key order.
        let rows = (0..2_000_u32).map(|number| {
            let number = part * 2_000 + number;
            (RowKey { table: TableId(7), identity: number.to_be_bytes().into() }, Some(row(&image(number, 1))))
        });
        pair.store().commit(Batch { rows: rows.collect(), ..Batch::default() }).unwrap();
    }
    assert_eq!(pair.run_count(), 8);
    let before: u64 = pair.inner().runs.list().iter().map(|run| run.byte_count).sum();
    let mut written = 0;
    while let Some(bytes) = pair.inner().merge_runs().unwrap() {
        written += bytes;
    }
    assert_eq!(pair.run_count(), 1);
    assert!(written * 4 < before, "{written} of {before} bytes");
    let list = pair.inner().runs.list();
    assert!(list.iter().all(|run| run.filter.is_some() && run.entry_count == 16_000));
    let keys = pair.store().rows_of_table(TableId(7), None, 99_999).unwrap();
    assert_eq!(keys.len(), 16_000);
    pair.open_again_with(16_000);
}

impl Pair {
    fn open_again_with(&mut self, row_count: u64) {
        self.store = None;
        let found = Verification::of(self.folder.path(), &mut |_| {}).unwrap();
        assert!(found.is_whole() && found.row_count == row_count, "{found:?}");
    }
}

#[test]
fn what_is_gone_leaves_nothing_once_all_runs_are_one() {
    let mut pair = Pair::new();
    commit(&mut pair, 0, 500, Some(1));
    commit(&mut pair, 0, 500, None);
    pair.inner().fold().unwrap();
    assert_eq!(pair.run_count(), 2, "the second says that rows are gone");
    pair.inner().merge_all_runs().unwrap();
    assert_eq!(pair.run_count(), 0);
    for table in ["row_place", "row_block", "row_filter"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: i64 = pair.inner().reader().unwrap().conn().query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{table}");
    }
    commit(&mut pair, 0, 1, None);
    pair.inner().fold().unwrap();
    assert_eq!(pair.run_count(), 0, "nothing has to be said of a row that no run has");
    pair.check();
}

/// An end amid a merge, after each slice.
#[test]
fn a_merge_goes_on_where_it_ended() {
    let mut pair = Pair::new();
    for version in 0..3 {
        for part in 0..6 {
            let rows = (0..3_000_u32).map(|number| {
                let number = part * 3_000 + number;
                (key(number), Some(row(&image(number, version))))
            });
            pair.store().commit(Batch { rows: rows.collect(), ..Batch::default() }).unwrap();
        }
    }
    for number in 0..18_000 {
        pair.rows.insert(key(number), image(number, 2));
    }
    let mut slices = 0;
    while pair.run_count() > 1 {
        pair.inner().merge_runs().unwrap().expect("there is more to merge");
        slices += 1;
        pair.open_again();
        pair.check();
    }
    assert!(slices > 2, "{slices} slices");
}

/// Once the store is opened amid a merge, memory has nothing of the filter of the run that is being written.
#[test]
fn a_run_whose_merge_goes_on_gets_its_filter_again() {
    let mut pair = Pair::new();
    for version in 0..2 {
        for part in 0..4 {
            pair.take(&Step::Commit { from: part * 15_000, count: 5_000, apart: 3, version: Some(version) });
        }
    }
    let written = |pair: &Pair| {
        let list = pair.inner().runs.list();
        list.iter().find(|run| list.sources(run.id).next().is_some()).cloned()
    };
    pair.inner().merge_runs().unwrap();
    pair.open_again();
    let before = written(&pair).expect("it is not merged yet");
    assert!(before.filter.is_none());
    pair.inner().merge_runs().unwrap();
    pair.check();
    let again = written(&pair).expect("it is not merged yet");
    assert!(again.filter.is_some() && again.block_count > before.block_count, "it has the filter, and goes on");
    // Every third number of each part is a row.
    let denied = |run: &Run, offset: u32| {
        let keys = (0..20_000).map(|number| key(number * 3 + offset));
        let keys = keys.filter(|key| run.first.as_ref() <= Some(key) && Some(key) <= run.last.as_ref());
        let (mut count, mut denied) = (0, 0);
        for key in keys {
            (count, denied) = (count + 1, denied + u32::from(!run.may_have(&key, KeyHash::of_key(&key))));
        }
        (count, denied)
    };
    let (count, of_rows) = denied(&again, 0);
    assert!(count > 1_000 && of_rows == 0, "{of_rows} of {count}");
    let (count, of_others) = denied(&again, 1);
    assert!(of_others * 10 > count * 9, "{of_others} of {count}");
    while pair.inner().merge_runs().unwrap().is_some() {}
    let list = pair.inner().runs.list();
    assert!(list.iter().all(|run| run.filter.is_some()));
    let stored: i64 = pair
        .inner()
        .reader()
        .unwrap()
        .conn()
        .query_row("SELECT count(*) FROM row_filter", [], |row| row.get(0))
        .unwrap();
    assert_eq!(stored.unsigned_abs(), list.len() as u64);
    pair.check();
    pair.open_again();
}

/// Many runs are merged at once, but not when the store is to be closed.
#[test]
fn a_store_with_many_runs_can_be_closed() {
    let mut pair = Pair::new();
    // Each has rows between those of the others.
    for from in 0..80 {
        pair.take(&Step::Commit { from, count: 150, apart: 80, version: Some(1) });
        pair.take(&Step::Fold);
    }
    pair.inner().signal.close();
    assert_eq!(pair.inner().merge_runs().unwrap(), None);
    pair.open_again();
    pair.check();
    pair.inner().signal.wake();
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while pair.inner().has_many_runs() {
        assert!(std::time::Instant::now() < deadline, "{} runs", pair.run_count());
        thread::sleep(std::time::Duration::from_millis(5));
    }
    pair.check();
}

/// Rows are read while a merge deletes the blocks they are in.
#[test]
fn readers_see_one_state_while_runs_are_merged() {
    let mut pair = Pair::new();
    for version in 0..8 {
        commit(&mut pair, 0, 600, Some(version));
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut passes = 0;
                    while passes < 2 || !done.load(Ordering::Relaxed) {
                        pair.check();
                        passes += 1;
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            while pair.inner().merge_runs().unwrap().is_some() {}
            pair.inner().merge_all_runs().unwrap();
            let rows = (0..600).map(|number| (key(number), Some(row(&image(number, 7)))));
            pair.store().commit(Batch { rows: rows.collect(), ..Batch::default() }).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A block whose place says another key is noticed by whoever looks for a row in it.
#[test]
fn a_misplaced_block_is_noticed() {
    let mut pair = Pair::new();
    commit(&mut pair, 0, 500, Some(1));
    pair.store().commit(Batch::default()).unwrap();
    let writer = pair.inner().writer();
    writer
        .conn()
        .execute("UPDATE row_block SET block = (SELECT block FROM row_block ORDER BY id LIMIT 1)", [])
        .unwrap();
    drop(writer);
    let reader = pair.inner().reader().unwrap();
    let runs = RunList::load_without_filters(reader.conn()).unwrap();
    let mut rows = MergedRuns::of_all(reader.conn(), &runs, Bound::Unbounded).unwrap();
    let mut read = || {
        while rows.key().is_some() {
            rows.advance()?;
        }
        Ok::<_, super::super::super::StorageError>(())
    };
    assert_eq!(read().unwrap_err().code(), "STORE-0109");
    drop(reader);
    let found = (0..500).map(|number| pair.store().row(&key(number))).filter(Result::is_err).count();
    assert!(found > 100, "{found}");
}
