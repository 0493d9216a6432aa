//! Replication from a real Postgres: what clients would see equals SQL, whatever happened in between.

use std::{sync::Arc, time::Duration};

use kairos_sync::{
    demo::cluster::PgCluster,
    storage::{Batch, BucketStore, MemoryStore, SqliteOptions, SqliteStore},
};

use crate::replica::{Replica, connect, source};

#[tokio::test]
async fn clients_equal_sql_after_every_kind_of_change() {
    let (cluster, client) = source().await;
    let sql = |text: &'static str| client.batch_execute(text);
    sql("INSERT INTO items SELECT 'i' || n, 'title ' || n, E'tab\\t newline\\n back\\\\slash' FROM generate_series(1, 12000) n")
        .await
        .expect("fills");
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    for change in [
        "INSERT INTO items VALUES ('new', 'one', NULL), ('ä \"q\"', '', '')",
        "UPDATE items SET title = 'changed' WHERE id IN ('i1', 'new')",
        "UPDATE items SET id = 'moved', title = NULL WHERE id = 'i2'",
        "DELETE FROM items WHERE id LIKE 'i1%'",
        "BEGIN; INSERT INTO items VALUES ('gone', 'x', 'y'); UPDATE items SET title = 'z' WHERE id = 'gone'; \
         DELETE FROM items WHERE id = 'gone'; COMMIT",
        "BEGIN; INSERT INTO items VALUES ('never', 'x', 'y'); ROLLBACK",
        "BEGIN; SAVEPOINT s; INSERT INTO items VALUES ('sub', 'x', 'y'); ROLLBACK TO s; \
         INSERT INTO items VALUES ('kept', 'x', 'y'); COMMIT",
        "UPDATE items SET id = 'swap' WHERE id = 'i3'; UPDATE items SET id = 'i3' WHERE id = 'i4'",
        "TRUNCATE items; INSERT INTO items VALUES ('after', 'truncate', NULL)",
    ] {
        sql(change).await.expect(change);
        replica.catch_up(&client).await;
        replica.assert_items_equal_sql(&client).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn unchanged_large_values_come_from_the_stored_row() {
    let (cluster, client) = source().await;
    let large = "repeat('large', 5000)";
    client.batch_execute(&format!("INSERT INTO items VALUES ('a', 'old', {large})")).await.expect("inserts");
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    for change in [
        "UPDATE items SET title = 'new' WHERE id = 'a'",
        "UPDATE items SET id = 'b' WHERE id = 'a'",
        "ALTER TABLE items REPLICA IDENTITY FULL",
        "UPDATE items SET title = 'full' WHERE id = 'b'",
        "UPDATE items SET id = 'c' WHERE id = 'b'",
        "ALTER TABLE items ADD extra text; ALTER TABLE items DROP extra",
        "UPDATE items SET title = 'again' WHERE id = 'c'",
    ] {
        client.batch_execute(change).await.expect(change);
        replica.catch_up(&client).await;
        replica.assert_items_equal_sql(&client).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn rows_follow_what_they_are_joined_to() {
    let (cluster, client) = source().await;
    // The dependent table is filled, and copied, first.
    client
        .batch_execute(
            "INSERT INTO completions SELECT 'c' || n, 'h' || n % 3 FROM generate_series(1, 3000) n;
             INSERT INTO habits VALUES ('h0', 'ann'), ('h1', 'bob')",
        )
        .await
        .expect("fills");
    let replica = Replica::start(&cluster);
    for (change, ann, bob) in [
        ("SELECT", 1001, 1001),
        ("UPDATE habits SET user_id = 'bob' WHERE id = 'h0'", 0, 2002),
        ("INSERT INTO habits VALUES ('h2', 'ann')", 1001, 2002),
        (
            "BEGIN; UPDATE habits SET user_id = 'ann' WHERE id = 'h0'; UPDATE completions SET habit_id = 'h0' \
          WHERE habit_id = 'h1'; COMMIT",
            3002,
            1,
        ),
        ("UPDATE completions SET habit_id = 'none' WHERE habit_id = 'h0'", 1002, 1),
        ("DELETE FROM habits WHERE user_id = 'ann'", 0, 1),
    ] {
        client.batch_execute(change).await.expect(change);
        replica.catch_up(&client).await;
        let counts = ["ann", "bob"].map(|user| replica.contents(user).len());
        assert_eq!(counts, [ann, bob], "after {change}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_restart_neither_loses_nor_repeats() {
    let (cluster, client) = source().await;
    let folder = tempfile::tempdir().expect("a folder");
    client.batch_execute("INSERT INTO items SELECT 'i' || n FROM generate_series(1, 100) n").await.expect("fills");
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).expect("a store");
    let mut replica = Replica::start_on(&cluster, Arc::new(store));
    replica.catch_up(&client).await;
    assert_eq!(replica.operation_count(), 100, "one operation per copied row");
    for round in 1..4_u64 {
        let stopped = replica.stop().await;
        let change = format!("INSERT INTO items VALUES ('while stopped {round}')");
        client.batch_execute(&change).await.expect("inserts");
        replica = stopped.start_again(&cluster);
        client.batch_execute(&format!("INSERT INTO items VALUES ('after start {round}')")).await.expect("inserts");
        replica.catch_up(&client).await;
        assert_eq!(replica.operation_count(), 100 + 2 * round, "one operation per change");
        replica.assert_items_equal_sql(&client).await;
    }
    let slots: i64 = client.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.expect("counts").get(0);
    assert_eq!(slots, 1);
    replica.stop().await;
}

// Stopping the server blocks this thread, and the server waits for the replicator to take the last of its WAL.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_crashes_is_followed_again() {
    let (cluster, client) = source().await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    for (mode, id) in [("immediate", "a"), ("fast", "b")] {
        let client = connect(&cluster).await;
        client.batch_execute(&format!("INSERT INTO items VALUES ('{id}')")).await.expect("inserts");
        cluster.stop(mode).expect("stops");
        replica.wait_until(|replica| replica.status.snapshot().last_error.is_some()).await;
        cluster.start_server().expect("starts");
        let client = connect(&cluster).await;
        replica.catch_up(&client).await;
        replica.assert_items_equal_sql(&client).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn what_cannot_be_continued_is_compared_and_clients_get_the_differences() {
    let (cluster, client) = source().await;
    client.batch_execute("INSERT INTO items VALUES ('a', 'one'), ('b', 'two')").await.expect("inserts");
    let mut replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let drop_slot = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
    let forge_slot = "SELECT pg_drop_replication_slot(slot_name), pg_create_logical_replication_slot(slot_name, 'pgoutput') \
                      FROM pg_replication_slots";
    for while_stopped in [
        drop_slot,
        forge_slot,
        "CREATE TABLE new_items AS SELECT * FROM items; DROP TABLE items; \
             CREATE TABLE items (id text PRIMARY KEY, title text, body text); INSERT INTO items SELECT * FROM new_items; \
             ALTER PUBLICATION kairos_sync ADD TABLE items",
    ] {
        let (prefix, before) = (replica.store.bucket_prefix().expect("a prefix"), replica.operation_count());
        let stopped = replica.stop().await;
        let change = "UPDATE items SET title = title || '.' WHERE id = 'b'";
        client.batch_execute(change).await.expect("writes");
        client.batch_execute(while_stopped).await.expect(while_stopped);
        replica = stopped.start_again(&cluster);
        replica.wait_for_stream().await;
        replica.catch_up(&client).await;
        replica.assert_items_equal_sql(&client).await;
        assert_eq!(replica.store.bucket_prefix().expect("a prefix"), prefix, "{while_stopped}");
        assert_eq!(replica.operation_count() - before, 1, "'b' has changed, and nothing else: {while_stopped}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn tables_that_change_while_streaming_never_give_wrong_rows() {
    let (cluster, client) = source().await;
    client.batch_execute("INSERT INTO items VALUES ('a', '1'), ('b', '2')").await.expect("inserts");
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    for change in [
        "ALTER TABLE items ALTER title TYPE bigint USING title::bigint; ALTER TABLE items ALTER title TYPE text; \
         UPDATE items SET title = '3' WHERE id = 'a'",
        "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (id, title); INSERT INTO items VALUES ('c', '4')",
        "ALTER TABLE items RENAME TO old_items; CREATE TABLE items (id text PRIMARY KEY, title text, body text); \
         ALTER PUBLICATION kairos_sync ADD TABLE items; INSERT INTO items VALUES ('d', '5')",
    ] {
        client.batch_execute(change).await.expect(change);
        replica.catch_up(&client).await;
        // The copy may have begun only now.
        replica.wait_for_stream().await;
        replica.catch_up(&client).await;
        replica.assert_items_equal_sql(&client).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn an_idle_source_lets_its_slot_move() {
    let (cluster, client) = source().await;
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    let visible = replica.visible_at().expect("visible");
    // WAL that concerns no published table.
    client.batch_execute("CREATE TABLE noise AS SELECT generate_series(1, 1000)").await.expect("writes");
    replica.catch_up(&client).await;
    assert!(replica.visible_at().expect("visible") > visible);
    let behind = "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn <= $1::text::pg_lsn";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let count: i64 = client.query_one(behind, &[&visible.to_string()]).await.expect("counts").get(0);
        if count == 0 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the slot stays where it was");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_announced_and_replaced() {
    let (cluster, client) = source().await;
    client.batch_execute("INSERT INTO items VALUES ('a', 'one')").await.expect("inserts");
    let store = Arc::new(MemoryStore::new());
    let unreadable = Batch { replication_state: Some("not JSON".into()), ..Batch::default() };
    store.commit(unreadable).expect("commits");
    let replica = Replica::start_on(&cluster, store);
    assert_eq!(replica.outcome().await.map_err(|(code, _)| code), Err("REPL-0101"));
    replica.catch_up(&client).await;
    replica.assert_items_equal_sql(&client).await;
    replica.stop().await;
}

/// A value of each kind, as SQL, and what clients get.
const VALUES: &[(&str, &str, &str)] = &[
    ("bool", "true", "1"),
    ("int2", "-32768", "-32768"),
    ("int8", "9223372036854775807", "9223372036854775807"),
    ("float4", "2.5", "2.5"),
    ("float8", "314", "314.0"),
    ("numeric", "12345678901234567890.10", "\"12345678901234567890.10\""),
    ("money", "'1000'", "\"$1,000.00\""),
    ("text", "E'tab\\tback\\\\slash'", "\"tab\\tback\\\\slash\""),
    ("char(4)", "'ab'", "\"ab  \""),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
    ("json", "'{ \"a\" : 1}'", "\"{ \\\"a\\\" : 1}\""),
    ("jsonb", "'{ \"a\" : 1}'", "\"{\\\"a\\\": 1}\""),
    ("date", "'infinity'", "\"9999-12-31\""),
    ("time", "'15:47:00'", "\"15:47:00\""),
    ("timestamp", "'2023-03-06 15:47:00.1234'", "\"2023-03-06 15:47:00.1234\""),
    ("timestamptz", "'2023-03-06 15:47:00+02'", "\"2023-03-06 13:47:00Z\""),
    ("timestamptz", "'0044-03-15 12:00:00 BC'", "null"),
    ("interval", "'1 day 2 hours'", "\"1 day 02:00:00\""),
    ("bit(4)", "B'0101'", "\"0101\""),
    ("inet", "'10.0.0.1/8'", "\"10.0.0.1/8\""),
    ("pg_lsn", "'16/B374D848'", "\"00000016/B374D848\""),
    ("point", "'(1,2)'", "\"(1,2)\""),
    ("int4range", "'[1,5)'", "\"[1,5)\""),
    ("tsvector", "'a:1 b:2'", "\"'a':1 'b':2\""),
    ("int4[]", "'{1,NULL,3}'", "\"[1,null,3]\""),
    ("text[]", "'{{one,1},{three,NULL}}'", "\"[[\\\"one\\\",\\\"1\\\"],[\\\"three\\\",null]]\""),
    ("timestamptz[]", "'{2023-03-06 15:47:00+02}'", "\"[\\\"2023-03-06 13:47:00Z\\\"]\""),
    ("mood", "'happy'", "\"happy\""),
    ("positive", "7", "\"7\""),
    ("pair", "ROW(1, 'x')", "\"(1,x)\""),
];

#[tokio::test]
async fn snapshot_and_stream_print_every_type_alike() {
    let cluster = PgCluster::start(None).expect("a server");
    let client = connect(&cluster).await;
    let columns: Vec<_> = VALUES.iter().enumerate().map(|(n, (ty, ..))| format!("v{n} {ty}")).collect();
    let values: Vec<_> = VALUES.iter().map(|(ty, value, _)| format!("({value})::{ty}")).collect();
    let insert = |id: &str| format!("INSERT INTO items VALUES ('{id}', {})", values.join(", "));
    // A database's own settings must not change what clients get.
    client
        .batch_execute(&format!(
            "ALTER DATABASE postgres SET DateStyle = 'German'; ALTER DATABASE postgres SET TimeZone = 'Asia/Kolkata';
             ALTER DATABASE postgres SET IntervalStyle = 'iso_8601'; ALTER DATABASE postgres SET bytea_output = 'escape';
             CREATE TYPE mood AS ENUM ('happy'); CREATE DOMAIN positive AS int CHECK (value > 0);
             CREATE TYPE pair AS (a int, b text);
             CREATE TABLE items (id text PRIMARY KEY, {});
             CREATE PUBLICATION kairos_sync FOR TABLE items; {}",
            columns.join(", "),
            insert("copied")
        ))
        .await
        .expect("prepares");
    let replica = Replica::start(&cluster);
    replica.catch_up(&client).await;
    client.batch_execute(&insert("streamed")).await.expect("inserts");
    replica.catch_up(&client).await;
    let rows = replica.contents("everything");
    for id in ["copied", "streamed"] {
        let row = &rows[&("items".to_owned(), id.to_owned())];
        for (n, (ty, _, expected)) in VALUES.iter().enumerate() {
            assert_eq!(row[format!("v{n}")].to_string(), *expected, "{ty}, {id}");
        }
    }
    replica.stop().await;
}
