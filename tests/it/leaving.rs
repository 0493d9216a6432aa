//! A service that is asked to stop says so first to those who send clients, and to its clients at last.

use std::time::Duration;

use kairos_tests::service::{TestService, eventually};
use serde_json::json;
use tokio::process::Command;

const SCHEMA: &str = "CREATE TABLE items (id text PRIMARY KEY, body text); SELECT kairos.publish_table('items');";
const RULES: &str = "bucket_definitions: { everything: { data: [SELECT * FROM items] } }";

#[tokio::test]
async fn it_is_not_ready_first_serves_for_a_while_and_ends_its_streams() {
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.reconfigure("drain_seconds: 10\n").await;
    service.wait_until_ready().await;
    let open = async |service: &TestService| {
        let request = reqwest::Client::new().post(format!("{}/sync/stream", service.process.endpoint()));
        request.bearer_auth(service.token("anna")).json(&json!({})).send().await
    };
    let mut stream = open(&service).await.expect("an answer");
    assert!(stream.chunk().await.expect("a line").is_some());
    let process = service.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &process]).status().await.expect("`kill` runs").success());
    eventually(false, async || service.process.is_ready().await.expect("it still answers")).await;
    let probe = service.process.get("/probes/readiness").await.expect("it still answers");
    assert!(probe.contains("the service is about to stop"), "{probe}");

    // Nobody who is here, or comes nevertheless, is worse off.
    service.run("INSERT INTO items VALUES ('late', 'while it leaves')").await;
    let mut text = String::new();
    while !text.contains("while it leaves") {
        let chunk = tokio::time::timeout(Duration::from_secs(30), stream.chunk()).await.expect("in time");
        text.push_str(&String::from_utf8_lossy(&chunk.expect("no error").expect("the stream goes on")));
    }
    assert_eq!(open(&service).await.expect("an answer").status(), 200);

    // Then streams end as they should, and the process with them.
    while let Some(chunk) = stream.chunk().await.expect("an end, not an error") {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    eventually(true, async || service.process.get("/probes/liveness").await.is_err()).await;
    tokio::time::timeout(Duration::from_secs(30), async {
        while service.process.ended().expect("the system tells").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it ends");
    // What was streamed is confirmed: the source keeps nothing for it but the newest.
    let confirmed = "SELECT pg_current_wal_lsn() - confirmed_flush_lsn < 100000 FROM pg_replication_slots
                     WHERE database = current_database()";
    let is_confirmed: bool = service.sql.query_one(confirmed, &[]).await.expect("answers").get(0);
    assert!(is_confirmed);
}
