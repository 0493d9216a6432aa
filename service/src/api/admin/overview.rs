//! `GET /api/admin/v1/overview`: everything that the status page shows and asks for again and again. Costs little.

use axum::{Json, extract::State};
use kairos_sync_protocol::request::Wrapped;
use serde::Serialize;

use super::{
    connections::MomentView,
    store::{StoreAnswer, store_answer},
};
use crate::{
    api::{ApiError, ApiState, probes::status_of},
    sync::connections::ConnectionTotals,
};

/// How the service is, and who is connected.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    status: crate::api::Status,
    /// What the codes in `status` are about. These may name hosts and roles.
    reasons: Vec<Reason>,
    connections: Totals,
    store: StoreAnswer,
    /// Where rules come from; absent where they are deployed over HTTP.
    rules_file: Option<String>,
}

/// Why something is as it is.
#[derive(Debug, Serialize)]
struct Reason {
    /// `error`, `comparison` or `refusal`: what the code stands for in `status`.
    of: &'static str,
    code: &'static str,
    message: String,
}

/// Open streams.
#[derive(Debug, Serialize)]
struct Totals {
    count: usize,
    count_max: usize,
    user_count: usize,
    http_count: usize,
    websocket_count: usize,
    /// Streams that were not sent a whole checkpoint yet.
    waiting_count: usize,
    /// The oldest checkpoint among the newest that each stream was sent as a whole.
    oldest_completed: Option<MomentView>,
    bytes_sent: u64,
}

pub(super) async fn overview(State(state): State<ApiState>) -> Result<Json<Wrapped<Overview>>, ApiError> {
    let replication = state.parts.replication.snapshot();
    let refusal = state.parts.deployments.snapshot().refusal;
    let told = [
        ("error", replication.last_error),
        ("comparison", replication.last_comparison),
        ("refusal", refusal.map(|refusal| (refusal.code, refusal.message))),
    ];
    let reason = |(of, told): (_, Option<_>)| told.map(|(code, message)| Reason { of, code, message });
    let data = Overview {
        status: status_of(&state).await,
        reasons: told.into_iter().filter_map(reason).collect(),
        connections: Totals::new(&state),
        store: store_answer(&state).await?,
        rules_file: state.parts.rules_file.clone(),
    };
    Ok(Json(Wrapped { data }))
}

impl Totals {
    fn new(state: &ApiState) -> Self {
        let ConnectionTotals { count, user_count, http_count, waiting_count, oldest_completed, bytes_sent } =
            state.parts.sync.connections().totals();
        Self {
            count,
            count_max: state.parts.limits.connection_count_max,
            user_count,
            http_count,
            websocket_count: count - http_count,
            waiting_count,
            oldest_completed: oldest_completed.map(MomentView::new),
            bytes_sent,
        }
    }
}
