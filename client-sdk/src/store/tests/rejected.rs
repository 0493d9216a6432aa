//! Writes that were not taken, and what their user makes of them.

use kairos_sync_protocol::{
    conflict::Choice,
    upload::{OpResult, Outcome as Answer},
};
use serde_json::{Map, Value, json};

use super::*;

fn columns(json: Value) -> Map<String, Value> {
    let Value::Object(columns) = json else { panic!("columns") };
    columns
}

/// Someone else changed a note, which this device changed as well; its upload met that.
async fn conflict(theirs: Option<Value>) -> (Bench, i64) {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let note = |body: &str| Some(json!({ "id": "n1", "body": body, "extra": 1 }).to_string());
    let put = service.operation("a", OpKind::Put, Some(("notes", "n1")), note("first"));
    bench.perform([put, service.full()]).await;
    bench.execute("UPDATE notes SET body = 'mine' WHERE id = 'n1'").await.unwrap();
    let answer = OpResult {
        op_id: Some("1".to_owned()),
        table: "notes".to_owned(),
        id: Some("n1".to_owned()),
        outcome: Answer::Conflict,
        row: theirs.clone().map(columns),
        code: Some("WRITE_CONFLICT".to_owned()),
        message: Some("met".to_owned()),
    };
    bench.store.write(move |tx| crud::acknowledge(tx, 1, &[answer], Some("5".parse().unwrap()))).await.unwrap();
    service.write_checkpoint = Some(5);
    let change = match theirs {
        Some(_) => service.operation("a", OpKind::Put, Some(("notes", "n1")), note("theirs")),
        None => service.operation("a", OpKind::Remove, Some(("notes", "n1")), None),
    };
    bench.perform([change, service.full()]).await;
    let rejected = bench.store.read(attention::list).await.unwrap();
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].outcome, rejected[0].code.as_deref()), (Answer::Conflict, Some("WRITE_CONFLICT")));
    assert_eq!(rejected[0].base, Some(columns(json!({ "body": "first" }))));
    assert_eq!(rejected[0].data, Some(columns(json!({ "body": "mine" }))));
    (bench, rejected[0].id)
}

async fn resolve(bench: &Bench, id: i64, choice: Choice, merged: Option<Value>) -> bool {
    bench.store.write(move |tx| attention::resolve(tx, id, choice, merged.map(columns))).await.unwrap()
}

const QUEUE: &str = "SELECT op, row_id, data, old FROM kairos_crud ORDER BY id";

#[tokio::test]
async fn ones_own_values_are_written_again_by_somebody_who_saw_the_others() {
    let theirs = json!({ "id": "n1", "body": "theirs", "version": 7 });
    for (choice, merged, body) in
        [(Choice::Mine, None, "mine"), (Choice::Merged, Some(json!({ "body": "both" })), "both")]
    {
        let (bench, id) = conflict(Some(theirs.clone())).await;
        assert_eq!(bench.rows("SELECT body FROM notes").await, ["theirs"]);
        assert!(resolve(&bench, id, choice, merged).await);
        assert_eq!(bench.rows("SELECT body FROM notes").await, [body]);
        assert_eq!(
            bench.rows("SELECT data ->> 'extra' FROM kairos_data__notes").await,
            ["1"],
            "what is not declared stays"
        );
        let expected = format!(r#"PATCH|n1|{{"body":"{body}"}}|{theirs}"#);
        assert_eq!(bench.rows(QUEUE).await, [expected]);
        assert!(!resolve(&bench, id, choice, None).await, "it is off the list");
    }
}

#[tokio::test]
async fn what_the_service_has_stays_without_a_write() {
    let (bench, id) = conflict(Some(json!({ "body": "theirs" }))).await;
    assert!(resolve(&bench, id, Choice::Theirs, None).await);
    assert_eq!(bench.rows("SELECT body FROM notes").await, ["theirs"]);
    assert!(bench.rows(QUEUE).await.is_empty());
    assert!(bench.store.read(attention::list).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_row_that_is_gone_comes_back_whole() {
    let (bench, id) = conflict(None).await;
    assert!(bench.rows("SELECT body FROM notes").await.is_empty());
    assert!(resolve(&bench, id, Choice::Mine, None).await);
    assert_eq!(bench.rows("SELECT body FROM notes").await, ["mine"]);
    assert_eq!(bench.rows(QUEUE).await, [r#"PUT|n1|{"body":"mine"}|NULL"#]);
}

#[tokio::test]
async fn a_write_to_a_table_that_is_gone_stays_on_the_list() {
    let (bench, id) = conflict(Some(json!({ "body": "theirs" }))).await;
    let bench = bench.reopen(Schema::new([Table::new("habits").text("name")])).await;
    let error = bench.store.write(move |tx| attention::resolve(tx, id, Choice::Mine, None)).await.unwrap_err();
    assert_eq!(error.code(), "CLIENT-0108");
    assert_eq!(bench.store.read(attention::list).await.unwrap().len(), 1);
    assert!(resolve(&bench, id, Choice::Theirs, None).await);
}
