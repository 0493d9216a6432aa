//! Tokens that expire while rows keep coming: the SDK fetches new ones, and nothing is missed.

use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::{PATIENCE, TestService, eventually},
};
use serde_json::{Value, json};
use tokio::time::Duration;

const SCHEMA: &str = "
    CREATE TABLE items (id text PRIMARY KEY, body text NOT NULL);
    SELECT kairos.publish_table('items');
    INSERT INTO items SELECT 'item-' || n, 'Item ' || n FROM generate_series(1, 100) n;
";

const RULES: &str = "bucket_definitions: {items: {data: [SELECT * FROM items]}}";
const ALL: &str = "SELECT id || ' ' || body FROM items";

/// The service warns when 20 seconds are left, so soon.
const SOON_WARNED: Duration = Duration::from_secs(22);
/// Too short for a warning: the stream ends with the token.
const SOON_EXPIRED: Duration = Duration::from_secs(2);

/// How long the SDK waits until it connects again after an error, or a token that has expired.
const SHORT_DELAY: Duration = Duration::from_millis(200);

/// Rows are written until the SDK has fetched its second token and for a while afterwards; all must come. Returns what
/// the SDK said about itself meanwhile.
async fn rows_come_while_the_token_changes(sdk: Sdk, lifetime: Duration, retry_delay: Duration) -> Vec<Value> {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({"items": {"body": "text"}});
    let client = OfficialClient::open(sdk, service.folder.path(), "phone", &tables).await;
    let tokens = [service.mint.mint("ann", lifetime), service.token("ann")];
    let options = json!({"retryDelayMs": retry_delay.as_millis()});
    client.connect_with(service.process.endpoint(), &tokens.each_ref().map(String::as_str), options).await;
    let fetched_again = async || {
        service.run("INSERT INTO items VALUES (gen_random_uuid(), 'while the token changes')").await;
        client.call(json!({"do": "fetches"})).await.as_u64() >= Some(2)
    };
    eventually(true, fetched_again).await;
    for n in 1..=20 {
        service.run(&format!("UPDATE items SET body = 'afterwards' WHERE id = 'item-{n}'")).await;
    }
    client.converges(&service, ALL, &[], ALL).await;
    eventually(json!(true), async || client.call(json!({"do": "status"})).await["connected"].take()).await;
    serde_json::from_value(client.call(json!({"do": "history"})).await).expect("a list")
}

/// The SDK comes back at once, and without an error: a stream that was cut would be tried again after its delay only,
/// for which this test does not wait. The SDK shows that it changes the connection, once; it does so, too, when a
/// subscription is added.
async fn a_token_is_refreshed_before_it_expires(sdk: Sdk) {
    let history = rows_come_while_the_token_changes(sdk, SOON_WARNED, 2 * PATIENCE).await;
    let connected: Vec<_> = history.iter().map(|entry| entry["connected"] == json!(true)).collect();
    let interruptions = connected.windows(2).filter(|pair| pair[0] && !pair[1]).count();
    assert!(interruptions <= 1, "the status flickered: {history:?}");
    assert!(history.iter().all(|entry| entry["downloadError"].is_null()), "{history:?}");
}

#[tokio::test]
async fn over_http_a_token_is_refreshed_before_it_expires() {
    a_token_is_refreshed_before_it_expires(Sdk::HTTP).await;
}

#[tokio::test]
async fn over_a_web_socket_a_token_is_refreshed_before_it_expires() {
    a_token_is_refreshed_before_it_expires(Sdk::WEB_SOCKET).await;
}

#[tokio::test]
async fn over_http_an_expired_token_is_replaced() {
    rows_come_while_the_token_changes(Sdk::HTTP, SOON_EXPIRED, SHORT_DELAY).await;
}

#[tokio::test]
async fn over_a_web_socket_an_expired_token_is_replaced() {
    rows_come_while_the_token_changes(Sdk::WEB_SOCKET, SOON_EXPIRED, SHORT_DELAY).await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({"items": {"body": "text"}});
    for sdk in [Sdk::HTTP, Sdk::WEB_SOCKET, Sdk::JAVASCRIPT, Sdk::RUST] {
        let client = OfficialClient::open(sdk, service.folder.path(), sdk.name, &tables).await;
        // Of another service, which is refused in the same way.
        let stranger = kairos_sync::demo::token::TokenMint::new().mint("ann", SOON_WARNED);
        let tokens = [stranger, service.token("ann")];
        client.connect_with(service.process.endpoint(), &tokens.each_ref().map(String::as_str), json!({})).await;
        client.converges(&service, ALL, &[], ALL).await;
        assert_eq!(client.call(json!({"do": "fetches"})).await, json!(2), "{}", sdk.name);
    }
}

#[tokio::test]
async fn with_our_client_a_token_is_refreshed_before_it_expires() {
    a_token_is_refreshed_before_it_expires(Sdk::RUST).await;
}

#[tokio::test]
async fn with_our_client_an_expired_token_is_replaced() {
    rows_come_while_the_token_changes(Sdk::RUST, SOON_EXPIRED, SHORT_DELAY).await;
}
