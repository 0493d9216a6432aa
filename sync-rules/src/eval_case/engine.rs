//! The engine at work on a case: rows through the plan until their lookups are settled, then the requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

use super::{
    CaseError,
    case::{Case, Request, SourceRow},
    result::{
        BucketResult, CaseResult, DataResult, EventResult, LookupResult, ReasonResult, RequestResult, RowResult,
        RulesResult, findings, sorted, sorted_object,
    },
    values::{ValueError, decode_columns},
};
use crate::{
    Diagnostic, ErrorKind, EvaluatedEvent, Evaluation, LookupKey, LookupSource, LookupValue, Reason, SourceTable,
    SqlValue, SyncPlan, TableEvaluator,
};

/// A join over joins settles in as many passes as it is deep; no rules anybody reads go so deep.
const PASSES_MAX: usize = 64;

/// What all rows of the case say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Index(BTreeMap<LookupKey, BTreeSet<LookupValue>>);

impl LookupSource for Index {
    type Error = Infallible;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, Infallible> {
        Ok(self.0.get(key).into_iter().flatten().cloned().collect())
    }
}

impl<'e> FromIterator<&'e Evaluation> for Index {
    fn from_iter<I: IntoIterator<Item = &'e Evaluation>>(evaluations: I) -> Self {
        let mut index = BTreeMap::<_, BTreeSet<_>>::new();
        for (key, value) in evaluations.into_iter().flat_map(|evaluation| &evaluation.lookups) {
            index.entry(key.clone()).or_default().insert(value.clone());
        }
        Self(index)
    }
}

/// Evaluators by table and columns; rows of a table mostly have the same.
type Evaluators = BTreeMap<(SourceTable, Vec<String>), Arc<TableEvaluator>>;

/// A row, ready to be evaluated.
struct Row {
    evaluator: Arc<TableEvaluator>,
    /// `None` if the source cannot deliver the row.
    values: Option<Vec<SqlValue>>,
}

/// Runs rows and requests through rules that can be deployed.
pub(super) fn evaluate<'c>(
    case: &'c Case<'_>,
    plan: &SyncPlan,
    diagnostics: &[Diagnostic],
) -> Result<CaseResult<'c>, CaseError> {
    let version = case.bucket_version.filter(|_| plan.versioned_bucket_ids());
    let bucket_prefix = version.map_or_else(String::new, |version| format!("{version}#"));
    let mut evaluators = Evaluators::new();
    let prepare = |(index, row)| prepare(index, row, &case.default_schema, plan, &bucket_prefix, &mut evaluators);
    let rows = case.source_rows.iter().enumerate().map(prepare).collect::<Result<Vec<_>, _>>()?;
    let (evaluations, mut index) = settle(&rows)?;
    let tables = plan.source_tables();
    let tables = tables.iter().map(|table| [&table.connection, &table.schema, &table.name]);
    Ok(CaseResult {
        id: &case.id,
        requests: case.requests.iter().map(|request| resolve(plan, request, &bucket_prefix, &mut index)).collect(),
        rows: rows.iter().zip(&evaluations).map(|(row, evaluation)| row_result(row, evaluation)).collect(),
        rules: RulesResult { errors: findings(diagnostics), ok: true, source_tables: sorted(tables) },
    })
}

fn prepare(
    index: usize,
    row: &SourceRow<'_>,
    default_schema: &str,
    plan: &SyncPlan,
    bucket_prefix: &str,
    evaluators: &mut Evaluators,
) -> Result<Row, CaseError> {
    let (names, values) = match decode_columns(row.columns.get(), plan.compatibility()) {
        Ok((names, values)) => (names, Some(values)),
        Err(ValueError::Failed) => (Vec::new(), None),
        Err(ValueError::Malformed(reason)) => return Err(CaseError::Column { row: index, reason }),
    };
    let table = row.table(default_schema);
    let evaluator = evaluators
        .entry((table, names))
        .or_insert_with_key(|(table, names)| Arc::new(plan.evaluator(table, names, bucket_prefix)));
    Ok(Row { evaluator: Arc::clone(evaluator), values })
}

/// Evaluates the rows again and again until none would see another lookup than before.
fn settle(rows: &[Row]) -> Result<(Vec<Evaluation>, Index), CaseError> {
    let mut index = Index::default();
    for _ in 0..PASSES_MAX {
        let evaluations: Vec<_> = rows.iter().map(|row| row.evaluate(&mut index)).collect();
        let next: Index = evaluations.iter().collect();
        if next == index || evaluations.iter().all(|evaluation| evaluation.consulted.is_empty()) {
            return Ok((evaluations, next));
        }
        index = next;
    }
    Err(CaseError::Unsettled)
}

impl Row {
    fn evaluate(&self, index: &mut Index) -> Evaluation {
        let Some(values) = &self.values else { return Evaluation::default() };
        self.evaluator.evaluate(values, index).unwrap_or_else(|never| match never {})
    }
}

fn row_result(row: &Row, evaluation: &Evaluation) -> RowResult {
    if row.values.is_none() {
        return RowResult { data_errors: 1, ..RowResult::default() };
    }
    let count = |kind| evaluation.errors.iter().filter(|error| error.kind == kind).count();
    let data = evaluation.rows.iter().map(|row| DataResult {
        bucket: row.bucket.as_str(),
        data: sorted_object(&row.data),
        id: &row.object_id,
        table: &row.object_type,
    });
    let Index(lookups) = [evaluation].into_iter().collect();
    RowResult {
        data: sorted(data),
        data_errors: count(ErrorKind::Data),
        events: row.evaluator.has_events().then(|| sorted(evaluation.events.iter().map(event_result))),
        parameter_errors: count(ErrorKind::Parameters),
        parameters: sorted(lookups.iter().map(lookup_result)),
    }
}

fn event_result(event: &EvaluatedEvent) -> EventResult<'_> {
    let data = event.data.as_deref().map(sorted_object);
    EventResult { error: data.is_none().then_some(true), data, event: &event.event }
}

fn lookup_result<'e>((key, values): (&'e LookupKey, &'e BTreeSet<LookupValue>)) -> LookupResult<'e> {
    LookupResult { lookup: &key.0, values: sorted(values.iter().map(|value| &*value.0)) }
}

fn resolve(plan: &SyncPlan, request: &Request, bucket_prefix: &str, index: &mut Index) -> RequestResult {
    let Ok(querier) = plan.querier(&request.context(), bucket_prefix) else {
        return RequestResult { errors: 1, ..RequestResult::default() };
    };
    let resolution = querier.resolve(index).unwrap_or_else(|never| match never {});
    let definitions = querier.definitions();
    let reason = |reason: &Reason| match reason {
        Reason::Default => ReasonResult::Default,
        Reason::Subscription(index) => ReasonResult::Subscription(*index),
    };
    let buckets = resolution.buckets.iter().map(|bucket| BucketResult {
        bucket: bucket.name.as_str(),
        definition: &definitions[bucket.definition].name,
        priority: bucket.priority,
        reasons: sorted(bucket.reasons.iter().map(reason)),
    });
    RequestResult { buckets: sorted(buckets), dynamic: querier.is_dynamic(), errors: resolution.errors.len() }
}
