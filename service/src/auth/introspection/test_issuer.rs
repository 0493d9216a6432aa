//! An issuer for tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::any,
};
use reqwest::Method;

use super::{AnswerRules, CACHE_DEFAULT, Introspection, Template};

/// An issuer that takes its time, counts those it serves at once, and answers what the token says: a status, or a user.
pub(in crate::auth) struct Issuer {
    pub(in crate::auth) url: String,
    pub(in crate::auth) questions: Arc<AtomicUsize>,
    pub(in crate::auth) most_at_once: Arc<AtomicUsize>,
}

pub(in crate::auth) const TIME_TO_ANSWER: Duration = Duration::from_millis(50);

pub(in crate::auth) async fn issuer() -> Issuer {
    let (questions, most_at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, most, now) = (Arc::clone(&questions), Arc::clone(&most_at_once), Arc::new(AtomicUsize::new(0)));
    let handler = move |headers: HeaderMap| {
        count.fetch_add(1, SeqCst);
        most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        let now = Arc::clone(&now);
        async move {
            tokio::time::sleep(TIME_TO_ANSWER).await;
            now.fetch_sub(1, SeqCst);
            let token = headers["authorization"].to_str().unwrap().trim_start_matches("Bearer ").to_owned();
            match token.parse::<u16>() {
                Ok(status) => StatusCode::from_u16(status).unwrap().into_response(),
                Err(_) => format!(r#"{{"id":"{token}"}}"#).into_response(),
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/me", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/me", any(handler))).await });
    Issuer { url, questions, most_at_once }
}

/// Asks it.
pub(in crate::auth) fn introspection(url: &str) -> Introspection {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Introspection {
        url: Template::new(url),
        method: Method::POST,
        header: Some(("Authorization".to_owned(), Template::new("Bearer {token}"))),
        body: None,
        answer: AnswerRules { subject: "/id".to_owned(), active: None, claims: Vec::new() },
        keep_for: CACHE_DEFAULT,
        timeout: Duration::from_secs(5),
    }
}
