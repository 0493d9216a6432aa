//! Subscriptions: parameters, priority of their own, time to live, and errors that concern one of
//! them alone.

use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::{TestService, eventually},
};
use serde_json::{Value, json};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE pages (id text PRIMARY KEY, book text NOT NULL, body text NOT NULL);
    SELECT kairos.publish_table('pages');
    INSERT INTO pages SELECT 'page-' || n, 'book-' || n % 4, 'Page ' || n FROM generate_series(1, 40) n;
";

pub(crate) const RULES: &str = r"
config: { edition: 3 }
streams:
  pages:
    priority: 2
    query: SELECT * FROM pages WHERE book = subscription.parameter('book') AND auth.user_id() = 'ann'
  listed:
    accept_potentially_dangerous_queries: true
    query: SELECT * FROM pages WHERE book = json_extract(subscription.parameter('choice'), '$.book')
";

pub(crate) const IN_SOURCE: &str = "SELECT id || ' ' || body FROM pages WHERE book = ANY($1)";
pub(crate) const ON_DEVICE: &str = "SELECT id || ' ' || body FROM pages";

async fn start(sdk: Sdk) -> (TestService, OfficialClient) {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({"pages": {"book": "text", "body": "text"}});
    let client = OfficialClient::open(sdk, service.folder.path(), "phone", &tables).await;
    client.connect(service.process.endpoint(), &service.token("ann")).await;
    (service, client)
}

/// Subscribes with further options, and gives what the SDK knows of it then.
async fn subscribe(client: &OfficialClient, stream: &str, parameters: Value, further: Value) -> Value {
    let mut command = json!({"do": "subscribe", "stream": stream, "parameters": parameters, "seconds": 30});
    if let (Value::Object(command), Value::Object(further)) = (&mut command, further) {
        command.extend(further);
    }
    client.call(command).await
}

async fn subscriptions_have_a_priority_of_their_own(sdk: Sdk) {
    let (service, client) = start(sdk).await;
    let usual = subscribe(&client, "pages", json!({"book": "book-1"}), json!({})).await;
    assert_eq!(usual["hasSynced"], json!(true));
    if sdk.name != Sdk::RUST.name {
        assert_eq!(usual["priority"], json!(2), "ours does not tell a priority that is the stream's");
    }
    let urgent = subscribe(&client, "pages", json!({"book": "book-2"}), json!({"priority": 0})).await;
    assert_eq!(urgent, json!({"hasSynced": true, "priority": 0}));
    client.converges(&service, IN_SOURCE, &[&["book-1", "book-2"].as_slice()], ON_DEVICE).await;
    // Not only the SDK's opinion: priority 0 alone is shown while a local write waits.
    client.call(json!({"do": "refuse_uploads", "refuses": true})).await;
    client.execute("DELETE FROM pages WHERE id = 'page-5'").await;
    service.run("UPDATE pages SET body = 'Changed' WHERE id IN ('page-1', 'page-2')").await;
    let changed = async || client.texts("SELECT id FROM pages WHERE body = 'Changed'").await;
    eventually(["page-2".to_owned()].into(), changed).await;
    // So is one that is new: nothing waits for the whole checkpoint.
    let new = subscribe(&client, "pages", json!({"book": "book-3"}), json!({"priority": 0})).await;
    assert_eq!(new["hasSynced"], json!(true));
    assert!(client.texts("SELECT book FROM pages").await.contains("book-3"));
    // The rules let nobody write, so the page comes back.
    client.call(json!({"do": "refuse_uploads", "refuses": false})).await;
    client.converges(&service, IN_SOURCE, &[&["book-1", "book-2", "book-3"].as_slice()], ON_DEVICE).await;
}

#[tokio::test]
async fn over_http_subscriptions_have_a_priority_of_their_own() {
    subscriptions_have_a_priority_of_their_own(Sdk::HTTP).await;
}

#[tokio::test]
async fn over_a_web_socket_subscriptions_have_a_priority_of_their_own() {
    subscriptions_have_a_priority_of_their_own(Sdk::WEB_SOCKET).await;
}

async fn a_subscription_goes_after_its_time_to_live(sdk: Sdk) {
    let (service, client) = start(sdk).await;
    for (book, ttl) in [("book-1", 1), ("book-2", 3600)] {
        subscribe(&client, "pages", json!({"book": book}), json!({"ttl": ttl})).await;
    }
    client.converges(&service, IN_SOURCE, &[&["book-1", "book-2"].as_slice()], ON_DEVICE).await;
    for book in ["book-1", "book-2"] {
        client.call(json!({"do": "unsubscribe", "stream": "pages", "parameters": {"book": book}})).await;
    }
    // The SDK looks at the time when it connects.
    let books = async || {
        client.call(json!({"do": "disconnect"})).await;
        client.connect(service.process.endpoint(), &service.token("ann")).await;
        client.texts("SELECT DISTINCT book FROM pages").await
    };
    eventually(["book-2".to_owned()].into(), books).await;
    client.converges(&service, IN_SOURCE, &[&["book-2"].as_slice()], ON_DEVICE).await;
}

async fn an_error_concerns_one_subscription(sdk: Sdk) {
    let (service, client) = start(sdk).await;
    subscribe(&client, "listed", json!({"choice": r#"{"book":"book-1"}"#}), json!({})).await;
    // No JSON: the service says so, and the others go on.
    let broken = subscribe(&client, "listed", json!({"choice": "{\"book"}), json!({})).await;
    assert_eq!(broken["hasSynced"], json!(true), "answered, with nothing in it");
    subscribe(&client, "pages", json!({"book": "book-3"}), json!({})).await;
    client.converges(&service, IN_SOURCE, &[&["book-1", "book-3"].as_slice()], ON_DEVICE).await;
    service.run("INSERT INTO pages VALUES ('new', 'book-1', 'Fresh')").await;
    client.converges(&service, IN_SOURCE, &[&["book-1", "book-3"].as_slice()], ON_DEVICE).await;
    let logged: Vec<String> = serde_json::from_value(client.call(json!({"do": "logged"})).await).expect("a list");
    let told = logged.iter().find(|message| message.contains("listed") && message.contains("JSON"));
    assert!(told.is_some(), "the SDK was told of the error: {logged:#?}");
}

#[tokio::test]
async fn a_subscription_that_nobody_wants_any_more_goes_after_its_time_to_live() {
    a_subscription_goes_after_its_time_to_live(Sdk::HTTP).await;
}

#[tokio::test]
async fn an_error_concerns_one_subscription_alone() {
    an_error_concerns_one_subscription(Sdk::HTTP).await;
}

#[tokio::test]
async fn with_our_client_subscriptions_have_a_priority_of_their_own() {
    subscriptions_have_a_priority_of_their_own(Sdk::RUST).await;
}

#[tokio::test]
async fn with_our_client_a_subscription_that_nobody_wants_any_more_goes_after_its_time_to_live() {
    a_subscription_goes_after_its_time_to_live(Sdk::RUST).await;
}

#[tokio::test]
async fn with_our_client_an_error_concerns_one_subscription_alone() {
    an_error_concerns_one_subscription(Sdk::RUST).await;
}
