//! Source rows through the plan: which buckets a row goes to, which lookups it feeds.

use std::{borrow::Cow, sync::Arc};

use kairos_sync_protocol::BucketName;

use crate::{
    definition::{DataQuery, Definition, Filter, JoinLookup, ParameterSource, TableParameterQuery, TableValue},
    expression::Expression,
    key,
    matching::{Combination, Joins, MatchError, combinations},
    output::Output,
    plan::{SourceTable, TablePattern},
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

/// A query that failed for a row. Says nothing of the row's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{definition}: {message}")]
pub struct EvaluationError {
    /// The bucket definition or stream.
    pub definition: String,
    /// What failed.
    pub message: String,
}

impl EvaluationError {
    /// `query` is what failed, as a person counts: `data query 2`.
    pub(crate) fn new(definition: &str, query: &str, failure: Failure) -> Self {
        Self { definition: definition.to_owned(), message: format!("{query}: {}", failure.0) }
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
    /// Queries that failed; they give no rows.
    pub errors: Vec<EvaluationError>,
}

/// Evaluates the rows of one source table. Made by [`crate::SyncPlan::evaluator`], which resolves column names once.
#[derive(Debug, Clone)]
pub struct TableEvaluator {
    queries: Vec<TableQuery>,
}

/// A query over the table, its columns resolved.
#[derive(Debug, Clone)]
struct TableQuery {
    definition: Arc<str>,
    /// For messages.
    label: String,
    filter: Filter<Cell>,
    slot_count: usize,
    result: QueryResult,
}

/// What a match gives.
#[derive(Debug, Clone)]
enum QueryResult {
    /// Rows in buckets.
    Rows { bucket_prefix: String, object_type: Arc<str>, output: Output },
    /// Bucket parameters, found by the matched slots.
    Parameters { query: usize, values: Vec<Cell> },
    /// The matched slots, found by the key.
    Join { join: usize, key: Expression<Cell>, slots: Vec<usize> },
}

/// Where a column of a query comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// The value at this position.
    Index(usize),
    /// The same for all rows of the table.
    Constant(SqlValue),
    /// The table has no such column; reads as NULL.
    Absent,
}

/// Columns of a table, to resolve names.
pub(crate) struct Columns<'a> {
    pub names: &'a [String],
    /// What `%` stands for, where a query has that column.
    suffix: Option<&'a str>,
}

impl Columns<'_> {
    pub(crate) fn cell(&self, name: &str) -> Cell {
        match (self.names.iter().position(|column| column == name), self.suffix) {
            (Some(index), _) => Cell::Index(index),
            (None, Some(suffix)) if name == "_table_suffix" => Cell::Constant(SqlValue::Text(suffix.to_owned())),
            (None, _) => Cell::Absent,
        }
    }
}

/// A row's values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a>(&'a [SqlValue]);

