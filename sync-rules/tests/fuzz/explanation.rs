//! Explanations say what evaluation does, also of hostile rows and requests.

use std::collections::BTreeSet;

use kairos_sync_rules::{
    Evaluation, LookupSource, RequestContext, Resolution, SourceTable, SqlValue, SyncPlan, evaluate::ErrorKind,
    explain::Outcome,
};

use crate::index::Index;

/// The buckets of a row, as the explanation names them, are those of its evaluation.
pub(crate) fn check_row(
    plan: &SyncPlan,
    table: &SourceTable,
    columns: &[String],
    row: &[SqlValue],
    evaluation: &Evaluation,
    index: &mut Index,
) {
    let explained = plan.explain_row(table, columns, row, "1#", index).unwrap_or_else(|never| match never {});
    let mut failures: Vec<_> = Vec::new();
    let mut named: BTreeSet<&str> = BTreeSet::new();
    let mut is_cut = false;
    for query in &explained {
        if query.failure.is_some() {
            failures.push(format!("{}: data query {}", query.definition, query.number));
            continue;
        }
        is_cut |= query.passes.len() < query.pass_count;
        for pass in &query.passes {
            is_cut |= pass.buckets.len() < pass.bucket_count;
            named.extend(pass.buckets.iter().map(String::as_str));
            let holds = pass.predicates.iter().all(|predicate| predicate.outcome == Outcome::Holds);
            assert!(holds || pass.bucket_count == 0, "{pass:?}");
        }
    }
    let failed =
        |query: &String| evaluation.errors.iter().any(|error| error.to_string().starts_with(&format!("{query}: ")));
    assert!(failures.iter().all(failed), "{failures:?} {:?}", evaluation.errors);
    let evaluated: BTreeSet<&str> = evaluation.rows.iter().map(|row| row.bucket.as_str()).collect();
    let is_whole =
        !is_cut && evaluation.errors.iter().filter(|error| error.kind == ErrorKind::Data).count() == failures.len();
    assert!(named.is_subset(&evaluated), "{named:?} {evaluated:?}");
    assert!(!is_whole || named == evaluated, "{named:?} {evaluated:?}");
}

/// The buckets of a request are explained, each with its parameters.
pub(crate) fn check_request(plan: &SyncPlan, request: &RequestContext, resolution: &Resolution, index: &mut Index) {
    let explained = plan.explain_request(request, "1#", index).unwrap_or_else(|never| match never {});
    assert_eq!(explained.resolution.as_ref(), Ok(resolution));
    let names: BTreeSet<_> = resolution.buckets.iter().map(|bucket| bucket.name.clone()).collect();
    let origins = plan.origins(request, "1#", index, &names).unwrap_or_else(|never| match never {});
    for bucket in &resolution.buckets {
        let origins = &origins[&bucket.name];
        assert_eq!(origins.iter().map(|origin| origin.priority).min(), Some(bucket.priority));
        for origin in origins {
            let parameters: Vec<_> = origin.parameters.iter().map(|(value, _)| value.as_str()).collect();
            assert!(
                bucket.name.as_str().ends_with(&format!("[{}]", parameters.join(","))),
                "{} {origin:?}",
                bucket.name
            );
            for used in &origin.lookups {
                let answers = index.values(&used.key).unwrap_or_else(|never| match never {});
                assert!(answers.contains(&used.value), "{used:?}");
            }
        }
    }
    let ways = explained.definitions.iter().flat_map(|definition| &definition.ways);
    let found: usize = ways.flat_map(|way| &way.queries).map(|query| query.bucket_count).sum();
    assert!(found >= names.len());
}
