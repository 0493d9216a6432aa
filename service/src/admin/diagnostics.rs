//! How source, rules and replication are.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_postgres::Client;

use super::{
    Admin,
    shape::{CONNECTION, ConnectionReport, Diagnostics, Finding, Level, ReplicationReport, RulesReport, TableReport},
    source_errors::{Sorted, sorted},
    within_deadline,
};
use crate::{
    deployment::{DeploymentsSnapshot, Refusal},
    iso8601::iso8601,
    lsn::Lsn,
    postgres::PgError,
    replication::{Phase, RowStore, StatusSnapshot},
    server::chain,
    sync::SyncError,
};

/// A source that brings nothing for so long is worth a look,
const QUIET_WARNING: Duration = Duration::from_mins(5);
/// and for so long something is broken. Both only where a heartbeat is written.
const QUIET_FATAL: Duration = Duration::from_mins(15);

/// The slot as the server sees it.
#[derive(Default)]
struct SlotWal {
    status: Option<String>,
    safe_bytes: Option<i64>,
    keep_bytes: Option<i64>,
}

impl Admin {
    /// How everything is. With `content` also the text of the rules.
    ///
    /// # Errors
    /// When the store cannot be read. What is wrong with the source is in the answer.
    pub async fn diagnostics(&self, content: bool) -> Result<Diagnostics, SyncError> {
        let status = self.status.snapshot();
        let DeploymentsSnapshot { serving, building, refusal } = self.sync.deployments().snapshot();
        let is_active = self.sync.hub().published().is_some();
        let wal = within_deadline(self.slot_wal(status.slot.as_deref())).await;
        let mut reports = Vec::new();
        for deployment in serving.iter().chain(&building) {
            let text = &deployment.rules.text;
            let looked = self.look_at_source(text).await;
            let Sorted { tables, others } = match &looked {
                Ok(report) => sorted(report, text),
                // What is known without the source.
                Err(_) => Sorted { tables: self.stored_tables().await?, others: Vec::new() },
            };
            let is_built = is_active && reports.is_empty();
            reports.push(RulesReport {
                content: content.then(|| text.clone()),
                connections: vec![replication(&status, is_built, wal.as_ref().ok(), tables)],
                errors: others,
            });
        }
        if let Some(report) = reports.first_mut() {
            report.errors.extend(replication_errors(&status, self.source.heartbeat, SystemTime::now()));
            let refused =
                refusal.map(|Refusal { code, message }| format!("other rules are refused: [{code}] {message}"));
            report.errors.extend(refused.map(|refused| Finding::new(Level::Warning, refused)));
        }
        let mut reports = reports.into_iter();
        let active_sync_rules = if is_active { reports.next() } else { None };
        let errors = wal.as_ref().err().map(|error| Finding::new(Level::Fatal, told(error)));
        let connection = ConnectionReport {
            id: CONNECTION,
            postgres_uri: format!("postgresql://{}/{}", self.source.address(), self.source.database),
            connected: wal.is_ok(),
            errors: errors.into_iter().collect(),
        };
        Ok(Diagnostics { connections: vec![connection], active_sync_rules, deploying_sync_rules: reports.next() })
    }

    /// What the server keeps for the slot, if there is one yet.
    async fn slot_wal(&self, slot: Option<&str>) -> Result<SlotWal, PgError> {
        let client = self.source.connect().await?;
        let Some(slot) = slot else { return Ok(SlotWal::default()) };
        read_slot(&client, slot).await
    }

    /// Tables as the store has them.
    async fn stored_tables(&self) -> Result<Vec<TableReport>, SyncError> {
        let plan = Arc::clone(&self.sync.deployments().serving().borrow());
        let read = self.sync.read(move |store| {
            let rows = RowStore::load(store)?;
            let report = |table: crate::replication::StoredTable<'_>| {
                let reads = plan.reads_of(&table.source_table());
                TableReport {
                    schema: table.schema().to_owned(),
                    name: table.name().to_owned(),
                    pattern: None,
                    replication_id: table.identity().to_vec(),
                    data_queries: reads.is_synced,
                    parameter_queries: reads.is_asked,
                    errors: Vec::new(),
                }
            };
            Ok(rows.map_or_else(Vec::new, |rows| rows.tables().into_iter().map(report).collect()))
        });
        read.await
    }
}

