//! Why a row is in a bucket or not, and why a client has it or not, for rules of each dialect.

use std::collections::BTreeSet;

use kairos_sync_rules::{
    ExplainedRequest, ExplainedRowQuery, RequestContext, Subscription,
    explain::{ExplainedBucketQuery, Outcome, Predicate},
};
use serde_json::{Value, json};

use crate::fixture::{Service, request, service, sql, table};

const KAIROS: &str = "
bucket_definitions:
  mine:
    parameters: [{ name: user_id, type: string }]
    data:
      - { table: habits, filter: 'user_id = :user_id AND NOT archived' }
      - { table: completions, filter: 'habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)' }
";
const CLASSIC: &str = "
bucket_definitions:
  board:
    priority: 2
    parameters: SELECT board_id FROM members WHERE user_id = request.user_id() AND role = 'editor'
    data: ['SELECT * FROM cards WHERE board_id = bucket.board_id AND archived = 0']
";
const STREAMS: &str = "
config: { edition: 3 }
streams:
  board:
    query: SELECT * FROM cards WHERE board_id = subscription.parameter('board') AND board_id IN (SELECT board_id FROM members WHERE user_id = auth.user_id())
  staff:
    auto_subscribe: true
    query: SELECT * FROM cards WHERE archived = 1 AND auth.parameter('role') = 'staff'
  read_by:
    auto_subscribe: true
    query: SELECT * FROM cards WHERE auth.user_id() IN readers OR owner = auth.user_id()
";

impl Service {
    fn explain_row(&mut self, name: &str, row: &Value) -> Vec<ExplainedRowQuery> {
        let row = row.as_object().expect("a row is an object");
        let (columns, values): (Vec<_>, Vec<_>) = row.iter().map(|(name, value)| (name.clone(), sql(value))).unzip();
        let explained = self.plan.explain_row(&table(name), &columns, &values, "", &mut self.index);
        explained.unwrap_or_else(|never| match never {})
    }

    fn explain_request(&mut self, request: &RequestContext) -> ExplainedRequest {
        self.plan.explain_request(request, "", &mut self.index).unwrap_or_else(|never| match never {})
    }
}

/// A condition with the values it reads, in one line.
fn line(predicate: &Predicate) -> String {
    let values: Vec<_> = predicate.values.iter().map(|value| format!("{} is {}", value.name, value.value)).collect();
    let note = predicate.note.as_deref().map_or_else(String::new, |note| format!("; {note}"));
    format!("{} ({}{note})", predicate.text, values.join(", "))
}

/// What keeps a row out of the only query over its table.
fn obstacle(explained: &[ExplainedRowQuery]) -> String {
    let [query] = explained else { panic!("{explained:?}") };
    line(query.obstacle().unwrap_or_else(|| panic!("{query:?}")))
}

/// The only query of the only way of a definition.
fn query<'e>(explained: &'e ExplainedRequest, definition: &str) -> &'e ExplainedBucketQuery {
    let found = explained.definitions.iter().find(|known| known.name == definition).expect("the definition");
    let [way] = &found.ways[..] else { panic!("{found:?}") };
    let [query] = &way.queries[..] else { panic!("{found:?}") };
    query
}

#[test]
fn the_condition_that_keeps_a_row_out_is_named_with_its_values() {
    let mut service = service(KAIROS);
    service.put("habits", json!({"id": "h1", "user_id": "anna", "archived": false}));
    let archived = json!({"id": "h2", "user_id": "anna", "archived": true});
    assert_eq!(obstacle(&service.explain_row("habits", &archived)), "not archived (archived is 1)");
    let nobody = json!({"id": "h3", "user_id": null, "archived": false});
    assert_eq!(obstacle(&service.explain_row("habits", &nobody)), "user_id = p1 (user_id is NULL)");
    let orphan = json!({"id": "c1", "habit_id": "h9"});
    assert_eq!(
        obstacle(&service.explain_row("completions", &orphan)),
        "habit_id IN (SELECT … FROM public.habits) (habit_id is 'h9'; no row there that counts has this value)"
    );
    let joined = service.explain_row("completions", &json!({"id": "c2", "habit_id": "h1"}));
    assert_eq!(joined[0].passes[0].buckets, ["mine[\"anna\"]"]);
    assert_eq!(joined[0].passes[0].predicates[0].note.as_deref(), Some("gives p1 = \"anna\""));
    assert!(joined[0].is_met() && joined[0].obstacle().is_none());
}

#[test]
fn conditions_that_and_joins_are_told_one_by_one() {
    let mut service = service(CLASSIC);
    let card = json!({"id": "k1", "board_id": "b1", "archived": 1});
    let [explained] = &service.explain_row("cards", &card)[..] else { panic!("one query") };
    let told: Vec<_> = explained.passes[0].predicates.iter().map(|each| (each.text.as_str(), &each.outcome)).collect();
    assert_eq!(told, [("board_id = p1", &Outcome::Holds), ("archived = 0", &Outcome::DoesNotHold)]);
    assert_eq!(
        (explained.definition.as_str(), explained.number, &explained.buckets[..]),
        ("board", 1, &["board".to_owned()][..])
    );
}

