//! Source rows through the plan: which buckets a row goes to, which lookups it feeds.

use std::{borrow::Cow, sync::Arc};

use kairos_sync_protocol::BucketName;
use serde_json::Value;

use crate::{
    expression::{Expr, Failure, json_elements},
    plan::{
        BelongingFilter, ClaimType, Conjunction, DataQuery, JoinLookup, Membership, OutputColumn, ParameterOutput,
        ParameterSource, SourceTable, SyncPlan, TableLookup, Term, TermValues,
    },
    value::{SqlValue, name_array, write_json_string},
};

/// Most combinations of parameters one row may give in one query; more is an error of that query.
const COMBINATIONS_MAX: usize = 10_000;

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

/// An expression over the columns of a row, by index; `None` is a column the row does not have.
type RowExpr = Expr<Option<usize>>;

/// Evaluates the rows of one source table. Made by [`crate::SyncPlan::evaluator`], which resolves column names once.
#[derive(Debug, Clone)]
pub struct TableEvaluator {
    queries: Vec<Query>,
}

/// A query that reads the table.
#[derive(Debug, Clone)]
struct Query {
    definition: String,
    kind: QueryKind,
}

#[derive(Debug, Clone)]
enum QueryKind {
    Data { bucket: String, object_type: Arc<str>, outputs: Vec<Output>, membership: RowMembership },
    Lookup { key: String, alternatives: Vec<RowConjunction>, parameter_count: usize, outputs: Vec<RowExpr> },
    Join { key: String, column: RowExpr, filter: RowFilter, parameters: Vec<usize>, types: Vec<ClaimType> },
}

/// An output column: what may give its value, in order. What comes from `*` only fills a gap.
#[derive(Debug, Clone)]
struct Output {
    name: String,
    sources: Vec<(RowExpr, OutputSource)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputSource {
    Star,
    Explicit,
}

#[derive(Debug, Clone)]
enum RowMembership {
    Matching { parameter_count: usize, alternatives: Vec<RowConjunction> },
    Belonging { types: Vec<ClaimType>, filter: RowFilter },
}

#[derive(Debug, Clone)]
struct RowConjunction {
    condition: Option<RowExpr>,
    terms: Vec<(usize, RowTerm)>,
}

#[derive(Debug, Clone)]
enum RowTerm {
    Equal(RowExpr),
    ElementOf(RowExpr),
    MemberOf(RowExpr),
    True,
}

#[derive(Debug, Clone)]
struct RowFilter {
    condition: Option<RowExpr>,
    equalities: Vec<(usize, RowExpr)>,
    /// Column, first part of the lookup's keys, parameters its values are for.
    joins: Vec<(RowExpr, String, Vec<usize>)>,
}

/// Values for some of the parameters.
type Bound = Vec<Option<SqlValue>>;

/// A row under evaluation.
struct Row<'a> {
    values: &'a [SqlValue],
}

impl<'a> Row<'a> {
    fn eval(&self, expr: &'a RowExpr) -> Result<Cow<'a, SqlValue>, Failure> {
        expr.eval(&|index: &'a Option<usize>| match index.and_then(|index| self.values.get(index)) {
            Some(value) => Cow::Borrowed(value),
            None => Cow::Owned(SqlValue::Null),
        })
    }

    fn holds(&self, condition: Option<&'a RowExpr>) -> Result<bool, Failure> {
        condition.map_or(Ok(true), |condition| Ok(self.eval(condition)?.truth()))
    }
}

/// Why a query gave nothing: its own failure, or the index's.
enum Stop<E> {
    Query(Failure),
    Source(E),
}

impl<E> From<Failure> for Stop<E> {
    fn from(failure: Failure) -> Self {
        Self::Query(failure)
    }
}

impl TableEvaluator {
    pub(crate) fn new(plan: &SyncPlan, table: &SourceTable, columns: &[String], bucket_prefix: &str) -> Self {
        let binder = Binder { columns };
        let mut queries = Vec::new();
        for definition in &plan.definitions {
            let named = |kind| Query { definition: definition.name.clone(), kind };
            for query in &definition.parameter_queries {
                if let ParameterSource::Table(lookup) = &query.source
                    && lookup.table.matches(table)
                {
                    queries.push(named(binder.lookup(lookup)));
                }
            }
            let bucket = format!("{bucket_prefix}{}", definition.name);
            for query in definition.data_queries.iter().filter(|query| query.table.matches(table)) {
                queries.push(named(binder.data(plan, query, &bucket, &table.name)));
            }
        }
        for (number, join) in plan.joins.iter().enumerate().filter(|(_, join)| join.table.matches(table)) {
            queries.push(Query { definition: join.definition.clone(), kind: binder.join(plan, number, join) });
        }
        Self { queries }
    }

