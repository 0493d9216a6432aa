//! `POST /api/sync/data`: local writes of a client.

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use futures_util::future::BoxFuture;
use kairos_sync_protocol::{
    request::Wrapped,
    upload::{OpResult, Outcome, UploadBatch, UploadResponse},
};
use tracing::{Instrument, field};

use super::{ApiError, ApiState, body::read_json, caller::Caller, write_checkpoint::ClientQuery};
use crate::{
    auth::Principal,
    fault_point::fault_point,
    rate_limit::Activity,
    traces::{failed, number, trace_span},
    write::{UploadError, Writer},
};

/// Takes local writes of clients.
pub trait Upload: Send + Sync {
    /// Writes a batch, and says what became of each write.
    fn upload<'a>(
        &'a self,
        principal: &'a Principal,
        batch: UploadBatch,
    ) -> BoxFuture<'a, Result<UploadResponse, UploadError>>;
}

impl Upload for Writer {
    fn upload<'a>(
        &'a self,
        principal: &'a Principal,
        batch: UploadBatch,
    ) -> BoxFuture<'a, Result<UploadResponse, UploadError>> {
        Box::pin(Self::upload(self, principal, batch))
    }
}

pub(super) async fn upload(
    State(state): State<ApiState>,
    caller: Caller,
    query: ClientQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Wrapped<UploadResponse>>, ApiError> {
    caller.begins(Activity::Upload)?;
    let mut batch: UploadBatch = read_json(&headers, body, state.parts.limits.body_bytes_max).await?;
    batch.client_id = batch.client_id.or(query.client_id);
    let client_id = batch.client_id.as_deref();
    caller.device_begins(client_id, Activity::Upload)?;
    caller.writes(client_id, batch.batch.len())?;
    let _timer = state.parts.metrics.latencies.upload.start_timer();
    let span = trace_span!(
        "upload",
        operations = number(batch.batch.len()),
        operations.refused = field::Empty,
        otel.status_code = field::Empty,
        error.type = field::Empty,
    );
    let taken = state.parts.uploads.upload(&caller.principal, batch).instrument(span.clone()).await;
    fault_point("upload.before-answer");
    let data = taken.inspect_err(|error| failed(&span, error.code()))?;
    let not_written = |result: &&OpResult| matches!(result.outcome, Outcome::Conflict | Outcome::Refused);
    span.record("operations.refused", number(data.results.iter().filter(not_written).count()));
    Ok(Json(Wrapped { data }))
}
