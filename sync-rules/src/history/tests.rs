use std::convert::Infallible;

use super::*;
use crate::{LookupSource, LookupValue, RequestContext, SourceTable, SqlValue, compile};

const RULES: &str = "
bucket_definitions:
  all:
    data: [SELECT id FROM items]
  mine:
    parameters:
      - name: user_id
        type: string
    data:
      - table: lists
        filter: 'owner = :user_id'
      - table: todos
        filter: 'list IN (SELECT id FROM lists WHERE owner = :user_id)'
";

fn plan(rules: &str) -> SyncPlan {
    let compiled = compile(rules, "public");
    compiled.plan.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))
}

/// Answers every question with one owner.
struct OneOwner(Vec<LookupKey>);

impl LookupSource for OneOwner {
    type Error = Infallible;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, Infallible> {
        self.0.push(key.clone());
        Ok(vec![LookupValue(r#"["anna"]"#.into())])
    }
}

/// Buckets that a row goes to, and lookups it asks or feeds.
fn of_row(plan: &SyncPlan, table: &str, columns: &[&str]) -> (Vec<String>, Vec<LookupKey>) {
    let table = SourceTable { connection: "default".into(), schema: "public".into(), name: table.into() };
    let names: Vec<_> = columns.iter().map(|name| (*name).to_owned()).collect();
    let values: Vec<_> = columns.iter().map(|name| SqlValue::Text((*name).into())).collect();
    let mut lookups = OneOwner(Vec::new());
    let evaluation = plan.evaluator(&table, &names, "").evaluate(&values, &mut lookups).unwrap();
    let fed = evaluation.lookups.into_iter().map(|(key, _)| key);
    let buckets = evaluation.rows.iter().map(|row| row.bucket.as_str().to_owned()).collect();
    (buckets, lookups.0.into_iter().chain(fed).collect())
}

#[test]
fn what_is_as_before_keeps_its_history_and_the_rest_begins_a_new_one() {
    let first = Histories::of(&plan(RULES), &Histories::default(), 0);
    let changed = plan(&RULES.replace("SELECT id FROM items", "SELECT * FROM items"));
    let second = Histories::of(&changed, &first, 1);
    assert_eq!(second.bucket_names_without(&first), ["all"]);
    assert_eq!(second.without(&first), NamePrefixes { buckets: vec!["1#all[".into()], lookups: vec![] });
    assert_eq!(first.without(&second).buckets, ["all["]);
    let third = Histories::of(&plan(RULES), &second, 2);
    assert_eq!(third.without(&second).buckets, ["2#all["], "back to the first rules, not to the first history");
}

#[test]
fn rows_and_requests_meet_under_the_names_of_a_history() {
    let first = plan(RULES);
    let histories = Histories::of(&first, &Histories::default(), 7);
    let renamed = first.clone().with_histories(&histories);
    let (buckets, asked) = of_row(&renamed, "todos", &["id", "list"]);
    assert_eq!(buckets, [r#"7#mine["anna"]"#]);
    let (_, fed) = of_row(&renamed, "lists", &["list", "owner", "id"]);
    assert!(asked[0].0.starts_with(r#"["7#"#), "{asked:?}");
    let prefixes = histories.without(&Histories::default());
    assert!(asked.iter().chain(&fed).all(|key| prefixes.has_lookup(key)) && !fed.is_empty(), "{fed:?}");
    let request = RequestContext {
        token: serde_json::json!({"sub": "anna"}).as_object().unwrap().clone(),
        include_defaults: true,
        ..RequestContext::default()
    };
    let resolution = renamed.querier(&request, "p#").unwrap().resolve(&mut OneOwner(Vec::new())).unwrap();
    let names: Vec<_> = resolution.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    assert_eq!(names, ["p#7#all[]", r#"p#7#mine["anna"]"#]);
    assert!(resolution.buckets.iter().all(|bucket| prefixes.has_bucket("p#", &bucket.name)));
}

#[test]
fn only_what_is_new_is_left_of_a_plan_without_another() {
    let old = plan(RULES);
    let changed =
        plan(&RULES.replace(
            "owner = :user_id'\n      - table: todos",
            "owner = :user_id AND shared = 1'\n      - table: todos",
        ));
    let first = Histories::of(&old, &Histories::default(), 0);
    let second = Histories::of(&changed, &first, 1);
    let (old, changed) = (old.with_histories(&first), changed.with_histories(&second));
    let rest = changed.without(&old);
    assert_eq!(of_row(&rest, "items", &["id"]).0, Vec::<String>::new());
    assert_eq!(of_row(&rest, "todos", &["id", "list"]).0, [r#"1#mine["anna"]"#]);
    assert!(rest.indexes.is_empty(), "the subquery is as before");
    assert!(changed.without(&changed).is_empty());
    assert!(!rest.is_empty());
}

#[test]
fn other_requests_need_no_new_history() {
    let rules = "
bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS owner
    data: [SELECT id FROM items WHERE owner = bucket.owner]
";
    let first = Histories::of(&plan(rules), &Histories::default(), 0);
    let other = plan(&rules.replace("SELECT request.user_id() AS owner", "SELECT request.jwt() ->> 'team' AS owner"));
    assert_eq!(Histories::of(&other, &first, 1), first);
}

#[test]
fn values_that_are_printed_in_another_way_make_everything_new() {
    let first = Histories::of(&plan(RULES), &Histories::default(), 0);
    let other = plan(&format!("config: {{edition: 2}}{RULES}"));
    let second = Histories::of(&other, &first, 1);
    assert_eq!(second.bucket_names_without(&first), ["all", "mine"]);
    assert_eq!(second.without(&first).lookups.len(), first.without(&Histories::default()).lookups.len());
}

#[test]
fn no_definition_can_take_the_name_of_anothers_history() {
    let name = |began, name: &str| History { content: String::new(), began }.name_of(name);
    assert_eq!(name(0, "mine"), "mine");
    assert_eq!(name(1, "mine"), "1#mine");
    assert_eq!(name(0, "1#mine"), "0#1#mine");
    assert_eq!(name(0, "#mine"), "0##mine");
    assert_eq!(name(0, "a#mine"), "a#mine");
}

#[test]
fn what_reads_a_table_itself_or_by_a_join_is_told_from_the_rest() {
    let plan = plan(RULES);
    let all = Histories::of(&plan, &Histories::default(), 0);
    let lost = |table: &str| {
        let table = SourceTable { connection: "default".into(), schema: "public".into(), name: table.into() };
        let kept = all.without_readers(&plan, |pattern| pattern.matches(&table));
        (all.bucket_names_without(&kept), all.without(&kept).lookups.len())
    };
    assert_eq!(lost("items"), (vec!["all".to_owned()], 0));
    assert_eq!(lost("lists"), (vec!["mine".to_owned()], 1), "todos ask which lists there are");
    assert_eq!(lost("todos"), (vec!["mine".to_owned()], 0));
    assert_eq!(lost("others"), (vec![], 0));
}
