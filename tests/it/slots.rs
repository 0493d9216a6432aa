//! The life of the slot: it comes late, gets lost, is dropped; clients get what has really changed.

use std::{path::Path, process::Command};

use kairos_sync::{
    demo::cluster::PgCluster,
    lsn::Lsn,
    postgres::{Failover, SourceConfig, blocker::Blocker},
    replication::{Phase, StatusSnapshot},
    storage::{Batch, DeploymentNumber, StoredRules, WriteCheckpointKey},
};
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::Client;

use crate::replica::{Replica, connect, create_tables, write_segments};

const DEADLINE: Duration = Duration::from_mins(1);
/// Slots are lost after three segments.
const SHORT_WAL: [(&str, &str); 1] = [("max_slot_wal_keep_size", "48MB")];
const ONE_CHANGE: &str = "UPDATE items SET title = title || '.' WHERE id = 'b'";

/// A server with the test's tables and two rows.
async fn source(bin: Option<&Path>, settings: &[(&str, &str)]) -> (PgCluster, Client) {
    let cluster = PgCluster::start_with(bin, settings).expect("a server");
    let client = connect(&cluster).await;
    create_tables(&client).await;
    client.batch_execute("INSERT INTO items VALUES ('a', 'one'), ('b', 'two')").await.expect("inserts");
    (cluster, client)
}

