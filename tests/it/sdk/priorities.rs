//! Buckets of several priorities: what comes first is usable first, also while an upload does not get through.

use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::{TestService, eventually},
};
use serde_json::{Value, json};

const SCHEMA: &str = "
    CREATE TABLE alerts (id text PRIMARY KEY, body text);
    CREATE TABLE tasks (id text PRIMARY KEY, body text);
    CREATE TABLE archive (id text PRIMARY KEY, body text);
    SELECT kairos.publish_table('alerts');
    SELECT kairos.publish_table('tasks', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('archive');
    INSERT INTO alerts VALUES ('a1', 'one');
    INSERT INTO tasks SELECT 'task-' || n, 'Task ' || n FROM generate_series(1, 50) n;
    INSERT INTO archive SELECT 'old-' || n, repeat(md5(n::text), 10) FROM generate_series(1, 5000) n;
";

const RULES: &str = r"
bucket_definitions:
  alerts:
    priority: 0
    data: [SELECT * FROM alerts]
  tasks:
    priority: 1
    data: [SELECT * FROM tasks]
  archive:
    priority: 3
    data: [SELECT * FROM archive]
write_rules:
  tasks:
    allow: [put, patch, delete]
    check: true
";

const IN_SOURCE: &str = "
    SELECT 'alert ' || id || ' ' || body FROM alerts UNION ALL SELECT 'task ' || id || ' ' || body FROM tasks
    UNION ALL SELECT 'archive ' || id || ' ' || body FROM archive";

const ON_DEVICE: &str = IN_SOURCE;

/// What the SDK said of priorities 0 to 3, each time that changed.
async fn priorities(client: &OfficialClient) -> Vec<[bool; 4]> {
    let history: Vec<Value> = serde_json::from_value(client.call(json!({"do": "history"})).await).expect("a list");
    let mut priorities: Vec<[bool; 4]> =
        history.into_iter().map(|entry| serde_json::from_value(entry["priorities"].clone()).expect("four")).collect();
    priorities.dedup();
    priorities
}

async fn what_comes_first_is_usable_first(sdk: Sdk) {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({"alerts": {"body": "text"}, "tasks": {"body": "text"}, "archive": {"body": "text"}});
    let client = OfficialClient::open(sdk, service.folder.path(), "phone", &tables).await;
    client.connect(service.process.endpoint(), &service.token("ann")).await;
    client.call(json!({"do": "synced", "seconds": 30})).await;
    let (none, all) = ([false; 4], [true; 4]);
    let expected = [none, [true, false, false, false], [true, true, false, false], all];
    assert_eq!(priorities(&client).await, expected, "each priority is complete before the next one");
    client.converges(&service, IN_SOURCE, &[], ON_DEVICE).await;

    // A local write waits: nothing but priority 0 is shown.
    client.call(json!({"do": "refuse_uploads", "refuses": true})).await;
    client.execute("UPDATE tasks SET body = 'Mine' WHERE id = 'task-1'").await;
    service
        .run(
            "BEGIN; UPDATE alerts SET body = 'two'; UPDATE tasks SET body = 'Theirs' WHERE id = 'task-2';
             UPDATE archive SET body = 'Theirs' WHERE id = 'old-1'; COMMIT",
        )
        .await;
    let alert = async || client.texts("SELECT body FROM alerts").await;
    eventually(["two".to_owned()].into(), alert).await;
    // Also where nothing else changes.
    service.run("UPDATE alerts SET body = 'alone'").await;
    eventually(["alone".to_owned()].into(), alert).await;
    // Once the next one is here the client has dealt with all of the first.
    service
        .run("BEGIN; UPDATE alerts SET body = 'three'; UPDATE tasks SET body = 'Theirs' WHERE id = 'task-3'; COMMIT")
        .await;
    eventually(["three".to_owned()].into(), alert).await;
    let theirs = "SELECT id FROM tasks WHERE body = 'Theirs' UNION ALL SELECT id FROM archive WHERE body = 'Theirs'";
    assert_eq!(client.texts(theirs).await, [].into(), "shown while a local write waits");
    assert_eq!(client.texts("SELECT id FROM tasks WHERE body = 'Mine'").await, ["task-1".to_owned()].into());

    client.call(json!({"do": "refuse_uploads", "refuses": false})).await;
    client.converges(&service, IN_SOURCE, &[], ON_DEVICE).await;
    let mine = "SELECT body FROM tasks WHERE id = 'task-1'";
    assert_eq!(client.texts(mine).await, ["Mine".to_owned()].into(), "the local write got through");
}

#[tokio::test]
async fn over_http_what_comes_first_is_usable_first() {
    what_comes_first_is_usable_first(Sdk::HTTP).await;
}

#[tokio::test]
async fn over_a_web_socket_what_comes_first_is_usable_first() {
    what_comes_first_is_usable_first(Sdk::WEB_SOCKET).await;
}

#[tokio::test]
async fn with_our_client_what_comes_first_is_usable_first() {
    what_comes_first_is_usable_first(Sdk::RUST).await;
}
