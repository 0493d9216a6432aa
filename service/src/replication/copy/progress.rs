//! How far the copy of a table is, for status, metrics and log; and how fast it may go.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::super::{replicator::Replicator, status::CopyStatus};
use crate::postgres::catalog::Table;

/// How often the log says how far a long copy is.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// One table's copy.
pub(super) struct Progress<'r> {
    replicator: &'r Replicator,
    started: Instant,
    /// Held for an update, never across anything that waits.
    state: Mutex<State>,
}

struct State {
    status: CopyStatus,
    /// Bytes that were left when it began or went on.
    bytes_left_at_first: u64,
    bytes_read: usize,
    logged_at: Instant,
}

impl<'r> Progress<'r> {
    /// `tables_left` counts this one.
    pub(super) fn new(
        replicator: &'r Replicator,
        table: &Table,
        byte_count: u64,
        bytes_left: u64,
        tables_left: usize,
    ) -> Self {
        let status = CopyStatus {
            table: format!("{}.{}", table.schema, table.name),
            tables_left,
            rows_done: 0,
            rows_estimated: table.rows_estimated,
            bytes_done: byte_count - bytes_left,
            bytes_total: byte_count,
            remaining: None,
        };
        tracing::info!(table = status.table, bytes = bytes_left, "copying a table");
        replicator.progress.copying(&status);
        let now = Instant::now();
        Self {
            replicator,
            started: now,
            state: Mutex::new(State { status, bytes_left_at_first: bytes_left, bytes_read: 0, logged_at: now }),
        }
    }

    /// Rows were read. Waits as long as the configured speed wants.
    pub(super) async fn rows(&self, row_count: usize, byte_count: usize) {
        self.replicator.metrics.rows_replicated.inc_by(row_count as u64);
        self.replicator.metrics.bytes_replicated.inc_by(byte_count as u64);
        let bytes_read = {
            let mut state = self.state();
            state.status.rows_done += row_count as u64;
            state.bytes_read += byte_count;
            self.replicator.progress.copying(&state.status);
            state.bytes_read
        };
        if let Some(speed) = self.replicator.source.snapshot.bytes_per_second {
            let due = Duration::from_millis(bytes_read as u64 * 1_000 / speed.get());
            sleep(due.saturating_sub(self.started.elapsed())).await;
        }
    }

    /// Pages were read, and their rows are durable.
    pub(super) fn chunk_done(&self, byte_count: u64) {
        let mut state = self.state();
        state.status.bytes_done += byte_count;
        let left = state.status.bytes_total.saturating_sub(state.status.bytes_done);
        let done_now = state.bytes_left_at_first.saturating_sub(left);
        state.status.remaining = remaining(self.started.elapsed(), done_now, left);
        self.replicator.progress.copying(&state.status);
        self.replicator.metrics.copy_bytes_left.set(i64::try_from(left).unwrap_or(i64::MAX));
        if state.logged_at.elapsed() >= LOG_INTERVAL {
            state.logged_at = Instant::now();
            let CopyStatus { table, rows_done, rows_estimated, bytes_done, bytes_total, remaining, .. } = &state.status;
            let seconds_left = remaining.map(|left| left.as_secs());
            tracing::info!(table, rows_done, rows_estimated, bytes_done, bytes_total, seconds_left, "copying");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At the speed so far: `bytes_done` took `elapsed`.
fn remaining(elapsed: Duration, bytes_done: u64, bytes_left: u64) -> Option<Duration> {
    let left = elapsed.as_millis().checked_mul(u128::from(bytes_left))? / u128::from(bytes_done.max(1));
    Some(Duration::from_millis(u64::try_from(left).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_was_done() {
        let seconds = Duration::from_secs;
        assert_eq!(remaining(seconds(2), 100, 300), Some(seconds(6)));
        assert_eq!(remaining(seconds(2), 100, 0), Some(seconds(0)));
        assert_eq!(remaining(Duration::MAX, 0, u64::MAX), None, "nothing can be said");
    }
}
