//! A JSON Schema of the rules file, for editors: completion, hover texts and red lines while typing.
//!
//! It knows the structure of the file; SQL is text to it. The keys are those `config.rs` reads, from one list
//! (`keys.rs`), so a new key is known here at once; a test asks for its description.

use serde_json::{Map, Value, json};

use crate::keys;

/// The schema, draft 2020-12. It is stricter than the compiler in one place: an unknown key of a stream, which the
/// compiler only warns of, does not validate.
pub fn json_schema() -> Value {
    let about = "A rules file of Kairos Sync: who gets which rows, and who may write what.";
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), "Kairos Sync rules".into());
    schema.extend(object(about, keys::FILE, file));
    schema.extend(by_edition());
    schema.insert("$defs".to_owned(), definitions());
    schema.into()
}

fn definitions() -> Value {
    json!({
        "query": { "type": "string", "examples": ["SELECT * FROM lists WHERE owner_id = auth.user_id()"] },
        "scalar": { "type": ["string", "boolean", "number", "null"] },
        "config": object("How the rules are read, and how values are printed.", keys::CONFIG, config),
        "definition": {
            "anyOf": [{ "$ref": "#/$defs/kairos_definition" }, { "$ref": "#/$defs/classic_definition" }],
        },
        "kairos_definition": definition("Parameters by name, tables with filters.", kairos_definition),
        "classic_definition": definition("Parameter and data queries in SQL.", classic_definition),
        "parameter": required(
            &["name", "type"],
            object("A value of the token.", keys::PARAMETER, parameter),
        ),
        "filtered_table": required(
            &["table"],
            object("A table, and which of its rows.", keys::FILTERED_TABLE, filtered_table),
        ),
        "stream": stream_object(),
        "with": map_of("Queries by name; FROM can use them like tables. Needs edition 3.", &query_ref()),
        "event": required(&["payloads"], object("What changed rows trigger.", keys::EVENT, event)),
        "write_rule": required(
            &["allow", "check"],
            object("What clients may write to this table.", keys::WRITE_RULE, write_rule),
        ),
        "write_columns": write_columns_object(),
        "write_limits": object("How much devices may write to this table.", keys::WRITE_LIMITS, write_limits),
        "write_conflict": required(
            &["strategy"],
            object("Who wins, and by which columns.", keys::WRITE_CONFLICT, write_conflict),
        ),
        "validator": {
            "anyOf": [
                { "enum": keys::PLAIN_VALIDATORS },
                object("Demands on a value.", keys::VALIDATORS, validator),
            ],
        },
    })
}

/// A map with known keys only.
fn object(description: &str, known: &[&str], property: fn(&str) -> Value) -> Map<String, Value> {
    let properties: Map<_, _> = known.iter().map(|key| ((*key).to_owned(), property(key))).collect();
    let mut schema = Map::new();
    schema.insert("description".to_owned(), description.into());
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("additionalProperties".to_owned(), false.into());
    schema
}

fn required(names: &[&str], mut schema: Map<String, Value>) -> Map<String, Value> {
    schema.insert("required".to_owned(), json!(names));
    schema
}

/// A map whose keys are names that users choose.
fn map_of(description: &str, values: &Value) -> Value {
    json!({ "description": description, "type": "object", "additionalProperties": values })
}

fn query_ref() -> Value {
    json!({ "$ref": "#/$defs/query" })
}

fn flag(description: &str) -> Value {
    json!({ "description": description, "type": "boolean" })
}

/// A key that config.rs reads and nobody has described: anything goes, and a test fails.
fn undescribed() -> Value {
    json!({})
}

fn file(key: &str) -> Value {
    let entries = |description, name: &str| map_of(description, &json!({ "$ref": format!("#/$defs/{name}") }));
    match key {
        "config" => json!({ "$ref": "#/$defs/config", "description": "Edition and options." }),
        "bucket_definitions" => {
            entries("Who gets which rows, by name of the definition. Editions 1 and 2.", "definition")
        }
        "streams" => entries("Who gets which rows, by name of the stream. Edition 3.", "stream"),
        "with" => json!({ "$ref": "#/$defs/with", "description": "Queries by name for all streams. Edition 3." }),
        "event_definitions" => entries("What changed rows trigger, by name of the event.", "event"),
        "write_rules" => {
            entries("What clients may write, by table. A table that is not listed takes no writes.", "write_rule")
        }
        _ => undescribed(),
    }
}

/// Edition 3 has streams; those before have bucket definitions.
fn by_edition() -> Map<String, Value> {
    let is_three = json!({
        "required": ["config"],
        "properties": { "config": { "required": ["edition"], "properties": { "edition": { "const": 3 } } } },
    });
    let before = json!({
        "anyOf": [{ "required": ["bucket_definitions"] }, { "required": ["streams"] }],
        "properties": { "with": false },
    });
    Map::from_iter([
        ("if".to_owned(), is_three),
        ("then".to_owned(), json!({ "required": ["streams"], "properties": { "bucket_definitions": false } })),
        ("else".to_owned(), before),
    ])
}

