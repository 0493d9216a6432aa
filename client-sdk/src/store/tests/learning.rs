//! Tables that nobody declared.

use super::*;
use crate::LocalDatabase;

async fn bench() -> (Bench, Service) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("client.db"), Schema::learned()).await.unwrap();
    (Bench { folder, store }, Service::default())
}

fn row(service: &mut Service, table: &str, id: &str, data: &str) -> StoreStep {
    service.operation("a", OpKind::Put, Some((table, id)), Some(data.to_owned()))
}

#[tokio::test]
async fn columns_are_those_of_the_rows_with_the_types_of_their_values() {
    let (bench, mut service) = bench().await;
    let first = row(&mut service, "items", "1", r#"{"id":"1","title":"Tea","count":9007199254740993,"price":2.0}"#);
    bench.perform([first, service.full()]).await;
    let types = "SELECT id, title, typeof(count) || count, typeof(price) || price FROM items";
    assert_eq!(bench.rows(types).await, ["1|Tea|integer9007199254740993|real2.0"]);

    let second = row(&mut service, "items", "2", r#"{"note":null,"title":7}"#);
    bench.perform([second, service.full()]).await;
    assert_eq!(bench.rows("SELECT * FROM items").await, ["1|Tea|9007199254740993|2.0|NULL", "2|7|NULL|NULL|NULL"]);
    let names = bench.rows("SELECT group_concat(name) FROM pragma_table_info('items')").await;
    assert_eq!(names, ["id,title,count,price,note"], "later columns come last");
}

#[tokio::test]
async fn an_empty_table_keeps_its_view_over_a_restart() {
    let (bench, mut service) = bench().await;
    let put = row(&mut service, "items", "1", r#"{"title":"Tea"}"#);
    bench.perform([put, service.full()]).await;
    let remove = service.operation("a", OpKind::Remove, Some(("items", "1")), None);
    bench.perform([remove, service.full()]).await;
    let bench = bench.reopen(Schema::learned()).await;
    assert!(bench.rows("SELECT id, title FROM items").await.is_empty());
    let put = row(&mut service, "items", "1", r#"{"title":"Milk","left":1}"#);
    bench.perform([put, service.full()]).await;
    assert_eq!(bench.rows("SELECT * FROM items").await, ["1|Milk|1"]);
}

#[tokio::test]
async fn nothing_is_learned_from_rows_that_are_not_visible_yet() {
    let (bench, mut service) = bench().await;
    let put = row(&mut service, "items", "1", r#"{"title":"Tea"}"#);
    bench.perform([put]).await;
    assert!(bench.rows("SELECT name FROM kairos_table").await.is_empty());
}

#[tokio::test]
async fn odd_names_are_columns_and_tables_like_others() {
    let (bench, mut service) = bench().await;
    let odd = r#"{"it's":1,"a\"b":2,"c\\d":3,"e f":4,"ID":5,"select":6,"Ti tle":7,"ti tle":8,"x.y":9,"z[0]":10}"#;
    let put = row(&mut service, "it's \"odd\"", "1", odd);
    let broken = row(&mut service, "broken", "1", "no row at all");
    bench.perform([put, broken, service.full()]).await;
    assert_eq!(bench.rows(r#"SELECT * FROM "it's ""odd""""#).await, ["1|1|2|3|4|5|6|7|8|9|10"]);
    assert_eq!(bench.rows("SELECT * FROM broken").await, ["1"]);
}

#[tokio::test]
async fn tables_that_no_view_can_show_are_passed_over() {
    let (bench, mut service) = bench().await;
    let steps = [
        row(&mut service, "items", "1", r#"{"title":"Tea"}"#),
        row(&mut service, "Items", "2", "{}"),
        row(&mut service, "kairos_kv", "3", "{}"),
        row(&mut service, "", "4", "{}"),
        service.full(),
    ];
    assert_eq!(bench.perform(steps).await, Some(PUBLISHED));
    assert_eq!(bench.rows("SELECT * FROM items").await, ["1|Tea"]);
    assert_eq!(bench.rows("SELECT name FROM kairos_table").await, ["items"]);
    assert_eq!(bench.rows("SELECT count(*) FROM kairos_oplog").await, ["4"], "they are stored all the same");
}

#[tokio::test]
async fn more_columns_than_a_view_can_have_are_left_out() {
    let (bench, mut service) = bench().await;
    let data: serde_json::Map<_, _> = (0..2_500).map(|n| (format!("c{n}"), n.into())).collect();
    let put = row(&mut service, "wide", "1", &serde_json::Value::Object(data).to_string());
    bench.perform([put, service.full()]).await;
    assert_eq!(bench.rows("SELECT c0, c1998 FROM wide").await, ["0|1998"]);
    assert_eq!(bench.rows("SELECT count(*) FROM pragma_table_info('wide')").await, ["2000"]);
}

#[tokio::test]
async fn learned_views_refuse_writes() {
    let (bench, mut service) = bench().await;
    let put = row(&mut service, "items", "1", r#"{"title":"Tea"}"#);
    bench.perform([put, service.full()]).await;
    let error = bench.execute("DELETE FROM items").await.unwrap_err();
    assert!(error.to_string().contains("cannot modify items because it is a view"), "{error}");
}

#[tokio::test]
async fn learned_tables_may_be_declared_later_but_not_the_other_way_round() {
    let (bench, mut service) = bench().await;
    let put = row(&mut service, "habits", "h1", r#"{"name":"Read","color":"red"}"#);
    bench.perform([put, service.full()]).await;
    let bench = bench.reopen(schema()).await;
    assert_eq!(bench.rows("SELECT * FROM habits").await, ["h1|Read|NULL|NULL"]);
    bench.execute("UPDATE habits SET name = 'Run'").await.unwrap();
    let refused = Store::open(bench.folder.path().join("client.db"), Schema::learned()).await.unwrap_err();
    assert_eq!(refused.code(), "CLIENT-0107");
    assert_eq!(bench.rows("SELECT name FROM habits").await, ["Run"]);
}

#[tokio::test]
async fn a_checkpoint_says_what_it_did_to_each_table() {
    let (bench, mut service) = bench().await;
    let steps = [
        row(&mut service, "items", "1", r#"{"title":"Tea"}"#),
        row(&mut service, "items", "2", r#"{"title":"Milk"}"#),
        row(&mut service, "notes", "1", "{}"),
        service.full(),
    ];
    let rows = |written, deleted| RowChanges { written, deleted };
    let expected = BTreeMap::from([("items".to_owned(), rows(2, 0)), ("notes".to_owned(), rows(1, 0))]);
    assert_eq!(bench.publish(steps).await, expected);
    let steps = [
        row(&mut service, "items", "1", r#"{"title":"Tea"}"#),
        service.operation("a", OpKind::Remove, Some(("items", "2")), None),
        service.operation("a", OpKind::Remove, Some(("items", "unknown")), None),
        service.full(),
    ];
    let expected = BTreeMap::from([("items".to_owned(), rows(0, 1))]);
    assert_eq!(bench.publish(steps).await, expected, "a row that stays the same is no change");
}

#[tokio::test]
async fn the_database_is_shown_from_outside_and_cannot_be_changed_there() {
    let (bench, mut service) = bench().await;
    let put = row(&mut service, "items", "1", r#"{"title":"Tea"}"#);
    service.bucket("empty");
    bench.perform([put, service.full()]).await;
    let path = bench.folder.path().join("client.db");
    let database = LocalDatabase::open(&path).unwrap();
    let table = &database.tables().unwrap()[0];
    assert_eq!((table.name.as_str(), table.columns.join(","), table.rows), ("items", "id,title".to_owned(), 1));
    let buckets = database.buckets().unwrap();
    assert_eq!(
        buckets.iter().map(|bucket| (bucket.name.as_str(), bucket.count)).collect::<Vec<_>>(),
        [("a", 1), ("empty", 0)]
    );

    let other = bench.folder.path().join("other.db");
    for sql in [
        "DELETE FROM kairos_oplog".to_owned(),
        "CREATE TABLE t (x)".to_owned(),
        "CREATE TEMP TABLE t (x)".to_owned(),
        "PRAGMA query_only = 0".to_owned(),
        "PRAGMA writable_schema = 1".to_owned(),
        format!("ATTACH '{}' AS other", other.display()),
        format!("VACUUM INTO '{}'", other.display()),
        "VACUUM".to_owned(),
        "DROP VIEW items".to_owned(),
        "REINDEX".to_owned(),
        "ANALYZE".to_owned(),
    ] {
        assert!(database.connection().execute_batch(&sql).is_err(), "{sql}");
    }
    assert!(!other.exists());
    let recursive = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3)
        SELECT sum(x) + (SELECT count(*) FROM items JOIN json_each('[1,2]')) FROM n";
    assert_eq!(database.connection().query_row(recursive, [], |row| row.get::<_, i64>(0)), Ok(8));
}
