//! What only an engine with files must prove; the rest is in the conformance suite.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kairos_sync_protocol::Checksum;
use rusqlite::StatementStatus;
use tempfile::TempDir;

use super::{
    super::{
        BucketTotals, NewOperation, RANGE_OPERATIONS_MAX, RowOutput,
        conformance::{self, Engine},
    },
    *,
};

/// A store in a folder of its own.
pub(super) struct Folder {
    folder: TempDir,
    options: SqliteOptions,
}

impl Folder {
    pub(super) fn new(options: SqliteOptions) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), options }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn store(&self) -> Result<SqliteStore, StorageError> {
        SqliteStore::open(self.path(), self.options)
    }
}

impl Engine for Folder {
    fn open(&self) -> Arc<dyn BucketStore> {
        Arc::new(self.store().unwrap())
    }
}

/// Folds all the time.
fn restless() -> SqliteOptions {
    SqliteOptions { fold_operations: 7, ..compacting() }
}

/// Compacts whatever has grown at all, but only when asked.
fn compacting() -> SqliteOptions {
    let compaction = CompactionOptions { growth_min: 1, growth_percent: 0, rewrite_percent: 50, bytes_per_second: 0 };
    SqliteOptions { compaction, ..SqliteOptions::default() }
}

/// Everything goes through the tail.
pub(super) fn collecting() -> SqliteOptions {
    let straight = StraightLimits { chunk_bytes: usize::MAX, row_bytes: usize::MAX };
    SqliteOptions { straight, ..compacting() }
}

mod tail_only {
    use super::*;
    conformance::suite!(Folder::new(SqliteOptions::default()));
}

mod folding {
    use super::*;
    conformance::suite!(Folder::new(restless()));
}

/// Some operations and rows go straight to their places, others into a tail that is folded all the time.
fn straight() -> SqliteOptions {
    SqliteOptions { straight: StraightLimits { chunk_bytes: 300, row_bytes: 10 }, ..restless() }
}

mod going_straight {
    use super::*;
    conformance::suite!(Folder::new(straight()));
}

const END: OpId = OpId::ZERO;

fn bucket(number: u64) -> BucketName {
    BucketName::new(format!("b[{number}]"))
}

/// A batch with `count` operations over three buckets, of about 300 bytes each.
pub(super) fn batch(count: u64) -> Batch {
    let operation = |index: u64| NewOperation {
        output: RowOutput { bucket: bucket(index % 3), object_type: "t".into(), object_id: index.to_string().into() },
        subkey: "k".into(),
        checksum: Checksum::from_bits(0x4000_0001),
        data: Some(format!("{:0200}", index * 0x1234_5678_9ABC).into()),
    };
    Batch { operations: (0..count).map(operation).collect(), visible_at: Some(Lsn::new(1)), ..Batch::default() }
}

/// Everything clients can see: totals and operations of all buckets.
pub(super) fn contents(store: &SqliteStore) -> Vec<(BucketTotals, Vec<u8>)> {
    let view = store.view().unwrap();
    let upto = view.checkpoint().map_or(END, |checkpoint| checkpoint.op_id);
    let of_bucket = |number| {
        let mut json = Vec::new();
        let mut after = OpId::ZERO;
        loop {
            let range = store.operations(&bucket(number), after, upto, 5_000).unwrap();
            range.json.write(&mut json).unwrap();
            if !range.has_more {
                return (view.bucket(&bucket(number)).unwrap(), json);
            }
            after = range.last_op_id;
        }
    };
    (0..3).map(of_bucket).collect()
}

