//! Two devices change the same row, each without knowing of the other: what becomes of it under each strategy.

use kairos_sync_protocol::upload::{OpResult, Outcome};
use serde_json::{Value, json};

use super::{Desk, as_write_role};

const NOTES: &str = "
    CREATE DOMAIN word AS text NOT NULL DEFAULT 'w' CHECK (value <> '');
    CREATE DOMAIN money_like AS numeric(8, 2);
    CREATE TABLE notes (
        id text PRIMARY KEY, owner text NOT NULL, a text, b text, price numeric(10, 2), doc jsonb, tags text[],
        list jsonb, text_list text, n bigint, kind word, price_of money_like, amount numeric, version int NOT NULL DEFAULT 0, at timestamptz, at_text text, at_ms bigint,
        hidden text DEFAULT 'planted', stamped text
    );
    SELECT kairos.publish_table('notes', 'INSERT, UPDATE, DELETE')";

pub(super) async fn desk(conflict: &str) -> Desk {
    desk_with(conflict, "row.owner = auth.user_id()").await
}

async fn desk_with(conflict: &str, check: &str) -> Desk {
    Desk::with(NOTES, &rules_of(conflict, check), as_write_role()).await
}

fn rules_of(conflict: &str, check: &str) -> String {
    format!(
        "bucket_definitions: {{}}
write_rules:
  notes:
    allow: {}
    columns: {{ deny: [hidden], stamp: {{ stamped: auth.user_id() }} }}
    check: {check}
    conflict: {conflict}
",
        if conflict == "append_only" { "[put]" } else { "[put, patch, delete]" },
    )
}

pub(super) async fn upload(desk: &Desk, op: &str, data: Value, old: Value) -> OpResult {
    let mut entry = json!({ "op": op, "table": "notes", "id": "n1" });
    for (key, value) in [("data", data), ("old", old)] {
        if !value.is_null() {
            entry[key] = value;
        }
    }
    desk.upload("anna", entry).await.remove(0)
}

pub(super) async fn row(desk: &Desk) -> Value {
    let row = desk.value("SELECT to_jsonb(notes)::text FROM notes WHERE id = 'n1'").await.expect("a row");
    serde_json::from_str(&row).expect("JSON")
}

pub(super) async fn start(desk: &Desk, columns: &str, values: &str) {
    let sql = format!("DELETE FROM notes; INSERT INTO notes (id, owner, {columns}) VALUES ('n1', 'anna', {values})");
    desk.admin.batch_execute(&sql).await.expect("a row");
}

fn outcome(result: &OpResult) -> (Outcome, &str) {
    (result.outcome, result.code.as_deref().unwrap_or_default())
}

#[tokio::test]
async fn the_row_comes_back_with_a_conflict_in_what_devices_may_write() {
    let desk = desk("server_wins").await;
    start(&desk, "a, price", "'theirs', 1.5").await;
    let result = upload(&desk, "PATCH", json!({ "a": "mine" }), json!({ "a": "before" })).await;
    assert_eq!(outcome(&result), (Outcome::Conflict, "WRITE_CONFLICT"));
    let row = result.row.expect("the row");
    assert_eq!((&row["a"], &row["price"], &row["id"]), (&json!("theirs"), &json!("1.50"), &json!("n1")));
    assert!(!row.contains_key("hidden") && !row.contains_key("stamped"), "{row:?}");
    let result = upload(&desk, "DELETE", Value::Null, json!({ "a": "before" })).await;
    assert_eq!(outcome(&result), (Outcome::Conflict, "WRITE_CONFLICT"));
    for (op, data) in [("PATCH", json!({ "a": "mine" })), ("DELETE", Value::Null)] {
        assert_eq!(outcome(&upload(&desk, op, data, Value::Null).await), (Outcome::Refused, "WRITE_BASE_MISSING"));
    }
    // The same values, as a device has them and not as Postgres prints them.
    let result = upload(&desk, "PATCH", json!({ "a": "mine" }), json!({ "a": "theirs", "price": 1.5 })).await;
    assert_eq!(outcome(&result), (Outcome::Applied, ""));
    let result = upload(&desk, "DELETE", Value::Null, json!({ "a": "mine", "price": 1.5 })).await;
    assert_eq!(outcome(&result), (Outcome::Applied, ""));
    let result = upload(&desk, "PATCH", json!({ "a": "late" }), json!({ "a": "mine" })).await;
    assert_eq!(outcome(&result), (Outcome::Conflict, "WRITE_CONFLICT"), "others deleted it");
    assert_eq!((desk.written("conflict"), desk.written("refused")), (3, 2));
}

