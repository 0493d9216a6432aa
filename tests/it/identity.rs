//! How rows are told apart: every replica identity, keys that change, values that are not sent again.

use kairos_sync::demo::cluster::PgCluster;
use tokio_postgres::Client;

use crate::replica::{Replica, connect, run, source};

async fn run_and_compare(replica: &Replica, client: &Client, changes: &[&str]) {
    for change in changes {
        run(client, change).await;
        replica.catch_up(client).await;
        // A copy may have begun only now.
        replica.wait_for_stream().await;
        replica.catch_up(client).await;
        replica.assert_items_equal_sql(client).await;
    }
}

/// Changes of rows with large values, of their keys and of both.
const CHANGES: [&str; 7] = [
    "UPDATE items SET title = 'new' WHERE id = 'a'",
    "UPDATE items SET id = 'moved' WHERE id = 'a'",
    "UPDATE items SET id = 'a', title = 'back' WHERE id = 'moved'",
    "UPDATE items SET body = NULL WHERE id = 'b'",
    "DELETE FROM items WHERE id = 'c'",
    "UPDATE items SET id = 'swap' WHERE id = 'a'; UPDATE items SET id = 'a' WHERE id = 'b'",
    "BEGIN; DELETE FROM items WHERE id = 'swap'; INSERT INTO items VALUES ('swap', 'other', repeat('n', 5000)); \
     UPDATE items SET title = 'again' WHERE id = 'swap'; COMMIT",
];

const ROWS: &str =
    "INSERT INTO items SELECT id, 'title ' || id, repeat(id || 'large', 5000) FROM unnest('{a,b,c,d}'::text[]) id";

