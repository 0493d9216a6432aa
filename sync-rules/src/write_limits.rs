//! How much devices may write to a table.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// Bounds of a table; without one, only those of the service hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteLimits {
    /// Bytes of all values of a row as it becomes, as Postgres prints them.
    pub row_bytes: Option<NonZeroU32>,
    /// Writes to the table in one upload.
    pub operations_per_batch: Option<NonZeroU32>,
    /// Writes to the table by one user. A minute's worth may come at once.
    pub operations_per_minute: Option<NonZeroU32>,
}