/// Rows with conflicts come back up to a bound, however many there are.
#[tokio::test]
async fn an_answer_is_bounded() {
    let desk = desk("server_wins").await;
    let sql = "INSERT INTO notes (id, owner, a, b) SELECT n, 'anna', 'theirs', repeat('x', 1000000) FROM generate_series(1, 8) n";
    desk.admin.batch_execute(sql).await.expect("rows");
    let patch =
        |id: i32| json!({ "op": "PATCH", "table": "notes", "id": id, "data": { "a": "mine" }, "old": { "a": "?" } });
    let results = desk.upload("anna", (1..9).map(patch).collect()).await;
    assert!(results.iter().all(|result| result.outcome == Outcome::Conflict));
    assert_eq!(results.iter().filter(|result| result.row.is_some()).count(), 4, "a megabyte each");
}

/// Domains that take no NULL, and numbers of which the device has another spelling, are compared as what they are.
#[tokio::test]
async fn domains_are_compared_by_their_base() {
    let desk = desk("merge_fields").await;
    start(&desk, "price_of", "2").await;
    let result =
        upload(&desk, "PATCH", json!({ "kind": "k", "price_of": "3" }), json!({ "kind": "w", "price_of": "2.0" }))
            .await;
    assert_eq!(outcome(&result), (Outcome::Applied, ""), "{result:?}");
    let put = upload(&desk, "PUT", json!({ "kind": "other" }), Value::Null).await;
    assert_eq!(outcome(&put), (Outcome::Conflict, "WRITE_CONFLICT"), "it had seen no row");
    assert_eq!((&row(&desk).await["kind"], &row(&desk).await["price_of"]), (&json!("k"), &json!(3.0)));
}

/// Whoever may not see a row cannot find out what it has by trying values.
#[tokio::test]
async fn a_conflict_tells_nothing_about_rows_of_others() {
    for check in
        ["row.owner = auth.user_id()", "row.owner = auth.user_id() AND (old.id IS NULL OR old.owner = auth.user_id())"]
    {
        let desk = desk_with("server_wins", &format!("\"{check}\"")).await;
        start(&desk, "a", "'secret'").await;
        for guess in ["wrong", "secret"] {
            let entry = json!({ "op": "PATCH", "table": "notes", "id": "n1",
                                "data": { "a": "x", "owner": "ben" }, "old": { "a": guess, "owner": "anna" } });
            let result = desk.upload("ben", entry).await.remove(0);
            assert_eq!(outcome(&result), (Outcome::Refused, "WRITE_CHECK"), "{check}: {guess}");
            assert!(result.row.is_none());
        }
    }
}

#[tokio::test]
async fn a_repeated_conflict_gets_the_same_answer_without_the_row() {
    let desk = desk("server_wins").await;
    start(&desk, "a", "'theirs'").await;
    let entry =
        json!({ "op": "PATCH", "table": "notes", "id": "n1", "op_id": "1", "data": { "a": "x" }, "old": { "a": "y" } });
    let batch = json!({ "client_id": "c", "batch": [entry] });
    let first = desk.upload("anna", batch.clone()).await.remove(0);
    desk.admin.batch_execute("UPDATE notes SET a = 'y'").await.expect("as it was");
    let again = desk.upload("anna", batch).await.remove(0);
    assert_eq!((first.row.is_some(), again.row.is_some()), (true, false));
    assert_eq!(OpResult { row: None, ..first }, again);
    assert_eq!(row(&desk).await["a"], "y");
}

