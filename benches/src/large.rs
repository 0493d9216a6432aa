//! One transaction of gigabytes: how much memory the service takes for it, and how long.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use kairos_sync::demo::process::ServiceProcess;

use crate::{bench_source::BenchSource, paths::wait_until_ready};

const DEADLINE: Duration = Duration::from_mins(20);
/// Often enough to see what a commit of some megabytes takes.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What one large transaction took.
pub(crate) struct LargeTransaction {
    pub(crate) row_count: u64,
    /// WAL it made, in bytes.
    pub(crate) wal_bytes: i64,
    /// While it ran in the source.
    pub(crate) ran: Duration,
    /// From its commit until it was durable in the store.
    pub(crate) followed: Duration,
    /// Most memory the service held meanwhile, and before, in bytes.
    pub(crate) peak_bytes: u64,
    pub(crate) idle_bytes: u64,
}

/// Inserts `row_count` rows of a kibibyte at once.
pub(crate) async fn measure(source: &BenchSource, row_count: u64) -> Result<LargeTransaction, Box<dyn Error>> {
    let service = source.start_service().await?;
    wait_until_ready(&service).await?;
    let mut memory = Memory { service: &service, peak_bytes: 0 };
    let idle_bytes = memory.look();
    let before = position(source).await?;
    let insert = format!(
        "INSERT INTO items SELECT n + 1000000000, 'user' || n % 100, 'item number ' || n, repeat(md5(n::text), 29), \
         n % 3 = 0, n / 7.0, '2026-01-01'::timestamptz FROM generate_series(1, {row_count}) n"
    );
    let started = Instant::now();
    let inserted = source.sql.batch_execute(&insert);
    tokio::pin!(inserted);
    loop {
        tokio::select! {
            done = &mut inserted => break done?,
            () = tokio::time::sleep(LOOK_INTERVAL) => drop(memory.look()),
        }
    }
    let ran = started.elapsed();
    let end = position(source).await?;
    let sql = "SELECT coalesce(bool_and(confirmed_flush_lsn >= $1::text::pg_lsn), false) FROM pg_replication_slots \
               WHERE slot_name LIKE 'kairos_bench_%'";
    let committed = Instant::now();
    while !source.sql.query_one(sql, &[&end]).await?.get::<_, bool>(0) {
        if committed.elapsed() > DEADLINE {
            return Err(format!("the service does not catch up:\n{}", service.log_tail()).into());
        }
        memory.look();
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let sql = "SELECT pg_wal_lsn_diff($1::text::pg_lsn, $2::text::pg_lsn)::bigint";
    let wal_bytes = source.sql.query_one(sql, &[&end, &before]).await?.get(0);
    let peak_bytes = memory.peak_bytes;
    Ok(LargeTransaction { row_count, wal_bytes, ran, followed: committed.elapsed(), peak_bytes, idle_bytes })
}

struct Memory<'s> {
    service: &'s ServiceProcess,
    peak_bytes: u64,
}

impl Memory<'_> {
    fn look(&mut self) -> u64 {
        let now = self.service.resident_bytes().unwrap_or(0);
        self.peak_bytes = self.peak_bytes.max(now);
        now
    }
}

async fn position(source: &BenchSource) -> Result<String, Box<dyn Error>> {
    Ok(source.sql.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?.get(0))
}
