//! Rules that are deployed, and what is done to the store by request.

use std::time::{Duration, Instant};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use kairos_sync_protocol::request::Wrapped;
use serde::Serialize;
use serde_json::{Map, Value};

use super::powersync::{no_rules, read_rules};
use crate::{
    api::{ApiError, ApiState, body::read_json},
    deployment::{Preview, Rules, UnusableRules},
    storage::DefinitionStats,
};

type Answer<T> = Result<Json<Wrapped<T>>, ApiError>;

/// How long a request compacts. What is left then is done in the background, or by the next request.
const COMPACTION_TIME: Duration = Duration::from_secs(30);

/// Names what carries the data on, as clients of the reference service expect it.
#[derive(Debug, Serialize)]
pub(super) struct Deployed {
    /// The replication slot, which is the same for all rules.
    slot_name: String,
}

/// The same for each connection to a source.
#[derive(Debug, Serialize)]
pub(super) struct Reprocessed {
    connections: [ConnectionSlot; 1],
}

#[derive(Debug, Serialize)]
struct ConnectionSlot {
    id: &'static str,
    tag: &'static str,
    slot_name: String,
}

impl From<UnusableRules> for ApiError {
    fn from(error: UnusableRules) -> Self {
        let description = "The rules cannot be deployed";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "PSYNC_R0001", description).with_details(error.findings)
    }
}

fn compile(text: &str) -> Result<Rules, ApiError> {
    Ok(Rules::compile("rules", text)?)
}

fn slot_name(state: &ApiState) -> String {
    state.parts.replication.snapshot().slot.unwrap_or_default()
}

/// Deploys rules, where no file says them.
pub(super) async fn deploy(State(state): State<ApiState>, headers: HeaderMap, body: Body) -> Answer<Deployed> {
    let text = read_rules(&headers, body, state.parts.limits.body_bytes_max).await?;
    if let Some(file) = &state.parts.rules_file {
        let description = format!("The rules are those of {file}: change them there, or set `sync_config.by_api`");
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "PSYNC_S4105", description));
    }
    state.parts.deployments.want(compile(&text)?);
    tracing::info!("rules: others were deployed over HTTP");
    Ok(Json(Wrapped { data: Deployed { slot_name: slot_name(&state) } }))
}

/// What a deployment would do.
pub(super) async fn plan(State(state): State<ApiState>, headers: HeaderMap, body: Body) -> Answer<Preview> {
    let text = read_rules(&headers, body, state.parts.limits.body_bytes_max).await?;
    let serving = state.parts.deployments.snapshot().serving.ok_or_else(no_rules)?;
    Ok(Json(Wrapped { data: Preview::of(&serving, &compile(&text)?) }))
}

async fn renew(state: &ApiState, headers: &HeaderMap, body: Body) -> Result<String, ApiError> {
    let request: Map<String, Value> = read_json(headers, body, state.parts.limits.body_bytes_max).await?;
    if !request.is_empty() {
        return Err(ApiError::invalid("The body must be an empty object".to_owned()));
    }
    state.parts.deployments.snapshot().serving.ok_or_else(no_rules)?;
    if !state.parts.deployments.renew() {
        let description = "Rules are being built: try again when they are in force";
        return Err(ApiError::new(StatusCode::CONFLICT, "PSYNC_S4106", description));
    }
    Ok(slot_name(state))
}

/// Builds everything anew by the rules that are in force.
pub(super) async fn reprocess(State(state): State<ApiState>, headers: HeaderMap, body: Body) -> Answer<Reprocessed> {
    let slot_name = renew(&state, &headers, body).await?;
    let connections = [ConnectionSlot { id: "default", tag: "default", slot_name }];
    Ok(Json(Wrapped { data: Reprocessed { connections } }))
}

/// The same, answered in another form.
pub(super) async fn reprocess_rules(State(state): State<ApiState>, headers: HeaderMap, body: Body) -> Answer<Deployed> {
    Ok(Json(Wrapped { data: Deployed { slot_name: renew(&state, &headers, body).await? } }))
}

/// How far a request came.
#[derive(Debug, Serialize)]
pub(super) struct Compacted {
    /// Whether there is nothing left to compact.
    done: bool,
}

/// Compacts for a while, beside the background.
pub(super) async fn compact(State(state): State<ApiState>) -> Answer<Compacted> {
    let end = Instant::now() + COMPACTION_TIME;
    loop {
        // Each step is bounded, so that clients get their turn.
        let has_more = state.parts.sync.read(|store| Ok(store.compact()?)).await?;
        if !has_more || Instant::now() >= end {
            return Ok(Json(Wrapped { data: Compacted { done: !has_more } }));
        }
    }
}

/// Sizes by definition.
pub(super) async fn definitions(State(state): State<ApiState>) -> Answer<Vec<DefinitionStats>> {
    Ok(Json(Wrapped { data: state.parts.sync.read(|store| Ok(store.definition_stats()?)).await? }))
}
