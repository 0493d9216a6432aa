//! Tables are copied while they change: what clients would see equals SQL, whatever happens to the copy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kairos_sync::{
    demo::cluster::PgCluster,
    replication::Phase,
    storage::{SqliteOptions, SqliteStore},
};
use tokio_postgres::Client;

use crate::replica::{Replica, slow, source};

/// More pages than a chunk has, several times.
const ROW_COUNT: u32 = 60_000;
/// How far a test's writes may run ahead, in bytes of WAL: what is tested is not which of the two is faster.
const LAG_MAX: u64 = 4 * 1024 * 1024;

async fn fill(client: &Client) {
    let rows = format!(
        "INSERT INTO items SELECT 'i' || n, 'title ' || n, repeat('x', 40) FROM generate_series(1, {ROW_COUNT}) n"
    );
    client.batch_execute(&rows).await.expect("fills");
}

/// Changes of all kinds, all over the table.
async fn write(client: &Client, round: u32) {
    let (first, second) = (round * 7919 % ROW_COUNT, round * 104_729 % ROW_COUNT);
    let large = "repeat('large', 5000)";
    let enlarged = |round: u32| (round * 7919 + 1) % ROW_COUNT;
    let enlarged_before: Vec<_> =
        (round.saturating_sub(5)..=round).map(|round| format!("'i{}'", enlarged(round))).collect();
    let enlarged_before = enlarged_before.join(", ");
    let statements = format!(
        "UPDATE items SET title = 'round {round}' WHERE id IN ('i{first}', 'i{second}');
         UPDATE items SET body = {large} WHERE id = 'i{}';
         UPDATE items SET title = title || '!' WHERE id IN ({enlarged_before});
         DELETE FROM items WHERE id = 'i{}';
         UPDATE items SET id = 'moved ' || id WHERE id = 'i{}';
         INSERT INTO items VALUES ('new {round}', 'new', NULL);
         DELETE FROM items WHERE id = 'new {}'",
        enlarged(round),
        (first + 2) % ROW_COUNT,
        (second + 3) % ROW_COUNT,
        round / 2,
    );
    client.batch_execute(&statements).await.expect("writes");
}

fn is_copying(replica: &Replica) -> bool {
    matches!(replica.status.snapshot().phase, Phase::Snapshot)
}

/// A source whose items are being copied.
async fn begun_copy() -> (PgCluster, Client, Replica) {
    let (cluster, client) = source().await;
    fill(&client).await;
    let replica = Replica::start(&cluster);
    replica.wait_until(is_copying).await;
    (cluster, client, replica)
}

