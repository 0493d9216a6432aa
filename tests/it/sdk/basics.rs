//! Initial sync, live changes, an upload, and a reconnect that costs a delta only; with every SDK and carrier.
//!
//! In a browser the page comes from another origin than the service, so all of it asks for leave first.

use kairos_tests::{
    official::{OfficialClient, Sdk, texts},
    service::{TestService, eventually},
};
use serde_json::{Value, json};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE lists (id text PRIMARY KEY, owner text NOT NULL, name text NOT NULL);
    CREATE TABLE todos (id text PRIMARY KEY, list_id text NOT NULL, title text, done boolean NOT NULL DEFAULT false);
    ALTER TABLE lists ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON lists USING (owner = kairos.current_user_id());
    ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON todos USING (list_id IN (SELECT id FROM lists WHERE owner = kairos.current_user_id()));
    SELECT kairos.publish_table('lists', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('todos', 'INSERT, UPDATE, DELETE');
    INSERT INTO lists SELECT 'list-' || n, CASE n % 2 WHEN 0 THEN 'ann' ELSE 'bob' END, 'List ' || n FROM generate_series(1, 20) n;
    INSERT INTO todos SELECT 'todo-' || n, 'list-' || n % 20 + 1, 'Todo ' || n, n % 3 = 0 FROM generate_series(1, 2000) n;
";

/// Classic rules: one bucket per list, found through a table query.
pub(crate) const RULES: &str = r"
bucket_definitions:
  lists:
    parameters: SELECT request.user_id() AS owner
    data:
      - SELECT * FROM lists WHERE owner = bucket.owner
  todos:
    parameters: SELECT id AS list_id FROM lists WHERE owner = request.user_id()
    data:
      - SELECT * FROM todos WHERE list_id = bucket.list_id
write_rules:
  lists:
    allow: [put, patch, delete]
    check: row.owner = auth.user_id()
  todos:
    allow: [put, patch, delete]
    check: true
";

/// What SQL on Postgres says ann's device holds.
pub(crate) const IN_SOURCE: &str = "
    SELECT 'list ' || id || ' ' || name FROM lists WHERE owner = 'ann' UNION ALL
    SELECT 'todo ' || t.id || ' ' || t.list_id || ' ' || coalesce(title, '-') || ' ' || done::int
    FROM todos t JOIN lists l ON l.id = t.list_id WHERE l.owner = 'ann'";

pub(crate) const ON_DEVICE: &str = "
    SELECT 'list ' || id || ' ' || name FROM lists UNION ALL
    SELECT 'todo ' || id || ' ' || list_id || ' ' || coalesce(title, '-') || ' ' || done FROM todos";

pub(crate) fn tables() -> Value {
    json!({
        "lists": {"owner": "text", "name": "text"},
        "todos": {"list_id": "text", "title": "text", "done": "integer"},
    })
}

pub(super) async fn converges(service: &TestService, client: &OfficialClient) {
    client.converges(service, IN_SOURCE, &[], ON_DEVICE).await;
}

async fn syncs_uploads_and_reconnects_with_a_delta(sdk: Sdk) {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let client = OfficialClient::open(sdk, service.folder.path(), "phone", &tables()).await;
    let token = service.token("ann");

    client.connect(service.process.endpoint(), &token).await;
    let status = client.call(json!({"do": "synced", "seconds": 30})).await;
    assert_eq!(status["hasSynced"], Value::Bool(true), "{status}");
    converges(&service, &client).await;

    for sql in [
        "INSERT INTO todos VALUES ('new', 'list-2', 'Fresh', false)",
        "UPDATE todos SET title = NULL, done = true WHERE id = 'new'",
        "DELETE FROM todos WHERE id = 'new'",
        "UPDATE lists SET owner = 'bob' WHERE id = 'list-4'",
    ] {
        service.run(sql).await;
        converges(&service, &client).await;
    }

    upload(&service, &client).await;
    reconnect(&service, &client, &token).await;
    client.call(json!({"do": "close"})).await;
}

/// A local transaction reaches Postgres, a refused write comes back as it was.
async fn upload(service: &TestService, client: &OfficialClient) {
    for sql in [
        "INSERT INTO todos (id, list_id, title, done) VALUES ('phone', 'list-2', 'From the phone', 0)",
        "UPDATE todos SET done = 1 WHERE id = 'phone'",
        "UPDATE lists SET name = 'Renamed' WHERE id = 'list-2'",
        "INSERT INTO lists (id, owner, name) VALUES ('stolen', 'bob', 'Not for ann')",
    ] {
        client.execute(sql).await;
    }
    let in_source = async || {
        let sql = "SELECT title || ' ' || done FROM todos WHERE id = 'phone' \
                   UNION ALL SELECT name FROM lists WHERE id IN ('list-2', 'stolen')";
        texts(&service.sql, sql, &[]).await
    };
    eventually(["From the phone true", "Renamed"].map(str::to_owned).into(), in_source).await;
    converges(service, client).await;
    let Value::Array(outcomes) = client.call(json!({"do": "uploads"})).await else { panic!("a list of outcomes") };
    let refused: Vec<_> = outcomes.iter().filter(|outcome| outcome["outcome"] == "refused").collect();
    assert_eq!(refused.len(), 1, "{outcomes:?}");
    // The write rule would refuse it too, but row-level security meets the row first.
    assert_eq!((&refused[0]["id"], &refused[0]["code"]), (&json!("stolen"), &json!("WRITE_RLS")));
}

/// While the device is away one row changes; coming back costs that one operation, not the bucket.
async fn reconnect(service: &TestService, client: &OfficialClient, token: &str) {
    client.call(json!({"do": "disconnect"})).await;
    costs_a_delta(service, client, token).await;
}

/// The next connection after a change costs that change.
pub(super) async fn costs_a_delta(service: &TestService, client: &OfficialClient, token: &str) {
    let sent = async || service.process.metric("powersync_operations_synced_total").await.expect("metrics are served");
    let before = sent().await;
    service.run("UPDATE todos SET title = 'Changed meanwhile' WHERE id = 'todo-1'").await;
    client.connect(service.process.endpoint(), token).await;
    converges(service, client).await;
    let delta = sent().await - before;
    assert!((1..=5).contains(&delta), "a delta of one row was sent as {delta} operations");
}

#[tokio::test]
async fn over_http_the_official_sdk_syncs_uploads_and_reconnects_with_a_delta() {
    syncs_uploads_and_reconnects_with_a_delta(Sdk::HTTP).await;
}

#[tokio::test]
async fn with_json_the_official_sdk_syncs_uploads_and_reconnects_with_a_delta() {
    syncs_uploads_and_reconnects_with_a_delta(Sdk::NDJSON).await;
}

#[tokio::test]
async fn over_a_web_socket_the_official_sdk_syncs_uploads_and_reconnects_with_a_delta() {
    syncs_uploads_and_reconnects_with_a_delta(Sdk::WEB_SOCKET).await;
}

#[tokio::test]
async fn the_javascript_sync_client_syncs_uploads_and_reconnects_with_a_delta() {
    syncs_uploads_and_reconnects_with_a_delta(Sdk::JAVASCRIPT).await;
}

#[tokio::test]
async fn in_a_browser_the_official_sdk_syncs_uploads_and_reconnects_with_a_delta() {
    syncs_uploads_and_reconnects_with_a_delta(Sdk::WEB).await;
}

#[tokio::test]
async fn in_a_browser_over_a_web_socket_the_official_sdk_syncs_uploads_and_reconnects_with_a_delta() {
    syncs_uploads_and_reconnects_with_a_delta(Sdk::WEB_OVER_WEB_SOCKET).await;
}

#[tokio::test]
async fn our_client_syncs_uploads_and_reconnects_with_a_delta() {
    syncs_uploads_and_reconnects_with_a_delta(Sdk::RUST).await;
}
