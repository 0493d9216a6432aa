//! What an app says of the device's network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod service;

use std::time::Duration;

use kairos_client::{Client, ClientOptions, NetworkKind, Schema, StaticConnector, Status, SyncState, Table};
use serde_json::json;
use service::{FakeService, HOME};

/// A service with something urgent and something that may wait, and a device.
async fn start(metered_priority_max: Option<u8>) -> (FakeService, Client, tempfile::TempDir) {
    let service = FakeService::start().await;
    service.change(|state| {
        state.priorities.insert(HOME.to_owned(), 1);
        state.put(HOME, "habits", "urgent", &json!({ "name": "Read" }));
        for number in 0..50 {
            state.put("photos", "habits", &format!("bulk-{number}"), &json!({ "name": "x".repeat(1000) }));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let options = ClientOptions {
        retry_base: Duration::from_millis(5),
        retry_cap: Duration::from_millis(20),
        metered_priority_max,
        ..ClientOptions::default()
    };
    let connector = StaticConnector::new(&service.endpoint, "token");
    let schema = Schema::new([Table::new("habits").text("name")]);
    let client = Client::open_with(folder.path().join("client.db"), schema, connector, options).await.unwrap();
    (service, client, folder)
}

async fn reaches(client: &Client, what: &str, is_reached: impl FnMut(&Status) -> bool) {
    let mut statuses = client.status_stream();
    let reached = tokio::time::timeout(Duration::from_secs(30), statuses.wait_for(is_reached)).await;
    assert!(reached.is_ok(), "{what}: {:?}", client.status());
}

async fn rows(client: &Client) -> i64 {
    client.query("SELECT count(*) FROM habits", [], |row| row.get(0)).await.unwrap()[0]
}

#[tokio::test]
async fn where_data_costs_what_may_wait_waits() {
    let (service, client, _folder) = start(Some(1)).await;
    client.set_network(NetworkKind::Metered);
    client.connect();
    reaches(&client, "deferred", |status| status.state == SyncState::Deferred).await;
    assert_eq!(rows(&client).await, 1, "what is urgent is there");
    assert!(client.statistics().bytes_received < 10_000, "what is not, is not fetched");
    assert_eq!(SyncState::Deferred.label(), "Waiting for Wi-Fi");

    // What is urgent, and what is written here, does not wait.
    service.change(|state| state.put(HOME, "habits", "later", &json!({ "name": "Run" })));
    client.sync_now();
    client.execute("INSERT INTO habits (id, name) VALUES ('mine', 'Swim')", []).await.unwrap();
    reaches(&client, "uploaded", |status| status.pending == 0).await;
    let mut watch = client.watch(&["habits"]);
    while rows(&client).await < 3 {
        client.sync_now();
        let _ = tokio::time::timeout(Duration::from_millis(100), watch.changed()).await;
    }

    client.set_network(NetworkKind::Unmetered);
    reaches(&client, "synced", |status| status.state == SyncState::Synced).await;
    assert_eq!(rows(&client).await, 53);
}

#[tokio::test]
async fn a_network_that_costs_defers_nothing_unless_told() {
    let (_service, client, _folder) = start(None).await;
    client.set_network(NetworkKind::Metered);
    client.connect();
    reaches(&client, "synced", |status| status.state == SyncState::Synced).await;
    assert_eq!(rows(&client).await, 51);
}

#[tokio::test]
async fn without_a_network_nothing_is_tried() {
    let (service, client, _folder) = start(None).await;
    client.set_network(NetworkKind::None);
    client.connect();
    reaches(&client, "offline", |status| status.state == SyncState::Offline).await;
    client.execute("INSERT INTO habits (id, name) VALUES ('mine', 'Swim')", []).await.unwrap();
    client.sync_now();
    reaches(&client, "pending", |status| status.state == SyncState::Pending(1)).await;
    tokio::time::sleep(Duration::from_millis(100)).await; // for what must not happen
    assert!(service.change(|state| state.requests.is_empty() && state.uploads.is_empty()));

    client.set_network(NetworkKind::Unmetered);
    reaches(&client, "synced", |status| status.state == SyncState::Synced).await;
    client.set_network(NetworkKind::None);
    reaches(&client, "offline again", |status| status.state == SyncState::Offline && !status.connected).await;
    service.change(|state| state.put(HOME, "habits", "unseen", &json!({ "name": "Run" })));
    assert_eq!(rows(&client).await, 52);
    client.set_network(NetworkKind::Metered);
    reaches(&client, "synced again", |status| status.state == SyncState::Synced).await;
    assert_eq!(rows(&client).await, 53);
}