#[tokio::test]
async fn a_later_write_wins_and_a_clock_ahead_does_not_win_for_ever() {
    for (column, of_seconds) in [
        ("at", (|seconds| json!(format!("2026-01-01T00:00:{seconds:02}.5+02:00"))) as fn(i64) -> Value),
        ("at_text", |seconds| json!(format!("2026-01-01T00:00:{seconds:02}Z"))),
        ("at_ms", |seconds| json!(1_767_225_600_000_i64 + seconds * 1000)),
    ] {
        let desk = desk(&format!("{{ strategy: lww, column: {column} }}")).await;
        let put = |value: &str, time: Value| json!({ "owner": "anna", "a": value, column: time });
        let first = upload(&desk, "PUT", put("first", of_seconds(10)), Value::Null).await;
        assert_eq!(outcome(&first), (Outcome::Applied, ""), "{column}");
        let earlier = upload(&desk, "PATCH", put("earlier", of_seconds(5)), Value::Null).await;
        assert_eq!(outcome(&earlier), (Outcome::Conflict, "WRITE_CONFLICT"), "{column}");
        let later = upload(&desk, "PATCH", put("later", of_seconds(15)), Value::Null).await;
        assert_eq!(outcome(&later), (Outcome::Applied, ""), "{column}");
        // In a hundred years: it wins now, and counts as now.
        let ahead = match column {
            "at_ms" => json!(4_923_072_000_000_i64),
            _ => json!("2126-01-01T00:00:00Z"),
        };
        let result = upload(&desk, "PATCH", put("ahead", ahead), Value::Null).await;
        assert_eq!(outcome(&result), (Outcome::Applied, ""), "{column}");
        let moment = match column {
            "at_ms" => "to_timestamp(at_ms / 1000.0)".to_owned(),
            _ => format!("{column}::timestamptz"),
        };
        let near = format!("SELECT ({moment} BETWEEN now() AND now() + interval '61 seconds')::text FROM notes");
        assert_eq!(desk.value(&near).await.as_deref(), Some("true"), "{column}");
        // A device without a time writes now.
        desk.admin
            .batch_execute("UPDATE notes SET at = '2026-01-01', at_text = '2026-01-01', at_ms = 0")
            .await
            .expect("old");
        let result = upload(&desk, "PATCH", json!({ "a": "without" }), Value::Null).await;
        assert_eq!(outcome(&result), (Outcome::Applied, ""), "{column}");
        let now = format!("SELECT ({moment} BETWEEN now() - interval '5 minutes' AND now())::text FROM notes");
        assert_eq!(desk.value(&now).await.as_deref(), Some("true"), "{column}");
        assert_eq!(row(&desk).await["a"], "without");
    }
    let desk = desk("{ strategy: lww, column: at_text }").await;
    let result = upload(&desk, "PUT", json!({ "owner": "anna", "at_text": "soon" }), Value::Null).await;
    assert_eq!(outcome(&result), (Outcome::Refused, "WRITE_VALUE"));
    assert!(result.message.is_some_and(|message| message.contains("at_text")), "names the column");
}

#[tokio::test]
async fn the_server_counts_versions() {
    let desk = desk("{ strategy: version, column: version }").await;
    let put = json!({ "owner": "anna", "a": "new", "version": 99 });
    assert_eq!(outcome(&upload(&desk, "PUT", put, Value::Null).await), (Outcome::Applied, ""));
    assert_eq!(row(&desk).await["version"], 1);
    let patch = upload(&desk, "PATCH", json!({ "a": "x" }), json!({ "version": 1 })).await;
    assert_eq!(outcome(&patch), (Outcome::Applied, ""));
    let with_write = upload(&desk, "PATCH", json!({ "a": "y", "version": 2 }), Value::Null).await;
    assert_eq!(outcome(&with_write), (Outcome::Applied, ""), "a version may come with the write");
    assert_eq!((&row(&desk).await["version"], &row(&desk).await["stamped"]), (&json!(3), &json!("anna")));
    // A device that changes a row twice while it is away counts too, and does not meet itself.
    for (seen, counted) in [(3, 4), (4, 5)] {
        let data = json!({ "a": format!("away {seen}"), "version": counted });
        let result = upload(&desk, "PATCH", data, json!({ "a": "?", "version": seen })).await;
        assert_eq!(outcome(&result), (Outcome::Applied, ""), "{seen}");
    }
    desk.admin.batch_execute("UPDATE notes SET version = 3").await.expect("a row");
    let late = upload(&desk, "PATCH", json!({ "a": "z" }), json!({ "version": 2 })).await;
    assert_eq!(outcome(&late), (Outcome::Conflict, "WRITE_CONFLICT"));
    assert_eq!(late.row.expect("the row")["version"], 3);
    let blind = upload(&desk, "PATCH", json!({ "a": "z" }), json!({ "a": "y" })).await;
    assert_eq!(outcome(&blind), (Outcome::Refused, "WRITE_BASE_MISSING"));
    for (version, expected) in [(2, Outcome::Conflict), (3, Outcome::Applied)] {
        assert_eq!(upload(&desk, "DELETE", Value::Null, json!({ "version": version })).await.outcome, expected);
    }
}

