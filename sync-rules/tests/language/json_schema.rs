//! The JSON Schema agrees with the compiler.

use kairos_sync_rules::{compile, json_schema};
use serde_json::{Value, json};

use crate::schema_checker::is_valid;

const KAIROS: &str = include_str!("../../../deploy/rules/kairos.yaml");
const POWERSYNC_STYLE: &str = include_str!("../../../deploy/rules/powersync-style.yaml");
const STREAMS_FILE: &str = include_str!("../../../deploy/rules/streams.yaml");

/// Every key of a stream file.
const STREAMS: &str = "
config:
  edition: 3
  timestamps_iso8601: true
  versioned_bucket_ids: false
  fixed_json_extract: true
  custom_postgres_types: true
  unstable_sqlite_expression_engine: false
  timestamp_max_precision: milliseconds
  storage_version: 2
with:
  my_lists: SELECT id FROM lists WHERE owner = auth.user_id()
streams:
  items:
    auto_subscribe: true
    priority: 1
    accept_potentially_dangerous_queries: true
    write_time_joins: true
    with: { shared: SELECT id FROM lists WHERE shared }
    queries:
      - SELECT * FROM items WHERE list IN my_lists
      - SELECT * FROM items WHERE list IN shared
  lists: { query: SELECT * FROM lists WHERE owner = auth.user_id() }
event_definitions:
  changed: { payloads: [SELECT id FROM items] }
write_rules:
  items: { allow: [put], columns: { deny: [a], stamp: { by: auth.user_id(), n: 1 } }, check: true }
  lists: { allow: [delete], columns: { allow: [a] }, check: row.owner = auth.user_id(), soft_delete: deleted_at,
           limits: { row_bytes: 65536, operations_per_batch: 100, operations_per_minute: 60 },
           validators: { doc: { json_schema: { type: object, properties: { a: { minimum: 1 } } } } } }
";

