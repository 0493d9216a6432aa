//! The compiled plan.

use std::{collections::BTreeMap, fmt::Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::compile::{CompileOptions, compile, compile_with};
use crate::{
    definition::{Bucket, Definition, EventQuery, IndexQuery, RowQuery, RowSource},
    diagnostic::Diagnostic,
    evaluate::{EvaluationError, RowOwner, TableEvaluator},
    places::Places,
    request::{Querier, RequestContext},
    write_policy::WritePolicy,
};

/// Of the serialised form. Raise it when old plans can no longer be read, or when the same plan gives other buckets,
/// lookups or data than before.
pub const PLAN_FORMAT: u32 = 2;

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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// Deeper joins are taken for as deep. Subqueries do not nest so deep, and a damaged plan may go in circles.
const JOIN_DEPTH_MAX: usize = 16;

/// How source values are printed; from the `config` block of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compatibility {
    /// Date-times with `T` and a fixed number of fraction digits.
    pub timestamps_iso8601: bool,
    /// Arrays of custom types, composites, ranges and domains as JSON or as their base type.
    pub custom_postgres_types: bool,
    /// Digits of a second's fraction, where the rules limit them.
    pub timestamp_fraction_digits_max: Option<u8>,
}

/// Compiled rules: plain data, which can be stored and read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncPlan {
    pub(crate) format: u32,
    pub(crate) compatibility: Compatibility,
    pub(crate) versioned_bucket_ids: bool,
    pub(crate) rows: Vec<RowQuery>,
    pub(crate) indexes: Vec<IndexQuery>,
    pub(crate) events: Vec<EventQuery>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) policies: BTreeMap<String, WritePolicy>,
}

/// A stored plan that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Of another version.
    #[error("the stored plan has format {found}; this version reads {PLAN_FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
    /// Not a plan.
    #[error("the stored plan cannot be read")]
    Damaged(#[source] serde_json::Error),
}

