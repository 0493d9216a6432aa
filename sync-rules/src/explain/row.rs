//! A row through the plan: what each query makes of it, and what keeps it out.

use serde::{Deserialize, Serialize};

use super::{
    predicate::{NamedValue, Outcome, Predicate, Reader},
    words::{element_text_of, row_text, shorten},
};
use crate::{
    definition::{Filter, IndexId, RowInput, RowQuery},
    elements::{Element, json_each},
    evaluate::{LookupSource, RowOwner},
    expression::Expression,
    key,
    matching::{COMBINATIONS_MAX, Joins, MatchError, TOO_MANY, combinations},
    output::Output,
    plan::{SourceTable, SyncPlan},
    row::{Columns, Row},
    value::{Failure, SqlValue},
};

/// Elements of a row's arrays that are explained, per query.
const PASSES_MAX: usize = 10;
/// Buckets that are named, per pass.
const BUCKETS_MAX: usize = 100;
/// Answers of a lookup that are shown.
const ANSWERS_MAX: usize = 5;

/// What a query makes of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedRowQuery {
    /// The bucket definition or stream.
    pub definition: String,
    /// Its number there, from 1.
    pub number: usize,
    /// What the names of its buckets begin with, without the prefix of the store. Streams may share them.
    pub buckets: Vec<String>,
    /// How it went: once, or for each element the row is expanded by. The first of them.
    pub passes: Vec<Pass>,
    /// How many there are.
    pub pass_count: usize,
    /// It gives nothing for this row, because an expression has no value.
    pub failure: Option<String>,
}

/// A query for a row, and for elements of its arrays where it is expanded by some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// The elements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elements: Vec<String>,
    /// Everything that must hold.
    pub predicates: Vec<Predicate>,
    /// Names of the buckets the row goes into. The first of them.
    pub buckets: Vec<String>,
    /// How many there are.
    pub bucket_count: usize,
}

impl ExplainedRowQuery {
    /// The first condition that keeps the row out, if it is in no bucket.
    pub fn obstacle(&self) -> Option<&Predicate> {
        if self.passes.iter().any(|pass| pass.bucket_count > 0) {
            return None;
        }
        let pass = self.passes.first()?;
        pass.predicates.iter().find(|predicate| predicate.outcome != Outcome::Holds)
    }

    /// Whether the row is in a bucket of it.
    pub fn is_met(&self) -> bool {
        self.failure.is_none() && self.passes.iter().any(|pass| pass.bucket_count > 0)
    }
}

impl SyncPlan {
    /// What each data query over a table makes of a row. `values` are in the order of `columns`; `bucket_prefix` goes in
    /// front of bucket names.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn explain_row<L: LookupSource>(
        &self,
        table: &SourceTable,
        columns: &[String],
        values: &[SqlValue],
        bucket_prefix: &str,
        lookups: &mut L,
    ) -> Result<Vec<ExplainedRowQuery>, L::Error> {
        let owners = self.row_owners();
        let queries = self.rows.iter().zip(&owners).filter(|(query, _)| query.source.table.matches(table));
        let explain = |(query, owner): (&RowQuery, &RowOwner<'_>)| {
            let columns = Columns { names: columns, table, pattern: &query.source.table };
            let explaining = Explaining { plan: self, query, columns, owner, bucket_prefix };
            explaining.explain(values, lookups)
        };
        queries.map(explain).collect()
    }
}

/// A query over a table, to be explained for its rows.
struct Explaining<'p> {
    plan: &'p SyncPlan,
    query: &'p RowQuery,
    columns: Columns<'p>,
    owner: &'p RowOwner<'p>,
    bucket_prefix: &'p str,
}

