//! Endpoints that tools for the reference service know: how source and rules are, and whether other rules would do.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use kairos_sync_protocol::request::Wrapped;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    admin::{Diagnostics, RulesReport, SourceSchemas},
    api::{
        ApiError, ApiState,
        body::{read_json, read_text},
    },
    postgres::PgError,
};

type Answer<T> = Result<Json<Wrapped<T>>, ApiError>;

/// A body whose members need not be there.
#[derive(Debug, Default, Deserialize)]
pub(super) struct DiagnosticsRequest {
    /// With the text of the rules.
    #[serde(default)]
    sync_rules_content: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct ValidateRequest {
    sync_rules: String,
}

#[derive(Debug, Deserialize)]
struct RulesContent {
    content: String,
}

impl From<PgError> for ApiError {
    fn from(error: PgError) -> Self {
        crate::api::error::log(error.code(), &error);
        let description = format!("The source database cannot be asked: {error}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), description)
    }
}

pub(super) async fn diagnostics(State(state): State<ApiState>, headers: HeaderMap, body: Body) -> Answer<Diagnostics> {
    let request: DiagnosticsRequest = read_json(&headers, body, state.parts.limits.body_bytes_max).await?;
    let data = state.parts.admin.diagnostics(request.sync_rules_content).await?;
    Ok(Json(Wrapped { data }))
}

pub(super) async fn schema(State(state): State<ApiState>) -> Answer<SourceSchemas> {
    Ok(Json(Wrapped { data: state.parts.admin.schema().await? }))
}

pub(super) async fn validate(State(state): State<ApiState>, headers: HeaderMap, body: Body) -> Answer<RulesReport> {
    let request: ValidateRequest = read_json(&headers, body, state.parts.limits.body_bytes_max).await?;
    Ok(Json(Wrapped { data: state.parts.admin.check_rules(&request.sync_rules).await? }))
}

/// There is no SQL endpoint: whoever may administrate the service need not be allowed to read the database.
pub(super) async fn execute_sql() -> Json<Value> {
    let error = "SQL queries are not enabled: run them on the source database, with a role that may";
    Json(json!({"data": {"success": false, "results": {"columns": [], "rows": []}, "error": error}}))
}

/// Rules as YAML, or as JSON with them in `content`.
pub(super) async fn validate_rules(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let text = read_rules(&headers, body, state.parts.limits.body_bytes_max).await?;
    Ok(pretty(&state.parts.admin.validate(&text).await?))
}

pub(super) async fn read_rules(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<String, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.contains("json") {
        return Ok(read_json::<RulesContent>(headers, body, bytes_max).await?.content);
    }
    read_text(body, bytes_max).await
}

pub(super) async fn current_rules(State(state): State<ApiState>) -> Result<Response, ApiError> {
    Ok(pretty(&Wrapped { data: state.parts.admin.current_rules().ok_or_else(no_rules)? }))
}

pub(super) fn no_rules() -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "PSYNC_S4104", "There are no active sync rules")
}

/// For people, too.
fn pretty(answer: &impl Serialize) -> Response {
    let text = serde_json::to_string_pretty(answer).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
