//! How far the copy of a table is, for status, metrics and log; and how fast it may go.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::super::{
    copy_status::{CopyStage, CopyStatus},
    replicator::Replicator,
};
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
    /// Sessions that read rows just now.
    sessions_reading: usize,
    /// Sessions that wait for the stream, and so do not read.
    sessions_waiting: usize,
    logged_at: Instant,
}

impl<'r> Progress<'r> {
    /// Of the pages of a table.
    pub(super) fn of_pages(replicator: &'r Replicator, table: &Table, byte_count: u64, bytes_left: u64) -> Self {
        let status = CopyStatus {
            table: format!("{}.{}", table.schema, table.name),
            stage: CopyStage::Copying,
            rows_done: 0,
            rows_estimated: table.rows_estimated,
            bytes_done: byte_count - bytes_left,
            bytes_total: byte_count,
            seconds_left: None,
        };
        tracing::info!(table = status.table, bytes = bytes_left, "copying a table");
        Self::new(replicator, status, bytes_left)
    }

    /// Of single rows, after all pages.
    pub(super) fn of_rows(replicator: &'r Replicator, table: &Table) -> Self {
        let table = format!("{}.{}", table.schema, table.name);
        let known = replicator.progress.snapshot().copies.into_iter().find(|copy| copy.table == table);
        let status = CopyStatus { table, stage: CopyStage::Finishing, ..known.unwrap_or_default() };
        Self::new(replicator, status, 0)
    }

    fn new(replicator: &'r Replicator, status: CopyStatus, bytes_left_at_first: u64) -> Self {
        replicator.progress.copying(&status);
        let started = Instant::now();
        let state = State {
            status,
            bytes_left_at_first,
            bytes_read: 0,
            sessions_reading: 0,
            sessions_waiting: 0,
            logged_at: started,
        };
        Self { replicator, started, state: Mutex::new(state) }
    }

    /// A session begins to read; it ends with [`Self::pauses`].
    pub(super) fn reads(&self) {
        self.update_sessions(|state| state.sessions_reading += 1);
    }

    /// A session reads no more for now.
    pub(super) fn pauses(&self) {
        self.update_sessions(|state| state.sessions_reading -= 1);
    }

    /// A session waits until the stream has passed its snapshot; it ends with [`Self::has_passed`].
    pub(super) fn waits(&self) {
        self.update_sessions(|state| state.sessions_waiting += 1);
    }

    /// A session waits no more.
    pub(super) fn has_passed(&self) {
        self.update_sessions(|state| state.sessions_waiting -= 1);
    }

    fn update_sessions(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        if state.status.stage != CopyStage::Finishing {
            let all_wait = state.sessions_waiting > 0 && state.sessions_reading == 0;
            state.status.stage = if all_wait { CopyStage::WaitingForStream } else { CopyStage::Copying };
            self.replicator.progress.copying(&state.status);
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
        state.status.seconds_left = seconds_left(self.started.elapsed(), done_now, left);
        self.replicator.progress.copying(&state.status);
        if state.logged_at.elapsed() >= LOG_INTERVAL {
            state.logged_at = Instant::now();
            let CopyStatus { table, rows_done, rows_estimated, bytes_done, bytes_total, seconds_left, .. } =
                &state.status;
            tracing::info!(table, rows_done, rows_estimated, bytes_done, bytes_total, seconds_left, "copying");
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At the speed so far: `bytes_done` took `elapsed`.
fn seconds_left(elapsed: Duration, bytes_done: u64, bytes_left: u64) -> Option<u64> {
    let left = elapsed.as_millis().checked_mul(u128::from(bytes_left))? / u128::from(bytes_done.max(1));
    u64::try_from(left / 1_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_was_done() {
        assert_eq!(seconds_left(Duration::from_secs(2), 100, 300), Some(6));
        assert_eq!(seconds_left(Duration::from_secs(2), 100, 0), Some(0));
        assert_eq!(seconds_left(Duration::MAX, 0, u64::MAX), None, "nothing can be said");
    }
}
