//! The start of every attempt: look at the source, decide what to continue from, and make it so.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio_postgres::Client;

use crate::{
    byte_size::ByteSize,
    deployment::{Followed, Refusal, RulesState},
    fault_point::fault_point,
    lsn::Lsn,
    postgres::{
        catalog::Table,
        preflight::{Inspection, inspect},
        slot::{IdleSlot, drop_slot, idle_slots, release, slot_state},
        walsender::WalSender,
    },
    replication::{
        discontinuity::Discontinuity,
        error::ReplicationError,
        plans::Plans,
        rebuild::Rebuild,
        replicator::{Remedy, Replicator, current_position, within_deadline},
        state::ReplicationState,
        stream::Start,
        verdict::{Found, Verdict, judge},
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

/// The rules an attempt goes by.
struct Aim<'a> {
    rules: &'a RulesState,
    plans: &'a Plans,
    /// Whether they are others than those stored.
    has_changed: bool,
    /// Whether everything is built anew by them because that was wished for.
    renews: bool,
}

impl Aim<'_> {
    /// Takes in what is to be built, unless it is known.
    fn rebuild(&self, state: &mut ReplicationState, catalog: &[Table]) {
        state.awaits_switch = self.rules.is_distrusted();
        let Some((building, news)) = self.rules.building().zip(self.plans.news()) else {
            state.rebuild = None;
            return;
        };
        if state.rebuild.as_ref().is_none_or(|rebuild| rebuild.deployment != building.number) {
            state.rebuild = Some(Rebuild::of(building.number, news, &state.tables, catalog));
        }
    }
}

impl Replicator {
    /// Connects, looks at the source, and settles what to continue from.
    pub(super) async fn prepare(self: &Arc<Self>) -> Result<Prepared, ReplicationError> {
        let client = self.source.connect().await?;
        let remedy = self.remedy();
        let (stored, stored_rules) = match self.blocking(Self::load).await {
            // Announced when it was first met. The name of the slot is lost with it.
            Err(ReplicationError::State(_)) if remedy == Some(Remedy::StartOver) => (None, None),
            stored => stored?,
        };
        let slot_name = stored.as_ref().map(|state| state.slot.clone());
        let renews = self.deployments.wants_renewal();
        let mut rules = self.rules_to_follow(stored_rules.clone(), renews);
        let stored = self.take_in_lost_rows(stored, &mut rules).await?;
        let catalog_seen_at = within_deadline(current_position(&client)).await?;
        let (plans, inspection) = self.look(&client, &mut rules, slot_name.as_deref()).await?;
        self.deployments.in_force(&rules);
        let mut walsender = WalSender::connect(&self.source).await?;
        let system = walsender.identify_system().await?;
        let slot = match &slot_name {
            Some(name) => within_deadline(slot_state(&client, name)).await?,
            None => None,
        };
        let found = Found { system: &system, slot: slot.as_ref(), inspection: &inspection };
        let aim = Aim { rules: &rules, plans: &plans, has_changed: stored_rules.as_ref() != Some(&rules), renews };
        let state = match judge(stored, remedy, stored_rules.is_some(), &found) {
            Verdict::Resume(state) => self.resume(&client, walsender, state, &aim, &found, catalog_seen_at).await?,
            Verdict::Compare { reason, state } => {
                tracing::warn!(code = reason.code(), "all tables will be compared with what is stored: {reason}");
                self.compare(&client, walsender, state, &aim, reason, &found).await?
            }
            Verdict::StartOver { reason, old_slot } => {
                tracing::info!("all tables will be copied: {reason}");
                self.start_over(&client, walsender, &aim, old_slot, &found).await?
            }
        };
        // What they mean is stored by now.
        fault_point("lost-rows.taken-in");
        let dropped = self.blocking(|replicator| Ok(replicator.store.drop_lost_rows()?)).await?;
        self.rows_dropped(dropped);
        self.progress.rebuilds(state.rebuild.as_ref().map(Rebuild::status));
        let Inspection { tables, partitions, .. } = inspection;
        Ok(Prepared { client, tables, start: Start { state, rules, plans, catalog_seen_at, partitions } })
    }

