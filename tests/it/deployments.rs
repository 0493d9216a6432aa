//! Rules that change while the service runs, or between two runs: what is new is built from what is stored, beside what
//! is served; what is as before stays as it is.

use std::{collections::BTreeSet, time::Duration};

use kairos_sync::{
    demo::cluster::PgCluster,
    storage::{BucketStore, DeploymentNumber, SqliteOptions, SqliteStore},
};
use kairos_sync_protocol::{BucketName, OpId};
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::replica::{RULES, Replica, compiled, connect, create_tables, run, source};

/// The rules of the replica, and completions once more.
fn more() -> String {
    let done_by = r#"
  done_by:
    parameters:
      - name: user_id
        type: string
    data:
      - table: completions
        filter: "habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)"
"#;
    RULES.to_owned() + done_by
}

/// The rules of the replica with another view of items.
fn other_items() -> String {
    RULES.replace("SELECT * FROM items", "SELECT id, title AS name FROM items")
}

const ROWS: &str = "
    INSERT INTO items SELECT n, 'title ' || n, 'body' FROM generate_series(1, 2500) n;
    INSERT INTO habits VALUES ('h1', 'ann'), ('h2', 'ben');
    INSERT INTO completions SELECT n, 'h' || 1 + n % 2 FROM generate_series(1, 2500) n;";

/// A store on disk.
fn store() -> (TempDir, std::sync::Arc<dyn BucketStore>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).expect("a store");
    (folder, std::sync::Arc::new(store))
}

fn serving(replica: &Replica) -> u64 {
    replica.store.view().expect("a view").serving().0
}

async fn wait_for_deployment(replica: &Replica, number: u64) {
    replica.wait_until(|replica| serving(replica) == number).await;
}

/// Rows of a bucket by what SQL says of them.
async fn sql(client: &Client, query: &str) -> BTreeSet<String> {
    client.query(query, &[]).await.expect("answers").iter().map(|row| row.get(0)).collect()
}

/// What [`other_items`] gives is what SQL says.
async fn assert_other_items(replica: &Replica, client: &Client) {
    let found: BTreeSet<String> = replica.contents("1#everything[]").into_values().map(|row| row.to_string()).collect();
    let json = "SELECT json_build_object('id', id, 'name', title)::text FROM items";
    let wanted: BTreeSet<String> =
        sql(client, json).await.iter().map(|row| row.replace(" : ", ":").replace(", \"", ",\"")).collect();
    assert!(found == wanted, "{:?}", found.symmetric_difference(&wanted).take(10).collect::<Vec<_>>());
}

fn ids(replica: &Replica, bucket_part: &str) -> BTreeSet<String> {
    replica.contents(bucket_part).into_keys().map(|(_, id)| id).collect()
}

