//! Partitioned tables, published by partition or as one table: clients have what SQL says, also of what Postgres does
//! not stream.

use kairos_sync::demo::cluster::PgCluster;
use tokio_postgres::Client;

use crate::replica::{Replica, config, connect, run};

const SCHEMA: &str = "
    CREATE TABLE items (id text, region text, title text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE items_eu PARTITION OF items FOR VALUES IN ('eu');
    CREATE TABLE items_us PARTITION OF items FOR VALUES IN ('us') PARTITION BY LIST (region);
    CREATE TABLE items_us_all PARTITION OF items_us DEFAULT;
    CREATE TABLE items_asia (LIKE items INCLUDING ALL);
    INSERT INTO items_asia VALUES ('tokyo', 'asia');
    INSERT INTO items VALUES ('paris', 'eu'), ('rome', 'eu'), ('austin', 'us')";

/// Reads the whole table, or its partitions.
const ROOT: &str = "bucket_definitions: {everything: {data: [SELECT * FROM items]}}";
const PARTS: &str = "bucket_definitions: {everything: {data: ['SELECT * FROM \"items_%\"']}}";
const ONE_PART: &str = "bucket_definitions: {everything: {data: [SELECT * FROM items_eu]}}";

async fn source(publication: &str) -> (PgCluster, Client) {
    let cluster = PgCluster::start(None).expect("a server");
    let client = connect(&cluster).await;
    run(&client, SCHEMA).await;
    run(&client, &format!("CREATE PUBLICATION kairos_sync {publication}")).await;
    (cluster, client)
}

fn start(cluster: &PgCluster, rules: &'static str) -> Replica {
    Replica::start_reading(config(cluster), rules)
}

/// Changes, and what the table has afterwards.
const CHANGES: &[(&str, &[&str])] = &[
    ("INSERT INTO items VALUES ('oslo', 'eu'), ('miami', 'us')", &["austin", "miami", "oslo", "paris", "rome"]),
    ("UPDATE items SET title = 'x' WHERE id = 'rome'", &["austin", "miami", "oslo", "paris", "rome"]),
    // Moves the row to the other partition.
    ("UPDATE items SET region = 'us' WHERE id = 'oslo'", &["austin", "miami", "oslo", "paris", "rome"]),
    ("DELETE FROM items WHERE id = 'paris'", &["austin", "miami", "oslo", "rome"]),
    ("TRUNCATE items_us", &["rome"]),
    ("INSERT INTO items VALUES ('boston', 'us')", &["boston", "rome"]),
    ("ALTER TABLE items ATTACH PARTITION items_asia FOR VALUES IN ('asia')", &["boston", "rome", "tokyo"]),
    ("INSERT INTO items VALUES ('kyoto', 'asia')", &["boston", "kyoto", "rome", "tokyo"]),
    (
        "ALTER TABLE items DETACH PARTITION items_eu; DELETE FROM items_eu; INSERT INTO items_eu VALUES ('bonn', 'eu')",
        &["boston", "kyoto", "tokyo"],
    ),
    ("ALTER TABLE items ATTACH PARTITION items_eu FOR VALUES IN ('eu')", &["bonn", "boston", "kyoto", "tokyo"]),
    (
        "BEGIN; ALTER TABLE items DETACH PARTITION items_eu; DELETE FROM items_eu; INSERT INTO items_eu VALUES ('kiel', 'eu'); \
      ALTER TABLE items ATTACH PARTITION items_eu FOR VALUES IN ('eu'); COMMIT",
        &["boston", "kiel", "kyoto", "tokyo"],
    ),
    ("DROP TABLE items_us", &["kiel", "kyoto", "tokyo"]),
    ("TRUNCATE items", &[]),
    ("INSERT INTO items VALUES ('nara', 'asia')", &["nara"]),
];

async fn follow(publication: &str, rules: &'static str) {
    let (cluster, client) = source(publication).await;
    let replica = start(&cluster, rules);
    replica.wait_for_ids("everything", &["austin", "paris", "rome"]).await;
    for (change, ids) in CHANGES {
        run(&client, change).await;
        replica.wait_for_ids("everything", ids).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_table_published_as_one_is_followed_through_all_that_happens_to_its_partitions() {
    follow("FOR TABLE items WITH (publish_via_partition_root = true)", ROOT).await;
}

#[tokio::test]
async fn a_table_published_by_partition_is_followed_under_their_names() {
    follow("FOR TABLE items", PARTS).await;
}

#[tokio::test]
async fn what_happened_to_partitions_during_a_stop_is_followed_too() {
    let (cluster, client) = source("FOR TABLE items WITH (publish_via_partition_root = true)").await;
    let mut replica = start(&cluster, ROOT);
    replica.wait_for_ids("everything", &["austin", "paris", "rome"]).await;
    for (changes, ids) in [
        // The stream has the row; that the partition was emptied it has not.
        (["INSERT INTO items VALUES ('lima', 'us')", "TRUNCATE items_us"], &["paris", "rome"][..]),
        (
            ["ALTER TABLE items ATTACH PARTITION items_asia FOR VALUES IN ('asia')", "SELECT"],
            &["paris", "rome", "tokyo"],
        ),
        (["INSERT INTO items VALUES ('oslo', 'eu')", "DROP TABLE items_eu"], &["tokyo"]),
    ] {
        let stopped = replica.stop().await;
        for sql in changes {
            run(&client, sql).await;
        }
        replica = stopped.start_again(&cluster);
        replica.wait_for_ids("everything", ids).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_new_partition_brings_clients_only_its_own_rows() {
    let (cluster, client) = source("FOR TABLE items WITH (publish_via_partition_root = true)").await;
    let replica = start(&cluster, ROOT);
    replica.wait_for_ids("everything", &["austin", "paris", "rome"]).await;
    let before = replica.operation_count();
    run(&client, "CREATE TABLE items_africa PARTITION OF items FOR VALUES IN ('africa')").await;
    run(&client, "INSERT INTO items_africa VALUES ('cairo', 'africa')").await;
    replica.wait_for_ids("everything", &["austin", "cairo", "paris", "rome"]).await;
    run(&client, "ALTER TABLE items ATTACH PARTITION items_asia FOR VALUES IN ('asia')").await;
    replica.wait_for_ids("everything", &["austin", "cairo", "paris", "rome", "tokyo"]).await;
    assert_eq!(replica.operation_count(), before + 2);
    replica.stop().await;
}

#[tokio::test]
async fn rules_for_a_partition_get_its_rows_where_it_is_published_and_none_where_its_root_is() {
    let (cluster, client) = source("FOR TABLE items WITH (publish_via_partition_root = true)").await;
    let replica = start(&cluster, ONE_PART);
    replica.wait_for_ids("everything", &[]).await;
    run(&client, "INSERT INTO items VALUES ('oslo', 'eu')").await;
    replica.catch_up(&client).await;
    assert_eq!(replica.outcome().await, Ok(()), "the stream describes the partition, and yet has no changes of it");
    run(&client, "ALTER PUBLICATION kairos_sync SET (publish_via_partition_root = false)").await;
    replica.wait_for_ids("everything", &["oslo", "paris", "rome"]).await;
    run(&client, "DELETE FROM items WHERE id = 'paris'").await;
    replica.wait_for_ids("everything", &["oslo", "rome"]).await;
    run(&client, "ALTER PUBLICATION kairos_sync SET (publish_via_partition_root = true)").await;
    replica.wait_for_ids("everything", &[]).await;
    replica.stop().await;
}

#[tokio::test]
async fn the_root_counts_where_one_of_several_publications_has_it() {
    let (cluster, client) = source("FOR TABLE items WITH (publish_via_partition_root = true)").await;
    run(&client, "CREATE PUBLICATION parts FOR TABLE items_eu").await;
    let mut config = config(&cluster);
    config.publications = ["parts", "kairos_sync"].map(str::to_owned).to_vec();
    let replica = Replica::start_reading(config.clone(), ROOT);
    replica.wait_for_ids("everything", &["austin", "paris", "rome"]).await;
    for (change, ids) in &CHANGES[..3] {
        run(&client, change).await;
        replica.wait_for_ids("everything", ids).await;
    }
    replica.stop().await;
    run(&client, "ALTER PUBLICATION kairos_sync SET TABLE items WHERE (region = 'us')").await;
    let replica = Replica::start_reading(config.clone(), ROOT);
    let (code, message) = replica.outcome().await.expect_err("the condition would count for some partitions only");
    assert_eq!(code, "PG-0213");
    replica.stop().await;
    run(&client, message.split('`').nth(1).expect("the SQL")).await;
    // Of a partition that is named, rows come as the root's, and no condition is on them.
    run(&client, "ALTER PUBLICATION parts SET TABLE items").await;
    let replica = Replica::start_reading(config, ROOT);
    replica.wait_for_ids("everything", CHANGES[2].1).await;
    replica.stop().await;
}
