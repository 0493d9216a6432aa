//! Bounds, deadlines and a Postgres that is not there or not prepared.

use std::time::{Duration, Instant};

use kairos_sync::write::WriteOptions;
use serde_json::{Value, json};

use super::{Desk, as_write_role, codes, habit, principal, rules};

#[tokio::test]
async fn ten_thousand_operations_fit_and_one_more_does_not() {
    let desk = Desk::open().await;
    let mut entries: Vec<Value> = (0..10_000)
        .map(|n| {
            let data = json!({ "name": "Read", "user_id": "anna", "position": n });
            json!({ "op": "PUT", "table": "habits", "id": format!("h{n}"), "op_id": n, "data": data })
        })
        .collect();
    let began = Instant::now();
    let results = desk.upload("anna", json!({ "client_id": "phone", "batch": entries })).await;
    println!("10,000 operations in {:?}", began.elapsed());
    assert!(codes(&results).iter().all(String::is_empty));
    assert_eq!(desk.count("SELECT count(*) FROM habits").await, 10_000);
    let began = Instant::now();
    desk.upload("anna", json!({ "client_id": "phone", "batch": entries })).await;
    println!("10,000 repeated in {:?}", began.elapsed());

    entries.push(habit("one-more", "anna"));
    let error = desk.try_upload("anna", json!(entries)).await.expect_err("too many");
    assert_eq!((error.code(), error.is_transient()), ("WRITE_BATCH_TOO_LARGE", false));
    assert!(error.to_string().contains("10001 operations"), "{error}");
}

#[tokio::test]
async fn an_empty_batch_is_answered() {
    let desk = Desk::open().await;
    assert_eq!(desk.upload("anna", json!([])).await, []);
}

#[tokio::test]
async fn bytes_are_bounded_by_batch_and_by_value() {
    let options = WriteOptions { batch_bytes_max: 4096, value_bytes_max: 1024, ..as_write_role() };
    let desk = Desk::with("", &rules(""), options).await;
    let with_text = |bytes: usize| {
        let data = json!({ "name": "x", "user_id": "anna", "description": "x".repeat(bytes) });
        json!({ "op": "PUT", "table": "habits", "id": "h1", "data": data })
    };
    assert_eq!(desk.outcome("anna", with_text(1024)).await, "");
    assert_eq!(desk.outcome("anna", with_text(1025)).await, "WRITE_VALUE_TOO_LARGE");
    let error = desk.try_upload("anna", with_text(5000)).await.expect_err("too large");
    assert_eq!(error.code(), "WRITE_BATCH_TOO_LARGE");
    assert!(error.to_string().contains("bytes"), "{error}");
}

#[tokio::test]
async fn any_number_of_column_sets_keeps_few_statements() {
    let columns: Vec<String> = (0..9).map(|n| format!("c{n}")).collect();
    let declared = columns.iter().map(|name| format!("{name} text")).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "CREATE TABLE wide (id text PRIMARY KEY, {declared}); SELECT kairos.publish_table('wide', 'INSERT, UPDATE')"
    );
    let desk = Desk::with(&sql, &rules("  wide:\n    allow: [put]\n    check: true\n"), as_write_role()).await;
    let entries: Vec<Value> = (0..512_u32)
        .map(|set| {
            let chosen = columns.iter().enumerate().filter(|(n, _)| set & (1 << n) != 0);
            let data: serde_json::Map<_, _> = chosen.map(|(_, name)| (name.clone(), json!("x"))).collect();
            json!({ "op": "PUT", "table": "wide", "id": set, "data": data })
        })
        .collect();
    let results = desk.upload("anna", json!(entries)).await;
    assert!(codes(&results).iter().all(String::is_empty));
    assert_eq!(desk.count("SELECT count(*) FROM wide").await, 512);
}

#[tokio::test]
async fn a_locked_row_ends_at_the_deadline_and_the_upload_can_be_repeated() {
    let options = WriteOptions { deadline: Duration::from_millis(400), ..as_write_role() };
    let mut desk = Desk::with("", &rules(""), options).await;
    desk.upload("anna", habit("h1", "anna")).await;
    let lock = desk.admin.transaction().await.unwrap();
    lock.batch_execute("SELECT * FROM habits FOR UPDATE").await.unwrap();
    let upload = super::batch(habit("h1", "anna"));
    let began = Instant::now();
    let error = desk.writer.upload(&principal("anna"), upload.clone()).await.expect_err("locked");
    assert!(["WRITE_DEADLINE", "WRITE_POSTGRES"].contains(&error.code()), "{}", error.code());
    assert!(error.is_transient() && began.elapsed() < Duration::from_secs(5));
    lock.rollback().await.unwrap();
    let answer = desk.writer.upload(&principal("anna"), upload).await.expect("now");
    assert_eq!(codes(&answer.results), [""]);
}

#[tokio::test]
async fn a_postgres_that_is_gone_is_no_answer_to_any_operation() {
    let desk = Desk::alone().await;
    desk.upload("anna", habit("h1", "anna")).await;
    desk.cluster.stop("immediate").unwrap();
    let error = desk.try_upload("anna", habit("h2", "anna")).await.expect_err("gone");
    assert!(error.is_transient(), "{error}");
    desk.cluster.start_server().unwrap();
    let answer = desk.try_upload("anna", habit("h2", "anna")).await.expect("back again");
    assert_eq!(codes(&answer.results), [""]);
}

#[tokio::test]
async fn a_role_that_cannot_be_taken_is_named() {
    let desk = Desk::open().await;
    for role in ["no_such_role", "kairos_replication"] {
        let options = WriteOptions { role: Some(role.to_owned()), ..WriteOptions::default() };
        let writer = desk.another_writer("kairos_service", &rules(""), options);
        let error = writer.upload(&principal("anna"), super::batch(habit("h1", "anna"))).await.expect_err("refused");
        assert_eq!(error.code(), "WRITE_ROLE");
        assert!(error.to_string().contains(role), "{error}");
    }
}

#[tokio::test]
async fn a_missing_ledger_says_to_migrate() {
    let desk = Desk::with("DROP TABLE kairos.write_ledger", &rules(""), as_write_role()).await;
    let entry = json!({ "op": "DELETE", "table": "habits", "id": "h", "op_id": "1" });
    let error = desk.try_upload("anna", json!({ "client_id": "c", "batch": [entry] })).await.expect_err("no ledger");
    assert_eq!(error.code(), "WRITE_LEDGER");
}

#[tokio::test]
async fn the_servers_fault_refuses_nothing() {
    let desk = Desk::open().await;
    desk.admin
        .batch_execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", desk.database))
        .await
        .unwrap();
    let error = desk.try_upload("anna", habit("h1", "anna")).await.expect_err("read-only");
    assert_eq!((error.code(), error.is_transient()), ("WRITE_POSTGRES", true));
}

#[tokio::test]
async fn no_error_quotes_a_value() {
    let desk = Desk::open().await;
    let failing = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
                       $$ BEGIN RAISE 'about %', NEW.name USING ERRCODE = '53000', DETAIL = NEW.name; END $$;
                   CREATE TRIGGER fail BEFORE INSERT ON habits FOR EACH ROW EXECUTE FUNCTION fail()";
    desk.admin.batch_execute(failing).await.unwrap();
    let put = json!({ "op": "PUT", "table": "habits", "id": "h", "data": { "name": "hunter2", "user_id": "anna" } });
    let error = desk.try_upload("anna", put).await.expect_err("the trigger blames the server");
    let text = format!("{error} {error:?}");
    assert!(text.contains("53000") && !text.contains("hunter2"), "{text}");
}
