//! Single requests, and what is refused.

use super::*;

#[tokio::test]
async fn uploads_are_handed_on_under_every_path() {
    let service = start().await;
    let body = json!({"batch": [{"op": "PUT", "table": "lists", "id": "l1", "data": {}}]});
    for path in ["/api/sync/data", "/api/sync/data/", "/api/data", "/api/data/?client_id=phone"] {
        let response = service.post(path, "anna", &body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["data"]["results"][0]["id"], json!("anna"));
    }
    let down = json!([{"op": "PUT", "table": "down", "id": "l1"}]);
    let answer = service.post("/api/data", "anna", &down).send().await.unwrap();
    assert_eq!(error_of(answer).await, (503, "WRITE_DEADLINE".to_owned()));
}

#[tokio::test]
async fn requests_without_a_valid_token_all_get_the_same_answer() {
    let service = start().await;
    let forged = test_keys::sign(
        &test_keys::claims("anna"),
        Algorithm::HS256,
        Some("secret"),
        &jsonwebtoken::EncodingKey::from_secret(b"a guess with more than thirty-two bytes in it"),
    );
    for path in ["/sync/stream", "/api/sync/data"] {
        let request = || service.client.post(service.url(path)).body("not even JSON");
        let forged = request().header("authorization", format!("Token {forged}")).send().await.unwrap();
        let none = request().send().await.unwrap();
        assert_eq!(none.status(), StatusCode::UNAUTHORIZED);
        let (mut forged, mut none): (Value, Value) = (forged.json().await.unwrap(), none.json().await.unwrap());
        assert_eq!(forged["error"]["code"].take(), json!("PSYNC_S2101"));
        assert_eq!(none["error"]["code"].take(), json!("PSYNC_S2106"));
        assert_eq!(forged, none);
    }
}

#[tokio::test]
async fn malformed_requests_are_answered_with_their_code() {
    let service = start().await;
    let send = async |body: &str, content_type: &str| {
        let request = service.client.post(service.url("/sync/stream")).body(body.to_owned());
        let request = request.header("authorization", format!("Token {}", token("anna")));
        error_of(request.header("content-type", content_type.to_owned()).send().await.unwrap()).await
    };
    let json = "application/json; charset=utf-8";
    assert_eq!(send("{}", "text/plain").await, (415, "FST_ERR_CTP_INVALID_MEDIA_TYPE".to_owned()));
    for body in ["", "{", "\u{0}", r#"{"parameters":{"#] {
        assert_eq!(send(body, json).await, (400, "FST_ERR_CTP_INVALID_JSON_BODY".to_owned()), "{body:.9}");
    }
    let bomb = format!("{{\"parameters\":{}", r#"{"a":"#.repeat(10_000));
    assert_eq!(send(&bomb, json).await, (400, "FST_ERR_CTP_INVALID_JSON_BODY".to_owned()), "nested too deep");
    for body in [
        "7",
        r#"{"parameters":"x"}"#,
        r#"{"buckets":7}"#,
        r#"{"buckets":[{"name":"a","after":1}]}"#,
        r#"{"buckets":[{}]}"#,
    ] {
        assert_eq!(send(body, json).await, (400, "PSYNC_S2001".to_owned()), "{body}");
    }
    let large = format!(r#"{{"client_id":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(send(&large, json).await, (413, "FST_ERR_CTP_BODY_TOO_LARGE".to_owned()));
    let missing = service.client.get(service.url("/nowhere")).send().await.unwrap();
    assert_eq!(error_of(missing).await, (404, "PSYNC_S2002".to_owned()));
    let method = service.client.get(service.url("/sync/stream")).send().await.unwrap();
    assert_eq!(error_of(method).await, (405, "PSYNC_S2002".to_owned()));
    let metrics = service.client.get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for (code, count) in [
        ("PSYNC_S2001", 5),
        ("PSYNC_S2002", 2),
        ("FST_ERR_CTP_INVALID_MEDIA_TYPE", 1),
        ("FST_ERR_CTP_INVALID_JSON_BODY", 5),
        ("FST_ERR_CTP_BODY_TOO_LARGE", 1),
    ] {
        let line = format!(r#"kairos_requests_refused_total{{code="{code}"}} {count}"#);
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_query_that_is_ambiguous_is_refused_with_a_code() {
    let service = start().await;
    for path in ["/sync/stream", "/api/data"] {
        let path = format!("{path}?client_id=one&client_id=two");
        let refused = service.post(&path, "anna", &json!({})).send().await.unwrap();
        assert_eq!(error_of(refused).await, (400, "PSYNC_S2001".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_do_no_harm() {
    let service = start().await;
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"GET /\r\n\r\n", b"POST /sync/stream HTTP/9.9\r\n\r\n", &[0xFF; 4096]]
    {
        let mut socket = TcpStream::connect(service.address).await.unwrap();
        // The service may have closed the socket before it has read everything.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await.expect("closed");
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    let alive = service.client.get(service.url("/probes/liveness")).send().await.unwrap();
    let probe: Value = alive.json().await.unwrap();
    assert_eq!((&probe["started"], &probe["ready"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn everything_is_served_under_the_base_path_as_well() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let stream = service.post("/sync-api/sync/stream", "anna", &json!({"raw_data": true})).send().await.unwrap();
    assert_eq!(Lines { response: stream, rest: Vec::new() }.until_complete().await.0, ["a1"]);
    let probe = service.client.get(service.url("/sync-api/probes/readiness")).send().await.unwrap();
    assert_eq!(probe.status(), StatusCode::OK);
    let missing = service.client.get(service.url("/sync-api/nowhere")).send().await.unwrap();
    assert_eq!(error_of(missing).await, (404, "PSYNC_S2002".to_owned()));
    let other = service.client.get(service.url("/other/probes/readiness")).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::NOT_FOUND);
    let preflight = service.client.request(reqwest::Method::OPTIONS, service.url("/sync-api/sync/stream"));
    let preflight = preflight.header("origin", "https://app.example").header("access-control-request-method", "POST");
    assert_eq!(preflight.send().await.unwrap().headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn browsers_may_ask_from_any_origin() {
    let service = start().await;
    let request = service.client.request(reqwest::Method::OPTIONS, service.url("/sync/stream"));
    let request = request.header("origin", "https://app.example").header("access-control-request-method", "POST");
    let headers = request.header("access-control-request-headers", "authorization,content-type");
    let answer = headers.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.headers()["access-control-max-age"], "3600");
    let allowed = answer.headers()["access-control-allow-headers"].to_str().unwrap();
    assert_eq!(allowed, "content-type,authorization,user-agent,x-user-agent");
}
