//! Replication slots, as SQL shows and changes them.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::{
    lsn::Lsn,
    postgres::{connect::APPLICATION_NAME, error::PgError},
};

/// How long a terminated walsender may take to let go of its slot.
const RELEASE_DEADLINE: Duration = Duration::from_secs(10);
const RELEASE_POLL: Duration = Duration::from_millis(50);

/// Whether a slot exists, and in which state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Whether it can still deliver: its WAL is there, and it belongs to this database.
    pub is_usable: bool,
    /// The last position it was told to be durable.
    pub confirmed: Option<Lsn>,
    /// The server process that streams from it now.
    pub active_pid: Option<i32>,
    /// How that process's client called itself.
    pub active_application: Option<String>,
}

/// Looks a slot up.
///
/// # Errors
/// [`PgError`].
pub async fn slot_state(client: &Client, slot: &str) -> Result<Option<SlotState>, PgError> {
    let sql =
        "SELECT coalesce(s.wal_status <> 'lost', true) AND s.plugin = 'pgoutput' AND s.database = current_database(),
                s.confirmed_flush_lsn::text, s.active_pid, a.application_name
           FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
          WHERE s.slot_name = $1";
    let Some(row) = client.query(sql, &[&slot]).await?.into_iter().next() else {
        return Ok(None);
    };
    Ok(Some(SlotState {
        is_usable: row.try_get::<_, Option<bool>>(0)?.unwrap_or(false),
        confirmed: row.try_get::<_, Option<String>>(1)?.and_then(|text| text.parse().ok()),
        active_pid: row.try_get(2)?,
        active_application: row.try_get(3)?,
    }))
}

/// Ends the walsender that still holds the slot, if it is one of ours whose connection died. Of others it is left to
/// people to decide.
///
/// # Errors
/// [`PgError`].
pub async fn release(client: &Client, slot: &str) -> Result<(), PgError> {
    let ours = APPLICATION_NAME.split('/').next().unwrap_or_default();
    let started = Instant::now();
    while let Some(SlotState { active_pid: Some(pid), active_application, .. }) = slot_state(client, slot).await? {
        let is_ours = active_application.is_some_and(|name| name.split('/').next() == Some(ours));
        if !is_ours || started.elapsed() > RELEASE_DEADLINE {
            break;
        }
        client.execute("SELECT pg_terminate_backend($1)", &[&pid]).await?;
        sleep(RELEASE_POLL).await;
    }
    Ok(())
}

/// Slots of this database whose name begins with `prefix` and which nobody reads: perhaps left by a store that was
/// deleted. Postgres keeps WAL for them.
///
/// # Errors
/// [`PgError`].
pub async fn idle_slots(client: &Client, prefix: &str) -> Result<Vec<String>, PgError> {
    let sql = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots
                WHERE starts_with(slot_name, $1) AND NOT active AND database = current_database() ORDER BY 1";
    Ok(client.query(sql, &[&prefix]).await?.iter().map(|row| row.get(0)).collect())
}

/// Drops the slot if it exists, so that the server may forget its WAL.
///
/// # Errors
/// [`PgError`]: SQLSTATE 55006 when somebody else uses it.
pub async fn drop_slot(client: &Client, slot: &str) -> Result<(), PgError> {
    release(client, slot).await?;
    let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    client.execute(sql, &[&slot]).await?;
    Ok(())
}
