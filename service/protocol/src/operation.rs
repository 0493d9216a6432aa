//! Operations: the entries of a bucket.

use serde::{Deserialize, Serialize};

use crate::{Checksum, OpId};

/// What an operation does to its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum OpKind {
    /// The full state of a row; replaces the bucket's earlier operation with the same key.
    Put,
    /// Removes the earlier operation with the same key from this bucket.
    Remove,
    /// Nothing but a checksum: an operation that compaction emptied.
    Move,
    /// Forget everything this bucket had; its checksum replaces the running sum.
    Clear,
}

/// One operation as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Ascending within a bucket.
    pub op_id: OpId,
    /// What to do.
    pub op: OpKind,
    /// Output table; absent for MOVE and CLEAR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_type: Option<String>,
    /// Output row id; absent for MOVE and CLEAR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<String>,
    /// Adds to the bucket's checksum. Clients never recompute it from the content.
    pub checksum: Checksum,
    /// Distinguishes source rows that share an output table and id; opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subkey: Option<String>,
    /// A JSON object as text, for PUT; `null` for REMOVE.
    #[serde(default)]
    pub data: Option<String>,
}
