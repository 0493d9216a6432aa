//! What rules compile to: plain data, free of parser types, in the words of the plan.
//!
//! All front ends end here. A plan has three lists that definitions point into, so that what two definitions share is
//! there once: [`RowQuery`] puts rows into buckets, [`IndexQuery`] puts them into the index of lookups, and a
//! [`BucketQuery`] of a definition finds a client's buckets, asking that index where the request alone does not say.

use serde::{Deserialize, Serialize};

use crate::{expression::Expression, plan::TablePattern};

/// A bucket definition or a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: DefinitionKind,
    /// Its buckets.
    pub buckets: Vec<Bucket>,
    /// Which of them a client gets.
    pub queries: Vec<BucketQuery>,
}

/// What a definition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DefinitionKind {
    /// Everybody has it. An expression that fails for a request fails the request.
    Buckets,
    /// Clients subscribe to it. An expression that fails, fails the subscription.
    Stream {
        /// Everybody is subscribed.
        is_default: bool,
        /// Which implementation's subscriptions it follows.
        edition: StreamEdition,
    },
}

/// The two kinds of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StreamEdition {
    /// Edition 2: named in a subscription, a default stream is also evaluated without it.
    Alpha,
    /// Edition 3.
    Compiled,
}

/// Buckets with the same rows but for their parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    /// What their names begin with.
    pub name: String,
    /// Which rows go in: indexes into the plan's row queries.
    pub rows: Vec<usize>,
}

/// Finds buckets of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BucketQuery {
    /// What the buckets' names begin with. Streams that put the same rows into buckets share them.
    pub bucket: String,
    /// 0 syncs first, 3 last.
    pub priority: u8,
    /// All must hold, or there are no buckets.
    pub conditions: Vec<Expression<RequestInput>>,
    /// What is found out in this order.
    pub steps: Vec<Step>,
    /// One per bucket parameter.
    pub parameters: Vec<Parameter>,
    /// What becomes of NULL.
    pub nulls: Nulls,
}

/// What becomes of a NULL among the values of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Nulls {
    /// It is a value like others. (Rows never meet it.)
    Keep,
    /// It leads nowhere.
    Drop,
}

/// A bucket parameter. All its sources must agree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parameter(pub Vec<ValueSource>);

/// Where a value on the request's side comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ValueSource {
    /// The request.
    Request(Expression<RequestInput>),
    /// A named parameter of the Kairos dialect: the token.
    Claim(Claim),
    /// What a step found.
    Found {
        /// The step.
        step: usize,
        /// Its output.
        output: usize,
    },
}

/// Finds rows of values; none found, no buckets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Takes an array of the request apart.
    Elements {
        /// A JSON array, or object, in text.
        array: Expression<RequestInput>,
        /// How.
        form: ElementForm,
        /// All must hold for an element.
        filter: Vec<Expression<ElementInput>>,
        /// What an element gives.
        outputs: Vec<Expression<ElementInput>>,
    },
    /// Asks an index.
    Lookup {
        /// The index.
        index: IndexId,
        /// The key.
        inputs: Vec<Parameter>,
    },
}

/// The ways of taking an array apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ElementForm {
    /// `json_each(array)`: what is not an array or object fails.
    JsonEach {
        /// The option `fixed_json_extract`.
        fixed: bool,
    },
    /// `column IN array` of classic parameter queries: what is not an array has no elements.
    Any,
    /// `column IN array` of edition 2 streams: only numbers and text count.
    Scalars,
}

/// What an expression can read while an array is taken apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ElementInput {
    /// Of the element.
    Element(ElementPart),
    /// Of the request.
    Request(RequestInput),
}

/// A column of `json_each`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum ElementPart {
    /// `key`
    Key,
    /// `value`
    Value,
}

/// A parameter of the Kairos dialect. `user_id` is the token's `sub`; another name is a member of the token's
/// `parameters`, else of the token itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// Name of the parameter.
    pub name: String,
    /// What the claim must be.
    pub kind: ClaimKind,
}

/// Types of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum RequestInput {
    /// `request.user_id()`: `sub`, a number as REAL.
    UserId,
    /// `request.jwt()`: the token as JSON text.
    Token,
    /// `request.parameters()`: the client parameters as JSON text.
    Parameters,
    /// The subscription's parameters as JSON text; NULL without a subscription.
    Subscription,
    /// The same, `{}` without a subscription.
    SubscriptionOrEmpty,
    /// The client parameters as columns, in JSON text: what is below a name is text.
    ParameterColumns,
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

/// A source table as a query reads it: rows, each perhaps expanded by arrays it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RowSource {
    /// The table.
    pub table: TablePattern,
    /// Arrays of the row. The query runs for every combination of their elements.
    pub expansions: Vec<Expansion>,
    /// All must hold. They are asked in order, up to the first that does not.
    pub conditions: Vec<Expression<RowInput>>,
    /// Matches the row with slots.
    pub filter: Filter<RowInput>,
    /// Number of slots.
    pub slot_count: usize,
}

