//! The compiled plan: plain data, made once, evaluated often.
//!
//! A *definition* has parameter queries (which buckets does a client get) and data queries (which rows go into them).
//! Both sides of a filter are inverted: the row side gives the values that would make the filter true, the request side
//! gives the values the client has, and both arrive at the same bucket name.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{
    compile as front_ends,
    diagnostic::Diagnostic,
    evaluate::{EvaluationError, TableEvaluator},
    expression::Expr,
    request::{Querier, RequestContext},
    scope::RequestInput,
    write_policy::WritePolicy,
};

/// A source table: where a row comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceTable {
    /// Connection tag, `default` unless configured otherwise.
    pub connection: String,
    /// Schema.
    pub schema: String,
    /// Table.
    pub name: String,
}

/// Source tables a query reads. A name that ends with `%` matches by prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TablePattern {
    /// Connection tag.
    pub connection: String,
    /// Schema, or a prefix ending with `%`.
    pub schema: String,
    /// Table, or a prefix ending with `%`.
    pub name: String,
}

impl TablePattern {
    /// Whether a table is among those the pattern names.
    pub fn matches(&self, table: &SourceTable) -> bool {
        let part = |pattern: &str, name: &str| match pattern.strip_suffix('%') {
            Some(prefix) => name.starts_with(prefix),
            None => pattern == name,
        };
        self.connection == table.connection && part(&self.schema, &table.schema) && part(&self.name, &table.name)
    }
}

/// How source values are printed; from the `config` block of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compatibility {
    /// Date-times with `T` and a fixed number of fraction digits.
    pub timestamps_iso8601: bool,
    /// Arrays of custom types, composites, ranges and domains as JSON or as their base type.
    pub custom_postgres_types: bool,
    /// Digits of a second's fraction, where the rules limit them.
    pub timestamp_fraction_digits_max: Option<u8>,
}

/// Compiled rules.
#[derive(Debug, Clone)]
pub struct SyncPlan {
    pub(crate) compatibility: Compatibility,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) joins: Vec<JoinLookup>,
    pub(crate) tables: Vec<TablePattern>,
    pub(crate) write_policies: BTreeMap<String, WritePolicy>,
}

/// A bucket definition.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) parameter_queries: Vec<ParameterQuery>,
    pub(crate) data_queries: Vec<DataQuery>,
}

/// How a client's buckets are found.
#[derive(Debug, Clone)]
pub(crate) struct ParameterQuery {
    pub(crate) priority: u8,
    /// A condition on the request alone.
    pub(crate) condition: Option<Expr<RequestInput>>,
    pub(crate) source: ParameterSource,
}

/// Where the parameters come from.
#[derive(Debug, Clone)]
pub(crate) enum ParameterSource {
    /// The request alone.
    Request(Vec<Expr<RequestInput>>),
    /// Claims of the token, which must be there and of their type.
    Claims(Vec<(RequestInput, ClaimType)>),
    /// Rows of a table that a lookup finds.
    Table(TableLookup),
}

/// Type of a parameter in the Kairos dialect. Values of rows and claims are brought to it before they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimType {
    Text,
    Integer,
}

/// A table of which each row says: who asks with these values gets those parameters.
#[derive(Debug, Clone)]
pub(crate) struct TableLookup {
    /// Definition and number of the query: the first part of lookup keys.
    pub(crate) definition: String,
    pub(crate) number: usize,
    pub(crate) table: TablePattern,
    pub(crate) alternatives: Vec<Conjunction>,
    /// The request side of each value of the key.
    pub(crate) inputs: Vec<LookupInput>,
    pub(crate) outputs: Vec<ParameterOutput>,
}

/// The request side of a value of a lookup key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LookupInput {
    Value(Expr<RequestInput>),
    /// One key per element of this JSON array.
    Elements(Expr<RequestInput>),
    /// Whether this holds, as 1 or 0.
    Truth(Expr<RequestInput>),
}

/// A bucket parameter of a table query.
#[derive(Debug, Clone)]
pub(crate) enum ParameterOutput {
    Column(String),
    Request(Expr<RequestInput>),
}

/// Conditions that all must hold: on the row alone, and between row and parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conjunction {
    pub(crate) condition: Option<Expr<String>>,
    pub(crate) terms: Vec<Term>,
}