    /// What is stored of replication and of rules.
    fn load(&self) -> Result<(Option<ReplicationState>, Option<RulesState>), ReplicationError> {
        let state = ReplicationState::load(self.store.as_ref())?;
        // Rules that cannot be read are as good as none: everything is copied then.
        let rules = self.store.rules()?.and_then(|stored| {
            let read = RulesState::from_stored(&stored);
            read.inspect_err(|error| tracing::warn!("the rules in the bucket store cannot be read: {error}")).ok()
        });
        Ok((state, rules))
    }

    /// Where stored rows are damaged, has their tables copied anew, and what they went into built anew: a row that changed or
    /// went away while nothing was known of it would stay in buckets.
    async fn take_in_lost_rows(
        self: &Arc<Self>,
        stored: Option<ReplicationState>,
        rules: &mut RulesState,
    ) -> Result<Option<ReplicationState>, ReplicationError> {
        let Some(mut state) = stored else { return Ok(None) };
        let lost = self.blocking(|replicator| Ok(replicator.store.lost_rows()?)).await?;
        let tables = state.begin_anew(&lost);
        if tables.is_empty() {
            return Ok(Some(state));
        }
        self.may_mend_rows()?;
        rules.distrust(|pattern| tables.iter().any(|table| pattern.matches(table)));
        let built = rules.building().map(|building| building.buckets_unlike(rules.serving())).unwrap_or_default();
        let tables: Vec<_> = tables.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
        tracing::warn!(
            ?tables,
            buckets = ?built,
            "stored rows of these tables are lost: the tables are copied again, and what they went into is built anew; \
             clients see nothing new until then"
        );
        Ok(Some(state))
    }

    /// The rules to go on with: those stored, on their way to those wanted.
    fn rules_to_follow(&self, stored: Option<RulesState>, renews: bool) -> RulesState {
        let Some(mut rules) = stored else { return RulesState::first(&self.deployments.first_choice()) };
        if renews {
            rules.renew();
        }
        if let Some(wanted) = self.deployments.wanted() {
            let (before, followed) = (rules.serving().clone(), rules.follow(&wanted));
            match (followed, rules.building()) {
                (Followed::Builds, Some(building)) => tracing::info!(
                    deployment = building.number.0,
                    buckets = ?building.buckets_unlike(&before),
                    "rules: others are wanted; what is new is built while clients are served by the old ones"
                ),
                (Followed::Switched, _) => tracing::info!(
                    deployment = rules.serving().number.0,
                    "rules: others are wanted, for which nothing is to be built: clients are served by them"
                ),
                _ => {}
            }
        }
        rules.build_distrusted();
        rules
    }

    /// Looks at the tables that the rules read. Rules that the source cannot serve are given up where others are served.
    async fn look(
        &self,
        client: &Client,
        rules: &mut RulesState,
        slot_name: Option<&str>,
    ) -> Result<(Arc<Plans>, Inspection), ReplicationError> {
        loop {
            let plans = Arc::new(Plans::of(rules));
            let tables = plans.source_tables();
            let look = inspect(client, &self.source, &tables, slot_name);
            match refuse_problems(within_deadline(look).await?) {
                Err(error @ ReplicationError::Setup(_)) if rules.builds_others() => {
                    tracing::error!(
                        code = error.code(),
                        "rules: the new ones are refused, and clients are served by the old ones as before: {error}"
                    );
                    self.deployments.refuse(Refusal { code: error.code(), message: error.to_string() });
                    rules.abandon();
                    rules.build_distrusted();
                }
                inspection => return Ok((plans, inspection?)),
            }
        }
    }

    /// Goes on; tables that changed meanwhile are copied.
    async fn resume(
        self: &Arc<Self>,
        client: &Client,
        mut walsender: WalSender,
        mut state: ReplicationState,
        aim: &Aim<'_>,
        found: &Found<'_>,
        catalog_seen_at: Lsn,
    ) -> Result<ReplicationState, ReplicationError> {
        let failover = self.wants_failover(found);
        if found.slot.and_then(|slot| slot.failover).is_some_and(|set| set != failover) {
            within_deadline(release(client, &state.slot)).await?;
            walsender.set_failover(&state.slot, failover).await?;
        }
        aim.rebuild(&mut state, &found.inspection.tables);
        let changes = state.follow_catalog(&found.inspection.tables, catalog_seen_at);
        if changes.is_empty() && !aim.has_changed {
            return Ok(state);
        }
        for (table, change) in changes {
            tracing::warn!("{table}: {change}");
        }
        self.save_aim(&state, aim).await?;
        Ok(state)
    }

