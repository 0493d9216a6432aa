//! What is explained is what devices have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use kairos_client::rusqlite::Connection;
use kairos_tests::service::{PATIENCE, TestService, eventually};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use super::{CLASSIC, KAIROS, STREAMS, USERS, client, explain, start, summary};

/// What a user's device has after it synced: per bucket the rows, each with its last operation.
async fn synced(service: &TestService, user: &str) -> Device {
    let (mut command, db) = client(service, user, &["--once"]);
    let output = timeout(PATIENCE, command.output()).await.expect("in time").expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    Device::read(&db)
}

/// (table on the device, id) to (bucket, op id).
type Rows = BTreeMap<(String, String), BTreeSet<(String, String)>>;

struct Device {
    buckets: BTreeSet<String>,
    rows: Rows,
}

impl Device {
    fn read(db: &Path) -> Self {
        let file = Connection::open(db).expect("a SQLite file");
        let mut statement = file.prepare("SELECT name FROM kairos_bucket").expect("SQL");
        let buckets =
            statement.query_map([], |row| row.get(0)).expect("runs").map(|name| name.expect("text")).collect();
        let sql = "SELECT row_type, row_id, b.name, op_id FROM kairos_oplog o JOIN kairos_bucket b ON b.id = o.bucket";
        let mut statement = file.prepare(sql).expect("SQL");
        let mut rows = Rows::new();
        let mut found = statement.query([]).expect("runs");
        while let Some(row) = found.next().expect("a row") {
            let op_id: i64 = row.get(3).expect("a number");
            let key = (row.get(0).expect("text"), row.get(1).expect("text"));
            rows.entry(key).or_default().insert((row.get(2).expect("text"), op_id.to_string()));
        }
        Self { buckets, rows }
    }
}

/// All buckets a user is said to have, page by page.
async fn explained_buckets(service: &TestService, user: &str, limit: usize) -> BTreeMap<String, Value> {
    let mut buckets = BTreeMap::new();
    let mut after = Value::Null;
    loop {
        let answer = explain(service, json!({"user_id": user, "bucket_limit": limit, "buckets_after": after})).await;
        let page = answer["buckets"]["page"].as_array().expect("a list");
        buckets.extend(page.iter().map(|bucket| (bucket["name"].as_str().expect("a name").to_owned(), bucket.clone())));
        after = answer["buckets"]["next_after"].clone();
        if after.is_null() {
            assert_eq!(answer["buckets"]["count"], json!(buckets.len()));
            return buckets;
        }
        assert_eq!(page.len(), limit);
    }
}

/// Compares what is explained with what devices have, for all users and all rows of these tables.
async fn compare(service: &TestService, tables: &[(&str, usize)]) {
    let (mut absent_count, mut present_count) = (0, 0);
    for user in USERS {
        let device = synced(service, user).await;
        compare_buckets(service, user, &device).await;
        for (table, count) in tables {
            let ids = service.sql.query(&format!("SELECT id::text FROM {table}"), &[]).await.expect("runs");
            assert_eq!(ids.len(), *count);
            for id in ids.iter().map(|row| row.get::<_, String>(0)) {
                let is_present = compare_row(service, user, &device, table, &id).await;
                *(if is_present { &mut present_count } else { &mut absent_count }) += 1;
            }
        }
    }
    assert!(absent_count > 20 && present_count > 20, "the data tells users apart: {absent_count}, {present_count}");
}

/// The buckets with something in them are those on the device, and each is explained.
async fn compare_buckets(service: &TestService, user: &str, device: &Device) {
    let buckets = explained_buckets(service, user, 3).await;
    let filled = buckets.iter().filter(|(_, bucket)| bucket["operation_count"] != json!(0));
    let filled: BTreeSet<_> = filled.map(|(name, _)| name.clone()).collect();
    assert!(filled.is_subset(&device.buckets), "{user}: {filled:?} {:?}", device.buckets);
    let on_device: BTreeSet<_> = device.rows.values().flatten().map(|(bucket, _)| bucket.clone()).collect();
    assert!(on_device.is_subset(&filled), "{user}: {on_device:?} {filled:?}");
    for (name, bucket) in &buckets {
        let origins = list(&bucket["origins"]);
        assert!(!origins.is_empty(), "{bucket}");
        for origin in origins {
            let values: Vec<_> = list(&origin["parameters"]).iter().map(|each| text(&each["value"])).collect();
            assert!(name.ends_with(&format!("[{}]", values.join(","))), "{bucket}");
            let are_known = list(&origin["lookups"]).iter().all(|lookup| lookup["row_count"].as_u64() > Some(0));
            assert!(are_known, "{bucket}");
        }
    }
}

