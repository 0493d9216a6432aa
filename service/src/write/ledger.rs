//! Answers already given, so that a repeated write has one effect and gets one answer.

use std::{collections::BTreeMap, time::Duration};

use deadpool_postgres::{Client, Transaction};
use kairos_sync_protocol::upload::{CrudEntry, Outcome};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio_postgres::Error;

use super::refusal::Refusal;

/// Rows one pruning deletes at most, so that it stays short.
const PRUNE_MAX: i64 = 10_000;

pub(super) const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock($1)";
pub(super) const READ: &str = "SELECT key, outcome, code, message FROM kairos.write_ledger WHERE key = ANY ($1)";

/// What became of a write: the part of its result that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    /// Of a write that met another's, the row as that made it. Is not remembered: the ledger holds no values.
    pub(super) theirs: Option<Map<String, Value>>,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, code: None, message: None, theirs: None }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (code, message) = (Some(refusal.code.to_owned()), Some(refusal.message));
        Self { outcome: Outcome::Refused, code, message, theirs: None }
    }
}

/// Identifies a write of a client. Covers the content as well: a device restored from a backup gives an op id out
/// again, and that write is another one.
pub(super) type Key = [u8; 32];

/// The key of a write, where client and write say who they are.
pub(super) fn key(user_id: &str, client_id: Option<&str>, entry: &CrudEntry) -> Option<Key> {
    // Sorted: the order of columns in JSON means nothing.
    let data = entry.data.as_ref().map(|data| data.iter().collect::<BTreeMap<_, _>>());
    let data = serde_json::to_string(&data).expect("JSON values with text keys are always JSON");
    let id = entry.id.as_deref().unwrap_or_default();
    Some(digest(&[user_id, client_id?, entry.op_id.as_deref()?, entry.op.name(), &entry.table, id, &data]))
}

/// Lengths go first, so that no two lists of parts run together into the same bytes.
pub(super) fn digest(parts: &[&str]) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Waits until no other upload of this client runs, on any node. Repeated batches then come one after another, each
/// seeing what the one before it wrote, and a client's writes keep their order.
pub(super) async fn lock(tx: &Transaction<'_>, user_id: &str, client_id: &str) -> Result<(), Error> {
    let digest = digest(&[user_id, client_id]);
    let number = digest.iter().take(8).fold(0_i64, |number, &byte| number << 8 | i64::from(byte));
    let statement = tx.prepare_cached(LOCK).await?;
    tx.execute(&statement, &[&number]).await?;
    Ok(())
}

/// The answers given before. A statement of its own, after the lock: it sees what the upload before committed.
pub(super) async fn read(tx: &Transaction<'_>, keys: &[Key]) -> Result<Vec<(Key, Answer)>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let statement = tx.prepare_cached(READ).await?;
    let keys: Vec<&[u8]> = keys.iter().map(Key::as_slice).collect();
    let rows = tx.query(&statement, &[&keys]).await?;
    let known = rows.iter().filter_map(|row| {
        let outcome = outcome(row.get(1));
        // The table holds keys of 32 bytes only.
        let key = Key::try_from(row.get::<_, &[u8]>(0)).ok()?;
        Some((key, Answer { outcome, code: row.get(2), message: row.get(3), theirs: None }))
    });
    Ok(known.collect())
}

/// As the ledger and metrics have it.
pub(super) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "applied",
        Outcome::Merged => "merged",
        Outcome::Conflict => "conflict",
        Outcome::Duplicate => "duplicate",
        Outcome::Refused => "refused",
    }
}

/// What [`outcome_name`] names so.
pub(super) fn outcome(name: &str) -> Outcome {
    match name {
        "applied" => Outcome::Applied,
        "merged" => Outcome::Merged,
        "conflict" => Outcome::Conflict,
        "duplicate" => Outcome::Duplicate,
        _ => Outcome::Refused,
    }
}

/// Remembers answers, in the transaction of the writes themselves.
pub(super) async fn record(tx: &Transaction<'_>, answers: &[(Key, Answer)]) -> Result<(), Error> {
    let sql = "INSERT INTO kairos.write_ledger (key, outcome, code, message)
               SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[])";
    let statement = tx.prepare_cached(sql).await?;
    let keys: Vec<&[u8]> = answers.iter().map(|(key, _)| key.as_slice()).collect();
    let outcomes: Vec<&str> = answers.iter().map(|(_, answer)| outcome_name(answer.outcome)).collect();
    let codes: Vec<Option<&str>> = answers.iter().map(|(_, answer)| answer.code.as_deref()).collect();
    let messages: Vec<Option<&str>> = answers.iter().map(|(_, answer)| answer.message.as_deref()).collect();
    tx.execute(&statement, &[&keys, &outcomes, &codes, &messages]).await?;
    Ok(())
}

/// Forgets some of what is older than `remember_for`.
pub(super) async fn prune(client: &Client, remember_for: Duration) -> Result<u64, Error> {
    let sql = "DELETE FROM kairos.write_ledger WHERE key IN (
                   SELECT key FROM kairos.write_ledger WHERE recorded_at < now() - make_interval(secs => $1)
                   ORDER BY recorded_at LIMIT $2)";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&remember_for.as_secs_f64(), &PRUNE_MAX]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(json: &str) -> CrudEntry {
        serde_json::from_str(json).expect("an entry")
    }

    #[test]
    fn a_key_covers_who_and_what_but_not_the_order_of_columns() {
        let write = entry(r#"{"op":"PUT","table":"t","id":"1","op_id":"7","data":{"a":1,"b":2}}"#);
        let same = entry(r#"{"op":"PUT","type":"t","id":"1","op_id":7,"tx_id":3,"data":{"b":2,"a":1}}"#);
        let first = key("u", Some("c"), &write);
        assert!(first.is_some());
        assert_eq!(key("u", Some("c"), &same), first);
        let restored = entry(r#"{"op":"PUT","table":"t","id":"1","op_id":"7","data":{"a":1,"b":3}}"#);
        for other in [key("v", Some("c"), &write), key("u", Some("d"), &write), key("u", Some("c"), &restored)] {
            assert_ne!(other, first);
        }
        assert_ne!(key("uc", Some(""), &write), first, "parts do not run together");
    }

    #[test]
    fn a_write_that_does_not_say_who_it_is_has_no_key() {
        let write = entry(r#"{"op":"DELETE","table":"t","id":"1","op_id":"7"}"#);
        assert_eq!(key("u", None, &write), None);
        assert_eq!(key("u", Some("c"), &entry(r#"{"op":"DELETE","table":"t","id":"1"}"#)), None);
    }
}
