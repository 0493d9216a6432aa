//! `POST /sync/stream`: a client's stream as newline-delimited JSON.

use std::{io, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures_util::stream::try_unfold;
use kairos_sync_protocol::request::SyncRequest;
use prometheus::IntGauge;
use tokio::sync::OwnedSemaphorePermit;

use super::{ApiError, ApiState, body::read_json, error::log, write_checkpoint::ClientQuery};
use crate::sync::{ClientRequest, Session};

/// A stream that counts as open until it is dropped.
struct OpenStream {
    session: Session,
    gauge: IntGauge,
    _place: OwnedSemaphorePermit,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

pub(super) async fn sync_stream(
    State(state): State<ApiState>,
    query: ClientQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let principal = state.principal(&headers).await?;
    let Ok(place) = Arc::clone(&state.streams).try_acquire_owned() else {
        return Ok(ApiError::too_many_streams());
    };
    let mut sync: SyncRequest = read_json(&headers, body, state.parts.limits.body_bytes_max).await?;
    sync.client_id = sync.client_id.or(query.client_id);
    let request =
        ClientRequest { user_id: principal.user_id, claims: principal.claims, expires_at: principal.expires_at, sync };
    let session = Session::open(Arc::clone(&state.parts.sync), request).await?;
    let gauge = state.parts.metrics.connections.clone();
    gauge.inc();
    let stream = OpenStream { session, gauge, _place: place };
    let chunks = try_unfold(stream, async |mut stream| match stream.session.next_chunk().await {
        Ok(chunk) => Ok(chunk.map(|chunk| (chunk, stream))),
        Err(error) => {
            // After the first byte an error can only be told by cutting the connection.
            log(error.code(), &error);
            Err(io::Error::other(error))
        }
    });
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/x-ndjson"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        // So that nginx hands on each line at once.
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