/// The buckets of a row that a user has, and its operations there, are those on the device. Whether there are some.
async fn compare_row(service: &TestService, user: &str, device: &Device, table: &str, id: &str) -> bool {
    let answer = explain(service, json!({"user_id": user, "table": table, "id": id})).await;
    let row = &answer["row"];
    assert_eq!(row["state"], json!("stored"), "{answer:#}");
    let mut explained = Rows::new();
    for bucket in list(&row["buckets"]).iter().filter(|bucket| bucket["is_users"] == json!(true)) {
        let key = (text(&bucket["object_type"]), text(&bucket["object_id"]));
        explained.entry(key).or_default().insert((text(&bucket["name"]), text(&bucket["op_id"])));
    }
    let is_row = |(name, row_id): &(String, String)| row_id == id && is_of(name, table);
    let expected = device.rows.iter().filter(|(key, _)| is_row(key));
    let expected: Rows = expected.map(|(key, has)| (key.clone(), has.clone())).collect();
    assert_eq!(explained, expected, "{user} {table} {id}: {answer:#}");
    let summary = text(&answer["summary"]);
    assert_eq!(summary.contains(&format!("{user} gets row {id}")), !expected.is_empty(), "{summary}");
    // What the rules say of the row is where the store has it.
    let passes = list(&row["queries"]).iter().flat_map(|query| list(&query["passes"]));
    let by_rules: BTreeSet<_> = passes.flat_map(|pass| list(&pass["buckets"])).map(text).collect();
    let in_store: BTreeSet<_> = list(&row["buckets"]).iter().map(|bucket| text(&bucket["name"])).collect();
    assert_eq!(by_rules, in_store, "{answer:#}");
    !expected.is_empty()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Whether a table on devices is made of this table of the source.
fn is_of(name: &str, table: &str) -> bool {
    name == table || name.ends_with(&format!("_{table}"))
}

#[tokio::test]
async fn bucket_definitions_are_explained_as_devices_have_them() {
    let service = start(CLASSIC).await;
    compare(&service, &[("teams", 8), ("cards", 60)]).await;
    // Other rules come into force, and are what is explained.
    fs::write(service.folder.path().join("rules.yaml"), CLASSIC.replace(" AND archived = 0", "")).expect("writable");
    let hangup = Command::new("kill").args(["-HUP", &service.process.id().to_string()]).status().await;
    assert!(hangup.expect("kill runs").success());
    eventually(false, async || summary(&service, "ann", "cards", json!("15")).await.contains("on no device")).await;
    compare(&service, &[("teams", 8), ("cards", 60)]).await;
}

#[tokio::test]
async fn streams_are_explained_as_devices_have_them() {
    compare(&start(STREAMS).await, &[("teams", 8), ("cards", 60)]).await;
}

#[tokio::test]
async fn the_kairos_dialect_is_explained_as_devices_have_it() {
    let service = start(KAIROS).await;
    compare(&service, &[("teams", 8), ("cards", 60)]).await;
    // Also once rows have moved.
    service.run("UPDATE members SET user_id = 'nobody' WHERE user_id = 'bob' AND team_id <> 't1'; UPDATE cards SET owner = 'bob' WHERE id > 30").await;
    eventually(true, async || synced(&service, "nobody").await.rows.len() > 5).await;
    compare(&service, &[("teams", 8), ("cards", 60)]).await;
}

#[tokio::test]
async fn a_user_above_the_limit_is_explained_all_the_same() {
    let mut service = start(CLASSIC).await;
    let before = explained_buckets(&service, "ann", 1000).await;
    service.reconfigure("limits: { buckets_per_connection_max: 2 }\n").await;
    service.wait_until_ready().await;
    assert_eq!(explained_buckets(&service, "ann", 2).await, before);
    assert!(before.len() > 4, "{before:?}");
    let said = explain(&service, json!({"user_id": "ann"})).await["summary"].to_string();
    let expected = format!("{} buckets are more than limits.buckets_per_connection_max allows (2)", before.len());
    assert!(said.contains(&expected) && said.contains("PSYNC_S2305"), "{said}");
    let (mut command, _) = client(&service, "ann", &["--once", "--timeout", "5"]);
    let output = timeout(PATIENCE, command.output()).await.expect("in time").expect("it runs");
    assert_ne!(output.status.code(), Some(0), "so it is: {output:?}");
    let nobody = summary(&service, "nobody", "cards", json!("5")).await;
    assert!(nobody.contains("is on no device") || nobody.contains("does not have"), "{nobody}");
}
