//! Replication slots, as SQL shows and changes them.

use std::collections::HashMap;

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Row};

use crate::{
    lsn::Lsn,
    postgres::{connect::APPLICATION_NAME, error::PgError},
};

/// How long a terminated walsender may take to let go of its slot.
const RELEASE_DEADLINE: Duration = Duration::from_secs(10);
const RELEASE_POLL: Duration = Duration::from_millis(50);

/// SQL for why a slot of `pg_replication_slots`, called `s`, was invalidated; null if it was not.
///
/// Servers before 17 do not know the reason. Of those, an invalidated slot was seen to be called `unreserved` again while
/// a process held it; but its restart position does not come back.
pub const INVALIDATION_REASON: &str = "coalesce(to_jsonb(s) ->> 'invalidation_reason',
    CASE WHEN s.wal_status = 'lost' OR s.restart_lsn IS NULL AND s.confirmed_flush_lsn IS NOT NULL
         THEN 'wal_removed' END)";

/// A slot, and in which state it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Why it can deliver nothing, if it cannot.
    pub fault: Option<SlotFault>,
    /// Whether it is kept on standbys; `None` where the server does not know of that.
    pub failover: Option<bool>,
    /// The last position it was told to be durable.
    pub confirmed: Option<Lsn>,
    /// The server process that streams from it now.
    pub active_pid: Option<i32>,
    /// How that process's client called itself.
    pub active_application: Option<String>,
}

/// Why a slot is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotFault {
    /// Postgres took away what it needs, for the reason given: `wal_removed`, `rows_removed`, `wal_level_insufficient`,
    /// `idle_timeout`, or another one of a later release.
    Invalidated(String),
    /// It is of another database or kind.
    Foreign,
}

/// Looks a slot up.
///
/// # Errors
/// [`PgError`].
pub async fn slot_state(client: &Client, slot: &str) -> Result<Option<SlotState>, PgError> {
    let sql = format!(
        "
        SELECT {INVALIDATION_REASON},
               s.plugin IS DISTINCT FROM 'pgoutput' OR s.database IS DISTINCT FROM current_database(),
               s.confirmed_flush_lsn::text, s.active_pid, a.application_name, (to_jsonb(s) ->> 'failover')::boolean
          FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
         WHERE s.slot_name = $1"
    );
    let Some(row) = client.query_opt(&sql, &[&slot]).await? else {
        return Ok(None);
    };
    let (invalidated, is_foreign): (Option<String>, bool) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Some(SlotState {
        fault: if is_foreign { Some(SlotFault::Foreign) } else { invalidated.map(SlotFault::Invalidated) },
        failover: row.try_get(5)?,
        confirmed: row.try_get::<_, Option<String>>(2)?.and_then(|text| text.parse().ok()),
        active_pid: row.try_get(3)?,
        active_application: row.try_get(4)?,
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

/// WAL that is kept for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedWal {
    /// Bytes from where the slot needs it.
    pub bytes: u64,
    /// Bytes that can still be written until the slot is in danger; `None` where the server sets no bound.
    pub safe_bytes: Option<u64>,
}

/// Looks how much WAL is kept for a slot.
///
/// # Errors
/// [`PgError`].
pub async fn retained_wal(client: &Client, slot: &str) -> Result<Option<RetainedWal>, PgError> {
    let sql = "SELECT greatest(coalesce(pg_current_wal_lsn() - restart_lsn, 0), 0)::bigint, safe_wal_size
                 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let Some(row) = client.query_opt(sql, &[&slot]).await? else { return Ok(None) };
    let (bytes, safe_bytes): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Some(RetainedWal {
        bytes: bytes.unsigned_abs(),
        safe_bytes: safe_bytes.map(|safe| u64::try_from(safe).unwrap_or(0)),
    }))
}

/// The server's bound on WAL kept for a slot, in bytes; `None`: there is none.
///
/// # Errors
/// [`PgError`].
pub async fn slot_wal_max(client: &Client) -> Result<Option<u64>, PgError> {
    // In megabytes; less than nothing means no bound.
    let sql = "SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'";
    let megabytes: i64 = client.query_one(sql, &[]).await?.try_get(0)?;
    Ok(u64::try_from(megabytes).ok().map(|megabytes| megabytes << 20))
}

/// Bytes of each of these tables, with its partitions and TOAST; by object id.
///
/// # Errors
/// [`PgError`].
pub async fn sizes_of_tables(client: &Client, tables: &[u32]) -> Result<HashMap<u32, u64>, PgError> {
    let sql = "SELECT root, sum(pg_table_size(part))::bigint
                 FROM (SELECT root, root AS part FROM unnest($1::oid[]) AS root
                        UNION SELECT root, p.relid FROM unnest($1::oid[]) AS root, pg_partition_tree(root) AS p) AS parts
                WHERE pg_table_size(part) IS NOT NULL
                GROUP BY root";
    let rows = client.query(sql, &[&tables]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs()))).collect()
}

/// A slot that nobody reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleSlot {
    /// Its name.
    pub name: String,
    /// WAL that Postgres keeps for it.
    pub retained_bytes: u64,
}

/// Slots of this database whose name begins with `prefix` and which nobody reads: perhaps left by a store that was
/// deleted.
///
/// # Errors
/// [`PgError`].
pub async fn idle_slots(client: &Client, prefix: &str) -> Result<Vec<IdleSlot>, PgError> {
    let sql = "SELECT slot_name::text, greatest(coalesce(pg_current_wal_lsn() - restart_lsn, 0), 0)::bigint
                 FROM pg_catalog.pg_replication_slots
                WHERE starts_with(slot_name, $1) AND NOT active AND database = current_database() ORDER BY 1";
    let idle =
        |row: &Row| Ok(IdleSlot { name: row.try_get(0)?, retained_bytes: row.try_get::<_, i64>(1)?.unsigned_abs() });
    client.query(sql, &[&prefix]).await?.iter().map(idle).collect()
}

/// Names of slots of this database that begin with `prefix` and are read by somebody.
///
/// # Errors
/// [`PgError`].
pub async fn slots_in_use(client: &Client, prefix: &str) -> Result<Vec<String>, PgError> {
    let sql = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots
                WHERE starts_with(slot_name, $1) AND active AND database = current_database() ORDER BY 1";
    client.query(sql, &[&prefix]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
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
