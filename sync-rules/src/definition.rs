//! A compiled bucket definition: plain data, free of parser types, in the words of the plan.

use serde::Serialize;

use crate::{expression::Expression, plan::TablePattern};

/// Name of a source column.
pub(crate) type ColumnName = String;

/// A bucket definition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Definition {
    /// Its name, the beginning of its buckets' names.
    pub name: String,
    /// Number of bucket parameters.
    pub parameter_count: usize,
    /// Which buckets a client gets.
    pub parameter_queries: Vec<ParameterQuery>,
    /// Which rows go into which buckets.
    pub data_queries: Vec<DataQuery>,
    /// Write-time joins the data queries consult.
    pub joins: Vec<JoinLookup>,
}

/// Finds buckets of a client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ParameterQuery {
    /// 0 syncs first, 3 last.
    pub priority: u8,
    /// Where the bucket parameters come from.
    pub source: ParameterSource,
}

/// Where bucket parameters come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum ParameterSource {
    /// `SELECT values WHERE filter`: the request alone, one bucket.
    Request {
        /// Absent: always.
        filter: Option<Expression<RequestInput>>,
        /// One per bucket parameter.
        values: Vec<Expression<RequestInput>>,
    },
    /// Named parameters of the Kairos dialect: the token alone, one bucket.
    Claims(Vec<Claim>),
    /// `SELECT values FROM table WHERE filter`: through a lookup that rows of the table feed.
    Table(TableParameterQuery),
}

/// A parameter query over a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TableParameterQuery {
    /// Number of the query in its definition, from 1.
    pub id: usize,
    /// The table.
    pub table: TablePattern,
    /// Matches a row with requests; its slots are those of `asked`.
    pub filter: Filter<ColumnName>,
    /// What a request asks the lookup for.
    pub asked: Vec<Asked>,
    /// One per bucket parameter.
    pub values: Vec<TableValue>,
}

/// A bucket parameter of a table parameter query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum TableValue {
    /// A column of the row found.
    Row(ColumnName),
    /// A value of the request.
    Request(Expression<RequestInput>),
}

/// A part of a lookup's key, on the request side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Asked {
    /// The value.
    pub value: Expression<RequestInput>,
    /// How it is asked.
    pub form: AskedForm,
}

/// How a request asks for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum AskedForm {
    /// `column = value`
    Value,
    /// `column IN value`: once per element of the JSON array.
    Elements,
    /// `value` as a condition of its own.
    Truth,
}

/// A parameter of the Kairos dialect. `user_id` is the token's `sub`; another name is a member of the token's
/// `parameters`, else of the token itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Claim {
    /// Name of the parameter.
    pub name: String,
    /// What the claim must be.
    pub kind: ClaimKind,
}

/// Types of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum ClaimKind {
    /// Text; a number counts by its digits.
    String,
    /// An integer, or text of one.
    Integer,
    /// A number, or text of one.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// What an expression can read of a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum RequestInput {
    /// `request.user_id()`: `sub`, a number as REAL.
    UserId,
    /// `request.jwt()`: the token as JSON text.
    Token,
    /// `request.parameters()`: the client parameters as JSON text.
    Parameters,
    /// `token_parameters.name`
    TokenParameter(String),
    /// `user_parameters.name`
    UserParameter(String),
}

impl RequestInput {
    /// Whether the token vouches for the value.
    pub(crate) const fn is_authenticated(&self) -> bool {
        matches!(self, Self::UserId | Self::Token | Self::TokenParameter(_))
    }
}

/// Selects rows into buckets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DataQuery {
    /// The table.
    pub table: TablePattern,
    /// Output table; `None`: the source table's name.
    pub object_type: Option<String>,
    /// Output columns.
    pub columns: Vec<OutputItem>,
    /// Matches a row with buckets; its slots are the bucket parameters.
    pub filter: Filter<ColumnName>,
}

/// An entry of a select list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum OutputItem {
    /// All columns but those that begin with `_`.
    Star,
    /// `value AS name`
    Column {
        /// Output name.
        name: String,
        /// The value.
        value: Expression<ColumnName>,
    },
}

/// The index of a subquery: which parameters the rows of its table stand for, by the value of a column.
///
/// For `habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)` each row of `habits` says: whoever asks for my
/// `id` belongs to my `user_id`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct JoinLookup {
    /// The subquery's table.
    pub table: TablePattern,
    /// The selected column.
    pub key: Expression<ColumnName>,
    /// The subquery's filter; its slots are the bucket parameters.
    pub filter: Filter<ColumnName>,
    /// The slots the filter binds, ascending; a lookup value lists theirs.
    pub slots: Vec<usize>,
}

/// Matches rows with slots: bucket parameters or parts of a lookup key. `C` is what stands for a column.
///
/// Evaluated for a row it gives every combination of slot values under which the condition holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum Filter<C> {
    /// A condition on the row alone.
    Condition(Expression<C>),
    /// `slot = value`
    Equals {
        /// The slot.
        slot: usize,
        /// Of the row.
        value: Expression<C>,
    },
    /// `slot IN array`
    Contains {
        /// The slot.
        slot: usize,
        /// A JSON array of the row.
        array: Expression<C>,
    },
    /// The slot's value must be true.
    IsTrue {
        /// The slot.
        slot: usize,
    },
    /// `value IN (SELECT …)`
    Joined {
        /// Index into [`Definition::joins`].
        join: usize,
        /// Of the row.
        value: Expression<C>,
        /// The slots the subquery binds, ascending.
        slots: Vec<usize>,
    },
    /// All must hold, for the same slot values.
    All(Vec<Filter<C>>),
    /// One must hold. All bind the same slots.
    Any(Vec<Filter<C>>),
}

impl<C> Filter<C> {
    /// The filter that lets every row through.
    pub(crate) const fn always() -> Self {
        Self::All(Vec::new())
    }

    /// The slots the filter binds, ascending.
    pub(crate) fn slots(&self) -> Vec<usize> {
        let mut slots = match self {
            Self::Condition(_) => Vec::new(),
            Self::Equals { slot, .. } | Self::Contains { slot, .. } | Self::IsTrue { slot } => vec![*slot],
            Self::Joined { slots, .. } => slots.clone(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::slots).collect(),
        };
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// The same filter over other columns.
    pub(crate) fn map<D>(&self, column: &dyn Fn(&C) -> D) -> Filter<D> {
        let parts = |parts: &[Self]| parts.iter().map(|part| part.map(column)).collect();
        match self {
            Self::Condition(condition) => Filter::Condition(condition.map(column)),
            Self::Equals { slot, value } => Filter::Equals { slot: *slot, value: value.map(column) },
            Self::Contains { slot, array } => Filter::Contains { slot: *slot, array: array.map(column) },
            Self::IsTrue { slot } => Filter::IsTrue { slot: *slot },
            Self::Joined { join, value, slots } => {
                Filter::Joined { join: *join, value: value.map(column), slots: slots.clone() }
            }
            Self::All(all) => Filter::All(parts(all)),
            Self::Any(any) => Filter::Any(parts(any)),
        }
    }
}
