//! What the stream has besides changes of single rows: emptied tables, messages, changes of other origins, inheritance.

use crate::replica::{Replica, run, source};

const FILL: &str = "
    INSERT INTO items VALUES ('a', 'one', NULL), ('b', 'two', NULL); INSERT INTO habits VALUES ('h', 'ann');
    INSERT INTO completions VALUES ('done', 'h')";

#[tokio::test]
async fn emptied_tables_are_empty_and_what_comes_after_stays() {
    let (cluster, client) = source().await;
    run(
        &client,
        "ALTER TABLE completions ADD FOREIGN KEY (habit_id) REFERENCES habits; ALTER TABLE items ADD number serial",
    )
    .await;
    run(&client, FILL).await;
    let replica = Replica::start(&cluster);
    replica.wait_for_ids("ann", &["done", "h"]).await;
    for (change, items, ann) in [
        ("TRUNCATE items, habits, completions", &[][..], &[][..]),
        (FILL, &["a", "b"], &["done", "h"]),
        ("TRUNCATE habits CASCADE", &["a", "b"], &[]),
        ("TRUNCATE items RESTART IDENTITY", &[], &[]),
        (
            "BEGIN; INSERT INTO items VALUES ('before'); INSERT INTO habits VALUES ('before', 'ann'); \
             TRUNCATE items, habits RESTART IDENTITY CASCADE; INSERT INTO items VALUES ('after'), ('both'); \
             INSERT INTO habits VALUES ('after', 'ann'); UPDATE items SET title = 'x' WHERE id = 'both'; COMMIT",
            &["after", "both"],
            &["after"],
        ),
        (
            "BEGIN; INSERT INTO items VALUES ('never'); TRUNCATE items, habits CASCADE; ROLLBACK",
            &["after", "both"],
            &["after"],
        ),
        (
            "BEGIN; TRUNCATE items; INSERT INTO items VALUES ('a'); SAVEPOINT s; TRUNCATE items; ROLLBACK TO s; \
             INSERT INTO items VALUES ('c'); COMMIT",
            &["a", "c"],
            &["after"],
        ),
    ] {
        run(&client, change).await;
        replica.catch_up(&client).await;
        replica.wait_for_ids("everything", items).await;
        replica.wait_for_ids("ann", ann).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn messages_change_nothing_wherever_they_are() {
    let (cluster, client) = source().await;
    let replica = Replica::start(&cluster);
    let message = |is_transactional: bool, prefix: &str| {
        format!("SELECT pg_logical_emit_message({is_transactional}, '{prefix}', E'\\\\001\\\\000 not ours'::bytea)")
    };
    let mut ids = Vec::new();
    for (number, prefix) in ["other", "kairos", "", "kairos2"].into_iter().enumerate() {
        for is_transactional in [true, false] {
            run(&client, &message(is_transactional, prefix)).await;
            let id = format!("{number} {is_transactional}");
            run(
                &client,
                &format!(
                    "BEGIN; {}; INSERT INTO items VALUES ('{id}'); {}; UPDATE items SET title = 'x' WHERE id = '{id}'; {}; COMMIT",
                    message(is_transactional, prefix),
                    message(is_transactional, prefix),
                    message(!is_transactional, prefix),
                ),
            )
            .await;
            run(&client, &format!("BEGIN; {}; ROLLBACK", message(is_transactional, prefix))).await;
            ids.push(id);
            replica.catch_up(&client).await;
            replica.wait_for_ids("everything", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
    }
    // A message of ours in the middle of a transaction shows nothing of it.
    run(&client, "BEGIN; INSERT INTO items VALUES ('half')").await;
    run(&client, "SELECT pg_logical_emit_message(false, 'kairos', 'ping')").await;
    run(&client, "ROLLBACK").await;
    replica.catch_up(&client).await;
    assert_eq!(replica.contents("everything").len(), ids.len());
    replica.stop().await;
}

#[tokio::test]
async fn changes_of_another_origin_are_applied_like_others() {
    let (cluster, client) = source().await;
    run(&client, FILL).await;
    let replica = Replica::start(&cluster);
    replica.wait_for_ids("everything", &["a", "b"]).await;
    run(&client, "SELECT pg_replication_origin_create('elsewhere')").await;
    run(&client, "SELECT pg_replication_origin_session_setup('elsewhere')").await;
    for change in [
        "INSERT INTO items VALUES ('from elsewhere')",
        "BEGIN; SELECT pg_replication_origin_xact_setup('0/1000', now()); UPDATE items SET title = 'theirs' WHERE id = 'a'; \
         DELETE FROM items WHERE id = 'b'; COMMIT",
        "BEGIN; SELECT pg_replication_origin_xact_setup('0/2000', now()); TRUNCATE items; \
         INSERT INTO items VALUES ('last'); COMMIT",
    ] {
        run(&client, change).await;
        replica.catch_up(&client).await;
        replica.assert_items_equal_sql(&client).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_child_by_inheritance_is_a_table_of_its_own() {
    let (cluster, client) = source().await;
    run(&client, "CREATE TABLE more_items (id text PRIMARY KEY) INHERITS (items)").await;
    run(&client, "INSERT INTO items VALUES ('a'); INSERT INTO more_items VALUES ('copied child')").await;
    let replica = Replica::start(&cluster);
    replica.wait_for_ids("everything", &["a"]).await;
    for (change, ids) in [
        ("INSERT INTO more_items VALUES ('child'); INSERT INTO items VALUES ('b')", &["a", "b"][..]),
        // Concerns the children too, and they are published by themselves or not at all.
        ("UPDATE items SET title = 'x'", &["a", "b"]),
        ("ALTER PUBLICATION kairos_sync ADD TABLE more_items", &["a", "b"]),
        ("DELETE FROM items WHERE id IN ('a', 'child')", &["b"]),
        ("TRUNCATE ONLY items", &[]),
    ] {
        run(&client, change).await;
        replica.catch_up(&client).await;
        replica.wait_for_ids("everything", ids).await;
    }
    let left: i64 = client.query_one("SELECT count(*) FROM more_items", &[]).await.expect("counts").get(0);
    assert_eq!(left, 1, "of the child's rows only the deleted one is gone");
    replica.stop().await;
}
