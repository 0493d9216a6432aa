//! Administration over HTTP: who may, how many at once, and what is told of connections.

use super::*;

const CONNECTIONS: &str = "/api/admin/v1/connections";

impl TestService {
    async fn connections(&self, query: &str) -> Value {
        let request = self.client.get(self.url(&format!("{CONNECTIONS}{query}")));
        let response = request.header("authorization", format!("Bearer {ADMIN_TOKEN}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json::<Value>().await.unwrap()["data"].take()
    }
}

#[tokio::test]
async fn only_tokens_for_administration_are_accepted() {
    let service = start().await;
    for path in [CONNECTIONS, "/sync-api/api/admin/v1/connections"] {
        let get = |header: Option<String>| {
            let request = service.client.get(service.url(path));
            let request = if let Some(header) = header { request.header("authorization", header) } else { request };
            async { request.send().await.unwrap() }
        };
        for wrong in [None, Some("Token guess".to_owned()), Some(format!("Token {}", token("anna")))] {
            assert_eq!(error_of(get(wrong).await).await, (401, "PSYNC_S2101".to_owned()), "{path}");
        }
        assert_eq!(get(Some(format!("Token {ADMIN_TOKEN}"))).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn connections_say_who_is_there_and_how_far() {
    let service = start().await;
    service.commit(1, &[("anna", "a"), ("anna", "b")]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    let found = service.connections("").await;
    assert_eq!(found["count"], json!(1));
    let connection = &found["connections"][0];
    let told = ["user_id", "client_id", "carrier", "bucket_count"].map(|name| connection[name].clone());
    assert_eq!(told, [json!("anna"), json!("phone"), json!("http"), json!(1)]);
    assert_eq!(connection["announced"]["op_id"], json!("2"));
    assert_eq!(connection["completed"]["op_id"], json!("2"));
    assert!(connection["bytes_sent"].as_u64().unwrap() > 100, "{connection}");
    let _ben = service.stream("ben").await;
    assert_eq!(service.connections("?user_id=ben").await["count"], json!(1));
    let page = service.connections("?limit=1").await;
    assert_eq!((&page["count"], &page["connections"][0]["user_id"]), (&json!(2), &json!("anna")));
    let next = service.connections(&format!("?limit=1&after={}", page["next_after"])).await;
    assert_eq!(next["connections"][0]["user_id"], json!("ben"));
    drop(anna);
    while service.connections("").await["count"] != json!(1) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
