//! The decision at the start of every attempt: go on where we were, compare everything with the source, or begin afresh.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio_postgres::Client;

use crate::{
    fault_point::fault_point,
    lsn::Lsn,
    postgres::{
        catalog::Table,
        preflight::{Inspection, inspect},
        slot::{SlotState, drop_slot, idle_slots, slot_state},
        walsender::{SystemIdentity, WalSender},
    },
    replication::{
        error::ReplicationError,
        replicator::{Remedy, Replicator, current_position, within_deadline},
        state::ReplicationState,
        stream::Start,
    },
};

/// Ready to copy or to follow.
pub(super) struct Prepared {
    /// A session for catalog, copies and heartbeat.
    pub(super) client: Client,
    /// The tables to read.
    pub(super) tables: Vec<Table>,
    /// Where we are.
    pub(super) start: Start,
}

/// What the source said about itself.
struct Found<'a> {
    system: &'a SystemIdentity,
    slot: Option<&'a SlotState>,
    inspection: &'a Inspection,
}

/// How to go on.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The slot goes on where we were.
    Resume(ReplicationState),
    /// Changes may have been missed: a new slot, and all tables are compared with what is stored.
    Compare {
        reason: &'static str,
        state: ReplicationState,
        /// Positions in the source's WAL mean something else now.
        is_other_history: bool,
    },
    /// What is stored, if anything, cannot be continued.
    StartOver {
        reason: &'static str,
        /// A slot of ours to drop; its name is used again.
        old_slot: Option<String>,
    },
}

impl Replicator {
    /// Connects, looks at the source, and settles what to continue from.
    pub(super) async fn prepare(self: &Arc<Self>) -> Result<Prepared, ReplicationError> {
        let client = self.source.connect().await?;
        let remedy = self.remedy();
        let must_start_over = remedy == Some(Remedy::StartOver);
        let stored = match self.blocking(|replicator| ReplicationState::load(replicator.store.as_ref())).await {
            // Announced when it was first met. The name of the slot is lost with it.
            Err(ReplicationError::State(_)) if must_start_over => None,
            stored => stored?,
        };
        let slot_name = stored.as_ref().map(|state| state.slot.clone());
        let tables = self.plan.source_tables();
        let catalog_seen_at = within_deadline(current_position(&client)).await?;
        let look = inspect(&client, &self.source, &tables, slot_name.as_deref());
        let inspection = refuse_problems(within_deadline(look).await?)?;
        let mut walsender = WalSender::connect(&self.source).await?;
        let system = walsender.identify_system().await?;
        let slot = match &slot_name {
            Some(name) => within_deadline(slot_state(&client, name)).await?,
            None => None,
        };
        let found = Found { system: &system, slot: slot.as_ref(), inspection: &inspection };
        let verdict = if must_start_over {
            Verdict::StartOver { reason: "what is stored cannot be read", old_slot: slot_name }
        } else {
            match judge(stored, &self.rules_fingerprint, &found) {
                Verdict::Resume(state) if remedy == Some(Remedy::Compare) => {
                    let reason = "what is stored no longer fits the source";
                    Verdict::Compare { reason, state, is_other_history: false }
                }
                verdict => verdict,
            }
        };
        let state = match verdict {
            Verdict::Resume(state) => self.resume(state, &found).await?,
            Verdict::Compare { reason, state, is_other_history } => {
                tracing::warn!("all tables will be compared with what is stored: {reason}");
                self.compare(&client, walsender, state, is_other_history, &found).await?
            }
            Verdict::StartOver { reason, old_slot } => {
                tracing::info!("all tables will be copied: {reason}");
                self.start_over(&client, walsender, old_slot, &found).await?
            }
        };
        Ok(Prepared { client, tables: inspection.tables, start: Start { state, catalog_seen_at } })
    }

