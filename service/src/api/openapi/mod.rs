//! What the API is, as an OpenAPI document: the endpoints that the router is made of, and the schemas in
//! `components.json`.

use axum::Json;
use serde_json::{Map, Value, json};

use super::endpoint::{Access, Answer, Body, Endpoint};

/// Version of OpenAPI, whose schemas are JSON Schema 2020-12.
const VERSION: &str = "3.1.0";
const COMPONENTS: &str = include_str!("components.json");

/// `GET /api/openapi.json`.
pub(super) async fn openapi() -> Json<Value> {
    Json(document())
}

/// The document.
///
/// # Panics
/// Never: the schemas are a constant.
pub fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in super::endpoints().iter().chain(&super::admin::endpoints()) {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.name()] = operation(endpoint);
    }
    let mut components: Value = serde_json::from_str(COMPONENTS).expect("a constant in JSON");
    components["parameters"]["build"]["example"] = super::pages::MIRROR_BUILD.into();
    json!({
        "openapi": VERSION,
        "info": {
            "title": "Kairos Sync",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Sync from Postgres to SQLite on devices, and back. docs/http-api.md says more.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": components,
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut operation = json!({
        "summary": endpoint.summary,
        "operationId": operation_id(endpoint),
        "security": security(endpoint.access),
        "responses": responses(endpoint),
    });
    let in_path = endpoint.path.split(['{', '}']).skip(1).step_by(2);
    let parameter = |name: &str| json!({ "$ref": format!("#/components/parameters/{name}") });
    let parameters: Vec<Value> = in_path.chain(endpoint.query.iter().copied()).map(parameter).collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = endpoint.body {
        operation["requestBody"] = json!({ "required": true, "content": content(body) });
    }
    operation
}

/// `post_sync_stream`.
fn operation_id(endpoint: &Endpoint) -> String {
    let words = endpoint.path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let end = if endpoint.path.ends_with('/') { vec!["slash"] } else { Vec::new() };
    [endpoint.method.name()].into_iter().chain(words).chain(end).collect::<Vec<_>>().join("_")
}

fn security(access: Access) -> Value {
    match access {
        Access::Anybody => json!([]),
        Access::User => json!([{ "user": [] }]),
        Access::Operator => json!([{ "operator": [] }]),
    }
}

fn content(body: Body) -> Value {
    match body {
        Body::Json(schema) => json!({ "application/json": { "schema": reference(schema) } }),
        Body::Rules => json!({
            "application/yaml": { "schema": { "type": "string" } },
            "application/json": { "schema": reference("Rules") },
        }),
    }
}

fn responses(endpoint: &Endpoint) -> Value {
    let (status, description, content) = match endpoint.answer {
        Answer::Data(schema) => ("200", "Done.", json_content(&wrapped(&reference(schema)))),
        Answer::List(schema) => {
            ("200", "Done.", json_content(&wrapped(&json!({ "type": "array", "items": reference(schema) }))))
        }
        Answer::Verdict(schema) => {
            let response =
                |description| json!({ "description": description, "content": json_content(&reference(schema)) });
            return json!({ "200": response("Yes."), "400": response("No."), "default": error() });
        }
        Answer::Plain(schema) => ("200", "Done.", json_content(&reference(schema))),
        Answer::Text => ("200", "Done.", json!({ "text/plain": { "schema": { "type": "string" } } })),
        Answer::Page => ("200", "Done.", json!({ "text/html": { "schema": { "type": "string" } } })),
        Answer::File => ("200", "Done.", json!({ "*/*": { "schema": { "type": "string", "format": "binary" } } })),
        Answer::Elsewhere => return json!({ "308": { "description": "`Location` says where it is." } }),
        Answer::Lines(schema) => (
            "200",
            "A line after the other, as long as the client stays. `Accept` chooses the form, `Accept-Encoding` the compression.",
            json!({
                "application/x-ndjson": { "schema": reference(schema) },
                "application/vnd.powersync.bson-stream": { "schema": { "type": "string", "format": "binary" } },
            }),
        ),
        Answer::WebSocket => {
            return json!({ "101": { "description": "RSocket 1.0 over a WebSocket." }, "default": error() });
        }
    };
    json!({ status: { "description": description, "content": content }, "default": error() })
}

fn error() -> Value {
    json!({ "$ref": "#/components/responses/Error" })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn wrapped(schema: &Value) -> Value {
    json!({ "type": "object", "required": ["data"], "properties": { "data": schema } })
}

fn json_content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}