#[tokio::test]
async fn a_patch_that_changes_nothing_counts_nothing() {
    for strategy in ["{ strategy: version, column: version }", "server_wins", "{ strategy: lww, column: at }"] {
        let desk = desk(strategy).await;
        start(&desk, "a, version, at", "'x', 7, '2026-01-01'").await;
        let before = row(&desk).await;
        for data in [json!({}), json!({ "stamped": "mine" })] {
            let result = upload(&desk, "PATCH", data, json!({ "version": 7 })).await;
            assert_eq!(outcome(&result), (Outcome::Applied, ""), "{strategy}");
            assert_eq!(row(&desk).await, before, "{strategy}");
        }
        let of_others = json!({ "op": "PATCH", "table": "notes", "id": "n1", "data": {} });
        assert_eq!(desk.outcome("ben", of_others).await, "WRITE_CHECK", "{strategy}");
    }
}

/// Devices get times cut to milliseconds here, and cannot say more of what they saw.
#[tokio::test]
async fn times_are_compared_as_far_as_devices_get_them() {
    for (precision, seen) in [("milliseconds", "12:00:00.123"), ("seconds", "12:00:00")] {
        for strategy in ["server_wins", "merge_fields"] {
            let config = format!("config: {{ edition: 2, timestamp_max_precision: {precision} }}\n");
            let rules = config + &rules_of(strategy, "row.owner = auth.user_id()");
            let desk = Desk::with(NOTES, &rules, as_write_role()).await;
            let times = "ALTER TABLE notes ADD ts timestamp, ADD clock time";
            desk.admin.batch_execute(times).await.expect("columns");
            let set = "'2026-01-01 12:00:00.123456Z', '2026-01-01 12:00:00.123456', '12:00:00.123456'";
            start(&desk, "at, ts, clock", set).await;
            let old = json!({ "at": format!("2026-01-01T{seen}Z"), "ts": format!("2026-01-01T{seen}"), "clock": seen });
            let mine = json!({ "at": "2026-02-01T12:00:00.654321Z", "ts": old["ts"], "clock": "13:00:00.000001" });
            let result = upload(&desk, "PATCH", mine, old.clone()).await;
            assert_eq!(outcome(&result), (Outcome::Applied, ""), "{strategy} {precision}");
            let changed = row(&desk).await;
            assert_eq!(changed["at"], "2026-02-01T12:00:00.654321+00:00", "written whole");
            assert_eq!(changed["ts"], "2026-01-01T12:00:00.123456", "sent back unchanged, so not written");
            assert_eq!(changed["clock"], "13:00:00.000001");
            let late = upload(&desk, "PATCH", json!({ "clock": "14:00:00" }), old.clone()).await;
            assert_eq!(outcome(&late), (Outcome::Conflict, "WRITE_CONFLICT"));
            start(&desk, "at, ts, clock", set).await;
            let delete = upload(&desk, "DELETE", Value::Null, old).await;
            assert_eq!(outcome(&delete), (Outcome::Applied, ""), "{strategy} {precision}");
        }
    }
}

