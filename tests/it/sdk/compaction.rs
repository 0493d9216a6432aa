//! Devices over a bucket whose old operations were compacted: one that is new, one that was away meanwhile, and one that
//! stayed.

use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::{PATIENCE, TestService},
};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

const SCHEMA: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, n int NOT NULL);
    SELECT kairos.publish_table('notes');
    INSERT INTO notes SELECT 'old-' || n, n FROM generate_series(1, 3) n;
    INSERT INTO notes SELECT 'busy-' || n, 0 FROM generate_series(1, 50) n";

const RULES: &str = "bucket_definitions: {all: {data: [SELECT * FROM notes]}}";

const ALL: &str = "SELECT id || ' ' || n FROM notes";

const SENT: &str = "powersync_operations_synced_total";

async fn open(service: &TestService, sdk: Sdk, device: &str) -> OfficialClient {
    OfficialClient::open(sdk, service.folder.path(), device, &json!({"notes": {"n": "integer"}})).await
}

async fn connect(service: &TestService, client: &OfficialClient) {
    client.connect(service.process.endpoint(), &service.token("ann")).await;
    client.converges(service, ALL, &[], ALL).await;
}

/// Some thousand operations, of which the last fifty count.
async fn change_much(service: &TestService) {
    for _ in 0..100 {
        service.run("UPDATE notes SET n = n + 1 WHERE starts_with(id, 'busy-')").await;
    }
    service.run("DELETE FROM notes WHERE id = 'busy-50'; INSERT INTO notes VALUES ('busy-50', 0)").await;
}

#[tokio::test]
async fn devices_that_are_new_or_were_away_need_not_download_what_was_superseded() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let sdks = [Sdk::HTTP, Sdk::NDJSON, Sdk::WEB_SOCKET, Sdk::JAVASCRIPT];
    let stays = open(&service, Sdk::HTTP, "stays").await;
    connect(&service, &stays).await;
    change_much(&service).await;
    let mut away = Vec::new();
    for sdk in sdks {
        let client = open(&service, sdk, &format!("away-{}", sdk.name)).await;
        connect(&service, &client).await;
        client.call(json!({"do": "disconnect"})).await;
        away.push(client);
    }
    change_much(&service).await;

    // A device that is new tells how much there is to download.
    let deadline = Instant::now() + 3 * PATIENCE;
    for number in 0.. {
        let before = service.process.metric(SENT).await.expect("metrics are served");
        let new = open(&service, sdks[number % sdks.len()], &format!("new-{number}")).await;
        connect(&service, &new).await;
        let sent = service.process.metric(SENT).await.expect("metrics are served") - before;
        new.call(json!({"do": "close"})).await;
        if sent < 2_000 && number >= sdks.len() {
            break;
        }
        assert!(Instant::now() < deadline, "{sent} operations for 53 rows\n{}", service.process.log_tail());
        // What the few old rows keep alive is written again with a commit.
        service.run("UPDATE notes SET n = n + 1 WHERE id = 'busy-1'").await;
        sleep(Duration::from_millis(500)).await;
    }
    for client in &away {
        connect(&service, client).await;
    }
    service.run("UPDATE notes SET n = -1 WHERE id IN ('old-1', 'busy-1')").await;
    for client in away.iter().chain([&stays]) {
        client.converges(&service, ALL, &[], ALL).await;
        client.call(json!({"do": "close"})).await;
    }
}
