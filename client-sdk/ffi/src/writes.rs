//! Local writes that the service did not take.

use std::time::UNIX_EPOCH;

use kairos_client::{
    RejectedWrite,
    protocol::{
        conflict::Choice,
        upload::{CrudOp, Outcome},
    },
};
use serde_json::{Map, Value};

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum WriteKind {
    /// Wrote a whole row.
    Put,
    /// Changed columns.
    Patch,
    /// Deleted the row.
    Delete,
}

/// A write that was not taken. Columns are JSON objects.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct KairosRejectedWrite {
    /// Position in the list.
    pub id: i64,
    /// What it did.
    pub kind: WriteKind,
    /// The table.
    pub table: String,
    /// The row.
    pub row_id: String,
    /// Others changed the row. Else the service refused it.
    pub is_conflict: bool,
    /// The values before, of tables that track them.
    pub base: Option<String>,
    /// The values written.
    pub mine: Option<String>,
    /// What others made of the row.
    pub theirs: Option<String>,
    /// Stable code of the reason.
    pub code: Option<String>,
    /// The reason, for people.
    pub message: Option<String>,
    /// Seconds since 1970.
    pub rejected_at: u64,
}

/// Whose values a row ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum KairosChoice {
    /// What was written here, once more.
    Mine,
    /// What the service has.
    Theirs,
    /// Columns that come with the choice.
    Merged,
}

impl From<KairosChoice> for Choice {
    fn from(choice: KairosChoice) -> Self {
        match choice {
            KairosChoice::Mine => Self::Mine,
            KairosChoice::Theirs => Self::Theirs,
            KairosChoice::Merged => Self::Merged,
        }
    }
}

impl From<RejectedWrite> for KairosRejectedWrite {
    fn from(write: RejectedWrite) -> Self {
        let json = |columns: Option<Map<String, Value>>| columns.map(|columns| Value::Object(columns).to_string());
        Self {
            id: write.id,
            kind: match write.op {
                CrudOp::Put => WriteKind::Put,
                CrudOp::Patch => WriteKind::Patch,
                CrudOp::Delete => WriteKind::Delete,
            },
            table: write.table,
            row_id: write.row_id,
            is_conflict: write.outcome == Outcome::Conflict,
            base: json(write.base),
            mine: json(write.data),
            theirs: json(write.theirs),
            code: write.code,
            message: write.message,
            rejected_at: write.rejected_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }
}