    /// Goes on; tables that changed meanwhile are copied.
    async fn resume(
        self: &Arc<Self>,
        mut state: ReplicationState,
        found: &Found<'_>,
    ) -> Result<ReplicationState, ReplicationError> {
        let changes = state.follow_catalog(&found.inspection.tables);
        if changes.is_empty() {
            return Ok(state);
        }
        for (table, change) in changes {
            tracing::warn!("{table}: {change}");
        }
        let stored = state.clone();
        self.blocking(move |replicator| Ok(replicator.save(&stored)?)).await?;
        Ok(state)
    }

    /// Keeps what is stored, hidden, and creates the slot anew. Every table is read again: what is the same gives clients
    /// nothing to download.
    async fn compare(
        self: &Arc<Self>,
        client: &Client,
        walsender: WalSender,
        mut state: ReplicationState,
        is_other_history: bool,
        found: &Found<'_>,
    ) -> Result<ReplicationState, ReplicationError> {
        within_deadline(drop_slot(client, &state.slot)).await?;
        self.progress.forget_source();
        state.follow_catalog(&found.inspection.tables);
        state.copy_everything_again();
        (state.system_id, state.timeline) = (found.system.system_id.clone(), found.system.timeline.clone());
        state.publication.clone_from(&found.inspection.publication);
        (state.slot_created_at, state.resume, state.consistent_from) = (None, Lsn::ZERO, Lsn::ZERO);
        state.partial = None;
        let stored = state.clone();
        self.blocking(move |replicator| {
            if is_other_history {
                replicator.store.release_write_checkpoints()?;
            }
            Ok(replicator.save(&stored)?)
        })
        .await?;
        self.create_slot(walsender, state).await
    }

    /// Drops what there was, and creates the slot. The state is stored before the slot exists, so that a slot we
    /// created is never forgotten.
    async fn start_over(
        self: &Arc<Self>,
        client: &Client,
        walsender: WalSender,
        old_slot: Option<String>,
        found: &Found<'_>,
    ) -> Result<ReplicationState, ReplicationError> {
        if old_slot.is_none() {
            self.warn_of_idle_slots(client).await?;
        }
        let slot = old_slot.unwrap_or_else(|| self.new_slot_name());
        within_deadline(drop_slot(client, &slot)).await?;
        self.progress.forget_source();
        let state = ReplicationState::fresh(
            found.system,
            slot,
            found.inspection.publication.clone(),
            self.rules_fingerprint.clone(),
            &found.inspection.tables,
        );
        let stored = state.clone();
        self.blocking(move |replicator| {
            replicator.store.reset()?;
            Ok(replicator.save(&stored)?)
        })
        .await?;
        self.create_slot(walsender, state).await
    }

    /// Creates the slot that `state` names; the state is stored already.
    async fn create_slot(
        self: &Arc<Self>,
        mut walsender: WalSender,
        mut state: ReplicationState,
    ) -> Result<ReplicationState, ReplicationError> {
        fault_point("slot.before-creation");
        let position = walsender.create_slot(&state.slot).await?;
        fault_point("slot.created");
        (state.slot_created_at, state.resume, state.consistent_from) = (Some(position), position, position);
        let stored = state.clone();
        self.blocking(move |replicator| Ok(replicator.save(&stored)?)).await?;
        fault_point("slot.stored");
        self.set_remedy(None);
        Ok(state)
    }

    /// A store that was deleted leaves its slot behind. Dropping it is for a person: it may belong to another service.
    async fn warn_of_idle_slots(&self, client: &Client) -> Result<(), ReplicationError> {
        for slot in within_deadline(idle_slots(client, &self.source.slot_prefix)).await? {
            tracing::warn!(
                "nobody reads replication slot {slot}, and Postgres keeps WAL for it; if it was left by a deleted store, \
                 run `SELECT pg_drop_replication_slot('{slot}');`"
            );
        }
        Ok(())
    }

    /// Another one for every store, so that two stores never take each other's slot.
    fn new_slot_name(&self) -> String {
        format!("{}{:08x}", self.source.slot_prefix, rand::random::<u32>())
    }

    /// Runs store work where it may block.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ReplicationError> + Send + 'static,
    ) -> Result<T, ReplicationError> {
        let replicator = Arc::clone(self);
        spawn_blocking(move || work(&replicator)).await.map_err(|_| ReplicationError::Worker)?
    }
}

