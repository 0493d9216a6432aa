//! Power that fails: of what was written since the last sync, any part of 512 bytes may have reached the disk and any other
//! not. The store is then as after the last acknowledged commit, or as after the one that was under way.
//!
//! The files are copied after each step and put together as a disk could have left them. When SQLite syncs is taken from
//! its documentation, not observed: the log after a commit of ours; its header when it begins again; when the log is copied,
//! the log first, the database last. `POWER_SEED=n POWER_CASES=1` replays a case.

use std::fs;

use tempfile::TempDir;

use super::{
    mending_tests::{BUCKETS, Device, Rows, bucket, number, put},
    *,
};
use crate::{fuzz::Random, storage::NewOperation};

const FILES: [&str; 2] = ["buckets.sqlite3", "buckets.sqlite3-wal"];
const SECTOR: usize = 512;
/// Bytes of the header of a log.
const LOG_HEADER: usize = 32;
const CASES: u64 = 60;
const STEPS: usize = 25;

/// The database and its log.
type Files = [Vec<u8>; 2];

fn options() -> SqliteOptions {
    SqliteOptions {
        straight: StraightLimits { chunk_bytes: 2_000, row_bytes: 20_000 },
        compaction: CompactionOptions { growth_min: 20, growth_percent: 10, rewrite_percent: 50, bytes_per_second: 0 },
        scrub_bytes_per_second: 0,
        ..SqliteOptions::default()
    }
}

fn files_of(folder: &TempDir) -> Files {
    FILES.map(|name| fs::read(folder.path().join(name)).unwrap_or_default())
}

/// What may be on the disk of a file that was like this when it was last synced, and was written since.
fn torn(random: &mut Random, synced: &[u8], written: &[u8]) -> Vec<u8> {
    let length = if written.len() > synced.len() {
        synced.len() + random.below(written.len() - synced.len() + 1)
    } else {
        written.len()
    };
    // Often everything or nothing, as it mostly is.
    let percent = [0, 100, 10, 50, 90][random.below(5)];
    let mut torn = Vec::with_capacity(length);
    while torn.len() < length {
        let range = torn.len()..(torn.len() + SECTOR).min(length);
        match synced.get(range.clone()).filter(|_| !random.chance(percent)) {
            Some(old) => torn.extend_from_slice(old),
            // What was never written reads as zeros.
            None if range.start >= synced.len() && !random.chance(percent) => torn.resize(range.end, 0),
            None => torn.extend_from_slice(&written[range]),
        }
    }
    torn
}

/// The log as it was last synced. Where it began again since, its new header was synced before anything was written behind
/// it: with the old one, what is left of the old log would be played back over a database that is ahead of it.
fn synced_log(synced: &[u8], written: &[u8]) -> Vec<u8> {
    let mut log = synced.to_vec();
    if let (Some(old), Some(new)) = (log.get_mut(..LOG_HEADER), written.get(..LOG_HEADER)) {
        old.copy_from_slice(new);
    }
    log
}