fn totals(replica: &Replica, name: &str) -> (u64, OpId) {
    let bucket = BucketName::new(format!("{}{name}", replica.store.bucket_prefix().expect("a prefix")));
    let totals = replica.store.view().expect("a view").bucket(&bucket).expect("totals");
    (totals.count, totals.last_op_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_definition_is_built_from_stored_rows_and_nothing_else_is_touched() {
    let (cluster, client) = source().await;
    run(&client, ROWS).await;
    let (_folder, store) = store();
    let replica = Replica::start_on(&cluster, store);
    replica.catch_up(&client).await;
    replica.wait_for_stream().await;
    let before = totals(&replica, "everything[]");
    let copied = replica.metrics.bytes_replicated.get();
    replica.deployments.want(compiled(&more()));
    wait_for_deployment(&replica, 1).await;
    assert_eq!(totals(&replica, "everything[]"), before, "what is as before is downloaded by nobody");
    assert_eq!(replica.metrics.rows_rebuilt.get(), 2500, "completions alone: what is asked of habits is known");
    assert!(replica.metrics.bytes_replicated.get() - copied < 10_000, "nothing was read from the source");
    let of_ann = "SELECT c.id FROM completions c JOIN habits h ON h.id = c.habit_id WHERE h.user_id = 'ann'";
    assert_eq!(ids(&replica, "done_by[\"ann\"]"), sql(&client, of_ann).await);

    // And it is kept like any other.
    run(&client, "UPDATE habits SET user_id = 'ann'; DELETE FROM completions WHERE id::int < 100").await;
    replica.catch_up(&client).await;
    assert_eq!(ids(&replica, "done_by[\"ann\"]"), sql(&client, of_ann).await);
    assert!(ids(&replica, "done_by[\"ben\"]").is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_definition_gets_other_buckets_and_the_old_ones_are_forgotten() {
    let (cluster, client) = source().await;
    run(&client, ROWS).await;
    let (_folder, store) = store();
    let replica = Replica::start_on(&cluster, store);
    replica.catch_up(&client).await;
    let (users, rows) = (totals(&replica, "user_data[\"ann\"]"), replica.store.stats().expect("stats").row_count);
    replica.deployments.want(compiled(&other_items()));
    // Changes go on meanwhile.
    let writer = connect(&cluster).await;
    for number in 0..200 {
        let sql = format!(
            "INSERT INTO items VALUES ('new{number}', 'new'); UPDATE items SET title = 'changed {number}' WHERE id = '{number}';
             DELETE FROM items WHERE id = '{}'",
            2500 - number
        );
        run(&writer, &sql).await;
        sleep(Duration::from_millis(2)).await;
    }
    wait_for_deployment(&replica, 1).await;
    replica.catch_up(&client).await;
    assert_other_items(&replica, &client).await;
    assert_eq!(totals(&replica, "user_data[\"ann\"]"), users);
    replica.wait_until(|replica| totals(replica, "everything[]").0 == 0).await;
    assert_eq!(replica.store.stats().expect("stats").row_count, rows + 200 - 200);

    // Back to the first rules: not to the first buckets.
    replica.deployments.want(compiled(RULES));
    wait_for_deployment(&replica, 2).await;
    replica.catch_up(&client).await;
    assert_eq!(ids(&replica, "2#everything[]"), sql(&client, "SELECT id FROM items").await);
    replica.stop().await;
}

/// Of a table with several pages of rows, the next page is read while the stream changes and deletes rows all over it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_change_while_the_next_page_is_read_are_built_as_they_are() {
    const ROW_COUNT: u64 = 30_000;
    let (cluster, client) = source().await;
    let rows = format!("INSERT INTO items SELECT n, 'first', repeat('x', 300) FROM generate_series(1, {ROW_COUNT}) n");
    run(&client, &rows).await;
    let (_folder, store) = store();
    let replica = Replica::start_on(&cluster, store);
    replica.catch_up(&client).await;
    replica.deployments.want(compiled(&other_items()));
    let writer = connect(&cluster).await;
    let mut number = 0;
    while serving(&replica) == 0 {
        number += 1;
        // A prime, so that every row has its turn.
        let ids: Vec<_> = (0..20).map(|part| format!("'{}'", (number * 20 + part) * 7_919 % ROW_COUNT + 1)).collect();
        let (gone, changed) = ids.split_at(2);
        let sql = format!(
            "UPDATE items SET title = 'changed {number}' WHERE id IN ({}); DELETE FROM items WHERE id IN ({})",
            changed.join(", "),
            gone.join(", ")
        );
        run(&writer, &sql).await;
        sleep(Duration::from_millis(2)).await;
    }
    replica.catch_up(&client).await;
    assert_other_items(&replica, &client).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_new_to_the_rules_is_copied_while_the_others_go_on() {
    let (cluster, client) = source().await;
    run(&client, "CREATE TABLE notes (id text PRIMARY KEY, body text); ALTER PUBLICATION kairos_sync ADD TABLE notes")
        .await;
    run(&client, "INSERT INTO notes SELECT n, 'note' FROM generate_series(1, 3000) n; INSERT INTO items VALUES ('a')")
        .await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let rules: String = RULES.replace(
        "- SELECT * FROM items\n",
        "- SELECT * FROM items\n  notes:\n    data:\n      - SELECT * FROM notes\n",
    );
    replica.deployments.want(compiled(&rules));
    run(&client, "INSERT INTO items VALUES ('b'); INSERT INTO notes VALUES ('new')").await;
    wait_for_deployment(&replica, 1).await;
    replica.catch_up(&client).await;
    assert_eq!(ids(&replica, "notes[]"), sql(&client, "SELECT id FROM notes").await);
    replica.assert_items_equal_sql(&client).await;

    // A table that no rule reads any more is forgotten, without an operation for each row.
    let operations = replica.operation_count();
    replica.deployments.want(compiled(RULES));
    wait_for_deployment(&replica, 2).await;
    replica.wait_until(|replica| replica.store.stats().expect("stats").row_count == 2).await;
    assert!(replica.operation_count() <= operations, "{} then, {operations} before", replica.operation_count());
    run(&client, "INSERT INTO notes VALUES ('newer'); INSERT INTO items VALUES ('c')").await;
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_goes_on_after_a_restart_and_other_rules_meanwhile_end_it() {
    let (cluster, client) = source().await;
    run(&client, ROWS).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let stopped = replica.stop().await;

    // Many short lives: some end within the build.
    let mut stopped = stopped;
    let mut lives = 0;
    let replica = loop {
        let replica = stopped.start_again_by(&cluster, &other_items());
        sleep(Duration::from_millis(20 + 10 * lives)).await;
        lives += 1;
        if serving(&replica) == 1 {
            break replica;
        }
        assert!(lives < 100, "the build never ends");
        stopped = replica.stop().await;
    };
    replica.catch_up(&client).await;
    assert_eq!(ids(&replica, "1#everything[]"), sql(&client, "SELECT id FROM items").await);

    // Two deploys in a row: the first is given up, whatever it had.
    replica.deployments.want(compiled(&more()));
    replica.deployments.want(compiled(RULES));
    replica.wait_until(|replica| serving(replica) >= 2).await;
    replica.catch_up(&client).await;
    let part = format!("{}#everything[]", serving(&replica));
    assert_eq!(ids(&replica, &part), sql(&client, "SELECT id FROM items").await);
    replica.stop().await;
}

#[tokio::test]
async fn what_the_source_cannot_serve_is_refused_and_the_old_rules_stay() {
    let (cluster, client) = source().await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    run(&client, "CREATE TABLE keyless (id text); ALTER PUBLICATION kairos_sync ADD TABLE keyless").await;
    let rules = "bucket_definitions: {all: {data: [SELECT * FROM keyless]}}";
    replica.deployments.want(compiled(rules));
    replica.wait_until(|replica| replica.deployments.snapshot().refusal.is_some()).await;
    let refusal = replica.deployments.snapshot().refusal.expect("a refusal");
    assert!(refusal.message.contains("keyless"), "{refusal:?}");
    run(&client, "INSERT INTO items VALUES ('a')").await;
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    assert_eq!(serving(&replica), 0);

    // Mended, and wanted once more.
    run(&client, "ALTER TABLE keyless ADD PRIMARY KEY (id); INSERT INTO keyless VALUES ('k')").await;
    replica.deployments.want(compiled(rules));
    replica.wait_until(|replica| serving(replica) > 0).await;
    replica.catch_up(&client).await;
    assert_eq!(ids(&replica, "all[]"), BTreeSet::from(["k".to_owned()]));
    replica.stop().await;
}

#[tokio::test]
async fn a_change_that_concerns_no_rows_is_in_force_at_once() {
    let cluster = PgCluster::start(None).expect("a server");
    let client = connect(&cluster).await;
    create_tables(&client).await;
    run(&client, "INSERT INTO items VALUES ('a')").await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let fewer = "bucket_definitions: {everything: {priority: 1, data: [SELECT * FROM items]}}";
    replica.deployments.want(compiled(fewer));
    wait_for_deployment(&replica, 1).await;
    assert_eq!(replica.metrics.rows_rebuilt.get(), 0);
    assert_eq!(totals(&replica, "everything[]").0, 1);
    assert_eq!(replica.deployments.snapshot().serving.map(|serving| serving.number), Some(DeploymentNumber(1)));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_built_anew_from_what_is_stored() {
    let (cluster, client) = source().await;
    run(&client, ROWS).await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let copied = replica.metrics.bytes_replicated.get();
    assert!(replica.deployments.renew());
    wait_for_deployment(&replica, 1).await;
    replica.catch_up(&client).await;
    assert!(replica.metrics.bytes_replicated.get() - copied < 10_000, "nothing was read from the source");
    assert_eq!(ids(&replica, "1#everything[]"), sql(&client, "SELECT id FROM items").await);
    let of_ann = "SELECT c.id FROM completions c JOIN habits h ON h.id = c.habit_id WHERE h.user_id = 'ann' \
                  UNION ALL SELECT id FROM habits WHERE user_id = 'ann'";
    assert_eq!(ids(&replica, "1#user_data[\"ann\"]"), sql(&client, of_ann).await);
    replica.stop().await;
}
