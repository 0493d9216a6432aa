//! Single queries, in every place that takes SQL.

use crate::{corpus, harness::run, mutate::mutated, rules::compile_and_use};

/// Valid files around a query.
fn frames(query: &str) -> Vec<String> {
    let sql = serde_json::to_string(query).expect("text is JSON, and JSON text is YAML");
    let edition = |number: u8| format!("config: {{ edition: {number} }}\n");
    let mut frames = Vec::new();
    for number in [1, 2] {
        frames.push(format!(
            "{}bucket_definitions: {{ b: {{ parameters: {sql}, data: [SELECT * FROM t WHERE a = bucket.a] }} }}",
            edition(number)
        ));
        frames.push(format!(
            "{}bucket_definitions: {{ b: {{ parameters: SELECT 'x' AS a, data: [{sql}] }} }}",
            edition(number)
        ));
        frames.push(format!(
            "{}bucket_definitions: {{}}\nevent_definitions: {{ e: {{ payloads: [{sql}] }} }}",
            edition(number)
        ));
    }
    for number in [2, 3] {
        frames.push(format!("{}streams: {{ s: {{ auto_subscribe: true, query: {sql} }} }}", edition(number)));
    }
    frames.push(format!("{}streams: {{ s: {{ write_time_joins: true, query: {sql} }} }}", edition(3)));
    frames.push(format!(
        "{}with: {{ q: {sql} }}\nstreams: {{ s: {{ query: SELECT * FROM t WHERE a IN q }} }}",
        edition(3)
    ));
    let parameters = "parameters: [{ name: user_id, type: string }]";
    // A filter and a check are expressions: what comes after WHERE, or all of it.
    let expression = query.split_once(" WHERE ").map_or(query, |(_, expression)| expression);
    let expression = serde_json::to_string(expression).expect("text is JSON, and JSON text is YAML");
    frames
        .push(format!("bucket_definitions: {{ b: {{ {parameters}, data: [{{ table: t, filter: {expression} }}] }} }}"));
    frames.push(format!(
        "bucket_definitions: {{}}\nwrite_rules: {{ t: {{ allow: [put], columns: {{ stamp: {{ c: {expression} }} }}, check: {expression} }} }}"
    ));
    frames
}

#[test]
fn mutated_queries_are_compiled_or_refused_everywhere() {
    let corpus = corpus::queries();
    run("sql", &|random| mutated(random, &corpus), &|query, random| {
        let frames = frames(query);
        (0..3).filter(|_| compile_and_use(random.pick::<String>(&frames))).count() > 0
    });
}

#[test]
fn each_frame_accepts_some_query() {
    let corpus = corpus::queries();
    let frames: Vec<_> = corpus.iter().map(|query| frames(query)).collect();
    for number in 0..frames[0].len() {
        assert!(frames.iter().any(|frames| compile_and_use(&frames[number])), "{}", frames[0][number]);
    }
}
