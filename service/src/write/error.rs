//! Why a whole upload failed. Nothing of it was written, and the client keeps it.

use std::time::Duration;

use deadpool_postgres::PoolError;
use tokio_postgres::{Error, error::DbError};

use crate::rate_limit::TableLimited;

/// Why nothing of an upload was written, as far as known: after a lost connection or a missed deadline it may have
/// been. Sending it again is right either way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The batch is over a limit.
    #[error("the batch has {count} {unit}, of which {max} are allowed: upload fewer writes at a time")]
    BatchTooLarge {
        /// How many there are.
        count: usize,
        /// Of what: operations or bytes.
        unit: &'static str,
        /// The limit.
        max: usize,
    },
    /// The user writes more to a table than its write rule says.
    #[error("too many writes of this user to `{}`: try again later", .0.table)]
    RateLimited(TableLimited),
    /// No connection.
    #[error("no connection to Postgres for the upload: see that it runs, and that its connections are not used up")]
    Connect(#[source] PoolError),
    /// Not done in time.
    #[error("the upload was not done within {0:?}: Postgres is slow, or the rows are locked by somebody else")]
    Deadline(Duration),
    /// The upload met other transactions again and again.
    #[error("the upload met other transactions, or schema changes, {attempts} times: try again")]
    Contention {
        /// How often it was tried.
        attempts: u32,
        /// What Postgres said last.
        #[source]
        source: Cause,
    },
    /// The write role cannot be taken.
    #[error("uploads cannot run as role `{role}`: create it and grant it to the service's login (`write.role`)")]
    Role {
        /// The configured role.
        role: String,
        /// What Postgres says.
        #[source]
        source: Cause,
    },
    /// The service's own tables cannot be used.
    #[error(
        "the tables of schema kairos cannot be used: apply the migrations of the service, and let its login use them"
    )]
    Ledger(#[source] Cause),
    /// Any other failure that is not the fault of one operation.
    #[error("Postgres could not take the upload")]
    Postgres(#[source] Cause),
}

impl UploadError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BatchTooLarge { .. } => "WRITE_BATCH_TOO_LARGE",
            Self::RateLimited(_) => "SYNC_RATE_LIMITED",
            Self::Connect(_) => "WRITE_UNAVAILABLE",
            Self::Deadline(_) => "WRITE_DEADLINE",
            Self::Contention { .. } => "WRITE_CONTENTION",
            Self::Role { .. } => "WRITE_ROLE",
            Self::Ledger(_) => "WRITE_LEDGER",
            Self::Postgres(_) => "WRITE_POSTGRES",
        }
    }

    /// Whether the same upload may succeed later, so that the client should keep it and try again.
    pub const fn is_transient(&self) -> bool {
        !matches!(self, Self::BatchTooLarge { .. })
    }
}

/// Why nothing became of a question or a decision about a conflict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConflictError {
    /// There is none.
    #[error("the user has no such conflict: it may have been decided long ago, see `GET /api/sync/conflicts`")]
    Unknown,
    /// Somebody decided before, and otherwise.
    #[error("the conflict was resolved before, with another choice")]
    Resolved,
    /// Values where none belong, or none where they do.
    #[error("`data` goes with the choice `merged`, and only with it")]
    Data,
    /// The table has no use for a preference.
    #[error("the table's write rule does not say `conflict: manual`, so there is nothing to choose")]
    NotManual,
    /// As with an upload.
    #[error(transparent)]
    Upload(#[from] UploadError),
}

impl ConflictError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "WRITE_CONFLICT_UNKNOWN",
            Self::Resolved => "WRITE_CONFLICT_RESOLVED",
            Self::Data => "WRITE_CONFLICT_DATA",
            Self::NotManual => "WRITE_NOT_MANUAL",
            Self::Upload(error) => error.code(),
        }
    }
}

/// What Postgres said, as far as it may be logged: its messages about data quote values, and details always do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        Self(error.as_db_error().map_or_else(|| error.to_string(), describe))
    }
}

fn describe(error: &DbError) -> String {
    let state = error.code().code();
    let is_about_data = ["22", "23", "44", "54", "P0"].iter().any(|class| state.starts_with(class));
    // What an app's trigger says may be about anything.
    let is_raised = error.routine() == Some("exec_stmt_raise");
    match error.constraint() {
        Some(constraint) if is_about_data => format!("constraint `{constraint}` (SQLSTATE {state})"),
        _ if is_about_data || is_raised => format!("SQLSTATE {state}"),
        _ => format!("{} (SQLSTATE {state})", error.message()),
    }
}
