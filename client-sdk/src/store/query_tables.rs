//! Which of the app's tables a query reads.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{
    Connection,
    hooks::{AuthAction, AuthContext, Authorization},
};

use super::{StoreError, raw::RawNames};

/// As SQLite itself says when it compiles the query.
pub(super) fn read_by(connection: &mut Connection, raw: RawNames, sql: &str) -> Result<BTreeSet<String>, StoreError> {
    let found = Arc::new(Mutex::new(BTreeSet::new()));
    let shared = Arc::clone(&found);
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        if let AuthAction::Read { table_name, .. } = context.action
            && let Some(table) = raw.app_table(table_name)
        {
            shared.lock().unwrap_or_else(PoisonError::into_inner).insert(table.to_owned());
        }
        Authorization::Allow
    }))?;
    let compiled = connection.prepare(sql).map(drop);
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    compiled?;
    Ok(std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner)))
}