impl Explaining<'_> {
    fn explain<L: LookupSource>(&self, values: &[SqlValue], lookups: &mut L) -> Result<ExplainedRowQuery, L::Error> {
        let mut explained = ExplainedRowQuery {
            definition: self.owner.definition.to_owned(),
            number: self.owner.number,
            buckets: self.owner.buckets.iter().map(|name| (*name).to_owned()).collect(),
            passes: Vec::new(),
            pass_count: 0,
            failure: None,
        };
        let row = Row { values, elements: &[] };
        match self.passes(row, lookups, &mut explained) {
            Ok(()) => {}
            Err(MatchError::Lookups(error)) => return Err(error),
            Err(MatchError::Failure(Failure(reason))) => explained.failure = Some(reason.to_owned()),
        }
        Ok(explained)
    }

    fn passes<L: LookupSource>(
        &self,
        row: Row<'_>,
        lookups: &mut L,
        explained: &mut ExplainedRowQuery,
    ) -> Result<(), MatchError<L::Error>> {
        let mut lists: Vec<Vec<Element>> = Vec::new();
        for expansion in &self.query.source.expansions {
            let array = self.columns.resolve(&expansion.array);
            lists.push(json_each(&*row.evaluate(&array)?, expansion.fixed)?);
        }
        let count = lists.iter().try_fold(1_usize, |count, list| count.checked_mul(list.len()));
        explained.pass_count = count.filter(|count| *count <= COMBINATIONS_MAX).ok_or(TOO_MANY)?;
        for number in 0..explained.pass_count {
            let elements = combination(&lists, number);
            let row = Row { elements: &elements, ..row };
            let buckets = self.buckets(row, lookups);
            if explained.passes.len() < PASSES_MAX {
                // Also of a row for which the query fails: the condition that fails shows.
                let predicates = self.predicates(row, lookups).map_err(MatchError::Lookups)?;
                let found = buckets.as_deref().unwrap_or_default();
                explained.passes.push(Pass {
                    elements: elements.iter().map(|element| element_text_of(element)).collect(),
                    predicates,
                    buckets: found.iter().take(BUCKETS_MAX).cloned().collect(),
                    bucket_count: found.len(),
                });
            }
            buckets?;
        }
        Ok(())
    }

    /// The buckets a row goes into, each once.
    fn buckets<L: LookupSource>(&self, row: Row<'_>, lookups: &mut L) -> Result<Vec<String>, MatchError<L::Error>> {
        let source = &self.query.source;
        for condition in &source.conditions {
            if !row.evaluate(&self.columns.resolve(condition))?.truth() {
                return Ok(Vec::new());
            }
        }
        let filter = source.filter.map(&|input| self.columns.cell(input));
        let mut joins = Joins { lookups, consulted: &mut Vec::new() };
        let found = combinations(&filter, source.slot_count, row, &mut joins)?;
        if !found.is_empty() {
            // Columns that have no value keep a row out as well.
            Output::new(&self.query.columns, self.query.style, self.columns).write(row, &mut String::new())?;
        }
        let mut buckets = Vec::new();
        for combination in &found {
            for name in &self.owner.buckets {
                let parts = combination.iter().map(|part| part.as_deref().unwrap_or("null"));
                buckets.push(key::bucket_name(&format!("{}{name}", self.bucket_prefix), parts));
            }
        }
        buckets.sort_unstable();
        buckets.dedup();
        Ok(buckets)
    }

    fn predicates<L: LookupSource>(&self, row: Row<'_>, lookups: &mut L) -> Result<Vec<Predicate>, L::Error> {
        let mut predicates = Vec::new();
        for condition in &self.query.source.conditions {
            self.reader(row, |reader| reader.predicates(condition, &mut predicates));
        }
        self.of_filter(&self.query.source.filter, row, lookups, &mut predicates)?;
        Ok(predicates)
    }

    fn reader<T>(&self, row: Row<'_>, explain: impl FnOnce(&Reader<'_, RowInput>) -> T) -> T {
        let value =
            |expression: &Expression<RowInput>| Ok(row.evaluate(&self.columns.resolve(expression))?.into_owned());
        explain(&Reader { text: &row_text, value: &value })
    }

    fn of_filter<L: LookupSource>(
        &self,
        filter: &Filter<RowInput>,
        row: Row<'_>,
        lookups: &mut L,
        out: &mut Vec<Predicate>,
    ) -> Result<(), L::Error> {
        let (text, read, note): (String, Vec<&Expression<RowInput>>, _) = match filter {
            Filter::Condition(condition) => {
                self.reader(row, |reader| reader.predicates(condition, out));
                return Ok(());
            }
            Filter::All(parts) => return parts.iter().try_for_each(|part| self.of_filter(part, row, lookups, out)),
            Filter::Equals { slot, value } | Filter::EqualsOrNull { slot, value } => {
                (format!("{} = p{}", row_text(value), slot + 1), vec![value], None)
            }
            Filter::Contains { slot, array } => (format!("p{} IN {}", slot + 1, row_text(array)), vec![array], None),
            Filter::IsTrue { slot } => (format!("p{}", slot + 1), Vec::new(), None),
            Filter::Joined { index, values, slots } => {
                let list: Vec<_> = values.iter().map(row_text).collect();
                let text = format!("{} IN (SELECT … FROM {})", list.join(", "), self.plan.table_of(index));
                (text, values.iter().collect(), self.answers(index, values, slots, row, lookups)?)
            }
            Filter::Any(parts) => {
                let mut alternatives = Vec::new();
                for part in parts {
                    let mut alternative = Vec::new();
                    self.of_filter(part, row, lookups, &mut alternative)?;
                    alternatives.push(alternative);
                }
                let outcome = self.outcome(filter, row, lookups)?;
                let text = "one of these".to_owned();
                out.push(Predicate { text, values: Vec::new(), outcome, note: None, alternatives });
                return Ok(());
            }
        };
        let values: Vec<NamedValue> = self.reader(row, |reader| reader.values(&read));
        let outcome = self.outcome(filter, row, lookups)?;
        out.push(Predicate { text, values, outcome, note, alternatives: Vec::new() });
        Ok(())
    }

    fn outcome<L: LookupSource>(
        &self,
        filter: &Filter<RowInput>,
        row: Row<'_>,
        lookups: &mut L,
    ) -> Result<Outcome, L::Error> {
        let filter = filter.map(&|input| self.columns.cell(input));
        let mut joins = Joins { lookups, consulted: &mut Vec::new() };
        match combinations(&filter, self.query.source.slot_count, row, &mut joins) {
            Ok(found) => Ok(Outcome::of(Ok(!found.is_empty()))),
            Err(MatchError::Failure(failure)) => Ok(Outcome::of(Err(failure))),
            Err(MatchError::Lookups(error)) => Err(error),
        }
    }

    /// What a join answered, in words.
    fn answers<L: LookupSource>(
        &self,
        index: &IndexId,
        values: &[Expression<RowInput>],
        slots: &[usize],
        row: Row<'_>,
        lookups: &mut L,
    ) -> Result<Option<String>, L::Error> {
        let part = |value| row.evaluate(&self.columns.resolve(value)).ok().and_then(|value| key::row_key_part(&value));
        let Some(parts) = values.iter().map(part).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let answers = lookups.values(&key::lookup(index, parts.iter().map(String::as_str)))?;
        if answers.is_empty() {
            return Ok(Some("no row there that counts has this value".to_owned()));
        }
        let shown: Vec<_> = answers
            .iter()
            .take(ANSWERS_MAX)
            .map(|answer| {
                let parts = key::lookup_parts(answer).unwrap_or_default();
                let bound = slots.iter().zip(parts).map(|(slot, part)| format!("p{} = {part}", slot + 1));
                shorten(bound.collect::<Vec<_>>().join(" and "))
            })
            .filter(|shown| !shown.is_empty())
            .collect();
        let rest = answers.len().saturating_sub(ANSWERS_MAX);
        let rest = if rest == 0 || shown.is_empty() { String::new() } else { format!(" and {rest} more") };
        Ok(Some(if shown.is_empty() {
            "there is a row".to_owned()
        } else {
            format!("gives {}{rest}", shown.join("; "))
        }))
    }
}

/// The elements of one of all combinations, as evaluation counts them.
fn combination(lists: &[Vec<Element>], number: usize) -> Vec<&Element> {
    let mut rest = number;
    let mut elements: Vec<_> = lists
        .iter()
        .rev()
        .map(|list| {
            let element = &list[rest % list.len()];
            rest /= list.len();
            element
        })
        .collect();
    elements.reverse();
    elements
}
