//! Clients that ask too often are told to wait, and nobody else is.

use reqwest::header::RETRY_AFTER;

use super::*;
use crate::rate_limit::Rates;

/// Nobody has a bound.
const FREE: Rates =
    Rates { uploads_per_minute: 0, operations_per_minute: 0, streams_per_minute: 0, write_checkpoints_per_minute: 0 };
const UNLIMITED: RateLimits = RateLimits { device: FREE, user: FREE, address: FREE, refused_tokens_per_minute: 0 };
const LIMITED: (u16, &str) = (429, "SYNC_RATE_LIMITED");

fn batch(client_id: &str, count: usize) -> Value {
    let entry = json!({"op": "PUT", "table": "lists", "id": "l1", "data": {}});
    json!({"client_id": client_id, "batch": vec![entry; count]})
}

impl TestService {
    /// Status and code of an upload.
    async fn upload(&self, user_id: &str, body: &Value) -> (u16, String) {
        outcome(self.post("/api/sync/data", user_id, body).send().await.unwrap()).await
    }

    async fn rate_limited(&self, by: &str, activity: &str) -> String {
        let metrics = self.client.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let name = format!(r#"kairos_rate_limited_total{{activity="{activity}",by="{by}"}} "#);
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("0").to_owned()
    }
}

async fn outcome(response: Response) -> (u16, String) {
    if response.status() == StatusCode::OK { (200, String::new()) } else { error_of(response).await }
}

fn limited() -> (u16, String) {
    (LIMITED.0, LIMITED.1.to_owned())
}

fn ok() -> (u16, String) {
    (200, String::new())
}

#[tokio::test]
async fn uploads_of_a_user_are_limited_with_a_time_to_wait() {
    let user = Rates { uploads_per_minute: 2, ..FREE };
    let service = start_limited(RateLimits { user, ..UNLIMITED }).await;
    for device in ["phone", "laptop"] {
        assert_eq!(service.upload("anna", &batch(device, 1)).await, ok());
    }
    let refused = service.post("/api/data", "anna", &batch("tablet", 1)).header("origin", "https://app.example");
    let refused = refused.send().await.unwrap();
    let wait: u64 = refused.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "one upload is made up for in 30 seconds: {wait}");
    let exposed = refused.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("retry-after"), "scripts in browsers may read it: {exposed}");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["details"], json!("limits.rate.user.uploads_per_minute"));
    assert_eq!(service.upload("ben", &batch("phone", 1)).await, ok(), "another user");
    assert_eq!(service.rate_limited("user", "uploads").await, "1");
}

#[tokio::test]
async fn a_table_that_takes_no_more_says_when_and_which_rule_says_so() {
    let service = start_limited(UNLIMITED).await;
    let body = json!({"batch": [{"op": "PUT", "table": "busy", "id": "l1", "data": {}}]});
    let refused = service.post("/api/data", "anna", &body).send().await.unwrap();
    assert_eq!(refused.headers()[RETRY_AFTER], "8", "in whole seconds, and not too early");
    let (status, body) = (refused.status().as_u16(), refused.json::<Value>().await.unwrap());
    assert_eq!((status, body["error"]["code"].as_str()), (LIMITED.0, Some(LIMITED.1)));
    assert_eq!(body["error"]["details"], json!("write_rules.busy.limits.operations_per_minute"));
}

#[tokio::test]
async fn operations_of_a_device_are_counted_and_its_other_devices_go_on() {
    let device = Rates { operations_per_minute: 10, ..FREE };
    let service = start_limited(RateLimits { device, ..UNLIMITED }).await;
    assert_eq!(service.upload("anna", &batch("phone", 25)).await, ok(), "more than a minute's worth passes once");
    assert_eq!(service.upload("anna", &batch("phone", 1)).await, limited());
    assert_eq!(service.upload("anna", &batch("laptop", 1)).await, ok());
    assert_eq!(service.upload("ben", &batch("phone", 1)).await, ok(), "a client id is one of its user");
    assert_eq!(service.rate_limited("device", "operations").await, "1");
}

#[tokio::test]
async fn starts_of_streams_and_write_checkpoints_are_limited() {
    let device = Rates { streams_per_minute: 1, write_checkpoints_per_minute: 1, ..FREE };
    let service = start_limited(RateLimits { device, ..UNLIMITED }).await;
    service.commit(1, &[]);
    let mut lines = service.stream("anna").await;
    lines.until_complete().await;
    let again = service.post("/sync/stream", "anna", &json!({"client_id": "phone"})).send().await.unwrap();
    assert_eq!(error_of(again).await, limited());
    service.commit(2, &[("anna", "a1")]);
    assert_eq!(lines.until_complete().await.0, ["a1"], "the stream that is open goes on");
    let checkpoint = async |client: &str| {
        let url = service.url(&format!("/write-checkpoint2.json?client_id={client}"));
        let request = service.client.get(url).header("authorization", format!("Token {}", token("anna")));
        outcome(request.send().await.unwrap()).await
    };
    assert_eq!(checkpoint("phone").await, ok());
    assert_eq!(checkpoint("phone").await, limited());
    let body = json!({"client_id": "phone", "checkpoint_request_id": "1"});
    let request = service.post("/sync/checkpoint-request", "anna", &body).send().await.unwrap();
    assert_eq!(error_of(request).await, limited(), "the other way to ask is no other account");
    assert_eq!(checkpoint("laptop").await, ok());
}

#[tokio::test]
async fn refused_tokens_count_against_the_address_that_a_trusted_proxy_names() {
    let service = start_limited(RateLimits { refused_tokens_per_minute: 2, ..UNLIMITED }).await;
    let ask = async |path: &str, from: &str, token: &str| {
        let request = service.client.post(service.url(path)).timeout(DEADLINE).json(&json!({"batch": []}));
        let request = request.header("x-forwarded-for", from).header("authorization", format!("Token {token}"));
        outcome(request.send().await.unwrap()).await.0
    };
    let (attacker, neighbour, other) = ("2001:db8::1", "2001:db8::2", "192.0.2.7");
    let anna = token("anna");
    assert_eq!(ask("/api/data", attacker, &anna).await, 200);
    assert_eq!(ask("/api/data", attacker, "guess").await, 401);
    assert_eq!(ask("/api/admin/v1/schema", attacker, "guess").await, 401, "a guess of an operator's token counts too");
    assert_eq!(ask("/api/data", attacker, &anna).await, 429);
    assert_eq!(ask("/api/admin/v1/validate", neighbour, ADMIN_TOKEN).await, 429, "the same network");
    assert_eq!(ask("/api/data", other, &anna).await, 200);
    assert_eq!(
        ask("/api/data", &format!("{other}, {attacker}"), &anna).await,
        429,
        "what a client adds is no disguise"
    );
    assert_eq!(service.rate_limited("address", "refused_tokens").await, "3");
    let alive = service.client.get(service.url("/probes/liveness")).header("x-forwarded-for", attacker);
    assert_eq!(alive.send().await.unwrap().status(), StatusCode::OK, "probes need no token");
}
