//! Hostile rows and requests through rules that compile.

use std::collections::BTreeSet;

use kairos_sync_rules::{RequestContext, SourceTable, SqlValue, Subscription, SyncPlan, WriteOrigin, compile};
use serde_json::{Map, Number, Value};

use crate::{corpus, explanation, harness::run, index::Index, mutate::mutated, random::Random};

/// Rows per table and input.
const ROWS: usize = 3;

/// Words of the rules: names of tables, columns, claims and streams among them.
fn words(rules: &str) -> Vec<String> {
    const WORDS_MAX: usize = 24;
    let is_part = |ch: char| ch.is_alphanumeric() || ch == '_';
    let words: BTreeSet<_> = rules.split(|ch| !is_part(ch)).filter(|word| word.len() < 20).collect();
    let mut words: Vec<_> = words.into_iter().map(str::to_owned).collect();
    words.truncate(WORDS_MAX);
    words.push("id".to_owned());
    words
}

fn nested(open: &str, middle: &str, close: &str, depth: usize) -> String {
    open.repeat(depth) + middle + &close.repeat(depth)
}

/// A JSON array, now and then a long one.
fn array(random: &mut Random) -> String {
    let element = random.text(&["1", "\"u1\"", "null", "true", "[1,[2]]", "{\"a\":1}", "1e400", "\"\\ud800\"", "-0"]);
    let count = *random.pick(&[0, 1, 3, 20, 60, 60, 60, 1000]);
    let distinct = random.chance(50);
    let elements: Vec<_> =
        (0..count).map(|number| if distinct { format!("\"e{number}\"") } else { element.to_owned() }).collect();
    format!("[{}]", elements.join(","))
}

fn text(random: &mut Random, texts: &[String]) -> String {
    match random.below(12) {
        0 => array(random),
        1 => nested("[", "1", "]", *random.pick(&[5, 99, 150, 5000])),
        2 => nested("{\"a\":", "1", "}", *random.pick(&[5, 99, 150, 3000])),
        3 => "x".repeat(*random.pick(&[100, 4000])),
        4 => random
            .text(&["9".repeat(400).leak(), "-9223372036854775809", "1e999", "0x", "+-1", "  7", "1.5e-400"])
            .to_owned(),
        5 => random
            .text(&["{\"a\":1,\"a\":2}", "[\"\\ud83d\"]", "{\"\\udc00\":1}", "[1,]", "nul", "\"", "[\"\u{0}\"]"])
            .to_owned(),
        6 => "2024-02-30T25:61:61.999999999999+99:99".to_owned(),
        7 => "u1".to_owned(),
        _ => random.pick(texts).clone(),
    }
}

fn value(random: &mut Random, texts: &[String]) -> SqlValue {
    match random.below(12) {
        0 => SqlValue::Null,
        1 => SqlValue::Integer(*random.pick(&[0, 1, -1, i128::MAX, i128::MIN, i128::from(i64::MIN), 1 << 53])),
        2 => SqlValue::Real(*random.pick(&[
            0.0,
            -0.0,
            1.0,
            f64::NAN,
            f64::INFINITY,
            f64::MIN_POSITIVE,
            f64::MAX,
            -1e300,
        ])),
        3 => SqlValue::Blob(vec![0xFF; *random.pick(&[0, 1, 16, 21, 5000])]),
        _ => SqlValue::Text(text(random, texts)),
    }
}

fn json(random: &mut Random, texts: &[String], depth: usize) -> Value {
    match random.below(if depth == 0 { 8 } else { 10 }) {
        0 => Value::Null,
        1 => Value::Bool(random.chance(50)),
        2 => Number::from_f64(*random.pick(&[0.0, 1.5, 1e300, -1e-300, 9.1e18])).map_or(Value::Null, Value::Number),
        3 => Value::from(*random.pick(&[i64::MIN, i64::MAX, 1, 0])),
        // What a token can say is what a JSON reader lets in.
        4 => serde_json::from_str(&text(random, texts)).unwrap_or(Value::Null),
        8 => Value::Array((0..random.below(20)).map(|_| json(random, texts, depth - 1)).collect()),
        9 => Value::Object(members(random, texts, depth - 1)),
        _ => Value::String(text(random, texts)),
    }
}

