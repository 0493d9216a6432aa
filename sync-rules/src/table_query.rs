//! One query over a table: when a row matches, and what it gives then.

use std::sync::Arc;

use kairos_sync_protocol::BucketName;

use crate::{
    definition::{EventQuery, Filter, IndexId, IndexPart, IndexQuery, RowQuery, RowSource},
    elements::{Element, json_each, stored_value},
    evaluate::{ErrorKind, EvaluatedEvent, EvaluatedRow, Evaluation, EvaluationError, LookupSource, RowOwner},
    expression::Expression,
    key,
    matching::{COMBINATIONS_MAX, Combination, Joins, MatchError, NAME_BYTES_MAX, TOO_LONG, TOO_MANY, combinations},
    output::{Output, OutputRow},
    plan::SourceTable,
    row::{Cell, Columns, Row},
    scratch::Scratch,
    value::{Failure, SqlValue},
};

/// A query over the table, its columns resolved.
#[derive(Debug, Clone)]
pub(crate) struct TableQuery {
    definition: Arc<str>,
    /// For messages.
    label: String,
    /// Arrays of the row, and whether JSON null in them is NULL.
    pub(crate) expansions: Vec<(Expression<Cell>, bool)>,
    pub(crate) conditions: Vec<Expression<Cell>>,
    pub(crate) matcher: Matcher,
    result: QueryResult,
}

/// How slots are bound.
#[derive(Debug, Clone)]
pub(crate) enum Matcher {
    /// Each to one value of the row, in order: at most one combination.
    Values(Vec<Expression<Cell>>),
    /// In any way.
    Filter { filter: Filter<Cell>, slot_count: usize },
}

/// What a match gives.
#[derive(Debug, Clone)]
enum QueryResult {
    /// Rows in buckets.
    Rows { buckets: Vec<String>, object_type: Arc<str>, output: usize },
    /// Entries of an index.
    Entries { index: IndexId, key: Vec<Part>, value: Vec<Part> },
    /// A payload.
    Event { event: Arc<str>, output: usize },
}

/// A part of an index entry.
#[derive(Debug, Clone)]
enum Part {
    Slot(usize),
    /// A part of a key, or of a join's answer.
    Key(Expression<Cell>),
    /// A part of an answer to a request.
    Stored(Expression<Cell>),
    Nullable(Cell),
}

impl TableQuery {
    /// Whether a match gives the payload of an event.
    pub(crate) const fn is_event(&self) -> bool {
        matches!(self.result, QueryResult::Event { .. })
    }

    fn new(definition: &str, label: String, source: &RowSource, columns: Columns<'_>, result: QueryResult) -> Self {
        Self {
            definition: Arc::from(definition),
            label,
            expansions: source.expansions.iter().map(|each| (columns.resolve(&each.array), each.fixed)).collect(),
            conditions: source.conditions.iter().map(|condition| columns.resolve(condition)).collect(),
            matcher: Matcher::new(source.filter.map(&|input| columns.cell(input)), source.slot_count, &result),
            result,
        }
    }

    pub(crate) fn rows(
        query: &RowQuery,
        owner: &RowOwner<'_>,
        table: &SourceTable,
        columns: Columns<'_>,
        output: usize,
        bucket_prefix: &str,
    ) -> Self {
        let result = QueryResult::Rows {
            buckets: owner.buckets.iter().map(|name| format!("{bucket_prefix}{name}")).collect(),
            object_type: Arc::from(query.object_type.as_deref().unwrap_or(&table.name)),
            output,
        };
        let label = format!("data query {}", owner.number);
        Self::new(owner.definition, label, &query.source, columns, result)
    }

    pub(crate) fn index(index: &IndexQuery, columns: Columns<'_>) -> Self {
        // What slots are bound to is compared with what rows give; answers of all others go to requests.
        let is_join = index.value.iter().any(|part| matches!(part, IndexPart::Slot(_)));
        let part = |part: &IndexPart, is_key: bool| match part {
            IndexPart::Slot(slot) => Part::Slot(*slot),
            IndexPart::Row(value) if is_key || is_join => Part::Key(columns.resolve(value)),
            IndexPart::Row(value) => Part::Stored(columns.resolve(value)),
            IndexPart::Nullable(input) => Part::Nullable(columns.cell(input)),
        };
        let result = QueryResult::Entries {
            index: index.id.clone(),
            key: index.key.iter().map(|each| part(each, true)).collect(),
            value: index.value.iter().map(|each| part(each, false)).collect(),
        };
        Self::new(&index.label, "lookup".to_owned(), &index.source, columns, result)
    }

    pub(crate) fn event(query: &EventQuery, output: usize) -> Self {
        let event: Arc<str> = Arc::from(query.event.as_str());
        Self {
            definition: Arc::clone(&event),
            label: "payload".to_owned(),
            expansions: Vec::new(),
            conditions: Vec::new(),
            matcher: Matcher::Values(Vec::new()),
            result: QueryResult::Event { event, output },
        }
    }

