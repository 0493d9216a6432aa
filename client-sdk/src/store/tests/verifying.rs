//! What is stored is checked against what arrived.

use std::path::PathBuf;

use rusqlite::Connection;

use super::*;
use crate::{LocalDatabase, Verification};

fn path(bench: &Bench) -> PathBuf {
    bench.folder.path().join("client.db")
}

fn verify(bench: &Bench) -> Verification {
    LocalDatabase::open(path(bench)).unwrap().verify().unwrap()
}

/// Changes the file behind the client's back.
fn damage(bench: &Bench, sql: &str) {
    let changed = Connection::open(path(bench)).unwrap().execute(sql, []).unwrap();
    assert_eq!(changed, 1, "{sql}");
}

/// Names of buckets, and tables with how many rows, that differ.
fn differing(found: &Verification) -> (Vec<&str>, Vec<(&str, u64)>) {
    let buckets = found.buckets.iter().filter(|bucket| !bucket.is_ok()).map(|bucket| bucket.bucket.name.as_str());
    let tables = found.tables.iter().filter(|table| table.rows_differing > 0);
    (buckets.collect(), tables.map(|table| (table.name.as_str(), table.rows_differing)).collect())
}

/// Two buckets after all kinds of operations.
async fn filled() -> (Bench, Service) {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let steps = [
        service.put("a", "h1", "Read"),
        service.put("a", "h2", "Run"),
        service.put("a", "h1", "Write"),
        service.operation("a", OpKind::Move, None, None),
        service.remove("a", "h2"),
        service.remove("a", "unknown"),
        service.put("b", "h3", "forgotten"),
        service.operation("b", OpKind::Clear, None, None),
        service.put("b", "h4", "Swim"),
        service.put("b", "h5", "Row"),
        service.full(),
    ];
    assert_eq!(bench.perform(steps).await, Some(PUBLISHED));
    assert!(verify(&bench).is_ok());
    (bench, service)
}

#[tokio::test]
async fn everything_adds_up_also_when_more_has_arrived() {
    let (bench, mut service) = filled().await;
    let next = [service.put("a", "h1", "Sing"), service.remove("b", "h4"), service.put("c", "h9", "New")];
    bench.perform(next).await;
    let found = verify(&bench);
    assert_eq!(differing(&found), (vec![], vec![]));
    let [a, b, c] = &found.buckets[..] else { panic!("{found:?}") };
    assert_eq!((a.bucket.count, a.bucket.count_since, a.stored), (6, 1, 1));
    assert_eq!((b.bucket.count, b.bucket.count_since, b.stored), (4, 1, 1));
    assert_eq!((c.bucket.announced, c.expected), (None, service.bucket("c").checksum));
    bench.perform([service.full()]).await;
    let found = verify(&bench);
    assert!(found.is_ok());
    assert_eq!(found.buckets[2].bucket.announced, Some(service.bucket("c").checksum));
}

#[tokio::test]
async fn rows_that_wait_for_their_upload_are_no_difference() {
    let (bench, mut service) = filled().await;
    bench.execute("UPDATE habits SET name = 'Mine' WHERE id = 'h1'").await.unwrap();
    bench.execute("DELETE FROM habits WHERE id = 'h4'").await.unwrap();
    bench.execute("INSERT INTO habits (id) VALUES ('h7')").await.unwrap();
    assert!(verify(&bench).is_ok());
    bench.upload(1).await;
    service.write_checkpoint = Some(1);
    bench.perform([service.full()]).await;
    assert!(verify(&bench).is_ok());
}

#[tokio::test]
async fn whatever_changes_on_disk_is_found_and_named() {
    let a = (vec!["a"], vec![("habits", 1)]);
    for (sql, expected) in [
        ("UPDATE kairos_oplog SET data = replace(data, 'Write', 'Wrote') WHERE bucket = 1", a.clone()),
        ("DELETE FROM kairos_oplog WHERE bucket = 1", a.clone()),
        ("UPDATE kairos_oplog SET data = x'00ff' WHERE bucket = 1", a.clone()),
        ("UPDATE kairos_oplog SET row_id = 'h0' WHERE bucket = 1", (vec!["a"], vec![("habits", 2)])),
        ("INSERT INTO kairos_oplog VALUES (1, 5, 'habits', 'h8', '', '{}', 0)", a.clone()),
        ("UPDATE kairos_oplog SET checksum = 1 WHERE bucket = 1", (vec![], vec![])),
        ("UPDATE kairos_bucket SET retired_checksum = 1 WHERE id = 2", (vec!["b"], vec![])),
        ("UPDATE kairos_bucket SET announced_checksum = 1 WHERE id = 2", (vec!["b"], vec![])),
        ("UPDATE kairos_data__habits SET data = '{}' WHERE id = 'h1'", (vec![], vec![("habits", 1)])),
        ("DELETE FROM kairos_data__habits WHERE id = 'h5'", (vec![], vec![("habits", 1)])),
        ("INSERT INTO kairos_data__notes (id, data) VALUES ('n1', '{}')", (vec![], vec![("notes", 1)])),
    ] {
        let (bench, _) = filled().await;
        damage(&bench, sql);
        assert_eq!(differing(&verify(&bench)), expected, "{sql}");
    }
}

