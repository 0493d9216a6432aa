//! HTTP in front of the service. It only translates: requests to calls, results to answers.
//!
//! | Path | What |
//! | --- | --- |
//! | `POST /sync/stream` | a client's stream, newline-delimited JSON or BSON |
//! | `GET /sync/stream` with an upgrade | the same as RSocket over a WebSocket |
//! | `GET /write-checkpoint2.json`, `POST /sync/checkpoint-request` | a write checkpoint |
//! | `POST /api/sync/data`, `/api/data` | local writes of a client |
//! | `/api/sync/conflicts…` | writes that were not taken as sent |
//! | `/api/admin/v1/…`, `/api/sync-rules/v1/…` | for operators who show a token, see [`admin`] |
//! | `GET /api/openapi.json` | what all of these take and answer, see [`openapi`] |
//! | `GET /admin/`, `GET /mirror/` | pages for people, see [`pages`] |
//! | `GET /probes/startup`, `/probes/liveness`, `/probes/readiness`, `/health`, `/metrics` | for operators |
//!
//! **Invariants**
//!
//! - Who asks is found out before anything of the request's body is read.
//! - Every failure before the first byte of a stream is a JSON body with a stable code; no value, no secret in it.
//! - How often a client may ask, bodies, streams, sockets and the time to send a request have bounds.
//! - No SQL here.
//!
//! Start reading at [`router`].

mod admin;
mod body;
mod caller;
mod client_address;
mod conflicts;
mod connection;
mod endpoint;
mod error;
mod idle;
mod json_bounds;
mod lent_socket;
mod negotiation;
pub mod openapi;
mod pages;
mod place;
mod probes;
mod readiness;
mod request_id;
mod rsocket;
mod serve;
mod stream_answer;
mod sync_stream;
mod unread_body;
mod upload;
mod write_checkpoint;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, Method, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use tokio::sync::{Semaphore, watch};
use tower_http::cors::{Any, CorsLayer};

use self::endpoint::{Access, Answer, Body, Endpoint, routes};
pub use conflicts::Conflicts;
pub use error::{ApiError, ErrorCode};
pub(crate) use probes::{Probe, Status};
pub use serve::serve;
pub use upload::Upload;

use crate::{
    admin::Admin,
    auth::{ApiTokens, Authenticator, address::AddressRange},
    deployment::Deployments,
    metrics::Metrics,
    rate_limit::{RateLimiter, RateLimits},
    recent_events::RecentEvents,
    replication::ReplicationStatus,
    sync::{Hub, SyncContext, WriteCheckpoints},
};

/// Bounds of the HTTP server.
#[derive(Debug, Clone, Copy)]
pub struct ApiLimits {
    /// Open sync streams.
    pub connection_count_max: usize,
    /// Largest body of a request.
    pub body_bytes_max: usize,
    /// What one client may ask for in a minute.
    pub rate: RateLimits,
}

/// What requests are translated to.
pub struct ApiParts {
    /// Streams.
    pub sync: Arc<SyncContext>,
    /// Knows how replication is.
    pub replication: Arc<ReplicationStatus>,
    /// Knows which rules are in force.
    pub deployments: Arc<Deployments>,
    /// The file that rules come from; `None` where they are deployed over HTTP.
    pub rules_file: Option<String>,
    /// Whose word on where requests come from is taken.
    pub trusted_proxies: Vec<AddressRange>,
    /// Whether the mirror is served.
    pub serves_mirror: bool,
    /// Under which everything is served as well.
    pub base_path: Option<String>,
    /// How often replication has something new at least, if it is known: the probes notice when it has not.
    pub heartbeat: Option<Duration>,
    /// Becomes true when the service is asked to stop; it serves for a while then.
    pub leaving: watch::Receiver<bool>,
    /// Knows whether a state is visible.
    pub hub: Arc<Hub>,
    /// Proofs to principals.
    pub authenticator: Authenticator,
    /// Who may administrate.
    pub api_tokens: ApiTokens,
    /// Answers them.
    pub admin: Admin,
    /// Write checkpoints.
    pub write_checkpoints: WriteCheckpoints,
    /// Takes local writes of clients.
    pub uploads: Arc<dyn Upload>,
    /// Knows which of them were not taken as sent.
    pub conflicts: Arc<dyn Conflicts>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Warnings and errors of the log.
    pub events: RecentEvents,
    /// Bounds.
    pub limits: ApiLimits,
}