/// The folder of server binaries of `KAIROS_TEST_POSTGRES` with this major version or a newer one.
fn binaries(version_min: u32) -> Option<String> {
    let version = |folder: &str| {
        let output = Command::new(Path::new(folder).join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.split_whitespace().last()?.split('.').next()?.parse::<u32>().ok()
    };
    let folders = std::env::var("KAIROS_TEST_POSTGRES").unwrap_or_default();
    let found = folders.split(':').find(|folder| version(folder).is_some_and(|version| version >= version_min));
    if found.is_none() {
        println!("skipped: KAIROS_TEST_POSTGRES names no PostgreSQL {version_min}");
    }
    found.map(str::to_owned)
}

/// Repeats a statement until the condition holds.
async fn repeat_until(client: &Client, statement: &str, condition: &str) {
    let started = Instant::now();
    loop {
        // It may meet a moment in which it is refused.
        let _ = client.batch_execute(statement).await;
        if client.query_one(&format!("SELECT {condition}"), &[]).await.expect("answers").get(0) {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{condition} does not come about");
        sleep(Duration::from_millis(20)).await;
    }
}

fn blocker(status: &StatusSnapshot) -> Option<&Blocker> {
    match &status.phase {
        Phase::CreatingSlot(blocker) => blocker.as_ref(),
        _ => None,
    }
}

fn waits_for_pid(replica: &Replica, wanted: i32) -> bool {
    matches!(blocker(&replica.status.snapshot()), Some(Blocker::Session { pid, .. }) if *pid == wanted)
}

/// Opens a transaction that has a number, and returns the server process.
async fn open_transaction(client: &Client) -> i32 {
    client.batch_execute("SET application_name = 'report'; BEGIN").await.expect("begins");
    client.query_one("SELECT pg_backend_pid() FROM pg_current_xact_id()", &[]).await.expect("a number").get(0)
}

/// What all was compared for the last time.
fn last_comparison(replica: &Replica) -> Option<&'static str> {
    replica.status.snapshot().last_comparison.map(|(code, _)| code)
}

#[tokio::test]
async fn a_slot_that_waits_for_a_transaction_says_for_which() {
    let (cluster, client) = source(None, &[("max_prepared_transactions", "2")]).await;
    let other = connect(&cluster).await;
    let pid = open_transaction(&other).await;
    let replica = Replica::start(&cluster);
    replica.wait_until(|replica| waits_for_pid(replica, pid)).await;
    let text = blocker(&replica.status.snapshot()).expect("a transaction").to_string();
    let begin = format!("a transaction of pid {pid} (application \"report\", idle in transaction, ");
    assert!(text.starts_with(&begin), "{text}");
    assert!(text.ends_with(&format!("SELECT pg_terminate_backend({pid})")), "{text}");
    assert!(!text.contains("pg_current_xact_id"), "the statement is not told: {text}");

    // The session that waits dies, and is noticed although its client heard nothing; then it waits again.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    client.batch_execute(end).await.expect("ends the walsender");
    replica.wait_until(|replica| replica.status.snapshot().last_error.is_some()).await;
    replica.wait_until(|replica| waits_for_pid(replica, pid)).await;

    other.batch_execute("PREPARE TRANSACTION 'half done'").await.expect("prepares");
    let is_prepared =
        |found: Option<&Blocker>| matches!(found, Some(Blocker::Prepared { gid, .. }) if gid == "half done");
    replica.wait_until(|replica| is_prepared(blocker(&replica.status.snapshot()))).await;
    other.batch_execute("COMMIT PREPARED 'half done'").await.expect("commits");
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_slot_that_lost_its_wal_while_stopped_costs_the_differences() {
    let (cluster, client) = source(None, &SHORT_WAL).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let before = replica.operation_count();
    let stopped = replica.stop().await;
    client.batch_execute(ONE_CHANGE).await.expect("writes");
    write_segments(&client, 6).await;
    let is_lost = "EXISTS (SELECT FROM pg_replication_slots WHERE wal_status = 'lost')";
    repeat_until(&client, "CHECKPOINT", is_lost).await;
    let replica = stopped.start_again(&cluster);
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    assert_eq!(last_comparison(&replica), Some("REPL-0202"));
    assert_eq!(replica.metrics.comparisons.with_label_values(&["REPL-0202"]).get(), 1);
    assert_eq!(replica.operation_count() - before, 1, "one row has changed");
    replica.stop().await;
}

#[tokio::test]
async fn a_slot_that_loses_its_wal_while_streaming_costs_the_differences() {
    let (cluster, client) = source(None, &SHORT_WAL).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let before = replica.operation_count();
    // An open transaction keeps the slot from letting go of WAL, however fast the stream is read.
    let other = connect(&cluster).await;
    let pid = open_transaction(&other).await;
    other.batch_execute(ONE_CHANGE).await.expect("writes");
    write_segments(&client, 6).await;
    repeat_until(&client, "CHECKPOINT", "NOT EXISTS (SELECT FROM pg_replication_slots WHERE wal_status <> 'lost')")
        .await;
    // The next slot waits for the same transaction.
    replica.wait_until(|replica| waits_for_pid(replica, pid)).await;
    assert_eq!(last_comparison(&replica), Some("REPL-0202"));
    other.batch_execute("COMMIT").await.expect("commits");
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    assert_eq!(replica.operation_count() - before, 1, "one row has changed");
    replica.stop().await;
}

#[tokio::test]
async fn a_slot_dropped_while_streaming_costs_the_differences() {
    let (cluster, client) = source(None, &[]).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let (before, slot) = (replica.operation_count(), replica.status.snapshot().slot.expect("a slot"));
    // Replication comes back at once: the drop has to come in between.
    let drop_slot = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots; SELECT pg_drop_replication_slot('{slot}')"
    );
    let started = Instant::now();
    while client.batch_execute(&drop_slot).await.is_err() {
        assert!(started.elapsed() < DEADLINE, "the slot is never free");
    }
    client.batch_execute(ONE_CHANGE).await.expect("writes");
    replica.wait_until(|replica| last_comparison(replica).is_some()).await;
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    assert_eq!(last_comparison(&replica), Some("REPL-0201"));
    assert_eq!(replica.operation_count() - before, 1, "one row has changed");
    replica.stop().await;
}

#[tokio::test]
async fn rules_that_cannot_be_read_cost_a_copy_and_keep_no_upload_waiting() {
    let (cluster, client) = source(None, &[]).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let key = WriteCheckpointKey("ann".to_owned());
    // A position of a history which the server has left, far ahead of where it is now.
    replica.store.put_write_checkpoints(&[(key.clone(), None)], Lsn::new(u64::MAX)).expect("stores it");
    let prefix = replica.store.bucket_prefix().expect("a prefix");
    let stopped = replica.stop().await;
    let unreadable = StoredRules { serving: DeploymentNumber(0), state: b"of another release".as_slice().into() };
    stopped.store.commit(Batch { rules: Some(unreadable), ..Batch::default() }).expect("commits");
    let replica = stopped.start_again(&cluster);
    replica.wait_for_stream().await;
    replica.catch_up(&client).await;
    assert_ne!(replica.store.bucket_prefix().expect("a prefix"), prefix);
    let waiting = replica.store.write_checkpoint(&key).expect("reads it").expect("it is there");
    assert!(replica.visible_at().is_some_and(|visible| visible >= waiting.lsn), "{waiting:?} is out of reach");
    replica.stop().await;
}

#[tokio::test]
async fn a_slot_that_was_idle_for_too_long_costs_the_differences() {
    let Some(bin) = binaries(18) else { return };
    let (cluster, client) = source(Some(Path::new(&bin)), &[("idle_replication_slot_timeout", "1s")]).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let before = replica.operation_count();
    let stopped = replica.stop().await;
    client.batch_execute(ONE_CHANGE).await.expect("writes");
    let is_lost = "EXISTS (SELECT FROM pg_replication_slots WHERE invalidation_reason = 'idle_timeout')";
    repeat_until(&client, "CHECKPOINT", is_lost).await;
    let replica = stopped.start_again(&cluster);
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    let (code, reason) = replica.status.snapshot().last_comparison.expect("all was compared");
    assert_eq!(code, "REPL-0202");
    assert!(reason.contains("idle_timeout"), "{reason}");
    assert_eq!(replica.operation_count() - before, 1, "one row has changed");
    replica.stop().await;
}

/// Whether each slot is one that standbys may keep.
async fn failover(client: &Client) -> Vec<bool> {
    let sql = "SELECT failover FROM pg_replication_slots";
    client.query(sql, &[]).await.expect("answers").iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_slot_is_kept_on_standbys_as_configured() {
    let Some(bin) = binaries(17) else { return };
    let (cluster, client) = source(Some(Path::new(&bin)), &[]).await;
    let config = SourceConfig::from_uri(&cluster.uri("postgres", "postgres")).expect("a usable URI");
    let mut replica = Replica::start_from(config.clone());
    replica.catch_up(&client).await;
    assert_eq!(failover(&client).await, [true], "auto");
    for (setting, expected) in [(Failover::Off, false), (Failover::On, true), (Failover::Auto, true)] {
        let source = SourceConfig { failover: setting, ..config.clone() };
        replica = replica.stop().await.start_again_from(source);
        replica.wait_for_stream().await;
        replica.catch_up(&client).await;
        assert_eq!(failover(&client).await, [expected], "{setting:?}");
        assert_eq!(last_comparison(&replica), None, "the same slot goes on");
    }
    replica.stop().await;
}

#[tokio::test]
async fn what_an_older_server_cannot_is_refused_only_if_it_is_demanded() {
    let (cluster, client) = source(None, &[]).await;
    let version = client.query_one("SELECT current_setting('server_version_num')::int", &[]).await.expect("a version");
    if version.get::<_, i32>(0) >= 170_000 {
        println!("skipped: the server is not older than 17");
        return;
    }
    let auto = SourceConfig::from_uri(&cluster.uri("postgres", "postgres")).expect("a usable URI");
    let demanded = Replica::start_from(SourceConfig { failover: Failover::On, ..auto.clone() });
    let (code, message) = demanded.outcome().await.expect_err("refused");
    assert_eq!(code, "PG-0220");
    assert!(message.contains("set `failover` to auto or false"), "{message}");
    demanded.stop().await;
    let replica = Replica::start_from(auto);
    assert_eq!(replica.outcome().await, Ok(()));
    replica.stop().await;
}
