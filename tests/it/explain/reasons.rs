//! One row for each kind of reason.

use kairos_tests::service::{ADMIN_TOKEN, TestService};
use serde_json::{Value, json};

use super::{CLASSIC, SCHEMA, STREAMS, explain, start, summary};

/// Definitions that leave rows of `kept` out, or read what is not published.
const REASONS: &str = r"
  staff:
    parameters: SELECT 1 AS one WHERE request.jwt() ->> 'role' = 'staff'
    data:
      - SELECT id FROM kept WHERE one = bucket.one AND json_extract(meta, '$.n') > 1
  ghosts:
    data: [SELECT * FROM ghosts, SELECT a || b AS id FROM wide]
";

#[tokio::test]
async fn each_kind_of_reason_is_named() {
    let rules = format!("{CLASSIC}{REASONS}");
    let schema = format!(
        "{SCHEMA} CREATE TABLE kept (id text PRIMARY KEY, one int, meta text);
         CREATE TABLE hidden (id text PRIMARY KEY);
         CREATE TABLE wide (a text, b int, PRIMARY KEY (a, b));
         SELECT kairos.publish_table('kept'), kairos.publish_table('hidden'), kairos.publish_table('wide');
         INSERT INTO kept VALUES ('k1', 1, '{{\"n\":2}}'), ('k2', 1, '{{\"n\":1}}'), ('k3', NULL, '{{\"n\":2}}'), ('k4', 1, 'no JSON');
         INSERT INTO hidden VALUES ('h1'); INSERT INTO wide VALUES ('x', 1);"
    );
    let service = TestService::start(&schema, &rules).await;
    service.wait_until_ready().await;
    let says = async |user: &str, table: &str, id: Value, part: &str| {
        let summary = summary(&service, user, table, id).await;
        assert!(summary.contains(part), "{part}\nis not in\n{summary}");
    };
    // The row.
    says("ann", "cards", json!("15"), "`archived = 0` does not hold (archived is 1)").await;
    says(
        "ann",
        "cards",
        json!("5"),
        "has \"bob\"; query 2 of team leaves it out, because `archived = 0` does not hold",
    )
    .await;
    says("ann", "kept", json!("k2"), "`json_extract(meta, '$.n') > 1` does not hold (meta is '{\"n\":1}')").await;
    says("ann", "kept", json!("k3"), "`one = p1` does not hold (one is NULL)").await;
    says("ann", "kept", json!("k4"), "Row k4 of public.kept is on no device").await;
    // Its table.
    says("ann", "hidden", json!("h1"), "the rules do not read this table").await;
    says("ann", "ghosts", json!("g1"), "the rules read this table, but kairos_sync does not have it").await;
    says("ann", "cards", json!("999"), "the source has no such row").await;
    says("ann", "wide", json!("x"), "told apart by a, b: give the id as {\"a\": …, \"b\": …}").await;
    says("ann", "public.wide", json!({"a": "x", "b": 1}), "ann gets row a=x, b=1 of public.wide").await;
    says("ann", "own_cards", json!("7"), "of public.cards").await;
    // The user.
    says(
        "ann",
        "kept",
        json!("k1"),
        "staff gives the user nothing, because `token ->> 'role' = 'staff'` does not hold (token ->> 'role' is NULL)",
    )
    .await;
    says(
        "nobody",
        "cards",
        json!("3"),
        "which nobody does not have: team gives the user nothing, because `SELECT … FROM public.members",
    )
    .await;
    says(
        "nobody",
        "cards",
        json!("5"),
        "own compares with user_id() of the user, which is \"nobody\", and the row has \"bob\"",
    )
    .await;
    let staff = json!({"user_id": "ann", "claims": {"role": "staff"}, "table": "kept", "id": "k1"});
    let answer = explain(&service, staff).await;
    assert!(
        answer["summary"].as_str().expect("text").starts_with("ann gets row k1 of public.kept through"),
        "{answer:#}"
    );
    // The stream.
    let log = service.process.log().expect("readable");
    assert!(!log.contains("secret title") && !log.contains(ADMIN_TOKEN), "no value and no token is logged");
}

#[tokio::test]
async fn a_stream_that_nobody_subscribed_to_is_a_reason() {
    let service = start(STREAMS).await;
    let said = summary(&service, "ann", "teams", json!("t1")).await;
    assert!(said.ends_with("which ann does not have: the client has not subscribed to one_team."), "{said}");
    let subscribed = |team: &str| {
        json!({"user_id": "ann", "table": "teams", "id": "t1",
        "subscriptions": [{"stream": "one_team", "parameters": {"team": team}}]})
    };
    let answer = explain(&service, subscribed("t1")).await;
    assert!(answer["summary"].as_str().expect("text").starts_with("ann gets row t1 of public.teams"), "{answer:#}");
    let said = explain(&service, subscribed("t2")).await["summary"].to_string();
    assert!(said.contains("which is \\\"t2\\\", and the row has \\\"t1\\\""), "{said}");
}
