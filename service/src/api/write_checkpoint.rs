//! Write checkpoints: `GET /write-checkpoint2.json`, and `POST /sync/checkpoint-request` with an id of the client.

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, Query, State},
    http::{HeaderMap, request::Parts},
};
use kairos_sync_protocol::request::{CheckpointRequest, CheckpointRequestResponse, Wrapped, WriteCheckpointResponse};
use serde::Deserialize;

use super::{ApiError, ApiState, body::read_json};

/// Which database of the user asks; bodies may say it too.
#[derive(Debug, Deserialize)]
pub(super) struct ClientQuery {
    pub(super) client_id: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for ClientQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        // What is wrong with it would quote it.
        query
            .map(|Query(query)| query)
            .map_err(|_| ApiError::invalid("`client_id` must stand once in the query".to_owned()))
    }
}

pub(super) async fn write_checkpoint(
    State(state): State<ApiState>,
    query: ClientQuery,
    headers: HeaderMap,
) -> Result<Json<Wrapped<WriteCheckpointResponse>>, ApiError> {
    let principal = state.principal(&headers).await?;
    let checkpoints = &state.parts.write_checkpoints;
    let write_checkpoint = checkpoints.create(&principal.user_id, query.client_id.as_deref()).await?;
    Ok(Json(Wrapped { data: WriteCheckpointResponse { write_checkpoint } }))
}

pub(super) async fn checkpoint_request(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Wrapped<CheckpointRequestResponse>>, ApiError> {
    let principal = state.principal(&headers).await?;
    let request: CheckpointRequest = read_json(&headers, body, state.parts.limits.body_bytes_max).await?;
    let CheckpointRequest { client_id, checkpoint_request_id } = request;
    let checkpoints = &state.parts.write_checkpoints;
    let checkpoint_request_id = checkpoints.request(&principal.user_id, &client_id, checkpoint_request_id).await?;
    Ok(Json(Wrapped { data: CheckpointRequestResponse { checkpoint_request_id } }))
}
