//! What SQLite writes ahead.

use super::*;

/// SQLite's log is brought into the file by nobody who writes, and is as short as ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_short() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let log = bench.folder.path().join("client.db-wal");
    let length = || log.metadata().unwrap().len() >> 20;
    for first in (0..40_000).step_by(2_000) {
        bench.perform([service.rows(first, 2_000)]).await;
    }
    let file = bench.folder.path().join("client.db").metadata().unwrap().len() >> 20;
    assert!(file > 4 && length() < 8, "{} MiB of log beside {file} MiB", length());
    for _ in 0..3_000 {
        bench.execute("INSERT INTO habits (id, name) VALUES (uuid(), 'Read')").await.unwrap();
    }
    assert!(length() < 20, "{} MiB of log after many writes", length());
}
