//! Speed of the embedded store, beside what the same machine does without it in the same run.
//!
//! Operations of 150 to 600 bytes scattered over 2,000 buckets, each with its row in a row store of 200,000 rows, in
//! synced commits; then all buckets are read whole. Compare within a run only.

use std::{
    error::Error,
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kairos_sync::{
    lsn::Lsn,
    storage::{Batch, BucketStore, NewOperation, RowKey, RowOutput, SqliteOptions, SqliteStore, StoredRow, TableId},
};
use kairos_sync_protocol::{BucketName, Checksum, OpId};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const BUCKETS: u32 = 2_000;
const ROWS: u32 = 200_000;

fn main() -> Result<(), Box<dyn Error>> {
    println!("| writing | commits/s | operations/s | p50 | p99 | longest | bytes written / bytes of operations |");
    println!("|---|---|---|---|---|---|---|");
    for (commits, operations) in [(1_000, 100), (150, 2_000)] {
        append_to_sqlite(commits, operations)?;
        let folder = tempfile::tempdir_in(".")?;
        let store = SqliteStore::open(folder.path(), SqliteOptions::default())?;
        commit_to_store(&store, commits, operations)?;
        read_buckets(&store)?;
        reopen(store, folder.path())?;
    }
    Ok(())
}

/// Something like a row as JSON: names repeat, values do not.
fn data(rng: &mut StdRng, row: u32) -> String {
    let length = rng.random_range(20..300);
    let text: String = (0..length).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
    let at = rng.random_range(1_000_000_000..2_000_000_000_u32);
    format!(r#"{{"id":"{row:08}","owner_id":"u{}","title":"{text}","done":{},"updated_at":{at}}}"#, row % 997, row % 2)
}

fn batch(rng: &mut StdRng, operations: usize) -> Batch {
    let mut batch = Batch { visible_at: Some(Lsn::new(1)), ..Batch::default() };
    let mut rows = std::collections::BTreeSet::new();
    while rows.len() < operations {
        rows.insert(rng.random_range(0..ROWS));
    }
    for row in rows {
        let data = data(rng, row);
        let output = RowOutput {
            bucket: BucketName::new(format!("todos[\"{}\"]", rng.random_range(0..BUCKETS))),
            object_type: "todos".into(),
            object_id: format!("{row:08}").into(),
        };
        let stored = StoredRow {
            image: Bytes::from(data.clone()),
            outputs: vec![output.clone()],
            lookups: Vec::new(),
            consulted: Vec::new(),
        };
        batch.rows.push((RowKey { table: TableId(1), identity: row.to_be_bytes().into() }, Some(stored)));
        batch.operations.push(NewOperation {
            output,
            subkey: format!("1/{row:08x}").into(),
            checksum: Checksum::from_bits(row),
            data: Some(data.into()),
        });
    }
    batch
}

fn commit_to_store(store: &SqliteStore, commits: usize, operations: usize) -> Result<(), Box<dyn Error>> {
    let mut rng = StdRng::seed_from_u64(1);
    let written = written_bytes();
    let mut payload = 0;
    let mut times = Vec::new();
    for _ in 0..commits {
        let batch = batch(&mut rng, operations);
        payload += batch
            .operations
            .iter()
            .filter_map(|operation| operation.data.as_ref())
            .map(|data| data.len())
            .sum::<usize>();
        let started = Instant::now();
        store.commit(batch)?;
        times.push(started.elapsed());
    }
    report(&format!("store, {operations} operations a commit"), operations, times, written, payload);
    Ok(())
}

/// The floor: the same texts appended to a table of SQLite, synced, without buckets, rows, totals.
fn append_to_sqlite(commits: usize, operations: usize) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let mut conn = rusqlite::Connection::open(folder.path().join("append.sqlite3"))?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.execute_batch("CREATE TABLE operation (id INTEGER PRIMARY KEY, data TEXT)")?;
    let mut rng = StdRng::seed_from_u64(1);
    let written = written_bytes();
    let mut payload = 0;
    let mut times = Vec::new();
    for _ in 0..commits {
        let texts: Vec<_> = (0..operations)
            .map(|_| {
                let row = rng.random_range(0..ROWS);
                data(&mut rng, row)
            })
            .collect();
        payload += texts.iter().map(String::len).sum::<usize>();
        let started = Instant::now();
        let tx = conn.transaction()?;
        for text in &texts {
            tx.prepare_cached("INSERT INTO operation (data) VALUES (?1)")?.execute([text])?;
        }
        tx.commit()?;
        times.push(started.elapsed());
    }
    report(&format!("plain SQLite append, {operations} rows a commit"), operations, times, written, payload);
    Ok(())
}

fn report(what: &str, operations: usize, mut times: Vec<Duration>, written_before: u64, payload: usize) {
    let total: f64 = times.iter().map(Duration::as_secs_f64).sum();
    times.sort_unstable();
    let commits = times.len();
    let percentile = |percent: usize| times[(commits * percent / 100).min(commits - 1)];
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (rate, amplification) =
        (commits as f64 / total, (written_bytes() - written_before) as f64 / payload.max(1) as f64);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let operation_rate = rate * operations as f64;
    println!(
        "| {what} | {rate:.0} | {operation_rate:.0} | {:.1?} | {:.1?} | {:.1?} | {amplification:.1} |",
        percentile(50),
        percentile(99),
        percentile(100),
    );
}

fn read_buckets(store: &SqliteStore) -> Result<(), Box<dyn Error>> {
    let upto = store.view()?.checkpoint().map_or(OpId::ZERO, |checkpoint| checkpoint.op_id);
    let started = Instant::now();
    let mut read = Vec::new();
    for number in 0..BUCKETS {
        let bucket = BucketName::new(format!("todos[\"{number}\"]"));
        let mut after = OpId::ZERO;
        loop {
            let range = store.operations(&bucket, after, upto, 1 << 20)?;
            after = range.last_op_id;
            read.push(range.json);
            if !range.has_more {
                break;
            }
        }
    }
    let elapsed = started.elapsed();
    let bytes: usize = read.iter().map(Bytes::len).sum();
    let started = Instant::now();
    let copies: Vec<Vec<u8>> = read.iter().map(|range| range.to_vec()).collect();
    black_box(&copies);
    let copying = started.elapsed();
    println!(
        "\nreading {BUCKETS} buckets, {} MB: {elapsed:.1?}; copying the same bytes in memory: {copying:.1?}\n",
        bytes / 1_000_000
    );
    Ok(())
}

fn reopen(store: SqliteStore, folder: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let size = store.stats()?.size_bytes;
    drop(store);
    let started = Instant::now();
    let store = SqliteStore::open(folder, SqliteOptions::default())?;
    println!("opening again: {:.1?}; on disk: {} MB\n", started.elapsed(), size / 1_000_000);
    drop(store);
    Ok(())
}

/// Bytes this process has sent to disks, where the system says so.
fn written_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
}