/// Problems that can be lived with go to the log; of others, the first is the error and the rest are logged.
fn refuse_problems(mut inspection: Inspection) -> Result<Inspection, ReplicationError> {
    let problems = std::mem::take(&mut inspection.problems);
    let mut refusals = Vec::new();
    for problem in problems {
        if problem.is_warning() {
            tracing::warn!(code = problem.code(), "{problem}");
        } else {
            refusals.push(problem);
        }
    }
    let mut refusals = refusals.into_iter();
    let Some(first) = refusals.next() else {
        return Ok(inspection);
    };
    for problem in refusals {
        tracing::warn!(code = problem.code(), "{problem}");
    }
    Err(ReplicationError::Setup(first))
}

/// Whether everything is still as the stored state assumes.
fn judge(stored: Option<ReplicationState>, rules_fingerprint: &str, found: &Found<'_>) -> Verdict {
    let Some(state) = stored else {
        return Verdict::StartOver { reason: "nothing is stored yet", old_slot: None };
    };
    // The slot is only ever told what is stored, so if it is further on, it is another one, or somebody moved it.
    let is_ahead = |slot: &SlotState| slot.confirmed.is_some_and(|confirmed| confirmed > state.resume);
    if state.rules_fingerprint != rules_fingerprint {
        return Verdict::StartOver { reason: "the rules have changed", old_slot: Some(state.slot) };
    }
    let (reason, is_other_history) = if state.system_id != found.system.system_id {
        ("the source is another server", true)
    } else if state.timeline != found.system.timeline {
        ("the source was restored or failed over", true)
    } else if found.system.head < state.resume {
        ("the source is behind what was read from it: it was restored to an earlier state", true)
    } else if state.slot_created_at.is_none() {
        ("creating the slot was interrupted", false)
    } else if found.slot.is_none() {
        ("the replication slot was dropped", false)
    } else if found.slot.is_some_and(|slot| !slot.is_usable) {
        ("the replication slot has lost its WAL", false)
    } else if found.slot.is_some_and(is_ahead) {
        ("the replication slot was moved or created again by somebody else", false)
    } else if state.publication != found.inspection.publication {
        ("another publication is used", false)
    } else {
        return Verdict::Resume(state);
    };
    Verdict::Compare { reason, state, is_other_history }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> SystemIdentity {
        SystemIdentity { system_id: "7".to_owned(), timeline: "1".to_owned(), head: Lsn::new(500) }
    }

    fn stored() -> ReplicationState {
        let mut state =
            ReplicationState::fresh(&system(), "kairos_1".to_owned(), "kairos_sync".to_owned(), "r".to_owned(), &[]);
        (state.slot_created_at, state.resume) = (Some(Lsn::new(100)), Lsn::new(400));
        state
    }

    fn verdict(system: &SystemIdentity, confirmed: u64) -> Verdict {
        let slot = SlotState {
            is_usable: true,
            confirmed: Some(Lsn::new(confirmed)),
            active_pid: None,
            active_application: None,
        };
        let inspection = Inspection { publication: "kairos_sync".to_owned(), ..Inspection::default() };
        judge(Some(stored()), "r", &Found { system, slot: Some(&slot), inspection: &inspection })
    }

    #[test]
    fn what_is_as_we_left_it_is_resumed() {
        assert_eq!(verdict(&system(), 400), Verdict::Resume(stored()));
        assert_eq!(verdict(&system(), 100), Verdict::Resume(stored()), "the server may not have heard our last word");
    }

    #[test]
    fn another_server_or_history_is_never_resumed() {
        for other in [
            SystemIdentity { system_id: "8".to_owned(), ..system() },
            SystemIdentity { timeline: "2".to_owned(), ..system() },
            SystemIdentity { head: Lsn::new(399), ..system() },
        ] {
            assert!(matches!(verdict(&other, 400), Verdict::Compare { is_other_history: true, .. }), "{other:?}");
        }
        assert!(matches!(verdict(&system(), 401), Verdict::Compare { .. }), "the slot was moved");
    }
}