pub(super) fn count(store: &SqliteStore, sql: &str) -> i64 {
    store.inner.writer().conn().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_fold_changes_nothing_that_can_be_seen() {
    let folder = Folder::new(collecting());
    let store = folder.store().unwrap();
    for _ in 0..20 {
        store.commit(batch(100)).unwrap();
    }
    let before = contents(&store);
    store.inner.fold().unwrap();
    assert_eq!(contents(&store), before);
    assert_eq!(count(&store, "SELECT count(*) FROM tail"), 0, "all of the tail is in chunks");
    assert_eq!(store.inner.tail_read().size().operations, 0);
    drop(store);
    assert_eq!(contents(&folder.store().unwrap()), before);
}

#[test]
fn many_folds_leave_few_chunks() {
    let folder = Folder::new(collecting());
    let store = folder.store().unwrap();
    for _ in 0..100 {
        store.commit(batch(30)).unwrap();
        store.inner.fold().unwrap();
    }
    let chunks = count(&store, "SELECT count(*) FROM chunk");
    let bytes = count(&store, "SELECT sum(json_bytes) FROM chunk");
    // Full ones, and a few of growing size, for each of three buckets.
    assert!(chunks <= bytes / (256 << 10) + 3 * 8, "{chunks} chunks for {bytes} bytes");
    assert_eq!(contents(&store).iter().map(|(totals, _)| totals.count).sum::<u64>(), 3_000);
}

/// How many operations ranges have, read one after the other, and which of them are as the store has them.
fn ranges_after(store: &SqliteStore, mut after: u64) -> Vec<(usize, bool)> {
    let mut ranges = Vec::new();
    loop {
        let range =
            store.operations(&bucket(0), OpId::new(after).unwrap(), OpId::new(2_500).unwrap(), 384 << 10).unwrap();
        ranges.push((range.count, range.json.is_packed()));
        after = range.last_op_id.get();
        if !range.has_more {
            return ranges;
        }
    }
}

#[test]
fn who_wants_a_whole_chunk_gets_it_as_it_is_stored() {
    let folder = Folder::new(straight());
    let store = folder.store().unwrap();
    let operation = |number: u64| NewOperation {
        output: RowOutput { bucket: bucket(0), object_type: "t".into(), object_id: number.to_string().into() },
        subkey: "k".into(),
        checksum: Checksum::from_bits(1),
        data: Some("{}".into()),
    };
    let operations = (0..2_500).map(operation).collect();
    store.commit(Batch { operations, visible_at: Some(Lsn::new(1)), ..Batch::default() }).unwrap();
    store.inner.fold().unwrap();
    let most = count(&store, "SELECT max(operation_count) FROM chunk");
    assert_eq!(usize::try_from(most), Ok(RANGE_OPERATIONS_MAX), "as many as a client gets at once");
    let whole = [(RANGE_OPERATIONS_MAX, true), (RANGE_OPERATIONS_MAX, true), (500, true)];
    assert_eq!(ranges_after(&store, 0), whole);
    // From the middle of a chunk on: the next one is whole again.
    assert_eq!(ranges_after(&store, 300), [(RANGE_OPERATIONS_MAX - 300, false), whole[1], whole[2]]);
}

#[test]
fn a_fold_cut_off_halfway_loses_and_doubles_nothing() {
    let folder = Folder::new(collecting());
    let store = folder.store().unwrap();
    store.commit(batch(90)).unwrap();
    let before = contents(&store);
    let first = store.inner.tail_read().bucket_ids()[0];
    let upto = store.inner.bound();
    let plan = store.inner.plan(first, upto.op_id).unwrap().unwrap();
    assert!(store.inner.store_plans(upto, &[plan]).unwrap());
    assert_eq!(contents(&store), before);
    drop(store);

    let store = folder.store().unwrap();
    assert_eq!(store.inner.tail_read().size().operations, 60, "what is in a chunk is not read again");
    assert_eq!(contents(&store), before);
    store.inner.fold().unwrap();
    assert_eq!(contents(&store), before);
}

#[test]
fn rows_are_the_same_before_during_and_after_a_fold() {
    let folder = Folder::new(collecting());
    let key = |id: u32| RowKey { table: TableId(1), identity: id.to_be_bytes().into() };
    let row = |image: &'static str| StoredRow {
        image: image.into(),
        outputs: Vec::new(),
        lookups: Vec::new(),
        consulted: Vec::new(),
    };
    let commit = |store: &SqliteStore, rows: Vec<(u32, Option<StoredRow>)>| {
        let rows = rows.into_iter().map(|(id, row)| (key(id), row)).collect();
        store.commit(Batch { rows, ..batch(0) }).unwrap();
    };
    let rows = |store: &SqliteStore| {
        let keys = store.rows_of_table(TableId(1), None, 9).unwrap();
        assert_eq!(store.stats().unwrap().row_count, keys.len() as u64);
        keys.into_iter().map(|key| store.row(&key).unwrap().unwrap().image).collect::<Vec<_>>()
    };
    let store = folder.store().unwrap();
    commit(&store, vec![(1, Some(row("first"))), (2, Some(row("second"))), (4, Some(row("fourth")))]);
    store.inner.fold().unwrap();
    commit(&store, vec![(1, None), (2, Some(row("changed"))), (3, Some(row("third")))]);
    let expected = ["changed", "third", "fourth"];
    assert_eq!(rows(&store), expected);
    let upto = store.inner.bound();
    let first = store.inner.tail_read().rows.slice(upto.version, 2);
    assert!(store.inner.place_rows(upto, &first).unwrap());
    assert_eq!(rows(&store), expected, "two rows are in their place");
    drop(store);
    let store = folder.store().unwrap();
    assert_eq!(rows(&store), expected, "all are read again");
    store.inner.fold().unwrap();
    assert_eq!(rows(&store), expected);
    assert_eq!(count(&store, "SELECT count(*) FROM row_tail"), 0);
    assert_eq!(store.inner.tail_read().rows.bytes(), 0);
}