    /// Whether any query reads this table; rows of others need not be stored.
    pub fn is_used(&self) -> bool {
        !self.queries.is_empty()
    }

    /// Evaluates a row. `values` are in the order of the columns the evaluator was made for.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn evaluate<L: LookupSource>(&self, values: &[SqlValue], lookups: &mut L) -> Result<Evaluation, L::Error> {
        let mut evaluation = Evaluation::default();
        let row = Row { values };
        for query in &self.queries {
            match query.kind.evaluate(&row, lookups, &mut evaluation) {
                Ok(()) => {}
                Err(Stop::Source(error)) => return Err(error),
                Err(Stop::Query(message)) => evaluation
                    .errors
                    .push(EvaluationError { definition: query.definition.clone(), message: message.to_owned() }),
            }
        }
        evaluation.consulted.sort_unstable();
        evaluation.consulted.dedup();
        Ok(evaluation)
    }
}

impl QueryKind {
    fn evaluate<L: LookupSource>(
        &self,
        row: &Row<'_>,
        lookups: &mut L,
        evaluation: &mut Evaluation,
    ) -> Result<(), Stop<L::Error>> {
        match self {
            Self::Data { bucket, object_type, outputs, membership } => {
                let tuples = match membership {
                    RowMembership::Matching { parameter_count, alternatives } => {
                        matching(row, alternatives, *parameter_count)?
                    }
                    RowMembership::Belonging { types, filter } => {
                        let bound = filter.bound(row, types, lookups, &mut evaluation.consulted)?;
                        bound.into_iter().map(|values| values.into_iter().flatten().collect()).collect()
                    }
                };
                if tuples.is_empty() {
                    return Ok(());
                }
                let (object_id, data) = output_row(row, outputs)?;
                evaluation.rows.extend(tuples.iter().map(|parameters| EvaluatedRow {
                    bucket: BucketName::new(format!("{bucket}{}", name_array(parameters))),
                    object_type: Arc::clone(object_type),
                    object_id: Arc::clone(&object_id),
                    data: Arc::clone(&data),
                }));
            }
            Self::Lookup { key, alternatives, parameter_count, outputs } => {
                let values = outputs.iter().map(|output| row.eval(output)).collect::<Result<Vec<_>, _>>()?;
                let value = LookupValue(data_array(values.iter().map(AsRef::as_ref)).into());
                for tuple in matching(row, alternatives, *parameter_count)? {
                    evaluation.lookups.push((lookup_key(key, &tuple), value.clone()));
                }
            }
            Self::Join { key, column, filter, parameters, types } => {
                let selected = row.eval(column)?.into_owned();
                if selected == SqlValue::Null {
                    return Ok(());
                }
                let key = lookup_key(key, &[selected]);
                for bound in filter.bound(row, types, lookups, &mut evaluation.consulted)? {
                    let values = parameters.iter().map(|&index| bound[index].as_ref().unwrap_or(&SqlValue::Null));
                    evaluation.lookups.push((key.clone(), LookupValue(data_array(values).into())));
                }
            }
        }
        Ok(())
    }
}

/// The parameters for which one of the alternatives would hold.
fn matching(row: &Row<'_>, alternatives: &[RowConjunction], count: usize) -> Result<Vec<Vec<SqlValue>>, Failure> {
    let mut tuples = Vec::new();
    for conjunction in alternatives {
        if !row.holds(conjunction.condition.as_ref())? {
            continue;
        }
        let mut candidates: Vec<Option<Vec<SqlValue>>> = vec![None; count];
        for (parameter, term) in &conjunction.terms {
            let values = term.values(row)?;
            // Two conditions on one parameter must both hold.
            candidates[*parameter] = Some(match candidates[*parameter].take() {
                None => values,
                Some(before) => before.into_iter().filter(|value| values.contains(value)).collect(),
            });
        }
        let mut combined = vec![Vec::with_capacity(count)];
        for values in candidates.into_iter().flatten() {
            if combined.len().saturating_mul(values.len()) > COMBINATIONS_MAX {
                return Err("a row gives too many combinations of parameters");
            }
            combined = combined
                .iter()
                .flat_map(|tuple| values.iter().map(|value| [tuple.as_slice(), std::slice::from_ref(value)].concat()))
                .collect();
        }
        tuples.extend(combined);
    }
    Ok(tuples)
}

impl RowTerm {
    fn values(&self, row: &Row<'_>) -> Result<Vec<SqlValue>, Failure> {
        Ok(match self {
            Self::Equal(expr) => match row.eval(expr)?.into_owned() {
                SqlValue::Null | SqlValue::Blob(_) => Vec::new(),
                value => vec![value.integral()],
            },
            Self::MemberOf(expr) => match row.eval(expr)?.into_owned() {
                SqlValue::Blob(_) => Vec::new(),
                value => vec![value.integral()],
            },
            Self::ElementOf(expr) => match row.eval(expr)?.as_ref() {
                SqlValue::Null => Vec::new(),
                array => json_elements(array)?.into_iter().map(SqlValue::integral).collect(),
            },
            Self::True => vec![SqlValue::Integer(1)],
        })
    }
}

