//! What a line of the log is about can be found: by the request it belongs to, and by the number of a connection.

use kairos_sync::demo::process::ServiceProcess;
use kairos_tests::service::{TestService, eventually, service_binary};
use reqwest::Client;
use serde_json::{Value, json};

const SCHEMA: &str = "CREATE TABLE items (id text PRIMARY KEY); SELECT kairos.publish_table('items');";
const RULES: &str = "bucket_definitions: { everything: { data: [SELECT * FROM items] } }";

/// Lines of the log, as far as they are there.
fn lines(service: &TestService) -> Vec<Value> {
    service.process.log_tail().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn a_refusal_in_the_log_has_the_name_of_the_answer() {
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.process.terminate().await.expect("it ends");
    let port = service.process.endpoint().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let json = [("PS_LOG_FORMAT", "json"), ("PS_LOG_LEVEL", "info")];
    service.process =
        ServiceProcess::start_with(&service_binary(), &service.config, port, &json).await.expect("it starts");
    service.wait_until_ready().await;
    let url = format!("{}/sync/stream", service.process.endpoint());
    let ask = |id: &str| Client::new().post(&url).bearer_auth("secret.marker.token").header("x-request-id", id);
    let mine = ask("proxy-7.a").json(&json!({})).send().await.expect("an answer");
    assert_eq!((mine.status().as_u16(), &mine.headers()["x-request-id"]), (401, &"proxy-7.a".parse().expect("a name")));
    // What could be mistaken for something else in a log is not taken over.
    let other = ask("a b\"c").json(&json!({})).send().await.expect("an answer");
    let own = other.headers()["x-request-id"].to_str().expect("text").to_owned();
    assert!(own.len() == 16 && own.bytes().all(|byte| byte.is_ascii_hexdigit()), "{own}");
    for id in ["proxy-7.a", &own] {
        eventually(true, async || lines(&service).iter().any(|line| line["span"]["id"] == *id)).await;
        let lines = lines(&service);
        let line = lines.iter().find(|line| line["span"]["id"] == *id).expect("it is there");
        assert_eq!((&line["span"]["route"], &line["span"]["method"]), (&json!("/sync/stream"), &json!("POST")));
        assert_eq!(line["level"], "INFO", "{line}");
    }
    assert!(!service.process.log_tail().contains("marker"), "no token is logged");
}
