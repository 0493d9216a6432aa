//! `GET /api/admin/v1/events`: warnings and errors that the log has of late.

use axum::{Json, extract::State};
use kairos_sync_protocol::request::Wrapped;
use serde::Serialize;

use crate::{api::ApiState, iso8601::iso8601, recent_events::RecentEvent};

#[derive(Debug, Serialize)]
pub(super) struct EventView {
    level: &'static str,
    code: Option<String>,
    message: String,
    count: u64,
    first_at: String,
    last_at: String,
}

pub(super) async fn events(State(state): State<ApiState>) -> Json<Wrapped<Vec<EventView>>> {
    Json(Wrapped { data: state.parts.events.list().into_iter().map(EventView::new).collect() })
}

impl EventView {
    fn new(event: RecentEvent) -> Self {
        let RecentEvent { is_error, code, message, count, first_at, last_at } = event;
        let level = if is_error { "error" } else { "warning" };
        Self { level, code, message, count, first_at: iso8601(first_at), last_at: iso8601(last_at) }
    }
}
