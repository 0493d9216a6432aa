use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};
use serde_json::json;

use super::*;
use crate::auth::test_keys;

/// An endpoint that counts its readers and gives an answer.
async fn endpoint(answer: Result<String, StatusCode>) -> (String, Arc<AtomicUsize>) {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let handler = move || {
        counter.fetch_add(1, SeqCst);
        let answer = answer.clone();
        async move { answer.into_response() }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/keys", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/keys", get(handler))).await });
    (uri, count)
}

fn remote(uri: String) -> Arc<RemoteKeys> {
    Arc::new(RemoteKeys::new(uri).unwrap())
}

async fn failure(answer: Result<String, StatusCode>) -> String {
    let (uri, _) = endpoint(answer).await;
    remote(uri).keys().await.err().unwrap().to_string()
}

#[tokio::test]
async fn keys_are_fetched_once_and_secrets_left_out() {
    let set = json!({"keys": [test_keys::rsa_jwk(), test_keys::secret_jwk(), {"kty": "future"}]});
    let (uri, count) = endpoint(Ok(set.to_string())).await;
    let remote = remote(uri);
    for _ in 0..10 {
        let keys = remote.keys().await.unwrap();
        assert_eq!(keys.iter().map(|key| key.kid.as_deref()).collect::<Vec<_>>(), [Some("rsa")]);
        remote.refresh_for_unknown_key();
    }
    assert_eq!(count.load(SeqCst), 1, "a flood of unknown keys does not make more fetches");
}

#[tokio::test]
async fn an_endpoint_that_fails_is_named_with_the_reason() {
    assert!(failure(Err(StatusCode::BAD_GATEWAY)).await.ends_with("status 502"));
    assert!(failure(Ok("<html>".to_owned())).await.ends_with("not a JSON Web Key Set"));
    assert!(failure(Ok(" ".repeat(2 * BODY_BYTES_MAX))).await.ends_with("larger than 1 MiB"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    assert!(failure(Err(StatusCode::FOUND)).await.ends_with("status 302"));
}
