//! What the stream's thread works on, and how it stores what it has done.

use super::{
    apply::{Applier, PartSize},
    error::ReplicationError,
    relations::Relations,
    replicator::Replicator,
    state::ReplicationState,
};
use crate::fault_point::fault_point;

/// What is too large for one commit is stored in parts of about this size.
pub(super) const PART: PartSize = PartSize { bytes: 8 * 1024 * 1024, rows: 20_000 };

/// The follower's parts.
pub(super) struct Work<'w, 'r> {
    pub(super) replicator: &'r Replicator,
    pub(super) relations: &'w mut Relations<'r>,
    pub(super) state: &'w mut ReplicationState,
}

impl<'r> Work<'_, 'r> {
    /// Commits what an applier holds, together with the state and with all that it means for rows that joined the changed
    /// ones. If that is too much for one commit, clients see nothing before the last.
    pub(super) fn store(&mut self, mut applier: Applier<'r>) -> Result<(), ReplicationError> {
        loop {
            applier.settle(self.relations, &mut self.state.unsettled, PART)?;
            self.replicator.report(&applier.take_errors());
            let mut batch = applier.finish();
            batch.replication_state = Some(self.state.to_bytes());
            batch.visible_at = self.state.visible_at();
            self.replicator.commit(batch)?;
            if self.state.unsettled.is_empty() {
                return Ok(());
            }
            fault_point("settle.after-part");
            applier = Applier::new(self.replicator.store.as_ref());
        }
    }

    /// Goes on with what was being stored when the last run ended.
    pub(super) fn store_rest(&mut self) -> Result<(), ReplicationError> {
        if self.state.unsettled.is_empty() {
            return Ok(());
        }
        self.store(Applier::new(self.replicator.store.as_ref()))
    }
}
