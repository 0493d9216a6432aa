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

#[tokio::test]
async fn a_source_that_is_away_is_told_without_its_password() {
    let service = start().await;
    service.commit(1, &[("anna", "a")]);
    let answer = service.ask("/api/admin/v1/diagnostics", &json!({"sync_rules_content": true})).await;
    let [connection] = &answer["data"]["connections"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!(connection["connected"], json!(false));
    assert_eq!(connection["postgres_uri"], json!("postgresql://127.0.0.1:1/app"));
    assert!(connection["errors"][0]["message"].as_str().unwrap().starts_with("[PG-0102]"), "{connection}");
    assert_eq!(answer["data"]["active_sync_rules"]["content"], json!(RULES));
    assert!(!answer.to_string().contains("s3cret"), "{answer}");
    let schema = service.client.post(service.url("/api/admin/v1/schema")).bearer_auth(ADMIN_TOKEN);
    assert_eq!(error_of(schema.send().await.unwrap()).await, (503, "PG-0102".to_owned()));
    let sql = json!({"sql": {"query": "SELECT 1", "args": []}});
    let answer = service.ask("/api/admin/v1/execute-sql", &sql).await;
    assert_eq!((&answer["data"]["success"], &answer["data"]["results"]["rows"]), (&json!(false), &json!([])));
}

#[tokio::test]
async fn the_store_and_the_rules_are_told() {
    let service = start().await;
    let get = async |path: &str| {
        let request = service.client.get(service.url(path)).bearer_auth(ADMIN_TOKEN);
        request.send().await.unwrap().json::<Value>().await.unwrap()["data"].take()
    };
    assert_eq!(get("/api/admin/v1/store").await["checkpoint"], json!(null));
    service.commit(7, &[("anna", "a"), ("ben", "b")]);
    let store = get("/api/admin/v1/store").await;
    assert_eq!((&store["bucket_count"], &store["operation_count"]), (&json!(2), &json!(2)));
    assert_eq!(store["checkpoint"], json!({"op_id": "2", "lsn": "0/7"}));
    assert_eq!(get("/api/sync-rules/v1/current").await["current"]["content"], json!(RULES));
}

#[tokio::test]
async fn a_user_is_explained_by_what_is_asked_or_as_a_device_asked() {
    let service = start().await;
    let explain = async |question: Value| service.ask("/api/admin/v1/explain", &question).await["data"].take();
    let early = explain(json!({"user_id": "anna"})).await;
    assert!(early["summary"].as_str().unwrap().starts_with("Nothing is on any device yet"), "{early}");
    service.commit(1, &[("anna", "a"), ("anna", "b")]);
    let alone = explain(json!({"user_id": "anna"})).await;
    assert_eq!(alone["summary"], json!("anna has 1 bucket, of by_user."));
    assert_eq!(alone["request"]["source"], json!("user_alone"));
    let bucket = &alone["buckets"]["page"][0];
    assert_eq!((&bucket["operation_count"], &bucket["last_op_id"]), (&json!(2), &json!("2")));
    assert_eq!(bucket["origins"][0]["parameters"], json!([{"value": "\"anna\"", "from": "user_id()"}]));

    let mut stream = service.stream("anna").await;
    stream.until_complete().await;
    let device = explain(json!({"user_id": "anna"})).await;
    assert_eq!((&device["request"]["source"], &device["request"]["client_id"]), (&json!("device"), &json!("phone")));
    assert_eq!(device["request"]["token"]["sub"], json!("anna"));
    assert_eq!((&device["device_count"], &device["devices"][0]["completed"]["op_id"]), (&json!(1), &json!("2")));
    let given = explain(json!({"user_id": "anna", "claims": {"sub": "ben"}})).await;
    assert!(given["buckets"]["page"][0]["name"].as_str().unwrap().ends_with("by_user[\"ben\"]"), "{given}");
}

#[tokio::test]
async fn more_than_thirty_requests_are_turned_away() {
    let service = start().await;
    let head = format!(
        "POST /api/admin/v1/explain HTTP/1.1\r\nhost: test\r\nauthorization: Token {ADMIN_TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n"
    );
    let mut waiting = Vec::new();
    for _ in 0..30 {
        let mut socket = TcpStream::connect(service.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        waiting.push(socket);
    }
    let ask = || service.client.get(service.url(CONNECTIONS)).bearer_auth(ADMIN_TOKEN).timeout(DEADLINE).send();
    let started = Instant::now();
    let refused = loop {
        assert!(started.elapsed() < DEADLINE, "nobody is turned away");
        // They are read one after the other. Those that were are answered only when their bodies come.
        let unanswered = tokio::time::timeout(Duration::from_millis(200), ask()).await;
        if let Ok(Ok(answer)) = unanswered
            && answer.status() == StatusCode::TOO_MANY_REQUESTS
        {
            break answer;
        }
    };
    assert_eq!(refused.bytes().await.unwrap().len(), 0);
    drop(waiting);
    while ask().await.unwrap().status() != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
