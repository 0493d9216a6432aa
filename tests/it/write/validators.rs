//! Values that a write rule does not let in.

use serde_json::json;

use super::{Desk, as_write_role};

#[tokio::test]
async fn what_a_validator_refuses_is_named_and_its_value_is_not() {
    let sql = "CREATE TABLE commands (id text PRIMARY KEY, command text, port int, kind text);
               SELECT kairos.publish_table('commands', 'INSERT, UPDATE')";
    let rules = "bucket_definitions: {}
write_rules:
  commands:
    allow: [put, patch]
    check: true
    validators:
      command: [secrets, { min_length: 2, max_length: 40 }]
      port: { min: 1, max: 65535 }
      kind: { one_of: [shell, sql], pattern: '^[a-z]+$' }
";
    let desk = Desk::with(sql, rules, as_write_role()).await;
    for (data, code) in [
        (json!({ "command": "ls -la", "port": 22, "kind": "shell" }), ""),
        (json!({ "command": null, "port": null, "kind": null }), ""),
        (json!({ "command": "mysql -u root -phunter2" }), "WRITE_SECRET"),
        (json!({ "command": "-----BEGIN OPENSSH PRIVATE KEY-----" }), "WRITE_SECRET"),
        (json!({ "command": "x" }), "WRITE_VALIDATOR"),
        (json!({ "command": "x".repeat(41) }), "WRITE_VALIDATOR"),
        (json!({ "port": 0 }), "WRITE_VALIDATOR"),
        (json!({ "port": "70000" }), "WRITE_VALIDATOR"),
        (json!({ "kind": "perl" }), "WRITE_VALIDATOR"),
    ] {
        let operation = json!({ "op": "PUT", "table": "commands", "id": "c1", "data": data });
        let result = desk.upload("anna", operation).await.remove(0);
        assert_eq!(result.code.as_deref().unwrap_or_default(), code, "{data}");
        let message = result.message.unwrap_or_default();
        assert!(!message.contains("hunter2") && !message.contains("70000") && !message.contains("perl"), "{message}");
    }
    assert_eq!(
        desk.value("SELECT command || port || kind FROM commands").await,
        None,
        "the second write set all to NULL"
    );
}

#[tokio::test]
async fn documents_satisfy_the_schema_of_their_column() {
    let sql = "CREATE TABLE settings (id text PRIMARY KEY, doc jsonb, list text);
               SELECT kairos.publish_table('settings', 'INSERT, UPDATE')";
    let rules = "bucket_definitions: {}
write_rules:
  settings:
    allow: [put]
    check: true
    validators:
      doc:
        json_schema:
          type: object
          required: [theme]
          properties: { theme: { enum: [dark, light] }, size: { $ref: '#/$defs/size' } }
          additionalProperties: false
          $defs: { size: { type: integer, minimum: 8 } }
      list: { json_schema: { type: array, items: { type: string, pattern: '^[a-z]+$' } } }
";
    let desk = Desk::with(sql, rules, as_write_role()).await;
    for (data, place) in [
        (json!({ "doc": r#"{"theme":"dark","size":9}"#, "list": "[\"a\"]" }), ""),
        (json!({ "doc": { "theme": "light" } }), ""),
        (json!({ "doc": null }), ""),
        (json!({ "doc": { "theme": "hunter2" } }), "/properties/theme/enum"),
        (json!({ "doc": r#"{"theme":"dark","hunter2":1}"# }), "/additionalProperties"),
        (json!({ "doc": r#"{"theme":"dark","size":7}"# }), "/$defs/size/minimum"),
        (json!({ "doc": "hunter2" }), "JSON"),
        (json!({ "list": r#"["hunter2"]"# }), "/items/pattern"),
    ] {
        let operation = json!({ "op": "PUT", "table": "settings", "id": "s", "data": data });
        let result = desk.upload("anna", operation).await.remove(0);
        let message = result.message.unwrap_or_default();
        let code = if place.is_empty() { "" } else { "WRITE_VALIDATOR" };
        assert_eq!(result.code.as_deref().unwrap_or_default(), code, "{data}: {message}");
        assert!(message.contains(place) && !message.contains("hunter2"), "{message}");
    }
}
