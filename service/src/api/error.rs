//! Failures as answers: `{"error":{"code":…,"status":…,"description":…}}`.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension, Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use kairos_sync_protocol::request::{ErrorBody, ErrorDetail};

use crate::{
    auth::AuthError,
    rate_limit::{RateLimited, TableLimited},
    storage::StorageError,
    sync::SyncError,
    write::UploadError,
};

/// After which a device asks again for a bucket that is built anew.
const MENDING_WAIT: Duration = Duration::from_secs(2);

/// The code of a failed request, for counting. Found in the extensions of its response.
#[derive(Debug, Clone, Copy)]
pub struct ErrorCode(pub &'static str);

/// A failed request.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    description: String,
    details: Option<String>,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, description: impl Into<String>) -> Self {
        Self { status, code, description: description.into(), details: None, retry_after: None }
    }

    /// What is wrong with the request is in the log only.
    pub(super) fn unauthorized(code: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, "Authorization failed")
    }

    /// Without a body, as clients know it.
    pub(super) fn too_many_streams() -> Response {
        (StatusCode::TOO_MANY_REQUESTS, Extension(ErrorCode("PSYNC_S2304"))).into_response()
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "PSYNC_S2002", "There is nothing at this path")
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "PSYNC_S2002", "This path does not take this method")
    }

    /// Stable across releases; listed in `docs/errors.md`.
    pub(super) const fn code(&self) -> &'static str {
        self.code
    }

    /// What happened, for people.
    pub(super) fn description(&self) -> &str {
        &self.description
    }

    /// The same with what a person should read besides.
    pub(super) fn with_details(self, details: String) -> Self {
        Self { details: Some(details), ..self }
    }

    pub(super) fn invalid(details: String) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "PSYNC_S2001", "Validation failed");
        error.with_details(details)
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        // An app may sign its user out upon 401, which an issuer that is down for a moment must not cause.
        if error.is_temporary() {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), "Authorization is not possible at the moment")
        } else {
            Self::unauthorized(error.code())
        }
    }
}

impl From<RateLimited> for ApiError {
    fn from(limited: RateLimited) -> Self {
        let activity = limited.activity.name().replace('_', " ");
        let description = format!("Too many {activity} of this {}: try again later", limited.party);
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "SYNC_RATE_LIMITED", description);
        Self { retry_after: Some(limited.wait), ..error.with_details(limited.setting()) }
    }
}

impl From<Infallible> for ApiError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        let status = match error {
            SyncError::Stopping
            | SyncError::Head(_)
            | SyncError::UnknownRules
            | SyncError::Storage(
                StorageError::BucketDamaged { .. } | StorageError::RowsDamaged { .. } | StorageError::Full,
            ) => StatusCode::SERVICE_UNAVAILABLE,
            SyncError::CustomWriteCheckpoints => StatusCode::BAD_REQUEST,
            SyncError::WriteCheckpointsBusy => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let told = Self::new(status, error.code(), error.to_string());
        if let SyncError::Storage(StorageError::BucketDamaged { .. } | StorageError::RowsDamaged { .. }) = error {
            // The log has the damage; each request that waits for its end would only repeat it.
            return Self { retry_after: Some(MENDING_WAIT), ..told };
        }
        log(error.code(), &error);
        told
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        if let UploadError::RateLimited(TableLimited { table, wait }) = &error {
            let setting = format!("write_rules.{table}.limits.operations_per_minute");
            let told = Self::new(StatusCode::TOO_MANY_REQUESTS, error.code(), error.to_string());
            return Self { retry_after: Some(*wait), ..told.with_details(setting) };
        }
        let status = if error.is_transient() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::PAYLOAD_TOO_LARGE };
        log(error.code(), &error);
        Self::new(status, error.code(), error.to_string())
    }
}

/// The chain of causes goes to the log, the outer message to the client.
pub(super) fn log(code: &str, error: &dyn std::error::Error) {
    let mut causes = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes = format!("{causes}: {error}");
        cause = error.source();
    }
    tracing::warn!(code, "{error}{causes}");
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, description, details, retry_after } = self;
        let name = (status == StatusCode::UNAUTHORIZED).then(|| "AuthorizationError".to_owned());
        let error = ErrorDetail { code: code.to_owned(), status: status.as_u16(), description, name, details };
        let mut response = (status, Json(ErrorBody { error })).into_response();
        response.extensions_mut().insert(ErrorCode(code));
        if let Some(wait) = retry_after {
            // In whole seconds, and not too early.
            response.headers_mut().insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_is_built_anew_is_asked_for_later() {
        let damaged = StorageError::BucketDamaged { what: "a chunk contradicts its sums".to_owned() };
        let response = ApiError::from(SyncError::Storage(damaged)).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
    }
}
