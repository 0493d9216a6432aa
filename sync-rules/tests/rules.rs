//! Rules files through the whole crate: rows to buckets, requests to buckets, and what is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use kairos_sync_rules::{
    LookupKey, LookupSource, LookupValue, RequestContext, Severity, SourceTable, SqlValue, SyncPlan, WriteOp, compile,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const KAIROS: &str = r#"
bucket_definitions:
  user_data:
    parameters:
      - name: user_id
        type: string
    data:
      - table: habits
        filter: "user_id = :user_id"
      - table: completions
        filter: "habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)"
"#;

#[derive(Default)]
struct Index(BTreeMap<LookupKey, BTreeSet<LookupValue>>);

impl LookupSource for Index {
    type Error = Infallible;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, Infallible> {
        Ok(self.0.get(key).into_iter().flatten().cloned().collect())
    }
}

fn plan(yaml: &str) -> SyncPlan {
    let compiled = compile(yaml, "public");
    compiled.plan.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics))
}

fn codes(yaml: &str) -> Vec<&'static str> {
    let fatal = compile(yaml, "public").diagnostics.into_iter().filter(|found| found.severity == Severity::Fatal);
    fatal.map(|found| found.code).collect()
}

fn text(text: &str) -> SqlValue {
    SqlValue::Text(text.to_owned())
}

fn table(name: &str) -> SourceTable {
    SourceTable { connection: "default".into(), schema: "public".into(), name: name.into() }
}

/// Evaluates a row and feeds the index; gives (bucket, id, data).
fn row(plan: &SyncPlan, index: &mut Index, name: &str, columns: &[(&str, SqlValue)]) -> Vec<(String, String, String)> {
    let names: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let values: Vec<SqlValue> = columns.iter().map(|(_, value)| value.clone()).collect();
    let Ok(evaluation) = plan.evaluator(&table(name), &names, "").evaluate(&values, index);
    assert_eq!(evaluation.errors, []);
    for (key, value) in evaluation.lookups {
        index.0.entry(key).or_default().insert(value);
    }
    let rows = evaluation.rows.into_iter();
    rows.map(|row| (row.bucket.to_string(), row.object_id.to_string(), row.data.to_string())).collect()
}

fn buckets(plan: &SyncPlan, index: &mut Index, token: Value) -> Vec<String> {
    let Value::Object(token) = token else { panic!("a token is an object") };
    let request = RequestContext { token, include_defaults: true, ..RequestContext::default() };
    let Ok(resolution) = plan.querier(&request, "").expect("evaluates").resolve(index);
    resolution.buckets.iter().map(|bucket| bucket.name.to_string()).collect()
}

