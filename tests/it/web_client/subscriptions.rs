//! Streams that are asked for with parameters, while somebody needs them and for a time after that.

use kairos_tests::{
    service::{TestService, eventually},
    web_client::WebClient,
};
use serde_json::{Value, json};

use crate::sdk::subscriptions::{IN_SOURCE, ON_DEVICE, RULES, SCHEMA};

async fn subscribe(tab: &WebClient, book: &str, options: Value) {
    let command =
        json!({"do": "subscribe", "as": book, "stream": "pages", "parameters": {"book": book}, "options": options});
    tab.call(command).await;
}

/// A stream is looked at anew when it is opened.
async fn reconnect(tab: &WebClient) {
    tab.call(json!({"do": "disconnect"})).await;
    tab.call(json!({"do": "connect"})).await;
    tab.reaches("synced").await;
}

#[tokio::test]
async fn a_stream_is_there_while_a_tab_wants_it_and_for_its_time() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({"pages": {"book": "text", "body": "text"}});
    let first = WebClient::open(service.folder.path(), &tables).await;
    let server = json!({"endpoint": service.process.endpoint(), "tokens": [service.token("ann")]});
    first.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    first.reaches("synced").await;
    assert_eq!(first.texts(ON_DEVICE).await, [].into(), "nobody gets pages by default");

    subscribe(&first, "book-1", json!({"ttlSeconds": 3600})).await;
    first.call(json!({"do": "first_sync", "as": "book-1"})).await;
    first.converges(&service, IN_SOURCE, &[&["book-1"].as_slice()], ON_DEVICE).await;
    let other = first.open_tab("other", &server).await;
    subscribe(&other, "book-2", json!({"ttlSeconds": 1, "priority": 0})).await;
    other.call(json!({"do": "first_sync", "as": "book-2"})).await;
    let both = ["book-1", "book-2"];
    for tab in [&first, &other] {
        tab.converges(&service, IN_SOURCE, &[&both.as_slice()], ON_DEVICE).await;
    }
    service.run("INSERT INTO pages VALUES ('new', 'book-2', 'Fresh')").await;
    other.converges(&service, IN_SOURCE, &[&both.as_slice()], ON_DEVICE).await;

    // The tab that leads goes without a word. What another one holds does not end, however short its time.
    first.call(json!({"do": "close_tab"})).await;
    other.reaches("synced").await;
    let time_is_over = "SELECT max(expires_at) - 3600 + 1 < unixepoch() FROM kairos_subscription";
    eventually(["1".to_owned()].into(), async || other.texts(time_is_over).await).await;
    reconnect(&other).await;
    other.converges(&service, IN_SOURCE, &[&both.as_slice()], ON_DEVICE).await;

    // Given up, it goes when its time is over; what the first tab wanted is here for an hour.
    other.call(json!({"do": "unsubscribe", "as": "book-2"})).await;
    let books = async || {
        reconnect(&other).await;
        other.texts("SELECT DISTINCT book FROM pages").await
    };
    eventually(["book-1".to_owned()].into(), books).await;

    // Also where the page is loaded again, and nobody asks for it.
    other.load(&server).await;
    other.call(json!({"do": "connect"})).await;
    service.run("UPDATE pages SET body = 'Changed' WHERE book = 'book-1'").await;
    other.converges(&service, IN_SOURCE, &[&["book-1"].as_slice()], ON_DEVICE).await;
    other.call(json!({"do": "close"})).await;
}
