//! The disk below the store: how long its log gets, and what becomes of a commit that does not reach it.

use std::fs;

use super::{
    tests::{Folder, batch, collecting, contents, count},
    *,
};

#[test]
fn the_log_is_kept_small() {
    let folder = Folder::new(SqliteOptions::default());
    let store = folder.store().unwrap();
    let row = |size: usize| StoredRow {
        image: vec![b'x'; size].into(),
        outputs: Vec::new(),
        lookups: Vec::new(),
        consulted: Vec::new(),
    };
    // Each replaces the same megabyte of rows, so that only the log grows.
    for _ in 0..80 {
        let rows = (0..256_u32)
            .map(|id| (RowKey { table: TableId(1), identity: id.to_be_bytes().into() }, Some(row(4_000))))
            .collect();
        store.commit(Batch { rows, ..batch(1) }).unwrap();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.inner.has_work() {
        assert!(std::time::Instant::now() < deadline, "the log is not copied");
        thread::sleep(Duration::from_millis(5));
    }
    let log = fs::metadata(folder.path().join("buckets.sqlite3-wal")).unwrap().len();
    assert!(log < 64 << 20, "{log} bytes of log after 80 MiB of changes");
}

/// Rows that compression does not make shorter.
fn long_rows(ids: std::ops::Range<u32>) -> Batch {
    let mut noise = u64::from(ids.start) + 1;
    let mut image = || {
        let next = |_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()
        };
        (0..375).flat_map(next).collect::<Vec<_>>()
    };
    let rows = ids.map(|id| {
        let row = StoredRow { image: image().into(), ..StoredRow::default() };
        (RowKey { table: TableId(1), identity: id.to_be_bytes().into() }, Some(row))
    });
    Batch { rows: rows.collect(), ..batch(1) }
}

#[test]
fn the_log_is_kept_small_while_a_fold_writes_much_and_rows_are_read() {
    let folder = Folder::new(SqliteOptions { fold_operations: usize::MAX, fold_bytes: usize::MAX, ..collecting() });
    let store = folder.store().unwrap();
    store.commit(long_rows(0..1)).unwrap();
    store.inner.fold().unwrap();
    for first in (1..20_001).step_by(2_000) {
        store.commit(long_rows(first..first + 2_000)).unwrap();
    }
    // From here on a transaction is open.
    assert!(store.row(&RowKey { table: TableId(1), identity: 0_u32.to_be_bytes().into() }).unwrap().is_some());
    store.inner.fold().unwrap();
    let bytes = |name| fs::metadata(folder.path().join(name)).unwrap().len();
    let (log, file) = (bytes("buckets.sqlite3-wal"), bytes("buckets.sqlite3"));
    assert!(file > 64 << 20 && log < 32 << 20, "{log} bytes of log for {file}");
}

#[test]
fn a_closed_store_has_no_log() {
    let folder = Folder::new(collecting());
    let store = folder.store().unwrap();
    store.commit(long_rows(0..1)).unwrap();
    store.inner.fold().unwrap();
    // Both kinds of readers.
    assert!(store.row(&RowKey { table: TableId(1), identity: 0_u32.to_be_bytes().into() }).unwrap().is_some());
    assert!(store.replication_state().unwrap().is_none());
    drop(store);
    assert!(!folder.path().join("buckets.sqlite3-wal").exists());
}

#[test]
fn nothing_is_written_after_a_failed_sync() {
    let folder = Folder::new(SqliteOptions::default());
    let store = folder.store().unwrap();
    store.commit(batch(9)).unwrap();
    let before = contents(&store);
    store.inner.writer().notice(&StorageError::Unsynced);
    let error = store.commit(batch(1)).err().unwrap();
    assert_eq!(error.code(), "STORE-0108", "{error}");
    assert_eq!(contents(&store), before, "reading goes on");
}

/// Rows are read while folds move them, through a transaction that stays open from row to row.
#[test]
fn a_full_disk_fails_the_whole_commit_and_the_store_goes_on() {
    let folder = Folder::new(SqliteOptions::default());
    let store = folder.store().unwrap();
    store.commit(batch(9)).unwrap();
    let limit = |pages: i64| {
        let writer = store.inner.writer();
        writer.conn().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    let before = contents(&store);
    limit(count(&store, "PRAGMA page_count") + 2);
    let error = store.commit(batch(3_000)).err().unwrap();
    assert_eq!(error.code(), "STORE-0107", "{error}");
    assert_eq!(contents(&store), before, "nothing of the batch is there");

    limit(1 << 30);
    assert_eq!(store.commit(batch(3)).unwrap().checkpoint.unwrap().op_id, OpId::new(12).unwrap(), "no id was lost");
    drop(store);
    assert_eq!(contents(&folder.store().unwrap()).iter().map(|(totals, _)| totals.count).sum::<u64>(), 12);
}
