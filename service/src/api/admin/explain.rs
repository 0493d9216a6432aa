//! `POST /api/admin/v1/explain`: why a user has these buckets, and why a row is on the user's devices or not.

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use kairos_sync_protocol::request::Wrapped;

use crate::{
    api::{ApiError, ApiState, body::read_json},
    explain::{self, Answer, Question},
};

pub(super) async fn explain(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Wrapped<Answer>>, ApiError> {
    let question: Question = read_json(&headers, body, state.parts.limits.body_bytes_max).await?;
    let replication = state.parts.replication.snapshot();
    let data = explain::explain(&state.parts.sync, &replication, question).await?;
    Ok(Json(Wrapped { data }))
}