/// Shared by all requests.
#[derive(Clone)]
pub struct ApiState {
    parts: Arc<ApiParts>,
    streams: Arc<Semaphore>,
    rates: Arc<RateLimiter>,
    gate: admin::Gate,
}

impl ApiState {
    /// Translates to these parts.
    pub fn new(parts: ApiParts) -> Self {
        let streams = Arc::new(Semaphore::new(parts.limits.connection_count_max));
        let rates = Arc::new(RateLimiter::new(parts.limits.rate));
        Self { parts: Arc::new(parts), streams, rates, gate: admin::Gate::default() }
    }
}

/// All routes of the service.
pub fn router(state: ApiState) -> Router {
    let all = routes(endpoints()).merge(admin::routes(&state));
    let routes = match &state.parts.base_path {
        Some(base_path) => Router::new().nest(base_path, all.clone()).merge(all),
        None => all,
    };
    routes
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        // Bodies are read by `body::read_json`, which has the configured limit.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), count_refused))
        .layer(from_fn(request_id::name))
        .layer(cors())
        .with_state(state)
}

fn endpoints() -> Vec<Endpoint> {
    clients().into_iter().chain(conflicts::endpoints()).chain(observers()).chain(pages::endpoints()).collect()
}

fn clients() -> Vec<Endpoint> {
    let upload = |path| {
        let summary = "Take local writes of a device";
        let endpoint = Endpoint::post(path, upload::upload, Access::User, summary, Answer::Data("UploadResponse"));
        endpoint.query(&["client_id"]).takes(Body::Json("UploadBatch"))
    };
    let stream = "Open a sync stream";
    vec![
        Endpoint::post("/sync/stream", sync_stream::sync_stream, Access::User, stream, Answer::Lines("SyncLine"))
            .query(&["client_id"])
            .takes(Body::Json("SyncRequest")),
        Endpoint::get(
            "/sync/stream",
            rsocket::upgrade,
            Access::Anybody,
            "Open sync streams over a WebSocket; the token comes in the first frame",
            Answer::WebSocket,
        ),
        Endpoint::post(
            "/sync/checkpoint-request",
            write_checkpoint::checkpoint_request,
            Access::User,
            "Ask for a write checkpoint with an id of the device's own",
            Answer::Data("CheckpointRequestResponse"),
        )
        .takes(Body::Json("CheckpointRequest")),
        Endpoint::get(
            "/write-checkpoint2.json",
            write_checkpoint::write_checkpoint,
            Access::User,
            "Ask for a write checkpoint: the stream reaches it once everything committed before is there",
            Answer::Data("WriteCheckpoint"),
        )
        .query(&["client_id"]),
        upload("/api/sync/data"),
        upload("/api/sync/data/"),
        upload("/api/data"),
        upload("/api/data/"),
    ]
}

fn observers() -> Vec<Endpoint> {
    let readiness = |path| {
        let summary = "Whether clients can be served, and why not";
        Endpoint::get(path, probes::readiness, Access::Anybody, summary, Answer::Verdict("Probe"))
    };
    vec![
        Endpoint::get(
            "/probes/startup",
            probes::startup,
            Access::Anybody,
            "Whether the process has started",
            Answer::Plain("Probe"),
        ),
        Endpoint::get(
            "/probes/liveness",
            probes::liveness,
            Access::Anybody,
            "Whether the process answers",
            Answer::Plain("Probe"),
        ),
        readiness("/probes/readiness"),
        readiness("/health"),
        Endpoint::get("/status", probes::status, Access::Anybody, "How the service is", Answer::Plain("Probe")),
        Endpoint::get("/metrics", probes::metrics, Access::Anybody, "Metrics for Prometheus", Answer::Text),
        Endpoint::get(
            "/api/openapi.json",
            openapi::openapi,
            Access::Anybody,
            "This document",
            Answer::Plain("OpenApi"),
        ),
    ]
}

async fn count_refused(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if let Some(ErrorCode(code)) = response.extensions().get() {
        state.parts.metrics.requests_refused.with_label_values(&[code]).inc();
    }
    response
}

/// Browser clients come from any origin, and prove themselves by a token, never by a cookie.
fn cors() -> CorsLayer {
    let x_user_agent = HeaderName::from_static("x-user-agent");
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, header::USER_AGENT, x_user_agent])
        .expose_headers([header::CONTENT_TYPE, header::RETRY_AFTER, request_id::X_REQUEST_ID])
        .max_age(Duration::from_hours(1))
}

#[cfg(test)]
mod tests;
