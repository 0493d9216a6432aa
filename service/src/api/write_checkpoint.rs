//! Write checkpoints: `GET /write-checkpoint2.json`, and `POST /sync/checkpoint-request` with an id of the client.

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, Query, State},
    http::{HeaderMap, request::Parts},
};
use kairos_sync_protocol::request::{CheckpointRequest, CheckpointRequestResponse, Wrapped, WriteCheckpointResponse};
use serde::Deserialize;

use super::{ApiError, ApiState, body::read_json, caller::Caller};
use crate::rate_limit::Activity;

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
    caller: Caller,
    query: ClientQuery,
) -> Result<Json<Wrapped<WriteCheckpointResponse>>, ApiError> {
    let client_id = query.client_id.as_deref();
    caller.begins(Activity::WriteCheckpoint)?;
    caller.device_begins(client_id, Activity::WriteCheckpoint)?;
    let checkpoints = &state.parts.write_checkpoints;
    let write_checkpoint = checkpoints.create(&caller.principal.user_id, client_id).await?;
    Ok(Json(Wrapped { data: WriteCheckpointResponse { write_checkpoint } }))
}

pub(super) async fn checkpoint_request(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Wrapped<CheckpointRequestResponse>>, ApiError> {
    caller.begins(Activity::WriteCheckpoint)?;
    let request: CheckpointRequest = read_json(&headers, body, state.parts.limits.body_bytes_max).await?;
    let CheckpointRequest { client_id, checkpoint_request_id } = request;
    caller.device_begins(Some(&client_id), Activity::WriteCheckpoint)?;
    let checkpoints = &state.parts.write_checkpoints;
    let checkpoint_request_id =
        checkpoints.request(&caller.principal.user_id, &client_id, checkpoint_request_id).await?;
    Ok(Json(Wrapped { data: CheckpointRequestResponse { checkpoint_request_id } }))
}
