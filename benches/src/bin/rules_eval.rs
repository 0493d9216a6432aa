//! How fast rows are evaluated, on one core, beside `serde_json` serialising the same row.
//!
//! Each case evaluates a row of ten columns, JSON of the row included. Run with `./kairos bench rules`.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    hint::black_box,
    time::{Duration, Instant},
};

use kairos_sync_rules::{LookupKey, LookupSource, LookupValue, SourceTable, SqlValue, SyncPlan, compile};
use serde_json::{Map, Value, json};

/// How long each case runs.
const RUN: Duration = Duration::from_millis(1500);

/// The index of lookups, in memory.
#[derive(Default)]
struct Index(BTreeMap<LookupKey, Vec<LookupValue>>);

impl LookupSource for Index {
    type Error = Infallible;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, Infallible> {
        Ok(self.0.get(key).cloned().unwrap_or_default())
    }
}

/// A row as an app would have it: a task.
fn row() -> Map<String, Value> {
    let row = json!({
        "id": "0192f3d4-7c1e-7a55-9c1e-1f2a3b4c5d6e",
        "owner_id": "0192f3d4-0000-7a55-9c1e-1f2a3b4c5d6e",
        "list_id": "0192f3d4-1111-7a55-9c1e-1f2a3b4c5d6e",
        "title": "Water the plants on the balcony",
        "notes": "The basil needs \"more\" than the rosemary.\nTwice a week is enough.",
        "priority": 3,
        "estimate": 1.5,
        "done": 0,
        "created_at": "2026-01-31 08:15:00.123456Z",
        "kind": "k42",
    });
    let Value::Object(row) = row else { unreachable!("an object is written above") };
    row
}

fn sql(value: &Value) -> SqlValue {
    match value {
        Value::Number(number) => number.as_i64().map_or_else(
            || SqlValue::Real(number.as_f64().unwrap_or_default()),
            |number| SqlValue::Integer(number.into()),
        ),
        Value::String(text) => SqlValue::Text(text.clone()),
        _ => SqlValue::Null,
    }
}

fn plan(rules: &str) -> SyncPlan {
    compile(rules, "public").plan.expect("the rules of the benchmark compile")
}

fn buckets(count: usize) -> String {
    let definition = |number: usize| {
        format!(
            "  b{number}:\n    parameters: SELECT request.user_id() AS u\n    data: [SELECT * FROM tasks WHERE owner_id = bucket.u]\n"
        )
    };
    format!("bucket_definitions:\n{}", (0..count).map(definition).collect::<String>())
}

fn many_definitions() -> String {
    let stream = |number: usize| format!("  s{number}:\n    query: SELECT * FROM tasks WHERE kind = 'k{number}'\n");
    format!("config: {{ edition: 3 }}\nstreams:\n{}", (0..100).map(stream).collect::<String>())
}

const JOINED: &str = "config: { edition: 3 }\nstreams:\n  s:\n    query: SELECT tasks.* FROM tasks JOIN lists ON lists.id = \
                      tasks.list_id WHERE tasks.done = 0 AND lists.owner_id = auth.user_id()\n";
const JOINED_AT_WRITE_TIME: &str = "config: { edition: 3 }\nstreams:\n  s:\n    write_time_joins: true\n    query: SELECT tasks.* \
                                    FROM tasks JOIN lists ON lists.id = tasks.list_id WHERE tasks.done = 0 AND \
                                    lists.owner_id = auth.user_id()\n";

/// Calls per second of one core.
fn rate(mut call: impl FnMut()) -> f64 {
    const BATCH: u32 = 1000;
    let start = Instant::now();
    let mut calls = 0_u32;
    while start.elapsed() < RUN {
        (0..BATCH).for_each(|_| call());
        calls += BATCH;
    }
    f64::from(calls) / start.elapsed().as_secs_f64()
}

fn main() {
    let row = row();
    let table = |name: &str| SourceTable {
        connection: "default".to_owned(),
        schema: "public".to_owned(),
        name: name.to_owned(),
    };
    let names: Vec<String> = row.keys().cloned().collect();
    let values: Vec<SqlValue> = row.values().map(sql).collect();
    let beside = rate(|| {
        black_box(serde_json::to_string(black_box(&row)).unwrap_or_default());
    });
    println!("{:<44} {:>12} {:>8}", "case", "per second", "ratio");
    println!("{:<44} {beside:>12.0} {:>8.2}", "serde_json serialises the row", 1.0);
    let cases = [
        ("SELECT * into 1 bucket", buckets(1)),
        ("SELECT * into 3 buckets", buckets(3)),
        ("filtered stream with a join", JOINED.to_owned()),
        ("the same, joined at write time", JOINED_AT_WRITE_TIME.to_owned()),
        ("100 definitions, one matches", many_definitions()),
    ];
    for (name, rules) in cases {
        let plan = plan(&rules);
        let mut index = Index::default();
        let list = [sql(&row["list_id"]), SqlValue::Text("u1".to_owned())];
        let columns = ["id".to_owned(), "owner_id".to_owned()];
        let evaluated = plan.evaluator(&table("lists"), &columns, "").evaluate(&list, &mut index);
        for (key, value) in evaluated.map_or_else(|never| match never {}, |evaluation| evaluation.lookups) {
            index.0.entry(key).or_default().push(value);
        }
        let evaluator = plan.evaluator(&table("tasks"), &names, "");
        let found = rate(|| {
            let _ = black_box(evaluator.evaluate(black_box(&values), &mut index));
        });
        println!("{name:<44} {found:>12.0} {:>8.2}", found / beside);
    }
}