#[test]
fn a_joined_row_lands_in_the_bucket_of_its_owner() {
    let (plan, mut index) = (plan(KAIROS), Index::default());
    row(&plan, &mut index, "habits", &[("id", text("h1")), ("user_id", text("ann"))]);
    let rows = row(
        &plan,
        &mut index,
        "completions",
        &[("id", text("c1")), ("habit_id", text("h1")), ("n", SqlValue::Integer(2))],
    );
    assert_eq!(rows, [("user_data[\"ann\"]".into(), "c1".into(), r#"{"id":"c1","habit_id":"h1","n":2}"#.into())]);
    assert_eq!(buckets(&plan, &mut index, json!({"sub": "ann"})), ["user_data[\"ann\"]"]);
    assert!(row(&plan, &mut index, "completions", &[("id", text("c2")), ("habit_id", text("h9"))]).is_empty());
    assert!(row(&plan, &mut index, "completions", &[("id", text("c3")), ("habit_id", SqlValue::Null)]).is_empty());
}

#[test]
fn nested_subqueries_chain() {
    let yaml = r#"
bucket_definitions:
  mine:
    parameters: [{ name: user_id, type: string }]
    data:
      - table: notes
        filter: "completion_id IN (SELECT id FROM completions WHERE habit_id IN (SELECT id FROM habits WHERE user_id = :user_id AND NOT archived))"
"#;
    let (plan, mut index) = (plan(yaml), Index::default());
    let zero = SqlValue::Integer(0);
    row(&plan, &mut index, "habits", &[("id", text("h1")), ("user_id", text("ann")), ("archived", zero)]);
    row(
        &plan,
        &mut index,
        "habits",
        &[("id", text("h2")), ("user_id", text("ann")), ("archived", SqlValue::Integer(1))],
    );
    row(&plan, &mut index, "completions", &[("id", text("c1")), ("habit_id", text("h1"))]);
    row(&plan, &mut index, "completions", &[("id", text("c2")), ("habit_id", text("h2"))]);
    let note = |id, completion| [("id", text(id)), ("completion_id", text(completion))];
    assert_eq!(row(&plan, &mut index, "notes", &note("n1", "c1")).len(), 1);
    assert!(row(&plan, &mut index, "notes", &note("n2", "c2")).is_empty());
}

#[test]
fn classic_queries_meet_at_the_bucket_name() {
    let yaml = "
bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS owner
    data:
      - SELECT id, title AS name, _secret FROM todos WHERE owner = bucket.owner AND NOT archived
  team:
    priority: 1
    parameters: SELECT team_id FROM members WHERE user_id = token_parameters.user_id
    data:
      - SELECT * FROM tasks WHERE team_id = bucket.team_id
      - SELECT * FROM docs WHERE bucket.team_id IN docs.team_ids
  all:
    data: [SELECT id FROM news]
";
    let (plan, mut index) = (plan(yaml), Index::default());
    let todo = [
        ("id", SqlValue::Integer(7)),
        ("owner", text("ann")),
        ("title", text("x")),
        ("archived", SqlValue::Integer(0)),
        ("_secret", SqlValue::Real(1.0)),
    ];
    assert_eq!(
        row(&plan, &mut index, "todos", &todo),
        [("mine[\"ann\"]".into(), "7".into(), r#"{"id":7,"name":"x","_secret":1.0}"#.into())]
    );
    row(&plan, &mut index, "members", &[("user_id", text("ann")), ("team_id", SqlValue::Integer(5))]);
    let task = [
        ("id", text("t")),
        ("team_id", SqlValue::Real(5.0)),
        ("_hidden", text("h")),
        ("blob", SqlValue::Blob(vec![1])),
    ];
    assert_eq!(
        row(&plan, &mut index, "tasks", &task),
        [("team[5]".into(), "t".into(), r#"{"id":"t","team_id":5.0}"#.into())]
    );
    let docs = row(&plan, &mut index, "docs", &[("id", text("d")), ("team_ids", text("[5, 6]"))]);
    assert_eq!(docs.iter().map(|(bucket, ..)| bucket.as_str()).collect::<Vec<_>>(), ["team[5]", "team[6]"]);
    assert_eq!(row(&plan, &mut index, "news", &[("id", text("n"))])[0].0, "all[]");
    assert_eq!(buckets(&plan, &mut index, json!({"sub": "ann"})), ["all[]", "mine[\"ann\"]", "team[5]"]);
    assert_eq!(buckets(&plan, &mut index, json!({"sub": "bob"})), ["all[]", "mine[\"bob\"]"]);
}

#[test]
fn contradictory_equalities_match_only_where_both_hold() {
    let yaml = "
bucket_definitions:
  b:
    parameters: SELECT request.user_id() AS a
    data: [SELECT id FROM t WHERE x = bucket.a AND y = bucket.a]
";
    let (plan, mut index) = (plan(yaml), Index::default());
    let mut at = |x, y| row(&plan, &mut index, "t", &[("id", text("1")), ("x", text(x)), ("y", text(y))]).len();
    assert_eq!((at("ann", "bob"), at("ann", "ann")), (0, 1));
}

#[test]
fn what_is_wrong_is_said_with_code_and_place() {
    let definition = |body: &str| format!("bucket_definitions:\n  b:\n{body}");
    for (yaml, code) in [
        ("a: [".to_owned(), "yaml_syntax"),
        ("bucket_definitions: {}\nextra: 1\n".to_owned(), "schema_violation"),
        ("config: {edition: 1}\n".to_owned(), "definitions_missing"),
        (definition("    data: [DELETE FROM t]\n"), "not_a_select"),
        (definition("    data: [SELECT name FROM t]\n"), "id_column_missing"),
        (definition("    data: [SELECT * FROM t WHERE x = bucket.y]\n"), "bucket_parameters_not_covered"),
        (definition("    parameters: SELECT 1 AS y\n    data: [SELECT * FROM t]\n"), "bucket_parameters_not_covered"),
        (
            definition("    parameters: SELECT 1 AS y\n    data: ['SELECT * FROM t WHERE a = bucket.y OR b = 1']\n"),
            "or_parameters_differ",
        ),
        (definition("    data: [SELECT nope(id) AS id FROM t]\n"), "unknown_function"),
        (definition("    data: [SELECT id FROM t WHERE a = request.user_id()]\n"), "request_function_in_data_query"),
        (
            definition("    parameters: [{name: u, type: string}]\n    data: [{table: t}]\n"),
            "bucket_parameters_not_covered",
        ),
        (
            definition("    parameters: [{name: u, type: string}]\n    data: [{table: t, filter: 'a = :v'}]\n"),
            "bucket_parameters_not_covered",
        ),
        (
            definition(
                "    parameters: [{name: u, type: string}]\n    data: [{table: t, filter: 'a = :u OR b = :u'}]\n",
            ),
            "or_parameters_differ",
        ),
        (
            definition(
                "    parameters: [{name: u, type: string}]\n    data: [{table: t, filter: 'a NOT IN (SELECT b FROM s WHERE c = :u)'}]\n",
            ),
            "subquery_filter_unsupported",
        ),
        (
            definition(
                "    parameters: [{name: u, type: string}]\n    data: [{table: t, filter: 'a IN (SELECT b FROM t WHERE c = :u)'}]\n",
            ),
            "subquery_filter_unsupported",
        ),
        (format!("{KAIROS}write_rules:\n  habits: {{allow: [put]}}\n"), "check_missing"),
        (
            format!("{KAIROS}write_rules:\n  habits: {{allow: [put], check: true, conflict: {{strategy: lww}}}}\n"),
            "not_supported_yet",
        ),
        (
            format!("{KAIROS}write_rules:\n  habits: {{allow: [put], check: 'row.id IN (SELECT id FROM x)'}}\n"),
            "unsupported_expression",
        ),
        (format!("{KAIROS}streams: {{}}\n"), "not_supported_yet"),
    ] {
        assert_eq!(codes(&yaml), [code], "{yaml}");
        assert!(compile(&yaml, "public").diagnostics.iter().all(|found| found.span.is_some()), "{yaml}");
    }
}

#[test]
fn client_parameters_alone_are_dangerous() {
    let yaml = "
bucket_definitions:
  b:
    parameters: SELECT user_parameters.x AS x
    data: [SELECT * FROM t WHERE x = bucket.x]
";
    let found = compile(yaml, "public").diagnostics;
    assert_eq!(
        found.iter().map(|found| (found.code, found.severity)).collect::<Vec<_>>(),
        [("dangerous_parameters", Severity::Warning)]
    );
}

#[test]
fn write_rules_decide_operation_column_and_row() {
    let yaml = format!(
        "{KAIROS}write_rules:\n  habits:\n    allow: [put, patch]\n    columns: {{deny: [created_at], stamp: {{updated_by: auth.user_id()}}}}\n    check: row.user_id = auth.user_id()\n"
    );
    let plan = plan(&yaml);
    let policy = plan.write_policy("habits").expect("there is a rule");
    assert!(plan.write_policy("completions").is_none());
    assert!(policy.allows(WriteOp::Put) && !policy.allows(WriteOp::Delete));
    let column = |name| policy.allows_column(name);
    assert_eq!((column("id"), column("name"), column("created_at"), column("updated_by")), (true, true, false, false));
    let token: Map<String, Value> = Map::from_iter([("sub".to_owned(), json!("ann"))]);
    assert_eq!(policy.stamps(&token).expect("evaluates"), [("updated_by".to_owned(), text("ann"))]);
    let owned_by = |user: &str| vec![("user_id".to_owned(), text(user))];
    let check = |new: Option<&str>, old: Option<&str>| {
        let (new, old) = (new.map(owned_by), old.map(owned_by));
        policy.check(&token, new.as_deref(), old.as_deref()).expect("evaluates")
    };
    assert!(check(Some("ann"), None) && check(None, Some("ann")));
    assert!(!check(Some("bob"), None) && !check(None, Some("bob")));
}

proptest! {
    /// The oracle computes the join with loops over the tables, knowing nothing of lookups.
    #[test]
    fn joined_rows_equal_the_sql_join(
        habits in prop::collection::btree_map("h[0-4]", "u[0-2]", 0..5),
        completions in prop::collection::btree_map("c[0-9]", "h[0-5]", 0..8),
    ) {
        let (plan, mut index) = (plan(KAIROS), Index::default());
        for (id, user) in &habits {
            row(&plan, &mut index, "habits", &[("id", text(id)), ("user_id", text(user))]);
        }
        for (id, habit) in &completions {
            let found: Vec<String> = row(&plan, &mut index, "completions", &[("id", text(id)), ("habit_id", text(habit))])
                .into_iter().map(|(bucket, ..)| bucket).collect();
            let expected: Vec<String> = habits.get(habit).map(|user| format!("user_data[\"{user}\"]")).into_iter().collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn no_text_makes_the_compiler_panic(text in ".{0,200}") {
        compile(&text, "public");
        compile(&format!("bucket_definitions:\n  a:\n    data:\n      - \"{}\"\n", text.replace(['"', '\\'], "'")), "public");
    }
}