#[test]
fn elements_and_alternatives_are_explained() {
    let mut service = service(STREAMS);
    let card = json!({"id": "k1", "board_id": "b1", "archived": 1, "owner": null, "readers": "[\"anna\",\"ben\"]"});
    let explained = service.explain_row("cards", &card);
    let buckets: BTreeSet<_> =
        explained.iter().flat_map(|query| &query.passes).flat_map(|pass| pass.buckets.iter().cloned()).collect();
    let evaluated: BTreeSet<_> = service.put("cards", card).rows.iter().map(|row| row.bucket.to_string()).collect();
    assert_eq!(buckets, evaluated);
    assert!(evaluated.len() > 3, "{evaluated:?}");
    let broken = json!({"id": "k2", "board_id": "b1", "archived": 0, "owner": "ben", "readers": "no JSON"});
    let failed: Vec<_> = service.explain_row("cards", &broken).into_iter().filter_map(|query| query.failure).collect();
    assert_eq!(failed.len(), 1, "the query fails as a whole: {failed:?}");
}

#[test]
fn a_client_is_told_where_each_parameter_comes_from() {
    let mut service = service(CLASSIC);
    for (id, board, role) in [("m1", "b1", "editor"), ("m2", "b2", "editor"), ("m3", "b3", "viewer")] {
        service.put("members", json!({"id": id, "user_id": "anna", "board_id": board, "role": role}));
    }
    let anna = request(json!({"sub": "anna"}));
    let resolution = service.resolve(&anna);
    let wanted = resolution.buckets.iter().map(|bucket| bucket.name.clone()).collect();
    let plan = service.plan.clone();
    let origins = plan.origins(&anna, "", &mut service.index, &wanted).unwrap_or_else(|never| match never {});
    assert_eq!(origins.len(), 2);
    for (name, board) in [("board[\"b1\"]", "\"b1\""), ("board[\"b2\"]", "\"b2\"")] {
        let [origin] = &origins[&kairos_sync_protocol::BucketName::new(name)][..] else { panic!("{origins:?}") };
        assert_eq!((origin.definition.as_str(), origin.priority, origin.subscription), ("board", 2, None));
        assert_eq!(origin.parameters, [(board.to_owned(), "value 1 of step 1".to_owned())]);
        let [used] = &origin.lookups[..] else { panic!("{origin:?}") };
        assert_eq!((used.step, used.table.as_str(), &*used.value.0), (1, "public.members", &*format!("[{board}]")));
    }
    let explained = service.explain_request(&anna);
    let found = query(&explained, "board");
    assert_eq!((found.bucket_count, found.steps[0].found_count), (2, 2));
    assert_eq!(found.steps[0].asked, ["\"anna\""]);

    let nobody = service.explain_request(&request(json!({"sub": "ben"})));
    let found = query(&nobody, "board");
    assert_eq!((found.bucket_count, found.steps[0].found_count), (0, 0));
}

#[test]
fn a_client_is_told_why_it_has_no_buckets() {
    let mut service = service(STREAMS);
    service.put("members", json!({"id": "m1", "user_id": "anna", "board_id": "b1"}));
    let explained = service.explain_request(&request(json!({"sub": "anna", "role": "guest"})));
    let ways = |name: &str| explained.definitions.iter().find(|each| each.name == name).expect("known").ways.len();
    assert_eq!((ways("board"), ways("staff")), (0, 1), "nobody has a stream who did not subscribe");
    let [condition] = &query(&explained, "staff").conditions[..] else { panic!("{explained:?}") };
    assert_eq!(line(condition), "token ->> 'role' = 'staff' (token ->> 'role' is 'guest')");
    assert_eq!(condition.outcome, Outcome::DoesNotHold);

    let subscribed = |board: &str| {
        let Value::Object(parameters) = json!({"board": board}) else { unreachable!("an object") };
        let subscription = Subscription { stream: "board".to_owned(), parameters: Some(parameters), priority: None };
        RequestContext { subscriptions: vec![subscription], ..request(json!({"sub": "anna"})) }
    };
    assert_eq!(query(&service.explain_request(&subscribed("b1")), "board").bucket_count, 1);
    let other = service.explain_request(&subscribed("b2"));
    let found = query(&other, "board");
    assert_eq!((found.bucket_count, found.failure.as_deref()), (0, None));
    assert!(found.parameters.iter().any(|parameter| parameter.value.as_deref() == Some("\"b2\"")), "{found:?}");
}

#[test]
fn a_missing_claim_is_a_reason() {
    let mut service =
        service(&KAIROS.replace("user_id, type: string", "team, type: string").replace(":user_id", ":team"));
    let explained = service.explain_request(&request(json!({"sub": "anna"})));
    let failure = query(&explained, "mine").failure.as_deref().expect("a reason");
    assert!(failure.contains("team"), "{failure}");
}
