//! `kairos-sync store` as an operator runs it, on stores made through the library.

use std::{fs, path::Path, process::Command, time::SystemTime};

use kairos_sync::{
    lsn::Lsn,
    storage::{Batch, BucketStore, NewOperation, RowKey, RowOutput, SqliteOptions, SqliteStore, StoredRow, TableId},
};
use kairos_sync_protocol::{BucketName, Checksum};
use kairos_tests::service::service_binary;
use serde_json::Value;

fn store(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder, SqliteOptions::default()).expect("opens")
}

/// Two hundred versions of ten rows, each version in its own commit.
fn fill(folder: &Path) {
    let store = store(folder);
    let prefix = store.bucket_prefix().expect("reads");
    for version in 0..200_u32 {
        let output = |row: u32| RowOutput {
            bucket: BucketName::new(format!("{prefix}todos[\"user {}\"]", row % 2)),
            object_type: "todos".into(),
            object_id: row.to_string().into(),
        };
        let operation = |row: u32| NewOperation {
            output: output(row),
            subkey: "k".into(),
            checksum: Checksum::from_bits(version * 100 + row),
            data: Some(format!(r#"{{"id":"{row}","note":"secret {version}"}}"#).into()),
        };
        let stored = |row: u32| {
            let key = RowKey { table: TableId(1), identity: row.to_le_bytes().into() };
            (key, Some(StoredRow { outputs: vec![output(row)], ..StoredRow::default() }))
        };
        let batch = Batch {
            operations: (0..10).map(operation).collect(),
            rows: (0..10).map(stored).collect(),
            visible_at: Some(Lsn::new(u64::from(version) + 1)),
            ..Batch::default()
        };
        store.commit(batch).expect("commits");
    }
}

/// Exit code, standard output and standard error.
fn run(command: &str, folder: &Path, json: bool) -> (Option<i32>, String, String) {
    let mut process = Command::new(service_binary());
    process.args(["store", command, "--data-dir"]).arg(folder).args(json.then_some("--json"));
    let output = process.output().expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn json(command: &str, folder: &Path, exit: i32) -> Value {
    let (code, out, errors) = run(command, folder, true);
    assert_eq!((code, errors.as_str()), (Some(exit), ""), "{out}");
    serde_json::from_str(&out).expect("one JSON object")
}

#[test]
fn a_whole_store_is_verified_measured_and_compacted() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path());
    let found = json("verify", folder.path(), 0);
    assert_eq!(
        (&found["ok"], &found["operation_count"], &found["row_count"]),
        (&true.into(), &2_000.into(), &10.into())
    );
    let stats = json("stats", folder.path(), 0);
    let todos = &stats["definitions"][0];
    assert_eq!(
        [&todos["definition"], &todos["bucket_count"], &todos["operation_count"], &todos["row_count"]],
        [&Value::from("todos"), &2.into(), &2_000.into(), &10.into()]
    );
    let compacted = json("compact", folder.path(), 0);
    assert_eq!(compacted["before"]["operation_count"], 2_000);
    let left = compacted["after"]["operation_count"].as_u64().expect("a number");
    assert!((10..50).contains(&left), "{left} operations for 10 rows");
    assert_eq!(json("verify", folder.path(), 0)["operation_count"], left);
    let (code, out, _) = run("verify", folder.path(), false);
    assert_eq!(code, Some(0));
    assert!(out.ends_with("nothing is damaged\n"), "{out}");
}

#[test]
fn what_is_damaged_is_named_without_what_it_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path());
    json("compact", folder.path(), 0);
    let file = folder.path().join("buckets.sqlite3");
    let intact = fs::read(&file).expect("reads");
    let mut damaged_count = 0;
    for at in (0..intact.len()).step_by(997) {
        let mut bytes = intact.clone();
        bytes[at] ^= 4;
        fs::write(&file, &bytes).expect("writes");
        let (code, out, errors) = run("verify", folder.path(), false);
        assert!(!out.contains("secret") && !out.contains("user"), "{out}");
        if code == Some(1) {
            assert!(out.starts_with("damaged [STORE-01") && out.contains("look at the disk"), "{out}");
            damaged_count += 1;
        } else {
            assert!(code == Some(0) || errors.contains("STORE-01"), "{code:?} {errors}");
        }
    }
    assert!(damaged_count > 3, "{damaged_count} were noticed");
}

#[test]
fn a_store_in_use_or_elsewhere_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = store(folder.path());
    for command in ["verify", "stats", "compact", "delete"] {
        let (code, out, errors) = run(command, folder.path(), false);
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert!(errors.contains("error STORE-0103"), "{errors}");
        let nowhere = folder.path().join("nowhere");
        let (code, _, errors) = run(command, &nowhere, false);
        assert_eq!(code, Some(2));
        assert!(errors.contains("error STORE-0105"), "{errors}");
        assert!(!nowhere.exists(), "nothing is made");
    }
    drop(open);
    let written = |file: &str| fs::metadata(folder.path().join(file)).and_then(|file| file.modified());
    let before: Option<SystemTime> = written("buckets.sqlite3").ok();
    json("verify", folder.path(), 0);
    assert_eq!(written("buckets.sqlite3").ok(), before, "verifying writes nothing");
}
