//! WAL that is kept for the slot is watched, and an operator is warned in time, once per threshold.

use std::{
    io,
    num::NonZeroU64,
    sync::{Arc, Mutex},
    time::Duration,
};

use kairos_sync::{
    demo::cluster::PgCluster,
    postgres::SourceConfig,
    replication::{Budget, SlotWal},
};
use tokio_postgres::Client;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use crate::replica::{Replica, connect, source_with as source, write_segments};

const MEGABYTE: u64 = 1 << 20;

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn count(&self, part: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).matches(part).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Asks often, so that the test need not wait long.
fn config(cluster: &PgCluster, slot_wal_budget: Option<u64>) -> SourceConfig {
    let source = SourceConfig::from_uri(&cluster.uri("postgres", "postgres")).expect("a usable URI");
    let heartbeat = Some(Duration::from_millis(100));
    SourceConfig { heartbeat, slot_wal_budget: slot_wal_budget.and_then(NonZeroU64::new), ..source }
}

fn wal(replica: &Replica) -> Option<SlotWal> {
    replica.status.snapshot().slot_wal
}

/// Lets the slot keep WAL step by step, and looks at what is said.
async fn fill_the_budget(cluster: &PgCluster, client: &Client, replica: &Replica, log: &Log) -> SlotWal {
    // Until it ends, the slot keeps what was written since.
    let other = connect(cluster).await;
    other.batch_execute("BEGIN; INSERT INTO items VALUES ('late')").await.expect("begins");
    let mut written = 0;
    for (segments, half, nearly) in [(1, 0, 0), (8, 1, 0), (1, 1, 0), (4, 1, 1)] {
        write_segments(client, segments).await;
        written += u64::from(segments) * 16 * MEGABYTE;
        // What was written before the transaction began has been let go of.
        let is_seen = |replica: &Replica| wal(replica).is_some_and(|wal| wal.retained_bytes + 16 * MEGABYTE > written);
        replica.wait_until(is_seen).await;
        replica.wait_until(|_| log.count("more than half of") >= half && log.count("four fifths of") >= nearly).await;
        let said = (log.count("more than half of"), log.count("more than four fifths of"));
        assert_eq!(said, (half, nearly), "after {written} bytes: {:?}", wal(replica));
    }
    let last = wal(replica).expect("asked");
    other.batch_execute("COMMIT").await.expect("commits");
    last
}

#[tokio::test]
async fn the_bound_of_the_server_is_watched_and_its_use_is_told_in_time() {
    let (cluster, client) = source(&[("max_slot_wal_keep_size", "240MB")]).await;
    let (log, _guard) = Log::capture();
    let replica = Replica::start_from(config(&cluster, None));
    replica.catch_up(&client).await;
    let wal = fill_the_budget(&cluster, &client, &replica, &log).await;
    let Some(Budget::Server(budget)) = wal.budget else { panic!("{wal:?}") };
    assert!((224 * MEGABYTE..=272 * MEGABYTE).contains(&budget), "{budget}");
    assert!(log.count("max_slot_wal_keep_size allows") > 0);
    let metrics = String::from_utf8(replica.metrics.render()).expect("text");
    assert!(
        metrics.contains("kairos_slot_retained_bytes ") && metrics.contains("kairos_slot_budget_bytes "),
        "{metrics}"
    );
    assert!(replica.metrics.slot_budget_bytes.get() > 0);
    replica.stop().await;
}

#[tokio::test]
async fn without_a_bound_of_the_server_ours_is_watched() {
    let (cluster, client) = source(&[]).await;
    let (log, _guard) = Log::capture();
    let replica = Replica::start_from(config(&cluster, Some(240 * MEGABYTE)));
    replica.catch_up(&client).await;
    let wal = fill_the_budget(&cluster, &client, &replica, &log).await;
    assert_eq!(wal.budget, Some(Budget::Configured(240 * MEGABYTE)));
    assert!(log.count("slot_wal_budget_bytes") > 0);
    replica.stop().await;
}

#[tokio::test]
async fn a_bound_that_is_small_beside_the_tables_is_told_before_they_are_copied() {
    let (cluster, client) = source(&[("max_slot_wal_keep_size", "1MB")]).await;
    let fill = "INSERT INTO items SELECT 'i' || n, repeat('x', 1000) FROM generate_series(1, 3000) n";
    client.batch_execute(fill).await.expect("fills");
    let (log, _guard) = Log::capture();
    let replica = Replica::start_from(config(&cluster, None));
    replica.catch_up(&client).await;
    assert_eq!(log.count("max_slot_wal_keep_size is 1 MB, less than the 3 MB that are to be copied"), 1);
    replica.stop().await;
}

#[tokio::test]
async fn slots_left_behind_are_named_with_the_wal_they_keep() {
    let (cluster, client) = source(&[]).await;
    let leave = "SELECT pg_create_logical_replication_slot('kairos_left', 'pgoutput')";
    client.batch_execute(leave).await.expect("leaves a slot");
    write_segments(&client, 3).await;
    let (log, _guard) = Log::capture();
    let replica = Replica::start_from(config(&cluster, None));
    replica.catch_up(&client).await;
    assert_eq!(log.count("nobody reads replication slot kairos_left, and Postgres keeps "), 1);
    assert_eq!(log.count(" MB of WAL for it"), 1, "about three segments");
    replica.stop().await;
}
