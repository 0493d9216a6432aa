//! Many rows.

use std::time::Instant;

use kairos_tests::{
    service::{TestService, eventually},
    web_client::WebClient,
};
use serde_json::{Value, json};

pub(super) const ROWS: u32 = 50_000;

pub(super) const RULES: &str = r"
bucket_definitions:
  readings:
    parameters: SELECT request.user_id() AS owner
    data:
      - SELECT * FROM readings WHERE owner = bucket.owner
";

pub(super) fn schema() -> String {
    format!(
        "CREATE TABLE readings (id text PRIMARY KEY, owner text NOT NULL, sensor text, value float8, taken_at timestamptz);
         SELECT kairos.publish_table('readings');
         INSERT INTO readings SELECT 'reading-' || n, 'ann', 'sensor-' || n % 40, n / 8.0,
             timestamptz '2026-01-01' + n * interval '1 minute' FROM generate_series(1, {ROWS}) n;"
    )
}

pub(super) fn tables() -> Value {
    json!({"readings": {"columns": {"sensor": "text", "value": "real", "taken_at": "text"}, "indexes": [["sensor"]]}})
}

/// Sums of everything, as one line for each sensor.
pub(super) async fn converges(service: &TestService, tab: &WebClient) {
    let in_source = "SELECT sensor || ' ' || count(*) || ' ' || (sum(value) * 8)::bigint || ' ' || min(id) || ' ' || max(id)
        FROM (SELECT sensor, value, id COLLATE \"C\" AS id FROM readings WHERE owner = 'ann') AS readings GROUP BY sensor";
    let on_device =
        "SELECT sensor || ' ' || count(*) || ' ' || CAST(sum(value) * 8 AS INTEGER) || ' ' || min(id) || ' ' || max(id)
        FROM readings GROUP BY sensor";
    tab.converges(service, in_source, &[], on_device).await;
}

#[tokio::test]
async fn fifty_thousand_rows_come_in_a_first_sync() {
    let service = TestService::start(&schema(), RULES).await;
    service.wait_until_ready().await;
    let tab = WebClient::open(service.folder.path(), &tables()).await;
    let sql = "SELECT id FROM readings ORDER BY id LIMIT 1";
    tab.call(json!({"do": "live", "sql": sql})).await;
    let started = Instant::now();
    tab.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    let seen = async || tab.call(json!({"do": "seen", "sql": sql})).await["firstAt"].is_number();
    eventually(true, seen).await;
    println!("{ROWS} rows: the first is shown after {} ms", started.elapsed().as_millis());
    converges(&service, &tab).await;
    tab.reaches("synced").await;
    let Value::Array(history) = tab.call(json!({"do": "history"})).await else { panic!("a list of statuses") };
    let downloaded: Vec<_> = history.iter().filter_map(|status| status["progress"]["downloaded"].as_u64()).collect();
    assert!(downloaded.len() > 3 && downloaded.is_sorted(), "progress: {downloaded:?}");

    let plan = tab
        .call(json!({"do": "query", "sql": "EXPLAIN QUERY PLAN SELECT id FROM readings WHERE sensor = 'sensor-1'"}))
        .await;
    assert!(plan.to_string().contains("kairos_index__readings_0"), "{plan}");
    tab.call(json!({"do": "close"})).await;
}