fn value(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn compiles(yaml: &str) -> bool {
    compile(yaml, "public").plan.is_some()
}

#[test]
fn what_can_be_deployed_is_valid() {
    let schema = json_schema();
    for yaml in [KAIROS, POWERSYNC_STYLE, STREAMS, STREAMS_FILE, "bucket_definitions: {}\nwrite_rules: {}\n"] {
        assert!(compiles(yaml), "{:?}", compile(yaml, "public").diagnostics);
        assert!(is_valid(&schema, &value(yaml)), "{yaml}");
    }
}

#[test]
fn what_breaks_the_structure_is_neither_valid_nor_deployed() {
    let definition = |body: &str| format!("bucket_definitions: {{ mine: {body} }}");
    let stream = |body: &str| format!("config: {{ edition: 3 }}\nstreams: {{ mine: {body} }}");
    let rule = |body: &str| format!("bucket_definitions: {{}}\nwrite_rules: {{ items: {body} }}");
    let options = |body: &str| format!("config: {body}\nbucket_definitions: {{}}");
    let broken = [
        "{}".to_owned(),
        "[]".to_owned(),
        "bucket_definition: {}".to_owned(),
        "bucket_definitions: []".to_owned(),
        "config: { edition: 3 }\nbucket_definitions: {}".to_owned(),
        "config: { edition: 3 }\nstreams: {}\nbucket_definitions: {}".to_owned(),
        "bucket_definitions: {}\nwith: { a: SELECT id FROM items }".to_owned(),
        "bucket_definitions: {}\nevent_definitions: { changed: {} }".to_owned(),
        options("{ edition: 4 }"),
        options("{ edition: '2' }"),
        options("{ fixed_json_extract: 'yes' }"),
        options("{ unstable_sqlite_expression_engine: true }"),
        options("{ edition: 2, timestamp_max_precision: hours }"),
        options("{ storage_version: 1 }"),
        options("{ editon: 2 }"),
        definition("{}"),
        definition("{ data: SELECT * FROM items }"),
        definition("{ data: [1] }"),
        definition("{ data: [SELECT * FROM items], priority: 4 }"),
        definition("{ data: [SELECT * FROM items], priority: high }"),
        definition("{ data: [SELECT * FROM items], parameters: 1 }"),
        definition("{ date: [SELECT * FROM items] }"),
        definition("{ parameters: [{ name: user_id }], data: [{ table: items, filter: 'a = :user_id' }] }"),
        definition("{ parameters: [{ name: a, type: uuid }], data: [{ table: items, filter: 'a = :a' }] }"),
        definition("{ data: [{ filter: 'a = 1' }] }"),
        definition("{ data: [{ table: items, columns: [name] }] }"),
        definition("{ data: [{ table: items }, SELECT * FROM items] }"),
        stream("{}"),
        stream("{ query: SELECT * FROM items, queries: [SELECT * FROM items] }"),
        stream("{ query: SELECT * FROM items, auto_subscribe: 'true' }"),
        stream("SELECT * FROM items"),
        rule("{ allow: [put] }"),
        rule("{ check: true }"),
        rule("{ allow: [insert], check: true }"),
        rule("{ allow: put, check: true }"),
        rule("{ allow: [put], check: [true] }"),
        rule("{ allow: [put], check: true, conflict: last }"),
        rule("{ allow: [delete], check: true, soft_delete: true }"),
        rule("{ allow: [put], check: true, limits: { row_bytes: 64kB } }"),
        rule("{ allow: [put], check: true, limits: { rows: 1 } }"),
        rule("{ allow: [put], check: true, validators: { a: { json_schema: [] } } }"),
        rule("{ allow: [put], check: true, columns: { allow: [a], deny: [b] } }"),
    ];
    let schema = json_schema();
    for yaml in &broken {
        assert!(!is_valid(&schema, &value(yaml)), "the schema takes\n{yaml}");
        assert!(!compiles(yaml), "the compiler takes\n{yaml}");
    }
}

#[test]
fn the_compiler_takes_every_value_that_the_schema_lists() {
    let schema = json_schema();
    let lists = [
        ("/$defs/config/properties/edition/enum", "config: { edition: @ }\nstreams: {}\n"),
        (
            "/$defs/config/properties/timestamp_max_precision/enum",
            "config: { edition: 2, timestamp_max_precision: @ }\nbucket_definitions: {}\n",
        ),
        ("/$defs/config/properties/storage_version/enum", "config: { storage_version: @ }\nbucket_definitions: {}\n"),
        (
            "/$defs/parameter/properties/type/enum",
            "bucket_definitions: { a: { parameters: [{ name: b, type: @ }], data: [{ table: c, filter: 'd = :b' }] } }",
        ),
        (
            "/$defs/classic_definition/properties/priority/enum",
            "bucket_definitions: { a: { priority: @, data: [SELECT id FROM c] } }",
        ),
        (
            "/$defs/write_rule/properties/allow/items/enum",
            "bucket_definitions: {}\nwrite_rules: { a: { allow: [@], check: true } }",
        ),
    ];
    for (pointer, template) in lists {
        let values = schema.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("no {pointer}"));
        assert!(values.len() > 1, "{pointer}");
        for value in values {
            let yaml = template.replace('@', &value.to_string());
            assert!(compiles(&yaml), "{yaml}\n{:?}", compile(&yaml, "public").diagnostics);
        }
    }
}

#[test]
fn every_key_is_described() {
    fn visit(schema: &Value, path: &str, undescribed: &mut Vec<String>) {
        let Value::Object(entries) = schema else { return };
        // Conditions forbid keys with `false`; what describes a key is an object.
        let properties = entries.get("properties").and_then(Value::as_object).into_iter().flatten();
        if entries.contains_key("additionalProperties") {
            for (key, property) in properties {
                if !property["description"].as_str().is_some_and(|text| text.ends_with('.')) {
                    undescribed.push(format!("{path}/{key}"));
                }
            }
        }
        entries.iter().for_each(|(key, value)| visit(value, &format!("{path}/{key}"), undescribed));
    }
    let mut undescribed = Vec::new();
    visit(&json_schema(), "", &mut undescribed);
    assert!(undescribed.is_empty(), "{undescribed:?}");
    visit(&json!({ "properties": { "new": {} }, "additionalProperties": false }), "", &mut undescribed);
    assert_eq!(undescribed, ["/new"], "what the test looks for is found");
}
