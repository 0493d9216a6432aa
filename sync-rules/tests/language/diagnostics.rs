//! What is refused, with which code, and where.

use kairos_sync_rules::{Severity, Span, compile};
use proptest::prelude::*;

fn codes(rules: &str) -> Vec<&'static str> {
    compile(rules, "public").diagnostics.iter().map(|finding| finding.code).collect()
}

/// Codes of a data query in a definition with the bucket parameter `x`.
fn data_codes(query: &str) -> Vec<&'static str> {
    let query = query.replace('"', "\\\"");
    codes(&format!("bucket_definitions:\n  b:\n    parameters: SELECT 'a' AS x\n    data: [\"{query}\"]\n"))
}

/// Codes of a filter in a definition with the parameter `user_id`.
fn filter_codes(filter: &str) -> Vec<&'static str> {
    codes(&format!(
        "bucket_definitions:\n  b:\n    parameters: [{{ name: user_id, type: string }}]\n    \
         data: [{{ table: tasks, filter: \"{filter}\" }}]\n"
    ))
}

#[test]
fn each_mistake_in_a_data_query_has_its_code() {
    for (query, code) in [
        ("SELECT id FROM", "sql_syntax"),
        ("SELECT id FROM t WHERE x = 1e3", "sql_syntax"),
        ("SELECT id FROM t; SELECT id FROM t", "multiple_statements"),
        ("DELETE FROM t", "not_a_select"),
        ("SELECT id FROM t UNION SELECT id FROM u", "not_a_select"),
        ("SELECT id FROM t, u", "single_table_required"),
        ("SELECT id FROM t LEFT JOIN u ON true", "single_table_required"),
        ("SELECT id FROM t WHERE x = bucket.x LIMIT 5", "clause_unsupported"),
        ("SELECT DISTINCT id FROM t WHERE x = bucket.x", "clause_unsupported"),
        ("SELECT id FROM t", "bucket_parameters_not_covered"),
        ("SELECT id FROM t WHERE x = bucket.y", "bucket_parameters_not_covered"),
        ("SELECT id FROM t WHERE x > bucket.x", "bucket_parameter_in_expression"),
        ("SELECT id FROM t WHERE x = upper(bucket.x)", "bucket_parameter_in_expression"),
        ("SELECT id FROM t WHERE NOT (x = bucket.x)", "bucket_parameter_in_expression"),
        ("SELECT id FROM t WHERE x = bucket.x OR public", "or_parameters_differ"),
        ("SELECT id FROM t WHERE bucket.x IN a AND bucket.x IN b", "multiple_array_filters"),
        ("SELECT id FROM t WHERE x = request.user_id()", "request_function_in_data_query"),
        ("SELECT id FROM t WHERE x = bucket.x AND y IN (SELECT z FROM u)", "unsupported_expression"),
        ("SELECT id FROM t WHERE x = bucket.x AND y LIKE 'a%'", "unsupported_operator"),
        ("SELECT id FROM t WHERE x = bucket.x AND y NOT IN z", "unsupported_operator"),
        ("SELECT id FROM t WHERE x = bucket.x AND y = :y", "sql_syntax"),
        ("SELECT name FROM t WHERE x = bucket.x", "id_column_missing"),
        ("SELECT id, a || b FROM t WHERE x = bucket.x", "alias_required"),
        ("SELECT id, coalesce(a, b) AS c FROM t WHERE x = bucket.x", "unknown_function"),
        ("SELECT id, strftime(a) AS c FROM t WHERE x = bucket.x", "unknown_function"),
        ("SELECT id, CAST(a AS bigint) AS c FROM t WHERE x = bucket.x", "invalid_cast"),
        ("SELECT id, u.a FROM t WHERE x = bucket.x", "undefined_reference"),
        ("SELECT id, '{' ->> 'a' AS c FROM t WHERE x = bucket.x", "expression_failed"),
        ("SELECT id, Name FROM t WHERE x = bucket.x", "identifier_case"),
    ] {
        assert_eq!(data_codes(query), [code], "{query}");
    }
}

