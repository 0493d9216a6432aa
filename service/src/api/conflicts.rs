//! `/api/sync/conflicts`: writes that were not taken as sent, and what their user decides.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
};
use futures_util::future::BoxFuture;
use kairos_sync_protocol::{
    conflict::{Conflict, ConflictCount, ConflictPreference, ConflictStatus, Resolve, Resolved},
    request::Wrapped,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    ApiError, ApiState,
    body::read_json,
    caller::Caller,
    endpoint::{self, Access, Answer, Endpoint},
    error::log,
};
use crate::{
    auth::Principal,
    rate_limit::Activity,
    write::{ConflictError, ConflictFilter, UploadError, Writer},
};

/// In an answer, where it is not said how many.
const LIMIT: u16 = 100;
/// In an answer at most; about all that are kept of a user.
const LIMIT_MAX: u16 = 1_000;

/// Knows the conflicts of users.
pub trait Conflicts: Send + Sync {
    /// Some of a user's, newest first.
    fn list<'a>(
        &'a self,
        user_id: &'a str,
        filter: &'a ConflictFilter,
    ) -> BoxFuture<'a, Result<Vec<Conflict>, UploadError>>;
    /// How many there are of each kind.
    fn count<'a>(&'a self, user_id: &'a str) -> BoxFuture<'a, Result<Vec<ConflictCount>, UploadError>>;
    /// A decision of the user.
    fn resolve<'a>(
        &'a self,
        principal: &'a Principal,
        id: &'a str,
        wanted: Resolve,
    ) -> BoxFuture<'a, Result<Resolved, ConflictError>>;
    /// How the user wants conflicts to end.
    fn preferences<'a>(&'a self, user_id: &'a str) -> BoxFuture<'a, Result<Vec<ConflictPreference>, UploadError>>;
    /// Remembers or forgets that.
    fn prefer<'a>(
        &'a self,
        user_id: &'a str,
        preference: &'a ConflictPreference,
    ) -> BoxFuture<'a, Result<(), ConflictError>>;
}

impl Conflicts for Writer {
    fn list<'a>(
        &'a self,
        user_id: &'a str,
        filter: &'a ConflictFilter,
    ) -> BoxFuture<'a, Result<Vec<Conflict>, UploadError>> {
        Box::pin(self.conflicts(user_id, filter))
    }

    fn count<'a>(&'a self, user_id: &'a str) -> BoxFuture<'a, Result<Vec<ConflictCount>, UploadError>> {
        Box::pin(self.conflict_counts(user_id))
    }

    fn resolve<'a>(
        &'a self,
        principal: &'a Principal,
        id: &'a str,
        wanted: Resolve,
    ) -> BoxFuture<'a, Result<Resolved, ConflictError>> {
        Box::pin(Self::resolve(self, principal, id, wanted))
    }

    fn preferences<'a>(&'a self, user_id: &'a str) -> BoxFuture<'a, Result<Vec<ConflictPreference>, UploadError>> {
        Box::pin(Self::preferences(self, user_id))
    }

    fn prefer<'a>(
        &'a self,
        user_id: &'a str,
        preference: &'a ConflictPreference,
    ) -> BoxFuture<'a, Result<(), ConflictError>> {
        Box::pin(Self::prefer(self, user_id, preference))
    }
}

/// All of them.
pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api/sync/conflicts",
            list,
            Access::User,
            "Writes of the user that were not taken as sent, newest first",
            Answer::List("Conflict"),
        )
        .query(&["status", "table", "conflict_limit"]),
        Endpoint::get(
            "/api/sync/conflicts/statistics",
            statistics,
            Access::User,
            "How many there are of each kind",
            Answer::List("ConflictCount"),
        ),
        Endpoint::post(
            "/api/sync/conflicts/{id}/resolve",
            resolve,
            Access::User,
            "Decide about a conflict, or have a refused write tried again",
            Answer::Data("Resolved"),
        )
        .takes(endpoint::Body::Json("Resolve")),
        Endpoint::get(
            "/api/sync/conflicts/preferences",
            preferences,
            Access::User,
            "How the user wants conflicts to end in tables whose rule says `manual`",
            Answer::List("ConflictPreference"),
        ),
        Endpoint::post(
            "/api/sync/conflicts/preferences",
            prefer,
            Access::User,
            "Remember or forget how conflicts of a table are to end",
            Answer::Data("ConflictPreference"),
        )
        .takes(endpoint::Body::Json("ConflictPreference")),
    ]
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    status: Option<ConflictStatus>,
    table: Option<String>,
    limit: Option<u16>,
}

pub(super) async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Wrapped<Vec<Conflict>>>, ApiError> {
    caller.begins(Activity::Upload)?;
    let wrong = || {
        let words = "open, settled or resolved";
        ApiError::invalid(format!("`status` is {words}, `table` a name, `limit` a number up to {LIMIT_MAX}"))
    };
    // What is wrong with it would quote it.
    let Query(query) = query.map_err(|_| wrong())?;
    let limit = query.limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(wrong());
    }
    let filter = ConflictFilter { status: query.status, table: query.table, limit };
    let data = state.parts.conflicts.list(&caller.principal.user_id, &filter).await?;
    Ok(Json(Wrapped { data }))
}

pub(super) async fn statistics(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Json<Wrapped<Vec<ConflictCount>>>, ApiError> {
    caller.begins(Activity::Upload)?;
    let data = state.parts.conflicts.count(&caller.principal.user_id).await?;
    Ok(Json(Wrapped { data }))
}

pub(super) async fn resolve(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Wrapped<Resolved>>, ApiError> {
    caller.begins(Activity::Upload)?;
    caller.writes(None, 1)?;
    let wanted: Resolve = read(&state, &headers, body).await?;
    let data = state.parts.conflicts.resolve(&caller.principal, &id, wanted).await?;
    Ok(Json(Wrapped { data }))
}

pub(super) async fn preferences(
    State(state): State<ApiState>,
    caller: Caller,
) -> Result<Json<Wrapped<Vec<ConflictPreference>>>, ApiError> {
    caller.begins(Activity::Upload)?;
    let data = state.parts.conflicts.preferences(&caller.principal.user_id).await?;
    Ok(Json(Wrapped { data }))
}

pub(super) async fn prefer(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Wrapped<ConflictPreference>>, ApiError> {
    caller.begins(Activity::Upload)?;
    let data: ConflictPreference = read(&state, &headers, body).await?;
    state.parts.conflicts.prefer(&caller.principal.user_id, &data).await?;
    Ok(Json(Wrapped { data }))
}

async fn read<T: DeserializeOwned>(state: &ApiState, headers: &HeaderMap, body: Body) -> Result<T, ApiError> {
    read_json(headers, body, state.parts.limits.body_bytes_max).await
}

impl From<ConflictError> for ApiError {
    fn from(error: ConflictError) -> Self {
        let status = match error {
            ConflictError::Upload(error) => return error.into(),
            ConflictError::Unknown => StatusCode::NOT_FOUND,
            ConflictError::Resolved => StatusCode::CONFLICT,
            _ => StatusCode::BAD_REQUEST,
        };
        log(error.code(), &error);
        Self::new(status, error.code(), error.to_string())
    }
}