impl<'a> Row<'a> {
    pub(crate) fn evaluate(self, expression: &'a Expression<Cell>) -> Result<Cow<'a, SqlValue>, Failure> {
        expression.evaluate(&|cell| self.read(cell))
    }

    fn read(self, cell: &'a Cell) -> Cow<'a, SqlValue> {
        match cell {
            Cell::Index(index) => self.0.get(*index).map_or(Cow::Owned(SqlValue::Null), Cow::Borrowed),
            Cell::Constant(value) => Cow::Borrowed(value),
            Cell::Absent => Cow::Owned(SqlValue::Null),
        }
    }
}

impl TableEvaluator {
    pub(crate) fn new(
        definitions: &[Definition],
        table: &SourceTable,
        columns: &[String],
        bucket_prefix: &str,
    ) -> Self {
        let mut queries = Vec::new();
        for definition in definitions {
            let name: Arc<str> = Arc::from(definition.name.as_str());
            let mut push = |label, filter: &Filter<String>, columns: &Columns<'_>, slot_count, result| {
                let filter = filter.map(&|column| columns.cell(column));
                queries.push(TableQuery { definition: Arc::clone(&name), label, filter, slot_count, result });
            };
            let plain = Columns { names: columns, suffix: None };
            for (join, lookup) in definition.joins.iter().enumerate().filter(|(_, lookup)| lookup.table.matches(table))
            {
                let JoinLookup { key, filter, slots, .. } = lookup;
                let key = key.map(|column| plain.cell(column));
                let result = QueryResult::Join { join, key, slots: slots.clone() };
                push(format!("join {}", join + 1), filter, &plain, definition.parameter_count, result);
            }
            for query in definition.parameter_queries.iter().filter_map(|query| table_query(&query.source, table)) {
                let row_column = |value: &TableValue| match value {
                    TableValue::Row(column) => Some(plain.cell(column)),
                    TableValue::Request(_) => None,
                };
                let values = query.values.iter().filter_map(row_column).collect();
                let result = QueryResult::Parameters { query: query.id, values };
                push(format!("parameter query {}", query.id), &query.filter, &plain, query.asked.len(), result);
            }
            for (index, query) in definition.data_queries.iter().enumerate() {
                if !query.table.matches(table) {
                    continue;
                }
                let DataQuery { table: pattern, object_type, columns: items, filter } = query;
                let columns = Columns { names: columns, suffix: suffix(pattern, table) };
                let result = QueryResult::Rows {
                    bucket_prefix: format!("{bucket_prefix}{}", definition.name),
                    object_type: Arc::from(object_type.as_deref().unwrap_or(&table.name)),
                    output: Output::new(items, &columns),
                };
                push(format!("data query {}", index + 1), filter, &columns, definition.parameter_count, result);
            }
        }
        Self { queries }
    }

    /// Evaluates a row. `values` are in the order of the columns the evaluator was made for.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn evaluate<L: LookupSource>(&self, values: &[SqlValue], lookups: &mut L) -> Result<Evaluation, L::Error> {
        let mut evaluation = Evaluation::default();
        let mut consulted = Vec::new();
        for query in &self.queries {
            let mut joins = Joins { definition: &query.definition, lookups, consulted: &mut consulted };
            let row = Row(values);
            let found = combinations(&query.filter, query.slot_count, row, &mut joins)
                .and_then(|matches| Ok(query.result.add(&query.definition, &matches, row, &mut evaluation)?));
            match found {
                Ok(()) => {}
                Err(MatchError::Failure(failure)) => {
                    evaluation.errors.push(EvaluationError::new(&query.definition, &query.label, failure));
                }
                Err(MatchError::Lookups(error)) => return Err(error),
            }
        }
        consulted.sort_unstable();
        consulted.dedup();
        evaluation.consulted = consulted;
        Ok(evaluation)
    }

    /// Whether any query reads this table; rows of others need not be stored.
    pub fn is_used(&self) -> bool {
        !self.queries.is_empty()
    }
}

fn table_query<'a>(source: &'a ParameterSource, table: &SourceTable) -> Option<&'a TableParameterQuery> {
    match source {
        ParameterSource::Table(query) if query.table.matches(table) => Some(query),
        ParameterSource::Table(_) | ParameterSource::Request { .. } | ParameterSource::Claims(_) => None,
    }
}

fn suffix<'a>(pattern: &TablePattern, table: &'a SourceTable) -> Option<&'a str> {
    table.name.strip_prefix(pattern.name.strip_suffix('%')?)
}

/// All slots of a combination; a filter binds every slot it is compiled for.
fn parts(combination: &Combination) -> impl Iterator<Item = &str> {
    combination.iter().map(|part| part.as_deref().unwrap_or("null"))
}

impl QueryResult {
    fn add(
        &self,
        definition: &str,
        matches: &[Combination],
        row: Row<'_>,
        evaluation: &mut Evaluation,
    ) -> Result<(), Failure> {
        if matches.is_empty() {
            return Ok(());
        }
        match self {
            Self::Rows { bucket_prefix, object_type, output } => {
                let (id, data) = output.write(row)?;
                let (object_id, data): (Arc<str>, Arc<str>) = (Arc::from(id), Arc::from(data));
                evaluation.rows.extend(matches.iter().map(|combination| EvaluatedRow {
                    bucket: BucketName::new(key::bucket_name(bucket_prefix, parts(combination))),
                    object_type: Arc::clone(object_type),
                    object_id: Arc::clone(&object_id),
                    data: Arc::clone(&data),
                }));
            }
            Self::Parameters { query, values } => {
                let values: Vec<_> = values.iter().map(|cell| key::key_part(&row.read(cell))).collect();
                let value = key::lookup_value(values.iter().map(String::as_str));
                evaluation.lookups.extend(
                    matches.iter().map(|combination| {
                        (key::parameter_lookup(definition, *query, parts(combination)), value.clone())
                    }),
                );
            }
            Self::Join { join, key, slots } => {
                let Some(part) = key::row_key_part(&*row.evaluate(key)?) else { return Ok(()) };
                let key = key::join_lookup(definition, *join, &part);
                evaluation.lookups.extend(matches.iter().map(|combination| {
                    let bound = slots.iter().map(|slot| combination[*slot].as_deref().unwrap_or("null"));
                    (key.clone(), key::lookup_value(bound))
                }));
            }
        }
        Ok(())
    }
}
