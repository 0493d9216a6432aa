//! Rules that change under connected devices: these get what is new on the stream they have, keep what is as before, and
//! upload as ever.

use std::{collections::BTreeSet, fs};

use kairos_client::{Client, Schema, StaticConnector, Table};
use kairos_tests::{
    official::{OfficialClient, Sdk, texts},
    service::{TestService, eventually},
};

use super::basics::{IN_SOURCE, ON_DEVICE, RULES, SCHEMA, converges, tables};

/// With the names of lists as they are shouted.
fn other_rules() -> String {
    RULES.replace("SELECT * FROM lists", "SELECT id, owner, upper(name) AS name FROM lists")
}

fn shouted() -> String {
    IN_SOURCE.replace("|| name", "|| upper(name)")
}

fn deploy(service: &TestService, rules: &str) {
    fs::write(service.folder.path().join("rules.yaml"), rules).expect("writes the rules");
}

async fn follows_a_deployment(sdk: Sdk) {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let client = OfficialClient::open(sdk, service.folder.path(), "phone", &tables()).await;
    client.connect(service.process.endpoint(), &service.token("ann")).await;
    converges(&service, &client).await;
    let metric = async |name: &str| service.process.metric(name).await.expect("metrics are served");
    let sent = metric("powersync_operations_synced_total").await;

    deploy(&service, &other_rules());
    client.converges(&service, &shouted(), &[], ON_DEVICE).await;
    let cost = metric("powersync_operations_synced_total").await - sent;
    assert!((10..=20).contains(&cost), "ten lists have changed, and no todo, but {cost} operations were sent");
    assert_eq!(metric("kairos_rebuilt_rows_total").await, 20, "lists alone were evaluated");

    // What a device writes and what others do goes on.
    client.execute("UPDATE todos SET title = 'From the phone' WHERE id = 'todo-1'").await;
    service.run("INSERT INTO lists VALUES ('late', 'ann', 'late')").await;
    let title = async || {
        let rows = service.sql.query("SELECT title FROM todos WHERE id = 'todo-1'", &[]).await.expect("reads");
        rows[0].get::<_, Option<String>>(0)
    };
    eventually(Some("From the phone".to_owned()), title).await;
    client.converges(&service, &shouted(), &[], ON_DEVICE).await;

    // Wrong rules change nothing, and are told.
    deploy(&service, "bucket_definitions: {lists: {data: [SELEC * FROM lists]}}");
    let is_told = async || service.process.log_tail().contains("CONF-0201");
    eventually(true, is_told).await;
    service.run("UPDATE lists SET name = 'later' WHERE id = 'late'").await;
    client.converges(&service, &shouted(), &[], ON_DEVICE).await;

    deploy(&service, RULES);
    converges(&service, &client).await;
    client.call(serde_json::json!({"do": "close"})).await;
}

#[tokio::test]
async fn over_http_a_device_follows_a_deployment() {
    follows_a_deployment(Sdk::HTTP).await;
}

#[tokio::test]
async fn over_a_websocket_a_device_follows_a_deployment() {
    follows_a_deployment(Sdk::WEB_SOCKET).await;
}

#[tokio::test]
async fn a_device_with_our_own_sdk_follows_a_deployment() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let schema = Schema::new([
        Table::new("lists").text("owner").text("name"),
        Table::new("todos").text("list_id").text("title").integer("done"),
    ]);
    let connector = StaticConnector::new(service.process.endpoint(), service.token("ann"));
    let client = Client::open(service.folder.path().join("own.db"), schema, connector).await.expect("opens");
    client.connect();
    let on_device = async || {
        let rows = client.query(ON_DEVICE, [], |row| row.get::<_, String>(0)).await.expect("reads");
        rows.into_iter().collect::<BTreeSet<_>>()
    };
    eventually(texts(&service.sql, IN_SOURCE, &[]).await, on_device).await;
    deploy(&service, &other_rules());
    eventually(texts(&service.sql, &shouted(), &[]).await, on_device).await;
    service.run("UPDATE lists SET owner = 'ann'").await;
    eventually(texts(&service.sql, &shouted(), &[]).await, on_device).await;
}
