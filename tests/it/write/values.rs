//! Values of devices in columns of all types.

use serde_json::{Value, json};

use super::{Desk, as_write_role, rules};

const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE DOMAIN short AS varchar(3);
    CREATE DOMAIN shorter AS short CHECK (length(VALUE) < 3);
    CREATE DOMAIN flag AS boolean;
    CREATE TABLE things (
        id uuid PRIMARY KEY, bool boolean, flag flag, i2 smallint, i8 bigint, f8 double precision, f4 real,
        n numeric(10, 2), v varchar(3), c char(5), x text, j json, jb jsonb, tz timestamptz, ts timestamp, d date,
        t time, u uuid, bin bytea, ta text[], ia int[], mood mood, short short, shorter shorter, iv interval, ip inet,
        r int4range, \"od\"\"d Name\" text
    );
    SELECT kairos.publish_table('things', 'INSERT, UPDATE, DELETE');
";

const ID: &str = "6f0a2b1c-0000-4000-8000-000000000001";

async fn desk() -> Desk {
    Desk::with(TYPES, &rules("  things:\n    allow: [put, patch, delete]\n    check: true\n"), as_write_role()).await
}

#[tokio::test]
async fn sqlite_values_are_read_as_the_columns_type() {
    let desk = desk().await;
    for (column, sent, stored) in [
        ("bool", json!(1), "true"),
        ("bool", json!(0), "false"),
        ("bool", json!(true), "true"),
        ("bool", json!("t"), "true"),
        ("flag", json!(1), "true"),
        ("i2", json!(-32768), "-32768"),
        ("i2", json!(true), "1"),
        ("i8", json!(9_223_372_036_854_775_807_i64), "9223372036854775807"),
        ("i8", json!("-9223372036854775808"), "-9223372036854775808"),
        ("i8", json!(3.0), "3"),
        ("f8", json!(0.1), "0.1"),
        ("f8", json!(1e300), "1e+300"),
        ("f8", json!("NaN"), "NaN"),
        ("f4", json!(3.25), "3.25"),
        ("n", json!("12345678.90"), "12345678.90"),
        ("n", json!(1.5), "1.50"),
        ("v", json!("äöü"), "äöü"),
        ("c", json!("ab"), "ab"),
        ("x", json!("it's \"quoted\" \\ $1\n\t"), "it's \"quoted\" \\ $1\n\t"),
        ("x", json!(""), ""),
        ("x", json!(7), "7"),
        ("j", json!("{\"a\":  1}"), "{\"a\":  1}"),
        ("jb", json!("{\"a\":  1}"), "{\"a\": 1}"),
        ("jb", json!({ "a": [1, null] }), "{\"a\": [1, null]}"),
        ("jb", json!("\"text\""), "\"text\""),
        ("tz", json!("2026-03-06T15:47:00.5+02:00"), "2026-03-06 13:47:00.5+00"),
        ("tz", json!("2026-03-06 15:47:00"), "2026-03-06 15:47:00+00"),
        ("tz", json!("2026-03-06 15:47:00.123456Z"), "2026-03-06 15:47:00.123456+00"),
        ("ts", json!("2026-03-06T15:47:00"), "2026-03-06 15:47:00"),
        ("d", json!("2026-02-28"), "2026-02-28"),
        ("t", json!("06:30:00.25"), "06:30:00.25"),
        ("u", json!("6F0A2B1C-0000-4000-8000-0000000000FF"), "6f0a2b1c-0000-4000-8000-0000000000ff"),
        ("bin", json!("\\x00ff"), "\\x00ff"),
        ("ta", json!("[\"a\",\"b\\\"c\",null]"), "{a,\"b\\\"c\",NULL}"),
        ("ta", json!("[]"), "{}"),
        ("ia", json!([[1, 2], [3, 4]]), "{{1,2},{3,4}}"),
        ("mood", json!("good"), "good"),
        ("short", json!("abc"), "abc"),
        ("shorter", json!("ab"), "ab"),
        ("iv", json!("1 day 02:00:00"), "1 day 02:00:00"),
        ("ip", json!("10.0.0.1"), "10.0.0.1/32"),
        ("r", json!("[1,5)"), "[1,5)"),
        ("od\"d Name", json!("x"), "x"),
    ] {
        let put = json!({ "op": "PUT", "table": "things", "id": ID, "data": { column: sent } });
        assert_eq!(desk.outcome("anna", put.clone()).await, "", "{put}");
        let quoted = column.replace('"', "\"\"");
        desk.admin.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
        assert_eq!(
            desk.value(&format!("SELECT \"{quoted}\"::text FROM things")).await.as_deref(),
            Some(stored),
            "{put}"
        );
        let patch = json!({ "op": "PATCH", "table": "things", "id": ID, "data": { column: null } });
        assert_eq!(desk.outcome("anna", patch).await, "");
        assert_eq!(desk.value(&format!("SELECT \"{quoted}\"::text FROM things")).await, None, "{column} is NULL again");
    }
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_naming_the_column_not_the_value() {
    let desk = desk().await;
    let put = |column: &str, value: &Value| json!({ "op": "PUT", "table": "things", "id": ID, "data": { "x": "ok", column: value } });
    for (column, sent, code) in [
        ("bool", json!("hunter2"), "WRITE_VALUE"),
        ("bool", json!(2), "WRITE_VALUE"),
        ("i2", json!(32768), "WRITE_VALUE"),
        ("i2", json!(1.5), "WRITE_VALUE"),
        ("i8", json!("hunter2"), "WRITE_VALUE"),
        ("n", json!("123456789012.5"), "WRITE_VALUE"),
        ("v", json!("abcd"), "WRITE_VALUE"),
        ("c", json!("abcdef"), "WRITE_VALUE"),
        ("short", json!("abcd"), "WRITE_VALUE"),
        ("shorter", json!("abc"), "WRITE_CONSTRAINT"),
        ("jb", json!("{hunter2"), "WRITE_VALUE"),
        ("tz", json!("hunter2"), "WRITE_VALUE"),
        ("d", json!("2026-02-30"), "WRITE_VALUE"),
        ("u", json!("hunter2"), "WRITE_VALUE"),
        ("bin", json!("\\xhunter2"), "WRITE_VALUE"),
        ("ia", json!("[\"hunter2\"]"), "WRITE_VALUE"),
        ("ta", json!("{hunter2"), "WRITE_VALUE"),
        ("mood", json!("hunter2"), "WRITE_VALUE"),
    ] {
        let results = desk.upload("anna", put(column, &sent)).await;
        assert_eq!(results[0].code.as_deref(), Some(code), "{column} {sent}: {:?}", results[0].message);
        let message = results[0].message.clone().unwrap();
        assert!(!message.contains("hunter2"), "{message}");
        if sent.as_str().is_some_and(|text| text.contains("hunter2")) {
            assert!(message.contains(&format!("`{column}`")), "{column}: {message}");
        }
    }
    assert_eq!(desk.count("SELECT count(*) FROM things").await, 0);
}

#[tokio::test]
async fn an_id_in_another_spelling_is_the_same_row() {
    let desk = desk().await;
    let put = |id: &str, text: &str| json!({ "op": "PUT", "table": "things", "id": id, "data": { "x": text } });
    assert_eq!(desk.outcome("anna", put(ID, "a")).await, "");
    assert_eq!(desk.outcome("anna", put(&ID.to_uppercase(), "b")).await, "");
    assert_eq!(desk.value("SELECT string_agg(x, ',') FROM things").await.as_deref(), Some("b"));
}
