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

use axum::{Router, middleware::from_fn_with_state};

pub(super) use self::gate::Gate;
use super::{
    ApiState,
    endpoint::{Access, Answer, Body, Endpoint},
};

pub(super) fn routes(state: &ApiState) -> Router<ApiState> {
    super::routes(endpoints()).route_layer(from_fn_with_state(state.clone(), gate::pass))
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api/admin/v1/connections",
            connections::connections,
            Access::Operator,
            "Who is connected, and how far each is",
            Answer::Data("Connections"),
        )
        .query(&["user_id", "after", "limit"]),
        Endpoint::post(
            "/api/admin/v1/explain",
            explain::explain,
            Access::Operator,
            "Why a user has these buckets, and why a row is on the user's devices or not",
            Answer::Data("Explanation"),
        )
        .takes(Body::Json("Question")),
        Endpoint::get(
            "/api/admin/v1/store",
            store::store,
            Access::Operator,
            "What the bucket store holds",
            Answer::Data("Store"),
        ),
        Endpoint::post(
            "/api/admin/v1/diagnostics",
            powersync::diagnostics,
            Access::Operator,
            "How source, rules and replication are",
            Answer::Data("Diagnostics"),
        )
        .takes(Body::Json("DiagnosticsRequest")),
        Endpoint::post(
            "/api/admin/v1/schema",
            powersync::schema,
            Access::Operator,
            "Tables and columns of the source",
            Answer::Data("Schemas"),
        ),
        Endpoint::post(
            "/api/admin/v1/validate",
            powersync::validate,
            Access::Operator,
            "What rules would find in the source",
            Answer::Data("RulesReport"),
        )
        .takes(Body::Json("ValidateRequest")),
        Endpoint::post(
            "/api/admin/v1/execute-sql",
            powersync::execute_sql,
            Access::Operator,
            "Says that SQL is not run here",
            Answer::Data("SqlResult"),
        ),
        Endpoint::post(
            "/api/admin/v1/reprocess",
            deploy::reprocess,
            Access::Operator,
            "Build everything anew by the rules that are in force",
            Answer::Data("Reprocessed"),
        )
        .takes(Body::Json("Empty")),
        Endpoint::post(
            "/api/admin/v1/rules/plan",
            deploy::plan,
            Access::Operator,
            "What a deployment of rules would do",
            Answer::Data("Preview"),
        )
        .takes(Body::Rules),
        Endpoint::post(
            "/api/admin/v1/store/compact",
            deploy::compact,
            Access::Operator,
            "Compact the store for at most 30 seconds",
            Answer::Data("Compacted"),
        ),
        Endpoint::get(
            "/api/admin/v1/store/definitions",
            deploy::definitions,
            Access::Operator,
            "Sizes by definition",
            Answer::List("DefinitionStats"),
        ),
        Endpoint::post(
            "/api/sync-rules/v1/deploy",
            deploy::deploy,
            Access::Operator,
            "Deploy rules, where no file says them",
            Answer::Data("Deployed"),
        )
        .takes(Body::Rules),
        Endpoint::post(
            "/api/sync-rules/v1/reprocess",
            deploy::reprocess_rules,
            Access::Operator,
            "The same as /api/admin/v1/reprocess, answered in another form",
            Answer::Data("Deployed"),
        )
        .takes(Body::Json("Empty")),
        Endpoint::post(
            "/api/sync-rules/v1/validate",
            powersync::validate_rules,
            Access::Operator,
            "Whether rules can be deployed",
            Answer::Plain("Validation"),
        )
        .takes(Body::Rules),
        Endpoint::get(
            "/api/sync-rules/v1/current",
            powersync::current_rules,
            Access::Operator,
            "The rules that are in force, and those being built",
            Answer::Data("CurrentRules"),
        ),
    ]
}