fn config(key: &str) -> Value {
    match key {
        "edition" => json!({
            "description": "Version of the language: 1 (the default) and 2 have bucket definitions, 3 has streams.",
            "enum": [1, 2, 3],
            "default": 1,
        }),
        "timestamps_iso8601" => flag("Print timestamps as 2026-01-31T08:15:00.000000Z. On by default from edition 2."),
        "versioned_bucket_ids" => {
            flag("Put a number in front of bucket names that changes with each deploy. On by default from edition 2.")
        }
        "fixed_json_extract" => flag("Follow SQLite in `->` and `->>`. On by default from edition 2."),
        "custom_postgres_types" => flag(
            "Print arrays of custom types, composites, ranges and domains as JSON or as their base type. On by \
                  default from edition 2.",
        ),
        "unstable_sqlite_expression_engine" => {
            json!({ "description": "Not available; may only be false.", "const": false })
        }
        "timestamp_max_precision" => json!({
            "description": "Cut fractions of seconds. Needs `timestamps_iso8601`.",
            "enum": ["seconds", "milliseconds", "microseconds", "nanoseconds"],
        }),
        "storage_version" => json!({
            "description": "Has no effect; read so that files made for PowerSync load.",
            "enum": [2, 3],
        }),
        _ => undescribed(),
    }
}

fn priority() -> Value {
    json!({ "description": "0 syncs first, 3 (the default) last.", "enum": [0, 1, 2, 3], "default": 3 })
}

fn accepts_dangerous() -> Value {
    flag("Do not warn that clients choose what they see, or that everybody sees it.")
}

fn definition(description: &str, property: fn(&str) -> Value) -> Map<String, Value> {
    required(&["data"], object(description, keys::DEFINITION, property))
}

fn kairos_definition(key: &str) -> Value {
    match key {
        "priority" => priority(),
        "accept_potentially_dangerous_queries" => accepts_dangerous(),
        "parameters" => json!({
            "description": "Values of the token that name a client's bucket.",
            "type": "array",
            "items": { "$ref": "#/$defs/parameter" },
        }),
        "data" => json!({
            "description": "Tables whose rows go into the bucket.",
            "type": "array",
            "items": { "$ref": "#/$defs/filtered_table" },
        }),
        _ => undescribed(),
    }
}

fn classic_definition(key: &str) -> Value {
    match key {
        "priority" => priority(),
        "accept_potentially_dangerous_queries" => accepts_dangerous(),
        "parameters" => json!({
            "description": "Queries that find a client's bucket parameters; without them everybody has the one bucket.",
            "anyOf": [{ "$ref": "#/$defs/query" }, { "type": "array", "items": { "$ref": "#/$defs/query" } }],
            "examples": ["SELECT request.user_id() AS user_id"],
        }),
        "data" => json!({
            "description": "Queries that select rows into the buckets; `bucket.name` is a parameter.",
            "type": "array",
            "items": { "$ref": "#/$defs/query" },
            "examples": [["SELECT * FROM lists WHERE owner_id = bucket.user_id"]],
        }),
        _ => undescribed(),
    }
}

fn parameter(key: &str) -> Value {
    match key {
        "name" => json!({
            "description": "`user_id` is the token's `sub`; another name is one of its `parameters`, else a claim.",
            "type": "string",
            "examples": ["user_id"],
        }),
        "type" => json!({
            "description": "Claim and column are brought to this type before they meet.",
            "enum": ["string", "text", "integer", "number", "real", "boolean"],
        }),
        _ => undescribed(),
    }
}

fn filtered_table(key: &str) -> Value {
    match key {
        "table" => json!({
            "description": "`table` or `schema.table`, written as in the database.",
            "type": "string",
            "examples": ["habits"],
        }),
        "filter" => json!({
            "description": "Which rows: conditions joined by AND; `:name` is a parameter.",
            "type": "string",
            "examples": ["user_id = :user_id", "habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)"],
        }),
        "columns" => json!({
            "description": "The columns clients get, `id` among them; all without this key.",
            "type": "array",
            "items": { "type": "string" },
            "contains": { "const": "id" },
        }),
        _ => undescribed(),
    }
}

fn stream_object() -> Map<String, Value> {
    let mut schema = object("Rows that clients subscribe to.", keys::STREAM, stream);
    schema.insert("oneOf".to_owned(), json!([{ "required": ["query"] }, { "required": ["queries"] }]));
    schema
}

