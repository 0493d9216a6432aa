//! Synced commits, and what they write to the disk; beside them, the same texts appended to a table of SQLite.
//!
//! Operations of 150 to 600 bytes scattered over 2,000 buckets, each with its row in a row store of 200,000 rows.

use std::{
    collections::BTreeSet,
    error::Error,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kairos_sync::{
    lsn::Lsn,
    storage::{Batch, BucketStore, NewOperation, RowKey, RowOutput, SqliteOptions, SqliteStore, StoredRow, TableId},
};
use kairos_sync_protocol::{BucketName, Checksum};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{ratio, written_bytes};
use crate::{
    Figure,
    paths::{per_second, percentile},
};

const BUCKETS: u32 = 2_000;
const ROWS: u32 = 200_000;

/// How much is committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitScope {
    /// In each commit.
    pub(super) operations: usize,
    pub(super) commits: usize,
}

/// What the commits took.
struct Outcome {
    times: Vec<Duration>,
    /// Bytes of JSON that were to be kept.
    payload: u64,
    /// Bytes that went to disks meanwhile.
    written: u64,
}

impl Outcome {
    fn commit_rate(&self) -> f64 {
        per_second(self.times.len() as u64, self.times.iter().sum())
    }
}

pub(super) fn measure(scope: CommitScope) -> Result<Vec<Figure>, Box<dyn Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let mut plain = append_to_sqlite(folder.path(), scope)?;
    let mut stored = {
        let store = SqliteStore::open(&folder.path().join("store"), SqliteOptions::default())?;
        commit_to_store(&store, scope)?
    };
    // Closing the store ends what it does in the background; the disk may still be busy with it.
    let operations = scope.operations;
    let rate = |outcome: &Outcome| {
        let per_commit = u32::try_from(operations).map_or(f64::NAN, f64::from);
        format!("{:.0} ({:.0} operations/s)", outcome.commit_rate(), outcome.commit_rate() * per_commit)
    };
    let p99 = |outcome: &mut Outcome| percentile(&mut outcome.times, 99).as_secs_f64() * 1e3;
    let amplification = |outcome: &Outcome| ratio(outcome.written, outcome.payload);
    Ok(vec![
        Figure {
            path: format!("commits/s of {operations} operations"),
            measured: rate(&stored),
            limit: format!("plain append {}", rate(&plain)),
            ratio: Some(stored.commit_rate() / plain.commit_rate()),
        },
        Figure {
            path: "the same, the slowest in a hundred, ms".to_owned(),
            measured: format!("{:.1}", p99(&mut stored)),
            limit: format!("plain append {:.1}", p99(&mut plain)),
            ratio: Some(p99(&mut stored) / p99(&mut plain)),
        },
        Figure {
            path: "the same, bytes written for each of JSON".to_owned(),
            measured: format!("{:.1}", amplification(&stored)),
            limit: format!("plain append {:.1}", amplification(&plain)),
            ratio: Some(amplification(&stored) / amplification(&plain)),
        },
    ])
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
    let mut rows = BTreeSet::new();
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

fn commit_to_store(store: &SqliteStore, scope: CommitScope) -> Result<Outcome, Box<dyn Error>> {
    let mut rng = StdRng::seed_from_u64(1);
    let (before, mut payload, mut times) = (written_bytes(), 0, Vec::new());
    for _ in 0..scope.commits {
        let batch = batch(&mut rng, scope.operations);
        let texts = batch.operations.iter().filter_map(|operation| operation.data.as_ref());
        payload += texts.map(|data| data.len() as u64).sum::<u64>();
        let started = Instant::now();
        store.commit(batch)?;
        times.push(started.elapsed());
    }
    Ok(Outcome { times, payload, written: written_bytes() - before })
}

/// The floor: without buckets, rows, totals.
fn append_to_sqlite(folder: &std::path::Path, scope: CommitScope) -> Result<Outcome, Box<dyn Error>> {
    let mut conn = rusqlite::Connection::open(folder.join("append.sqlite3"))?;
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.execute_batch("CREATE TABLE operation (id INTEGER PRIMARY KEY, data TEXT)")?;
    let mut rng = StdRng::seed_from_u64(1);
    let (before, mut payload, mut times) = (written_bytes(), 0, Vec::new());
    for _ in 0..scope.commits {
        let rows = (0..scope.operations).map(|_| rng.random_range(0..ROWS)).collect::<Vec<_>>();
        let texts: Vec<_> = rows.into_iter().map(|row| data(&mut rng, row)).collect();
        payload += texts.iter().map(|text| text.len() as u64).sum::<u64>();
        let started = Instant::now();
        let tx = conn.transaction()?;
        for text in &texts {
            tx.prepare_cached("INSERT INTO operation (data) VALUES (?1)")?.execute([text])?;
        }
        tx.commit()?;
        times.push(started.elapsed());
    }
    Ok(Outcome { times, payload, written: written_bytes() - before })
}
