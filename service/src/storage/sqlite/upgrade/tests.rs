//! Stores as former releases wrote them, made by their own SQL.

use bytes::Bytes;
use kairos_sync_protocol::OpId;

use super::{
    super::{
        super::{
            Batch, BucketStore, LookupKey, LookupValue, NewOperation, RowOutput, StoredRow, StoredRules,
            wire::{WireOperation, write_json},
        },
        SqliteOptions, SqliteStore, Verification,
        chunk_block::PackedBlock,
        codec,
        schema::APPLICATION_ID,
    },
    *,
};

/// All tables of format 2.
const FORMAT_2: &str = "
    CREATE TABLE head (
        id INTEGER PRIMARY KEY CHECK (id = 1), creation_id TEXT NOT NULL, generation INTEGER NOT NULL,
        version INTEGER NOT NULL, last_op_id INTEGER NOT NULL, last_bucket_id INTEGER NOT NULL,
        bucket_count INTEGER NOT NULL, operation_count INTEGER NOT NULL, row_count INTEGER NOT NULL,
        visible_op_id INTEGER, visible_lsn INTEGER);
    CREATE TABLE write_checkpoint (key TEXT PRIMARY KEY, id INTEGER NOT NULL, lsn INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE replication (id INTEGER PRIMARY KEY CHECK (id = 1), state BLOB NOT NULL);
    CREATE TABLE bucket (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, operation_count INTEGER NOT NULL,
        checksum INTEGER NOT NULL, last_op_id INTEGER NOT NULL);
    CREATE TABLE tail (first_op_id INTEGER PRIMARY KEY, block BLOB NOT NULL);
    CREATE TABLE chunk (
        id INTEGER PRIMARY KEY, bucket_id INTEGER NOT NULL, first_op_id INTEGER NOT NULL, last_op_id INTEGER NOT NULL,
        operation_count INTEGER NOT NULL, checksum INTEGER NOT NULL, json_bytes INTEGER NOT NULL, block BLOB NOT NULL);
    CREATE UNIQUE INDEX chunk_position ON chunk (bucket_id, last_op_id);
    CREATE TABLE row_tail (version INTEGER PRIMARY KEY, block BLOB NOT NULL);
    CREATE TABLE row (
        table_id INTEGER NOT NULL, identity BLOB NOT NULL, state BLOB NOT NULL,
        PRIMARY KEY (table_id, identity)) WITHOUT ROWID;
    CREATE TABLE lookup (
        key TEXT NOT NULL, table_id INTEGER NOT NULL, identity BLOB NOT NULL, value_list BLOB NOT NULL,
        PRIMARY KEY (key, table_id, identity)) WITHOUT ROWID;
    CREATE TABLE dependent (
        key TEXT NOT NULL, table_id INTEGER NOT NULL, identity BLOB NOT NULL,
        PRIMARY KEY (key, table_id, identity)) WITHOUT ROWID;
    INSERT INTO head VALUES (1, 'creation00', 3, 9, 4, 1, 1, 4, 2, 4, 77);
    INSERT INTO write_checkpoint VALUES ('u/1', 5, 70);
    INSERT INTO replication VALUES (1, x'0102');
    INSERT INTO bucket VALUES (1, 'b', 3, 6, 3);";

/// What only format 3 had.
const ONLY_FORMAT_3: &str = "
    UPDATE head SET serving = 2;
    INSERT INTO rules VALUES (1, x'03');
    INSERT INTO forgotten_bucket VALUES (1000);";

fn operation(id: u32) -> NewOperation {
    NewOperation {
        output: RowOutput { bucket: BucketName::new("b"), object_type: "t".into(), object_id: id.to_string().into() },
        subkey: "k".into(),
        checksum: Checksum::from_bits(id),
        data: Some("{}".into()),
    }
}

/// A block as it was: without anything at its end.
fn block(ids: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    let mut block = BlockBuilder::default();
    for id in ids {
        let op_id = OpId::new(id.into()).unwrap();
        block.push(BucketId(1), op_id, Checksum::from_bits(id), |out| write_json(op_id, &operation(id), out));
    }
    block.finish_with(&[]).unwrap()
}

fn row(image: &str) -> StoredRow {
    StoredRow { image: image.to_owned().into(), ..StoredRow::default() }
}

fn key(identity: &str) -> RowKey {
    RowKey { table: TableId(7), identity: identity.as_bytes().into() }
}

/// The record of a row in the tail as it was: without versions.
fn row_block(identity: &str, state: &StoredRow) -> Vec<u8> {
    let mut content = Vec::new();
    codec::put_number(&mut content, 7);
    codec::put_bytes(&mut content, identity.as_bytes());
    codec::put_number(&mut content, 1);
    codec::put_bytes(&mut content, &encoded(state));
    block::pack(&content).unwrap()
}

fn encoded(row: &StoredRow) -> Vec<u8> {
    let mut state = Vec::new();
    codec::encode_row(row, &[], &mut state);
    state
}

fn former_store(folder: &std::path::Path, format: u32) {
    let conn = Connection::open(folder.join("buckets.sqlite3")).unwrap();
    conn.execute_batch(FORMAT_2).unwrap();
    if format == 3 {
        conn.execute_batch(TO_3).unwrap();
        conn.execute_batch(ONLY_FORMAT_3).unwrap();
    }
    let json_bytes = |ids: std::ops::RangeInclusive<u32>| -> i64 {
        let length = |id: u32| {
            let mut json = Vec::new();
            write_json(OpId::new(id.into()).unwrap(), &operation(id), &mut json);
            i64::try_from(json.len()).unwrap()
        };
        ids.map(length).sum()
    };
    let chunk = "INSERT INTO chunk VALUES (NULL, 1, ?1, ?2, ?3, ?4, ?5, ?6)";
    conn.execute(chunk, (1, 2, 2, 3, json_bytes(1..=2), block(1..=2))).unwrap();
    conn.execute(chunk, (3, 3, 1, 3, json_bytes(3..=3), block(3..=3))).unwrap();
    conn.execute("INSERT INTO tail VALUES (4, ?1)", [block(4..=4)]).unwrap();
    conn.execute("INSERT INTO row_tail VALUES (9, ?1)", [row_block("recent", &row("recent"))]).unwrap();
    conn.execute("INSERT INTO row VALUES (7, ?1, ?2)", (b"placed", encoded(&row("placed")))).unwrap();
    let values = codec::encode_values(&[LookupValue("v".into())]);
    conn.execute("INSERT INTO lookup VALUES ('l', 7, ?1, ?2)", (b"placed", values)).unwrap();
    conn.execute("INSERT INTO dependent VALUES ('l', 7, ?1)", [b"placed"]).unwrap();
    conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    conn.pragma_update(None, "user_version", format).unwrap();
}

fn check(store: &SqliteStore, rules: Option<&StoredRules>) {
    let view = store.view().unwrap();
    let op_id = |id| OpId::new(id).unwrap();
    assert_eq!(view.checkpoint(), Some(Checkpoint { op_id: op_id(4), lsn: Lsn::new(77) }));
    let totals = BucketTotals { count: 4, checksum: Checksum::from_bits(10), last_op_id: op_id(4) };
    assert_eq!(view.bucket(&BucketName::new("b")).unwrap(), totals);
    let lookup = LookupKey("l".into());
    assert_eq!(view.lookup(&lookup).unwrap(), [LookupValue("v".into())]);
    assert_eq!(view.bucket_prefix(), "creation003#");
    drop(view);
    let range = store.operations(&BucketName::new("b"), OpId::ZERO, op_id(4), 1 << 20).unwrap();
    assert_eq!((range.count, range.last_op_id, range.valid_from), (4, op_id(4), OpId::ZERO));
    assert_eq!(store.row(&key("placed")).unwrap(), Some(row("placed")));
    assert_eq!(store.row(&key("recent")).unwrap(), Some(row("recent")));
    assert_eq!(store.dependents(&lookup, None, 9).unwrap(), [key("placed")]);
    assert_eq!(store.replication_state().unwrap(), Some(Bytes::from_static(&[1, 2])));
    let write_checkpoint = store.write_checkpoint(&WriteCheckpointKey("u/1".to_owned())).unwrap().unwrap();
    assert_eq!((write_checkpoint.id.get(), write_checkpoint.lsn), (5, Lsn::new(70)));
    assert_eq!(store.rules().unwrap().as_ref(), rules);
}

#[test]
fn stores_of_former_formats_are_read_on() {
    let of_3 = StoredRules { serving: DeploymentNumber(2), state: Bytes::from_static(&[3]) };
    for (format, rules) in [(2, None), (3, Some(of_3))] {
        let folder = tempfile::tempdir().unwrap();
        former_store(folder.path(), format);
        let open = || SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
        check(&open(), rules.as_ref());
        let store = open();
        check(&store, rules.as_ref());
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'former%'";
        let former: i64 = store.inner.writer().conn().query_row(tables, [], |row| row.get(0)).unwrap();
        assert_eq!(former, 0);
    }
}

/// Writes chunks as formats 4 and 5 had them.
fn write_former_chunks(conn: &Connection) {
    let mut chunks = Vec::new();
    each(conn, "SELECT id, block FROM chunk", |row| {
        chunks.push((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
        Ok(())
    })
    .unwrap();
    assert!(!chunks.is_empty());
    for (id, block) in chunks {
        let block = PackedBlock::read(&block).unwrap();
        let mut former = BlockBuilder::default();
        for WireOperation { op_id, checksum, json } in block.operations().unwrap() {
            former.push(block.bucket, op_id, checksum, |out| out.extend_from_slice(&json));
        }
        let former = former.finish_with(&block.links.encode()).unwrap();
        conn.execute("UPDATE chunk SET block = ?2 WHERE id = ?1", (id, former)).unwrap();
    }
}

/// Writes rows as formats 4 to 6 had them.
fn write_former_rows(conn: &Connection, rows: &[(RowKey, StoredRow)]) {
    let tables = "DROP TABLE row_run; DROP TABLE row_filter; DROP TABLE row_place; DROP TABLE row_block;
        CREATE TABLE row (
            table_id INTEGER NOT NULL, identity BLOB NOT NULL, state BLOB NOT NULL, sum INTEGER NOT NULL,
            PRIMARY KEY (table_id, identity)) WITHOUT ROWID;";
    conn.execute_batch(tables).unwrap();
    for (key, row) in rows {
        let state = encoded(row);
        let sum = Sum::of("row").number(key.table.0.into()).bytes(&key.identity).bytes(&state).finish();
        let sql = "INSERT INTO row VALUES (?1, ?2, ?3, ?4)";
        conn.execute(sql, (key.table.0, &*key.identity, state, sum)).unwrap();
    }
    let sum = Head::read(conn).unwrap().sum_of(18).finish();
    let columns = "ALTER TABLE head DROP COLUMN last_run_id; ALTER TABLE head DROP COLUMN last_row_block_id;";
    conn.execute_batch(columns).unwrap();
    conn.execute("UPDATE head SET sum = ?1", [sum]).unwrap();
}

#[test]
fn stores_of_formats_4_to_6_are_read_on() {
    for format in [4, 5, 6] {
        let folder = tempfile::tempdir().unwrap();
        let open = || SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
        let [bucket, damaged] = ["b", "damaged"].map(BucketName::new);
        let json = |store: &SqliteStore, bucket: &BucketName| {
            let range = store.operations(bucket, OpId::ZERO, OpId::new(99).unwrap(), 1 << 20)?;
            range.json.array()
        };
        let rows: Vec<_> =
            (0..2_000_u32).map(|number| (key(&format!("{number:04}")), row(&number.to_string()))).collect();
        let (totals, operations) = {
            let store = open();
            let mut operations: Vec<_> = (1..=10).map(operation).collect();
            operations[9].output.bucket = damaged.clone();
            let rows = rows.iter().map(|(key, row)| (key.clone(), Some(row.clone()))).collect();
            store.commit(Batch { operations, rows, visible_at: Some(Lsn::new(77)), ..Batch::default() }).unwrap();
            store.inner.fold().unwrap();
            (store.view().unwrap().bucket(&bucket).unwrap(), json(&store, &bucket).unwrap())
        };
        let conn = Connection::open(folder.path().join("buckets.sqlite3")).unwrap();
        if format < 6 {
            write_former_chunks(&conn);
        }
        write_former_rows(&conn, &rows);
        conn.execute("UPDATE chunk SET block = zeroblob(length(block)) WHERE last_op_id = 10", []).unwrap();
        if format == 4 {
            conn.execute_batch("DROP INDEX bucket_mending; ALTER TABLE bucket DROP COLUMN mending").unwrap();
        }
        conn.pragma_update(None, "user_version", format).unwrap();
        drop(conn);
        let store = open();
        assert_eq!(store.view().unwrap().bucket(&bucket).unwrap(), totals);
        assert_eq!(json(&store, &bucket).unwrap(), operations);
        assert_eq!(json(&store, &damaged).unwrap_err().code(), "STORE-0106");
        assert!(rows.iter().all(|(key, row)| store.row(key).unwrap().as_ref() == Some(row)));
        store.empty_buckets(std::slice::from_ref(&damaged)).unwrap();
        drop(store);
        assert!(Verification::of(folder.path(), &mut |_| {}).unwrap().is_whole());
        assert_eq!(open().damaged_buckets(9).unwrap(), [damaged]);
    }
}

#[test]
fn a_damaged_row_is_not_taken_along() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteStore::open(folder.path(), SqliteOptions::default());
    open().unwrap().commit(Batch { rows: vec![(key("a"), Some(row("a")))], ..Batch::default() }).unwrap();
    let conn = Connection::open(folder.path().join("buckets.sqlite3")).unwrap();
    write_former_rows(&conn, &[(key("a"), row("a"))]);
    conn.execute("UPDATE row SET state = zeroblob(length(state))", []).unwrap();
    conn.pragma_update(None, "user_version", 6).unwrap();
    drop(conn);
    for _ in 0..2 {
        assert_eq!(open().err().map(|error| error.code()), Some("STORE-0104"));
    }
}
