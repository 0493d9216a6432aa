//! What is stored is looked at, mended, and told without a value.

use kairos_tests::service::eventually;
use serde_json::{Value, json};

use super::basics::{converges, synced};

#[tokio::test]
async fn damage_is_found_and_downloaded_again() {
    let (service, tab) = synced().await;
    tab.reaches("synced").await;
    let good = tab.call(json!({"do": "verify"})).await;
    assert_eq!(good["isOk"], true, "{good}");
    assert!(good["buckets"].as_array().is_some_and(|buckets| buckets.len() > 1), "{good}");

    // A byte of an operation, a row of a table, and a row that is gone.
    tab.execute("UPDATE kairos_oplog SET data = replace(data, 'Todo 1', 'Toda 1') WHERE row_id = 'todo-1'").await;
    tab.execute(
        "UPDATE kairos_data__lists SET data = json_set(data, '$.name', 'Nobody wrote this') WHERE id = 'list-2'",
    )
    .await;
    tab.execute("DELETE FROM kairos_data__lists WHERE id = 'list-6'").await;
    let bad = tab.call(json!({"do": "verify"})).await;
    assert_eq!(bad["isOk"], false);
    let damaged = bad["buckets"].as_array().expect("a list").iter().filter(|bucket| bucket["isOk"] == false).count();
    assert_eq!(damaged, 1, "{bad}");
    let differing = |table: &str| {
        let tables = bad["tables"].as_array().expect("a list");
        tables.iter().find(|found| found["name"] == table).map(|found| found["rowsDiffering"].clone())
    };
    assert_eq!((differing("lists"), differing("todos")), (Some(json!(2)), Some(json!(1))), "{bad}");

    assert_eq!(tab.call(json!({"do": "repair"})).await, bad, "it tells what it found");
    converges(&service, &tab).await;
    tab.reaches("synced").await;
    let again = async || tab.call(json!({"do": "verify"})).await["isOk"].take();
    eventually(json!(true), again).await;
    tab.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn a_report_has_sizes_and_codes_and_no_value() {
    let (mut service, tab) = synced().await;
    tab.execute("INSERT INTO lists (id, owner, name) VALUES ('secret-id', 'bob', 'Secret name')").await;
    eventually(1, async || tab.rejected().await.len()).await;
    tab.reaches("synced").await;
    let report = tab.call(json!({"do": "diagnostics"})).await;
    let text = report.to_string();
    for secret in ["secret", "Secret", "List 2", "todo-1", "ann", "bob", &service.token("ann"), "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(report["rejected"], json!([{"code": "WRITE_RLS", "count": 1}]));
    assert_eq!((&report["storage"], &report["state"]), (&json!("opfs"), &json!("synced")));
    let todos = tab.texts("SELECT count(*) FROM todos").await;
    let of = |name: &str| {
        let tables = report["tables"].as_array().expect("a list");
        tables.iter().find(|table| table["name"] == name).expect("a table")["rows"].to_string()
    };
    assert_eq!([of("todos")], todos.into_iter().collect::<Vec<_>>()[..]);
    assert!(report["statistics"]["operations"].as_u64() >= report["operationCount"].as_u64(), "{report}");
    assert_eq!(report["statistics"]["writesUploaded"], 1, "{report}");
    let happened = |report: &Value, event: &str| {
        report["log"].as_array().expect("a list").iter().any(|each| each["event"] == event)
    };
    assert!(happened(&report, "sync_completed"), "{report}");

    service.process.terminate().await.expect("it ends");
    let unreachable = async || happened(&tab.call(json!({"do": "diagnostics"})).await, "sync_error CLIENT-0201");
    eventually(true, unreachable).await;
    tab.call(json!({"do": "close"})).await;
}
