//! Other schemas over the same file, and other files.

use super::*;

#[tokio::test]
async fn a_schema_change_keeps_rows_and_queue() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let data = r#"{"name":"Read","color":"red"}"#.to_owned();
    let put = service.operation("a", OpKind::Put, Some(("habits", "h1")), Some(data));
    bench.perform([put, service.full()]).await;
    bench.execute("INSERT INTO habits (id, name) VALUES ('h2', 'Run')").await.unwrap();
    let bench = bench.reopen(Schema::new([Table::new("habits").text("color").text("name").index(["color"])])).await;
    assert_eq!(bench.rows("SELECT * FROM habits ORDER BY id").await, ["h1|red|Read", "h2|NULL|Run"]);
    assert_eq!(bench.queue().await.len(), 1);
}

#[tokio::test]
async fn rows_of_a_table_declared_later_appear_with_the_next_checkpoint() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let put = service.operation("a", OpKind::Put, Some(("places", "p1")), Some(r#"{"name":"Home"}"#.to_owned()));
    bench.perform([put, service.full()]).await;
    let places = || Schema::new([Table::new("places").text("name")]);
    let bench = bench.reopen(places()).await;
    bench.perform([service.full()]).await;
    assert_eq!(bench.rows("SELECT * FROM places").await, ["p1|Home"]);

    let bench = bench.reopen(schema()).await;
    let remove = service.operation("a", OpKind::Remove, Some(("places", "p1")), None);
    bench.perform([remove, service.full()]).await;
    let bench = bench.reopen(places()).await;
    bench.perform([service.full()]).await;
    assert!(bench.rows("SELECT * FROM places").await.is_empty(), "what it missed meanwhile is made up for");
}

#[tokio::test]
async fn synced_rows_do_not_reach_a_table_kept_on_the_device() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let put = service.operation("a", OpKind::Put, Some(("drafts", "d1")), Some("{}".to_owned()));
    bench.perform([put, service.full()]).await;
    assert!(bench.rows("SELECT * FROM drafts").await.is_empty());
}

#[tokio::test]
async fn a_database_keeps_its_client_id() {
    let bench = Bench::new().await;
    let before = bench.store.read(identity::client_id).await.unwrap();
    let bench = bench.reopen(schema()).await;
    assert_eq!(bench.store.read(identity::client_id).await.unwrap(), before);
    assert_eq!(before.len(), 36);
}

#[tokio::test]
async fn odd_names_are_quoted() {
    let odd = Table::new("it's \"odd\"").text("a b").text("select").text("it's").index(["it's"]);
    let bench = Bench::new().await.reopen(Schema::new([odd])).await;
    bench.execute(r#"INSERT INTO "it's ""odd""" (id, "a b", "it's") VALUES ('1', 'x', 'y')"#).await.unwrap();
    bench.execute(r#"UPDATE "it's ""odd""" SET "select" = 'z'"#).await.unwrap();
    assert_eq!(bench.rows(r#"SELECT "a b", "select", "it's" FROM "it's ""odd""""#).await, ["x|z|y"]);
    assert_eq!(bench.queue().await.len(), 2);
}

#[tokio::test]
async fn files_of_others_and_of_later_versions_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert_eq!(Store::open(foreign, schema()).await.unwrap_err().code(), "CLIENT-0103");

    let path = folder.path().join("later.db");
    drop(Store::open(path.clone(), schema()).await.unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(Store::open(path, schema()).await.unwrap_err().code(), "CLIENT-0104");

    let text = folder.path().join("text.db");
    std::fs::write(&text, "not a database, but long enough to be looked at as one").unwrap();
    assert_eq!(Store::open(text, schema()).await.unwrap_err().code(), "CLIENT-0101");
}

/// Rows that were on this device alone are not lost when their table is synced: they are uploaded, and no checkpoint
/// takes them away before.
#[tokio::test]
async fn a_table_that_becomes_synced_uploads_the_rows_it_has() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    bench.execute("INSERT INTO drafts (id, body) VALUES ('d1', 'one'), ('d2', 'two')").await.unwrap();
    assert!(bench.queue().await.is_empty());
    let drafts = || Schema::new([Table::new("drafts").text("body")]);
    let bench = bench.reopen(drafts()).await;
    assert_eq!(bench.queue().await, [r#"PUT|drafts|d1|{"body":"one"}"#, r#"PUT|drafts|d2|{"body":"two"}"#]);
    let other = service.put("a", "h1", "Read");
    assert_eq!(bench.perform([other, service.full()]).await, Some(Outcome::Withheld));
    assert_eq!(bench.rows("SELECT body FROM drafts ORDER BY id").await, ["one", "two"]);
    let bench = bench.reopen(drafts()).await;
    assert_eq!(bench.queue().await.len(), 2, "once");
}
