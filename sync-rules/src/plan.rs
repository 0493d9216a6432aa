//! The compiled plan.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use crate::compile::compile;
use crate::{
    definition::Definition,
    diagnostic::Diagnostic,
    evaluate::{EvaluationError, TableEvaluator},
    request::{Querier, RequestContext},
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

    /// Whether the pattern can name several tables.
    pub fn is_wildcard(&self) -> bool {
        self.schema.ends_with('%') || self.name.ends_with('%')
    }
}

/// How source values are printed; from the `config` block of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
    pub(crate) versioned_bucket_ids: bool,
    pub(crate) source_tables: Vec<TablePattern>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) policies: BTreeMap<String, WritePolicy>,
}

/// What [`compile`] returns.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The plan; absent if a diagnostic is fatal.
    pub plan: Option<SyncPlan>,
    /// Findings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl SyncPlan {
    /// How source values are to be printed before evaluation.
    pub fn compatibility(&self) -> Compatibility {
        self.compatibility
    }

    /// Whether the rules ask for a deployment number in front of bucket names (`12#mine[]`).
    pub fn versioned_bucket_ids(&self) -> bool {
        self.versioned_bucket_ids
    }

    /// The tables the rules read, sorted, each pattern once.
    pub fn source_tables(&self) -> &[TablePattern] {
        &self.source_tables
    }

    /// Identifies what the plan does to rows and requests: 64 hexadecimal digits. Comments, layout and write rules of
    /// the file have no part in it, so that a store built under the same fingerprint can be kept.
    ///
    /// # Panics
    /// Never: a plan always serialises.
    pub fn fingerprint(&self) -> String {
        /// Raise when the same plan gives other buckets, lookups or data than before.
        const EVALUATION_VERSION: u32 = 1;
        let content = (EVALUATION_VERSION, self.versioned_bucket_ids, &self.compatibility, &self.definitions);
        let json = serde_json::to_vec(&content).expect("a plan is strings, numbers and lists, which serialise");
        Sha256::digest(json).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Prepares the evaluation of a table's rows. `columns` are the names in the order values will come in;
    /// `bucket_prefix` goes in front of every bucket name.
    pub fn evaluator(&self, table: &SourceTable, columns: &[String], bucket_prefix: &str) -> TableEvaluator {
        TableEvaluator::new(&self.definitions, table, columns, bucket_prefix)
    }

    /// Prepares the buckets of a client.
    ///
    /// # Errors
    /// Where a parameter query fails for this request, nothing can be said about the client's buckets.
    pub fn querier(&self, request: &RequestContext, bucket_prefix: &str) -> Result<Querier, EvaluationError> {
        Querier::new(&self.definitions, request, bucket_prefix)
    }

    /// What clients may write to a table. `None`: nothing.
    pub fn write_policy(&self, table: &str) -> Option<&WritePolicy> {
        self.policies.get(table)
    }

    /// Tables with a write policy, sorted.
    pub fn writable_tables(&self) -> Vec<&str> {
        self.policies.keys().map(String::as_str).collect()
    }
}