fn members(random: &mut Random, names: &[String], depth: usize) -> Map<String, Value> {
    (0..random.below(8)).map(|_| (random.pick(names).clone(), json(random, names, depth))).collect()
}

fn request(random: &mut Random, words: &[String], texts: &[String]) -> RequestContext {
    let mut token = members(random, words, 2);
    token.insert("sub".to_owned(), json(random, texts, 1));
    token.insert("parameters".to_owned(), json(random, words, 2));
    let mut parameters = || members(random, words, 2);
    let (own, first, second) = (parameters(), parameters(), parameters());
    let subscription =
        |stream: &String, parameters| Subscription { stream: stream.clone(), parameters, priority: Some(200) };
    RequestContext {
        token,
        parameters: own,
        include_defaults: random.chance(80),
        subscriptions: vec![
            subscription(random.pick(words), Some(first)),
            subscription(&"s".to_owned(), Some(second)),
            subscription(random.pick(words), None),
        ],
    }
}

/// Sends rows of all tables and some requests through a plan.
fn evaluate(plan: &SyncPlan, rules: &str, random: &mut Random, texts: &[String]) {
    let columns = words(rules);
    let mut index = Index::default();
    for pattern in plan.source_tables() {
        let table = SourceTable {
            connection: pattern.connection.clone(),
            schema: pattern.schema.replace('%', "x"),
            name: pattern.name.replace('%', "x"),
        };
        let evaluator = plan.evaluator(&table, &columns, "1#");
        for _ in 0..ROWS {
            let row: Vec<_> = columns.iter().map(|_| value(random, texts)).collect();
            // A row may also be shorter than the evaluator was told.
            let row = &row[..row.len() - usize::from(random.chance(10))];
            let evaluation = evaluator.evaluate(row, &mut index).unwrap_or_else(|never| match never {});
            explanation::check_row(plan, &table, &columns, row, &evaluation, &mut index);
            index.replace(&[], &evaluation.lookups);
            for row in &evaluation.rows {
                assert!(row.bucket.as_str().starts_with("1#"));
                assert!(serde_json::from_str::<&serde_json::value::RawValue>(&row.data).is_ok(), "{}", row.data);
            }
            for name in plan.writable_tables() {
                let policy = plan.write_policy(name).expect("a writable table has a policy");
                let row: Vec<_> = columns.iter().cloned().zip(row.iter().cloned()).collect();
                let token = members(random, &columns, 1);
                let origin = WriteOrigin::new(token, Some("device"), "2026-01-31T08:15:00.000000Z".to_owned());
                let _ = (policy.stamps(&origin), policy.check(&origin, Some(&row), Some(&row)));
            }
        }
    }
    for _ in 0..ROWS {
        let request = request(random, &columns, texts);
        let Ok(querier) = plan.querier(&request, "1#") else { continue };
        let resolution = querier.resolve(&mut index).unwrap_or_else(|never| match never {});
        assert!(resolution.buckets.iter().all(|bucket| bucket.name.as_str().starts_with("1#")));
        explanation::check_request(plan, &request, &resolution, &mut index);
    }
}

#[test]
fn hostile_rows_and_requests_are_evaluated() {
    let (corpus, texts) = (corpus::rules(), corpus::texts());
    let input =
        |random: &mut Random| if random.chance(60) { random.pick(&corpus).clone() } else { mutated(random, &corpus) };
    run("evaluation", &input, &|rules, random| {
        let Some(plan) = compile(rules, "public").plan else { return false };
        evaluate(&plan, rules, random, &texts);
        true
    });
}