#[tokio::test]
async fn what_is_repaired_is_downloaded_and_shown_again() {
    let (bench, service) = filled().await;
    damage(&bench, "UPDATE kairos_oplog SET data = replace(data, 'Swim', 'Swam') WHERE row_id = 'h4'");
    damage(&bench, "UPDATE kairos_data__habits SET data = '{}' WHERE id = 'h1'");
    damage(&bench, "INSERT INTO kairos_data__habits (id, data) VALUES ('h0', '{}')");
    let found = bench.store.write(|tx| crate::store::repair(tx)).await.unwrap();
    assert_eq!(differing(&found), (vec!["b"], vec![("habits", 3)]));
    let states = bench.store.bucket_states().await.unwrap();
    assert_eq!(states.iter().map(|state| state.name.as_str()).collect::<Vec<_>>(), ["a"], "b is fetched anew");

    let mut again = Service { last_op_id: 6, ..service.clone() };
    let steps = [
        again.put("b", "h3", "forgotten"),
        again.operation("b", OpKind::Clear, None, None),
        again.put("b", "h4", "Swim"),
        again.put("b", "h5", "Row"),
        service.full(),
    ];
    assert_eq!(bench.perform(steps).await, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h1|Write", "h4|Swim", "h5|Row"]);
    assert!(verify(&bench).is_ok());
}

#[tokio::test]
async fn an_operation_that_comes_twice_is_noticed_by_the_checksum_alone() {
    let (bench, mut service) = filled().await;
    let twice = service.put("a", "h1", "Twice");
    let outcome = bench.perform([twice.clone(), twice, service.full()]).await;
    assert_eq!(outcome, Some(Outcome::Damaged(vec!["a".to_owned()])));
}

#[tokio::test]
async fn a_database_of_the_first_version_is_taken_over() {
    let (bench, mut service) = filled().await;
    let put = service.put("a", "h6", "half of the next checkpoint");
    bench.perform([put]).await;
    let old = path(&bench);
    {
        let connection = Connection::open(&old).unwrap();
        connection
            .execute_batch(
                "DROP TABLE kairos_column; ALTER TABLE kairos_oplog DROP COLUMN checksum;
                 ALTER TABLE kairos_bucket DROP COLUMN retired_checksum;
                 ALTER TABLE kairos_bucket DROP COLUMN announced_checksum; DROP TABLE kairos_former_client; DROP TABLE kairos_subscription;
                 ALTER TABLE kairos_rejected_write DROP COLUMN outcome;
                 ALTER TABLE kairos_rejected_write DROP COLUMN base;
                 ALTER TABLE kairos_rejected_write DROP COLUMN theirs;
                 ALTER TABLE kairos_table DROP COLUMN is_raw;
                 ALTER TABLE kairos_table DROP COLUMN staged_rows; ALTER TABLE kairos_bucket DROP COLUMN has_unstaged;
                 DROP TRIGGER kairos_crud_queued; ALTER TABLE kairos_touched_row DROP COLUMN is_local;
                 CREATE TRIGGER kairos_crud_queued AFTER INSERT ON kairos_crud BEGIN SELECT 1; END;
                 ALTER TABLE kairos_data__habits DROP COLUMN staged; ALTER TABLE kairos_data__notes DROP COLUMN staged;
                 ALTER TABLE kairos_data__drafts DROP COLUMN staged;
                 DELETE FROM kairos_kv WHERE key = 'first_synced_priority'; PRAGMA user_version = 1;",
            )
            .unwrap();
    }
    assert_eq!(LocalDatabase::open(&old).unwrap_err().code(), "CLIENT-0106");
    let bench = bench.reopen(schema()).await;
    assert_eq!(bench.store.local_state().first_synced_priority, Some(u8::MAX));
    let found = verify(&bench);
    assert!(found.is_ok(), "{found:?}");
    let announced: Vec<_> = found.buckets.iter().map(|bucket| bucket.bucket.announced.is_some()).collect();
    assert_eq!(announced, [false, true], "what was announced is not known where more has arrived");
    let next = service.put("b", "h4", "Dive");
    bench.perform([next, service.full()]).await;
    assert!(verify(&bench).is_ok());
    assert!(bench.habits().await.contains(&"h6|half of the next checkpoint".to_owned()));
}
