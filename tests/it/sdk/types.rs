//! What an app sees of each Postgres type: every line of `docs/types.md`.

use kairos_sync::migrate::Migrations;
use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::{TestService, eventually},
};
use serde_json::{Map, Value, json};

use crate::types::{Case, EDITION_2, Form, LEGACY, create_types, table_sql, usable_cases, values_sql};

/// The line's value as an SQL literal. A column that is not sent is NULL on the device.
fn literal(case: &Case) -> &str {
    if case.arrives == "not sent" { "NULL" } else { &case.arrives }
}

/// The type an app would give the column.
fn column_type(case: &Case) -> &'static str {
    let literal = literal(case);
    if literal.starts_with('\'') || literal == "NULL" {
        "text"
    } else if literal.parse::<i64>().is_ok() {
        "integer"
    } else {
        "real"
    }
}

async fn an_app_sees_every_type_as_documented(sdk: Sdk, form: &Form) {
    let rules = format!("config: {}\nbucket_definitions: {{all: {{data: [SELECT * FROM items]}}}}", form.config);
    let mut cases = Vec::new();
    let service = TestService::prepare(Migrations::Service, &rules, async |sql| {
        create_types(sql).await;
        cases = usable_cases(sql, form).await;
        let fill = format!(
            "{}; INSERT INTO items VALUES ('copied', 0, {}); SELECT kairos.publish_table('items')",
            table_sql(&cases),
            values_sql(&cases)
        );
        sql.batch_execute(&fill).await.expect("the page's types and values are valid");
    });
    let service = service.await;
    service.wait_until_ready().await;
    let columns: Map<_, _> =
        cases.iter().enumerate().map(|(n, case)| (format!("v{n}"), json!(column_type(case)))).collect();
    let client = OfficialClient::open(sdk, service.folder.path(), "phone", &json!({"items": columns})).await;
    client.connect(service.process.endpoint(), &service.token("ann")).await;
    client.call(json!({"do": "synced", "seconds": 30})).await;
    service.run(&format!("INSERT INTO items VALUES ('streamed', 0, {})", values_sql(&cases))).await;
    let ids = async || client.texts("SELECT id FROM items").await;
    eventually(["copied", "streamed"].map(str::to_owned).into(), ids).await;

    // SQLite compares, so that numbers need not be printed alike. What differs is told, all else is NULL.
    let differing = cases.iter().enumerate().map(|(n, case)| {
        let literal = literal(case);
        format!(
            "CASE WHEN v{n} IS {literal} AND typeof(v{n}) = typeof({literal}) THEN NULL ELSE quote(v{n}) END AS v{n}"
        )
    });
    let sql = format!("SELECT id, {} FROM items", differing.collect::<Vec<_>>().join(", "));
    let mut wrong = Vec::new();
    for row in client.query(&sql).await {
        for (n, case) in cases.iter().enumerate() {
            if let Value::String(shown) = &row[format!("v{n}")] {
                wrong.push(format!("v{n} {}: documented {}, shown {shown}", row["id"], case.arrives));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/types.md ({}) and what an app sees differ:\n{}", form.name, wrong.join("\n"));
    client.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn an_app_sees_every_type_in_its_legacy_form() {
    an_app_sees_every_type_as_documented(Sdk::HTTP, &LEGACY).await;
}

#[tokio::test]
async fn an_app_sees_every_type_in_the_form_of_edition_2() {
    an_app_sees_every_type_as_documented(Sdk::HTTP, &EDITION_2).await;
}

#[tokio::test]
async fn with_our_client_an_app_sees_every_type_in_its_legacy_form() {
    an_app_sees_every_type_as_documented(Sdk::RUST, &LEGACY).await;
}

#[tokio::test]
async fn with_our_client_an_app_sees_every_type_in_the_form_of_edition_2() {
    an_app_sees_every_type_as_documented(Sdk::RUST, &EDITION_2).await;
}