    pub(crate) fn evaluate<L: LookupSource>(
        &self,
        values: &[SqlValue],
        joins: &mut Joins<'_, L>,
        written: &mut Written<'_>,
        evaluation: &mut Evaluation,
    ) -> Result<(), L::Error> {
        written.bytes = 0;
        let (row_count, lookup_count) = (evaluation.rows.len(), evaluation.lookups.len());
        let row = Row { values, elements: &[] };
        let done = if self.expansions.is_empty() {
            self.match_row(row, joins, written, evaluation)
        } else {
            self.expand(row, joins, written, evaluation)
        };
        let failure = match done {
            Ok(()) => return Ok(()),
            Err(MatchError::Lookups(error)) => return Err(error),
            Err(MatchError::Failure(failure)) => failure,
        };
        // A query that fails gives nothing, also not what it found before.
        evaluation.rows.truncate(row_count);
        evaluation.lookups.truncate(lookup_count);
        let kind = match &self.result {
            QueryResult::Rows { .. } => ErrorKind::Data,
            QueryResult::Entries { .. } => ErrorKind::Parameters,
            QueryResult::Event { event, .. } => {
                evaluation.events.push(EvaluatedEvent { event: Arc::clone(event), data: None });
                ErrorKind::Event
            }
        };
        evaluation.errors.push(EvaluationError::new(&self.definition, &self.label, kind, failure));
        Ok(())
    }

    /// Runs the query for every combination of elements.
    fn expand<L: LookupSource>(
        &self,
        row: Row<'_>,
        joins: &mut Joins<'_, L>,
        written: &mut Written<'_>,
        evaluation: &mut Evaluation,
    ) -> Result<(), MatchError<L::Error>> {
        let mut lists: Vec<Vec<Element>> = Vec::with_capacity(self.expansions.len());
        for (array, fixed) in &self.expansions {
            lists.push(json_each(&*row.evaluate(array)?, *fixed)?);
        }
        let count = lists.iter().try_fold(1_usize, |count, list| count.checked_mul(list.len()));
        let count = count.filter(|count| *count <= COMBINATIONS_MAX).ok_or(TOO_MANY)?;
        let mut elements = Vec::with_capacity(lists.len());
        for number in 0..count {
            elements.clear();
            let mut rest = number;
            for list in lists.iter().rev() {
                elements.push(&list[rest % list.len()]);
                rest /= list.len();
            }
            elements.reverse();
            self.match_row(Row { elements: &elements, ..row }, joins, written, evaluation)?;
        }
        Ok(())
    }

    fn match_row<L: LookupSource>(
        &self,
        row: Row<'_>,
        joins: &mut Joins<'_, L>,
        written: &mut Written<'_>,
        evaluation: &mut Evaluation,
    ) -> Result<(), MatchError<L::Error>> {
        for condition in &self.conditions {
            if !row.evaluate(condition)?.truth() {
                return Ok(());
            }
        }
        match &self.matcher {
            Matcher::Values(values) => {
                let parts = &mut written.scratch.parts;
                parts.clear();
                parts.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        parts.push(',');
                    }
                    if !key::push_row_key_part(&*row.evaluate(value)?, parts) {
                        return self.result.check(row, written).map_err(MatchError::Failure);
                    }
                }
                parts.push(']');
                self.result.add(&Matches::One, row, written, evaluation)?;
            }
            Matcher::Filter { filter, slot_count } => {
                let found = combinations(filter, *slot_count, row, joins)?;
                if !found.is_empty() {
                    self.result.add(&Matches::Combinations(&found), row, written, evaluation)?;
                }
            }
        }
        Ok(())
    }
}

/// How a row matched: in one way, as [`Scratch::parts`] says, or with slots bound in several ways.
enum Matches<'m> {
    One,
    Combinations(&'m [Combination]),
}

/// The output rows of a source row, as far as they were needed.
pub(crate) struct Written<'e> {
    outputs: &'e [Output],
    rows: Vec<(usize, OutputRow)>,
    /// Its `parts` are the parameters the row matched last.
    scratch: &'e mut Scratch,
    /// How long the names of buckets and lookups are together, per query.
    bytes: usize,
}

impl<'e> Written<'e> {
    pub(crate) const fn new(outputs: &'e [Output], scratch: &'e mut Scratch) -> Self {
        Self { outputs, rows: Vec::new(), scratch, bytes: 0 }
    }

    /// Counts the bytes of a name.
    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        self.bytes += bytes;
        if self.bytes > NAME_BYTES_MAX { Err(TOO_LONG) } else { Ok(()) }
    }

    fn row(&mut self, output: usize, row: Row<'_>) -> Result<OutputRow, Failure> {
        if let Some((_, written)) = self.rows.iter().find(|(known, _)| *known == output) {
            return Ok(written.clone());
        }
        let written = self.outputs[output].write(row, &mut self.scratch.json)?;
        // What reads elements is another row for each.
        if row.elements.is_empty() || !self.outputs[output].reads_elements() {
            self.rows.push((output, written.clone()));
        }
        Ok(written)
    }
}

