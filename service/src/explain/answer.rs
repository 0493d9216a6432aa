//! What an operator asks, and what is answered. Both travel as JSON; `docs/admin.md` describes them.

use kairos_sync_protocol::OpId;
use kairos_sync_rules::explain::{ExplainedDefinition, ExplainedRowQuery, NamedValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Buckets that are listed where nothing else is asked for, and at most.
pub(super) const BUCKETS_PAGE: usize = 100;
pub(super) const BUCKETS_PAGE_MAX: usize = 1_000;

/// Why does this user have these buckets, and why is this row on the user's devices or not?
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The user: `sub` of the token.
    pub user_id: String,
    /// Other claims of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Map<String, Value>>,
    /// Parameters of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
    /// Streams that the client subscribes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Vec<Subscribed>>,
    /// Explains what this connected device asked for. Otherwise, where nothing of the above is given, it is the user's
    /// newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// A table: `schema.name`, or a name as source or devices have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The key of a row there: its value, or an object where the key has several columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// Lists buckets whose names come after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets_after: Option<String>,
    /// Lists at most so many, from 0 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_limit: Option<usize>,
}

/// A subscription to a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// Its name.
    pub stream: String,
    /// Its parameters.
    #[serde(default)]
    pub parameters: Option<Map<String, Value>>,
}

/// The answer. Lists are cut; the counts beside them are whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// All of it in one sentence.
    pub summary: String,
    /// The user.
    pub user_id: String,
    /// What is explained.
    pub request: ExplainedAs,
    /// What clients may see at the moment; absent while there is nothing to see.
    pub checkpoint: Option<CheckpointAnswer>,
    /// WAL that is not read yet.
    pub lag_bytes: u64,
    /// The user's buckets.
    pub buckets: Buckets,
    /// How the rules find them.
    pub definitions: Vec<ExplainedDefinition>,
    /// The row, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<RowAnswer>,
    /// Open streams of the user.
    pub devices: Vec<DeviceAnswer>,
    /// How many there are.
    pub device_count: usize,
}

/// The request that is explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainedAs {
    /// Where it is from.
    pub source: RequestSource,
    /// The device that asked, if it is from one.
    pub client_id: Option<String>,
    /// What the token says.
    pub token: Map<String, Value>,
    /// Parameters of the client.
    pub parameters: Map<String, Value>,
    /// Its subscriptions.
    pub subscriptions: Vec<Subscribed>,
}

/// Where a request is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestSource {
    /// A connected device asked so.
    Device,
    /// The question says so.
    Given,
    /// A token with nothing but the user is assumed.
    UserAlone,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointAnswer {
    /// Its last operation.
    pub op_id: OpId,
    /// The source's position it equals.
    pub lsn: String,
}

/// Buckets of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    /// How many the user has.
    pub count: usize,
    /// How many a client may have; the stream of one with more is refused.
    pub limit: usize,
    /// Why nothing can be said of them, or not of all.
    pub failures: Vec<String>,
    /// A page of them, by name.
    pub page: Vec<BucketAnswer>,
    /// `buckets_after` of the next page, if there is one.
    pub next_after: Option<String>,
}

/// A bucket that a user has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketAnswer {
    /// Its name, as clients see it.
    pub name: String,
    /// 0 syncs first, 3 last.
    pub priority: u8,
    /// Operations in it.
    pub operation_count: u64,
    /// The last one.
    pub last_op_id: OpId,
    /// The queries that bring it.
    pub origins: Vec<OriginAnswer>,
}

/// Why a user has a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginAnswer {
    /// The bucket definition or stream.
    pub definition: String,
    /// The subscription, by its place in the request; absent: by default.
    pub subscription: Option<usize>,
    /// Where each parameter comes from.
    pub parameters: Vec<ParameterAnswer>,
    /// Rows that were asked on the way.
    pub lookups: Vec<LookupAnswer>,
}

/// A parameter of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterAnswer {
    /// As in the bucket's name.
    pub value: String,
    /// Where it comes from.
    pub from: String,
}

/// An answer of a subquery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupAnswer {
    /// The step that asks, from 1.
    pub step: usize,
    /// The table it asks.
    pub table: String,
    /// What it answers.
    pub value: String,
    /// The rows that say so, by their keys. The first of them.
    pub rows: Vec<String>,
    /// How many do.
    pub row_count: usize,
}

/// What is known of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowAnswer {
    /// Its table in the source, or the name that was asked for.
    pub table: String,
    /// Its key.
    pub key: String,
    /// Whether it is here.
    pub state: RowState,
    /// What each query of the rules makes of it.
    pub queries: Vec<ExplainedRowQuery>,
    /// The buckets it is in, those of the user first. The first of them.
    pub buckets: Vec<RowBucket>,
    /// How many there are,
    pub bucket_count: usize,
    /// and how many of them the user has.
    pub user_bucket_count: usize,
}

/// Whether a row is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// It is.
    Stored,
    /// Parts of it are, and its table's copy will bring the rest.
    Incomplete,
    /// It is not, and the rules do not read its table.
    TableNotInRules,
    /// It is not, and none of these publications has its table.
    TableNotPublished(Vec<String>),
    /// It is not, and its table is still being copied.
    TableBeingCopied,
    /// There is no such row, or the publication leaves it out.
    NoSuchRow,
    /// It cannot be found by what was asked: rows of the table are identified by these columns.
    KeyNeeded(Vec<String>),
    /// Replication has not begun.
    NothingReplicated,
}

/// A bucket that a row is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowBucket {
    /// Its name.
    pub name: String,
    /// Whether the user has it.
    pub is_users: bool,
    /// The table it is in on devices,
    pub object_type: String,
    /// and its id there.
    pub object_id: String,
    /// The last operation on the row, if it was found. Looked for in buckets of the user only.
    pub op_id: Option<OpId>,
    /// The last operation of the bucket.
    pub bucket_last_op_id: Option<OpId>,
}

/// An open stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAnswer {
    /// The device's database, as it says.
    pub client_id: Option<String>,
    /// Program and version, as it says.
    pub user_agent: Option<String>,
    /// What carries the stream.
    pub carrier: String,
    /// Since when.
    pub since: String,
    /// Buckets it has.
    pub bucket_count: usize,
    /// The newest checkpoint that was announced,
    pub announced: Option<ToldAnswer>,
    /// and the newest of which everything was sent.
    pub completed: Option<ToldAnswer>,
    /// Whether the row was sent to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<RowOnDevice>,
}

/// A checkpoint and when a device was told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldAnswer {
    /// Its last operation.
    pub op_id: OpId,
    /// When.
    pub at: String,
}

/// Whether a row was sent to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOnDevice {
    /// With a checkpoint that is complete.
    Sent,
    /// It is being sent, or is about to be.
    Coming,
    /// The stream has no bucket with it.
    NotAsked,
}

/// A value of a row or request, for printing.
pub(super) fn shown(values: &[NamedValue]) -> String {
    let shown: Vec<_> = values.iter().map(|value| format!("{} is {}", value.name, value.value)).collect();
    shown.join(", ")
}
