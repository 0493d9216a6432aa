//! What the server sets itself, whatever a device sends.

use serde_json::{Value, json};

use super::{Desk, as_write_role};

const SQL: &str = "
    CREATE TABLE visits (
        id text PRIMARY KEY, note text, at timestamptz, at_text text, at_local timestamp, at_s bigint, device text
    );
    SELECT kairos.publish_table('visits', 'INSERT, UPDATE')";

const RULES: &str = "bucket_definitions: {}
write_rules:
  visits:
    allow: [put, patch]
    columns:
      stamp:
        at: upload.received_at()
        at_text: upload.received_at()
        at_local: upload.received_at()
        at_s: unixepoch(upload.received_at())
        device: upload.client_id()
    check: row.at_text = upload.received_at()
";

fn put(id: &str) -> Value {
    json!({ "op": "PUT", "table": "visits", "id": id,
            "data": { "note": "x", "at": "1970-01-01T00:00:00Z", "at_text": "never", "device": "another" } })
}

#[tokio::test]
async fn rows_bear_the_time_of_the_server_and_the_device_that_wrote_them() {
    // The check holds for the row as it was as well, which a second upload does not meet.
    let rules = RULES.replace("row.at_text = upload.received_at()", "true");
    let desk = Desk::with(SQL, &rules, as_write_role()).await;
    let before = desk.value("SELECT clock_timestamp()::text").await.expect("a time");
    let results = desk.upload("anna", json!({ "client_id": "phone", "batch": [put("1"), put("2")] })).await;
    assert!(results.iter().all(|result| result.code.is_none()), "{results:?}");
    let of_both = desk.count("SELECT count(DISTINCT (at, device)) FROM visits WHERE device = 'phone'").await;
    assert_eq!(of_both, 1, "the same moment for the whole batch");
    let agrees = format!(
        "SELECT count(*) FROM visits WHERE at BETWEEN '{before}' AND clock_timestamp()
             AND at_text = to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
             AND at_local = at AT TIME ZONE 'UTC' AND at_s = floor(extract(epoch FROM at))"
    );
    assert_eq!(desk.count(&agrees).await, 2);
    assert_eq!(desk.outcome("anna", json!({ "op": "PUT", "table": "visits", "id": "bare" })).await, "");
    assert_eq!(desk.count("SELECT count(*) FROM visits WHERE id = 'bare' AND at IS NOT NULL").await, 1);
    let nameless = json!({ "op": "PATCH", "table": "visits", "id": "1", "data": { "note": "y" } });
    assert_eq!(desk.outcome("anna", nameless).await, "");
    let later = "SELECT count(*) FROM visits v WHERE id = '1' AND device IS NULL AND at > (SELECT at FROM visits WHERE id = '2')";
    assert_eq!(desk.count(later).await, 1);
}

#[tokio::test]
async fn a_check_knows_the_moment_as_the_stamp_does() {
    let desk = Desk::with(SQL, RULES, as_write_role()).await;
    assert_eq!(desk.outcome("anna", put("1")).await, "");
    let open = RULES.replace("        at_text: upload.received_at()\n", "");
    let writer = desk.another_writer("kairos_service", &open, as_write_role());
    let answer = writer.upload(&super::principal("anna"), super::batch(put("2"))).await.expect("an answer");
    assert_eq!(super::codes(&answer.results), ["WRITE_CHECK"], "the device's own time is another one");
}