impl Matcher {
    fn new(filter: Filter<Cell>, slot_count: usize, result: &QueryResult) -> Self {
        // Entries of an index are put together from slots.
        if slot_count > 0 && matches!(result, QueryResult::Entries { .. }) {
            return Self::Filter { filter, slot_count };
        }
        let parts = match filter {
            Filter::All(parts) => parts,
            Filter::Equals { slot: 0, value } if slot_count == 1 => return Self::Values(vec![value]),
            filter => return Self::Filter { filter, slot_count },
        };
        let is_bound_in_order = parts.len() == slot_count
            && parts.iter().enumerate().all(|(at, part)| matches!(part, Filter::Equals { slot, .. } if *slot == at));
        if !is_bound_in_order {
            return Self::Filter { filter: Filter::All(parts), slot_count };
        }
        let value = |part| match part {
            Filter::Equals { value, .. } => Some(value),
            _ => None,
        };
        Self::Values(parts.into_iter().filter_map(value).collect())
    }
}

/// All slots of a combination; a filter binds every slot it is compiled for.
fn parts(combination: &Combination) -> impl Iterator<Item = &str> {
    combination.iter().map(|part| part.as_deref().unwrap_or("null"))
}

impl QueryResult {
    /// Shows the failures of a row that goes nowhere. Streams of edition 3 compute columns first.
    fn check(&self, row: Row<'_>, written: &mut Written<'_>) -> Result<(), Failure> {
        match self {
            Self::Rows { output, .. } if written.outputs[*output].fails_early() => {
                written.row(*output, row).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn add(
        &self,
        matches: &Matches<'_>,
        row: Row<'_>,
        written: &mut Written<'_>,
        evaluation: &mut Evaluation,
    ) -> Result<(), Failure> {
        match self {
            Self::Rows { buckets, object_type, output } => {
                let OutputRow { id, data } = written.row(*output, row)?;
                let object_type = written.scratch.shared(object_type);
                let evaluated = |bucket: Arc<str>| EvaluatedRow {
                    bucket: BucketName::new(bucket),
                    object_type: Arc::clone(&object_type),
                    object_id: Arc::clone(&id),
                    data: Arc::clone(&data),
                };
                match matches {
                    Matches::One => {
                        for bucket in buckets {
                            let Scratch { parts, name, .. } = &mut *written.scratch;
                            name.clear();
                            name.push_str(bucket);
                            name.push_str(parts);
                            let length = name.len();
                            written.count(length)?;
                            evaluation.rows.push(evaluated(written.scratch.shared_name()));
                        }
                    }
                    Matches::Combinations(combinations) => {
                        for combination in *combinations {
                            for bucket in buckets {
                                let name = key::bucket_name(bucket, parts(combination));
                                written.count(name.len())?;
                                evaluation.rows.push(evaluated(written.scratch.shared(&name)));
                            }
                        }
                    }
                }
            }
            Self::Entries { index, key, value } => {
                let combinations = match matches {
                    Matches::One => &[Vec::new()],
                    Matches::Combinations(combinations) => *combinations,
                };
                for combination in combinations {
                    let (Some(key), Some(value)) = (texts(key, combination, row)?, texts(value, combination, row)?)
                    else {
                        continue;
                    };
                    let key = key::lookup(index, key.iter().map(AsRef::as_ref));
                    let value = key::lookup_value(value.iter().map(AsRef::as_ref));
                    written.count(key.0.len() + value.0.len())?;
                    evaluation.lookups.push((key, value));
                }
            }
            Self::Event { event, output } => {
                let data = written.row(*output, row)?.data;
                evaluation.events.push(EvaluatedEvent { event: Arc::clone(event), data: Some(data) });
            }
        }
        Ok(())
    }
}

/// The texts of parts; `None` if one has a value that makes no entry.
fn texts(parts: &[Part], combination: &Combination, row: Row<'_>) -> Result<Option<Vec<Arc<str>>>, Failure> {
    let mut texts = Vec::with_capacity(parts.len());
    for part in parts {
        texts.push(match part {
            Part::Slot(slot) => combination[*slot].clone().unwrap_or_else(|| Arc::from("null")),
            Part::Key(value) => match key::row_key_part(&*row.evaluate(value)?) {
                Some(text) => Arc::from(text),
                None => return Ok(None),
            },
            Part::Stored(value) => match &*row.evaluate(value)? {
                value if key::row_key_part(value).is_none() => return Ok(None),
                value => Arc::from(stored_value(value)),
            },
            Part::Nullable(cell) => Arc::from(stored_value(&row.read(cell))),
        });
    }
    Ok(Some(texts))
}
