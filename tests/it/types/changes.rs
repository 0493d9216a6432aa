//! Types of one's own that come, or change, while they are read.

use kairos_sync::{demo::cluster::PgCluster, storage::BucketStore};
use tokio_postgres::Client;

use super::reader::{Reader, as_sql, connect};

const QUERY: &str = "SELECT * FROM items";
const CONFIG: &str = "{edition: 2}";
const TABLE: &str = "
    CREATE TYPE pair AS (a int, b text);
    CREATE TABLE items (id text PRIMARY KEY, pairs pair[], touched int);
    CREATE PUBLICATION kairos_sync FOR TABLE items;
    INSERT INTO items VALUES ('before', ARRAY[ROW(1, 'x')::pair])";

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

#[tokio::test]
async fn a_type_that_grows_is_read_with_what_it_has_got() {
    let (_cluster, uri, client) = source(TABLE).await;
    let reader = Reader::start(&uri, CONFIG, QUERY);
    let pairs = async |reader: &Reader, id: &str| as_sql(reader.rows_at(&client).await[id].get("pairs"));
    assert_eq!(pairs(&reader, "before").await, r#"'[{"a":1,"b":"x"}]'"#);
    let change = "
        ALTER TYPE pair ADD ATTRIBUTE c bool CASCADE;
        INSERT INTO items VALUES ('grown', ARRAY[ROW(2, 'y', true)::pair])";
    client.batch_execute(change).await.expect("valid changes");
    assert_eq!(pairs(&reader, "grown").await, r#"'[{"a":2,"b":"y","c":1}]'"#);
    client.batch_execute("UPDATE items SET touched = 1").await.expect("an update");
    assert_eq!(pairs(&reader, "before").await, r#"'[{"a":1,"b":"x","c":null}]'"#);
    reader.stop().await;
}

#[tokio::test]
async fn a_type_that_changed_meanwhile_is_read_anew_everywhere() {
    let (_cluster, uri, client) = source(TABLE).await;
    let reader = Reader::start(&uri, CONFIG, QUERY);
    reader.rows_at(&client).await;
    let store = reader.stop().await;
    let prefix = store.bucket_prefix().expect("a prefix");
    let reader = Reader::resume(store, &uri, CONFIG, QUERY);
    client.batch_execute("INSERT INTO items VALUES ('same', NULL)").await.expect("a row");
    reader.rows_at(&client).await;
    let store = reader.stop().await;
    assert_eq!(store.bucket_prefix().expect("a prefix"), prefix, "what has not changed is not read anew");
    client.batch_execute("ALTER TYPE pair RENAME ATTRIBUTE b TO name").await.expect("a valid change");
    let reader = Reader::resume(store, &uri, CONFIG, QUERY);
    let rows = reader.rows_at(&client).await;
    assert_eq!(as_sql(rows["before"].get("pairs")), r#"'[{"a":1,"name":"x"}]'"#);
    reader.stop().await;
}
