//! Initial sync, live changes, uploads, refusals.

use kairos_tests::{
    official::texts,
    service::{TestService, eventually},
    web_client::WebClient,
};
use serde_json::{Value, json};

use crate::sdk::basics::{IN_SOURCE, ON_DEVICE, RULES, SCHEMA, tables};

pub(super) async fn start() -> (TestService, WebClient) {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tab = WebClient::open(service.folder.path(), &tables()).await;
    (service, tab)
}

pub(super) async fn synced() -> (TestService, WebClient) {
    let (service, tab) = start().await;
    tab.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    converges(&service, &tab).await;
    (service, tab)
}

pub(super) async fn converges(service: &TestService, tab: &WebClient) {
    tab.converges(service, IN_SOURCE, &[], ON_DEVICE).await;
}

/// Names of lists in the source.
pub(super) async fn arrives(service: &TestService, name: &str) {
    let named = async || texts(&service.sql, "SELECT name FROM lists WHERE name = $1", &[&name]).await;
    eventually([name.to_owned()].into(), named).await;
}

#[tokio::test]
async fn a_tab_holds_what_the_source_says_and_follows_it() {
    let (service, tab) = start().await;
    assert_eq!(tab.status("state").await, "not_configured");
    tab.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    tab.reaches("synced").await;
    converges(&service, &tab).await;
    let status = tab.call(json!({"do": "status"})).await;
    assert_eq!(
        (&status["label"], &status["pending"], &status["hasSynced"]),
        (&json!("Synced"), &json!(0), &json!(true))
    );

    for sql in [
        "INSERT INTO todos VALUES ('new', 'list-2', 'Fresh', false)",
        "UPDATE todos SET title = NULL, done = true WHERE id = 'new'",
        "DELETE FROM todos WHERE id = 'new'",
        "UPDATE lists SET owner = 'bob' WHERE id = 'list-4'",
    ] {
        service.run(sql).await;
        converges(&service, &tab).await;
    }
    tab.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn a_transaction_goes_up_whole_and_a_refused_write_comes_back() {
    let (service, tab) = synced().await;
    tab.call(json!({"do": "transaction", "statements": [
        {"sql": "INSERT INTO todos (id, list_id, title, done) VALUES ('tab', 'list-2', ?, 0)", "parameters": ["Zażółć 🎈"]},
        {"sql": "UPDATE todos SET done = 1 WHERE id = 'tab'"},
        {"sql": "UPDATE lists SET name = 'Renamed' WHERE id = 'list-2'"},
    ]}))
    .await;
    arrives(&service, "Renamed").await;
    converges(&service, &tab).await;
    let failing = json!({"do": "transaction", "statements": [
        {"sql": "UPDATE lists SET name = 'Half' WHERE id = 'list-2'"},
        {"sql": "INSERT INTO nowhere VALUES (1)"},
    ]});
    assert!(tab.fails(failing).await.contains("CLIENT-0101"));

    tab.execute("INSERT INTO lists (id, owner, name) VALUES ('stolen', 'bob', 'Not for ann')").await;
    eventually(1, async || tab.rejected().await.len()).await;
    tab.reaches("synced").await;
    converges(&service, &tab).await;
    let refused = &tab.rejected().await[0];
    let told = ["op", "table", "rowId", "outcome", "code"].map(|field| refused[field].clone());
    assert_eq!(told, ["PUT", "lists", "stolen", "refused", "WRITE_RLS"].map(|text| json!(text)), "{refused}");
    assert_eq!(refused["data"], json!({"owner": "bob", "name": "Not for ann"}));
    assert_eq!(tab.status("rejected").await, 1);
    tab.call(json!({"do": "dismiss", "write": refused["id"]})).await;
    eventually(json!(0), async || tab.status("rejected").await).await;
    assert_eq!(tab.rejected().await, Vec::<Value>::new());
    assert!(!texts(&service.sql, "SELECT name FROM lists", &[]).await.contains("Half"), "all or nothing");
    tab.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn a_live_query_tells_of_local_and_remote_changes_and_of_nothing_else() {
    let (service, tab) = synced().await;
    let sql = "SELECT name FROM lists WHERE id = 'list-2'";
    tab.call(json!({"do": "live", "sql": sql})).await;
    let names = async || {
        let seen = tab.call(json!({"do": "seen", "sql": sql})).await;
        let name = |rows: &Value| rows[0]["name"].as_str().unwrap_or_default().to_owned();
        seen["runs"].as_array().expect("a list").iter().map(name).collect::<Vec<_>>()
    };
    eventually(vec!["List 2".to_owned()], names).await;
    tab.execute("UPDATE lists SET name = 'From here' WHERE id = 'list-2'").await;
    tab.execute("UPDATE todos SET done = 1 - done WHERE id = 'todo-1'").await;
    arrives(&service, "From here").await;
    service.run("UPDATE lists SET name = 'From there' WHERE id = 'list-2'").await;
    eventually(["List 2", "From here", "From there"].map(str::to_owned).to_vec(), names).await;
    tab.call(json!({"do": "end_live", "sql": sql})).await;
    service.run("UPDATE lists SET name = 'Unseen' WHERE id = 'list-2'").await;
    converges(&service, &tab).await;
    assert_eq!(names().await.len(), 3);
    tab.call(json!({"do": "close"})).await;
}

/// Only the bucket that does not add up is downloaded again.
#[tokio::test]
async fn a_damaged_bucket_is_mended_and_no_other() {
    let (service, tab) = synced().await;
    let sent = async || service.process.metric("powersync_operations_synced_total").await.expect("metrics are served");
    let before = sent().await;
    tab.execute("UPDATE kairos_bucket SET checksum = (checksum + 1) % 4294967296 WHERE name LIKE '%[\"list-2\"]'")
        .await;
    service.run("UPDATE todos SET title = 'Seen again' WHERE id = 'todo-1'").await;
    converges(&service, &tab).await;
    tab.reaches("synced").await;
    let again = sent().await - before;
    assert!((100..=110).contains(&again), "a bucket of 100 rows was sent as {again} operations");
    tab.call(json!({"do": "close"})).await;
}

/// A page over plain HTTP has neither files nor locks.
#[tokio::test]
async fn over_plain_http_the_database_is_in_memory_and_each_tab_by_itself() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tab = WebClient::open_at("plain.test", service.folder.path(), &tables(), "auto").await;
    let server = json!({"endpoint": service.process.endpoint(), "tokens": [service.token("ann")]});
    tab.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    converges(&service, &tab).await;
    let other = tab.open_tab("other", &server).await;
    other.call(json!({"do": "connect"})).await;
    converges(&service, &other).await;
    tab.execute("UPDATE lists SET name = 'From memory' WHERE id = 'list-2'").await;
    arrives(&service, "From memory").await;
    converges(&service, &other).await;

    let refused = json!({"do": "open", "folder": service.folder.path(), "file": "app", "tables": tables(), "host": "plain.test", "storage": "opfs"});
    let error = other.fails(refused).await;
    assert!(error.contains("CLIENT-0115"), "{error}");
    other.call(json!({"do": "close_tab"})).await;
    tab.call(json!({"do": "close"})).await;
}
