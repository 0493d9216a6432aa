//! The official SDK against the service: initial sync, live changes, an upload, and a reconnect that costs a delta only.

use std::collections::BTreeSet;

use kairos_tests::{
    official::OfficialClient,
    service::{TestService, eventually},
};
use serde_json::{Value, json};

const SCHEMA: &str = "
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
const RULES: &str = r"
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

/// What SQL on Postgres says a user's device holds.
async fn expected(service: &TestService, user: &str) -> BTreeSet<String> {
    let rows = service
        .sql
        .query(
            "SELECT 'list ' || id || ' ' || name FROM lists WHERE owner = $1 UNION ALL \
             SELECT 'todo ' || t.id || ' ' || t.list_id || ' ' || coalesce(title, '-') || ' ' || done::int \
             FROM todos t JOIN lists l ON l.id = t.list_id WHERE l.owner = $1",
            &[&user],
        )
        .await
        .expect("valid SQL");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn held(client: &mut OfficialClient) -> BTreeSet<String> {
    let rows = client
        .query(
            "SELECT 'list ' || id || ' ' || name AS row FROM lists UNION ALL \
             SELECT 'todo ' || id || ' ' || list_id || ' ' || coalesce(title, '-') || ' ' || done FROM todos",
        )
        .await;
    rows.iter().filter_map(|row| row["row"].as_str().map(str::to_owned)).collect()
}

/// Waits until the device holds what Postgres says.
async fn converges(service: &TestService, client: &mut OfficialClient, user: &str) {
    let client = tokio::sync::Mutex::new(client);
    let difference = async || {
        let (expected, held) = (expected(service, user).await, held(*client.lock().await).await);
        expected.symmetric_difference(&held).cloned().collect::<Vec<_>>()
    };
    eventually(Vec::new(), difference).await;
}

async fn run_sql(service: &TestService, sql: &str) {
    service.sql.batch_execute(sql).await.expect("valid SQL");
}

#[tokio::test]
async fn the_official_sdk_syncs_uploads_and_reconnects_with_a_delta() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({
        "lists": {"owner": "text", "name": "text"},
        "todos": {"list_id": "text", "title": "text", "done": "integer"},
    });
    let mut client = OfficialClient::open(service.folder.path(), "official.db", tables).await;
    let token = service.token("ann");

    client.connect(service.process.endpoint(), &token).await;
    let status = client.call(json!({"do": "synced", "seconds": 30})).await;
    assert_eq!(status["hasSynced"], Value::Bool(true), "{status}");
    converges(&service, &mut client, "ann").await;

    run_sql(&service, "INSERT INTO todos VALUES ('new', 'list-2', 'Fresh', false)").await;
    converges(&service, &mut client, "ann").await;
    run_sql(&service, "UPDATE todos SET title = NULL, done = true WHERE id = 'new'").await;
    converges(&service, &mut client, "ann").await;
    run_sql(&service, "DELETE FROM todos WHERE id = 'new'").await;
    converges(&service, &mut client, "ann").await;
    run_sql(&service, "UPDATE lists SET owner = 'bob' WHERE id = 'list-4'").await;
    converges(&service, &mut client, "ann").await;

    upload(&service, &mut client).await;
    reconnect(&service, &mut client, &token).await;
    client.call(json!({"do": "close"})).await;
}

/// A local transaction reaches Postgres, a refused write comes back as it was.
async fn upload(service: &TestService, client: &mut OfficialClient) {
    for sql in [
        "INSERT INTO todos (id, list_id, title, done) VALUES ('phone', 'list-2', 'From the phone', 0)",
        "UPDATE todos SET done = 1 WHERE id = 'phone'",
        "UPDATE lists SET name = 'Renamed' WHERE id = 'list-2'",
        "INSERT INTO lists (id, owner, name) VALUES ('stolen', 'bob', 'Not for ann')",
    ] {
        client.call(json!({"do": "execute", "sql": sql})).await;
    }
    let in_source = async || -> Vec<String> {
        let rows = service
            .sql
            .query(
                "SELECT title || ' ' || done FROM todos WHERE id = 'phone' \
                 UNION ALL SELECT name FROM lists WHERE id IN ('list-2', 'stolen')",
                &[],
            )
            .await
            .expect("valid SQL");
        rows.iter().map(|row| row.get(0)).collect()
    };
    eventually(vec!["From the phone true".to_owned(), "Renamed".to_owned()], in_source).await;
    converges(service, client, "ann").await;
    let Value::Array(outcomes) = client.call(json!({"do": "uploads"})).await else { panic!("a list of outcomes") };
    let refused: Vec<_> = outcomes.iter().filter(|outcome| outcome["outcome"] == "refused").collect();
    assert_eq!(refused.len(), 1, "{outcomes:?}");
    // The write rule would refuse it too, but row-level security meets the row first.
    assert_eq!((&refused[0]["id"], &refused[0]["code"]), (&json!("stolen"), &json!("WRITE_RLS")));
}

/// While the device is away one row changes; coming back costs that one operation, not the bucket.
async fn reconnect(service: &TestService, client: &mut OfficialClient, token: &str) {
    client.call(json!({"do": "disconnect"})).await;
    let sent = async || service.process.metric("powersync_operations_synced_total").await.expect("metrics are served");
    let before = sent().await;
    run_sql(service, "UPDATE todos SET title = 'Changed meanwhile' WHERE id = 'todo-1'").await;
    client.connect(service.process.endpoint(), token).await;
    converges(service, client, "ann").await;
    let delta = sent().await - before;
    assert!((1..=5).contains(&delta), "a delta of one row was sent as {delta} operations");
}