#[test]
fn a_fold_that_meets_a_reset_gives_up() {
    let folder = Folder::new(collecting());
    let store = folder.store().unwrap();
    store.commit(batch(90)).unwrap();
    let upto = store.inner.bound();
    let bucket = store.inner.tail_read().bucket_ids()[0];
    let plan = store.inner.plan(bucket, upto.op_id).unwrap().unwrap();
    store.reset().unwrap();
    assert!(!store.inner.store_plans(upto, &[plan]).unwrap());
    assert_eq!(count(&store, "SELECT count(*) FROM chunk"), 0);
}

#[test]
fn a_fold_gives_way_to_a_commit_that_took_its_operations_along() {
    let folder = Folder::new(SqliteOptions::default());
    let store = folder.store().unwrap();
    store.commit(batch(3)).unwrap();
    let upto = store.inner.bound();
    let bucket = store.inner.tail_read().bucket_ids()[0];
    let plan = store.inner.plan(bucket, upto.op_id).unwrap().unwrap();
    store.commit(batch(300)).unwrap();
    let before = contents(&store);
    assert!(store.inner.store_plans(upto, &[plan]).unwrap());
    assert_eq!(contents(&store), before);
    assert_eq!(before.iter().map(|(totals, _)| totals.count).sum::<u64>(), 303);
}

#[test]
fn a_folder_is_opened_once() {
    let folder = Folder::new(SqliteOptions::default());
    let _store = folder.store().unwrap();
    let error = folder.store().err().unwrap();
    assert_eq!(error.code(), "STORE-0103");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
}

#[test]
fn files_of_others_and_of_other_releases_are_refused() {
    let change = |sql: &str| {
        let folder = Folder::new(SqliteOptions::default());
        drop(folder.store().unwrap());
        Connection::open(folder.path().join("buckets.sqlite3")).unwrap().execute_batch(sql).unwrap();
        folder.store().err().unwrap()
    };
    let newer = change("PRAGMA user_version = 99");
    assert_eq!(newer.code(), "STORE-0102");
    assert!(newer.to_string().contains("99"), "{newer}");
    assert_eq!(change("PRAGMA application_id = 1").code(), "STORE-0102");

    let folder = Folder::new(SqliteOptions::default());
    let foreign = Connection::open(folder.path().join("buckets.sqlite3")).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (a)").unwrap();
    assert_eq!(folder.store().err().unwrap().code(), "STORE-0102", "a database without our mark is not touched");
}

#[test]
fn a_file_that_is_no_database_is_damaged() {
    let folder = Folder::new(SqliteOptions::default());
    fs::write(folder.path().join("buckets.sqlite3"), [7; 10_000]).unwrap();
    assert_eq!(folder.store().err().unwrap().code(), "STORE-0104");
}

/// What goes straight is there after the next opening, and meets what is in the tail.
#[test]
fn what_is_much_goes_past_the_tail() {
    let folder = Folder::new(SqliteOptions {
        straight: StraightLimits { row_bytes: 30, ..StraightLimits::default() },
        ..SqliteOptions::default()
    });
    let store = folder.store().unwrap();
    let key = |id: u32| RowKey { table: TableId(1), identity: id.to_be_bytes().into() };
    let row = |image: &'static str| {
        Some(StoredRow { image: image.into(), outputs: vec![], lookups: vec![], consulted: vec![] })
    };
    store.commit(Batch { rows: vec![(key(2), row("in the tail"))], ..batch(1) }).unwrap();
    let rows = vec![(key(3), row("straight")), (key(2), row("newer")), (key(1), row("straight"))];
    store.commit(Batch { rows, ..batch(300) }).unwrap();
    assert_eq!(count(&store, "SELECT count(*) FROM chunk"), 3);
    assert_eq!(count(&store, "SELECT sum(entry_count) FROM row_run"), 2, "a row in the tail stays there");
    assert!(store.inner.tail_read().bucket_ids().is_empty(), "what was in the tail went along");
    let seen = |store: &SqliteStore| {
        let images = [1, 2, 3].map(|id| store.row(&key(id)).unwrap().unwrap().image);
        assert_eq!(store.stats().unwrap().row_count, 3);
        (contents(store), images)
    };
    let before = seen(&store);
    assert_eq!(before.0.iter().map(|(totals, _)| totals.count).sum::<u64>(), 301);
    assert_eq!(before.1, ["straight", "newer", "straight"]);
    drop(store);
    let store = folder.store().unwrap();
    assert_eq!(seen(&store), before);
    store.inner.fold().unwrap();
    assert_eq!(seen(&store), before);
}

