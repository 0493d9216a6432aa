//! What goes into the machine and what comes out.

use std::{collections::BTreeMap, sync::Arc};

use kairos_sync_protocol::{
    OpId, WriteCheckpointId,
    line::{BucketChecksum, BucketData, StreamDescription, SyncLine},
    request::SyncRequest,
};

/// What happened, as the host saw it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Event {
    /// The host wants a stream; these buckets are in the store.
    Start(Vec<BucketState>),
    /// A line of the stream arrived.
    Line(SyncLine),
    /// The upload queue is empty and the write checkpoint to wait for is in the store.
    UploadsDrained,
    /// Most of the token's life is over.
    TokenAging,
    /// New credentials are at hand.
    TokenRefreshed,
    /// The answer to [`StoreStep::Complete`]: the app sees the checkpoint now.
    Published,
    /// The answer to [`StoreStep::Complete`]: local writes hold the checkpoint back.
    Withheld,
    /// The answer to [`StoreStep::Complete`]: these buckets did not add up, and the store dropped them.
    Damaged(Vec<String>),
}

/// What the host must do, in order.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Instruction {
    /// Open a stream with this request and report its lines.
    OpenStream(Box<SyncRequest>),
    /// Something for the store; all steps between two other instructions may share a transaction.
    Store(StoreStep),
    /// Upload what is queued: the stream works, so the service can be reached.
    Upload,
    /// Fetch new credentials in the background and report [`Event::TokenRefreshed`].
    PrefetchCredentials,
    /// Forget the credentials: the service refuses them from now on.
    DropCredentials,
    /// Close the stream. The machine ignores everything until the next [`Event::Start`].
    CloseStream(CloseReason),
}

/// A step for the store.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum StoreStep {
    /// Drop these buckets. Their rows disappear for the app with the next published checkpoint.
    DeleteBuckets(Vec<String>),
    /// Keep these operations, invisible until a checkpoint is published.
    ApplyData(BucketData),
    /// Validate and, unless local writes hold it back, publish.
    Complete(Completion),
}

/// A checkpoint of which everything in `scope` has arrived.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Completion {
    /// What must add up.
    pub target: Arc<Target>,
    /// How much of it.
    pub scope: Scope,
}

/// Which buckets of a checkpoint are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Scope {
    /// All.
    Full,
    /// Those with this priority number or a lower one.
    UpTo(u8),
}

impl Scope {
    /// A bucket of this priority belongs to the scope.
    pub const fn includes(self, priority: u8) -> bool {
        match self {
            Self::Full => true,
            Self::UpTo(limit) => priority <= limit,
        }
    }

    /// Priority 0 reaches the app even while local writes wait for their upload.
    pub const fn ignores_local_writes(self) -> bool {
        matches!(self, Self::UpTo(0))
    }
}

/// The checkpoint the service is sending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Target {
    /// Every operation up to here belongs to it.
    pub last_op_id: OpId,
    /// The latest upload the checkpoint contains.
    pub write_checkpoint: Option<WriteCheckpointId>,
    /// All buckets of the client, by name.
    pub buckets: BTreeMap<String, BucketChecksum>,
    /// All streams the client is subscribed to, with what is wrong with subscriptions.
    pub streams: Vec<StreamDescription>,
}

/// What the store knows of a bucket when a stream starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BucketState {
    /// Name as the service sent it.
    pub name: String,
    /// The service continues after this operation.
    pub last_op_id: OpId,
    /// Operations in the last published checkpoint.
    pub count_at_last: u64,
    /// Operations received since.
    pub count_since_last: u64,
}

/// Why a stream is closed by the client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum CloseReason {
    /// The token is no longer valid.
    TokenExpired,
    /// Newer credentials are at hand; the stream moves over to them.
    TokenRefreshed,
    /// These buckets did not add up and are fetched again.
    Damaged(Vec<String>),
    /// What is urgent has arrived; the rest waits, see [`SyncMachine::defer_above`](crate::SyncMachine::defer_above).
    Deferred,
    /// The service broke the protocol.
    Protocol(ProtocolError),
}

/// How the service broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Only a `checkpoint` line may come first.
    #[error("the service sent `{line}` before any checkpoint")]
    BeforeCheckpoint {
        /// Kind of the line.
        line: &'static str,
    },
    /// Data must belong to a bucket of the checkpoint, else nothing would verify it.
    #[error("the service sent data of bucket `{bucket}`, which is not in the checkpoint")]
    UnknownBucket {
        /// Its name.
        bucket: String,
    },
    /// A PUT or REMOVE without table, id or data.
    #[error("operation {op_id} of bucket `{bucket}` lacks its table, id or data")]
    IncompleteOperation {
        /// Name of the bucket.
        bucket: String,
        /// The operation.
        op_id: OpId,
    },
}

/// As its message.
#[cfg(feature = "serde")]
impl serde::Serialize for ProtocolError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
