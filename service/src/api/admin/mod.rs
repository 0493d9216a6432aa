//! For operators who show a token: what the service knows of clients, buckets and rows.
//!
//! Every request passes the gate: its token is checked before anything else, and only some run at once. The answers have
//! values of rows in them, the log has none.

mod connections;
mod deploy;
mod explain;
mod gate;
mod powersync;
mod store;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{get, post},
};

pub(super) use self::gate::Gate;
use super::ApiState;

pub(super) fn routes(state: &ApiState) -> Router<ApiState> {
    Router::new()
        .route("/api/admin/v1/connections", get(connections::connections))
        .route("/api/admin/v1/explain", post(explain::explain))
        .route("/api/admin/v1/store", get(store::store))
        .route("/api/admin/v1/diagnostics", post(powersync::diagnostics))
        .route("/api/admin/v1/schema", post(powersync::schema))
        .route("/api/admin/v1/validate", post(powersync::validate))
        .route("/api/admin/v1/execute-sql", post(powersync::execute_sql))
        .route("/api/admin/v1/reprocess", post(deploy::reprocess))
        .route("/api/admin/v1/rules/plan", post(deploy::plan))
        .route("/api/admin/v1/store/compact", post(deploy::compact))
        .route("/api/admin/v1/store/definitions", get(deploy::definitions))
        .route("/api/sync-rules/v1/deploy", post(deploy::deploy))
        .route("/api/sync-rules/v1/reprocess", post(deploy::reprocess_rules))
        .route("/api/sync-rules/v1/validate", post(powersync::validate_rules))
        .route("/api/sync-rules/v1/current", get(powersync::current_rules))
        .route_layer(from_fn_with_state(state.clone(), gate::pass))
}