/// A store with operations in chunks and in the tail; its file, and the JSON of each bucket.
fn store_to_damage(folder: &Folder) -> (PathBuf, Vec<u8>, Vec<Vec<u8>>) {
    let store = folder.store().unwrap();
    store.commit(batch(600)).unwrap();
    store.inner.fold().unwrap();
    store.commit(batch(30)).unwrap();
    let originals = contents(&store).into_iter().map(|(_, json)| json).collect();
    drop(store);
    let file = folder.path().join("buckets.sqlite3");
    let intact = fs::read(&file).unwrap();
    (file, intact, originals)
}

/// Whatever can be read of the buckets is what was stored there. Returns the codes of what cannot be read.
fn nothing_is_changed(store: &SqliteStore, originals: &[Vec<u8>], damage: &str) -> Vec<&'static str> {
    let mut codes = Vec::new();
    for (number, original) in (0..).zip(originals) {
        let range = match store.operations(&bucket(number), OpId::ZERO, OpId::new(9_999).unwrap(), 1 << 20) {
            Ok(range) => range,
            Err(error) => {
                codes.push(error.code());
                continue;
            }
        };
        let json = range.json.array().unwrap();
        let sent: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(&json).unwrap();
        let text = std::str::from_utf8(original).unwrap();
        assert!(sent.iter().all(|operation| text.contains(operation.get())), "{damage}");
    }
    codes
}

/// A flip may go unnoticed where nobody looks, or hide operations; it never panics and never changes what is sent.
#[test]
fn flipped_bits_never_change_an_operation() {
    let folder = Folder::new(collecting());
    let (file, intact, originals) = store_to_damage(&folder);
    for _ in 0..150 {
        let mut bytes = intact.clone();
        let at = rand::random_range(0..bytes.len());
        bytes[at] ^= 1 << rand::random_range(0..8);
        fs::write(&file, &bytes).unwrap();
        let Ok(store) = folder.store() else { continue };
        nothing_is_changed(&store, &originals, &format!("flip in byte {at}"));
        let _ = store.view().map(|view| view.bucket(&bucket(0)).map(|_| ()));
        let _ = store.commit(batch(3));
    }
}

/// A damaged index leads to what is intact, but another bucket's.
#[test]
fn a_damaged_index_never_gives_the_operations_of_another_bucket() {
    /// Entries are written from the end of a page on.
    const FIRST_ENTRIES_BYTES: usize = 32;
    let folder = Folder::new(collecting());
    let (file, intact, originals) = store_to_damage(&folder);
    let (page_bytes, roots) = {
        let conn = Connection::open(&file).unwrap();
        let page_bytes: u32 = conn.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name IN ('sqlite_autoindex_bucket_1', 'chunk_position')";
        let mut statement = conn.prepare(sql).unwrap();
        let roots: Vec<u32> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        (page_bytes, roots)
    };
    assert_eq!(roots.len(), 2);
    for root in roots {
        let end = usize::try_from(root * page_bytes).unwrap();
        let mut codes = Vec::new();
        for bit in (end - FIRST_ENTRIES_BYTES) * 8..end * 8 {
            let mut bytes = intact.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &bytes).unwrap();
            match folder.store() {
                Ok(store) => codes.extend(nothing_is_changed(&store, &originals, &format!("page {root}, bit {bit}"))),
                Err(error) => codes.push(error.code()),
            }
        }
        // That it is more than a bucket is found out later.
        let is_noticed = codes.iter().any(|code| ["STORE-0104", "STORE-0106"].contains(code));
        assert!(is_noticed, "page {root}: nothing was noticed");
    }
}

#[test]
fn commits_wait_for_room_in_the_tail() {
    let options = SqliteOptions { fold_operations: 100, ..SqliteOptions::default() };
    let folder = Folder::new(options);
    let store = folder.store().unwrap();
    for _ in 0..60 {
        store.commit(batch(100)).unwrap();
        let operations = store.inner.tail_read().size().operations;
        assert!(operations <= TAIL_FULL_PERCENT + 100, "{operations} operations in memory");
    }
}