/// `json_each(array)` over a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Expansion {
    /// A JSON array, or object, in text.
    pub array: Expression<RowInput>,
    /// The option `fixed_json_extract`.
    pub fixed: bool,
}

/// What an expression can read of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum RowInput {
    /// A column.
    Column(String),
    /// Of the name of the table the row comes from.
    Table(TablePart),
    /// Of an element the row is expanded by.
    Element {
        /// The expansion.
        expansion: usize,
        /// Its column.
        part: ElementPart,
    },
}

/// A part of a source table's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum TablePart {
    /// Its schema.
    Schema,
    /// Its name.
    Name,
    /// What `%` stands for in a query over several tables; empty in others.
    Suffix,
}

/// Selects rows into buckets. Its slots are the bucket parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RowQuery {
    /// Which rows.
    pub source: RowSource,
    /// Output table; `None`: the source table's name.
    pub object_type: Option<String>,
    /// Output columns.
    pub columns: Vec<OutputItem>,
    /// How `*` and names that repeat are treated.
    pub style: OutputStyle,
}

/// The two ways of reading a select list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OutputStyle {
    /// `*` leaves out names that begin with `_` and only fills what is absent or NULL.
    Classic,
    /// `*` is all columns; the last of a name counts.
    Plain,
}

/// An entry of a select list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum OutputItem {
    /// All columns.
    Star,
    /// `value AS name`
    Column {
        /// Output name.
        name: String,
        /// The value.
        value: Expression<RowInput>,
    },
}

/// Identifies an index by what goes into it, so that the same index is built once, and is still the same after a deploy
/// that changes other parts of the rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct IndexId(pub String);

/// Puts what rows say into an index.
///
/// For a parameter query the key is what a request asks for, the value what it finds. For a join at write time, such as
/// `habit_id IN (SELECT id FROM habits WHERE user_id = :user_id)`, each row of `habits` says: whoever asks for my `id`
/// belongs to my `user_id`; rows of the outer table ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct IndexQuery {
    /// Identifies it.
    pub id: IndexId,
    /// What it was made for, as a person would say. No part of its identity.
    pub label: String,
    /// Which rows.
    pub source: RowSource,
    /// What is asked for.
    pub key: Vec<IndexPart>,
    /// What is answered.
    pub value: Vec<IndexPart>,
}

/// A part of an index entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum IndexPart {
    /// What the filter bound to the slot.
    Slot(usize),
    /// A value of the row. NULL and bytes make no entry.
    Row(Expression<RowInput>),
    /// A column of the row. NULL is answered as such; bytes are, too.
    Nullable(RowInput),
}

/// Selects the payload of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventQuery {
    /// The event.
    pub event: String,
    /// The table.
    pub table: TablePattern,
    /// The payload.
    pub columns: Vec<OutputItem>,
}

/// Matches rows with slots: bucket parameters or parts of a lookup key. `C` is what stands for a column.
///
/// Evaluated for a row it gives every combination of slot values under which the condition holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// `slot = value`, where a row with NULL goes into the bucket of NULL. Nobody has that bucket; PowerSync has it.
    EqualsOrNull {
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
    /// `(values) IN (SELECT …)`
    Joined {
        /// The index of the subquery.
        index: IndexId,
        /// Of the row.
        values: Vec<Expression<C>>,
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
            Self::Equals { slot, .. }
            | Self::EqualsOrNull { slot, .. }
            | Self::Contains { slot, .. }
            | Self::IsTrue { slot } => vec![*slot],
            Self::Joined { slots, .. } => slots.clone(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::slots).collect(),
        };
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Calls `visit` with the index of every join.
    pub(crate) fn visit_joins<'f>(&'f self, visit: &mut dyn FnMut(&'f IndexId)) {
        match self {
            Self::Joined { index, .. } => visit(index),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.visit_joins(visit)),
            Self::Condition(_)
            | Self::Equals { .. }
            | Self::EqualsOrNull { .. }
            | Self::Contains { .. }
            | Self::IsTrue { .. } => {}
        }
    }

    /// The same filter over other columns.
    pub(crate) fn map<D>(&self, column: &dyn Fn(&C) -> D) -> Filter<D> {
        let parts = |parts: &[Self]| parts.iter().map(|part| part.map(column)).collect();
        match self {
            Self::Condition(condition) => Filter::Condition(condition.map(column)),
            Self::Equals { slot, value } => Filter::Equals { slot: *slot, value: value.map(column) },
            Self::EqualsOrNull { slot, value } => Filter::EqualsOrNull { slot: *slot, value: value.map(column) },
            Self::Contains { slot, array } => Filter::Contains { slot: *slot, array: array.map(column) },
            Self::IsTrue { slot } => Filter::IsTrue { slot: *slot },
            Self::Joined { index, values, slots } => Filter::Joined {
                index: index.clone(),
                values: values.iter().map(|value| value.map(column)).collect(),
                slots: slots.clone(),
            },
            Self::All(all) => Filter::All(parts(all)),
            Self::Any(any) => Filter::Any(parts(any)),
        }
    }
}
