//! Kills a process that commits to the embedded store, at random moments, and checks what it left.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use bytes::Bytes;
use kairos_sync::{
    lsn::Lsn,
    storage::{
        Batch, BucketStore, LookupKey, LookupValue, NewOperation, RowKey, RowOutput, SqliteOptions, SqliteStore,
        StoredRow, TableId,
    },
};
use kairos_sync_protocol::{BucketName, Checksum, OpId, operation::Operation};

const KILLS: u32 = 15;
/// Tells the process made by this test where the store is.
const FOLDER_VARIABLE: &str = "KAIROS_TEST_KILLED_STORE";
const BUCKETS: u64 = 7;

/// Folds often, so that many kills hit one.
fn open(folder: &Path) -> SqliteStore {
    let options = SqliteOptions { fold_operations: 300, ..SqliteOptions::default() };
    SqliteStore::open(folder, options).expect("the store opens after a kill")
}

fn bucket(number: u64) -> BucketName {
    BucketName::new(format!("b[{number}]"))
}

fn row_key() -> RowKey {
    RowKey { table: TableId(1), identity: b"a".as_slice().into() }
}

fn lookup() -> LookupKey {
    LookupKey("l".into())
}

/// Between 1 and 97 operations, always the same for the same batch.
fn operation_count(batch: u64) -> u64 {
    batch * 31 % 97 + 1
}

fn operation(batch: u64, index: u64) -> NewOperation {
    let id = format!("{batch}-{index}");
    let data = format!(r#"{{"id":"{id}","text":"{}"}}"#, "x".repeat(200));
    let checksum = Checksum::of_put("t", &id, &data);
    let output = RowOutput { bucket: bucket(index % BUCKETS), object_type: "t".into(), object_id: id.into() };
    NewOperation { output, subkey: "k".into(), checksum, data: Some(data.into()) }
}

/// Carries its number in every part.
fn batch(number: u64) -> Batch {
    let text = number.to_string();
    let image = Bytes::copy_from_slice(text.as_bytes());
    let row = StoredRow { image: image.clone(), outputs: Vec::new(), lookups: Vec::new(), consulted: Vec::new() };
    Batch {
        operations: (0..operation_count(number)).map(|index| operation(number, index)).collect(),
        rows: vec![(row_key(), Some(row))],
        lookups: vec![(lookup(), row_key(), vec![LookupValue(text.into())])],
        replication_state: Some(image),
        visible_at: Some(Lsn::new(number)),
        ..Batch::default()
    }
}

fn last_batch(store: &SqliteStore) -> u64 {
    let state = store.replication_state().expect("readable");
    state.map_or(0, |state| std::str::from_utf8(&state).expect("text").parse().expect("a number"))
}

/// Not a test of its own: the process that is killed. It tells each commit once that has returned.
#[test]
fn commits_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else { return };
    let store = open(Path::new(&folder));
    let mut out = std::io::stdout();
    for number in last_batch(&store) + 1.. {
        store.commit(batch(number)).expect("commits");
        writeln!(out, "\ncommitted {number}").and_then(|()| out.flush()).expect("the parent listens");
    }
}

/// Lets the other process commit for a while, kills it, and says which commit it last told of.
fn run_and_kill(folder: &Path, time: Duration) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "commits_until_killed", "--nocapture"])
        .env(FOLDER_VARIABLE, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let listener = thread::spawn(move || {
        let told = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("committed ")?.parse().ok());
        told.last()
    });
    thread::sleep(time);
    child.kill().expect("killed");
    child.wait().expect("ended");
    listener.join().expect("read to the end")
}

/// Every part of the store says the same number of batches, and every operation of them is there once.
fn check(store: &SqliteStore) -> u64 {
    let last = last_batch(store);
    let view = store.view().expect("readable");
    let Some(checkpoint) = view.checkpoint() else {
        assert_eq!(last, 0);
        return 0;
    };
    assert_eq!(checkpoint.lsn, Lsn::new(last));
    assert_eq!(checkpoint.op_id.get(), (1..=last).map(operation_count).sum::<u64>());
    let text = last.to_string();
    assert_eq!(view.lookup(&lookup()).expect("readable"), [LookupValue(text.as_str().into())]);
    assert_eq!(store.row(&row_key()).expect("readable").expect("there").image, text);
    for number in 0..BUCKETS {
        let expected = (1..=last).flat_map(|batch| (0..operation_count(batch)).map(move |index| (batch, index)));
        let expected = expected.filter(|(_, index)| index % BUCKETS == number);
        let all = read_all(store, &bucket(number), checkpoint.op_id);
        let ids = all.iter().map(|operation| operation.object_id.clone().unwrap_or_default());
        assert!(ids.eq(expected.map(|(batch, index)| format!("{batch}-{index}"))), "bucket {number}");
        let totals = view.bucket(&bucket(number)).expect("readable");
        assert_eq!(totals.count, all.len() as u64);
        assert_eq!(totals.checksum, all.iter().map(|operation| operation.checksum).sum());
    }
    last
}

fn read_all(store: &SqliteStore, bucket: &BucketName, upto: OpId) -> Vec<Operation> {
    let mut all: Vec<Operation> = Vec::new();
    loop {
        let after = all.last().map(|operation| operation.op_id).unwrap_or_default();
        let range = store.operations(bucket, after, upto, 1 << 20).expect("readable");
        let json = range.json.array().expect("whole");
        all.extend(serde_json::from_slice::<Vec<Operation>>(&json).expect("valid"));
        if !range.has_more {
            return all;
        }
    }
}

#[test]
fn a_kill_leaves_all_of_a_batch_or_none_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().expect("made");
    let mut last = 0;
    for _ in 0..KILLS {
        let told = run_and_kill(folder.path(), Duration::from_millis(rand::random_range(20..250))).unwrap_or(last);
        let store = open(folder.path());
        let found = check(&store);
        // The last commit may have returned without being told of.
        assert!(found == told || found == told + 1, "told of {told}, found {found}");
        let next = store.commit(batch(found + 1)).expect("goes on");
        assert!(next.checkpoint.is_some_and(|checkpoint| checkpoint.op_id.get() > found));
        last = found + 1;
    }
    assert!(last > u64::from(KILLS), "the other process committed, too");
}