/// What [`compile`] returns.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The plan; absent if a diagnostic is fatal.
    pub plan: Option<SyncPlan>,
    /// Findings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// Where the file speaks of what, for findings made elsewhere.
    pub places: Places,
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
    pub fn source_tables(&self) -> Vec<TablePattern> {
        let rows = self.rows.iter().map(|query| &query.source.table);
        let indexes = self.indexes.iter().map(|index| &index.source.table);
        let mut tables: Vec<_> = rows.chain(indexes).chain(self.events.iter().map(|event| &event.table)).collect();
        tables.sort_unstable();
        tables.dedup();
        tables.into_iter().cloned().collect()
    }

    /// Names of the events, sorted, each once.
    pub fn event_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.events.iter().map(|event| event.event.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// How many joins, one behind the other, the rows of a table ask. What a row asks comes from tables of a smaller depth,
    /// unless a table is joined with itself: when these are read first, a row finds its answers.
    pub fn join_depth(&self, table: &SourceTable) -> usize {
        let rows = self.rows.iter().map(|query| &query.source);
        let indexes = self.indexes.iter().map(|index| &index.source);
        let of_table = rows.chain(indexes).filter(|source| source.table.matches(table));
        of_table.map(|source| self.depth(source, JOIN_DEPTH_MAX)).max().unwrap_or_default()
    }

    fn depth(&self, source: &RowSource, at_most: usize) -> usize {
        let mut depth = 0;
        source.filter.visit_joins(&mut |id| {
            let asked = self.indexes.iter().find(|index| index.id == *id).filter(|_| at_most > 1);
            depth = depth.max(1 + asked.map_or(0, |index| self.depth(&index.source, at_most - 1)));
        });
        depth
    }

    /// Identifies what the plan does to rows and requests: 64 hexadecimal digits. Comments, layout and write rules of
    /// the file have no part in it, so that a store built under the same fingerprint can be kept.
    pub fn fingerprint(&self) -> String {
        let definitions: Vec<_> = self.definitions.iter().map(|definition| self.content(definition)).collect();
        hash(&(PLAN_FORMAT, self.versioned_bucket_ids, &self.compatibility, definitions, &self.events))
    }

    /// The definitions by name, each with a hash of all that decides about its buckets and their rows: what a deploy
    /// compares. A definition with the same hash need not be built again.
    pub fn definition_hashes(&self) -> BTreeMap<&str, String> {
        let hashed = |definition: &Definition| hash(&(PLAN_FORMAT, &self.compatibility, self.content(definition)));
        self.definitions.iter().map(|definition| (definition.name.as_str(), hashed(definition))).collect()
    }

    /// A definition with the row queries of its buckets, also of those it shares. Indexes are named by what is in them.
    fn content<'p>(&'p self, definition: &'p Definition) -> impl Serialize + 'p {
        let Definition { name, kind, queries, .. } = definition;
        let all = self.definitions.iter().flat_map(|definition| &definition.buckets);
        let is_asked = |bucket: &&Bucket| queries.iter().any(|query| query.bucket == bucket.name);
        let buckets: Vec<_> = all
            .filter(is_asked)
            .map(|bucket| (&bucket.name, bucket.rows.iter().map(|row| &self.rows[*row]).collect::<Vec<_>>()))
            .collect();
        (name, kind, buckets, queries)
    }

    /// The plan as it is stored.
    ///
    /// # Panics
    /// Never: a plan always serialises.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a plan is strings, numbers and lists, which serialise")
    }

    /// Reads a stored plan.
    ///
    /// # Errors
    /// When it is of another format, or damaged.
    pub fn from_json(json: &str) -> Result<Self, PlanError> {
        /// The part every format has.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let mut reader = serde_json::Deserializer::from_str(json);
        reader.disable_recursion_limit();
        let Head { format } = Head::deserialize(&mut reader).map_err(PlanError::Damaged)?;
        if format != PLAN_FORMAT {
            return Err(PlanError::Format { found: format });
        }
        // Conditions nest as deep as the compiler lets them, which is more than the usual bound of JSON.
        let mut reader = serde_json::Deserializer::from_str(json);
        reader.disable_recursion_limit();
        Self::deserialize(&mut reader).map_err(PlanError::Damaged)
    }

    /// Whose each row query is.
    pub(crate) fn row_owners(&self) -> Vec<RowOwner<'_>> {
        let mut owners: Vec<_> =
            self.rows.iter().map(|_| RowOwner { definition: "", number: 0, buckets: Vec::new() }).collect();
        for definition in &self.definitions {
            let mut numbers: Vec<usize> = definition.buckets.iter().flat_map(|bucket| bucket.rows.clone()).collect();
            numbers.sort_unstable();
            numbers.dedup();
            for (number, row) in numbers.iter().enumerate() {
                let owner = &mut owners[*row];
                if owner.number == 0 {
                    (owner.definition, owner.number) = (&definition.name, number + 1);
                }
            }
            for bucket in &definition.buckets {
                for row in &bucket.rows {
                    owners[*row].buckets.push(&bucket.name);
                }
            }
        }
        owners
    }

    /// Prepares the evaluation of a table's rows. `columns` are the names in the order values will come in;
    /// `bucket_prefix` goes in front of every bucket name.
    pub fn evaluator(&self, table: &SourceTable, columns: &[String], bucket_prefix: &str) -> TableEvaluator {
        TableEvaluator::new(self, table, columns, bucket_prefix)
    }

    /// Prepares the buckets of a client.
    ///
    /// # Errors
    /// Where a parameter query of a bucket definition fails for this request, nothing can be said about the client's
    /// buckets.
    pub fn querier(&self, request: &RequestContext, bucket_prefix: &str) -> Result<Querier, EvaluationError> {
        Querier::new(self, request, bucket_prefix)
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

/// Sha-256 of what is serialised, in hexadecimal.
pub(crate) fn hash(content: &impl Serialize) -> String {
    let json = serde_json::to_vec(content).expect("a plan is strings, numbers and lists, which serialise");
    Sha256::digest(json).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_deeper_than_what_its_rows_join() {
        let rules = "
bucket_definitions:
  mine:
    parameters:
      - name: user_id
        type: string
    data:
      - table: teams
        filter: 'owner = :user_id'
      - table: lists
        filter: 'team IN (SELECT id FROM teams WHERE owner = :user_id)'
      - table: items
        filter: 'list IN (SELECT id FROM lists WHERE team IN (SELECT id FROM teams WHERE owner = :user_id))'
";
        let compiled = compile(rules, "public");
        let plan = compiled.plan.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
        let depth = |name: &str| {
            let (connection, schema) = ("default".to_owned(), "public".to_owned());
            plan.join_depth(&SourceTable { connection, schema, name: name.to_owned() })
        };
        assert_eq!(["teams", "lists", "items", "others"].map(depth), [0, 1, 2, 0]);
    }
}
