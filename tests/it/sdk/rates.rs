//! A device that uploads too often is told to wait, and goes on by itself.

use std::time::Duration;

use kairos_tests::{
    official::{OfficialClient, Sdk, texts},
    service::{TestService, eventually},
};
use serde_json::json;

use super::basics::{RULES, SCHEMA, tables};

/// Transactions of the device, each of which it uploads alone: more than a minute's worth.
const TRANSACTION_COUNT: usize = 33;
const SETTINGS: &str = "limits: { rate: { user: { uploads_per_minute: 30 } } }\n";

#[tokio::test]
async fn an_upload_that_is_limited_is_tried_again_and_nothing_is_lost() {
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.reconfigure(SETTINGS).await;
    everything_arrives(&service, "uploads").await;
}

#[tokio::test]
async fn a_device_that_writes_too_much_to_a_table_waits_and_loses_nothing() {
    let limited = "  todos:\n    limits: { operations_per_minute: 30 }\n";
    let service =
        TestService::start(SCHEMA, &RULES.replace("  todos:\n    allow", &format!("{limited}    allow"))).await;
    everything_arrives(&service, "table_operations").await;
}

/// More is written on a device than may be at once, and all of it is in the source after a while.
async fn everything_arrives(service: &TestService, activity: &str) {
    service.wait_until_ready().await;
    let client = OfficialClient::open(Sdk::HTTP, service.folder.path(), "phone", &tables()).await;
    client.connect(service.process.endpoint(), &service.token("ann")).await;
    client.call(json!({"do": "synced", "seconds": 30})).await;
    for n in 0..TRANSACTION_COUNT {
        client
            .execute(&format!("INSERT INTO todos (id, list_id, title, done) VALUES ('n{n}', 'list-2', 'x', 0)"))
            .await;
    }
    let sql = "SELECT count(*)::text FROM todos WHERE title = 'x'";
    eventually([TRANSACTION_COUNT.to_string()].into(), async || texts(&service.sql, sql, &[]).await).await;
    let limited = format!(r#"kairos_rate_limited_total{{activity="{activity}",by="user"}}"#);
    let limited = service.process.metric(&limited).await;
    assert!(limited.expect("answers") > 0, "it had to wait");
    let refused = service.process.metric(r#"kairos_requests_refused_total{code="SYNC_RATE_LIMITED"}"#).await;
    assert!(refused.expect("answers") > 0);
    // The device knows that all of it arrived.
    tokio::time::timeout(Duration::from_secs(30), async {
        while client.call(json!({"do": "uploads"})).await.as_array().map_or(0, Vec::len) < TRANSACTION_COUNT {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("every transaction gets its outcome");
    client.call(json!({"do": "close"})).await;
}
