//! `GET /api/admin/v1/store`: what the bucket store holds.

use axum::{Json, extract::State};
use kairos_sync_protocol::{OpId, request::Wrapped};
use serde::Serialize;

use crate::api::{ApiError, ApiState};

/// Sizes, which may be some seconds old, and what clients see.
#[derive(Debug, Serialize)]
pub(super) struct StoreAnswer {
    bucket_count: u64,
    operation_count: u64,
    row_count: u64,
    size_bytes: u64,
    /// Bucket names begin with it, until the store is built anew.
    bucket_prefix: String,
    /// The newest state clients may see.
    checkpoint: Option<CheckpointView>,
}

#[derive(Debug, Serialize)]
struct CheckpointView {
    op_id: OpId,
    lsn: String,
}

pub(super) async fn store(State(state): State<ApiState>) -> Result<Json<Wrapped<StoreAnswer>>, ApiError> {
    Ok(Json(Wrapped { data: store_answer(&state).await? }))
}

pub(super) async fn store_answer(state: &ApiState) -> Result<StoreAnswer, ApiError> {
    let (sizes, bucket_prefix) = state.parts.sync.read(|store| Ok((store.stats()?, store.bucket_prefix()?))).await?;
    let checkpoint = state.parts.hub.published();
    Ok(StoreAnswer {
        bucket_count: sizes.bucket_count,
        operation_count: sizes.operation_count,
        row_count: sizes.row_count,
        size_bytes: sizes.size_bytes,
        bucket_prefix,
        checkpoint: checkpoint
            .map(|checkpoint| CheckpointView { op_id: checkpoint.op_id, lsn: checkpoint.lsn.to_string() }),
    })
}
