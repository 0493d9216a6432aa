//! `GET /write-checkpoint2.json`.

use axum::{
    Json,
    extract::{Query, State},
    http::HeaderMap,
};
use kairos_sync_protocol::request::{Wrapped, WriteCheckpointResponse};
use serde::Deserialize;

use super::{ApiError, ApiState};

/// Which database of the user asks; bodies may say it too.
#[derive(Debug, Deserialize)]
pub(super) struct ClientQuery {
    pub(super) client_id: Option<String>,
}

pub(super) async fn write_checkpoint(
    State(state): State<ApiState>,
    Query(query): Query<ClientQuery>,
    headers: HeaderMap,
) -> Result<Json<Wrapped<WriteCheckpointResponse>>, ApiError> {
    let principal = state.principal(&headers).await?;
    let checkpoints = &state.parts.write_checkpoints;
    let write_checkpoint = checkpoints.create(&principal.user_id, query.client_id.as_deref()).await?;
    Ok(Json(Wrapped { data: WriteCheckpointResponse { write_checkpoint } }))
}
