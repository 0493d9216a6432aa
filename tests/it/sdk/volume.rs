//! Many rows and large ones, with the official SDK.

use std::collections::BTreeSet;

use kairos_tests::{
    official::{OfficialClient, Sdk, texts},
    service::{TestService, eventually},
};
use serde_json::json;

/// A service that is not optimised is given fewer.
const ROWS: usize = if cfg!(debug_assertions) { 10_000 } else { 100_000 };

const RULES: &str = "bucket_definitions: {all: {data: [SELECT * FROM notes]}}";

const ALL: &str = "SELECT id || ' ' || body FROM notes";

async fn open(schema: &str) -> (TestService, OfficialClient) {
    let service = TestService::start(schema, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({"notes": {"body": "text"}});
    let client = OfficialClient::open(Sdk::HTTP, service.folder.path(), "phone", &tables).await;
    client.connect(service.process.endpoint(), &service.token("ann")).await;
    client.call(json!({"do": "synced", "seconds": 60})).await;
    (service, client)
}

/// Waits until `rows` of them match, then compares all. The rows themselves are asked for once, since they are many.
async fn equal(service: &TestService, client: &OfficialClient, rows: usize, pattern: &str) {
    let count = format!("SELECT count(*) AS n FROM notes WHERE body LIKE '{pattern}'");
    eventually([rows.to_string()].into(), async || client.texts(&count).await).await;
    let (expected, held) = (texts(&service.sql, ALL, &[]).await, client.texts(ALL).await);
    // Told without the rows: some of them are large.
    let ids =
        |rows: &BTreeSet<String>| rows.iter().filter_map(|row| row.split(' ').next().map(str::to_owned)).collect();
    let (differs, all): (BTreeSet<_>, _) = (expected.symmetric_difference(&held).cloned().collect(), expected.len());
    let differs: BTreeSet<String> = ids(&differs);
    assert!(differs.is_empty(), "{} ids differ: {:?}", differs.len(), differs.iter().take(20).collect::<Vec<_>>());
    assert_eq!(all, rows);
}

#[tokio::test]
async fn many_rows_come_and_change_at_once() {
    let schema = format!(
        "CREATE TABLE notes (id text PRIMARY KEY, body text NOT NULL);
         SELECT kairos.publish_table('notes');
         INSERT INTO notes SELECT 'note-' || n, 'copied ' || md5(n::text) FROM generate_series(1, {ROWS}) n"
    );
    let (service, client) = open(&schema).await;
    equal(&service, &client, ROWS, "copied %").await;
    service.run("UPDATE notes SET body = 'streamed ' || md5(body)").await;
    equal(&service, &client, ROWS, "streamed %").await;
    client.call(json!({"do": "close"})).await;
}

/// Each is as large as all other operations of a line together may be. What repeats is stored compressed, what does not
/// lies out of line as it is.
#[tokio::test]
async fn rows_of_a_megabyte_come_whole() {
    let schema = "
        CREATE TABLE notes (id text PRIMARY KEY, body text NOT NULL, touched int NOT NULL DEFAULT 0);
        SELECT kairos.publish_table('notes');
        INSERT INTO notes SELECT 'repeating-' || n, 'copied ' || repeat('ä🎈\\\"', 131072) FROM generate_series(1, 2) n;
        INSERT INTO notes SELECT 'random-' || n, 'copied ' || (SELECT string_agg(md5(n::text || k), '') FROM generate_series(1, 32768) k)
        FROM generate_series(1, 2) n";
    let (service, client) = open(schema).await;
    equal(&service, &client, 4, "copied %").await;
    // An unchanged value that lies out of line is not in the stream.
    service.run("UPDATE notes SET touched = 1").await;
    service.run("UPDATE notes SET body = replace(body, 'copied', 'streamed')").await;
    equal(&service, &client, 4, "streamed %").await;
    client.call(json!({"do": "close"})).await;
}
