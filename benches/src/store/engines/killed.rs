//! A store whose process is killed under load: how soon it can be read again, and whether it kept what it said it had.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use kairos_sync_protocol::operation::Operation;

use super::{
    engine::{Engine, Kind, Outcome},
    phases::{Measured, float},
    workload::{BUCKETS, Change, Workload, bucket_of, object_id},
};

/// Few rows, so that most are changed again and again.
const LOAD: Workload = Workload { rows: 20_000, changes: 100, has_operations: true };
/// How long a process works, its start included.
const LIFE: Duration = Duration::from_secs(1);

/// Commits, and says so, until it is killed.
pub(super) fn load(kind: Kind, folder: &Path) -> Outcome<Measured> {
    let mut engine = kind.open(folder)?;
    let mut out = std::io::stdout().lock();
    for position in engine.position()? + 1.. {
        engine.commit(&LOAD.changes(position))?;
        writeln!(out, "{position}")?;
        out.flush()?;
    }
    Ok(Vec::new())
}

/// Lets the child work for its life and kills it. What it last said to have committed; zero if nothing.
pub(super) fn kill(mut child: Child) -> Outcome<u64> {
    let pipe = child.stdout.take().ok_or("no pipe")?;
    let acknowledged = thread::spawn(move || {
        let lines = BufReader::new(pipe).split(b'\n').map_while(Result::ok);
        lines.filter_map(|line| std::str::from_utf8(&line).ok()?.parse::<u64>().ok()).max()
    });
    thread::sleep(LIFE);
    if let Some(status) = child.try_wait()? {
        return Err(format!("the load ended by itself: {status}").into());
    }
    child.kill()?;
    child.wait()?;
    let acknowledged = acknowledged.join().map_err(|_| "the reader of the pipe failed")?;
    Ok(acknowledged.unwrap_or_default())
}

/// Opens what the killed process left and looks at all of it. Ends without closing the store, as if killed again.
pub(super) fn check(kind: Kind, folder: &Path, acknowledged: u64) -> Outcome<Measured> {
    let started = Instant::now();
    let engine = kind.open(folder)?;
    let position = engine.position()?;
    if let Some(change) = LOAD.changes(acknowledged.max(1)).rows.first() {
        engine.row(change.row)?;
        engine.read(bucket_of(change.row), 0, &mut |_| Ok(()))?;
    }
    let readable = started.elapsed();
    verify(engine.as_ref(), &LOAD, acknowledged)?;
    let measured = vec![("readable", readable.as_secs_f64() * 1e3), ("position", float(position))];
    // Not dropped: nothing is to be written that a crash would not have written.
    std::mem::forget(engine);
    Ok(measured)
}

/// No acknowledged commit is missing, and of the commits up to the position everything is there and nothing of later ones:
/// rows, and the newest operation of each in its bucket.
pub(super) fn verify(engine: &dyn Engine, workload: &Workload, acknowledged: u64) -> Outcome<()> {
    let position = engine.position()?;
    if position < acknowledged {
        return Err(format!("commit {acknowledged} was acknowledged and is lost: the store is at {position}").into());
    }
    let mut expected: HashMap<u32, Change> = HashMap::new();
    for position in 1..=position {
        expected.extend(workload.changes(position).rows.into_iter().map(|change| (change.row, change)));
    }
    for row in 0..workload.rows {
        let image = expected.get(&row).map(|change| change.data.as_bytes());
        if engine.row(row)?.as_deref() != image {
            return Err(format!("row {row} is not as commits up to {position} made it").into());
        }
    }
    let mut newest: Vec<_> = expected.into_values().map(|change| (object_id(change.row), change)).collect();
    newest.sort_unstable_by_key(|(_, change)| bucket_of(change.row));
    let mut by_bucket = newest.chunk_by(|(_, one), (_, other)| bucket_of(one.row) == bucket_of(other.row)).peekable();
    for bucket in 0..BUCKETS {
        let wanted = by_bucket.next_if(|changes| bucket_of(changes[0].1.row) == bucket).unwrap_or_default();
        let wanted: HashMap<_, _> = wanted.iter().map(|(id, change)| (id.clone(), change.data.clone())).collect();
        if read_rows(engine, bucket)? != wanted {
            return Err(format!("operations of bucket {bucket} are not those of commits up to {position}").into());
        }
    }
    Ok(())
}

/// What a client has of a bucket once it has all operations.
fn read_rows(engine: &dyn Engine, bucket: u32) -> Outcome<HashMap<String, String>> {
    let mut rows = HashMap::new();
    engine.read(bucket, 0, &mut |slice| {
        let text = format!("[{}]", std::str::from_utf8(slice)?);
        for operation in serde_json::from_str::<Vec<Operation>>(&text)? {
            // What was superseded may be compacted.
            if let (Some(id), Some(data)) = (operation.object_id, operation.data) {
                rows.insert(id, data);
            }
        }
        Ok(())
    })?;
    Ok(rows)
}
