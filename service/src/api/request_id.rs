//! A name for each request: in the answer, and in every line of the log that is about it.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, field, info_span};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer name is not taken over.
const BYTES_MAX: usize = 64;

/// Takes over the name that a proxy gave, so that its log and ours have the same one.
pub(super) async fn name(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(X_REQUEST_ID).filter(|name| is_plain(name)).cloned();
    let name = given.unwrap_or_else(|| {
        HeaderValue::from_str(&format!("{:016x}", rand::random::<u64>())).expect("digits are a valid header")
    });
    // The route, not the path: that may hold what a user typed.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let id = name.to_str().unwrap_or_default();
    // A stream that is opened has a number, by which the list of connections knows it.
    let span = info_span!("request", id, method = %request.method(), route, connection = field::Empty);
    request.headers_mut().remove(X_REQUEST_ID);
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(X_REQUEST_ID, name);
    response
}

/// What fits into a line of a log, and cannot be mistaken for something else there.
fn is_plain(name: &HeaderValue) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (1..=BYTES_MAX).contains(&name.len()) && name.as_bytes().iter().all(is_plain)
}
