//! How fast the store looks after itself is a setting: at 0 it does nothing by itself.

use std::{fs, time::Duration};

use kairos_tests::service::{TestService, eventually};
use tokio::time::sleep;

const SCHEMA: &str = "CREATE TABLE items (id text PRIMARY KEY, body text); SELECT kairos.publish_table('items');";
const RULES: &str = "bucket_definitions: { everything: { data: [SELECT * FROM items] } }";
const OFF: &str = "storage: { compaction_bytes_per_second: 0, scrub_bytes_per_second: 0 }\n";
/// Longer than compaction waits before it looks again.
const A_WHILE: Duration = Duration::from_secs(7);

async fn metric(service: &TestService, name: &str) -> u64 {
    service.process.metric(name).await.unwrap_or_default()
}

#[tokio::test]
async fn at_a_rate_of_zero_nothing_is_compacted_or_scrubbed_until_there_is_another_one() {
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.reconfigure(OFF).await;
    service.wait_until_ready().await;
    service.run("INSERT INTO items SELECT n, repeat('x', 100) FROM generate_series(1, 400) n").await;
    for round in 0..5 {
        service.run(&format!("UPDATE items SET body = '{round}' || body")).await;
    }
    eventually(2_400, || metric(&service, "kairos_store_operations")).await;
    sleep(A_WHILE).await;
    assert_eq!(metric(&service, "kairos_store_operations").await, 2_400);
    assert_eq!(metric(&service, "kairos_store_scrubbed_bytes").await, 0);
    let config = fs::read_to_string(&service.config).expect("readable");
    fs::write(&service.config, config.replace(OFF, "")).expect("writable");
    service.reconfigure("").await;
    eventually(true, async || metric(&service, "kairos_store_operations").await <= 401).await;
    eventually(true, async || metric(&service, "kairos_store_scrubbed_bytes").await > 0).await;
}
