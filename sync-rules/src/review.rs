//! What a person should look at twice before deploying. Nothing of it is a fault of the file, so it is no part of the
//! diagnostics of [`compile`](crate::compile()).

use crate::{
    definition::{BucketQuery, Definition, ElementInput, Parameter, RequestInput, Step, ValueSource},
    diagnostic::{Diagnostic, Severity},
    plan::Compiled,
};

/// Finds definitions whose rows go to everybody: nothing of the token decides who gets them. Those where clients choose
/// are left out, as `dangerous_parameters` speaks of them, and so are those that accept it in the file.
pub fn review(compiled: &Compiled) -> Vec<Diagnostic> {
    let Some(plan) = &compiled.plan else { return Vec::new() };
    let mut findings = Vec::new();
    for place in compiled.places.definitions.iter().filter(|place| !place.accepts_dangerous) {
        let Some(definition) = plan.definitions.iter().find(|definition| definition.name == place.name) else {
            continue;
        };
        if is_for_everybody(definition) {
            findings.push(Diagnostic {
                code: "bucket_for_everybody",
                severity: Severity::Warning,
                message: format!("everybody who can sign in can get all rows of `{}`", place.name),
                help: Some(
                    "let a value of the token decide, such as the user's id; if everybody may read the rows, set \
                     `accept_potentially_dangerous_queries: true`"
                        .to_owned(),
                ),
                span: Some(place.span),
            });
        }
    }
    findings
}

fn is_for_everybody(definition: &Definition) -> bool {
    let has_rows = definition.buckets.iter().any(|bucket| !bucket.rows.is_empty());
    has_rows && definition.queries.iter().any(|query| !reads_request(query))
}

/// Whether anything of the request, be it of the token or chosen by the client, decides about the buckets.
fn reads_request(query: &BucketQuery) -> bool {
    let mut is_read = false;
    let mut note = |_: &RequestInput| is_read = true;
    query.conditions.iter().for_each(|condition| condition.visit_inputs(&mut note));
    query.parameters.iter().for_each(|parameter| visit_parameter(parameter, &mut note));
    for step in &query.steps {
        match step {
            Step::Lookup { inputs, .. } => inputs.iter().for_each(|input| visit_parameter(input, &mut note)),
            Step::Elements { array, filter, outputs, .. } => {
                array.visit_inputs(&mut note);
                for expression in filter.iter().chain(outputs) {
                    expression.visit_inputs(&mut |input| {
                        if let ElementInput::Request(input) = input {
                            note(input);
                        }
                    });
                }
            }
        }
    }
    is_read
}

fn visit_parameter(Parameter(sources): &Parameter, note: &mut dyn FnMut(&RequestInput)) {
    for source in sources {
        match source {
            ValueSource::Request(value) => value.visit_inputs(&mut |input| note(input)),
            // A named parameter of the Kairos dialect is of the token.
            ValueSource::Claim(_) => note(&RequestInput::Token),
            ValueSource::Found { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{compile, diagnostic::Span};

    use super::*;

    fn reviewed(yaml: &str) -> Vec<(&'static str, Option<Span>)> {
        let compiled = compile(yaml, "public");
        assert!(compiled.plan.is_some(), "{:?}", compiled.diagnostics);
        assert!(compiled.diagnostics.iter().all(|finding| finding.code != "bucket_for_everybody"));
        review(&compiled).into_iter().map(|finding| (finding.code, finding.span)).collect()
    }

    fn reviewed_definition(body: &str) -> usize {
        reviewed(&format!("bucket_definitions:\n  all:\n{body}")).len()
    }

    fn reviewed_stream(query: &str) -> usize {
        reviewed(&format!("config: {{ edition: 3 }}\nstreams:\n  all:\n    query: {query}\n")).len()
    }

    #[test]
    fn rows_that_nothing_of_the_token_restricts_are_for_everybody() {
        let span = Some(Span { line: 2, column: 3 });
        let found = reviewed("bucket_definitions:\n  all:\n    data: [SELECT * FROM items]\n");
        assert_eq!(found, [("bucket_for_everybody", span)]);
        let by_list = "    parameters: SELECT id AS list FROM lists WHERE NOT archived\n    \
                       data: [SELECT * FROM items WHERE list = bucket.list]\n";
        assert_eq!(reviewed_definition(by_list), 1);
        assert_eq!(reviewed_stream("SELECT * FROM items WHERE NOT hidden"), 1);
        let through_a_table = "SELECT * FROM items WHERE list IN (SELECT id FROM lists WHERE shared)";
        assert_eq!(reviewed_stream(through_a_table), 1);
    }

    #[test]
    fn one_open_query_among_others_opens_the_definition() {
        assert_eq!(reviewed_stream("SELECT * FROM items WHERE owner = auth.user_id() OR shared"), 1);
    }

    #[test]
    fn a_value_of_the_token_anywhere_makes_rows_somebodys() {
        let body = "    parameters: SELECT request.user_id() AS owner\n    \
                    data: [SELECT * FROM items WHERE owner = bucket.owner]\n";
        assert_eq!(reviewed_definition(body), 0);
        let body = "    parameters: SELECT WHERE request.jwt() ->> 'role' = 'staff'\n    \
                    data: [SELECT * FROM items]\n";
        assert_eq!(reviewed_definition(body), 0);
        let body = "    parameters: [{ name: user_id, type: string }]\n    \
                    data: [{ table: items, filter: 'owner = :user_id' }]\n";
        assert_eq!(reviewed_definition(body), 0);
        let through_a_table = "SELECT * FROM items WHERE list IN (SELECT id FROM lists WHERE owner = auth.user_id())";
        assert_eq!(reviewed_stream(through_a_table), 0);
        assert_eq!(reviewed_stream("SELECT * FROM items WHERE list IN auth.parameter('lists')"), 0);
    }

    #[test]
    fn what_the_file_accepts_is_not_said() {
        let body = "    accept_potentially_dangerous_queries: true\n    data: [SELECT * FROM items]\n";
        assert_eq!(reviewed_definition(body), 0);
    }

    #[test]
    fn what_clients_choose_is_said_once() {
        let yaml = "config: { edition: 3 }\nstreams:\n  all:\n    \
                    query: SELECT * FROM items WHERE list = subscription.parameter('list')\n";
        assert_eq!(compile(yaml, "public").diagnostics.len(), 1);
        assert_eq!(reviewed(yaml), []);
    }
}
