//! Streams the app asked for, and until when it wants them.

use std::{collections::BTreeMap, time::Duration};

use kairos_sync_protocol::request::StreamSubscription;
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use super::StoreError;

/// Asks for a stream while `held`, and for `ttl` after it was last held. True where the service does not know of it yet.
pub(crate) fn hold(tx: &Connection, subscription: &StreamSubscription, ttl: Duration) -> Result<bool, StoreError> {
    let is_new = !is_wanted(tx, subscription)?;
    tx.prepare_cached(
        "INSERT INTO kairos_subscription (stream, parameters, priority, ttl, holders, expires_at)
         VALUES (?1, ?2, ?3, ?4, 1, NULL)
         ON CONFLICT (stream, parameters) DO UPDATE
         SET priority = excluded.priority, ttl = max(ttl, excluded.ttl), holders = holders + 1, expires_at = NULL",
    )?
    .execute(params![
        subscription.stream,
        parameters(subscription.parameters.as_ref()),
        subscription.override_priority,
        i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)
    ])?;
    Ok(is_new)
}

/// One holder less; without any the time runs.
pub(crate) fn release(tx: &Connection, stream: &str, of: Option<&Map<String, Value>>) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE kairos_subscription
         SET holders = max(holders - 1, 0), expires_at = CASE WHEN holders <= 1 THEN unixepoch() + ttl END
         WHERE stream = ?1 AND parameters = ?2",
    )?
    .execute(params![stream, parameters(of)])?;
    Ok(())
}

/// Nobody holds anything when the app starts: what was held then is wanted for its time from now on.
pub(super) fn resume(tx: &Connection) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE kairos_subscription SET holders = 0, expires_at = unixepoch() + ttl WHERE expires_at IS NULL",
        [],
    )?;
    Ok(())
}

/// Those wanted now, in the order of their names. Forgets the others.
pub(crate) fn wanted(tx: &Connection) -> Result<Vec<StreamSubscription>, StoreError> {
    tx.execute("DELETE FROM kairos_subscription WHERE expires_at <= unixepoch()", [])?;
    let sql = "SELECT stream, parameters, priority FROM kairos_subscription ORDER BY stream, parameters";
    let mut statement = tx.prepare_cached(sql)?;
    let subscriptions = statement.query_map([], |row| {
        let parameters = serde_json::from_str(row.get_ref(1)?.as_str()?).unwrap_or_default();
        Ok(StreamSubscription { stream: row.get(0)?, parameters, override_priority: row.get(2)? })
    })?;
    Ok(subscriptions.collect::<Result<_, _>>()?)
}

/// A checkpoint with the rows of these is visible. True where that is new of one of them.
pub(crate) fn note_synced(tx: &Connection, subscriptions: &[StreamSubscription]) -> Result<bool, StoreError> {
    let mut statement = tx.prepare_cached(
        "UPDATE kairos_subscription SET is_synced = 1 WHERE stream = ?1 AND parameters = ?2 AND NOT is_synced",
    )?;
    let mut is_new = false;
    for subscription in subscriptions {
        is_new |= statement.execute(params![subscription.stream, parameters(subscription.parameters.as_ref())])? > 0;
    }
    Ok(is_new)
}

/// Whether a checkpoint with its rows was visible since it is wanted.
pub(crate) fn is_synced(connection: &Connection, of: &StreamSubscription) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM kairos_subscription WHERE stream = ?1 AND parameters = ?2 AND is_synced)";
    let key = params![of.stream, parameters(of.parameters.as_ref())];
    Ok(connection.prepare_cached(sql)?.query_row(key, |row| row.get(0))?)
}

fn is_wanted(tx: &Connection, subscription: &StreamSubscription) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM kairos_subscription WHERE stream = ?1 AND parameters = ?2
               AND priority IS ?3 AND (expires_at IS NULL OR expires_at > unixepoch()))";
    let key =
        params![subscription.stream, parameters(subscription.parameters.as_ref()), subscription.override_priority];
    Ok(tx.prepare_cached(sql)?.query_row(key, |row| row.get(0))?)
}

/// Sorted by name, so that the same parameters are the same subscription.
fn parameters(of: Option<&Map<String, Value>>) -> String {
    let sorted = of.map(|of| of.iter().collect::<BTreeMap<_, _>>());
    json!(sorted).to_string()
}
