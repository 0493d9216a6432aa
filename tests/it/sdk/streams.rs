//! Streams of edition 3 with the official SDK: default ones, subscriptions with parameters, joins at write time.

use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::TestService,
};
use serde_json::{Value, json};

const SCHEMA: &str = "
    CREATE TABLE lists (id text PRIMARY KEY, owner text NOT NULL, name text NOT NULL);
    CREATE TABLE todos (id text PRIMARY KEY, list_id text NOT NULL, title text);
    CREATE TABLE notes (id text PRIMARY KEY, list_id text NOT NULL, body text);
    CREATE TABLE folders (id text PRIMARY KEY, parent text, owner text);
    SELECT kairos.publish_table('folders');
    SELECT kairos.publish_table('lists');
    SELECT kairos.publish_table('todos');
    SELECT kairos.publish_table('notes');
    INSERT INTO lists SELECT 'list-' || n, CASE n % 2 WHEN 0 THEN 'ann' ELSE 'bob' END, 'List ' || n FROM generate_series(1, 8) n;
    INSERT INTO folders VALUES ('root', NULL, 'ann'), ('a', 'root', 'bob'), ('b', 'a', 'ann'), ('loop', 'loop', 'ann');
    INSERT INTO todos SELECT 'todo-' || n, 'list-' || n % 8 + 1, 'Todo ' || n FROM generate_series(1, 200) n;
    INSERT INTO notes SELECT 'note-' || n, 'list-' || n % 8 + 1, 'Note ' || n FROM generate_series(1, 200) n;
";

const RULES: &str = r"
config: { edition: 3 }
streams:
  lists:
    auto_subscribe: true
    query: SELECT * FROM lists WHERE owner = auth.user_id()
  notes:
    auto_subscribe: true
    write_time_joins: true
    query: SELECT * FROM notes WHERE list_id IN (SELECT id FROM lists WHERE owner = auth.user_id())
  folders:
    auto_subscribe: true
    write_time_joins: true
    query: SELECT child.* FROM folders AS child, folders AS parent WHERE child.parent = parent.id AND parent.owner = auth.user_id()
  todos:
    query: |
      SELECT * FROM todos
       WHERE list_id = subscription.parameter('list')
         AND list_id IN (SELECT id FROM lists WHERE owner = auth.user_id())
";

/// What SQL on Postgres says ann's device holds: her lists and notes, folders in her folders, and the todos of lists that
/// she subscribes to.
const IN_SOURCE: &str = "
    SELECT 'list ' || id || ' ' || name FROM lists WHERE owner = 'ann' UNION ALL
    SELECT 'note ' || n.id || ' ' || body FROM notes n JOIN lists l ON l.id = n.list_id WHERE owner = 'ann' UNION ALL
    SELECT 'folder ' || c.id || ' ' || p.id FROM folders c JOIN folders p ON c.parent = p.id WHERE p.owner = 'ann' UNION ALL
    SELECT 'todo ' || t.id || ' ' || title FROM todos t JOIN lists l ON l.id = t.list_id
    WHERE l.owner = 'ann' AND l.id = ANY($1)";

const ON_DEVICE: &str = "
    SELECT 'list ' || id || ' ' || name FROM lists UNION ALL SELECT 'note ' || id || ' ' || body FROM notes UNION ALL
    SELECT 'folder ' || id || ' ' || parent FROM child UNION ALL SELECT 'todo ' || id || ' ' || title FROM todos";

async fn converges(service: &TestService, client: &OfficialClient, lists: &[&str]) {
    client.converges(service, IN_SOURCE, &[&lists], ON_DEVICE).await;
}

async fn subscribe(client: &OfficialClient, list: &str) {
    let command = json!({"do": "subscribe", "stream": "todos", "parameters": {"list": list}, "seconds": 30});
    let status = client.call(command).await;
    assert_eq!(status["hasSynced"], Value::Bool(true), "{status}");
}

async fn subscribes_to_streams(sdk: Sdk) {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({
        "lists": {"owner": "text", "name": "text"},
        "todos": {"list_id": "text", "title": "text"},
        "notes": {"list_id": "text", "body": "text"},
        "child": {"parent": "text", "owner": "text"},
    });
    let client = OfficialClient::open(sdk, service.folder.path(), "phone", &tables).await;
    client.connect(service.process.endpoint(), &service.token("ann")).await;
    converges(&service, &client, &[]).await;

    subscribe(&client, "list-2").await;
    converges(&service, &client, &["list-2"]).await;
    subscribe(&client, "list-4").await;
    // Not ann's: the subscription is answered, with nothing in it.
    subscribe(&client, "list-3").await;
    converges(&service, &client, &["list-2", "list-4", "list-3"]).await;

    for sql in [
        "INSERT INTO todos VALUES ('new', 'list-4', 'Fresh')",
        "UPDATE lists SET owner = 'bob' WHERE id = 'list-2'",
        "UPDATE notes SET list_id = 'list-4', body = 'Moved' WHERE id = 'note-2'",
        "UPDATE lists SET owner = 'ann' WHERE id = 'list-3'",
        "BEGIN; UPDATE folders SET owner = 'ann' WHERE id = 'a'; UPDATE folders SET owner = 'bob' WHERE id = 'loop'; COMMIT",
        "BEGIN; DELETE FROM folders WHERE id = 'a'; INSERT INTO folders VALUES ('a', 'b', 'ann'); COMMIT",
        "UPDATE folders SET id = 'trunk' WHERE id = 'root'",
    ] {
        service.run(sql).await;
        converges(&service, &client, &["list-2", "list-4", "list-3"]).await;
    }
    // However many lists there are: the notes are in one bucket.
    let rows = client.query("SELECT count(*) AS n FROM ps_buckets WHERE name LIKE '%notes|0%'").await;
    assert_eq!(rows[0]["n"], json!(1));
    client.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn over_http_the_official_sdk_subscribes_to_streams() {
    subscribes_to_streams(Sdk::HTTP).await;
}

#[tokio::test]
async fn over_a_web_socket_the_official_sdk_subscribes_to_streams() {
    subscribes_to_streams(Sdk::WEB_SOCKET).await;
}
