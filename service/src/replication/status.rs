//! How replication is doing, for the status page, the probes and progress bars.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    lsn::Lsn,
    postgres::blocker::Blocker,
    replication::{
        copy_status::{self, CopyStatus},
        discontinuity::Discontinuity,
        error::ReplicationError,
        wal_budget::SlotWal,
    },
};

/// What replication does at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Phase {
    /// Reaching the source and deciding what to do; also waiting to try again.
    #[default]
    Connecting,
    /// Waiting until the slot is there; for the end of this transaction, as far as is known.
    CreatingSlot(Option<Blocker>),
    /// Copying tables, while the stream is followed.
    Snapshot,
    /// Following the stream.
    Streaming,
}

/// How far rules that are being built are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildStatus {
    /// Number of the deployment.
    pub deployment: u64,
    /// Stored rows that were evaluated.
    pub rows_done: u64,
    /// Rows the source believes there are to be evaluated; may be far off.
    pub rows_estimated: u64,
    /// Tables whose rows were not all evaluated.
    pub tables_left: usize,
}

impl RebuildStatus {
    /// Rows still to be evaluated, as far as can be told; at least one.
    pub fn rows_left(&self) -> u64 {
        self.rows_estimated.saturating_sub(self.rows_done).max(1)
    }
}

/// One moment of replication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusSnapshot {
    /// What it does.
    pub phase: Phase,
    /// Tables that are not copied yet, in the order of the work.
    pub copies: Vec<CopyStatus>,
    /// Rules that are being built, if there are any.
    pub rebuild: Option<RebuildStatus>,
    /// Code and message of what went wrong last; `None` once the stream runs again.
    pub last_error: Option<(&'static str, String)>,
    /// Code of the error, while nothing can be stored because the disk is full.
    pub full_disk: Option<&'static str>,
    /// Code and reason of the last time that all tables had to be compared, since the service was started.
    pub last_comparison: Option<(&'static str, String)>,
    /// The slot's name, once there is one.
    pub slot: Option<String>,
    /// WAL that the source keeps for the slot, once it was asked.
    pub slot_wal: Option<SlotWal>,
    /// Everything before is durable here.
    pub resume: Lsn,
    /// Where the source's WAL ended when it was last heard of.
    pub source_head: Lsn,
    /// When something was last received from the source, be it a keepalive.
    pub last_message: Option<SystemTime>,
    /// When a checkpoint last became visible, since the service was started.
    pub last_checkpoint: Option<SystemTime>,
    /// How long the newest commit took from the source until it was stored here.
    pub delay: Option<Duration>,
    /// From when on the next checkpoint is due: when the last one became visible, or the stream was opened after that.
    pub fresh_at: Option<Instant>,
}

impl StatusSnapshot {
    /// WAL that is not durable here yet.
    pub fn lag_bytes(&self) -> u64 {
        self.source_head.bytes_since(self.resume)
    }

    /// The copy that runs.
    pub fn current_copy(&self) -> Option<&CopyStatus> {
        copy_status::current(&self.copies)
    }
}

/// The shared status: written by replication, read by whoever wants to know.
#[derive(Debug, Default)]
pub struct ReplicationStatus {
    /// Held for a copy or an assignment, never across anything that waits.
    current: Mutex<StatusSnapshot>,
}

impl ReplicationStatus {
    /// The status of this moment.
    pub fn snapshot(&self) -> StatusSnapshot {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut StatusSnapshot)) {
        change(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.update(|status| {
            if phase == Phase::Streaming {
                status.last_error = None;
            }
            status.phase = phase;
        });
    }

    pub(super) fn rebuilds(&self, rebuild: Option<RebuildStatus>) {
        self.update(|status| status.rebuild = rebuild);
    }

    pub(super) fn compares(&self, reason: &Discontinuity) {
        self.update(|status| status.last_comparison = Some((reason.code(), reason.to_string())));
    }

    /// A commit of the source is stored, so long after it was made.
    pub(super) fn stored_after(&self, delay: Duration) {
        self.update(|status| status.delay = Some(delay));
    }

    /// The stream is open: something new may come from now on.
    pub(super) fn opened(&self) {
        self.update(|status| status.fresh_at = Some(Instant::now()));
    }

    /// Something could be stored.
    pub(super) fn stored(&self) {
        self.update(|status| status.full_disk = None);
    }

    /// A checkpoint became visible.
    pub(super) fn published(&self) {
        self.update(|status| {
            status.last_checkpoint = Some(SystemTime::now());
            status.fresh_at = Some(Instant::now());
        });
    }

    pub(super) fn set_slot(&self, slot: &str) {
        self.update(|status| status.slot = Some(slot.to_owned()));
    }

    /// A table's copy goes on.
    pub(super) fn copying(&self, copy: &CopyStatus) {
        self.update(|status| {
            status.last_error = None;
            status.phase = Phase::Snapshot;
            if let Some(known) = status.copies.iter_mut().find(|known| known.table == copy.table) {
                known.clone_from(copy);
            }
        });
    }

    /// These are to be copied, in this order; with each whether all pages are read.
    pub(super) fn tables_to_copy(&self, tables: impl Iterator<Item = (String, bool)>) {
        self.update(|status| copy_status::follow(&mut status.copies, tables));
    }

    /// So large is a table of which nothing is copied yet.
    pub(super) fn set_copy_size(&self, table: &str, bytes: u64) {
        self.update(|status| {
            if let Some(copy) = status.copies.iter_mut().find(|copy| copy.table == table && copy.bytes_total == 0) {
                copy.bytes_total = bytes;
            }
        });
    }

    pub(super) fn set_slot_wal(&self, wal: SlotWal) {
        self.update(|status| status.slot_wal = Some(wal));
    }

    pub(super) fn set_resume(&self, resume: Lsn) {
        self.update(|status| status.resume = resume);
    }

    /// The source spoke, and its WAL reaches at least to `head`.
    pub(super) fn heard(&self, head: Lsn) {
        self.update(|status| {
            status.source_head = status.source_head.max(head);
            status.last_message = Some(SystemTime::now());
        });
    }

    /// The source was asked where its WAL ends, which says nothing about the stream.
    pub(super) fn saw_head(&self, head: Lsn) {
        self.update(|status| status.source_head = status.source_head.max(head));
    }

    /// The source may be another one now: what was known of its WAL says nothing.
    pub(super) fn forget_source(&self) {
        self.update(|status| (status.source_head, status.resume) = (Lsn::ZERO, Lsn::ZERO));
    }

    pub(super) fn failed(&self, error: &ReplicationError) {
        self.update(|status| {
            status.phase = Phase::Connecting;
            status.last_error = Some((error.code(), error.to_string()));
            if error.is_full_disk() {
                status.full_disk = Some(error.code());
            }
        });
    }
}
