//! How much WAL Postgres keeps for the slot, beside how much that may be. Beyond the bound the slot is lost, or, where
//! there is none, the disk of the source fills.

use std::num::NonZeroU64;

use tokio_postgres::Client;

use crate::{
    byte_size::ByteSize,
    postgres::{
        PgError,
        slot::{RetainedWal, retained_wal, sizes_of_tables, slot_wal_max},
    },
    replication::{
        replicator::{Replicator, within_deadline},
        state::{ReplicationState, TableState},
    },
};

/// WAL kept for the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotWal {
    /// Bytes that are kept.
    pub retained_bytes: u64,
    /// Bytes that may be kept; `None` where nobody has set a bound.
    pub budget: Option<Budget>,
}

/// A bound on WAL kept for the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Of the server, `max_slot_wal_keep_size`: beyond it the slot is lost.
    Server(u64),
    /// Of our configuration, `slot_wal_budget_bytes`: beyond it nothing happens but what a full disk brings.
    Configured(u64),
}

impl Budget {
    /// The bound.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Server(bytes) | Self::Configured(bytes) => bytes,
        }
    }
}

/// How much of the budget is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Calm,
    /// More than half.
    Half,
    /// More than four fifths.
    Nearly,
}

impl SlotWal {
    fn new(found: RetainedWal, configured: Option<NonZeroU64>) -> Self {
        let of_server = found.safe_bytes.map(|safe| Budget::Server(found.bytes.saturating_add(safe)));
        let budget = of_server.or_else(|| configured.map(|bytes| Budget::Configured(bytes.get())));
        Self { retained_bytes: found.bytes, budget }
    }

    /// Tenths of the budget that are used; none where there is no budget.
    fn tenths(&self) -> u64 {
        let of = |budget: Budget| self.retained_bytes.saturating_mul(10) / budget.bytes().max(1);
        self.budget.map_or(0, of)
    }

    fn level(&self) -> Level {
        match self.tenths() {
            0..5 => Level::Calm,
            5..8 => Level::Half,
            8.. => Level::Nearly,
        }
    }
}

/// What to tell an operator.
fn warning(slot: &str, retained_bytes: u64, budget: Budget, level: Level) -> String {
    let part = if level == Level::Nearly { "four fifths" } else { "half" };
    let (setting, consequence) = match budget {
        Budget::Server(_) => (
            "max_slot_wal_keep_size allows",
            "the slot is lost and all tables are compared again; raising that setting gives time",
        ),
        Budget::Configured(_) => ("slot_wal_budget_bytes allows", "the disk of Postgres fills"),
    };
    format!(
        "Postgres keeps {} of WAL for replication slot {slot}, more than {part} of the {} that {setting}: end long \
         transactions (SELECT pid, xact_start FROM pg_stat_activity ORDER BY xact_start), and see whether this service \
         is slow; if it goes on, {consequence}",
        ByteSize(retained_bytes),
        ByteSize(budget.bytes())
    )
}

/// Remembers what was said, so that it is said once.
#[derive(Debug, Default)]
pub(super) struct BudgetAlarm {
    told: Level,
}

impl BudgetAlarm {
    /// The level, when it is to be told: it is higher than any told since the budget was last almost unused.
    fn rises(&mut self, wal: &SlotWal) -> Option<Level> {
        let level = wal.level();
        // WAL is let go of in segments, so what is kept swings: around a threshold it is told of only once.
        if wal.tenths() < 3 {
            self.told = Level::Calm;
        }
        (level > self.told).then(|| {
            self.told = level;
            level
        })
    }
}

impl Replicator {
    /// Looks how much WAL is kept for the slot: for status and metrics, and for the log when it becomes dangerous.
    pub(super) async fn watch_budget(
        &self,
        client: &Client,
        slot: &str,
        alarm: &mut BudgetAlarm,
    ) -> Result<(), PgError> {
        // A slot that is not there is met by the stream.
        let Some(found) = within_deadline(retained_wal(client, slot)).await? else { return Ok(()) };
        let wal = SlotWal::new(found, self.source.slot_wal_budget);
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.slot_retained_bytes.set(gauge(wal.retained_bytes));
        self.metrics.slot_budget_bytes.set(gauge(wal.budget.map_or(0, Budget::bytes)));
        self.progress.set_slot_wal(wal);
        if let (Some(level), Some(budget)) = (alarm.rises(&wal), wal.budget) {
            tracing::warn!("{}", warning(slot, wal.retained_bytes, budget, level));
        }
        Ok(())
    }

    /// Says before a copy begins how large it is, and whether the server's bound may be too small for it.
    pub(super) async fn foresee_copy(&self, client: &Client, state: &ReplicationState) -> Result<(), PgError> {
        self.progress.tables_to_copy(state.tables.iter().filter_map(TableState::copy_progress));
        let is_to_be_read = |table: &&TableState| table.copy.as_ref().is_some_and(|copy| !copy.is_read);
        let tables: Vec<_> = state.tables.iter().filter(is_to_be_read).collect();
        if tables.is_empty() {
            return Ok(());
        }
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        let ask = async { Ok((sizes_of_tables(client, &oids).await?, slot_wal_max(client).await?)) };
        let (sizes, keep) = within_deadline(ask).await?;
        for table in &tables {
            self.progress.set_copy_size(&table.full_name(), sizes.get(&table.oid).copied().unwrap_or_default());
        }
        let bytes = sizes.values().sum();
        tracing::info!(tables = tables.len(), bytes, "tables are to be copied");
        if let Some(keep) = keep.filter(|keep| *keep < bytes) {
            tracing::warn!(
                "max_slot_wal_keep_size is {}, less than the {} that are to be copied: should the source write that much \
                 while the stream falls behind the copy, the slot is lost and the copy begins again; raise the setting, \
                 at least for the time of the copy",
                ByteSize(keep),
                ByteSize(bytes)
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: u64, safe: Option<u64>, configured: Option<u64>) -> SlotWal {
        SlotWal::new(RetainedWal { bytes, safe_bytes: safe }, configured.and_then(NonZeroU64::new))
    }

    #[test]
    fn the_bound_of_the_server_counts_before_ours() {
        assert_eq!(kept(30, Some(70), Some(5)).budget, Some(Budget::Server(100)));
        assert_eq!(kept(30, None, Some(40)).budget, Some(Budget::Configured(40)));
        assert_eq!(kept(30, None, None).budget, None);
    }

    #[test]
    fn each_threshold_is_told_once_until_the_budget_is_almost_unused_again() {
        let mut alarm = BudgetAlarm::default();
        let told: Vec<_> = [10, 50, 49, 55, 79, 80, 99, 60, 85, 29, 51, 81, 0, 90]
            .map(|bytes| alarm.rises(&kept(bytes, Some(100 - bytes), None)))
            .into_iter()
            .enumerate()
            .filter_map(|(position, level)| Some((position, level?)))
            .collect();
        let (half, nearly) = (Level::Half, Level::Nearly);
        assert_eq!(told, [(1, half), (5, nearly), (10, half), (11, nearly), (13, nearly)]);
    }

    #[test]
    fn without_a_budget_nothing_is_told() {
        assert_eq!(BudgetAlarm::default().rises(&kept(u64::MAX, None, None)), None);
    }
}
