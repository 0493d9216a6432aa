//! Values are never code: a client reaches the rows with exactly its own value, whatever the value looks like.

use std::collections::BTreeSet;

use kairos_sync_rules::{RequestContext, SourceTable, SqlValue, compile};
use serde_json::json;

use crate::{corpus, index::Index};

/// Rules that say of `notes`, in different ways: the owner is the user and the team is the role.
const RULES: [&str; 6] = [
    "bucket_definitions:
  d:
    parameters: SELECT request.user_id() AS u, request.jwt() ->> 'role' AS r
    data: [SELECT * FROM notes WHERE owner = bucket.u AND team = bucket.r]
",
    "bucket_definitions:
  d:
    parameters: SELECT owner, team FROM members WHERE owner = request.user_id() AND team IN request.jwt() -> 'roles'
    data: [SELECT * FROM notes WHERE owner = bucket.owner AND bucket.team IN teams]
",
    "bucket_definitions:
  d:
    parameters: [{ name: user_id, type: string }, { name: role, type: string }]
    data:
      - table: notes
        filter: member IN (SELECT id FROM members WHERE owner = :user_id AND :role IN teams)
",
    "config: { edition: 3 }
streams:
  d:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE owner = auth.user_id() AND teams && auth.parameter('roles')
",
    "config: { edition: 3 }
streams:
  d:
    auto_subscribe: true
    query: SELECT notes.* FROM notes JOIN members ON members.id = notes.member AND members.team = notes.team WHERE members.owner = auth.user_id() AND members.team = auth.parameter('role')
",
    "config: { edition: 3 }
streams:
  d:
    auto_subscribe: true
    write_time_joins: true
    query: SELECT * FROM notes WHERE member IN (SELECT id FROM members WHERE owner = auth.user_id() AND auth.parameter('role') IN teams)
",
];

#[test]
fn a_value_reaches_itself_alone() {
    let texts = corpus::texts();
    for rules in RULES {
        let plan = compile(rules, "public").plan.expect("valid rules");
        let mut index = Index::default();
        let mut rows = Vec::new();
        // Each text as owner, with itself and its neighbour as team.
        let pairs: Vec<_> = (0..texts.len()).flat_map(|at| [(at, at), (at, (at + 1) % texts.len())]).collect();
        for table in ["members", "notes"] {
            let source =
                SourceTable { connection: "default".to_owned(), schema: "public".to_owned(), name: table.to_owned() };
            let columns = ["id", "owner", "team", "teams", "member"].map(str::to_owned);
            let evaluator = plan.evaluator(&source, &columns, "");
            for (owner, team) in &pairs {
                let id = format!("{owner}/{team}");
                let array = json!([texts[*team]]).to_string();
                let row = [id.clone(), texts[*owner].clone(), texts[*team].clone(), array, id].map(SqlValue::Text);
                let evaluation = evaluator.evaluate(&row, &mut index).unwrap_or_else(|never| match never {});
                assert!(evaluation.errors.is_empty(), "{:?}", evaluation.errors);
                index.replace(&[], &evaluation.lookups);
                rows.extend(evaluation.rows);
            }
        }
        for (owner, team) in &pairs {
            let token = json!({"sub": texts[*owner], "role": texts[*team], "roles": [texts[*team]]});
            let token = token.as_object().expect("an object").clone();
            let request = RequestContext { token, include_defaults: true, ..RequestContext::default() };
            let querier = plan.querier(&request, "").expect("a valid request");
            let resolution = querier.resolve(&mut index).unwrap_or_else(|never| match never {});
            let buckets: BTreeSet<_> = resolution.buckets.iter().map(|bucket| &bucket.name).collect();
            let seen = rows.iter().filter(|row| buckets.contains(&row.bucket));
            let seen: BTreeSet<_> = seen.map(|row| row.object_id.to_string()).collect();
            assert_eq!(seen, [format!("{owner}/{team}")].into(), "{:?} in {rules}", texts[*owner]);
        }
    }
}

#[test]
fn values_are_in_no_message() {
    const SECRET: &str = "secret-4711";
    let rules = "bucket_definitions:
  d:
    parameters: SELECT request.jwt() ->> 'role' AS r
    data: [\"SELECT id, doc ->> 'x' AS x FROM notes WHERE team = bucket.r\", SELECT id FROM notes WHERE bucket.r IN doc]
";
    let plan = compile(rules, "public").plan.expect("valid rules");
    let source =
        SourceTable { connection: "default".to_owned(), schema: "public".to_owned(), name: "notes".to_owned() };
    let evaluator = plan.evaluator(&source, &["id", "team", "doc"].map(str::to_owned), "");
    let row = [SECRET, SECRET, SECRET].map(|text| SqlValue::Text(text.to_owned()));
    let evaluation = evaluator.evaluate(&row, &mut Index::default()).unwrap_or_else(|never| match never {});
    assert_eq!(evaluation.errors.len(), 2, "both queries look into what is no JSON");
    assert!(evaluation.errors.iter().all(|error| !error.to_string().contains(SECRET)));
}