    async fn save_aim(self: &Arc<Self>, state: &ReplicationState, aim: &Aim<'_>) -> Result<(), ReplicationError> {
        let (state, rules) = (state.clone(), aim.rules.clone());
        self.blocking(move |replicator| Ok(replicator.save_rules(&state, &rules)?)).await?;
        if aim.renews {
            self.deployments.renewal_is_stored();
        }
        Ok(())
    }

    /// Keeps what is stored, hidden, and creates the slot anew. Every table is read again: what is the same gives clients
    /// nothing to download.
    async fn compare(
        self: &Arc<Self>,
        client: &Client,
        walsender: WalSender,
        mut state: ReplicationState,
        aim: &Aim<'_>,
        reason: Discontinuity,
        found: &Found<'_>,
    ) -> Result<ReplicationState, ReplicationError> {
        self.progress.compares(&reason);
        self.metrics.comparisons.with_label_values(&[reason.code()]).inc();
        within_deadline(drop_slot(client, &state.slot)).await?;
        self.progress.forget_source();
        aim.rebuild(&mut state, &found.inspection.tables);
        state.follow_catalog(&found.inspection.tables, Lsn::ZERO);
        state.copy_everything_again();
        (state.system_id, state.timeline) = (found.system.system_id.clone(), found.system.timeline.clone());
        state.publications.clone_from(&found.inspection.publications);
        (state.slot_created_at, state.resume) = (None, Lsn::ZERO);
        state.partial = None;
        if matches!(reason, Discontinuity::OtherHistory(_)) {
            self.blocking(|replicator| Ok(replicator.store.release_write_checkpoints()?)).await?;
        }
        self.save_aim(&state, aim).await?;
        self.create_slot(client, walsender, state, self.wants_failover(found)).await
    }

    /// Drops what there was, and creates the slot. The state is stored before the slot exists, so that a slot we
    /// created is never forgotten.
    async fn start_over(
        self: &Arc<Self>,
        client: &Client,
        walsender: WalSender,
        aim: &Aim<'_>,
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
            found.inspection.publications.clone(),
            &found.inspection.tables,
        );
        self.blocking(|replicator| {
            replicator.store.reset()?;
            // Write checkpoints may wait for positions of another history. To release all is safe: they were made before
            // the new slot is, and nothing is visible before the position where that begins.
            Ok(replicator.store.release_write_checkpoints()?)
        })
        .await?;
        self.save_aim(&state, aim).await?;
        self.create_slot(client, walsender, state, self.wants_failover(found)).await
    }

    fn wants_failover(&self, found: &Found<'_>) -> bool {
        self.source.failover.is_wanted(found.inspection.server_version)
    }

    /// Creates the slot that `state` names; the state is stored already.
    async fn create_slot(
        self: &Arc<Self>,
        client: &Client,
        mut walsender: WalSender,
        mut state: ReplicationState,
        failover: bool,
    ) -> Result<ReplicationState, ReplicationError> {
        fault_point("slot.before-creation");
        let position = self.wait_for_slot(client, &mut walsender, &state.slot, failover).await?;
        fault_point("slot.created");
        (state.slot_created_at, state.resume) = (Some(position), position);
        let stored = state.clone();
        self.blocking(move |replicator| Ok(replicator.save(&stored)?)).await?;
        fault_point("slot.stored");
        self.set_remedy(None);
        Ok(state)
    }

    /// A store that was deleted leaves its slot behind. Dropping it is for a person: it may belong to another service.
    async fn warn_of_idle_slots(&self, client: &Client) -> Result<(), ReplicationError> {
        for IdleSlot { name, retained_bytes } in within_deadline(idle_slots(client, &self.source.slot_prefix)).await? {
            tracing::warn!(
                "nobody reads replication slot {name}, and Postgres keeps {} of WAL for it; if it was left by a deleted \
                 store, run `SELECT pg_drop_replication_slot('{name}');`",
                ByteSize(retained_bytes)
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
