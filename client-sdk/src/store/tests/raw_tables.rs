//! Tables of the app's own design.

use kairos_sync_protocol::{
    conflict::Choice,
    upload::{OpResult, Outcome as WriteOutcome},
};

use super::*;
use crate::raw_table::RawValue;

const SETUP: &str = "CREATE TABLE IF NOT EXISTS habits (
    id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL DEFAULT '?', count INTEGER CHECK (count < 100), here TEXT)";

fn habits() -> Table {
    Table::raw("habits", SETUP).text("name").integer("count")
}

async fn bench(table: Table) -> Bench {
    Bench::new().await.reopen(Schema::new([Table::new("notes").text("body")])).await.reopen(Schema::new([table])).await
}

fn put(service: &mut Service, id: &str, data: &str) -> StoreStep {
    service.operation("a", OpKind::Put, Some(("habits", id)), Some(data.to_owned()))
}

#[tokio::test]
async fn rows_arrive_and_go_without_being_queued() {
    let (bench, mut service) = (bench(habits()).await, Service::default());
    let steps = [put(&mut service, "h1", r#"{"id":"h1","name":"Read","count":3,"more":1}"#), service.full()];
    let written = bench.publish(steps).await;
    assert_eq!(written["habits"], RowChanges { written: 1, deleted: 0 });
    assert_eq!(bench.rows("SELECT * FROM habits").await, ["h1|Read|3|NULL"]);
    bench
        .store
        .write_as_sync(|tx| Ok::<_, StoreError>(tx.execute("UPDATE habits SET here = 'kept'", [])?))
        .await
        .unwrap();

    let steps = [put(&mut service, "h1", r#"{"name":"Write","count":null}"#), service.full()];
    bench.perform(steps).await;
    assert_eq!(bench.rows("SELECT * FROM habits").await, ["h1|Write|NULL|kept"]);
    let again = put(&mut service, "h1", r#"{"name":"Write","count":null}"#);
    assert!(bench.publish([again, service.full()]).await.is_empty(), "a row that is as it was is not written");

    let steps = [service.remove("a", "h1"), service.full()];
    assert_eq!(bench.publish(steps).await["habits"], RowChanges { written: 0, deleted: 1 });
    assert!(bench.habits().await.is_empty());
    assert!(bench.queue().await.is_empty());
}

#[tokio::test]
async fn what_the_app_writes_is_queued_by_its_declared_columns() {
    let bench = bench(habits().track_previous()).await;
    bench.execute("INSERT INTO habits (id, name, here) VALUES ('h1', 'Read', 'x')").await.unwrap();
    bench.execute("UPDATE habits SET name = 'Write', count = 2").await.unwrap();
    bench.execute("UPDATE habits SET here = 'y'").await.unwrap();
    bench
        .execute("INSERT INTO habits (id, name) VALUES ('h1', 'Run') ON CONFLICT (id) DO UPDATE SET name = 'Run'")
        .await
        .unwrap();
    bench.execute("DELETE FROM habits").await.unwrap();
    let queue = bench.rows("SELECT op, row_id, data, old FROM kairos_crud ORDER BY id").await;
    assert_eq!(
        queue,
        [
            r#"PUT|h1|{"name":"Read"}|NULL"#,
            r#"PATCH|h1|{"name":"Write","count":2}|{"name":"Read","count":null}"#,
            r#"PATCH|h1|{"name":"Run"}|{"name":"Write","count":2}"#,
            r#"DELETE|h1|NULL|{"name":"Run","count":2}"#,
        ]
    );
    assert!(bench.execute("INSERT INTO habits (id, name) VALUES (NULL, 'x')").await.is_err());
    bench.execute("INSERT INTO habits (id) VALUES ('h2')").await.unwrap();
    assert!(bench.execute("UPDATE habits SET id = 'h3'").await.is_err(), "an id stays");
}

#[tokio::test]
async fn local_writes_hold_a_checkpoint_back_and_are_taken_back_by_it() {
    let (bench, mut service) = (bench(habits()).await, Service::default());
    let steps = [put(&mut service, "h1", r#"{"name":"Read"}"#), service.full()];
    bench.perform(steps).await;
    bench.execute("UPDATE habits SET name = 'Mine'").await.unwrap();
    assert_eq!(bench.perform([service.full()]).await, Some(Outcome::Withheld));
    bench.upload(1).await;
    service.write_checkpoint = Some(1);
    assert_eq!(bench.perform([service.full()]).await, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h1|Read"], "the service did not take it");
}

#[tokio::test]
async fn the_apps_statements_are_run_with_what_they_ask_for() {
    let setup = "CREATE TABLE IF NOT EXISTS habits (id TEXT PRIMARY KEY, title TEXT, rest TEXT);
        CREATE TABLE IF NOT EXISTS gone (id TEXT)";
    let table = Table::raw("habits", setup)
        .put_with(
            "INSERT OR REPLACE INTO habits (title, rest, id) VALUES (upper(?1), ?2, ?3)",
            [RawValue::column("name"), RawValue::Rest, RawValue::Id],
        )
        .delete_with("INSERT INTO gone SELECT id FROM habits WHERE id = ?1", [RawValue::Id]);
    let (bench, mut service) = (bench(table).await, Service::default());
    let data = r#"{"id":"h1","name":"Read","big":9007199254740993,"real":0.5,"nested":[1],"nil":null}"#;
    let steps = [put(&mut service, "h1", data), service.full()];
    bench.perform(steps).await;
    let expected = r#"h1|READ|{"big":9007199254740993,"real":0.5,"nested":[1],"nil":null}"#;
    assert_eq!(bench.rows("SELECT * FROM habits").await, [expected]);
    let steps = [service.remove("a", "h1"), service.full()];
    bench.perform(steps).await;
    assert_eq!(bench.rows("SELECT id FROM gone").await, ["h1"]);
}

#[tokio::test]
async fn a_checkpoint_with_a_row_that_the_table_refuses_is_not_visible_at_all() {
    let (bench, mut service) = (bench(habits()).await, Service::default());
    let steps = [
        put(&mut service, "h1", r#"{"name":"Read"}"#),
        put(&mut service, "h2", r#"{"name":"Run","count":100}"#),
        service.full(),
    ];
    let error = bench.store.perform(steps.to_vec()).await.unwrap_err();
    assert_eq!(error.code(), "CLIENT-0113");
    assert!(error.to_string().contains("habits") && !format!("{error:?}").contains("Run"), "{error:?}");
    assert!(bench.habits().await.is_empty());
}

#[tokio::test]
async fn a_child_may_come_before_its_parent() {
    let setup = "CREATE TABLE IF NOT EXISTS habits (id TEXT PRIMARY KEY, name TEXT, parent TEXT REFERENCES habits)";
    let (bench, mut service) =
        (bench(Table::raw("habits", setup).text("name").text("parent")).await, Service::default());
    let steps =
        [put(&mut service, "child", r#"{"parent":"parent"}"#), put(&mut service, "parent", "{}"), service.full()];
    assert_eq!(bench.perform(steps).await, Some(PUBLISHED));
    assert_eq!(bench.rows("SELECT id, parent FROM habits ORDER BY id").await, ["child|parent", "parent|NULL"]);
}

#[tokio::test]
async fn a_table_that_becomes_the_apps_own_keeps_its_rows() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let steps = [service.put("a", "h1", "Read"), service.full()];
    bench.perform(steps).await;
    bench.execute("INSERT INTO habits (id, name) VALUES ('h2', 'waits for its upload')").await.unwrap();
    let bench = bench.reopen(Schema::new([habits()])).await;
    assert_eq!(bench.habits().await, ["h1|Read", "h2|waits for its upload"]);
    assert_eq!(bench.queue().await.len(), 1, "once");

    // Rows of a table that nobody declared before come with the next checkpoint.
    let later =
        || Table::raw("later", "CREATE TABLE IF NOT EXISTS later (id TEXT PRIMARY KEY, name TEXT)").text("name");
    bench.upload(1).await;
    service.write_checkpoint = Some(1);
    let put = service.operation("a", OpKind::Put, Some(("later", "l1")), Some(r#"{"name":"x"}"#.to_owned()));
    bench.perform([put, service.full()]).await;
    let bench = bench.reopen(Schema::new([habits(), later()])).await;
    bench.perform([service.full()]).await;
    assert_eq!(bench.rows("SELECT * FROM later").await, ["l1|x"]);

    // So do those that another statement writes in another way.
    let shouting = later().put_with(
        "INSERT OR REPLACE INTO later (id, name) VALUES (?1, ?2 || '!')",
        [RawValue::Id, RawValue::column("name")],
    );
    let bench = bench.reopen(Schema::new([shouting])).await;
    bench.perform([service.full()]).await;
    assert_eq!(bench.rows("SELECT * FROM later").await, ["l1|x!"]);

    // Back to a view, once the app's table has made room.
    bench.execute("DROP TABLE habits").await.unwrap();
    let bench = bench.reopen(schema()).await;
    bench.perform([service.full()]).await;
    assert_eq!(bench.habits().await, ["h1|Read"], "h2 was not taken by the service");
}

#[tokio::test]
async fn rows_kept_on_the_device_are_uploaded_once_their_table_is_the_apps_own() {
    let bench = Bench::new().await;
    bench.execute("INSERT INTO drafts (id, body) VALUES ('d1', 'one')").await.unwrap();
    let drafts =
        Table::raw("drafts", "CREATE TABLE IF NOT EXISTS drafts (id TEXT PRIMARY KEY, body TEXT)").text("body");
    let bench = bench.reopen(Schema::new([drafts])).await;
    assert_eq!(bench.rows("SELECT * FROM drafts").await, ["d1|one"]);
    assert_eq!(bench.queue().await, [r#"PUT|drafts|d1|{"body":"one"}"#]);
}

#[tokio::test]
async fn signing_out_empties_it_and_queues_nothing() {
    let bench = bench(habits()).await;
    bench.execute("INSERT INTO habits (id) VALUES ('h1')").await.unwrap();
    bench.store.write_as_sync(|tx| super::super::account::clear(tx)).await.unwrap();
    assert!(bench.habits().await.is_empty());
    assert!(bench.queue().await.is_empty());
}

#[tokio::test]
async fn a_write_that_was_not_taken_is_made_again() {
    let (bench, mut service) = (bench(habits()).await, Service::default());
    for write in ["INSERT INTO habits (id, name) VALUES ('h1', 'Read')", "UPDATE habits SET count = 7"] {
        bench.execute(write).await.unwrap();
        let slice = bench.store.read(crud::next_upload).await.unwrap().unwrap();
        let refused = OpResult {
            op_id: slice.batch.batch[0].op_id.clone(),
            table: "habits".to_owned(),
            id: Some("h1".to_owned()),
            row: None,
            outcome: WriteOutcome::Refused,
            code: None,
            message: None,
        };
        let id = "1".parse().ok();
        bench.store.write(move |tx| crud::acknowledge(tx, slice.last_id, &[refused], id)).await.unwrap();
    }
    service.write_checkpoint = Some(1);
    bench.perform([service.full()]).await;
    assert!(bench.habits().await.is_empty(), "taken back");
    for write in bench.store.read(attention::list).await.unwrap() {
        let resolve = move |tx: &rusqlite::Transaction<'_>| attention::resolve(tx, write.id, Choice::Mine, None);
        assert!(bench.store.write_as_sync(resolve).await.unwrap());
    }
    assert_eq!(bench.rows("SELECT id, name, count FROM habits").await, ["h1|Read|7"]);
    let queue = bench.rows("SELECT op, data FROM kairos_crud ORDER BY id").await;
    assert_eq!(queue, [r#"PUT|{"name":"Read"}"#, r#"PATCH|{"count":7}"#], "each once");
}

#[tokio::test]
async fn watchers_and_live_queries_know_it() {
    let bench = bench(habits()).await;
    let tables = bench.store.tables_read_by("SELECT h.name FROM Habits h".to_owned()).await.unwrap();
    assert_eq!(tables.into_iter().collect::<Vec<_>>(), ["habits"]);
    let mut watch = bench.store.changes().watch(&["habits"]);
    bench.execute("INSERT INTO habits (id) VALUES ('h1')").await.unwrap();
    assert!(watch.changed().await);
    let facts = bench.store.read(crate::store::facts).await.unwrap();
    assert_eq!((facts.tables[0].name.as_str(), facts.tables[0].rows), ("habits", 1));
}
