//! Why replication stopped, and what to do about it.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    postgres::{PgError, preflight::SetupProblem},
    replication::discontinuity::Discontinuity,
    storage::StorageError,
};

/// Why replication stopped for a while, or for good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicationError {
    /// The source cannot be reached or answered with an error.
    #[error(transparent)]
    Postgres(#[from] PgError),
    /// The source is not set up for replication.
    #[error("the source is not ready: {0}")]
    Setup(SetupProblem),
    /// The bucket store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What replication stored about itself cannot be read.
    #[error("the replication state in the bucket store cannot be read; tables will be copied again")]
    State(#[source] serde_json::Error),
    /// A table is not what it was when the catalog was last looked at; it is looked at again.
    #[error("{table}: {change}; looking at the source's tables again")]
    SchemaChanged {
        /// Schema and name.
        table: String,
        /// What changed.
        change: &'static str,
    },
    /// An update left values out as unchanged, but there is no stored row to take them from.
    #[error("{table}: a change refers to a row that was never copied; tables will be compared with the source")]
    RowMissing {
        /// Schema and name.
        table: String,
    },
    /// A row has another number of values than its table has columns.
    #[error("{table}: a row does not have the columns of its table")]
    RowShape {
        /// Schema and name.
        table: String,
    },
    /// A transaction of which parts were stored was not sent again.
    #[error("a transaction that was half applied did not come again; tables will be compared with the source")]
    TransactionLost,
    /// A large transaction could not be kept until its end.
    #[error("a large transaction cannot be kept in {} until it ends: free space there, or check the disk", .folder.display())]
    Spool {
        /// Where.
        folder: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The slot cannot be streamed from.
    #[error(transparent)]
    Discontinuity(#[from] Discontinuity),
    /// Part of the WAL is of a time when a publication was not there: Postgres does not stream it.
    #[error("a publication was missing for a while; tables will be compared with the source")]
    PublicationGap(#[source] PgError),
    /// Stored rows were found damaged a second time within a short time.
    #[error(
        "stored rows are damaged again, soon after others were: check the disk; their tables are copied again in \
         {} minutes", .wait.as_secs().div_ceil(60)
    )]
    DamagedAgain {
        /// How long to wait.
        wait: Duration,
    },
    /// Rows depend on each other through the rules in a circle.
    #[error("the rules make rows depend on each other without end: remove the circle of subqueries between tables")]
    EndlessLookups,
    /// A worker thread ended without a result: a bug.
    #[error("a replication worker failed unexpectedly; please report this with the log")]
    Worker,
}

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Try again, soon at first.
    Retry,
    /// Try again now and then: a person has to change something first.
    RetrySlowly,
    /// Copy all tables again and compare them with what is stored.
    Compare,
    /// Forget what is stored and copy all tables.
    StartOver,
    /// Give up: a store whose disk failed must not be written to again by this process.
    Stop,
}

impl ReplicationError {
    /// Gives an error that ended an open stream its own kind. The slot was there, so what Postgres does not find is a
    /// publication: it looks for it as of the time of each change, and would end there every time.
    pub(super) fn in_stream(self) -> Self {
        match self {
            Self::Postgres(error) if error.sqlstate() == Some("42704") => Self::PublicationGap(error),
            other => other,
        }
    }

    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Postgres(error) => error.code(),
            Self::Setup(problem) => problem.code(),
            Self::Storage(error) => error.code(),
            Self::Discontinuity(reason) => reason.code(),
            Self::State(_) => "REPL-0101",
            Self::SchemaChanged { .. } => "REPL-0102",
            Self::RowMissing { .. } => "REPL-0103",
            Self::RowShape { .. } => "REPL-0104",
            Self::EndlessLookups => "REPL-0105",
            Self::Worker => "REPL-0106",
            Self::TransactionLost => "REPL-0107",
            Self::Spool { .. } => "REPL-0108",
            Self::PublicationGap(_) => "REPL-0109",
            Self::DamagedAgain { .. } => "REPL-0110",
        }
    }

    /// Whether it is for want of space under `data_dir`.
    pub(super) fn is_full_disk(&self) -> bool {
        match self {
            Self::Storage(error) => matches!(error, StorageError::Full),
            Self::Spool { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    pub(super) fn recovery(&self) -> Recovery {
        match self {
            Self::Postgres(error) if error.needs_a_person() => Recovery::RetrySlowly,
            // What is damaged is seen to before all else.
            Self::Storage(StorageError::RowsDamaged { .. }) | Self::Postgres(_) | Self::SchemaChanged { .. } => {
                Recovery::Retry
            }
            // On a full disk nothing of the commit is there, and what it was made of comes again.
            Self::Storage(StorageError::Full)
            | Self::Setup(_)
            | Self::EndlessLookups
            | Self::Spool { .. }
            | Self::DamagedAgain { .. } => Recovery::RetrySlowly,
            Self::State(_) => Recovery::StartOver,
            Self::RowMissing { .. }
            | Self::RowShape { .. }
            | Self::TransactionLost
            | Self::PublicationGap(_)
            | Self::Discontinuity(_) => Recovery::Compare,
            Self::Storage(_) | Self::Worker => Recovery::Stop,
        }
    }
}
