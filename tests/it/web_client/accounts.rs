//! Tokens, users, addresses.

use kairos_tests::{official::texts, service::eventually};
use serde_json::{Value, json};

use super::basics::{arrives, converges, start, synced};
use crate::sdk::basics::{IN_SOURCE, ON_DEVICE};

#[tokio::test]
async fn tokens_are_replaced_before_they_end_and_when_they_are_refused() {
    let (service, tab) = start().await;
    let short = service.mint.mint("ann", std::time::Duration::from_secs(8));
    tab.connect(service.process.endpoint(), &["no-token", &short, &service.token("ann")]).await;
    tab.reaches("synced").await;
    converges(&service, &tab).await;
    eventually(json!(["start", "refused", "expiring"]), async || tab.call(json!({"do": "asked"})).await).await;
    service.run("UPDATE lists SET name = 'After the first token' WHERE id = 'list-2'").await;
    converges(&service, &tab).await;
    tab.reaches("synced").await;
    tab.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn what_is_wrong_is_told_with_a_code_and_a_message() {
    let (service, tab) = start().await;
    let endpoint = service.process.endpoint().to_owned();
    let token = service.token("ann");
    let told = async || [tab.status("code").await, tab.status("message").await];
    for (server, code, message) in [
        (
            json!({"endpoint": format!("{endpoint}/elsewhere"), "tokens": [token]}),
            "CLIENT-0203",
            "Server not found at this address",
        ),
        (json!({"endpoint": "kairos.home", "tokens": [token]}), "CLIENT-0203", "Server not found at this address"),
        (json!({"endpoint": endpoint, "tokens": ["no-token"]}), "CLIENT-0202", "Please sign in again"),
        (json!({"endpoint": endpoint, "tokens": [token], "signInAgain": true}), "CLIENT-0202", "Please sign in again"),
        (
            json!({"endpoint": "http://127.0.0.1:9", "tokens": [token]}),
            "CLIENT-0201",
            "Can't reach server. Working offline.",
        ),
    ] {
        let mut server = server;
        let sign_in = server["signInAgain"].take() == json!(true);
        server["do"] = json!("server");
        server["signInAgain"] = json!(sign_in);
        tab.call(server).await;
        tab.call(json!({"do": "connect"})).await;
        eventually([json!(code), json!(message)], told).await;
        let expected = if code == "CLIENT-0201" { "offline" } else { "error" };
        assert_eq!(tab.status("state").await, expected, "{code}");
        tab.call(json!({"do": "disconnect"})).await;
        tab.call(json!({"do": "sign_out", "keepData": true})).await;
        assert_eq!(tab.status("label").await, "Not synced");
    }
    let test = async |endpoint: &str| tab.call(json!({"do": "test_connection", "endpoint": endpoint})).await;
    assert_eq!(test(&endpoint).await, json!({"ok": true, "version": env!("CARGO_PKG_VERSION")}));
    for (address, code) in [
        (format!("{endpoint}/elsewhere"), "CLIENT-0203"),
        ("kairos.home".to_owned(), "CLIENT-0203"),
        ("http://127.0.0.1:9".to_owned(), "CLIENT-0201"),
    ] {
        assert_eq!(test(&address).await["code"], code, "{address}");
    }
    tab.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn nothing_of_a_user_goes_up_or_stays_under_anothers_token() {
    let (service, tab) = synced().await;
    tab.call(json!({"do": "disconnect"})).await;
    tab.execute("UPDATE todos SET title = 'Of ann' WHERE id = 'todo-1'").await;
    // Whoever signs in next on this device.
    let server = |user: &str| json!({"endpoint": service.process.endpoint(), "tokens": [service.token(user)]});
    tab.load(&server("bob")).await;
    tab.call(json!({"do": "connect"})).await;
    eventually(json!("CLIENT-0303"), async || tab.status("code").await).await;
    assert_eq!(tab.status("message").await, "This device has another account's data");
    assert_eq!(tab.status("pending").await, 1);

    let signed_out = json!({"do": "sign_out", "keepData": false});
    assert!(tab.fails(signed_out.clone()).await.contains("CLIENT-0112"), "a write that waits is not deleted");

    // Whose data it is can go on, and nothing was lost.
    tab.load(&server("ann")).await;
    tab.call(json!({"do": "connect"})).await;
    let titles = async || texts(&service.sql, "SELECT title FROM todos WHERE id = 'todo-1'", &[]).await;
    eventually(["Of ann".to_owned()].into(), titles).await;
    tab.reaches("synced").await;

    tab.call(json!({"do": "live", "sql": ON_DEVICE})).await;
    tab.call(signed_out).await;
    assert_eq!(tab.texts(ON_DEVICE).await, [].into(), "rows of ann are left");
    let last = async || {
        tab.call(json!({"do": "seen", "sql": ON_DEVICE})).await["runs"].as_array().and_then(|runs| runs.last().cloned())
    };
    eventually(Some(json!([])), last).await;
    assert_eq!(tab.status("hasSynced").await, Value::Bool(false));
    tab.connect(service.process.endpoint(), &[&service.token("bob")]).await;
    tab.converges(&service, &IN_SOURCE.replace("'ann'", "'bob'"), &[], ON_DEVICE).await;
    tab.execute("UPDATE lists SET name = 'Of bob' WHERE id = 'list-1'").await;
    arrives(&service, "Of bob").await;
    tab.call(json!({"do": "close"})).await;
}
