//! Values and kinds of tables.

use kairos_tests::{
    official::texts,
    service::{TestService, eventually},
    web_client::WebClient,
};
use serde_json::json;

const SCHEMA: &str = "
    CREATE TABLE readings (id text PRIMARY KEY, owner text NOT NULL, big int8, size float8, note text);
    CREATE TABLE events (id text PRIMARY KEY, owner text NOT NULL, kind text);
    SELECT kairos.publish_table('readings', 'INSERT, UPDATE, DELETE');
    CREATE TABLE drafts (id text PRIMARY KEY, owner text, body text);
    SELECT kairos.publish_table('events', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('drafts', 'INSERT, UPDATE, DELETE');
    INSERT INTO readings VALUES ('source', 'ann', 9223372036854775807, 1, NULL), ('other', 'ann', -9007199254740993, 0.1, '');
";

const RULES: &str = r"
bucket_definitions:
  readings:
    parameters: SELECT request.user_id() AS owner
    data:
      - SELECT * FROM readings WHERE owner = bucket.owner
      - SELECT * FROM drafts WHERE owner = bucket.owner
write_rules:
  readings:
    allow: [put, patch, delete]
    check: true
  events:
    allow: [put]
    check: true
  drafts:
    allow: [put, patch, delete]
    check: true
";

/// SQLite shows of a real number that it is one.
const IN_SOURCE: &str = "SELECT concat_ws('|', id, big::text,
    (size * 8)::text || CASE WHEN size * 8 = trunc(size * 8) THEN '.0' ELSE '' END, coalesce(note, '-')) FROM readings";
const ON_DEVICE: &str =
    "SELECT id || '|' || big || '|' || CAST(size * 8 AS TEXT) || '|' || coalesce(note, '-') FROM readings";

#[tokio::test]
async fn values_are_exact_both_ways_and_tables_do_as_declared() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({
        "readings": {"owner": "text", "big": "integer", "size": "real", "note": "text"},
        "events": {"columns": {"owner": "text", "kind": "text"}, "insertOnly": true},
        "drafts": {"columns": {"body": "text"}, "localOnly": true},
    });
    let tab = WebClient::open(service.folder.path(), &tables).await;
    tab.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    tab.reaches("synced").await;
    tab.converges(&service, IN_SOURCE, &[], ON_DEVICE).await;

    let insert = "INSERT INTO readings (id, owner, big, size, note) VALUES ";
    for values in [
        "('largest', 'ann', 9223372036854775807, 1.5, 'a \"quoted\" \\ text')",
        "('smallest', 'ann', -9223372036854775808, -0.125, '{\"json\":[1]}')",
        "('whole', 'ann', 9007199254740993, 3.0, 'ü 🎈')",
    ] {
        tab.execute(&format!("{insert}{values}")).await;
    }
    let bound = json!({"do": "execute", "sql": "UPDATE readings SET big = ?, size = ? WHERE id = 'source'", "parameters": [1_764_000_000_000_u64, 2]});
    assert_eq!(tab.call(bound).await, json!(1));
    tab.execute("INSERT INTO events (id, owner, kind) VALUES ('event', 'ann', 'opened')").await;
    tab.execute("INSERT INTO drafts (id, body) VALUES ('draft', 'Stays here')").await;
    let kinds = async || texts(&service.sql, "SELECT kind FROM events", &[]).await;
    eventually(["opened".to_owned()].into(), kinds).await;
    tab.reaches("synced").await;
    tab.converges(&service, IN_SOURCE, &[], ON_DEVICE).await;
    let whole =
        texts(&service.sql, "SELECT big::text FROM readings WHERE id IN ('largest', 'whole', 'source')", &[]).await;
    assert_eq!(whole, ["9223372036854775807", "9007199254740993", "1764000000000"].map(str::to_owned).into());
    assert_eq!(tab.texts("SELECT id FROM events").await, [].into(), "new rows are not kept");
    assert_eq!(tab.texts("SELECT body FROM drafts").await, ["Stays here".to_owned()].into());

    for (sql, part) in [
        ("INSERT INTO readings (id, note) VALUES ('blob', x'00')", "BLOB"),
        ("INSERT INTO readings (id, size) VALUES ('much', 9e999)", "infinite"),
        ("INSERT INTO readings (note) VALUES ('no id')", "id"),
        ("UPDATE readings SET id = 'moved' WHERE id = 'whole'", "cannot change"),
    ] {
        let error = tab.fails(json!({"do": "execute", "sql": sql})).await;
        assert!(error.contains("CLIENT-0101") && error.contains(part), "{sql}: {error}");
    }
    assert!(tab.fails(json!({"do": "query", "sql": "DELETE FROM drafts"})).await.contains("CLIENT-0101"));
    assert_eq!(
        tab.texts("SELECT typeof(size) || typeof(big) FROM readings WHERE id = 'whole'").await,
        ["realinteger".to_owned()].into()
    );
    tab.call(json!({"do": "close"})).await;
}

/// Columns and tables that were not declared are there as soon as they are; what was on this device alone goes up.
#[tokio::test]
async fn a_later_version_of_an_app_finds_what_came_before_it() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let server = json!({"endpoint": service.process.endpoint(), "tokens": [service.token("ann")]});
    let before = json!({
        "drafts": {"columns": {"owner": "text", "body": "text"}, "localOnly": true},
        "readings": {"columns": {"note": "text"}, "indexes": [["note"]]},
    });
    let tab = WebClient::open(service.folder.path(), &before).await;
    tab.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    tab.reaches("synced").await;
    tab.execute("INSERT INTO drafts (id, owner, body) VALUES ('draft', 'ann', 'Written before')").await;
    tab.execute("UPDATE readings SET note = 'Noted' WHERE id = 'source'").await;

    let after = json!({
        "drafts": {"owner": "text", "body": "text"},
        "readings": {"columns": {"owner": "text", "big": "integer", "size": "real", "note": "text"}, "indexes": [["big"]]},
    });
    let tab = tab.update(&after, &server).await;
    let big = "SELECT CAST(big AS TEXT) FROM readings WHERE note = 'Noted'";
    assert_eq!(tab.texts(big).await, ["9223372036854775807".to_owned()].into());
    tab.call(json!({"do": "connect"})).await;
    let bodies = async || texts(&service.sql, "SELECT body FROM drafts", &[]).await;
    eventually(["Written before".to_owned()].into(), bodies).await;
    tab.reaches("synced").await;
    tab.converges(&service, IN_SOURCE, &[], ON_DEVICE).await;
    assert_eq!(tab.texts("SELECT body FROM drafts").await, ["Written before".to_owned()].into());
    tab.call(json!({"do": "close"})).await;
}