/// A commit that says its number everywhere, and what buckets have with it.
fn commit(random: &mut Random, number: u64, rows: &mut [Rows]) -> Batch {
    let count = if random.chance(20) { 150 } else { 8 };
    let mut operations: Vec<NewOperation> = Vec::new();
    let mut stored = std::collections::BTreeMap::new();
    for _ in 0..count {
        let id = random.below(90);
        let data = format!(r#"{{"id":"{id}","commit":{number},"title":"{:032x}"}}"#, random.next());
        operations.push(put(id % BUCKETS, &id.to_string(), &data));
        rows[id % BUCKETS].insert(id.to_string(), data.clone());
        let key = RowKey { table: TableId(1), identity: id.to_string().as_bytes().into() };
        stored.insert(key, Some(StoredRow { image: data.into(), ..StoredRow::default() }));
    }
    Batch {
        operations,
        rows: stored.into_iter().collect(),
        replication_state: Some(Bytes::from(number.to_le_bytes().to_vec())),
        visible_at: Some(Lsn::new(number)),
        ..Batch::default()
    }
}

/// Which commit a store is as of; it must be so in all it has.
fn state_of(folder: &TempDir, states: &[Vec<Rows>], case: &str) -> u64 {
    let found = Verification::of(folder.path(), &mut |_| {}).unwrap();
    assert!(found.is_whole(), "{case}: {found:?}");
    let store = SqliteStore::open(folder.path(), options()).unwrap();
    let number = store.view().unwrap().checkpoint().map_or(0, |checkpoint| checkpoint.lsn.get());
    let says = store.replication_state().unwrap();
    assert_eq!(says.map_or(0, |says| u64::from_le_bytes(says[..].try_into().unwrap())), number, "{case}");
    for (number_of_bucket, rows) in states[usize::try_from(number).unwrap()].iter().enumerate() {
        let mut device = Device::default();
        device.sync(&store, number_of_bucket).unwrap();
        assert_eq!(device.rows, *rows, "{case}: bucket {number_of_bucket}");
        for (id, data) in rows {
            let key = RowKey { table: TableId(1), identity: id.as_bytes().into() };
            assert_eq!(store.row(&key).unwrap().unwrap().image, data.as_bytes(), "{case}: row {id}");
        }
    }
    // It can be used on.
    store
        .commit(Batch { operations: vec![put(0, "on", "{}")], visible_at: Some(Lsn::new(1)), ..Batch::default() })
        .unwrap();
    assert!(store.view().unwrap().bucket(&bucket(0)).unwrap().count > 0, "{case}");
    number
}

/// Puts files together and looks at what a store makes of them.
fn after_power_failure(files: &Files, states: &[Vec<Rows>], case: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in FILES.iter().zip(files) {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    state_of(&folder, states, case)
}

/// What a step did to the disk.
enum Step {
    /// Synced when it returned.
    Commit,
    /// Not synced.
    Later,
    /// The log was copied into the database.
    LogCopied,
}

fn step(store: &SqliteStore, random: &mut Random, states: &mut Vec<Vec<Rows>>) -> Step {
    match random.below(10) {
        0..=5 => {
            let mut rows = states.last().unwrap().clone();
            store.commit(commit(random, states.len() as u64, &mut rows)).unwrap();
            states.push(rows);
            Step::Commit
        }
        6 => {
            store.inner.fold().unwrap();
            Step::Later
        }
        7 | 8 => {
            for _ in 0..8 {
                store.compact().unwrap();
            }
            Step::Later
        }
        _ => {
            let maintenance = store.inner.maintenance();
            maintenance.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            Step::LogCopied
        }
    }
}

/// Runs some steps, after each of which power may fail. How often the store was as after the last acknowledged commit, and
/// as after the one under way.
fn run(seed: u64) -> [u64; 2] {
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), options()).unwrap();
    // The background has nothing to do from then on.
    while store.inner.has_forgotten.load(Ordering::Relaxed) {
        thread::yield_now();
    }
    drop(store.inner.maintenance());
    let mut states = vec![vec![Rows::new(); BUCKETS]];
    let mut synced = files_of(&folder);
    let mut counts = [0; 2];
    for number in 0..STEPS {
        let acknowledged = states.len() as u64 - 1;
        let done = step(&store, &mut random, &mut states);
        let written = files_of(&folder);
        let case = format!("POWER_SEED={seed}, step {number}");
        let [database, log] = match done {
            Step::LogCopied if random.chance(50) => [torn(&mut random, &synced[0], &written[0]), written[1].clone()],
            _ => [synced[0].clone(), torn(&mut random, &synced_log(&synced[1], &written[1]), &written[1])],
        };
        if matches!(done, Step::LogCopied | Step::Commit) || random.chance(30) {
            let state = after_power_failure(&[database, log], &states, &case);
            assert!(state >= acknowledged, "{case}: commit {acknowledged} was acknowledged, and {state} is there");
            counts[usize::from(state > acknowledged)] += 1;
        }
        if matches!(done, Step::LogCopied | Step::Commit) {
            synced = written;
        }
    }
    counts
}

#[test]
fn no_acknowledged_commit_is_lost_and_none_is_torn_when_power_fails() {
    let first = number("POWER_SEED", 1);
    let mut counts = [0; 2];
    for seed in first..first + number("POWER_CASES", CASES) {
        for (sum, count) in counts.iter_mut().zip(run(seed)) {
            *sum += count;
        }
    }
    println!("{counts:?} failures of power left the last acknowledged commit, or the one under way as well");
    assert!(counts.iter().all(|count| *count > 0));
}

/// Were the log not synced by a commit, this test would see it.
#[test]
fn a_commit_that_did_not_reach_the_disk_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), options()).unwrap();
    let mut states = vec![vec![Rows::new(); BUCKETS]];
    let before = files_of(&folder);
    let mut rows = states[0].clone();
    store.commit(commit(&mut Random::new(1), 1, &mut rows)).unwrap();
    states.push(rows);
    assert_eq!(after_power_failure(&before, &states, "before"), 0);
    assert_eq!(after_power_failure(&files_of(&folder), &states, "after"), 1);
}
