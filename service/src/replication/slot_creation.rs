//! Creating the slot, which waits for every transaction that runs then. However long that takes is no error: status and
//! log say what is waited for, and a person decides.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client;

use crate::{
    lsn::Lsn,
    postgres::{PgError, blocker::blocker_of, walsender::WalSender},
    replication::{
        replicator::{Replicator, within_deadline},
        status::Phase,
    },
};

/// How often the source is asked what holds the slot up. The question also shows that the session which waits is still
/// there: it may wait for ever on a connection that died.
const ASK_INTERVAL: Duration = Duration::from_secs(3);
/// How often the log repeats what is waited for.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

impl Replicator {
    /// Creates the slot and returns where it begins. Ends when the slot is there, the source fails, or it is dropped.
    pub(super) async fn wait_for_slot(
        &self,
        client: &Client,
        walsender: &mut WalSender,
        slot: &str,
        failover: bool,
    ) -> Result<Lsn, PgError> {
        let pid = walsender.backend_pid().await?;
        self.progress.set_phase(Phase::CreatingSlot(None));
        tokio::select! {
            created = walsender.create_slot(slot, failover) => created,
            error = self.watch_creation(client, pid) => Err(error),
        }
    }

    /// Says what the session `pid` waits for. Returns what went wrong.
    async fn watch_creation(&self, client: &Client, pid: i32) -> PgError {
        let mut ticks = interval(ASK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Most slots are there before the second tick.
        ticks.tick().await;
        let (mut last, mut logged_at) = (None, Instant::now());
        loop {
            ticks.tick().await;
            let blocker = match within_deadline(blocker_of(client, pid)).await {
                Ok(blocker) => blocker,
                Err(error) => return error,
            };
            if let Some(found) = &blocker {
                let is_new = last.as_ref().is_none_or(|last| !found.is_same_as(last));
                if is_new || logged_at.elapsed() > LOG_INTERVAL {
                    logged_at = Instant::now();
                    tracing::warn!("the replication slot can only begin later: waiting for {found}");
                }
                last.clone_from(&blocker);
            }
            self.progress.set_phase(Phase::CreatingSlot(blocker));
        }
    }
}
