//! For operators: probes and metrics. No authentication, and nothing secret in the answers.

use std::{
    borrow::Cow,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    ApiState,
    readiness::{phase_name, unready},
};
use crate::{
    deployment::DeploymentsSnapshot,
    iso8601::iso8601,
    metrics::Metrics,
    replication::{Budget, CopyStatus, RebuildStatus, StatusSnapshot, copy_status::seconds_left},
    storage::{DamageReport, StoreStats},
};

/// As the PowerSync service answers, and how replication is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) ready: bool,
    started: bool,
    touched_at: String,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) replication: ReplicationView,
    pub(crate) rules: RulesView,
}

/// Which rules are in force and which are on their way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RulesView {
    /// Number of the deployment that clients are served by; absent before the store says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deployment: Option<u64>,
    /// What is being built beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) building: Option<RebuildStatus>,
    /// Code of the reason why the rules that are wanted are not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Cow<'static, str>>,
}

impl RulesView {
    fn new(deployments: &DeploymentsSnapshot, status: &StatusSnapshot) -> Self {
        Self {
            deployment: deployments.serving.as_ref().map(|serving| serving.number.0),
            building: status.rebuild.clone(),
            refused: deployments.refusal.as_ref().map(|refusal| refusal.code.into()),
        }
    }
}

/// How the service is: what `/status` answers, and `kairos-sync status` reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: Cow<'static, str>,
    #[serde(flatten)]
    pub(crate) probe: Probe,
    /// What of the store was found damaged and is not whole again; absent where nothing was.
    #[serde(default, skip_serializing_if = "DamageReport::is_empty")]
    pub(crate) damages: DamageReport,
}

/// The status of replication without what only the log should say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReplicationView {
    pub(crate) phase: Cow<'static, str>,
    /// Code of what went wrong last, until the stream runs again.
    pub(crate) error: Option<Cow<'static, str>>,
    pub(crate) lag_bytes: u64,
    /// How long the newest commit took from the source until it was stored.
    delay_ms: Option<u64>,
    pub(crate) last_message_at: Option<String>,
    pub(crate) checkpoint_at: Option<String>,
    pub(crate) slot: Option<String>,
    pub(crate) slot_retained_bytes: Option<u64>,
    pub(crate) slot_budget_bytes: Option<u64>,
    /// Code of the reason why all tables were compared last.
    pub(crate) last_comparison: Option<Cow<'static, str>>,
    /// Tables that are not copied yet.
    pub(crate) copies: Vec<CopyStatus>,
    /// Seconds until all are, at the speed so far.
    copy_seconds_left: Option<u64>,
}

