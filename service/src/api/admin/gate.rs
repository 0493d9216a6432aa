//! Who may administrate, and how many requests of theirs run at once.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::{sync::Semaphore, time::timeout};

use crate::api::{ApiError, ApiState, ErrorCode, client_address::ClientAddress};

/// Requests that run at once, as clients of these endpoints know it from the reference service.
const RUNNING_MAX: usize = 10;
/// Requests that may wait beside them.
const QUEUED_MAX: usize = 20;
/// For one request with its wait. A question about a large store takes seconds.
const DEADLINE: Duration = Duration::from_mins(1);

/// Places of requests for administration.
#[derive(Debug, Clone)]
pub(in crate::api) struct Gate {
    all: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(RUNNING_MAX + QUEUED_MAX)), running: Arc::new(Semaphore::new(RUNNING_MAX)) }
    }
}

/// Lets those through who show a token for administration, when it is their turn.
pub(super) async fn pass(
    State(state): State<ApiState>,
    ClientAddress(address): ClientAddress,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    state.may_try_tokens(address)?;
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    state.parts.api_tokens.check(header).map_err(|error| {
        tracing::info!(code = error.code(), %error, "request for administration refused");
        state.token_refused(address);
        ApiError::unauthorized(error.code())
    })?;
    // Without a body, as clients know it.
    let Ok(_place) = state.gate.all.try_acquire() else {
        return Ok((StatusCode::TOO_MANY_REQUESTS, Extension(ErrorCode("ADMIN-0101"))).into_response());
    };
    let answered = timeout(DEADLINE, async {
        let _turn = state.gate.running.acquire().await;
        next.run(request).await
    });
    answered.await.map_err(|_| {
        let description = format!("The answer took longer than {} s: ask for less", DEADLINE.as_secs());
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ADMIN-0102", description)
    })
}
