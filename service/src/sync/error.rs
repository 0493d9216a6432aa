//! Why a stream or a write checkpoint cannot be served.

use kairos_sync_rules::EvaluationError;

use super::write_checkpoint::HeadUnavailable;
use crate::storage::StorageError;

/// Why a stream or a write checkpoint cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// More buckets than the limit allows.
    #[error(
        "the client would get {count} buckets, the limit is {limit}; {largest_count} of them come from `{largest}`: \
         narrow its parameter query, group its rows into fewer buckets, or raise limits.buckets_per_connection_max"
    )]
    TooManyBuckets {
        /// How many it would get.
        count: usize,
        /// How many it may get.
        limit: usize,
        /// The definition with most of them.
        largest: String,
        /// How many of them.
        largest_count: usize,
    },
    /// The rules cannot say which buckets the client gets.
    #[error("the sync rules cannot be evaluated for this client: {0}")]
    Rules(#[from] EvaluationError),
    /// The store was built by rules that this release does not know.
    #[error("the rules of the bucket store cannot be read, and it is being built anew: try again")]
    UnknownRules,
    /// The bucket store failed.
    #[error("the bucket store cannot be read")]
    Storage(#[from] StorageError),
    /// The source could not be asked for its position, or not be told to pass it.
    #[error("the source database does not answer: try again")]
    Head(#[from] HeadUnavailable),
    /// Too many requests wait for a write checkpoint.
    #[error("too many requests wait for a write checkpoint: try again")]
    WriteCheckpointsBusy,
    /// Write checkpoints come from rows of the source, not from here.
    #[error(
        "the sync rules take write checkpoints from an event: complete the upload with the checkpoint that the app's \
         backend gives, or take the event out of the rules"
    )]
    CustomWriteCheckpoints,
    /// The service stops, or the work was given up.
    #[error("the service is stopping: try again")]
    Stopping,
}

impl SyncError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooManyBuckets { .. } => "PSYNC_S2305",
            Self::Rules(_) => "SYNC-0101",
            Self::UnknownRules => "SYNC-0102",
            Self::Storage(error) => error.code(),
            Self::Head(_) => "SYNC-0201",
            Self::CustomWriteCheckpoints => "PSYNC_S2001",
            Self::WriteCheckpointsBusy => "SYNC-0202",
            Self::Stopping => "PSYNC_S2003",
        }
    }
}
