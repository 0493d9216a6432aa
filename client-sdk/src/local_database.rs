//! A client's database from outside: for tools that show or check it, also while a [`Client`](crate::Client) uses it.
//!
//! Blocks on SQLite; in async code call it on a blocking thread.

use std::path::Path;

use rusqlite::{
    Connection, OpenFlags,
    hooks::{AuthAction, AuthContext, Authorization},
};

use crate::store::{self, LocalBucket, LocalTable, StoreError, Verification};

/// What may be asked about a table.
const PRAGMAS: [&str; 3] = ["table_info", "table_xinfo", "table_list"];

/// A database that is only read. Whatever SQL it is given, it changes no file.
#[derive(Debug)]
pub struct LocalDatabase(Connection);

impl LocalDatabase {
    /// Opens the file of a client.
    ///
    /// # Errors
    /// It is not there, was not made by a client, or by one of another version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        // Not read-only for SQLite, which could not tidy up its log then.
        let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        store::prepare(&connection)?;
        store::check_version(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.authorizer(Some(authorize))?;
        Ok(Self(connection))
    }

    /// The buckets, by name.
    ///
    /// # Errors
    /// SQLite cannot read the file.
    pub fn buckets(&self) -> Result<Vec<LocalBucket>, StoreError> {
        store::buckets(&self.0)
    }

    /// The synced tables, by name.
    ///
    /// # Errors
    /// SQLite cannot read the file.
    pub fn tables(&self) -> Result<Vec<LocalTable>, StoreError> {
        store::tables(&self.0)
    }

    /// Recomputes the checksum of every bucket from the content of its operations, and compares every table with them.
    /// Reads everything; [`Client::repair`](crate::Client::repair) mends what it finds.
    ///
    /// # Errors
    /// SQLite cannot read the file.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        let tx = self.0.unchecked_transaction()?; // so that all of it is one state
        store::verify(&tx)
    }

    /// For queries of one's own. Everything that could change a file is refused.
    pub const fn connection(&self) -> &Connection {
        &self.0
    }
}

fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Transaction { .. } => Authorization::Allow,
        AuthAction::Pragma { pragma_name, .. } if PRAGMAS.contains(&pragma_name) => Authorization::Allow,
        _ => Authorization::Deny,
    }
}