#[test]
fn filters_that_cannot_be_turned_around_are_refused() {
    for (filter, code) in [
        ("team = 1", "bucket_parameters_not_covered"),
        ("user_id = :user", "bucket_parameters_not_covered"),
        ("user_id = :user_id OR public = 1", "or_parameters_differ"),
        ("team NOT IN (SELECT id FROM teams WHERE user_id = :user_id)", "subquery_filter_unsupported"),
        ("NOT team IN (SELECT id FROM teams WHERE user_id = :user_id)", "subquery_filter_unsupported"),
        ("team = (SELECT id FROM teams WHERE user_id = :user_id)", "subquery_filter_unsupported"),
        ("team IN (SELECT id, name FROM teams WHERE user_id = :user_id)", "subquery_columns"),
        ("team IN (SELECT * FROM teams WHERE user_id = :user_id)", "subquery_columns"),
        ("team IN (SELECT id FROM teams WHERE user_id = :user_id ORDER BY id LIMIT 1)", "clause_unsupported"),
        ("team IN (SELECT id FROM teams WHERE teams.user_id = :user_id AND tasks.x = 1)", "undefined_reference"),
        ("user_id = request.user_id()", "request_function_in_data_query"),
        ("user_id = upper(:user_id)", "bucket_parameter_in_expression"),
        ("user_id < :user_id", "bucket_parameter_in_expression"),
        ("user_id = :user_id)", "sql_syntax"),
        ("", "sql_syntax"),
    ] {
        assert_eq!(filter_codes(filter), [code], "{filter}");
    }
}

#[test]
fn each_mistake_in_the_file_has_its_code() {
    for (rules, code) in [
        ("", "definitions_missing"),
        ("[]", "yaml_structure"),
        ("a: [", "yaml_syntax"),
        ("bucket_definitions: {}\nbucket_definitions: {}", "yaml_duplicate_key"),
        ("bucket_definitions: {}\nbuckets: {}", "schema_violation"),
        ("config: { edition: 3 }\nbucket_definitions: {}\nstreams: {}", "bucket_definitions_unsupported"),
        ("config: { edition: 3 }\nstreams: { s: { query: SELECT * FROM t, qery: 1 } }", "schema_violation"),
        ("config: { edition: 4 }\nbucket_definitions: {}", "schema_violation"),
        ("bucket_definitions: { b: { data: [], querys: [] } }", "schema_violation"),
        ("bucket_definitions: { b: { priority: 4, data: [] } }", "priority_invalid"),
        ("bucket_definitions: { b: {} }", "schema_violation"),
        ("bucket_definitions: { b: { data: SELECT 1 } }", "yaml_structure"),
        ("bucket_definitions: { b: { data: [SELECT * FROM t, { table: t }] } }", "yaml_structure"),
        ("bucket_definitions: { b: { parameters: [{ name: a, type: uuid }], data: [] } }", "schema_violation"),
        ("bucket_definitions: { b: { data: [{ table: t, columns: [name] }] } }", "id_column_missing"),
        (
            "bucket_definitions: { b: { parameters: [SELECT 1 AS a, SELECT 1 AS b], data: [] } }",
            "bucket_parameters_mismatch",
        ),
        ("bucket_definitions: { b: { parameters: SELECT x FROM f(1), data: [] } }", "unknown_table_function"),
        ("bucket_definitions: { b: { parameters: SELECT a FROM t AS u, data: [] } }", "parameter_query_alias"),
        ("bucket_definitions: { b: { parameters: SELECT upper(a) AS a FROM t, data: [] } }", "match_clause_misplaced"),
        ("bucket_definitions: { b: { parameters: SELECT a, data: [] } }", "undefined_reference"),
    ] {
        assert_eq!(codes(rules), [code], "{rules}");
    }
}

#[test]
fn parameters_that_clients_choose_are_warned_of() {
    for (query, is_dangerous) in [
        ("SELECT request.parameters() ->> 'p' AS x", true),
        ("SELECT user_parameters.p AS x WHERE request.user_id() = 'a'", true),
        ("SELECT request.user_id() AS x WHERE user_parameters.p", false),
        ("SELECT id AS x FROM t WHERE id = user_parameters.p", true),
        ("SELECT id AS x FROM t WHERE id = user_parameters.p AND owner = request.user_id()", false),
        ("SELECT id AS x FROM t WHERE owner = token_parameters.team", false),
    ] {
        for accept in [false, true] {
            let rules = format!(
                "bucket_definitions:\n  b:\n    accept_potentially_dangerous_queries: {accept}\n    \
                 parameters: {query}\n    data: [SELECT * FROM items WHERE x = bucket.x]\n"
            );
            let expected: &[&str] = if is_dangerous && !accept { &["dangerous_parameters"] } else { &[] };
            assert_eq!(codes(&rules), expected, "{query}");
            assert!(compile(&rules, "public").plan.is_some());
        }
    }
}