async fn read_slot(client: &Client, slot: &str) -> Result<SlotWal, PgError> {
    let sql = "
        SELECT wal_status, safe_wal_size,
               (SELECT setting::bigint << 20 FROM pg_catalog.pg_settings
                 WHERE name = 'max_slot_wal_keep_size' AND setting::bigint >= 0)
          FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let Some(row) = client.query_opt(sql, &[&slot]).await? else { return Ok(SlotWal::default()) };
    Ok(SlotWal { status: row.try_get(0)?, safe_bytes: row.try_get(1)?, keep_bytes: row.try_get(2)? })
}

fn told(error: &PgError) -> String {
    format!("[{}] {}", error.code(), chain(error))
}

fn replication(
    status: &StatusSnapshot,
    is_active: bool,
    wal: Option<&SlotWal>,
    tables: Vec<TableReport>,
) -> ReplicationReport {
    ReplicationReport {
        id: CONNECTION,
        tag: CONNECTION,
        slot_name: status.slot.clone().unwrap_or_default(),
        initial_replication_done: is_active,
        last_lsn: (status.resume > Lsn::ZERO).then(|| sortable(status.resume)),
        last_keepalive_ts: status.last_message.map(iso8601),
        last_checkpoint_ts: status.last_checkpoint.map(iso8601),
        replication_lag_bytes: Some(status.lag_bytes()),
        wal_status: wal.and_then(|wal| wal.status.clone()),
        safe_wal_size: wal.and_then(|wal| wal.safe_bytes),
        max_slot_wal_keep_size: wal.and_then(|wal| wal.keep_bytes),
        tables,
    }
}

/// `00000000/01A2B3C4`: as tools for the reference service compare them.
fn sortable(lsn: Lsn) -> String {
    let text = lsn.to_string();
    let (high, low) = text.split_once('/').unwrap_or_default();
    format!("{high:0>8}/{low:0>8}")
}

/// What is wrong with replication.
fn replication_errors(status: &StatusSnapshot, heartbeat: Option<Duration>, now: SystemTime) -> Vec<Finding> {
    let mut errors = Vec::new();
    if let Some((code, message)) = &status.last_error {
        errors.push(Finding { ts: Some(iso8601(now)), ..Finding::new(Level::Fatal, format!("[{code}] {message}")) });
    }
    if let Some((wal, budget)) = status.slot_wal.and_then(|wal| Some((wal, wal.budget?.bytes())))
        && wal.retained_bytes.saturating_mul(2) >= budget
    {
        let message = format!(
            "the slot keeps {} of {budget} bytes of WAL that may be kept: beyond that it is lost",
            wal.retained_bytes
        );
        errors.push(Finding::new(Level::Warning, message));
    }
    let quiet = status.last_checkpoint.and_then(|last| now.duration_since(last).ok());
    if let Some(quiet) =
        quiet.filter(|quiet| heartbeat.is_some() && status.phase == Phase::Streaming && *quiet > QUIET_WARNING)
    {
        let level = if quiet > QUIET_FATAL { Level::Fatal } else { Level::Warning };
        errors.push(Finding::new(level, format!("nothing was replicated for {} s", quiet.as_secs())));
    }
    errors
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::replication::{Budget, SlotWal as KeptWal};

    #[test]
    fn positions_are_written_so_that_they_sort_as_text() {
        assert_eq!(sortable("0/1A2B3C4".parse().unwrap()), "00000000/01A2B3C4");
    }

    #[test]
    fn silence_and_wal_are_told_by_how_bad_they_are() {
        let levels = |status: &StatusSnapshot, heartbeat, seconds| {
            let errors = replication_errors(status, heartbeat, UNIX_EPOCH + Duration::from_secs(seconds));
            errors.iter().map(|error| error.level).collect::<Vec<_>>()
        };
        let quiet =
            StatusSnapshot { phase: Phase::Streaming, last_checkpoint: Some(UNIX_EPOCH), ..StatusSnapshot::default() };
        let heartbeat = Some(Duration::from_mins(1));
        assert_eq!(levels(&quiet, heartbeat, 300), []);
        assert_eq!(levels(&quiet, heartbeat, 301), [Level::Warning]);
        assert_eq!(levels(&quiet, heartbeat, 901), [Level::Fatal]);
        assert_eq!(levels(&quiet, None, 901), []);
        let wal = |retained_bytes| StatusSnapshot {
            slot_wal: Some(KeptWal { retained_bytes, budget: Some(Budget::Server(100)) }),
            ..StatusSnapshot::default()
        };
        assert_eq!((levels(&wal(49), None, 0), levels(&wal(50), None, 0)), (vec![], vec![Level::Warning]));
        let failed = StatusSnapshot { last_error: Some(("PG-0102", "gone".to_owned())), ..StatusSnapshot::default() };
        assert_eq!(levels(&failed, None, 0), [Level::Fatal]);
    }
}
