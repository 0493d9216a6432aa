//! What tools for the reference service ask: how the source and the rules are, and whether other rules would do.
//!
//! The answers have the shapes those tools know ([`shape`]). Findings are those of `rules check`: the same code looks at
//! the source.
//!
//! **Invariants**
//!
//! - Nothing is changed, neither here nor in the source, and every question to the source has a deadline.
//! - No password, no token and no row is in an answer.
//!
//! Start reading at [`Admin`].

mod diagnostics;
mod rules;
mod schema;
mod shape;
mod source_errors;

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

pub use self::shape::{CurrentRules, Diagnostics, RulesReport, SourceSchemas, Validation};
use crate::{
    postgres::{PgError, SourceConfig},
    replication::ReplicationStatus,
    sync::SyncContext,
};

/// For one look at the source.
const SOURCE_DEADLINE: Duration = Duration::from_secs(30);

/// Answers operators.
pub struct Admin {
    sync: Arc<SyncContext>,
    source: SourceConfig,
    status: Arc<ReplicationStatus>,
}

impl Admin {
    /// About this service and its source.
    pub fn new(sync: Arc<SyncContext>, source: SourceConfig, status: Arc<ReplicationStatus>) -> Self {
        Self { sync, source, status }
    }
}

/// Asks the source, which has so long for its answer.
async fn within_deadline<T>(asked: impl Future<Output = Result<T, PgError>>) -> Result<T, PgError> {
    let late = |_| PgError::Timeout { doing: "being examined", after: SOURCE_DEADLINE };
    timeout(SOURCE_DEADLINE, asked).await.map_err(late)?
}
