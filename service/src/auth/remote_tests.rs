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
    Arc::new(RemoteKeys::new(uri, AddressRules::default()).unwrap())
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
        let KeySet { keys, left_out } = &*remote.keys().await.unwrap();
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        assert!(left_out[0].starts_with("key `secret`: a shared secret must not be published"), "{left_out:?}");
        assert_eq!(keys.iter().map(|key| key.kid.as_deref()).collect::<Vec<_>>(), [Some("rsa")]);
        assert!(remote.look_again().await.is_none(), "it was a moment ago");
    }
    assert_eq!(count.load(SeqCst), 1, "a flood of unknown keys does not make more fetches");
}

#[tokio::test]
async fn an_endpoint_that_fails_is_named_with_the_reason() {
    assert!(failure(Err(StatusCode::BAD_GATEWAY)).await.ends_with("status 502"));
    assert!(failure(Ok("<html>".to_owned())).await.ends_with("not a JSON Web Key Set"));
    assert!(failure(Ok(" ".repeat(2 << 20))).await.contains("larger than 1 MiB"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    assert!(failure(Err(StatusCode::FOUND)).await.contains("status 302: redirects are not followed"));
}

#[tokio::test]
async fn an_endpoint_with_too_many_keys_gives_none() {
    let keys = vec![test_keys::ec_jwk(); 101];
    assert!(failure(Ok(json!({ "keys": keys }).to_string())).await.contains("more than 100 keys"));
}

#[tokio::test]
async fn rejected_addresses_are_not_asked_by_number_nor_by_name() {
    let (uri, count) = endpoint(Ok(json!({"keys": [test_keys::rsa_jwk()]}).to_string())).await;
    let local = AddressRules { local: true, ..AddressRules::default() };
    let range = AddressRules { ranges: vec!["127.0.0.0/8".parse().unwrap()], ..AddressRules::default() };
    for (rules, host) in [(&local, "127.0.0.1"), (&local, "localhost"), (&range, "127.0.0.1"), (&local, "0x7f.1")] {
        let remote = Arc::new(RemoteKeys::new(uri.replace("127.0.0.1", host), rules.clone()).unwrap());
        let error = remote.keys().await.err().unwrap();
        assert_eq!(error.code(), "PSYNC_S2203", "{host}: {error}");
    }
    assert_eq!(count.load(SeqCst), 0);
    let elsewhere = AddressRules { ranges: vec!["10.0.0.0/8".parse().unwrap()], ..AddressRules::default() };
    let remote = Arc::new(RemoteKeys::new(uri.replace("127.0.0.1", "localhost"), elsewhere).unwrap());
    assert!(remote.keys().await.is_ok(), "an allowed address of a name is asked");
    let ipv6 = AddressRules { ipv6: true, ..AddressRules::default() };
    let remote = Arc::new(RemoteKeys::new("http://[::1]:1/keys".to_owned(), ipv6).unwrap());
    assert_eq!(remote.keys().await.err().unwrap().code(), "PSYNC_S2202");
}

#[tokio::test]
async fn the_reason_of_a_failed_connection_is_told_without_the_address_twice() {
    let error = remote("http://127.0.0.1:1/keys".to_owned()).keys().await.err().unwrap();
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!((error.to_string().matches("/keys").count(), error.code()), (1, "PSYNC_S2204"), "{error}");
}
