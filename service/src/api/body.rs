//! Reading a request's body within bounds of size and time.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, StatusCode, header},
};
use futures_util::TryStreamExt;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::{error::Elapsed, timeout};

use super::{
    ApiError,
    json_bounds::{Exceeded, JsonBounds},
};
use crate::unambiguous_json;

/// How long a client may take to send a body.
const PATIENCE: Patience = Patience {
    between_chunks: Duration::from_secs(30),
    // The largest one over a slow mobile network.
    in_all: Duration::from_mins(5),
};
/// Beginnings of messages that name fields but quote no value.
const SAFE_MESSAGES: [&str; 3] = ["missing field", "duplicate field", "expected"];

/// How long a body is waited for.
#[derive(Clone, Copy)]
struct Patience {
    between_chunks: Duration,
    in_all: Duration,
}

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
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let description = "The body must not be compressed";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "FST_ERR_CTP_INVALID_MEDIA_TYPE", description));
    }
    let mut bounds = JsonBounds::new();
    let body = read(body, bytes_max, PATIENCE, |chunk| bounds.feed(chunk)).await?;
    unambiguous_json::from_slice(&body).map_err(|error| describe(&error))
}

/// The text of a body.
pub(super) async fn read_text(body: Body, bytes_max: usize) -> Result<String, ApiError> {
    let body = read(body, bytes_max, PATIENCE, |_| Ok(())).await?;
    String::from_utf8(body).map_err(|_| ApiError::invalid("The body must be UTF-8".to_owned()))
}

fn late(_: Elapsed) -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "PSYNC_S2001", "The body did not arrive in time")
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The bytes of a body, each chunk of which `check` lets pass.
async fn read(
    body: Body,
    bytes_max: usize,
    patience: Patience,
    check: impl FnMut(&[u8]) -> Result<(), Exceeded>,
) -> Result<Vec<u8>, ApiError> {
    timeout(patience.in_all, read_chunks(body, bytes_max, patience.between_chunks, check)).await.map_err(late)?
}

async fn read_chunks(
    body: Body,
    bytes_max: usize,
    silence_max: Duration,
    mut check: impl FnMut(&[u8]) -> Result<(), Exceeded>,
) -> Result<Vec<u8>, ApiError> {
    let too_large =
        |description| Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "FST_ERR_CTP_BODY_TOO_LARGE", description));
    let larger = format!("The body is larger than {bytes_max} bytes (limits.body_bytes_max)");
    // What says so beforehand is not read.
    if body.size_hint().lower() > bytes_max as u64 {
        return too_large(larger);
    }
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::with_capacity(announced);
    let broken = |_| ApiError::new(StatusCode::BAD_REQUEST, "PSYNC_S2001", "The body ended early");
    while let Some(chunk) = timeout(silence_max, chunks.try_next()).await.map_err(late)?.map_err(broken)? {
        if bytes.len() + chunk.len() > bytes_max {
            return too_large(larger);
        }
        match check(&chunk) {
            Ok(()) => {}
            Err(Exceeded::Depth) => return Err(not_json(Exceeded::Depth.describe())),
            Err(exceeded) => return too_large(exceeded.describe()),
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn not_json(description: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "FST_ERR_CTP_INVALID_JSON_BODY", description)
}

fn describe(error: &serde_json::Error) -> ApiError {
    if error.classify() == Category::Data { ApiError::invalid(explain(error)) } else { not_json(explain(error)) }
}

/// What is wrong with a body, without quoting a value of it.
pub(super) fn explain(error: &serde_json::Error) -> String {
    if error.classify() != Category::Data {
        return "The body is not valid JSON".to_owned();
    }
    let message = error.to_string();
    if SAFE_MESSAGES.iter().any(|beginning| message.starts_with(beginning)) {
        message
    } else {
        format!("a value has the wrong kind, at line {} column {}", error.line(), error.column())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::{body::Bytes, response::IntoResponse};
    use futures_util::stream;

    use super::*;

    async fn status(body: Body, patience: Patience) -> StatusCode {
        read(body, 1 << 20, patience, |_| Ok(())).await.unwrap_err().into_response().status()
    }

    #[tokio::test]
    async fn a_body_that_stops_and_one_that_never_ends_are_given_up() {
        let (short, long) = (Duration::from_millis(50), Duration::from_mins(10));
        let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(status(silent, Patience { between_chunks: short, in_all: long }).await, StatusCode::REQUEST_TIMEOUT);
        let endless = Body::from_stream(stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
        }));
        assert_eq!(
            status(endless, Patience { between_chunks: long, in_all: short }).await,
            StatusCode::REQUEST_TIMEOUT
        );
    }
}
