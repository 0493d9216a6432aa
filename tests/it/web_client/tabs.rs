//! Several tabs on one database.

use std::collections::BTreeSet;

use kairos_tests::{official::texts, service::eventually};
use serde_json::json;

use super::basics::{arrives, converges, synced};

#[tokio::test]
async fn tabs_share_one_stream_and_one_goes_on_without_the_other() {
    let (service, first) = synced().await;
    let server = json!({"endpoint": service.process.endpoint(), "tokens": [service.token("ann")]});
    let other = first.open_tab("other", &server).await;
    converges(&service, &other).await;
    other.reaches("synced").await;
    let sql = "SELECT name FROM lists WHERE id = 'list-2'";
    other.call(json!({"do": "live", "sql": sql})).await;
    first.execute("UPDATE lists SET name = 'From the first' WHERE id = 'list-2'").await;
    let shown = async || {
        let seen = other.call(json!({"do": "seen", "sql": sql})).await;
        seen["runs"].as_array().and_then(|runs| runs.last().cloned())
    };
    eventually(Some(json!([{"name": "From the first"}])), shown).await;
    assert_eq!(other.execute("UPDATE lists SET name = 'From the other' WHERE id = 'list-2'").await, json!(1));
    arrives(&service, "From the other").await;
    converges(&service, &first).await;
    assert!(
        other.fails(json!({"do": "execute", "sql": "INSERT INTO lists (id) VALUES (7)"})).await.contains("CLIENT-0101")
    );
    let streams =
        async || service.process.metric("powersync_concurrent_connections").await.expect("metrics are served");
    eventually(1, streams).await;

    // The tab that leads goes without a word while the other writes.
    let writes = async |n: u32| {
        other.execute(&format!("INSERT INTO lists (id, owner, name) VALUES ('many-{n}', 'ann', 'Many {n}')")).await;
    };
    let closing = first.call(json!({"do": "close_tab"}));
    tokio::join!(writes(0), writes(1), writes(2), writes(3), writes(4), closing, writes(5), writes(6), writes(7));
    let many = || (0..8).map(|n| format!("Many {n}")).collect::<BTreeSet<_>>();
    eventually(many(), async || texts(&service.sql, "SELECT name FROM lists WHERE id LIKE 'many-%'", &[]).await).await;
    assert_eq!(other.rejected().await.len(), 0, "a write went up twice");
    service.run("UPDATE lists SET name = 'From the source' WHERE id = 'list-2'").await;
    eventually(Some(json!([{"name": "From the source"}])), shown).await;
    converges(&service, &other).await;
    other.reaches("synced").await;

    // It goes with a word.
    let third = other.open_tab("third", &server).await;
    other.call(json!({"do": "close"})).await;
    service.run("UPDATE lists SET name = 'For the third' WHERE id = 'list-2'").await;
    converges(&service, &third).await;
    third.execute("UPDATE lists SET name = 'From the third' WHERE id = 'list-2'").await;
    arrives(&service, "From the third").await;
    third.call(json!({"do": "close"})).await;
}
