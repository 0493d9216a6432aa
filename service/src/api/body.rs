//! Reading a request's body within bounds of size and time.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use futures_util::TryStreamExt;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::ApiError;

/// How long a client may take to send a body.
const DEADLINE: Duration = Duration::from_mins(1);
/// Beginnings of messages that name fields but quote no value.
const SAFE_MESSAGES: [&str; 3] = ["missing field", "duplicate field", "expected"];

/// The JSON of a body.
pub(super) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<T, ApiError> {
    if !is_json(headers) {
        let description = "The body must have the content type application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "FST_ERR_CTP_INVALID_MEDIA_TYPE", description));
    }
    let body = tokio::time::timeout(DEADLINE, read(body, bytes_max))
        .await
        .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "PSYNC_S2001", "The body did not arrive in time"))??;
    serde_json::from_slice(&body).map_err(|error| describe(&error))
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

async fn read(body: Body, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let broken = |_| ApiError::new(StatusCode::BAD_REQUEST, "PSYNC_S2001", "The body ended early");
    while let Some(chunk) = chunks.try_next().await.map_err(broken)? {
        if bytes.len() + chunk.len() > bytes_max {
            let description = format!("The body is larger than {bytes_max} bytes (limits.body_bytes_max)");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "FST_ERR_CTP_BODY_TOO_LARGE", description));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn describe(error: &serde_json::Error) -> ApiError {
    if error.classify() != Category::Data {
        let description = "The body is not valid JSON";
        return ApiError::new(StatusCode::BAD_REQUEST, "FST_ERR_CTP_INVALID_JSON_BODY", description);
    }
    let message = error.to_string();
    let is_safe = SAFE_MESSAGES.iter().any(|beginning| message.starts_with(beginning));
    ApiError::invalid(if is_safe {
        message
    } else {
        format!("a value has the wrong kind, at line {} column {}", error.line(), error.column())
    })
}
