//! The ledger of uploads lies in the source and may be published with all tables: what the service writes must not keep
//! it busy reading what it wrote.

use kairos_sync::postgres::SourceConfig;

use crate::{
    replica::Replica,
    write::{Desk, habit},
};

const RULES: &str = "bucket_definitions: {everything: {data: [SELECT * FROM habits]}}";

#[tokio::test]
async fn an_upload_is_followed_by_silence_though_everything_is_published() {
    let desk = Desk::alone().await;
    let publish = "DROP PUBLICATION kairos_sync; CREATE PUBLICATION kairos_sync FOR ALL TABLES";
    desk.admin.batch_execute(publish).await.expect("publishes");
    let mut source = SourceConfig::from_uri(&desk.cluster.uri("postgres", &desk.database)).expect("a usable URI");
    // A heartbeat would be counted.
    source.heartbeat = None;
    let replica = Replica::start_reading(source, RULES);
    replica.catch_up(&desk.admin).await;
    replica.wait_for_stream().await;
    let mut write = habit("h1", "anna");
    write["op_id"] = 1.into();
    assert_eq!(desk.outcome("anna", serde_json::json!({ "client_id": "phone", "batch": [write] })).await, "");
    assert_eq!(desk.count("SELECT count(*) FROM kairos.write_ledger").await, 1, "the ledger is in this database");
    replica.catch_up(&desk.admin).await;
    replica.wait_for_ids("everything", &["h1"]).await;
    let (read, written) = (replica.transaction_count(), replica.operation_count());
    let rounds = 20;
    for _ in 0..rounds {
        replica.catch_up(&desk.admin).await;
    }
    // Each round writes one message and waits for it; whatever else there was would have been read before it. Both counts
    // may miss the last transaction, which is seen before it is counted.
    let more = replica.transaction_count() - read;
    assert!((rounds - 1..=rounds + 1).contains(&more), "{more} transactions in {rounds} rounds");
    assert_eq!(replica.operation_count(), written);
    replica.stop().await;
}
