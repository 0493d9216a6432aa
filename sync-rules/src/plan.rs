//! The compiled plan.

use crate::{
    diagnostic::Diagnostic,
    evaluate::TableEvaluator,
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
pub struct SyncPlan {}

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
    let _ = (yaml, default_schema);
    Compiled { plan: None, diagnostics: Vec::new() }
}

impl SyncPlan {
    /// How source values are to be printed before evaluation.
    pub fn compatibility(&self) -> Compatibility {
        Compatibility { timestamps_iso8601: false, custom_postgres_types: false, timestamp_fraction_digits_max: None }
    }

    /// The tables the rules read, sorted, each pattern once.
    pub fn source_tables(&self) -> &[TablePattern] {
        &[]
    }

    /// Prepares the evaluation of a table's rows. `columns` are the names in the order values will come in;
    /// `bucket_prefix` goes in front of every bucket name.
    pub fn evaluator(&self, table: &SourceTable, columns: &[String], bucket_prefix: &str) -> TableEvaluator {
        let _ = (table, columns, bucket_prefix);
        TableEvaluator {}
    }

    /// Prepares the buckets of a client.
    ///
    /// # Errors
    /// Where a parameter query fails for this request, nothing can be said about the client's buckets.
    pub fn querier(
        &self,
        request: &RequestContext,
        bucket_prefix: &str,
    ) -> Result<Querier, crate::evaluate::EvaluationError> {
        let _ = (request, bucket_prefix);
        Ok(Querier {})
    }

    /// What clients may write to a table. `None`: nothing.
    pub fn write_policy(&self, table: &str) -> Option<&WritePolicy> {
        let _ = table;
        None
    }

    /// Tables with a write policy, sorted.
    pub fn writable_tables(&self) -> Vec<&str> {
        Vec::new()
    }
}
