//! `GET /api/admin/v1/connections`: who is connected, and how far each is.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use kairos_sync_protocol::{OpId, request::Wrapped};
use serde::Serialize;

use crate::{
    api::{ApiError, ApiState},
    iso8601::iso8601,
    sync::{
        Hub,
        connections::{Connection, Moment},
    },
};

/// Connections in one answer where nothing else is asked for, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// Which connections.
#[derive(Debug, serde::Deserialize)]
pub(super) struct ConnectionsQuery {
    /// Of this user.
    user_id: Option<String>,
    /// After the one with this number.
    #[serde(default)]
    after: u64,
    /// At most so many.
    limit: Option<usize>,
}

/// A page of connections.
#[derive(Debug, Serialize)]
pub(super) struct ConnectionsAnswer {
    /// How many there are in all.
    count: usize,
    connections: Vec<ConnectionView>,
    /// Where the next page begins, if this one is full.
    next_after: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ConnectionView {
    id: u64,
    user_id: String,
    client_id: Option<String>,
    carrier: &'static str,
    user_agent: Option<String>,
    since: String,
    bucket_count: usize,
    announced: Option<MomentView>,
    completed: Option<MomentView>,
    bytes_sent: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct MomentView {
    op_id: OpId,
    at: String,
}

impl MomentView {
    pub(super) fn new(moment: Moment) -> Self {
        Self { op_id: moment.op_id, at: iso8601(moment.at) }
    }
}

pub(super) async fn connections(
    State(state): State<ApiState>,
    query: Result<Query<ConnectionsQuery>, QueryRejection>,
) -> Result<Json<Wrapped<ConnectionsAnswer>>, ApiError> {
    let invalid =
        |_| ApiError::invalid("the query takes `user_id`, `after` and `limit`, the last two as numbers".to_owned());
    let Query(ConnectionsQuery { user_id, after, limit }) = query.map_err(invalid)?;
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let (page, count) = state.parts.sync.connections().list(user_id.as_deref(), after, limit);
    let next_after = page.last().filter(|_| page.len() == limit).map(|last| last.id);
    let connections = page.iter().map(|connection| ConnectionView::new(connection, &state.parts.hub)).collect();
    Ok(Json(Wrapped { data: ConnectionsAnswer { count, connections, next_after } }))
}

impl ConnectionView {
    fn new(connection: &Connection, hub: &Hub) -> Self {
        let told = connection.told();
        Self {
            id: connection.id,
            user_id: connection.user_id.clone(),
            client_id: connection.client_id.clone(),
            carrier: connection.carrier.name(),
            user_agent: connection.user_agent.clone(),
            since: iso8601(connection.since),
            bucket_count: hub.bucket_count(connection.id),
            announced: told.announced.map(MomentView::new),
            completed: told.completed.map(MomentView::new),
            bytes_sent: connection.bytes_sent(),
        }
    }
}
