//! What is measured of one engine, each in a process of its own: memory and written bytes are the engine's then.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{peak_bytes, reads::drop_caches, written_bytes},
    engine::{Engine, Kind, Outcome},
    workload::{BUCKETS, Changes, Workload},
};
use crate::paths::{per_second, percentile};

/// A name and a number.
pub(super) type Measured = Vec<(&'static str, f64)>;

/// Rows that commits change.
const COMMIT_ROWS: u32 = 200_000;
/// Rows of a commit while a table is copied.
const COPY_ROWS: u32 = 10_000;
/// Rows that an update of a large table changes at once, and how many such updates there are at most.
const UPDATE_ROWS: u32 = 100;
const UPDATES: u32 = 1_000;
const UPDATE_TIME: Duration = Duration::from_secs(8);
/// An engine that has written nothing for so long has nothing to do; nor is it waited for any longer than that.
const QUIET: Duration = Duration::from_millis(500);
const QUIET_WAIT_MAX: Duration = Duration::from_secs(5);
/// Buckets that are read.
const READ_BUCKETS: u32 = 500;

/// How much is committed: as many as the time allows, for engines that are slow.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitScope {
    pub(super) operations: u32,
    pub(super) commits: u32,
    pub(super) time: Duration,
}

/// Synced commits into an empty store.
pub(super) fn commits(kind: Kind, folder: &Path, scope: CommitScope) -> Outcome<Measured> {
    let mut engine = kind.open(folder)?;
    let workload = Workload { rows: COMMIT_ROWS, changes: scope.operations, has_operations: true };
    let mut times = Times::default();
    let before = written_bytes();
    let (started, mut payload) = (Instant::now(), 0);
    for position in 1..=u64::from(scope.commits) {
        if started.elapsed() > scope.time {
            break;
        }
        let changes = workload.changes(position);
        payload += changes.payload();
        times.time(|| engine.commit(&changes))?;
    }
    settle();
    drop(engine);
    let written = written_bytes() - before;
    let mut measured = times.figures(u64::from(scope.operations));
    measured.extend([
        ("bytes written for each of JSON", float(written) / float(payload)),
        ("bytes on disk for each of JSON", float(size_of(folder)?) / float(payload)),
        ("largest resident size, MiB", float(peak_bytes()) / MIB),
    ]);
    Ok(measured)
}

/// A table of so many rows is copied.
pub(super) fn copy(kind: Kind, folder: &Path, rows: u32) -> Outcome<Measured> {
    let mut engine = kind.open(folder)?;
    let mut took = Duration::ZERO;
    for (first, position) in (0..rows).step_by(COPY_ROWS as usize).zip(1..) {
        let changes = Changes::copied(position, first..rows.min(first.saturating_add(COPY_ROWS)));
        let started = Instant::now();
        engine.commit(&changes)?;
        took += started.elapsed();
    }
    settle();
    drop(engine);
    Ok(vec![("rows/s", per_second(u64::from(rows), took)), ("size on disk, MB", float(size_of(folder)?) / 1e6)])
}

/// Rows of that table change, scattered over all of it. As in replication each is read before.
pub(super) fn updates(kind: Kind, folder: &Path, rows: u32) -> Outcome<Measured> {
    let mut engine = kind.open(folder)?;
    let workload = Workload { rows, changes: UPDATE_ROWS, has_operations: false };
    let (before, started) = (written_bytes(), Instant::now());
    let (mut reading, mut read, mut payload, mut times) = (Duration::ZERO, 0, 0, Times::default());
    let first = engine.position()? + 1;
    for position in first..first + u64::from(UPDATES) {
        if started.elapsed() > UPDATE_TIME {
            break;
        }
        let changes = workload.changes(position);
        payload += changes.payload();
        let reads = Instant::now();
        for change in &changes.rows {
            engine.row(change.row)?.ok_or("a copied row is missing")?;
            read += 1;
        }
        reading += reads.elapsed();
        times.time(|| engine.commit(&changes))?;
    }
    settle();
    drop(engine);
    let written = written_bytes() - before;
    let mut measured = times.figures(u64::from(UPDATE_ROWS));
    measured.extend([
        ("rows read before it, rows/s", per_second(read, reading)),
        ("bytes written for each of JSON", float(written) / float(payload)),
        ("size on disk, MB", float(size_of(folder)?) / 1e6),
        ("largest resident size, MiB", float(peak_bytes()) / MIB),
    ]);
    Ok(measured)
}