impl ReplicationView {
    fn new(status: &StatusSnapshot) -> Self {
        let code = |told: &Option<(&'static str, String)>| told.as_ref().map(|(code, _)| Cow::Borrowed(*code));
        Self {
            phase: phase_name(&status.phase).into(),
            error: code(&status.last_error),
            lag_bytes: status.lag_bytes(),
            delay_ms: status.delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            last_message_at: status.last_message.map(iso8601),
            checkpoint_at: status.last_checkpoint.map(iso8601),
            slot: status.slot.clone(),
            slot_retained_bytes: status.slot_wal.map(|wal| wal.retained_bytes),
            slot_budget_bytes: status.slot_wal.and_then(|wal| wal.budget).map(Budget::bytes),
            last_comparison: code(&status.last_comparison),
            copies: status.copies.clone(),
            copy_seconds_left: seconds_left(&status.copies),
        }
    }
}

/// The process has started.
pub(super) async fn startup(State(state): State<ApiState>) -> Response {
    (StatusCode::OK, Json(probe(&state))).into_response()
}

/// The process answers.
pub(super) async fn liveness(State(state): State<ApiState>) -> Response {
    (StatusCode::OK, Json(probe(&state))).into_response()
}

/// Clients can be served: a checkpoint is visible, and an open stream brings new ones.
pub(super) async fn readiness(State(state): State<ApiState>) -> Response {
    let probe = probe(&state);
    let status = if probe.ready { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    (status, Json(probe)).into_response()
}

/// How the service is, whether it is ready or not.
pub(super) async fn status(State(state): State<ApiState>) -> Response {
    (StatusCode::OK, Json(status_of(&state).await)).into_response()
}

/// Metrics in the Prometheus text format.
pub(super) async fn metrics(State(state): State<ApiState>) -> impl IntoResponse {
    let status = state.parts.replication.snapshot();
    let metrics = &state.parts.metrics;
    metrics.last_message_timestamp.set(unix_seconds(status.last_message));
    metrics.checkpoint_timestamp.set(unix_seconds(status.last_checkpoint));
    metrics.store_full.set(i64::from(status.full_disk.is_some()));
    show_copies(metrics, &status.copies);
    show_rules(metrics, &state.parts.deployments.snapshot(), &status);
    // Where the store cannot be read, what is known of it stays.
    if let Ok(stats) = state.parts.sync.read(|store| Ok(store.stats()?)).await {
        show_store(metrics, &stats);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
}

/// Of tables that are copied nothing is shown any more.
fn show_copies(metrics: &Metrics, copies: &[CopyStatus]) {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.copy_bytes_left.reset();
    metrics.copy_rows_done.reset();
    for copy in copies {
        metrics.copy_bytes_left.with_label_values(&[&copy.table]).set(whole(copy.bytes_left()));
        metrics.copy_rows_done.with_label_values(&[&copy.table]).set(whole(copy.rows_done));
    }
    metrics.copy_seconds_left.set(whole(seconds_left(copies).unwrap_or_default()));
}

fn show_store(metrics: &Metrics, stats: &StoreStats) {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.store_bytes.set(whole(stats.size_bytes));
    metrics.store_buckets.set(whole(stats.bucket_count));
    metrics.store_operations.set(whole(stats.operation_count));
    metrics.store_rows.set(whole(stats.row_count));
    metrics.store_free_bytes.set(whole(stats.free_bytes.unwrap_or_default()));
    metrics.store_damaged_buckets.set(whole(stats.damaged_bucket_count));
    metrics.store_damaged_rows.set(i64::from(stats.has_damaged_rows));
    metrics.store_scrubbed_bytes.set(whole(stats.scrubbed_bytes));
}

fn show_rules(metrics: &Metrics, deployments: &DeploymentsSnapshot, status: &StatusSnapshot) {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.deployment.set(whole(deployments.serving.as_ref().map_or(0, |serving| serving.number.0)));
    metrics.deployment_refused.set(i64::from(deployments.refusal.is_some()));
    metrics.rebuild_rows_left.set(whole(status.rebuild.as_ref().map_or(0, RebuildStatus::rows_left)));
}

/// How the service is.
pub(super) async fn status_of(state: &ApiState) -> Status {
    // A store that cannot be read is told of elsewhere.
    let damages = state.parts.sync.read(|store| Ok(store.damages()?)).await.unwrap_or_default();
    Status { version: env!("CARGO_PKG_VERSION").into(), probe: probe(state), damages }
}

fn probe(state: &ApiState) -> Probe {
    let status = state.parts.replication.snapshot();
    let has_checkpoint = state.parts.hub.published().is_some();
    let leaving = state.parts.leaving.borrow().then(|| "the service is about to stop".to_owned());
    let reason = leaving.or_else(|| unready(&status, has_checkpoint, state.parts.heartbeat, Instant::now()));
    let touched_at = iso8601(SystemTime::now());
    let replication = ReplicationView::new(&status);
    let rules = RulesView::new(&state.parts.deployments.snapshot(), &status);
    Probe { ready: reason.is_none(), started: true, touched_at, reason, replication, rules }
}

/// 0 for what has not happened.
fn unix_seconds(time: Option<SystemTime>) -> i64 {
    let since_epoch = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}
