//! A store of a million buckets and ten million operations: how soon it is open, in how much memory, and how long it then
//! takes to know the state of one client's buckets.

use std::{
    error::Error,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use kairos_sync::{
    lsn::Lsn,
    storage::{Batch, BucketStore, NewOperation, RowOutput, SqliteOptions, SqliteStore},
};
use kairos_sync_protocol::{BucketName, Checksum};

use super::{megabytes, peak_bytes};
use crate::Figure;

/// Operations of a commit.
const COMMIT: u64 = 10_000;
/// Operations in a bucket in the end.
const OPERATIONS_PER_BUCKET: u64 = 10;
/// Buckets of the client that is asked for.
const CLIENT_BUCKETS: u64 = 1_000;

/// Says to this program that it is to open a store and tell how long it took.
pub(crate) const OPEN: &str = "open-store";

pub(crate) fn measure(bucket_count: u64) -> Result<Vec<Figure>, Box<dyn Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let operation_count = bucket_count * OPERATIONS_PER_BUCKET;
    let (filled, size) = fill(folder.path(), bucket_count)?;
    // In a process of its own, so that its memory is that of an open store alone.
    let output =
        Command::new(std::env::current_exe()?).arg(OPEN).arg(folder.path()).arg(bucket_count.to_string()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let told = String::from_utf8(output.stdout)?;
    let [opened, checkpoint, peak] = told.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err(format!("not understood: {told}").into());
    };
    let figure =
        |path: String, measured: String, limit: &str| Figure { path, measured, limit: limit.to_owned(), ratio: None };
    Ok(vec![
        figure(
            format!("{operation_count} operations into {bucket_count} buckets"),
            format!("{:.1} s, {}", filled.as_secs_f64(), megabytes(size)),
            "",
        ),
        figure("the store is open again".to_owned(), format!("{opened} ms"), "aim 1 s"),
        figure(format!("the state of {CLIENT_BUCKETS} buckets, at first"), format!("{checkpoint} ms"), ""),
        figure("largest resident size of that process".to_owned(), megabytes(peak.parse()?), ""),
    ])
}

/// Each commit has operations for buckets that follow each other, so that every bucket grows now and then.
fn fill(folder: &Path, bucket_count: u64) -> Result<(Duration, u64), Box<dyn Error>> {
    let store = SqliteStore::open(folder, SqliteOptions::default())?;
    let prefix = store.bucket_prefix()?;
    let started = Instant::now();
    for first in (0..bucket_count * OPERATIONS_PER_BUCKET).step_by(usize::try_from(COMMIT)?) {
        let operation = |number: u64| {
            let (id, data) =
                (number.to_string(), format!(r#"{{"id":"{number}","title":"item number {number}","done":0}}"#));
            NewOperation {
                output: RowOutput {
                    bucket: bucket(&prefix, number % bucket_count),
                    object_type: "items".into(),
                    object_id: id.as_str().into(),
                },
                subkey: id.as_str().into(),
                checksum: Checksum::of_put("items", &id, &data),
                data: Some(data.into()),
            }
        };
        let operations = (first..first + COMMIT).map(operation).collect();
        store.commit(Batch { operations, visible_at: Some(Lsn::new(first + 1)), ..Batch::default() })?;
    }
    let took = started.elapsed();
    Ok((took, store.stats()?.size_bytes))
}

fn bucket(prefix: &str, number: u64) -> BucketName {
    BucketName::new(format!("{prefix}mine[\"user{number}\"]"))
}

/// Opens the store and prints what [`measure`] reads: milliseconds until it is open and until a client's state is known, and
/// the largest resident size.
pub(crate) fn open(folder: &Path, bucket_count: u64) -> Result<String, Box<dyn Error>> {
    let started = Instant::now();
    let store = SqliteStore::open(folder, SqliteOptions::default())?;
    let opened = started.elapsed();
    let prefix = store.bucket_prefix()?;
    let started = Instant::now();
    let view = store.view()?;
    let step = (bucket_count / CLIENT_BUCKETS).max(1);
    for number in (0..bucket_count).step_by(usize::try_from(step)?) {
        let totals = view.bucket(&bucket(&prefix, number))?;
        if totals.count != OPERATIONS_PER_BUCKET {
            return Err(format!("bucket {number} has {} operations", totals.count).into());
        }
    }
    let checkpoint = started.elapsed();
    Ok(format!("{:.1} {:.1} {}\n", opened.as_secs_f64() * 1e3, checkpoint.as_secs_f64() * 1e3, peak_bytes()))
}
