//! Writes that were not taken as sent, and what their user makes of them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    WriteCheckpointId,
    upload::{CrudOp, OpResult, Outcome},
};

/// Columns and values of a row, as far as known.
pub type Columns = Map<String, Value>;

/// How far a conflict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictStatus {
    /// Asks for a person.
    Open,
    /// A strategy of the table decided.
    Settled,
    /// A person decided.
    Resolved,
}

/// Whose values a conflict ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// What the device wanted; after a refusal, it is tried again.
    Mine,
    /// What the row has.
    Theirs,
    /// Something else.
    Merged,
}

/// A write that was refused, that met another's, of which less was taken than was sent, or that went over what others
/// had written meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// A UUID.
    pub id: String,
    /// The device's database, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Position of the write in the device's queue, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op_id: Option<String>,
    /// What the device did.
    pub op: CrudOp,
    /// The table, as the device names it.
    pub table: String,
    /// The row, where the device said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_id: Option<String>,
    /// `refused`, `conflict`, `merged`, or `applied` where it went over what the device did not know.
    pub outcome: Outcome,
    /// Stable code of the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the device saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Columns>,
    /// What it wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mine: Option<Columns>,
    /// What others made of the row; absent where it is gone, or was too large to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Columns>,
    /// How far it is.
    pub status: ConflictStatus,
    /// How it ended, if a person or a strategy decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Choice>,
    /// ISO 8601, UTC.
    pub recorded_at: String,
    /// ISO 8601, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<String>,
}

/// Body of `POST /api/sync/conflicts/{id}/resolve`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolve {
    /// Whose values.
    pub choice: Choice,
    /// With `merged`, the columns to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Columns>,
    /// With `mine` or `theirs`: later conflicts of this table end so as well.
    #[serde(default)]
    pub remember: bool,
}

/// Answer of `POST /api/sync/conflicts/{id}/resolve`, wrapped in `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// As it is now: still `open` if what was to be written met another change, or was refused.
    pub conflict: Conflict,
    /// What became of the write, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<OpResult>,
    /// The stream reaches it once the row is on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_checkpoint: Option<WriteCheckpointId>,
}

/// How many conflicts of a kind a user has; the history has an end, so old ones are not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictCount {
    /// The table, as devices name it.
    pub table: String,
    /// `refused`, `conflict`, `merged` or `applied`.
    pub outcome: Outcome,
    /// How far they are.
    pub status: ConflictStatus,
    /// How they ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Choice>,
    /// How many.
    pub count: u64,
}

/// Strategies that a user may choose for a table whose rule says `conflict: manual`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreferredStrategy {
    /// What the device wants.
    ClientWins,
    /// What the row has.
    ServerWins,
    /// Column by column what only one of them changed; else what the row has.
    MergeFields,
}

/// Body of `POST /api/sync/conflicts/preferences`, and what `GET` of it lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictPreference {
    /// The table, as the rules name it.
    pub table: String,
    /// `null`: ask the user again.
    #[serde(default)]
    pub strategy: Option<PreferredStrategy>,
}
