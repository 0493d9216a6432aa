//! Which rules are in force, which are wanted, and what leads from one to the other.
//!
//! ```text
//! file, signal, API ─► wanted ─► replication: builds what is new beside what is served ─► switch ─► served
//!                         └─► refused by the source: everything stays, and is told
//! ```
//!
//! **Invariants**
//!
//! - Clients are served by one deployment at a time. Which one is part of the store's state, so that what a client gets
//!   and what it was evaluated by never disagree.
//! - Buckets and indexes that are the same in both keep their names, ids and operations.
//! - What is in force is stored; what is wanted is not: after a restart the configuration says it again.
//!
//! Start reading at [`Deployments`]; [`RulesState`] (pure) says what a change leads to.

mod preview;
mod state;
mod text;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kairos_sync_rules::SyncPlan;
use tokio::sync::watch;

pub use self::{
    preview::Preview,
    state::{Deployment, Followed, RulesState},
    text::{Rules, UnusableRules},
};
use crate::storage::DeploymentNumber;

/// Why wanted rules did not come into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code of the error.
    pub code: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What is in force and what is wanted at a moment.
#[derive(Debug, Clone, Default)]
pub struct DeploymentsSnapshot {
    /// What clients are served by; `None` before the store says it.
    pub serving: Option<Arc<Deployment>>,
    /// What is being built.
    pub building: Option<Arc<Deployment>>,
    /// Why what is wanted is not in force, if the source refused it.
    pub refusal: Option<Refusal>,
}

/// The deployments of a service: written by whoever is told of rules and by replication, read by everybody.
pub struct Deployments {
    // Held for a look or an assignment.
    known: Mutex<Known>,
    wanted: watch::Sender<Arc<Rules>>,
    serving: watch::Sender<Arc<SyncPlan>>,
}

impl fmt::Debug for Deployments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployments").field("known", &self.snapshot()).finish_non_exhaustive()
    }
}

struct Known {
    /// Whether everything is to be built anew.
    renews: bool,
    /// Of the deployment that is served, and of the one before, of which a view may still be open.
    plans: BTreeMap<DeploymentNumber, Arc<SyncPlan>>,
    snapshot: DeploymentsSnapshot,
}

impl Deployments {
    /// Of a store that has no rules yet: these will be the first.
    pub fn new(wanted: Rules) -> Self {
        let first = RulesState::first(&wanted);
        let plan = Arc::new(first.serving().named_plan());
        let plans = BTreeMap::from([(first.serving().number, Arc::clone(&plan))]);
        Self {
            known: Mutex::new(Known { renews: false, plans, snapshot: DeploymentsSnapshot::default() }),
            wanted: watch::Sender::new(Arc::new(wanted)),
            serving: watch::Sender::new(plan),
        }
    }

    /// Of a store with these rules, where others may be wanted.
    pub fn resume(stored: &RulesState, wanted: Rules) -> Self {
        let deployments = Self::new(wanted);
        deployments.known().plans.clear();
        deployments.in_force(stored);
        deployments
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants other rules, or the same once more.
    pub fn want(&self, rules: Rules) {
        self.known().snapshot.refusal = None;
        self.wanted.send_replace(Arc::new(rules));
    }

    /// Wants everything to be built anew by the rules that are in force, beside what is served. `false` while something
    /// is being built: one after the other.
    pub fn renew(&self) -> bool {
        let mut known = self.known();
        if known.snapshot.building.is_some() {
            return false;
        }
        known.renews = true;
        drop(known);
        self.wanted.send_modify(|_| {});
        true
    }

    /// Whether everything is to be built anew.
    pub fn wants_renewal(&self) -> bool {
        self.known().renews
    }

    /// That everything is being built anew is stored. An attempt that came to nothing before that leaves the wish.
    pub fn renewal_is_stored(&self) {
        self.known().renews = false;
    }

    /// What is wanted; `None` once the source has refused it.
    pub fn wanted(&self) -> Option<Arc<Rules>> {
        let wanted = Arc::clone(&self.wanted.borrow());
        self.known().snapshot.refusal.is_none().then_some(wanted)
    }

    /// Tells when others are wanted.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Rules>> {
        self.wanted.subscribe()
    }

    /// The source cannot give what the wanted rules read. Nothing is made of them until they are wanted once more.
    pub fn refuse(&self, refusal: Refusal) {
        self.known().snapshot.refusal = Some(refusal);
    }

    /// What a store begins with: what is wanted or, if the source refused it, what was served before.
    pub fn first_choice(&self) -> Arc<Rules> {
        let serving = || self.snapshot().serving.map(|serving| Arc::new(serving.rules.clone()));
        self.wanted().or_else(serving).unwrap_or_else(|| Arc::clone(&self.wanted.borrow()))
    }

    /// These are in force, or are about to be: to be called before the store shows it.
    pub fn in_force(&self, rules: &RulesState) {
        let (number, plan) = (rules.serving().number, Arc::new(rules.serving().named_plan()));
        let mut known = self.known();
        // A store that is built anew counts from the beginning.
        let before = known.snapshot.serving.as_ref().map_or(number, |before| before.number);
        if before != number {
            known.plans.retain(|kept, _| *kept == before);
        }
        known.plans.insert(number, Arc::clone(&plan));
        known.snapshot.serving = Some(Arc::new(rules.serving().clone()));
        known.snapshot.building = rules.building().cloned().map(Arc::new);
        drop(known);
        self.serving.send_replace(plan);
    }

    /// The plan of a deployment that clients are, or were a moment ago, served by.
    pub fn plan(&self, number: DeploymentNumber) -> Option<Arc<SyncPlan>> {
        self.known().plans.get(&number).cloned()
    }

    /// The plan clients are served by, as it changes.
    pub fn serving(&self) -> watch::Receiver<Arc<SyncPlan>> {
        self.serving.subscribe()
    }

    /// What is in force and what is wanted now.
    pub fn snapshot(&self) -> DeploymentsSnapshot {
        self.known().snapshot.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_to_build_everything_anew_stays_until_that_is_stored() {
        let rules = Rules::compile("rules", "bucket_definitions: {a: {data: [SELECT id FROM t]}}").unwrap();
        let mut state = RulesState::first(&rules);
        let deployments = Deployments::resume(&state, rules);
        assert!(!deployments.wants_renewal() && deployments.renew());
        state.renew();
        deployments.in_force(&state);
        assert!(deployments.wants_renewal(), "nothing is stored yet");
        assert!(!deployments.renew(), "one after the other");
        deployments.renewal_is_stored();
        assert!(!deployments.wants_renewal());
    }

    #[test]
    fn the_plan_that_is_served_is_known_also_when_a_store_counts_from_the_beginning() {
        let rules = |table: &str| {
            let text = format!("bucket_definitions: {{a: {{data: [SELECT id FROM {table}]}}}}");
            Rules::compile("rules", &text).unwrap()
        };
        let mut state = RulesState::first(&rules("t0"));
        let deployments = Deployments::new(rules("t0"));
        let known = |number| deployments.plan(DeploymentNumber(number)).is_some();
        for number in 1..4 {
            state.follow(&rules(&format!("t{number}")));
            state.switch();
            deployments.in_force(&state);
            deployments.in_force(&state);
            assert!(known(number) && (number == 1 || known(number - 1)), "the one before may still be seen");
        }
        assert!(!known(1));
        deployments.in_force(&RulesState::first(&rules("t0")));
        assert!(known(0) && known(3) && !known(2));
    }
}
