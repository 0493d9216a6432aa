//! Mends what is safe to mend.

use serde::Serialize;
use tokio_postgres::Client;

use super::check::Check;
use crate::postgres::PgError;

/// A statement that was run.
#[derive(Debug, Serialize)]
pub(super) struct Applied {
    pub(super) sql: String,
    /// What Postgres said against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<String>,
}

/// Runs what is safe and was not run before. Tells whether anything was done.
pub(super) async fn apply(client: &Client, checks: &[Check], applied: &mut Vec<Applied>) -> bool {
    let mut is_changed = false;
    for sql in checks.iter().filter(|check| check.is_safe).flat_map(|check| &check.sql) {
        if applied.iter().any(|earlier| earlier.sql == *sql) {
            continue;
        }
        let refusal = client.batch_execute(sql).await.err().map(|error| PgError::from(error).to_string());
        is_changed |= refusal.is_none();
        applied.push(Applied { sql: sql.clone(), refusal });
    }
    is_changed
}
