//! Two devices change the same rows while they are away from each other.

use kairos_tests::{
    official::{OfficialClient, Sdk, texts},
    service::{TestService, eventually},
};
use serde_json::{Value, json};

const SCHEMA: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, title text, body text, settings jsonb, changed_at timestamptz);
    CREATE TABLE counts (id text PRIMARY KEY, n int, tags text[]);
    CREATE TABLE wares (id text PRIMARY KEY, price numeric(8, 2), version int NOT NULL DEFAULT 1);
    SELECT kairos.publish_table(name::regclass, 'INSERT, UPDATE, DELETE') FROM unnest('{notes,counts,wares}'::text[]) name;
    INSERT INTO notes VALUES ('note', 'first', 'first', '{\"font\": 11, \"dark\": false}', '2026-01-02 03:04:05.678+00');
    INSERT INTO counts VALUES ('count', 10, '{red}');
    INSERT INTO wares VALUES ('ware', 1.50);
";

const RULES: &str = "
bucket_definitions:
  all: {data: [SELECT * FROM notes, SELECT * FROM counts, SELECT * FROM wares]}
write_rules:
  notes: {allow: [put, patch, delete], check: true, conflict: merge_fields}
  counts: {allow: [patch], check: true, conflict: {strategy: counter, columns: [n]}}
  wares: {allow: [patch], check: true, conflict: {strategy: version, column: version}}
";

const IN_SOURCE: &str = "
    SELECT id || title || body || settings::text FROM notes UNION ALL SELECT id || n FROM counts
    UNION ALL SELECT id || price || ' ' || version FROM wares";
const ON_DEVICE: &str = "
    SELECT id || title || body || settings AS line FROM notes UNION ALL SELECT id || n FROM counts
    UNION ALL SELECT id || price || ' ' || version FROM wares";

fn tables() -> Value {
    json!({
        "notes": {"title": "text", "body": "text", "settings": "text", "changed_at": "text", "$trackPrevious": true},
        "counts": {"n": "integer", "$trackPrevious": true},
        "wares": {"price": "text", "version": "integer", "$trackPrevious": true},
    })
}

/// Outcomes and codes of what a device uploaded, with the row's id.
async fn outcomes(device: &OfficialClient) -> Vec<String> {
    let Value::Array(outcomes) = device.call(json!({"do": "uploads"})).await else { panic!("a list of outcomes") };
    let line = |result: &Value| {
        format!("{} {}", result["id"].as_str().unwrap_or("?"), result["outcome"].as_str().unwrap_or("?"))
    };
    outcomes.iter().map(line).collect()
}

async fn devices_that_were_away_are_joined_as_the_rules_say(sdk: Sdk) {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let (folder, endpoint, token) = (service.folder.path(), service.process.endpoint(), service.token("ann"));
    let phone = OfficialClient::open(sdk, folder, "phone", &tables()).await;
    let tablet = OfficialClient::open(sdk, folder, "tablet", &tables()).await;
    for device in [&phone, &tablet] {
        device.connect(endpoint, &token).await;
        device.converges(&service, IN_SOURCE, &[], ON_DEVICE).await;
        device.call(json!({"do": "disconnect"})).await;
    }
    for (device, changes) in [
        (&phone, ["title = 'phone', settings = '{\"font\": 12, \"dark\": false}'", "n = n + 1", "price = '2.00'"]),
        (
            &tablet,
            [
                "title = 'tablet', body = 'tablet', settings = '{\"font\": 11, \"dark\": true}'",
                "n = n + 5",
                "price = '3.00'",
            ],
        ),
    ] {
        for (table, change) in ["notes", "counts", "wares"].iter().zip(changes) {
            device.execute(&format!("UPDATE {table} SET {change}")).await;
        }
    }
    for (device, expected) in [
        (&phone, ["note applied", "count applied", "ware applied"]),
        (&tablet, ["note merged", "count merged", "ware conflict"]),
    ] {
        device.connect(endpoint, &token).await;
        eventually(expected.map(str::to_owned).to_vec(), || outcomes(device)).await;
    }
    for device in [&phone, &tablet] {
        device.converges(&service, IN_SOURCE, &[], ON_DEVICE).await;
    }
    let rows = texts(&service.sql, IN_SOURCE, &[]).await;
    let expected = ["notephonetablet{\"dark\": true, \"font\": 12}", "count16", "ware2.00 2"];
    assert_eq!(rows, expected.map(str::to_owned).into());
    // The queue goes on behind a conflict.
    tablet.execute("UPDATE wares SET price = '4.00'").await;
    eventually(["ware4.00 3".to_owned()].into(), || {
        texts(&service.sql, "SELECT id || price || ' ' || version FROM wares", &[])
    })
    .await;
    for device in [phone, tablet] {
        device.call(json!({"do": "close"})).await;
    }
}

#[tokio::test]
async fn devices_that_were_away_from_each_other_are_joined_as_the_rules_say() {
    devices_that_were_away_are_joined_as_the_rules_say(Sdk::HTTP).await;
}

#[tokio::test]
async fn devices_with_our_client_that_were_away_from_each_other_are_joined_as_the_rules_say() {
    devices_that_were_away_are_joined_as_the_rules_say(Sdk::RUST).await;
}