#[tokio::test]
async fn every_identity_follows_changes_and_may_change_itself() {
    let (cluster, client) = source().await;
    run(&client, "ALTER TABLE items ALTER title SET NOT NULL; CREATE UNIQUE INDEX by_id ON items (id)").await;
    run(&client, "CREATE UNIQUE INDEX by_both ON items (title, id)").await;
    run(&client, ROWS).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    for identity in
        ["DEFAULT", "FULL", "USING INDEX by_id", "USING INDEX by_both", "FULL", "USING INDEX by_both", "DEFAULT"]
    {
        run(&client, &format!("ALTER TABLE items REPLICA IDENTITY {identity}")).await;
        run_and_compare(&replica, &client, &CHANGES).await;
        run_and_compare(&replica, &client, &["DELETE FROM items", ROWS]).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_key_so_large_that_it_is_not_sent_again_is_still_the_key() {
    let (cluster, client) = source().await;
    // Too long to stay in the row, short enough for an index.
    let key = "repeat('key', 800)";
    run(&client, "ALTER TABLE items ALTER id SET STORAGE EXTERNAL").await;
    run(&client, &format!("INSERT INTO items VALUES ({key}, 'one', repeat('large', 5000)), ({key} || 2, 'one', 'small'), ('b', 'two', NULL)")).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    for identity in ["DEFAULT", "FULL"] {
        run(&client, &format!("ALTER TABLE items REPLICA IDENTITY {identity}")).await;
        run_and_compare(
            &replica,
            &client,
            &[
                "UPDATE items SET title = title || '!'",
                "UPDATE items SET body = repeat('other', 5000) WHERE id <> 'b'",
                &format!("UPDATE items SET id = 'small' WHERE id = {key}"),
                &format!("UPDATE items SET id = {key} WHERE id = 'small'"),
            ],
        )
        .await;
    }
    run_and_compare(&replica, &client, &["DELETE FROM items WHERE id <> 'b'"]).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_table_without_identity_is_refused_by_name() {
    for (setup, sql) in [
        ("DROP CONSTRAINT items_pkey", "REPLICA IDENTITY FULL"),
        ("REPLICA IDENTITY NOTHING", "REPLICA IDENTITY DEFAULT"),
        ("DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (id) DEFERRABLE", "REPLICA IDENTITY FULL"),
    ] {
        let (cluster, client) = source().await;
        run(&client, &format!("ALTER TABLE items {setup}")).await;
        run(&client, "INSERT INTO items VALUES ('a', 'one')").await;
        let replica = Replica::start(&cluster);
        let (code, message) = replica.outcome().await.expect_err("nothing tells rows apart");
        assert_eq!(code, "PG-0211", "{setup}");
        assert!(message.contains(&format!("ALTER TABLE \"public\".\"items\" {sql};")), "{setup}: {message}");
        replica.stop().await;
        run(&client, message.split('`').nth(1).expect("the SQL")).await;
        let replica = Replica::start(&cluster);
        replica.catch_up(&client).await;
        run_and_compare(&replica, &client, &["UPDATE items SET title = 'two'", "DELETE FROM items"]).await;
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_key_that_may_be_violated_for_a_while_is_none() {
    let (cluster, client) = source().await;
    run(&client, "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED")
        .await;
    run(&client, "ALTER TABLE items REPLICA IDENTITY FULL; INSERT INTO items VALUES ('a', 'one'), ('b', 'two')").await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    run_and_compare(&replica, &client, &[
        "BEGIN; UPDATE items SET id = 'b' WHERE title = 'one'; UPDATE items SET id = 'a' WHERE title = 'two'; COMMIT",
    ])
    .await;
    replica.stop().await;
}

#[tokio::test]
async fn rows_without_a_key_are_told_apart_by_all_they_have() {
    let (cluster, client) = source().await;
    run(&client, "ALTER TABLE items DROP CONSTRAINT items_pkey, REPLICA IDENTITY FULL").await;
    run(&client, "ALTER TABLE items ALTER id DROP NOT NULL").await;
    run(&client, "INSERT INTO items VALUES ('a', NULL, NULL), ('b', '', NULL), ('c', NULL, repeat('large', 5000))")
        .await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    run_and_compare(
        &replica,
        &client,
        &[
            "UPDATE items SET title = '' WHERE id = 'a'",
            "UPDATE items SET title = NULL WHERE id = 'b'",
            "UPDATE items SET title = 'x' WHERE id = 'c'",
            "UPDATE items SET body = body || '!' WHERE id = 'c'",
            "DELETE FROM items WHERE title IS NULL",
        ],
    )
    .await;
    replica.stop().await;
}

/// What is documented of rows that nothing tells apart.
#[tokio::test]
async fn rows_that_are_equal_are_one_to_clients() {
    let (cluster, client) = source().await;
    run(&client, "ALTER TABLE items DROP CONSTRAINT items_pkey, REPLICA IDENTITY FULL").await;
    run(&client, "INSERT INTO items VALUES ('a', 'copied'), ('a', 'copied')").await;
    let replica = Replica::start(&cluster);
    replica.wait_for_ids("everything", &["a"]).await;
    run(&client, "INSERT INTO items VALUES ('b', 'streamed'), ('b', 'streamed')").await;
    replica.wait_for_ids("everything", &["a", "b"]).await;
    let delete_one = "DELETE FROM items WHERE ctid = (SELECT min(ctid) FROM items WHERE id = 'a')";
    run(&client, delete_one).await;
    replica.wait_for_ids("everything", &["b"]).await;
    run(&client, "ALTER TABLE items ADD number serial PRIMARY KEY").await;
    run(&client, "UPDATE items SET id = id || number").await;
    replica.wait_for_ids("everything", &["a1", "b2", "b3"]).await;
    replica.stop().await;
}

/// The newest server there is: its folder from `KAIROS_TEST_POSTGRES`, if that names one.
fn cluster_at_least(version: u32) -> Option<PgCluster> {
    let folders = std::env::var("KAIROS_TEST_POSTGRES").unwrap_or_default();
    folders.split(':').filter(|folder| !folder.is_empty()).find_map(|folder| {
        let folder = std::path::Path::new(folder);
        let text = std::process::Command::new(folder.join("postgres")).arg("--version").output().ok()?.stdout;
        let text = String::from_utf8(text).ok()?;
        let major: u32 = text.split_whitespace().nth(2)?.split('.').next()?.parse().ok()?;
        (major >= version).then(|| PgCluster::start(Some(folder)).expect("a server"))
    })
}

const GENERATED: &str = "
    CREATE TABLE items (id text PRIMARY KEY, title text, body text GENERATED ALWAYS AS (title || '!') STORED);
    CREATE TABLE habits (id text PRIMARY KEY, user_id text); CREATE TABLE completions (id text PRIMARY KEY, habit_id text);
    CREATE PUBLICATION kairos_sync FOR TABLE items, habits, completions;
    INSERT INTO items VALUES ('copied', 'one')";

async fn generated_bodies(replica: &Replica, client: &Client) -> Vec<Option<String>> {
    run(client, "DELETE FROM items WHERE id = 'streamed'; INSERT INTO items VALUES ('streamed', 'one')").await;
    replica.catch_up(client).await;
    replica.wait_for_ids("everything", &["copied", "streamed"]).await;
    let rows = replica.contents("everything");
    rows.values().map(|row| row.get("body").map(|body| body.as_str().unwrap_or("NULL").to_owned())).collect()
}

#[tokio::test]
async fn generated_columns_are_left_out_where_they_are_not_streamed() {
    for cluster in [Some(PgCluster::start(None).expect("a server")), cluster_at_least(18)].into_iter().flatten() {
        let client = connect(&cluster).await;
        run(&client, GENERATED).await;
        let replica = Replica::start(&cluster);
        replica.wait_for_ids("everything", &["copied"]).await;
        assert_eq!(generated_bodies(&replica, &client).await, [None, None]);
        replica.stop().await;
    }
}

#[tokio::test]
async fn generated_columns_are_copied_and_streamed_where_they_are_published() {
    let Some(cluster) = cluster_at_least(18) else {
        println!("skipped: KAIROS_TEST_POSTGRES names no server of version 18");
        return;
    };
    let client = connect(&cluster).await;
    run(&client, GENERATED).await;
    let replica = Replica::start(&cluster);
    replica.wait_for_ids("everything", &["copied"]).await;
    let has_bodies = |replica: &Replica| replica.contents("everything").values().all(|row| row.get("body").is_some());
    run(&client, "ALTER PUBLICATION kairos_sync SET (publish_generated_columns = stored)").await;
    replica.wait_until(has_bodies).await;
    let bodies = generated_bodies(&replica, &client).await;
    assert_eq!(bodies, [Some("one!".to_owned()), Some("one!".to_owned())]);
    replica.stop().await;
    let replica = Replica::start(&cluster);
    replica.wait_for_ids("everything", &["copied", "streamed"]).await;
    assert_eq!(generated_bodies(&replica, &client).await, bodies, "so they are by a first copy");
    replica.stop().await;
}
