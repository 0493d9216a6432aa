//! Source rows through the plan: which buckets a row goes to, which lookups it feeds.

use std::sync::Arc;

use kairos_sync_protocol::BucketName;

use crate::value::SqlValue;

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

/// Evaluates the rows of one source table. Made by [`crate::SyncPlan::evaluator`], which resolves column names once.
#[derive(Debug, Clone)]
pub struct TableEvaluator {}

impl TableEvaluator {
    /// Evaluates a row. `values` are in the order of the columns the evaluator was made for.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn evaluate<L: LookupSource>(&self, values: &[SqlValue], lookups: &mut L) -> Result<Evaluation, L::Error> {
        let _ = (values, lookups);
        Ok(Evaluation::default())
    }

    /// Whether any query reads this table; rows of others need not be stored.
    pub fn is_used(&self) -> bool {
        false
    }
}
