//! No network, pages that are loaded again, a service that goes away.

use kairos_tests::{
    official::texts,
    service::{TestService, connect, eventually},
    web_client::WebClient,
};
use serde_json::json;

use super::{
    basics::{arrives, converges, synced},
    volume,
};

#[tokio::test]
async fn writes_made_offline_outlive_the_page_and_arrive_once() {
    let (mut service, tab) = synced().await;
    service
        .run(
            "CREATE TABLE arrivals (id text);
             CREATE FUNCTION note_arrival() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 'BEGIN INSERT INTO public.arrivals VALUES (coalesce(NEW.id, OLD.id)); RETURN NULL; END';
             CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON lists
                 FOR EACH ROW EXECUTE FUNCTION note_arrival();",
        )
        .await;
    service.process.terminate().await.expect("it ends");
    assert_eq!(
        tab.execute("INSERT INTO lists (id, owner, name) VALUES ('local', 'ann', 'Made offline')").await,
        json!(1)
    );
    tab.execute("UPDATE lists SET name = 'Renamed offline' WHERE id = 'list-2'").await;
    tab.execute("DELETE FROM lists WHERE id = 'list-6'").await;
    tab.reaches("pending").await;
    assert_eq!(tab.status("label").await, "3 pending");

    let server = json!({"endpoint": service.process.endpoint(), "tokens": [service.token("ann")]});
    tab.load(&server).await;
    tab.call(json!({"do": "connect"})).await;
    let held = tab.texts("SELECT id || ' ' || name FROM lists").await;
    assert!(held.contains("local Made offline") && held.contains("list-2 Renamed offline"), "{held:?}");
    assert!(!held.iter().any(|list| list.starts_with("list-6 ")), "{held:?}");
    tab.reaches("pending").await;

    service.process.restart().await.expect("it starts again");
    tab.call(json!({"do": "sync_now"})).await;
    arrives(&service, "Renamed offline").await;
    tab.reaches("synced").await;
    converges(&service, &tab).await;
    let twice = "SELECT id FROM arrivals GROUP BY id HAVING count(*) > 1";
    assert_eq!(texts(&service.sql, twice, &[]).await, [].into(), "written more than once");
    assert_eq!(texts(&service.sql, "SELECT id FROM arrivals", &[]).await.len(), 3);
    tab.call(json!({"do": "close"})).await;
}

/// What was promised to be on disk is there after the browser crashed.
#[tokio::test]
async fn writes_outlive_a_crash_of_the_browser() {
    let (mut service, tab) = synced().await;
    service.process.terminate().await.expect("it ends");
    let insert = async |n: u32| {
        tab.execute(&format!("INSERT INTO lists (id, owner, name) VALUES ('kept-{n}', 'ann', 'Kept {n}')")).await;
    };
    for n in 0..5 {
        insert(n).await;
    }
    tab.call(json!({"do": "crash"})).await;

    service.process.restart().await.expect("it starts again");
    tab.load(&json!({"endpoint": service.process.endpoint(), "tokens": [service.token("ann")]})).await;
    assert_eq!(tab.texts("SELECT id FROM lists WHERE id LIKE 'kept-%'").await.len(), 5);
    tab.call(json!({"do": "connect"})).await;
    arrives(&service, "Kept 4").await;
    tab.reaches("synced").await;
    converges(&service, &tab).await;
    assert_eq!(texts(&service.sql, "SELECT id FROM lists WHERE id LIKE 'kept-%'", &[]).await.len(), 5);
    tab.call(json!({"do": "close"})).await;
}

/// A write that has no room fails and changes nothing; the sync says what is wrong, and goes on when there is room.
#[tokio::test]
async fn without_room_nothing_is_damaged() {
    let (service, tab) = synced().await;
    tab.call(json!({"do": "quota", "bytes": 1})).await;
    let large = "UPDATE lists SET name = hex(zeroblob(3000000)) WHERE id = 'list-2'";
    let error = tab.fails(json!({"do": "execute", "sql": large})).await;
    assert!(error.contains("CLIENT-0101") && error.contains("is full"), "{error}");
    assert_eq!(tab.texts("SELECT name FROM lists WHERE id = 'list-2'").await, ["List 2".to_owned()].into());
    service.run("INSERT INTO todos SELECT 'large-' || n, 'list-2', repeat('x', 100000), false FROM generate_series(1, 90) n").await;
    eventually(json!("CLIENT-0101"), async || tab.status("code").await).await;
    assert_eq!(tab.status("message").await, "Can't write to this device's storage");

    tab.call(json!({"do": "quota"})).await;
    tab.call(json!({"do": "sync_now"})).await;
    converges(&service, &tab).await;
    tab.reaches("synced").await;
    assert_eq!(tab.texts("PRAGMA integrity_check").await, ["ok".to_owned()].into());
    tab.call(json!({"do": "close"})).await;
}

/// The source changes while an upload hangs: nothing of that is shown over what was written here.
#[tokio::test]
async fn nothing_is_shown_over_writes_that_are_not_up() {
    let (service, tab) = synced().await;
    let other = connect(&service.cluster.uri("postgres", &service.database)).await;
    other.batch_execute("BEGIN; LOCK TABLE lists IN EXCLUSIVE MODE").await.expect("it is locked");
    tab.execute("UPDATE lists SET name = 'Mine' WHERE id = 'list-2'").await;
    service.run("UPDATE todos SET title = 'From there' WHERE id = 'todo-1'").await;
    let arrived = async || tab.texts("SELECT max(last_op_id > last_applied_op_id) FROM kairos_bucket").await;
    eventually(["1".to_owned()].into(), arrived).await;
    assert_eq!(tab.texts("SELECT name FROM lists WHERE id = 'list-2'").await, ["Mine".to_owned()].into());
    assert_eq!(tab.texts("SELECT title FROM todos WHERE id = 'todo-1'").await, ["Todo 1".to_owned()].into());
    assert_eq!((tab.status("state").await, tab.status("pending").await), (json!("syncing"), json!(1)));

    other.batch_execute("COMMIT").await.expect("the lock is gone");
    arrives(&service, "Mine").await;
    converges(&service, &tab).await;
    tab.reaches("synced").await;
    tab.call(json!({"do": "close"})).await;
}

/// What arrived before a service is killed is not downloaded again.
#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let mut service = TestService::start(&volume::schema(), volume::RULES).await;
    service.wait_until_ready().await;
    let tab = WebClient::open(service.folder.path(), &volume::tables()).await;
    tab.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    let kept = async || tab.texts("SELECT coalesce(max(count_since_last), 0) > 1000 FROM kairos_bucket").await;
    eventually(["1".to_owned()].into(), kept).await;
    service.process.kill().expect("it is killed");
    assert_eq!(tab.texts("SELECT count(*) FROM readings").await, ["0".to_owned()].into(), "nothing is shown in part");

    service.process.restart().await.expect("it starts again");
    tab.call(json!({"do": "sync_now"})).await;
    volume::converges(&service, &tab).await;
    let sent = service.process.metric("powersync_operations_synced_total").await.expect("metrics are served");
    assert!(sent < u64::from(volume::ROWS), "all {sent} operations were sent again");
    tab.call(json!({"do": "close"})).await;
}
