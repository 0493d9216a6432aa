//! A download that is interrupted goes on where it stopped: the service is ended in order and with SIGKILL, Postgres is
//! stopped and killed.

use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::{TestService, eventually},
};
use serde_json::{Value, json};

use super::gate::Gate;

const ROWS: u64 = 6000;

const SCHEMA: &str = "
    CREATE TABLE items (id text PRIMARY KEY, body text NOT NULL);
    SELECT kairos.publish_table('items');
    INSERT INTO items SELECT 'item-' || n, md5(n::text) || md5((n * 7)::text) || md5((n * 11)::text) FROM generate_series(1, 6000) n;
";

const RULES: &str = "bucket_definitions: {items: {data: [SELECT * FROM items]}}";
const ALL: &str = "SELECT id || ' ' || body FROM items";

/// How much of a download goes through before it is interrupted, about a quarter: over HTTP it is compressed.
const HTTP_BYTES: usize = 150_000;
const WEB_SOCKET_BYTES: usize = 500_000;

async fn received(sdk: Sdk, client: &OfficialClient) -> u64 {
    client.query(&format!("SELECT count(*) AS n FROM {}", sdk.oplog)).await[0]["n"].as_u64().expect("a count")
}

/// Waits until the download stands still, part of it received. Returns how many rows it is.
async fn in_the_middle(sdk: Sdk, gate: &Gate, client: &OfficialClient, before: u64) -> u64 {
    eventually(true, async || gate.is_closed() && received(sdk, client).await > before).await;
    let count = received(sdk, client).await;
    assert!(count < ROWS, "it was to be interrupted in the middle");
    count
}

async fn a_download_goes_on_where_it_stopped(sdk: Sdk, part_bytes: usize) {
    let mut service = TestService::start_alone(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let gate = Gate::open(service.process.endpoint(), part_bytes).await;
    let tables = json!({"items": {"body": "text"}});
    let client = OfficialClient::open(sdk, service.folder.path(), "phone", &tables).await;
    // Not awaited before the gate is closed: the SDK is connected once the first line came.
    client.connect(&gate.endpoint, &service.token("ann")).await;

    let at_first = in_the_middle(sdk, &gate, &client, 0).await;
    service.process.terminate().await.expect("it ends");
    service.process.restart().await.expect("it starts again");
    gate.allow(part_bytes);
    let later = in_the_middle(sdk, &gate, &client, at_first).await;
    service.process.kill().expect("it runs");
    service.run("UPDATE items SET body = 'Changed meanwhile' WHERE id < 'item-2'").await;
    service.process.restart().await.expect("it starts again");
    gate.allow(part_bytes);
    let before_postgres = in_the_middle(sdk, &gate, &client, later).await;

    // Without Postgres clients go on to get what the service has.
    service.cluster.stop("immediate").expect("it runs");
    gate.allow_everything();
    let status = client.call(json!({"do": "synced", "seconds": 30})).await;
    assert_eq!(status["hasSynced"], Value::Bool(true), "{status}");
    let sent = service.process.metric("powersync_operations_synced_total").await.expect("metrics are served");
    assert!(sent < ROWS + ROWS / 4, "{sent} operations were sent after {later} and {before_postgres} rows had come");
    service.cluster.start_server().expect("it starts again");
    service.reconnect().await;
    service.run("DELETE FROM items WHERE id LIKE '%7'; INSERT INTO items VALUES ('new', 'Fresh')").await;
    client.converges(&service, ALL, &[], ALL).await;
}

#[tokio::test]
async fn over_http_a_download_goes_on_where_it_stopped() {
    a_download_goes_on_where_it_stopped(Sdk::HTTP, HTTP_BYTES).await;
}

#[tokio::test]
async fn over_a_web_socket_a_download_goes_on_where_it_stopped() {
    a_download_goes_on_where_it_stopped(Sdk::WEB_SOCKET, WEB_SOCKET_BYTES).await;
}

#[tokio::test]
async fn with_our_client_a_download_goes_on_where_it_stopped() {
    a_download_goes_on_where_it_stopped(Sdk::RUST, HTTP_BYTES).await;
}
