//! A service that is gone for good leaves nothing in its source that costs something.

use std::{fs, process::Output};

use kairos_tests::service::{TestService, eventually, service_binary};
use tokio::process::Command;

const SCHEMA: &str = "CREATE TABLE items (id text PRIMARY KEY); INSERT INTO items VALUES ('a');
                      SELECT kairos.publish_table('items');";
const RULES: &str = "bucket_definitions: { everything: { data: [SELECT * FROM items] } }";

async fn teardown(service: &TestService, arguments: &[&str]) -> Output {
    let mut command = Command::new(service_binary());
    command.args(["teardown", "--config"]).arg(&service.config).args(arguments).output().await.expect("it runs")
}

async fn slots(service: &TestService) -> i64 {
    let sql = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    service.sql.query_one(sql, &[]).await.expect("answers").get(0)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn slots_and_store_go_when_nobody_uses_them() {
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    assert_eq!(slots(&service).await, 1);
    let running = teardown(&service, &["--yes", "--store"]).await;
    assert_eq!(running.status.code(), Some(1), "{}", said(&running));
    assert!(said(&running).contains("error CONF-0304: slot kairos_"), "{}", said(&running));
    assert_eq!(slots(&service).await, 1);

    service.process.kill().expect("it runs");
    let idle = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active";
    eventually(0_i64, async || service.sql.query_one(idle, &[]).await.expect("answers").get(0)).await;
    let asked = teardown(&service, &["--store"]).await;
    assert_eq!(asked.status.code(), Some(0), "{}", said(&asked));
    assert!(said(&asked).contains("would drop slot kairos_") && said(&asked).contains("would delete the store in "));
    let store = service.data_dir.join("buckets.sqlite3");
    assert_eq!((slots(&service).await, store.exists()), (1, true), "nothing was done");

    fs::write(service.data_dir.join("mine"), "of the operator").expect("writes");
    let done = teardown(&service, &["--store", "--yes"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert_eq!((slots(&service).await, store.exists()), (0, false), "{}", said(&done));
    assert!(service.data_dir.join("mine").exists(), "what is not of the store stays");
    let again = teardown(&service, &["--yes"]).await;
    assert_eq!((again.status.code(), said(&again).as_str()), (Some(0), "nothing to do: no slot is left\n"));
}