/// Buckets, whole and from the middle on, first from the disk and then once more.
pub(super) fn reads(kind: Kind, folder: &Path) -> Outcome<Measured> {
    let mut measured = read_twice(kind, folder, ["whole, cold, MB/s", "whole, warm, MB/s"], |_| 0)?;
    let names = ["second half, cold, MB/s", "second half, warm, MB/s"];
    measured.extend(read_twice(kind, folder, names, |last_op_id| last_op_id / 2)?);
    Ok(measured)
}

/// Opening the store belongs to the first time. Without the right to drop the system's caches that is left out.
fn read_twice(kind: Kind, folder: &Path, names: [&'static str; 2], after: fn(u64) -> u64) -> Outcome<Measured> {
    let mut measured = Vec::new();
    let is_cold = drop_caches();
    let mut started = Instant::now();
    let engine = kind.open(folder)?;
    let after = after(engine.last_op_id()?);
    for name in names {
        let bytes = read_buckets(engine.as_ref(), after)?;
        if is_cold || name == names[1] {
            measured.push((name, per_second(bytes, started.elapsed()) / 1e6));
        }
        started = Instant::now();
    }
    Ok(measured)
}

/// How many bytes they have.
fn read_buckets(engine: &dyn Engine, after: u64) -> Outcome<u64> {
    let mut bytes = 0;
    for bucket in (0..BUCKETS).step_by((BUCKETS / READ_BUCKETS) as usize) {
        engine.read(bucket, after, &mut |slice| {
            bytes += slice.len() as u64;
            Ok(())
        })?;
    }
    Ok(bytes)
}

/// A store that was closed is opened and asked for its position and a row.
pub(super) fn reopen(kind: Kind, folder: &Path) -> Outcome<Measured> {
    let started = Instant::now();
    let engine = kind.open(folder)?;
    engine.position()?;
    engine.row(0)?.ok_or("a copied row is missing")?;
    Ok(vec![("until a row is read, ms", started.elapsed().as_secs_f64() * 1e3)])
}

/// How long each commit took.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn time(&mut self, run: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
        let started = Instant::now();
        run()?;
        self.0.push(started.elapsed());
        Ok(())
    }

    fn figures(mut self, operations: u64) -> Measured {
        let (count, sum) = (self.0.len() as u64, self.0.iter().sum());
        let mut percentile = |percent| percentile(&mut self.0, percent).as_secs_f64() * 1e3;
        vec![
            ("commits made", float(count)),
            ("commits/s", per_second(count, sum)),
            ("operations/s", per_second(count * operations, sum)),
            ("commit p50, ms", percentile(50)),
            ("commit p99, ms", percentile(99)),
            ("longest commit, ms", percentile(100)),
        ]
    }
}

const MIB: f64 = 1_048_576.0;

#[expect(clippy::cast_precision_loss, reason = "figures are for people")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// Lets the engine end what it does in the background.
fn settle() {
    let started = Instant::now();
    let mut last = (written_bytes(), Instant::now());
    while started.elapsed() < QUIET_WAIT_MAX && last.1.elapsed() < QUIET {
        thread::sleep(QUIET / 10);
        let written = written_bytes();
        if written != last.0 {
            last = (written, Instant::now());
        }
    }
}

/// Blocks that files take: some are made larger than what is in them.
pub(super) fn size_of(folder: &Path) -> Outcome<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let metadata = entry.as_ref().map_err(ToString::to_string)?.metadata()?;
        size += if metadata.is_dir() { size_of(&entry?.path())? } else { metadata.blocks() * 512 };
    }
    Ok(size)
}
