//! Large transactions: sent in parts while they run, stored in parts, and seen as a whole or not at all.

use std::collections::BTreeSet;

use kairos_sync::demo::cluster::PgCluster;
use kairos_sync_protocol::BucketName;
use tokio::time::{Duration, sleep};
use tokio_postgres::Client;

use crate::replica::{Replica, connect, source};

/// Enough for several parts in the store.
const ROW_COUNT: usize = 30_000;

/// A source that sends transactions in parts as soon as they have some dozens of changes.
async fn source_that_streams() -> (PgCluster, Client) {
    let (cluster, client) = source().await;
    for statement in ["ALTER SYSTEM SET logical_decoding_work_mem = '64kB'", "SELECT pg_reload_conf()"] {
        client.batch_execute(statement).await.expect(statement);
    }
    (cluster, client)
}

async fn assert_streamed(client: &Client) {
    let sql = "SELECT coalesce(sum(stream_txns), 0)::bigint FROM pg_stat_replication_slots";
    for _ in 0..100 {
        let count: i64 = client.query_one(sql, &[]).await.expect("counts").get(0);
        if count > 0 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("the source sent no transaction in parts");
}

fn insert(prefix: &str, count: usize) -> String {
    format!(
        "INSERT INTO items SELECT '{prefix}' || n, 'title ' || n, repeat('x', 300) FROM generate_series(1, {count}) n"
    )
}

async fn run(client: &Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).await.expect(statement);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_sent_in_parts_arrive_whole_or_not_at_all() {
    let (cluster, client) = source_that_streams().await;
    let sessions = [connect(&cluster).await, connect(&cluster).await, connect(&cluster).await];
    let [one, two, three] = &sessions;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    run(one, &["BEGIN", &insert("one ", 3000)]).await;
    run(two, &["BEGIN", &insert("two ", 3000), "SAVEPOINT a", &insert("undone ", 3000), "SAVEPOINT b"]).await;
    run(three, &["BEGIN", &insert("three ", 3000)]).await;
    run(&client, &["INSERT INTO items VALUES ('small', 'one', NULL)"]).await;
    replica.catch_up(&client).await;
    assert_eq!(replica.contents("everything").len(), 1, "nothing of what still runs");

    run(
        two,
        &[
            "UPDATE items SET title = 'undone'",
            "ROLLBACK TO a",
            "UPDATE items SET title = 'kept' WHERE id LIKE 'two 1%'",
        ],
    )
    .await;
    run(one, &["DELETE FROM items WHERE id LIKE 'one 2%'", &insert("one more ", 3000)]).await;
    run(three, &["ROLLBACK"]).await;
    run(two, &["COMMIT"]).await;
    run(&client, &["UPDATE items SET title = 'later' WHERE id = 'two 5'"]).await;
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    run(one, &["UPDATE items SET id = 'moved ' || id WHERE id LIKE 'one 3%'", "COMMIT"]).await;
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    assert_streamed(&client).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_described_by_what_was_rolled_back_are_known() {
    let (cluster, client) = source_that_streams().await;
    let session = connect(&cluster).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    // The first change of the table, and another shape of it, are in a subtransaction that is rolled back.
    run(
        &session,
        &["BEGIN", "SAVEPOINT a", "ALTER TABLE items ADD extra text", &insert("undone ", 3000), "ROLLBACK TO a"],
    )
    .await;
    run(&session, &[&insert("kept ", 3000), "COMMIT"]).await;
    run(&client, &["INSERT INTO items VALUES ('small', 'one', NULL)"]).await;
    replica.catch_up(&client).await;
    replica.wait_for_stream().await;
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    assert_streamed(&client).await;
    replica.stop().await;
}

/// How many operations clients have of the items; `None` while nothing is visible.
fn visible_operations(replica: &Replica) -> Option<u64> {
    let bucket = BucketName::new(format!("{}everything[]", replica.store.bucket_prefix().expect("a prefix")));
    let view = replica.store.view().expect("a view");
    view.checkpoint()?;
    Some(view.bucket(&bucket).expect("totals").count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_stored_in_parts_is_seen_as_one() {
    let (cluster, client) = source().await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    for (statement, operations) in
        [(insert("row ", ROW_COUNT), ROW_COUNT), ("TRUNCATE items".to_owned(), 2 * ROW_COUNT)]
    {
        client.batch_execute(&statement).await.expect("changes");
        let mut seen = BTreeSet::new();
        while !seen.contains(&Some(operations as u64)) {
            seen.insert(visible_operations(&replica));
            sleep(Duration::from_millis(2)).await;
        }
        let expected = [None, Some((operations - ROW_COUNT) as u64), Some(operations as u64)];
        assert!(seen.iter().all(|count| expected.contains(count)), "{seen:?}");
        assert!(seen.contains(&None), "it was stored in parts: {seen:?}");
    }
    replica.assert_items_equal_sql(&client).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_interrupted_between_parts_goes_on_where_it_was() {
    for source in [source().await, source_that_streams().await] {
        let (cluster, client) = source;
        let large = "repeat('large', 5000)";
        client.batch_execute(&format!("INSERT INTO items VALUES ('a', 'one', {large})")).await.expect("inserts");
        let mut replica = Replica::start(&cluster);
        replica.catch_up(&client).await;
        let before = replica.operation_count();
        // What was applied cannot be applied again: the value that was not sent would be taken from another row.
        let changes = format!(
            "BEGIN; UPDATE items SET title = 'two' WHERE id = 'a'; UPDATE items SET id = 'b' WHERE id = 'a';
             INSERT INTO items VALUES ('a', 'three', 'another'); {}; COMMIT",
            insert("row ", 2 * ROW_COUNT)
        );
        client.batch_execute(&changes).await.expect("changes");
        replica.wait_until(|replica| replica.visible_at().is_none()).await;
        replica = replica.stop().await.start_again(&cluster);
        assert_eq!(replica.visible_at(), None, "half of it is stored");
        replica.wait_for_stream().await;
        replica = replica.stop().await.start_again(&cluster);
        replica.catch_up(&client).await;
        replica.assert_items_equal_sql(&client).await;
        assert_eq!(replica.operation_count() - before, 2 * ROW_COUNT as u64 + 4, "each change once");
        replica.stop().await;
    }
}