#[test]
fn a_row_never_goes_back_while_it_is_moved() {
    let options = SqliteOptions { fold_operations: 20, ..SqliteOptions::default() };
    let folder = Folder::new(options);
    let store = folder.store().unwrap();
    let key = |number: u32| RowKey { table: TableId(1), identity: number.to_be_bytes().into() };
    let state = |version: u32| StoredRow {
        image: Bytes::copy_from_slice(&version.to_be_bytes()),
        outputs: vec![],
        lookups: vec![],
        consulted: vec![],
    };
    let commit = |version| {
        let rows = (0..10).map(|number| (key(number), Some(state(version)))).collect();
        store.commit(Batch { rows, ..Batch::default() }).unwrap();
    };
    commit(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    let image = |number| {
        let row = store.row(&key(number)).unwrap().expect("it is never gone");
        u32::from_be_bytes(row.image[..].try_into().unwrap())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = [0; 10];
            while !done.load(Ordering::Relaxed) {
                for (number, seen) in (0..).zip(&mut seen) {
                    let found = image(number);
                    assert!(found >= *seen, "row {number} went back from {seen} to {found}");
                    *seen = found;
                }
            }
        });
        (1..=300).for_each(commit);
        done.store(true, Ordering::Relaxed);
    });
    assert!((0..10).all(|number| image(number) == 300));
}

/// A row as a round leaves it.
fn in_round(id: u64, round: u64) -> NewOperation {
    NewOperation {
        output: RowOutput { bucket: bucket(0), object_type: "t".into(), object_id: id.to_string().into() },
        subkey: "k".into(),
        checksum: Checksum::from_bits(u32::try_from(id * 1_000 + round).unwrap()),
        data: Some(format!("{{\"round\":{round}}}").into()),
    }
}

/// A row that never changes would keep all later operations from becoming a CLEAR.
#[test]
fn a_few_old_rows_do_not_keep_many_operations_alive() {
    let rewriting = |rewrite_percent| {
        let compaction = CompactionOptions { growth_min: 50, growth_percent: 20, rewrite_percent, bytes_per_second: 0 };
        let folder = Folder::new(SqliteOptions { compaction, ..collecting() });
        let store = folder.store().unwrap();
        let commit = |operations| store.commit(Batch { operations, ..batch(0) }).unwrap();
        commit((1..=3).map(|id| in_round(id, 0)).collect());
        let mut appended = 3;
        for round in 1..=60 {
            let growth = commit((0..10).map(|_| in_round(9, round)).collect()).buckets;
            appended += growth.iter().map(|growth| growth.added.count).sum::<u64>();
            store.inner.fold().unwrap();
            while store.compact().unwrap() {}
        }
        let totals = store.view().unwrap().bucket(&bucket(0)).unwrap();
        (totals.count, appended - 603)
    };
    let (count, again) = rewriting(80);
    assert!(count < 150, "{count} operations for 4 rows");
    assert!((3..=60).contains(&again), "{again} were written again");
    let (count, again) = rewriting(0);
    assert!(count > 590 && again == 0, "{count} operations, {again} written again");
}

/// With the options of a service, in the background: what few rows were changed into often is soon little again.
#[test]
fn compaction_goes_on_by_itself() {
    let folder = Folder::new(SqliteOptions::default());
    let store = folder.store().unwrap();
    let commit = |operations| store.commit(Batch { operations, ..batch(0) }).unwrap();
    commit((0..53).map(|id| in_round(id, 0)).collect());
    for round in 1..=100 {
        commit((3..53).map(|id| in_round(id, round)).collect());
    }
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    for round in 101.. {
        commit(vec![in_round(3, round)]);
        let count = store.view().unwrap().bucket(&bucket(0)).unwrap().count;
        if count < 1_000 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{count} operations for 53 rows");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_reads_operations_is_prepared_once() {
    let folder = Folder::new(straight());
    let store = folder.store().unwrap();
    store.commit(batch(900)).unwrap();
    let upto = store.view().unwrap().checkpoint().unwrap().op_id;
    for after in [0, 3, 6, 9] {
        let range = store.operations(&bucket(0), OpId::new(after).unwrap(), upto, 5_000).unwrap();
        assert!(range.has_more, "it is in chunks");
    }
    let reader = store.inner.reader().unwrap();
    let statement = reader.conn().prepare_cached(&chunk::visit_sql()).unwrap();
    assert_eq!(statement.get_status(StatementStatus::Run), 4, "this connection was asked");
    assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
}