impl RowFilter {
    /// Values of the parameters for which the filter holds, asking lookups on the way.
    fn bound<L: LookupSource>(
        &self,
        row: &Row<'_>,
        types: &[ClaimType],
        lookups: &mut L,
        consulted: &mut Vec<LookupKey>,
    ) -> Result<Vec<Bound>, Stop<L::Error>> {
        if !row.holds(self.condition.as_ref())? {
            return Ok(Vec::new());
        }
        let mut bound = vec![vec![None; types.len()]];
        for (parameter, expr) in &self.equalities {
            let value = types[*parameter].of(row.eval(expr)?.as_ref());
            bound.retain_mut(|values| value.clone().is_some_and(|value| bind(values, *parameter, &value)));
        }
        for (expr, key, parameters) in &self.joins {
            let column = row.eval(expr)?.into_owned();
            if column == SqlValue::Null {
                return Ok(Vec::new());
            }
            let key = lookup_key(key, &[column]);
            let answers = lookups.values(&key).map_err(Stop::Source)?;
            consulted.push(key);
            let mut extended = Vec::new();
            for answer in answers {
                let values = parse_data_array(&answer.0).ok_or("a stored lookup cannot be read")?;
                extended.extend(bound.iter().filter_map(|before| {
                    let mut after = before.clone();
                    let fits = parameters.iter().zip(&values).all(|(&index, value)| bind(&mut after, index, value));
                    fits.then_some(after)
                }));
                if extended.len() > COMBINATIONS_MAX {
                    return Err(Stop::Query("a row belongs to too many principals"));
                }
            }
            bound = extended;
        }
        bound.dedup();
        Ok(bound)
    }
}

/// Whether the parameter can have this value, which it then has.
fn bind(values: &mut Bound, parameter: usize, value: &SqlValue) -> bool {
    values[parameter].get_or_insert_with(|| value.clone()) == value
}

impl ClaimType {
    /// The value brought to this type; `None` if it is none of it.
    pub(crate) fn of(self, value: &SqlValue) -> Option<SqlValue> {
        match (self, value) {
            (_, SqlValue::Null | SqlValue::Blob(_)) => None,
            (Self::Text, value) => value.to_text().map(SqlValue::Text),
            (Self::Integer, SqlValue::Integer(number)) => Some(SqlValue::Integer(*number)),
            (Self::Integer, SqlValue::Text(text)) => text.parse().ok().map(SqlValue::Integer),
            (Self::Integer, SqlValue::Real(_)) => {
                Some(value.clone().integral()).filter(|value| matches!(value, SqlValue::Integer(_)))
            }
        }
    }
}

fn output_row(row: &Row<'_>, outputs: &[Output]) -> Result<(Arc<str>, Arc<str>), Failure> {
    let mut object_id = None;
    let mut data = String::with_capacity(32 * outputs.len());
    data.push('{');
    for output in outputs {
        let mut value: Option<Cow<'_, SqlValue>> = None;
        for (source, kind) in &output.sources {
            let fills = value.as_deref().is_none_or(|value| *value == SqlValue::Null);
            if *kind == OutputSource::Explicit || fills {
                value = Some(row.eval(source)?);
            }
        }
        let Some(value) = value.filter(|value| !matches!(value.as_ref(), SqlValue::Blob(_))) else { continue };
        if data.len() > 1 {
            data.push(',');
        }
        data.push_str(&output.name);
        data.push(':');
        value.write_data_json(&mut data);
        if output.name == "\"id\"" {
            object_id = value.to_text();
        }
    }
    data.push('}');
    Ok((object_id.unwrap_or_default().into(), data.into()))
}

/// Values as a JSON array in the data serialisation; reads back as the same values.
fn data_array<'a>(values: impl Iterator<Item = &'a SqlValue>) -> String {
    let mut out = String::from("[");
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(',');
        }
        value.write_data_json(&mut out);
    }
    out.push(']');
    out
}

pub(crate) fn parse_data_array(text: &str) -> Option<Vec<SqlValue>> {
    let values: Vec<Value> = serde_json::from_str(text).ok()?;
    Some(values.iter().map(crate::expression::json_scalar).collect())
}

/// `first` is the beginning of the key's JSON array, without its end.
pub(crate) fn lookup_key(first: &str, values: &[SqlValue]) -> LookupKey {
    let mut key = first.to_owned();
    for value in values {
        key.push(',');
        value.clone().integral().write_data_json(&mut key);
    }
    key.push(']');
    LookupKey(key.into())
}

