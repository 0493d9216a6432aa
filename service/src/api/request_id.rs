//! A name for each request: in the answer, and in every line of the log that is about it.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, Span, field, info_span};

use crate::traces::{failed, join_caller, number, trace_span};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer name is not taken over.
const BYTES_MAX: usize = 64;

/// In the extensions of a request: what lines of the log say of it. A stream keeps this rather than the span, of which the
/// log has some six hundred bytes.
#[derive(Clone)]
pub(super) struct RequestName(Arc<Named>);

struct Named {
    id: Box<str>,
    method: Method,
    route: Box<str>,
}

impl RequestName {
    /// What is logged in it is about this request. A stream that is opened has a number, by which the list of connections
    /// knows it.
    pub(super) fn span(&self) -> Span {
        let Named { id, method, route } = &*self.0;
        info_span!(parent: None, "request", id, %method, route, connection = field::Empty)
    }
}

/// Takes over the name that a proxy gave, so that its log and ours have the same one.
pub(super) async fn name(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(X_REQUEST_ID).filter(|name| is_plain(name)).cloned();
    let name = given.unwrap_or_else(|| {
        HeaderValue::from_str(&format!("{:016x}", rand::random::<u64>())).expect("digits are a valid header")
    });
    // The route, not the path: that may hold what a user typed.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let id = name.to_str().unwrap_or_default();
    let named = Named { id: id.into(), method: request.method().clone(), route: route.into() };
    let named = RequestName(Arc::new(named));
    let span = named.span();
    // Beside that of the log. It ends with the answer's head.
    let trace = trace_span!(
        parent: None,
        "request",
        otel.name = format_args!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        request.id = id,
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = field::Empty,
    );
    join_caller(&trace, request.headers());
    request.headers_mut().remove(X_REQUEST_ID);
    request.extensions_mut().insert(named);
    let mut response = next.run(request).instrument(span).instrument(trace.clone()).await;
    trace.record("http.response.status_code", number(response.status().as_u16()));
    if response.status().is_server_error() {
        failed(&trace, response.status().as_str());
    }
    response.headers_mut().insert(X_REQUEST_ID, name);
    response
}

/// What fits into a line of a log, and cannot be mistaken for something else there.
fn is_plain(name: &HeaderValue) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (1..=BYTES_MAX).contains(&name.len()) && name.as_bytes().iter().all(is_plain)
}
