//! T46: a user who says what is another's: parameters, subscriptions, SQL as text.

use std::{collections::BTreeSet, time::Duration};

use kairos_tests::service::TestService;
use serde_json::{Value, json};
use tokio::time::timeout;

const SCHEMA: &str = "
    CREATE TABLE lists (id text PRIMARY KEY, owner text NOT NULL, region text NOT NULL);
    CREATE TABLE todos (id text PRIMARY KEY, list_id text NOT NULL);
    CREATE TABLE secrets (id text PRIMARY KEY);
    SELECT kairos.publish_table('lists', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('todos');
    SELECT kairos.publish_table('secrets');
    INSERT INTO lists VALUES ('anna 1', 'anna', 'eu'), ('ben 1', 'ben', 'eu'), ('odd', $$' OR '1'='1$$, 'eu');
    INSERT INTO todos VALUES ('todo of anna', 'anna 1'), ('todo of ben', 'ben 1');
    INSERT INTO secrets VALUES ('secret');
";

const RULES: &str = "
config: { edition: 3 }
streams:
  lists:
    auto_subscribe: true
    query: SELECT * FROM lists WHERE owner = auth.user_id() AND region = connection.parameter('region')
  todos:
    query: |
      SELECT * FROM todos WHERE list_id = subscription.parameter('list')
         AND list_id IN (SELECT id FROM lists WHERE owner = auth.user_id())
write_rules:
  lists: { allow: [put, patch, delete], check: 'row.owner = auth.user_id()' }
";

/// Ids of the rows a stream brings until it is complete.
async fn rows(service: &TestService, user: &str, body: &Value) -> BTreeSet<String> {
    let request = reqwest::Client::new().post(format!("{}/sync/stream", service.process.endpoint()));
    let request = request.header("authorization", format!("Token {}", service.token(user))).json(body);
    let mut response = request.send().await.expect("answers");
    assert_eq!(response.status(), 200, "{body}");
    let read = async {
        let mut text = String::new();
        while !text.contains("\"checkpoint_complete\"") {
            let chunk = response.chunk().await.expect("goes on").unwrap_or_else(|| panic!("the stream ended: {text}"));
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        text
    };
    let text = timeout(Duration::from_mins(1), read).await.expect("completes");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let operations = lines.flat_map(|line| line["data"]["data"].as_array().cloned().unwrap_or_default());
    operations.filter_map(|operation| operation["object_id"].as_str().map(str::to_owned)).collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn t46_parameters_and_subscriptions_open_nothing_beyond_the_rules() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let request = |parameters: Value, subscriptions: Value| json!({"raw_data": true, "parameters": parameters, "streams": {"subscriptions": subscriptions}});
    let subscribe = |stream: &str, parameters: Value| json!([{"stream": stream, "parameters": parameters, "override_priority": null}]);
    let plain = request(json!({"region": "eu"}), json!([]));
    assert_eq!(rows(&service, "anna", &plain).await, set(&["anna 1"]), "otherwise nothing here says anything");
    let own = request(json!({"region": "eu"}), subscribe("todos", json!({"list": "anna 1"})));
    assert_eq!(rows(&service, "anna", &own).await, set(&["anna 1", "todo of anna"]));

    let as_ben =
        json!({"region": "eu", "user_id": "ben", "sub": "ben", "owner": "ben", "token_parameters": {"user_id": "ben"}});
    let sql = "eu' OR '1'='1' --";
    for (body, expected) in [
        (request(as_ben, json!([])), set(&["anna 1"])),
        (request(json!({"region": sql}), json!([])), set(&[])),
        (request(json!({"region": ["eu", "eu"]}), json!([])), set(&[])),
        (request(json!({"region": {"eu": 1}}), json!([])), set(&[])),
        (request(json!({"region": null}), json!([])), set(&[])),
        (request(json!({"region": "eu"}), subscribe("todos", json!({"list": "ben 1"}))), set(&["anna 1"])),
        (request(json!({"region": "eu"}), subscribe("todos", json!({"list": "' OR list_id <> '"}))), set(&["anna 1"])),
        (request(json!({"region": "eu"}), subscribe("todos", json!({"list": ["ben 1", "anna 1"]}))), set(&["anna 1"])),
        (request(json!({"region": "eu"}), subscribe("todos", Value::Null)), set(&["anna 1"])),
        (request(json!({"region": "eu"}), subscribe("secrets", json!({}))), set(&["anna 1"])),
        (
            request(json!({"region": "eu"}), subscribe("todos\" UNION SELECT * FROM secrets --", json!({}))),
            set(&["anna 1"]),
        ),
    ] {
        assert_eq!(rows(&service, "anna", &body).await, expected, "{body}");
    }
    // The user's name is a value as well.
    assert_eq!(rows(&service, "' OR '1'='1", &plain).await, set(&["odd"]));
    // A bucket of somebody else that is named as one's own.
    let buckets = json!({"raw_data": true, "parameters": {"region": "eu"}, "buckets": [
        {"name": "1#lists|0[\"ben\",\"eu\"]", "after": "0"}, {"name": "secrets[]", "after": "0"},
    ]});
    assert_eq!(rows(&service, "anna", &buckets).await, set(&["anna 1"]));
}

#[tokio::test]
async fn t46_uploads_write_values_never_code() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let code = "x'); DROP TABLE secrets; --";
    let batch = json!({"client_id": code, "batch": [
        {"op": "PUT", "table": "lists", "id": code, "op_id": 1, "data": {"owner": "anna", "region": code}},
        {"op": "PUT", "table": "lists", "id": "taken", "op_id": 2, "data": {"owner": "ben", "region": "eu"}},
        {"op": "PATCH", "table": "lists", "id": "ben 1", "op_id": 3, "data": {"owner": "anna"}},
        {"op": "DELETE", "table": "lists", "id": "ben 1", "op_id": 4},
        {"op": "PUT", "table": "secrets", "id": "mine", "op_id": 5, "data": {}},
        {"op": "PUT", "table": "lists\" (id) VALUES ('y'); --", "id": "y", "op_id": 6, "data": {}},
        {"op": "PUT", "table": "lists", "id": "z", "op_id": 7, "data": {"owner": "anna", "region\") VALUES ('z'); --": "eu"}},
    ]});
    let request = reqwest::Client::new().post(format!("{}/api/sync/data", service.process.endpoint()));
    let request = request.header("authorization", format!("Token {}", service.token("anna"))).json(&batch);
    let answer: Value = request.send().await.expect("answers").json().await.expect("JSON");
    let results = answer["data"]["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let outcomes: Vec<_> = results.iter().map(|result| result["outcome"].as_str().unwrap_or_default()).collect();
    assert_eq!(outcomes, ["applied", "refused", "refused", "refused", "refused", "refused", "refused"], "{answer}");
    let ids = "SELECT string_agg(id, '|' ORDER BY id) FROM lists WHERE owner IN ('anna', 'ben')";
    let ids: String = service.sql.query_one(ids, &[]).await.expect("the table is there").get(0);
    assert_eq!(ids, format!("anna 1|ben 1|{code}"));
    let count: i64 = service.sql.query_one("SELECT count(*) FROM secrets", &[]).await.expect("it is there").get(0);
    assert_eq!(count, 1);
}