/// The beginning of a lookup's keys.
pub(crate) fn lookup_key_start(definition: &str, query: &str) -> String {
    let mut key = String::from("[");
    write_json_string(definition, &mut key);
    key.push(',');
    write_json_string(query, &mut key);
    key
}

/// Resolves column names to indexes.
struct Binder<'a> {
    columns: &'a [String],
}

impl Binder<'_> {
    fn expr(&self, expr: &Expr<String>) -> RowExpr {
        expr.map(&mut |name| self.columns.iter().position(|column| column == name))
    }

    fn conjunctions(&self, alternatives: &[Conjunction]) -> Vec<RowConjunction> {
        let term = |Term { parameter, values }: &Term| {
            let values = match values {
                TermValues::Equal(expr) => RowTerm::Equal(self.expr(expr)),
                TermValues::ElementOf(expr) => RowTerm::ElementOf(self.expr(expr)),
                TermValues::MemberOf(expr) => RowTerm::MemberOf(self.expr(expr)),
                TermValues::True => RowTerm::True,
            };
            (*parameter, values)
        };
        let bound = |conjunction: &Conjunction| RowConjunction {
            condition: conjunction.condition.as_ref().map(|condition| self.expr(condition)),
            terms: conjunction.terms.iter().map(term).collect(),
        };
        alternatives.iter().map(bound).collect()
    }

    fn filter(&self, plan: &SyncPlan, filter: &BelongingFilter) -> RowFilter {
        let join = |(expr, number): &(Expr<String>, usize)| {
            let lookup = &plan.joins[*number];
            (self.expr(expr), join_key_start(&lookup.definition, *number), lookup.parameters.clone())
        };
        RowFilter {
            condition: filter.condition.as_ref().map(|condition| self.expr(condition)),
            equalities: filter.equalities.iter().map(|(index, expr)| (*index, self.expr(expr))).collect(),
            joins: filter.joins.iter().map(join).collect(),
        }
    }

    fn lookup(&self, lookup: &TableLookup) -> QueryKind {
        let outputs = lookup.outputs.iter().filter_map(|output| match output {
            ParameterOutput::Column(name) => Some(self.expr(&Expr::Input(name.clone()))),
            ParameterOutput::Request(_) => None,
        });
        QueryKind::Lookup {
            key: lookup_key_start(&lookup.definition, &lookup.number.to_string()),
            alternatives: self.conjunctions(&lookup.alternatives),
            parameter_count: lookup.inputs.len(),
            outputs: outputs.collect(),
        }
    }

    fn join(&self, plan: &SyncPlan, number: usize, join: &JoinLookup) -> QueryKind {
        QueryKind::Join {
            key: join_key_start(&join.definition, number),
            column: self.expr(&join.key),
            filter: self.filter(plan, &join.filter),
            parameters: join.parameters.clone(),
            types: join.types.clone(),
        }
    }

    fn data(&self, plan: &SyncPlan, query: &DataQuery, bucket: &str, table: &str) -> QueryKind {
        let membership = match &query.membership {
            Membership::Matching { parameter_count, alternatives } => RowMembership::Matching {
                parameter_count: *parameter_count,
                alternatives: self.conjunctions(alternatives),
            },
            Membership::Belonging { types, filter } => {
                RowMembership::Belonging { types: types.clone(), filter: self.filter(plan, filter) }
            }
        };
        QueryKind::Data {
            bucket: bucket.to_owned(),
            object_type: query.object_type.as_deref().unwrap_or(table).into(),
            outputs: self.outputs(&query.columns),
            membership,
        }
    }

    fn outputs(&self, columns: &[OutputColumn]) -> Vec<Output> {
        let mut outputs: Vec<Output> = Vec::new();
        let mut add = |name: &str, source: RowExpr, kind| {
            let mut quoted = String::new();
            write_json_string(name, &mut quoted);
            match outputs.iter_mut().find(|output| output.name == quoted) {
                Some(output) => output.sources.push((source, kind)),
                None => outputs.push(Output { name: quoted, sources: vec![(source, kind)] }),
            }
        };
        for column in columns {
            match column {
                OutputColumn::Named(name, expr) => add(name, self.expr(expr), OutputSource::Explicit),
                OutputColumn::Star => {
                    for (index, name) in self.columns.iter().enumerate().filter(|(_, name)| !name.starts_with('_')) {
                        add(name, Expr::Input(Some(index)), OutputSource::Star);
                    }
                }
            }
        }
        outputs
    }
}

pub(crate) fn join_key_start(definition: &str, number: usize) -> String {
    lookup_key_start(definition, &format!("join {number}"))
}
