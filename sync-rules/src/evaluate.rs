//! Source rows through the plan: which buckets a row goes to, which lookups it feeds.

use std::sync::Arc;

use kairos_sync_protocol::BucketName;

use crate::{
    definition::OutputStyle,
    dispatch::Dispatch,
    matching::Joins,
    output::Output,
    plan::{SourceTable, SyncPlan},
    row::Columns,
    scratch::Scratch,
    table_query::{TableQuery, Written},
    value::{Failure, SqlValue},
};

/// Names a lookup: the query it belongs to and the values asked for. Internal text, stable for a compiled plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupKey(pub Arc<str>);

/// One answer of a lookup. Internal text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupValue(pub Arc<str>);

/// The index of lookups, kept by the caller: what all source rows said, by key.
pub trait LookupSource {
    /// Why the index could not be read.
    type Error;

    /// All distinct values of `key`, in ascending order.
    ///
    /// # Errors
    /// When the index cannot be read; the evaluation is abandoned then.
    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, Self::Error>;
}

/// An output row in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluatedRow {
    /// The bucket, prefix included.
    pub bucket: BucketName,
    /// Output table.
    pub object_type: Arc<str>,
    /// Output row id.
    pub object_id: Arc<str>,
    /// Output columns as a JSON object in text. Shared between buckets that get the same columns.
    pub data: Arc<str>,
}

/// What an event is told of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluatedEvent {
    /// The event.
    pub event: Arc<str>,
    /// The payload as a JSON object in text; `None` if it failed, which is among the errors.
    pub data: Option<Arc<str>>,
}

/// What a query that failed was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// Rows in buckets.
    Data,
    /// Parameters: the index of lookups, or a request's buckets.
    Parameters,
    /// An event's payload.
    Event,
    /// A check of a write.
    Write,
}

/// A query that failed for a row or a request. Says nothing of values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{definition}: {message}")]
pub struct EvaluationError {
    /// The bucket definition or stream.
    pub definition: String,
    /// What failed.
    pub message: String,
    /// What it was for.
    pub kind: ErrorKind,
}

impl EvaluationError {
    /// `query` is what failed, as a person counts: `data query 2`.
    pub(crate) fn new(definition: &str, query: &str, kind: ErrorKind, failure: Failure) -> Self {
        Self { definition: definition.to_owned(), message: format!("{query}: {}", failure.0), kind }
    }
}

/// What a source row becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// Output rows; one (bucket, table, id) may occur several times, the last counts.
    pub rows: Vec<EvaluatedRow>,
    /// Lookups the row feeds.
    pub lookups: Vec<(LookupKey, LookupValue)>,
    /// Lookups that were asked; when the values of one change, the row must be evaluated again.
    pub consulted: Vec<LookupKey>,
    /// Payloads of events, one per event the table triggers.
    pub events: Vec<EvaluatedEvent>,
    /// Queries that failed; they give no rows.
    pub errors: Vec<EvaluationError>,
}

impl Evaluation {
    /// Adds what other rules make of the row.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.lookups.extend(other.lookups);
        self.consulted.extend(other.consulted);
        self.consulted.sort_unstable();
        self.consulted.dedup();
        self.events.extend(other.events);
        self.errors.extend(other.errors);
    }
}

/// Evaluates the rows of one source table. Made by [`crate::SyncPlan::evaluator`], which resolves column names once.
#[derive(Debug, Clone)]
pub struct TableEvaluator {
    queries: Vec<TableQuery>,
    dispatch: Dispatch,
    /// The different select lists of the queries, each written once per row.
    outputs: Vec<Output>,
}

impl TableEvaluator {
    pub(crate) fn new(plan: &SyncPlan, table: &SourceTable, columns: &[String], bucket_prefix: &str) -> Self {
        let columns_for = |pattern| Columns { names: columns, table, pattern };
        let mut queries = Vec::new();
        let mut outputs = Vec::new();
        for index in plan.indexes.iter().filter(|index| index.source.table.matches(table)) {
            queries.push(TableQuery::index(index, columns_for(&index.source.table)));
        }
        let owners = plan.row_owners();
        for (query, owner) in plan.rows.iter().zip(&owners).filter(|(query, _)| query.source.table.matches(table)) {
            let columns = columns_for(&query.source.table);
            let output = share(&mut outputs, Output::new(&query.columns, query.style, columns));
            queries.push(TableQuery::rows(query, owner, table, columns, output, bucket_prefix));
        }
        let mut events: Vec<&str> = Vec::new();
        for query in plan.events.iter().filter(|query| query.table.matches(table)) {
            // Of several queries of one event, the first counts.
            if !events.contains(&query.event.as_str()) {
                events.push(&query.event);
                let columns = columns_for(&query.table);
                let output = share(&mut outputs, Output::new(&query.columns, OutputStyle::Classic, columns));
                queries.push(TableQuery::event(query, output));
            }
        }
        Self { dispatch: Dispatch::new(&queries), queries, outputs }
    }

    /// Evaluates a row. `values` are in the order of the columns the evaluator was made for.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn evaluate<L: LookupSource>(&self, values: &[SqlValue], lookups: &mut L) -> Result<Evaluation, L::Error> {
        self.evaluate_with(values, lookups, &mut Scratch::default())
    }

    /// As [`Self::evaluate`], for one of many rows, which have `scratch` in common.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn evaluate_with<L: LookupSource>(
        &self,
        values: &[SqlValue],
        lookups: &mut L,
        scratch: &mut Scratch,
    ) -> Result<Evaluation, L::Error> {
        let mut evaluation = Evaluation { rows: Vec::with_capacity(self.dispatch.usual()), ..Evaluation::default() };
        let mut consulted = Vec::new();
        let mut written = Written::new(&self.outputs, scratch);
        self.dispatch.for_each(values, &mut |index| {
            let mut joins = Joins { lookups, consulted: &mut consulted };
            self.queries[index].evaluate(values, &mut joins, &mut written, &mut evaluation)
        })?;
        consulted.sort_unstable();
        consulted.dedup();
        evaluation.consulted = consulted;
        Ok(evaluation)
    }

    /// Whether any query reads this table; rows of others need not be stored.
    pub fn is_used(&self) -> bool {
        !self.queries.is_empty()
    }

    /// Whether changed rows of the table trigger events.
    pub fn has_events(&self) -> bool {
        self.queries.iter().any(TableQuery::is_event)
    }
}

/// The place of an output among those that differ.
fn share(outputs: &mut Vec<Output>, output: Output) -> usize {
    let known = outputs.iter().position(|known| *known == output);
    known.unwrap_or_else(|| {
        outputs.push(output);
        outputs.len() - 1
    })
}

/// Whose a row query is, and where it puts rows.
pub(crate) struct RowOwner<'p> {
    pub definition: &'p str,
    /// Its number in the definition, from 1.
    pub number: usize,
    pub buckets: Vec<&'p str>,
}
