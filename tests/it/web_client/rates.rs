//! A service that says when it wants to be asked again.

use kairos_tests::{
    service::{TestService, eventually},
    web_client::WebClient,
};
use serde_json::json;

use super::basics::{arrives, converges};
use crate::sdk::basics::{RULES, SCHEMA, tables};

const LIMITED: &str = r#"kairos_requests_refused_total{code="SYNC_RATE_LIMITED"}"#;

async fn start(settings: &str) -> (TestService, WebClient) {
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.reconfigure(settings).await;
    service.wait_until_ready().await;
    let tab = WebClient::open(service.folder.path(), &tables()).await;
    tab.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    tab.reaches("synced").await;
    (service, tab)
}

/// Whatever calls for another attempt, none is made before the time is over.
async fn waits(service: &TestService, tab: &WebClient) {
    eventually(json!("Sync temporarily unavailable"), async || tab.status("message").await).await;
    for _ in 0..20 {
        tab.call(json!({"do": "sync_now"})).await;
        tab.status("state").await;
    }
    let refused = service.process.metric(LIMITED).await;
    assert_eq!(refused.expect("answers"), 1, "it asked again at once");
}

#[tokio::test]
async fn an_upload_waits_as_long_as_the_service_says() {
    let (service, tab) = start("limits: { rate: { user: { uploads_per_minute: 5 } } }\n").await;
    let refused = async || service.process.metric(LIMITED).await.expect("answers");
    let mut written = 0;
    while refused().await == 0 {
        written += 1;
        tab.execute(&format!("INSERT INTO lists (id, owner, name) VALUES ('n{written}', 'ann', 'List n{written}')"))
            .await;
        let is_told = async || tab.status("pending").await == 0 || refused().await > 0;
        eventually(true, is_told).await;
    }
    waits(&service, &tab).await;
    arrives(&service, &format!("List n{written}")).await;
    tab.reaches("synced").await;
    converges(&service, &tab).await;
    tab.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn a_stream_waits_as_long_as_the_service_says() {
    let (service, tab) = start("limits: { rate: { user: { streams_per_minute: 5 } } }\n").await;
    let refused = async || service.process.metric(LIMITED).await.expect("answers");
    while refused().await == 0 {
        tab.call(json!({"do": "disconnect"})).await;
        tab.call(json!({"do": "connect"})).await;
        let is_told = async || tab.status("state").await == "synced" || refused().await > 0;
        eventually(true, is_told).await;
    }
    waits(&service, &tab).await;
    tab.reaches("synced").await;
    service.run("UPDATE lists SET name = 'After the wait' WHERE id = 'list-2'").await;
    converges(&service, &tab).await;
    tab.call(json!({"do": "close"})).await;
}
