//! What helps whoever looks into a sync that does not work, without a value of a row, a user or a token in it.

use serde::Serialize;

use crate::{
    client::{Client, ClientError},
    engine::Statistics,
    events::LoggedEvent,
    status::Problem,
    store,
};

/// Of one client, at one moment. Serialises to JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnostics {
    /// Of the client library.
    pub client_version: &'static str,
    /// Of SQLite.
    pub sqlite_version: &'static str,
    /// As the app shows it, such as `3 pending`.
    pub state: String,
    /// As the app shows it.
    pub problem: Option<&'static str>,
    /// Whether a stream is open.
    pub connected: bool,
    /// Local writes that wait for their upload.
    pub pending: u64,
    /// Local writes that the service did not take, by code.
    pub rejected: Vec<(String, u64)>,
    /// Seconds since 1970.
    pub last_synced_at: Option<u64>,
    /// Since the client was opened.
    pub statistics: Statistics,
    /// The app's tables.
    pub tables: Vec<TableSize>,
    /// Buckets the database has. Their names may hold ids of users, so they are only counted.
    pub bucket_count: u64,
    /// Operations kept.
    pub operation_count: u64,
    /// Of the file.
    pub database_bytes: u64,
    /// What happened last, oldest first.
    pub log: Vec<LoggedEvent>,
}

/// A table with its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableSize {
    /// Its name.
    pub name: String,
    /// Rows the app sees.
    pub rows: u64,
}

impl Client {
    /// What to attach to a report.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn diagnostics(&self) -> Result<Diagnostics, ClientError> {
        let status = self.status();
        let facts = self.read_store(store::facts).await?;
        let since_1970 = |moment: std::time::SystemTime| moment.duration_since(std::time::UNIX_EPOCH).ok();
        Ok(Diagnostics {
            client_version: env!("CARGO_PKG_VERSION"),
            sqlite_version: rusqlite::version(),
            state: status.state.label(),
            problem: status.problem.map(Problem::message),
            connected: status.connected,
            pending: status.pending,
            rejected: facts.rejected,
            last_synced_at: status.last_synced_at.and_then(since_1970).map(|since| since.as_secs()),
            statistics: self.statistics(),
            tables: facts.tables.into_iter().map(|table| TableSize { name: table.name, rows: table.rows }).collect(),
            bucket_count: facts.bucket_count,
            operation_count: facts.operation_count,
            database_bytes: facts.database_bytes,
            log: self.logged_events(),
        })
    }
}
