//! What is measured of one engine, each in a process of its own: memory and written bytes are the engine's then.

use std::{
    fs,
    io::Write,
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
use crate::{
    paths::{per_second, percentile},
    replication::processor_time,
};

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
/// How often a long copy says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// Buckets that are read.
const READ_BUCKETS: u32 = 500;

/// How much is committed: as many as the time allows, for engines that are slow.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitScope {
    pub(super) operations: u32,
    pub(super) commits: u32,
    pub(super) time: Duration,
}

/// Synced commits into a store that has an operation in each bucket.
pub(super) fn commits(kind: Kind, folder: &Path, scope: CommitScope) -> Outcome<Measured> {
    let mut engine = kind.open(folder)?;
    let begin = Workload { rows: BUCKETS, changes: BUCKETS, has_operations: true }.changes(1);
    engine.commit(&begin)?;
    let workload = Workload { rows: COMMIT_ROWS, changes: scope.operations, has_operations: true };
    let mut load = Load::start();
    for position in (2..).take(scope.commits as usize) {
        if load.started.elapsed() > scope.time {
            break;
        }
        load.commit(engine.as_mut(), &workload.changes(position))?;
    }
    settle();
    drop(engine);
    let on_disk = float(size_of(folder)?) / float(load.payload + begin.payload());
    let mut measured = load.figures(&workload);
    measured.extend([
        ("bytes on disk for each of JSON", on_disk),
        ("largest resident size, MiB", float(peak_bytes()) / MIB),
    ]);
    Ok(measured)
}

/// A table of so many rows is copied.
pub(super) fn copy(kind: Kind, folder: &Path, rows: u32) -> Outcome<Measured> {
    let mut engine = kind.open(folder)?;
    let (mut took, mut told) = (Duration::ZERO, Instant::now());
    for (first, position) in (0..rows).step_by(COPY_ROWS as usize).zip(1..) {
        let changes = Changes::copied(position, first..rows.min(first.saturating_add(COPY_ROWS)));
        let started = Instant::now();
        engine.commit(&changes)?;
        took += started.elapsed();
        if told.elapsed() > PROGRESS {
            writeln!(std::io::stderr(), "engines: {first} of {rows} rows are there")?;
            told = Instant::now();
        }
    }
    settle();
    drop(engine);
    Ok(vec![("rows/s", per_second(u64::from(rows), took)), ("size on disk, MB", float(size_of(folder)?) / 1e6)])
}

/// Rows of that table change, scattered over all of it. As in replication each is read before.
pub(super) fn updates(kind: Kind, folder: &Path, rows: u32) -> Outcome<Measured> {
    let mut engine = kind.open(folder)?;
    let workload = Workload { rows, changes: UPDATE_ROWS, has_operations: false };
    let (mut reading, mut read, mut load) = (Duration::ZERO, 0, Load::start());
    for position in (engine.position()? + 1..).take(UPDATES as usize) {
        if load.started.elapsed() > UPDATE_TIME {
            break;
        }
        let changes = workload.changes(position);
        let reads = Instant::now();
        for change in &changes.rows {
            engine.row(change.row)?.ok_or("a copied row is missing")?;
            read += 1;
        }
        reading += reads.elapsed();
        load.commit(engine.as_mut(), &changes)?;
    }
    settle();
    drop(engine);
    let mut measured = load.figures(&workload);
    measured.extend([
        ("rows read before it, rows/s", per_second(read, reading)),
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

/// Commits, and what they took.
struct Load {
    started: Instant,
    processor: Duration,
    written: u64,
    positions: Vec<u64>,
    times: Vec<Duration>,
    payload: u64,
}

impl Load {
    fn start() -> Self {
        let processor = processor_time().unwrap_or_default();
        let (positions, times) = (Vec::new(), Vec::new());
        Self { started: Instant::now(), processor, written: written_bytes(), positions, times, payload: 0 }
    }

    fn commit(&mut self, engine: &mut dyn Engine, changes: &Changes) -> Outcome<()> {
        self.payload += changes.payload();
        let started = Instant::now();
        engine.commit(changes)?;
        self.times.push(started.elapsed());
        self.positions.push(changes.position);
        Ok(())
    }

    /// To be called once the engine is closed.
    fn figures(&mut self, workload: &Workload) -> Measured {
        let written = written_bytes() - self.written;
        let (count, sum) = (self.times.len() as u64, self.times.iter().sum());
        let changes = count * u64::from(workload.changes);
        let processor = self.processor(workload).as_secs_f64() * 1e6 / float(changes);
        let mut percentile = |percent| percentile(&mut self.times, percent).as_secs_f64() * 1e3;
        vec![
            ("commits made", float(count)),
            ("changes/s", per_second(changes, sum)),
            ("commit p50, ms", percentile(50)),
            ("commit p99, ms", percentile(99)),
            ("longest commit, ms", percentile(100)),
            ("processor time for each change, µs", processor),
            ("bytes written for each of JSON", float(written) / float(self.payload)),
        ]
    }

    /// Of all threads, less what it takes to make the changes.
    fn processor(&self, workload: &Workload) -> Duration {
        let Some(made) = processor_time() else { return Duration::ZERO };
        for position in &self.positions {
            std::hint::black_box(workload.changes(*position));
        }
        let making = processor_time().unwrap_or(made).saturating_sub(made);
        made.saturating_sub(self.processor).saturating_sub(making)
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