#[test]
fn findings_point_into_the_file() {
    let rules = "bucket_definitions:\n  b:\n    data:\n      - |\n        SELECT id,\n          foo(x) AS y\n        FROM t\n      \
                 - 'SELECT \"Id\" AS id, ''a'' LIKE b AS c FROM t'\n  c:\n    dota: []\n    data: []\n";
    let compiled = compile(rules, "public");
    let found: Vec<_> = compiled.diagnostics.iter().map(|finding| (finding.code, finding.span)).collect();
    let at = |line, column| Some(Span { line, column });
    assert_eq!(
        found,
        [("unknown_function", at(6, 11)), ("unsupported_operator", at(8, 29)), ("schema_violation", at(10, 5))]
    );
    assert!(compiled.plan.is_none());
    assert!(compiled.diagnostics.iter().all(|finding| finding.severity == Severity::Fatal));
    let text = compiled.diagnostics[0].render("rules.yaml", rules);
    assert!(text.contains("--> rules.yaml:6:11\n   |\n 6 |           foo(x) AS y\n   |           ^^^\n"), "{text}");
}

#[test]
fn deep_and_long_input_is_refused() {
    let deep = format!("SELECT id FROM t WHERE x = bucket.x AND {}1{}", "(".repeat(3000), ")".repeat(3000));
    assert_eq!(data_codes(&deep), ["sql_syntax"]);
    let deep = format!("SELECT id FROM t WHERE x = bucket.x AND {}1", "NOT ".repeat(1500));
    assert_eq!(data_codes(&deep), ["sql_syntax"]);
    let long = format!("SELECT id FROM t WHERE x = bucket.x{}", " AND a".repeat(900));
    assert!(data_codes(&long).is_empty(), "long is not deep");
    let long = format!("SELECT id FROM t WHERE x = bucket.x{}", " AND a".repeat(5000));
    assert_eq!(data_codes(&long), ["sql_syntax"]);
    assert!(data_codes(&format!("SELECT id FROM t WHERE x = bucket.x{}", " AND a".repeat(100))).is_empty());
}

proptest! {
    #[test]
    fn any_text_compiles_or_is_refused(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "SELECT", "FROM", "WHERE", "t", "id", "AS", "bucket.x", "request.user_id()", "=", "IN", "AND", "OR", "NOT", "(", ")",
                "'a'", "1", "->>", "||", ",", "*", "IS NULL", ":x", "upper(", "CAST(", "::text", "-", "\"T\"", ";", "é", "E'\\'", "LIMIT",
            ]),
            0..20,
        )
    ) {
        let sql = words.join(" ");
        let yaml = format!(
            "bucket_definitions:\n  b:\n    parameters: |\n      {sql}\n    data:\n      - |\n        {sql}\n  k:\n    \
             parameters: [{{ name: x, type: string }}]\n    data:\n      - table: t\n        filter: |\n          {sql}\n"
        );
        let compiled = compile(&yaml, "public");
        let is_fatal = compiled.diagnostics.iter().any(|finding| finding.severity == Severity::Fatal);
        prop_assert_eq!(compiled.plan.is_none(), is_fatal);
        for finding in &compiled.diagnostics {
            prop_assert!(!finding.render("rules.yaml", &yaml).is_empty());
        }
    }
}

#[test]
fn every_depth_of_nesting_is_answered_on_a_small_stack() {
    let small = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        for depth in 1..80 {
            for (open, middle, close) in [
                ("(", "1 = 1", ")"),
                ("x IN (SELECT x FROM t WHERE ", "1 = 1", ")"),
                ("x IN (SELECT x FROM t WHERE (y = 1 OR ", "1 = 1", "))"),
                ("coalesce(", "1", ", 1)"),
                ("CASE WHEN ", "1", " THEN 1 END"),
                ("NOT (", "1 = 1", ")"),
                ("- ", "1", ""),
            ] {
                let nested = format!("{}{middle}{}", open.repeat(depth), close.repeat(depth));
                codes(&format!(
                    "config: {{ edition: 3 }}\nstreams:\n  s:\n    query: SELECT * FROM t WHERE x = auth.user_id() AND {nested}\n"
                ));
                data_codes(&format!("SELECT id FROM t WHERE x = bucket.x AND {nested}"));
                filter_codes(&format!("x = :user_id AND {nested}"));
            }
        }
    });
    small.expect("a thread").join().expect("no overflow, no panic");
}
