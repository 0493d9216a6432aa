//! Whole files.

use kairos_sync_rules::{SyncPlan, compile};

use crate::{
    corpus,
    harness::{in_bounds, report, run},
    mutate::mutated,
};

/// Compiles a file and uses all that comes out of it; whether it was accepted.
pub(crate) fn compile_and_use(yaml: &str) -> bool {
    let compiled = compile(yaml, "public");
    // Findings beyond the first are printed alike; a file of many would take long in a debug build.
    for finding in compiled.diagnostics.iter().take(20) {
        assert!(!finding.render("rules.yaml", yaml).is_empty());
    }
    let Some(plan) = compiled.plan else {
        assert!(!compiled.diagnostics.is_empty(), "what is refused has a finding");
        return false;
    };
    assert_eq!(SyncPlan::from_json(&plan.to_json()).expect("a plan reads back"), plan);
    assert_eq!(plan.fingerprint().len(), 64);
    true
}

#[test]
fn mutated_files_are_compiled_or_refused() {
    let corpus = corpus::rules();
    run("rules", &|random| mutated(random, &corpus), &|yaml, _| compile_and_use(yaml));
}

#[test]
fn the_corpus_itself_is_mostly_accepted() {
    let corpus = corpus::rules();
    let accepted = corpus.iter().filter(|yaml| compile_and_use(yaml)).count();
    assert!(accepted * 2 > corpus.len(), "{accepted} of {} files are accepted", corpus.len());
}

#[test]
fn large_files_are_refused_or_compiled_in_bounds() {
    let query = |number: usize| format!("      - SELECT * FROM t{number} WHERE a = {number}\n");
    let definitions = |count: usize, wrong: &str| {
        let definition = |number| format!("  d{number}:\n    data:\n{}{wrong}", query(number));
        "bucket_definitions:\n".to_owned() + &(0..count).map(definition).collect::<String>()
    };
    let streams = |query: &dyn Fn(usize) -> String, count: usize| {
        let stream = |number| format!("  s{number}: {{ auto_subscribe: true, query: \"{}\" }}\n", query(number));
        "config: { edition: 3 }\nstreams:\n".to_owned() + &(0..count).map(stream).collect::<String>()
    };
    let or = |count: usize, part: &str| vec![part; count].join(" OR ");
    let files = [
        ("10 MB of one query", "bucket_definitions:\n  b:\n    data:\n".to_owned() + &query(1).repeat(10_000_000 / 45)),
        ("10 MB of spaces", " ".repeat(10_000_000)),
        ("10 MB of a scalar", format!("a: {}", "x".repeat(10_000_000))),
        ("many definitions", definitions(1_000, "")),
        ("many mistakes", definitions(1_000, "      - SELEC\n      - SELECT id FROM\n")),
        ("many keys", (0..20_000).map(|number| format!("k{number}: 1")).collect::<Vec<_>>().join("\n")),
        ("a megabyte of comments", "# x\n".repeat(250_000)),
        ("a long query", streams(&|_| format!("SELECT * FROM t WHERE {}", or(900, "a = 1")), 1)),
        ("many columns", streams(&|_| format!("SELECT {} FROM t", vec!["a"; 1900].join(", ")), 1)),
        (
            "many tables",
            streams(
                &|_| format!("SELECT t.* FROM t, {}", (0..900).map(|n| format!("t{n}")).collect::<Vec<_>>().join(", ")),
                1,
            ),
        ),
        (
            "many alternatives",
            streams(&|_| format!("SELECT * FROM t WHERE {}", vec!["(a OR b = auth.user_id())"; 100].join(" AND ")), 1),
        ),
        (
            "a hundred alternatives",
            streams(
                &|_| format!("SELECT * FROM t WHERE {}", or(100, "(a = auth.user_id() AND b IN (SELECT c FROM u))")),
                1,
            ),
        ),
        ("many streams", streams(&|number| format!("SELECT * FROM t WHERE a = auth.user_id() AND b = {number}"), 300)),
        ("a hundred terms", definitions(1, &format!("      - SELECT * FROM t WHERE {}\n", or(100, "a = 1")))),
        ("parentheses", streams(&|_| format!("SELECT * FROM t WHERE {}a{}", "(".repeat(1900), ")".repeat(1900)), 1)),
        ("parentheses around a table", streams(&|_| format!("SELECT * FROM {}t{}", "(".repeat(40), ")".repeat(40)), 1)),
        ("brackets of YAML", "[".repeat(100_000)),
        ("braces of YAML", "{a: ".repeat(100_000)),
        ("quotes", "\"".repeat(100_001)),
    ];
    for (what, file) in files {
        let time = in_bounds(what, &|| {
            compile_and_use(&file);
        });
        report(&format!("fuzz rules: {what}: {time:?}"));
        if file.len() > 2_000_000 {
            let codes: Vec<_> = compile(&file, "public").diagnostics.iter().map(|finding| finding.code).collect();
            assert_eq!(codes, ["yaml_syntax"], "{what}");
        }
    }
}
