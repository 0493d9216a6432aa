//! Types of one's own that come, or change, while they are read.

use kairos_sync::{
    demo::cluster::PgCluster,
    storage::{BucketStore, MemoryStore},
};
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::Client;

use super::reader::{Reader, as_sql, connect};

const QUERY: &str = "SELECT * FROM items";
const BOTH: &str = "SELECT * FROM items\n      - SELECT * FROM others";
const CONFIG: &str = "{edition: 2}";
const TABLE: &str = "
    CREATE TYPE pair AS (a int, b text);
    CREATE TABLE items (id text PRIMARY KEY, pairs pair[]);
    CREATE TABLE others (id text PRIMARY KEY, pairs pair);
    CREATE PUBLICATION kairos_sync FOR TABLE items, others;
    INSERT INTO items VALUES ('before', ARRAY[ROW(1, 'x')::pair]);
    INSERT INTO others VALUES ('other before', ROW(1, 'x'))";

async fn source(sql: &str) -> (PgCluster, String, Client) {
    let cluster = PgCluster::start(None).expect("a server");
    let uri = cluster.uri("postgres", "postgres");
    let client = connect(&uri).await;
    client.batch_execute(sql).await.expect("a table");
    (cluster, uri, client)
}

#[tokio::test]
async fn a_type_that_is_new_in_the_stream_is_looked_up() {
    let sql = "CREATE TABLE items (id text PRIMARY KEY);
               CREATE PUBLICATION kairos_sync FOR TABLE items;
               INSERT INTO items VALUES ('before')";
    let (_cluster, uri, client) = source(sql).await;
    let reader = Reader::start(&uri, CONFIG, QUERY);
    reader.rows_at(&client).await;
    let change = "
        CREATE DOMAIN level AS int;
        CREATE TYPE pair AS (level level, many text[]);
        ALTER TABLE items ADD pairs pair[], ADD level level, ADD span int4range;
        INSERT INTO items VALUES ('after', ARRAY[ROW(1, '{a}')::pair], 7, '[1,2)')";
    client.batch_execute(change).await.expect("valid changes");
    let rows = reader.rows_at(&client).await;
    assert_eq!(as_sql(rows["after"].get("pairs")), r#"'[{"level":1,"many":["a"]}]'"#);
    assert_eq!(as_sql(rows["after"].get("level")), "7");
    // The type is gone again before the stream tells of it: its values are as printed.
    let gone = "
        BEGIN;
        CREATE DOMAIN fleeting AS int;
        ALTER TABLE items ADD fleeting fleeting;
        INSERT INTO items (id, fleeting) VALUES ('last', 8);
        ALTER TABLE items DROP fleeting;
        DROP DOMAIN fleeting;
        COMMIT";
    client.batch_execute(gone).await.expect("valid changes");
    let rows = reader.rows_at(&client).await;
    assert!(rows.contains_key("last"), "a type nobody knows any more stops nothing");
    reader.stop().await;
}

/// Waits until a row has these pairs. Rows that nobody touches come with a copy, which may take a moment.
async fn assert_pairs(reader: &Reader, client: &Client, id: &str, expected: &str) {
    let started = Instant::now();
    loop {
        let found = as_sql(reader.rows_at(client).await.get(id).and_then(|row| row.get("pairs")));
        if found == expected {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{id} has {found}, not {expected}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_type_that_grows_is_read_with_what_it_has_got() {
    let (_cluster, uri, client) = source(TABLE).await;
    let reader = Reader::start(&uri, CONFIG, BOTH);
    let assert_arrives = async |id: &str, expected: &str| assert_pairs(&reader, &client, id, expected).await;
    assert_arrives("before", r#"'[{"a":1,"b":"x"}]'"#).await;
    let change = "
        ALTER TYPE pair ADD ATTRIBUTE c bool CASCADE;
        INSERT INTO items VALUES ('grown', ARRAY[ROW(2, 'y', true)::pair]);
        INSERT INTO others VALUES ('other', ROW(3, 'z', false))";
    client.batch_execute(change).await.expect("valid changes");
    assert_arrives("grown", r#"'[{"a":2,"b":"y","c":1}]'"#).await;
    // Each table that has the type, and rows from before as well.
    assert_arrives("other", r#"'{"a":3,"b":"z","c":0}'"#).await;
    assert_arrives("before", r#"'[{"a":1,"b":"x","c":null}]'"#).await;
    assert_arrives("other before", r#"'{"a":1,"b":"x","c":null}'"#).await;
    reader.stop().await;
}

#[tokio::test]
async fn a_type_that_changed_meanwhile_is_read_anew_everywhere() {
    let (_cluster, uri, client) = source(TABLE).await;
    let reader = Reader::start(&uri, CONFIG, QUERY);
    assert_pairs(&reader, &client, "before", r#"'[{"a":1,"b":"x"}]'"#).await;
    let store = reader.stop().await;
    client.batch_execute("ALTER TYPE pair RENAME ATTRIBUTE b TO name").await.expect("a valid change");
    let reader = Reader::resume(store, &uri, CONFIG, QUERY);
    assert_pairs(&reader, &client, "before", r#"'[{"a":1,"name":"x"}]'"#).await;
    reader.stop().await;
}

#[tokio::test]
async fn a_type_that_is_as_it_was_costs_no_copy() {
    let (_cluster, uri, client) = source(TABLE).await;
    let reader = Reader::start(&uri, CONFIG, QUERY);
    assert_pairs(&reader, &client, "before", r#"'[{"a":1,"b":"x"}]'"#).await;
    let store = reader.stop().await;
    let state = |store: &MemoryStore| {
        let state = store.replication_state().expect("a state").expect("stored");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
        state["tables"].clone()
    };
    let earlier = state(store.as_ref());
    let reader = Reader::resume(store, &uri, CONFIG, QUERY);
    client.batch_execute("INSERT INTO items VALUES ('after', ARRAY[ROW(2, 'y')::pair])").await.expect("a row");
    assert_pairs(&reader, &client, "after", r#"'[{"a":2,"b":"y"}]'"#).await;
    assert_eq!(state(reader.stop().await.as_ref()), earlier, "a copy would be written under another layout");
}
