//! What is particular to a browser: pages that are loaded again, and several tabs on one database.

use kairos_tests::{
    official::{OfficialClient, Sdk, texts},
    service::{TestService, eventually},
};
use serde_json::{Value, json};

use super::basics::{ON_DEVICE, RULES, SCHEMA, converges, costs_a_delta, tables};

async fn start() -> (TestService, OfficialClient) {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tab = OfficialClient::open(Sdk::WEB, service.folder.path(), "tab", &tables()).await;
    tab.connect(service.process.endpoint(), &service.token("ann")).await;
    converges(&service, &tab).await;
    (service, tab)
}

async fn arrives(service: &TestService, name: &str) {
    let named = async || texts(&service.sql, "SELECT name FROM lists WHERE name = $1", &[&name]).await;
    eventually([name.to_owned()].into(), named).await;
}

#[tokio::test]
async fn a_page_loaded_again_keeps_its_rows_and_resumes_with_a_delta() {
    let (service, tab) = start().await;
    tab.call(json!({"do": "refuse_uploads", "refuses": true})).await;
    tab.execute("INSERT INTO lists (id, owner, name) VALUES ('local', 'ann', 'Not uploaded yet')").await;
    let held = tab.texts(ON_DEVICE).await;
    assert!(held.contains("list local Not uploaded yet"));

    tab.open_again().await;
    assert_eq!(tab.texts(ON_DEVICE).await, held, "rows after the page was loaded again");
    let status = tab.call(json!({"do": "status"})).await;
    assert_eq!(status["hasSynced"], Value::Bool(true), "{status}");
    costs_a_delta(&service, &tab, &service.token("ann")).await;
    arrives(&service, "Not uploaded yet").await;
    tab.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn tabs_share_one_stream_and_each_others_writes() {
    let (service, tab) = start().await;
    let other = tab.open_tab("other").await;
    other.connect(service.process.endpoint(), &service.token("ann")).await;
    converges(&service, &other).await;

    other.execute("UPDATE lists SET name = 'From the other tab' WHERE id = 'list-2'").await;
    arrives(&service, "From the other tab").await;
    converges(&service, &tab).await;
    let streams =
        async || service.process.metric("powersync_concurrent_connections").await.expect("metrics are served");
    eventually(1, streams).await;

    other.call(json!({"do": "close_tab"})).await;
    service.run("UPDATE lists SET name = 'From the source' WHERE id = 'list-4'").await;
    converges(&service, &tab).await;
    tab.execute("UPDATE lists SET name = 'From the tab that is left' WHERE id = 'list-2'").await;
    arrives(&service, "From the tab that is left").await;
    converges(&service, &tab).await;
    tab.call(json!({"do": "close"})).await;
}
