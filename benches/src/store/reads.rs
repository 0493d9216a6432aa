//! Buckets read whole, beside a file of the same bytes; and what the store takes on disk, beside the source.

use std::{
    error::Error,
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use kairos_sync::storage::{BucketStore, SqliteOptions, SqliteStore};
use kairos_sync_protocol::{BucketName, OpId};

use super::{megabytes, ratio};
use crate::{
    Figure,
    bench_source::{BenchSource, RULES, USER_COUNT},
    paths::rate,
    replica::Replica,
};

/// As much as a client's stream asks for at once.
const SLICE_BYTES: usize = 1 << 20;

pub(super) async fn measure(source: &BenchSource) -> Result<Vec<Figure>, Box<dyn Error>> {
    let folder = source.scratch("reads");
    let store: Arc<dyn BucketStore> = Arc::new(SqliteStore::open(&folder, SqliteOptions::default())?);
    let replica = Replica::start(&source.uri(), "reads", RULES, Arc::clone(&store))?;
    replica.wait_until_copied().await?;
    replica.stop().await?;
    source.drop_slots("kairos_stage_%").await?;
    let mut figures = sizes(source, store.as_ref()).await?;
    drop(store);

    let file = source.scratch("plain-file");
    let mut plain = File::create(&file)?;
    let store = SqliteStore::open(&folder, SqliteOptions::default())?;
    read_buckets(&store, |json| Ok(plain.write_all(json)?))?;
    plain.sync_all()?;
    drop(store);
    if drop_caches() {
        figures.push(read("bucket reads, cold, bytes/s", &folder, &file)?);
    }
    figures.push(read("bucket reads, warm, bytes/s", &folder, &file)?);
    Ok(figures)
}

fn read(path: &str, folder: &Path, file: &Path) -> Result<Figure, Box<dyn Error>> {
    let started = Instant::now();
    let byte_count = read_file(file)?;
    let plain = crate::paths::per_second(byte_count, started.elapsed());
    let started = Instant::now();
    let store = SqliteStore::open(folder, SqliteOptions::default())?;
    let mut read = 0;
    read_buckets(&store, |json| {
        read += json.len() as u64;
        Ok(())
    })?;
    Ok(rate(path, read, started.elapsed(), plain, "a file"))
}

fn read_file(file: &Path) -> Result<u64, Box<dyn Error>> {
    let (mut file, mut block, mut byte_count) = (File::open(file)?, vec![0; SLICE_BYTES], 0);
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(byte_count);
        }
        byte_count += read as u64;
    }
}

/// Every user's bucket, one after the other.
fn read_buckets(
    store: &SqliteStore,
    mut take: impl FnMut(&[u8]) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (prefix, upto) = {
        let view = store.view()?;
        (view.bucket_prefix(), view.checkpoint().ok_or("nothing is visible")?.op_id)
    };
    for user in 0..USER_COUNT {
        let bucket = BucketName::new(format!("{prefix}mine[\"user{user}\"]"));
        let mut after = OpId::ZERO;
        loop {
            let range = store.operations(&bucket, after, upto, SLICE_BYTES)?;
            take(&range.json.array()?)?;
            after = range.last_op_id;
            if !range.has_more {
                break;
            }
        }
    }
    Ok(())
}

/// So that files are read from the disk. Only root may do that, and only Linux has it.
pub(super) fn drop_caches() -> bool {
    let _ = Command::new("sync").status();
    fs::write("/proc/sys/vm/drop_caches", "1").is_ok()
}

/// Of a store whose rows are each in one bucket.
async fn sizes(source: &BenchSource, store: &dyn BucketStore) -> Result<Vec<Figure>, Box<dyn Error>> {
    // The background moves what is left in the tail, and gives back what it no longer needs.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let stored = store.stats()?.size_bytes;
    let table: i64 = source.sql.query_one("SELECT pg_table_size('items')", &[]).await?.get(0);
    let mut text = 0;
    let mut chunks = std::pin::pin!(source.sql.copy_out("COPY items TO STDOUT").await?);
    while let Some(chunk) = chunks.next().await {
        text += chunk?.len() as u64;
    }
    let figure = |path: &str, name: &str, bytes: u64| Figure {
        path: path.to_owned(),
        measured: megabytes(stored),
        limit: format!("{name} {}", megabytes(bytes)),
        ratio: Some(ratio(stored, bytes)),
    };
    Ok(vec![
        figure("the store on disk", "the table", table.unsigned_abs()),
        figure("the same", "the rows as text", text),
    ])
}
