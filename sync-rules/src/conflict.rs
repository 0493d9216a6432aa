//! What becomes of a write to a row which others may have changed since the device saw it.

use serde::{Deserialize, Serialize};

/// Who wins, and in what. Strategies that look at what the device saw need its old values (`old`) in the upload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConflictStrategy {
    /// The write, as it arrives.
    #[default]
    ClientWins,
    /// The row, if anything the write touches is not as the device saw it.
    ServerWins,
    /// Column by column, and key by key in JSON objects: what only one side changed is taken, else the row's.
    MergeFields,
    /// Rows are only ever added.
    AppendOnly,
    /// The row, as under `ServerWins`; the write waits for a person to decide, unless its user chose a strategy.
    Manual,
    /// The later one by a column with the time of the write on the device.
    LastWriteWins {
        /// The time: a timestamp, ISO 8601 text, or an integer of milliseconds since 1970.
        column: String,
    },
    /// The row, unless its version is the one the device saw. The server counts.
    Version {
        /// An integer.
        column: String,
    },
    /// Of arrays, what was added is added and what was taken out is taken out; other columns as they arrive.
    SetUnion {
        /// Arrays, of Postgres or JSON.
        columns: Vec<String>,
    },
    /// Of numbers, the difference is added; other columns as they arrive.
    Counter {
        /// Numbers.
        columns: Vec<String>,
    },
}

impl ConflictStrategy {
    /// Columns it names.
    pub fn columns(&self) -> &[String] {
        match self {
            Self::LastWriteWins { column } | Self::Version { column } => std::slice::from_ref(column),
            Self::SetUnion { columns } | Self::Counter { columns } => columns,
            Self::ClientWins | Self::ServerWins | Self::MergeFields | Self::AppendOnly | Self::Manual => &[],
        }
    }

    /// As in the rules.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ClientWins => "client_wins",
            Self::ServerWins => "server_wins",
            Self::MergeFields => "merge_fields",
            Self::AppendOnly => "append_only",
            Self::Manual => "manual",
            Self::LastWriteWins { .. } => "lww",
            Self::Version { .. } => "version",
            Self::SetUnion { .. } => "set_union",
            Self::Counter { .. } => "counter",
        }
    }
}
