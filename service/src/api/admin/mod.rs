//! For operators who show a token: what the service knows of clients, buckets and rows.
//!
//! Every request passes the gate: its token is checked before anything else, and only some run at once. The answers have
//! values of rows in them, the log has none.

mod connections;
mod deploy;
mod events;
mod explain;
mod gate;
mod overview;
mod powersync;
mod store;

use axum::{Router, handler::Handler, middleware::from_fn_with_state};

pub(super) use self::gate::Gate;
use super::{
    ApiState,
    endpoint::{
        Access,
        Answer::{self, Data, List, Plain},
        Body, Endpoint,
    },
};

pub(super) fn routes(state: &ApiState) -> Router<ApiState> {
    super::routes(endpoints()).route_layer(from_fn_with_state(state.clone(), gate::pass))
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    own().into_iter().chain(known_to_tools()).collect()
}

fn own() -> Vec<Endpoint> {
    vec![
        get(
            "/api/admin/v1/connections",
            connections::connections,
            "Who is connected, and how far each is",
            Data("Connections"),
        )
        .query(&["user_id", "after", "limit"]),
        post(
            "/api/admin/v1/explain",
            explain::explain,
            "Why a user has these buckets, and why a row is on a device or not",
            Data("Explanation"),
        )
        .takes(Body::Json("Question")),
        get("/api/admin/v1/overview", overview::overview, "How everything is, in short", Data("Overview")),
        get("/api/admin/v1/events", events::events, "Warnings and errors of late", List("Event")),
        get("/api/admin/v1/store", store::store, "What the bucket store holds", Data("Store")),
        get("/api/admin/v1/store/definitions", deploy::definitions, "Sizes by definition", List("DefinitionStats")),
        post(
            "/api/admin/v1/store/compact",
            deploy::compact,
            "Compact the store for at most 30 seconds",
            Data("Compacted"),
        ),
        post("/api/admin/v1/rules/plan", deploy::plan, "What a deployment of rules would do", Data("Preview"))
            .takes(Body::Rules),
    ]
}

/// As the reference service has them.
fn known_to_tools() -> Vec<Endpoint> {
    vec![
        post(
            "/api/admin/v1/diagnostics",
            powersync::diagnostics,
            "How source, rules and replication are",
            Data("Diagnostics"),
        )
        .takes(Body::Json("DiagnosticsRequest")),
        post("/api/admin/v1/schema", powersync::schema, "Tables and columns of the source", Data("Schemas")),
        post("/api/admin/v1/validate", powersync::validate, "What rules would find in the source", Data("RulesReport"))
            .takes(Body::Json("ValidateRequest")),
        post("/api/admin/v1/execute-sql", powersync::execute_sql, "Says that SQL is not run here", Data("SqlResult")),
        post(
            "/api/admin/v1/reprocess",
            deploy::reprocess,
            "Build everything anew by the rules in force",
            Data("Reprocessed"),
        )
        .takes(Body::Json("Empty")),
        post("/api/sync-rules/v1/deploy", deploy::deploy, "Deploy rules, where no file says them", Data("Deployed"))
            .takes(Body::Rules),
        post(
            "/api/sync-rules/v1/reprocess",
            deploy::reprocess_rules,
            "Build everything anew by the rules in force",
            Data("Deployed"),
        )
        .takes(Body::Json("Empty")),
        post(
            "/api/sync-rules/v1/validate",
            powersync::validate_rules,
            "Whether rules can be deployed",
            Plain("Validation"),
        )
        .takes(Body::Rules),
        get(
            "/api/sync-rules/v1/current",
            powersync::current_rules,
            "The rules in force, and those being built",
            Data("CurrentRules"),
        ),
    ]
}

fn get<T: 'static>(
    path: &'static str,
    handler: impl Handler<T, ApiState>,
    summary: &'static str,
    answer: Answer,
) -> Endpoint {
    Endpoint::get(path, handler, Access::Operator, summary, answer)
}

fn post<T: 'static>(
    path: &'static str,
    handler: impl Handler<T, ApiState>,
    summary: &'static str,
    answer: Answer,
) -> Endpoint {
    Endpoint::post(path, handler, Access::Operator, summary, answer)
}