fn stream(key: &str) -> Value {
    match key {
        "query" => json!({ "$ref": "#/$defs/query", "description": "The rows of the stream." }),
        "queries" => json!({
            "description": "Several queries; their rows come together. Edition 3.",
            "type": "array",
            "items": { "$ref": "#/$defs/query" },
        }),
        "with" => json!({ "$ref": "#/$defs/with", "description": "Queries by name for this stream. Edition 3." }),
        "auto_subscribe" => flag("Every client is subscribed without asking."),
        "priority" => priority(),
        "accept_potentially_dangerous_queries" => accepts_dangerous(),
        "write_time_joins" => flag(
            "Rows of joined tables go into the bucket of the request's values, instead of one bucket per joined \
                  row. Edition 3.",
        ),
        _ => undescribed(),
    }
}

fn event(key: &str) -> Value {
    match key {
        "payloads" => json!({
            "description": "Queries over one table each: what is told of a changed row.",
            "type": "array",
            "items": { "$ref": "#/$defs/query" },
        }),
        _ => undescribed(),
    }
}

fn write_rule(key: &str) -> Value {
    match key {
        "allow" => json!({
            "description": "The kinds of writes that are possible at all.",
            "type": "array",
            "items": { "enum": ["put", "patch", "delete"] },
        }),
        "columns" => json!({ "$ref": "#/$defs/write_columns", "description": "What devices may set." }),
        "check" => json!({
            "$ref": "#/$defs/scalar",
            "description": "Must hold for the row as it is and as it becomes. `true` leaves it to row-level security.",
            "examples": ["row.user_id = auth.user_id()", true],
        }),
        "conflict" => json!({
            "description": "Who wins where others changed the row since the device saw it. `client_wins` by default.",
            "anyOf": [{ "enum": keys::STRATEGIES }, { "$ref": "#/$defs/write_conflict" }],
        }),
        "limits" => json!({ "$ref": "#/$defs/write_limits", "description": "How much devices may write." }),
        "soft_delete" => json!({
            "description": "The column that a delete sets instead: a boolean, or a time. NULL or false: not deleted.",
            "type": "string",
            "examples": ["deleted_at"],
        }),
        "validators" => map_of(
            "What values from devices must be like, by column.",
            &json!({ "anyOf": [
                { "$ref": "#/$defs/validator" },
                { "type": "array", "items": { "$ref": "#/$defs/validator" } },
            ] }),
        ),
        _ => undescribed(),
    }
}

fn write_limits(key: &str) -> Value {
    let number = |description: &str| json!({ "description": description, "type": "integer", "minimum": 1 });
    match key {
        "row_bytes" => number("Bytes of a row, all its values as text."),
        "operations_per_batch" => number("Writes to the table in one upload; those after are refused."),
        "operations_per_minute" => number("Writes of a user to the table; an upload that is too early has to wait."),
        _ => undescribed(),
    }
}

fn write_conflict(key: &str) -> Value {
    match key {
        "strategy" => json!({ "description": "Who wins.", "enum": keys::STRATEGIES }),
        "column" => json!({
            "description": "Of `lww`, the time of the write on the device; of `version`, what the server counts up.",
            "type": "string",
        }),
        "columns" => json!({
            "description": "Arrays of `set_union`, numbers of `counter`.",
            "type": "array",
            "items": { "type": "string" },
        }),
        _ => undescribed(),
    }
}

fn validator(key: &str) -> Value {
    match key {
        "min_length" => json!({ "description": "Characters at least.", "type": "integer", "minimum": 0 }),
        "max_length" => json!({ "description": "Characters at most.", "type": "integer", "minimum": 0 }),
        "min" => json!({ "description": "The smallest number.", "type": "number" }),
        "max" => json!({ "description": "The largest number.", "type": "number" }),
        "pattern" => json!({ "description": "A regular expression that is found in the text.", "type": "string" }),
        "json_schema" => json!({
            "description": "A JSON Schema, draft 2020-12, that documents satisfy. It stands alone.",
            "type": ["object", "boolean"],
        }),
        "one_of" => json!({
            "description": "The values there are.",
            "type": "array",
            "items": { "type": ["string", "boolean", "number"] },
        }),
        _ => undescribed(),
    }
}

fn write_columns_object() -> Map<String, Value> {
    let mut schema = object("Columns of a write rule.", keys::WRITE_COLUMNS, write_columns);
    schema.insert("not".to_owned(), json!({ "required": ["allow", "deny"] }));
    schema
}

fn write_columns(key: &str) -> Value {
    let names =
        |description: &str| json!({ "description": description, "type": "array", "items": { "type": "string" } });
    match key {
        "allow" => names("Only these may be set by devices."),
        "deny" => names("These may not be set by devices."),
        "stamp" => map_of("Columns the server sets, each to an expression.", &json!({ "$ref": "#/$defs/scalar" })),
        _ => undescribed(),
    }
}