async fn assert_equal(replica: &Replica, client: &Client) {
    replica.catch_up(client).await;
    replica.assert_items_equal_sql(client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_may_change_while_their_table_is_copied() {
    let (cluster, client) = source().await;
    fill(&client).await;
    let replica = Replica::start(&cluster);
    let (mut round, started) = (0, Instant::now());
    while replica.visible_at().is_none() || round < 20 {
        write(&client, round).await;
        round += 1;
        replica.keep_within(LAG_MAX, &client).await;
        assert!(started.elapsed() < Duration::from_mins(1), "{:?}", replica.status.snapshot());
    }
    assert_equal(&replica, &client).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_stopped_goes_on_with_the_pages_not_counted() {
    let (cluster, client) = source().await;
    let folder = tempfile::tempdir().expect("a folder");
    fill(&client).await;
    let store = Arc::new(SqliteStore::open(folder.path(), SqliteOptions::default()).expect("a store"));
    let slow = slow(&cluster, 1_500_000);
    let mut replica = Replica::start_with(slow.clone(), store, Arc::default());
    let progress = |replica: &Replica| {
        let copies = replica.status.snapshot().copies;
        copies.iter().find(|copy| copy.table == "public.items").map_or(0, |copy| copy.bytes_done)
    };
    let mut done = 0;
    for round in 0..2 {
        replica.wait_until(|replica| progress(replica) > done).await;
        done = progress(&replica);
        let stopped = replica.stop().await;
        assert!(stopped.store.view().expect("a view").checkpoint().is_none(), "half a copy is shown to nobody");
        write(&client, round).await;
        replica = stopped.start_again_from(slow.clone());
        replica.wait_until(|replica| progress(replica) > 0).await;
        assert!(progress(&replica) >= done, "what was counted is not read again");
    }
    replica.wait_until(|replica| replica.visible_at().is_some()).await;
    assert_equal(&replica, &client).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_table_is_read_from_its_new_file() {
    let (_cluster, client, replica) = begun_copy().await;
    for rewrite in ["VACUUM FULL items", "DELETE FROM items WHERE id LIKE 'i1%'", "VACUUM FULL items"] {
        client.batch_execute(rewrite).await.expect(rewrite);
    }
    assert_equal(&replica, &client).await;
    client
        .batch_execute("TRUNCATE items; INSERT INTO items VALUES ('after', 'truncate', NULL)")
        .await
        .expect("truncates");
    assert_equal(&replica, &client).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_truncated_while_it_is_copied_is_empty() {
    let (_cluster, client, replica) = begun_copy().await;
    client
        .batch_execute("TRUNCATE items; INSERT INTO items VALUES ('after', 'truncate', NULL)")
        .await
        .expect("truncates");
    assert_equal(&replica, &client).await;
    assert_eq!(replica.contents("everything").len(), 1);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_move_to_pages_already_read_are_not_lost() {
    let (cluster, client) = source().await;
    // Five rows to a page, their bodies elsewhere: the stream does not repeat those.
    client
        .batch_execute(
            "ALTER TABLE items ALTER title SET STORAGE PLAIN, SET (autovacuum_enabled = false);
             INSERT INTO items SELECT 'i' || n, repeat('t', 1500), repeat('b', 3000) FROM generate_series(1, 2600) n;
             DELETE FROM items WHERE id IN (SELECT 'i' || n FROM generate_series(1, 200) n)",
        )
        .await
        .expect("fills");
    client.batch_execute("VACUUM items").await.expect("frees the first pages");
    let replica = Replica::start_from(slow(&cluster, 2_000_000));
    replica.wait_until(|replica| replica.status.snapshot().copies.iter().any(|copy| copy.bytes_done > 0)).await;
    let last = "id IN (SELECT 'i' || n FROM generate_series(2500, 2600) n)";
    client.batch_execute(&format!("UPDATE items SET title = upper(title) WHERE {last}")).await.expect("updates");
    client.batch_execute("UPDATE items SET id = 'new ' || id WHERE id = 'i2600'").await.expect("updates");
    let count = "SELECT count(*) FROM items WHERE ctid < '(40,0)' AND title LIKE 'TTT%'";
    let moved: i64 = client.query_one(count, &[]).await.expect("counts").get(0);
    assert!(moved > 50, "rows were moved to pages that have been read: {moved}");
    assert!(is_copying(&replica), "their old pages have not");
    assert_equal(&replica, &client).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_changed_without_a_slot_are_not_taken_from_what_is_stored() {
    change_unseen("SELECT pg_drop_replication_slot('{slot}')", "SELECT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_changed_unpublished_are_not_taken_from_what_is_stored() {
    change_unseen("ALTER PUBLICATION kairos_sync DROP TABLE items", "ALTER PUBLICATION kairos_sync ADD TABLE items")
        .await;
}

/// Large values change between `begin` and `end` while the service is away; while their table is copied again, only what
/// is beside them changes.
async fn change_unseen(begin: &str, end: &str) {
    let (cluster, client) = source().await;
    let fill = "INSERT INTO items SELECT 'i' || n, 'title', repeat('old', 1000) FROM generate_series(1, 40) n";
    client.batch_execute(fill).await.expect("fills");
    // So that they lie elsewhere, and the stream has them only when they change.
    client
        .batch_execute("ALTER TABLE items ALTER body SET STORAGE EXTERNAL; UPDATE items SET body = body || 'er'")
        .await
        .expect("changes");
    let replica = Replica::start(&cluster);
    assert_equal(&replica, &client).await;
    let slot = replica.status.snapshot().slot.expect("a slot");
    let stopped = replica.stop().await;
    for sql in [&*begin.replace("{slot}", &slot), "UPDATE items SET body = repeat('new', 1000)", end] {
        client.batch_execute(sql).await.expect(sql);
    }
    let replica = stopped.start_again_from(slow(&cluster, 40_000));
    replica.wait_until(is_copying).await;
    let started = Instant::now();
    while replica.visible_at().is_none() || is_copying(&replica) {
        client.batch_execute("UPDATE items SET title = title || '.'").await.expect("updates");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(started.elapsed() < Duration::from_mins(1), "{:?}", replica.status.snapshot());
    }
    assert_equal(&replica, &client).await;
    replica.stop().await;
}

/// Waits until what the source has is visible and no copy is left.
async fn settle(replica: &Replica, client: &Client) {
    replica.catch_up(client).await;
    replica.wait_for_stream().await;
    replica.catch_up(client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_is_filled_in_while_other_tables_go_on() {
    let (cluster, client) = source().await;
    client
        .batch_execute("INSERT INTO habits VALUES ('h1', 'ann'); INSERT INTO items SELECT 'i' || n FROM generate_series(1, 5000) n")
        .await
        .expect("fills");
    let replica = Replica::start(&cluster);
    settle(&replica, &client).await;
    let prefix = replica.store.bucket_prefix().expect("a prefix");
    client
        .batch_execute(
            "ALTER TABLE items ADD added text DEFAULT 'filled'; UPDATE items SET title = 'x' WHERE id = 'i1'",
        )
        .await
        .expect("alters");
    let is_filled = |replica: &Replica| replica.contents("everything").values().all(|row| row["added"] == "filled");
    replica.wait_until(|replica| replica.visible_at().is_some() && is_filled(replica)).await;
    client.batch_execute("INSERT INTO habits VALUES ('h2', 'ann')").await.expect("inserts");
    settle(&replica, &client).await;
    assert_eq!(replica.contents("everything").len(), 5000);
    assert_eq!(replica.contents("ann").len(), 2);
    assert_eq!(replica.store.bucket_prefix().expect("a prefix"), prefix, "clients keep what they have");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_goes_takes_its_rows_and_one_that_comes_brings_them() {
    let (cluster, client) = source().await;
    client.batch_execute("INSERT INTO items VALUES ('a', 'one', 'two'), ('b', 'three', NULL)").await.expect("inserts");
    let replica = Replica::start(&cluster);
    settle(&replica, &client).await;
    let items = |replica: &Replica| replica.contents("everything").len();
    // Nothing in these tables changes: only the catalog tells.
    for (change, count) in [
        ("ALTER PUBLICATION kairos_sync DROP TABLE items", 0),
        ("ALTER PUBLICATION kairos_sync ADD TABLE items", 2),
        ("ALTER TABLE items RENAME TO renamed", 0),
        ("ALTER TABLE renamed RENAME TO items", 2),
        ("ALTER PUBLICATION kairos_sync SET TABLE items WHERE (id = 'a'), habits, completions", 1),
        ("ALTER PUBLICATION kairos_sync SET TABLE items, habits, completions", 2),
    ] {
        client.batch_execute(change).await.expect(change);
        replica.wait_until(|replica| replica.visible_at().is_some() && items(replica) == count).await;
    }
    settle(&replica, &client).await;
    replica.assert_items_equal_sql(&client).await;
    replica.stop().await;
}