#[tokio::test]
async fn rows_that_are_only_added_may_come_twice_and_never_change() {
    let desk = desk("append_only").await;
    let put = |a: &str| json!({ "owner": "anna", "a": a, "price": "2.0", "doc": { "k": [1, 2] } });
    assert_eq!(upload(&desk, "PUT", put("x"), Value::Null).await.outcome, Outcome::Applied);
    assert_eq!(upload(&desk, "PUT", put("x"), Value::Null).await.outcome, Outcome::Duplicate);
    let other = upload(&desk, "PUT", put("y"), Value::Null).await;
    assert_eq!(outcome(&other), (Outcome::Refused, "WRITE_APPEND_ONLY"));
    for op in ["PATCH", "DELETE"] {
        assert_eq!(outcome(&upload(&desk, op, json!({}), Value::Null).await), (Outcome::Refused, "WRITE_OP"));
    }
    assert_eq!(row(&desk).await["a"], "x");
}

#[tokio::test]
async fn counters_add_and_sets_unite() {
    let desk = desk("{ strategy: counter, columns: [n, amount] }").await;
    start(&desk, "n, amount", "10, 1.25").await;
    let result =
        upload(&desk, "PATCH", json!({ "n": 8, "amount": "0.5", "a": "x" }), json!({ "n": 5, "amount": 0 })).await;
    assert_eq!(outcome(&result), (Outcome::Merged, ""));
    let changed = row(&desk).await;
    assert_eq!((&changed["n"], &changed["amount"], &changed["a"]), (&json!(13), &json!(1.75), &json!("x")));
    let result = upload(&desk, "PATCH", json!({ "n": 8 }), Value::Null).await;
    assert_eq!(outcome(&result), (Outcome::Refused, "WRITE_BASE_MISSING"));
    let result = upload(&desk, "PATCH", json!({ "n": i64::MAX }), json!({ "n": 0 })).await;
    assert_eq!(outcome(&result), (Outcome::Refused, "WRITE_VALUE"), "too large");
    assert!(result.message.is_some(), "{result:?}");
    assert_eq!(upload(&desk, "PATCH", json!({ "a": "y" }), Value::Null).await.outcome, Outcome::Applied, "no counter");

    let desk = self::desk("{ strategy: set_union, columns: [tags, list] }").await;
    start(&desk, "tags, list", "'{red,green}', '[1, 2]'").await;
    let old = json!({ "tags": "[\"red\"]", "list": "[1]" });
    let result = upload(&desk, "PATCH", json!({ "tags": "[\"blue \\\"x\\\"\"]", "list": "[1,3]" }), old).await;
    assert_eq!(outcome(&result), (Outcome::Merged, ""), "{result:?}");
    let united = row(&desk).await;
    assert_eq!((&united["tags"], &united["list"]), (&json!(["green", "blue \"x\""]), &json!([1, 2, 3])));

    let desk = self::desk("{ strategy: set_union, columns: [text_list] }").await;
    start(&desk, "text_list", "'[1, 2]'").await;
    let patch =
        async |sent: &str| upload(&desk, "PATCH", json!({ "text_list": sent }), json!({ "text_list": "[1]" })).await;
    assert_eq!(patch("[1,3]").await.outcome, Outcome::Merged, "text that holds an array");
    assert_eq!(row(&desk).await["text_list"], "[1,2,3]");
    for sent in ["{}", "not JSON"] {
        assert_eq!(outcome(&patch(sent).await), (Outcome::Refused, "WRITE_VALUE"), "{sent}");
    }
}

/// Sums and sets come out alike whatever the order.
#[tokio::test]
async fn sums_and_sets_do_not_depend_on_the_order() {
    let mut ends = Vec::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let desk = desk("{ strategy: counter, columns: [n] }").await;
        start(&desk, "n", "100").await;
        for device in order {
            let seen = 100;
            let wanted = seen + [7, -3, 20][device];
            upload(&desk, "PATCH", json!({ "n": wanted }), json!({ "n": seen })).await;
        }
        ends.push(row(&desk).await["n"].clone());
    }
    assert_eq!(ends, [124, 124, 124]);
}
