//! A definition that changed is built from stored rows; beside it, the same rows copied from Postgres.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use kairos_sync::storage::{BucketStore, SqliteOptions, SqliteStore};

use crate::{
    Figure,
    bench_source::{BenchSource, JOINED_RULES, RULES, USER_COUNT},
    paths::{per_second, rate},
    replica::Replica,
};

/// One definition before and after, and the rows it reads.
struct Change {
    name: &'static str,
    path: &'static str,
    before: &'static str,
    after: String,
    row_count: u64,
}

pub(super) async fn measure(source: &BenchSource) -> Result<Vec<Figure>, Box<dyn Error>> {
    let plain = Change {
        name: "plain",
        path: "rebuild of a definition, rows/s",
        before: RULES,
        after: RULES.replace("SELECT *", "SELECT id, owner, title, note, done"),
        row_count: source.row_count,
    };
    // What is asked of owners stays as it is; their own rows are built again, too.
    let joined = Change {
        name: "joined",
        path: "rebuild of one with a join, rows/s",
        before: JOINED_RULES,
        after: JOINED_RULES.replace("  mine:", "  mine_again:"),
        row_count: source.row_count + USER_COUNT,
    };
    Ok(vec![rebuild(source, &plain).await?, rebuild(source, &joined).await?])
}

async fn rebuild(source: &BenchSource, change: &Change) -> Result<Figure, Box<dyn Error>> {
    let folder = source.scratch(&format!("rebuild-{}", change.name));
    let store: Arc<dyn BucketStore> = Arc::new(SqliteStore::open(&folder, SqliteOptions::default())?);
    let started = Instant::now();
    let replica = Replica::start(&source.uri(), change.name, change.before, Arc::clone(&store))?;
    replica.wait_until_copied().await?;
    let snapshot = per_second(change.row_count, started.elapsed());
    // What the copy left to be done in the background is not the rebuild's.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let started = Instant::now();
    replica.want(&change.after)?;
    replica.wait_until_serving(store.as_ref(), 1).await?;
    let figure = rate(change.path, change.row_count, started.elapsed(), snapshot, "its snapshot");
    replica.stop().await?;
    source.drop_slots("kairos_stage_%").await?;
    Ok(figure)
}
