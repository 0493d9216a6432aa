//! The last operation on a row in a bucket. The store has no index for that: the bucket is read from its end, in windows
//! of op ids that grow, so that what changed lately is found at once, and everything is read once at most.

use kairos_sync_protocol::{BucketName, OpId};
use serde::Deserialize;
use std::borrow::Cow;

use crate::{
    storage::BucketStore,
    sync::{SyncContext, SyncError},
};

/// Bytes of operations that are read for one question. A million small ones.
const BYTES_MAX: usize = 256 << 20;
/// Bytes that are read in one turn.
const SLICE_BYTES: usize = 1 << 20;
/// How many op ids the first window spans.
const WINDOW_FIRST: u64 = 10_000;

/// How much may still be read.
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(BYTES_MAX)
    }
}

/// The search for a row's last operation.
#[derive(Debug, Clone)]
pub(super) struct Search {
    bucket: BucketName,
    upto: OpId,
    object_type: String,
    object_id: String,
}

/// A search in `bucket`, whose last operation is `upto`, for what was done to this row of devices.
pub(super) fn last_operations(bucket: BucketName, upto: OpId, object_type: &str, object_id: &str) -> Search {
    Search { bucket, upto, object_type: object_type.to_owned(), object_id: object_id.to_owned() }
}

/// What is looked at of an operation.
#[derive(Deserialize)]
struct Operation<'a> {
    op_id: OpId,
    #[serde(borrow, default)]
    object_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    object_id: Option<Cow<'a, str>>,
}

/// What a slice gave.
struct Slice {
    found: Option<OpId>,
    bytes: usize,
    /// Where the next begins, if there is more in the window.
    next_after: Option<OpId>,
}

impl Search {
    /// The last operation; `None` where there is none, or not within the budget.
    pub(super) async fn run(self, context: &SyncContext, budget: &mut Budget) -> Result<Option<OpId>, SyncError> {
        let (mut upto, mut width) = (self.upto, WINDOW_FIRST);
        while upto > OpId::ZERO {
            let start = OpId::new(upto.get().saturating_sub(width)).unwrap_or(OpId::ZERO);
            let (mut after, mut found) = (start, None);
            loop {
                let (search, end) = (self.clone(), upto);
                let slice = context.read(move |store| search.slice(store, after, end)).await?;
                found = slice.found.or(found);
                if budget.0 < slice.bytes {
                    return Ok(None);
                }
                budget.0 -= slice.bytes;
                match slice.next_after {
                    Some(next) => after = next,
                    None => break,
                }
            }
            if found.is_some() {
                return Ok(found);
            }
            (upto, width) = (start, width.saturating_mul(4));
        }
        Ok(None)
    }

    fn slice(&self, store: &dyn BucketStore, after: OpId, upto: OpId) -> Result<Slice, SyncError> {
        let range = store.operations(&self.bucket, after, upto, SLICE_BYTES)?;
        let mut found = None;
        let list = range.json.array()?;
        // The store wrote it; what cannot be read is not the operation looked for.
        let operations: Vec<Operation<'_>> = serde_json::from_slice(&list).unwrap_or_default();
        for operation in operations {
            let is_same = operation.object_type.as_deref() == Some(self.object_type.as_str())
                && operation.object_id.as_deref() == Some(self.object_id.as_str());
            if is_same {
                found = Some(operation.op_id);
            }
        }
        Ok(Slice { found, bytes: range.json.length(), next_after: range.has_more.then_some(range.last_op_id) })
    }
}