/// Values of a row that a parameter may have.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    /// Index of the parameter.
    pub(crate) parameter: usize,
    pub(crate) values: TermValues,
}

/// See [`Term`].
#[derive(Debug, Clone)]
pub(crate) enum TermValues {
    /// The parameter equals this.
    Equal(Expr<String>),
    /// The parameter is an element of this JSON array.
    ElementOf(Expr<String>),
    /// The parameter is an array that has this, which may be NULL.
    MemberOf(Expr<String>),
    /// The parameter holds.
    True,
}

/// Rows that go into a definition's buckets.
#[derive(Debug, Clone)]
pub(crate) struct DataQuery {
    pub(crate) table: TablePattern,
    /// Output table; `None`: the source table's name.
    pub(crate) object_type: Option<String>,
    pub(crate) columns: Vec<OutputColumn>,
    pub(crate) membership: Membership,
}

/// An item of the select list.
#[derive(Debug, Clone)]
pub(crate) enum OutputColumn {
    Star,
    Named(String, Expr<String>),
}

/// Into which buckets a row goes.
#[derive(Debug, Clone)]
pub(crate) enum Membership {
    /// Where a filter would hold for the bucket's parameters.
    Matching { parameter_count: usize, alternatives: Vec<Conjunction> },
    /// Those of the principals the row belongs to, directly or through other rows.
    Belonging { types: Vec<ClaimType>, filter: BelongingFilter },
}

/// A filter of the Kairos dialect: conditions that all must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct BelongingFilter {
    pub(crate) condition: Option<Expr<String>>,
    /// The parameter with this index equals this.
    pub(crate) equalities: Vec<(usize, Expr<String>)>,
    /// This is among the keys of a join lookup, which gives values for its parameters.
    pub(crate) joins: Vec<(Expr<String>, usize)>,
}

/// A subquery of the Kairos dialect, as a lookup from the selected column to the parameters that would select the row.
#[derive(Debug, Clone)]
pub(crate) struct JoinLookup {
    /// First part of lookup keys.
    pub(crate) definition: String,
    pub(crate) table: TablePattern,
    pub(crate) key: Expr<String>,
    pub(crate) filter: BelongingFilter,
    /// The parameters it gives values for, ascending.
    pub(crate) parameters: Vec<usize>,
    /// Types of all parameters of the definition.
    pub(crate) types: Vec<ClaimType>,
}

/// What [`compile`] returns.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The plan; absent if a diagnostic is fatal.
    pub plan: Option<SyncPlan>,
    /// Findings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Compiles a rules file. `default_schema` is the schema of unqualified table names, `public` for Postgres.
pub fn compile(yaml: &str, default_schema: &str) -> Compiled {
    front_ends::compile(yaml, default_schema)
}

impl SyncPlan {
    /// How source values are to be printed before evaluation.
    pub fn compatibility(&self) -> Compatibility {
        self.compatibility
    }

    /// The tables the rules read, sorted, each pattern once.
    pub fn source_tables(&self) -> &[TablePattern] {
        &self.tables
    }

    /// Prepares the evaluation of a table's rows. `columns` are the names in the order values will come in;
    /// `bucket_prefix` goes in front of every bucket name.
    pub fn evaluator(&self, table: &SourceTable, columns: &[String], bucket_prefix: &str) -> TableEvaluator {
        TableEvaluator::new(self, table, columns, bucket_prefix)
    }

    /// Prepares the buckets of a client.
    ///
    /// # Errors
    /// Where a parameter query fails for this request, nothing can be said about the client's buckets.
    pub fn querier(&self, request: &RequestContext, bucket_prefix: &str) -> Result<Querier, EvaluationError> {
        Querier::new(self, request, bucket_prefix)
    }

    /// What clients may write to a table. `None`: nothing.
    pub fn write_policy(&self, table: &str) -> Option<&WritePolicy> {
        self.write_policies.get(table)
    }

    /// Tables with a write policy, sorted.
    pub fn writable_tables(&self) -> Vec<&str> {
        self.write_policies.keys().map(String::as_str).collect()
    }

    /// Identifies what the plan does with rows and requests: equal for equal rules, however they are written.
    /// Write rules are no part of it, since nothing stored depends on them.
    pub fn fingerprint(&self) -> String {
        let described = format!("{:?}{:?}{:?}", self.compatibility, self.definitions, self.joins);
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(described.as_bytes()))
    }
}
