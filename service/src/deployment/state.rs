//! Deployments as they are stored, and what a change of rules leads to. Pure.

use kairos_sync_rules::{Histories, NamePrefixes, PlanError, SyncPlan, TablePattern};
use serde::{Deserialize, Serialize};

use super::Rules;
use crate::storage::{DeploymentNumber, StoredRules};

/// Rules with a number, and with the histories of what they put into the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Its number: larger than those of earlier ones.
    pub number: DeploymentNumber,
    /// The rules.
    pub rules: Rules,
    histories: Histories,
}

impl Deployment {
    /// The plan with buckets and indexes under the names they have in the store.
    pub fn named_plan(&self) -> SyncPlan {
        self.rules.plan.clone().with_histories(&self.histories)
    }

    /// Definitions, or parts of streams, by whose names buckets begin.
    pub fn bucket_names(&self) -> Vec<String> {
        self.histories.bucket_names().map(str::to_owned).collect()
    }

    /// Definitions, or parts of streams, whose buckets `other` does not have in this form.
    pub fn buckets_unlike(&self, other: &Self) -> Vec<String> {
        self.histories.bucket_names_without(&other.histories)
    }
}

/// What a change of rules leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Nothing: they are in force, or being built.
    Same,
    /// They are in force from now on; there is nothing to build.
    Switched,
    /// Something is to be built first.
    Builds,
}

/// All that is to be known of rules beside the data made by them.
#[derive(Debug, Clone, PartialEq)]
pub struct RulesState {
    serving: Deployment,
    building: Option<Deployment>,
    /// What nobody is served any more, and is still in the store.
    retired: NamePrefixes,
    /// Where rows were lost of which what is served may have been made: what may be kept of it when it is built anew.
    /// Clients see nothing until then.
    kept: Option<Histories>,
    last_number: DeploymentNumber,
}

impl RulesState {
    /// Of an empty store.
    pub fn first(rules: &Rules) -> Self {
        let number = DeploymentNumber::default();
        let histories = Histories::of(&rules.plan, &Histories::default(), number.0);
        let serving = Deployment { number, rules: rules.clone(), histories };
        Self { serving, building: None, retired: NamePrefixes::default(), kept: None, last_number: number }
    }

    /// What clients are served by.
    pub fn serving(&self) -> &Deployment {
        &self.serving
    }

    /// What is being built.
    pub fn building(&self) -> Option<&Deployment> {
        self.building.as_ref()
    }

    /// What may be forgotten.
    pub fn retired(&self) -> &NamePrefixes {
        &self.retired
    }

    /// All that was retired is forgotten.
    pub fn forgotten(&mut self) {
        self.retired = NamePrefixes::default();
    }

    /// The plans rows are evaluated by: of what is served, then of what is built and not served.
    pub fn plans(&self) -> Vec<SyncPlan> {
        let serving = self.serving.named_plan();
        let building = self.building.as_ref().map(|building| building.named_plan().without(&serving));
        [serving].into_iter().chain(building).collect()
    }

    /// Whether what is served may be wrong, and is being built anew.
    pub fn is_distrusted(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether what is being built is by other rules than what is served.
    pub fn builds_others(&self) -> bool {
        let served = self.serving.rules.plan.fingerprint();
        self.building.as_ref().is_some_and(|building| building.rules.plan.fingerprint() != served)
    }

    /// Takes in that rows of tables were lost: what they went into is built anew, as if the rules about them had changed.
    pub fn distrust(&mut self, is_lost: impl Fn(&TablePattern) -> bool) {
        let kept = self.kept.as_ref().unwrap_or(&self.serving.histories);
        self.kept = Some(kept.without_readers(&self.serving.rules.plan, is_lost));
        let wanted = self.building.as_ref().unwrap_or(&self.serving).rules.clone();
        self.abandon();
        self.build(&wanted);
    }

    /// Where what is served may be wrong and nothing is being built, builds it anew by the rules that are served.
    pub fn build_distrusted(&mut self) {
        if self.is_distrusted() && self.building.is_none() {
            self.distrust(|_| false);
        }
    }

    /// Takes in which rules are wanted.
    pub fn follow(&mut self, wanted: &Rules) -> Followed {
        let known = self.building.as_mut().unwrap_or(&mut self.serving);
        let fingerprint = wanted.plan.fingerprint();
        if known.rules.plan.fingerprint() == fingerprint {
            // Comments and write rules may differ, which concern nothing that is stored.
            let is_same = known.rules == *wanted;
            known.rules = wanted.clone();
            return match (is_same, &self.building) {
                (true, _) => Followed::Same,
                (false, Some(_)) => Followed::Builds,
                (false, None) => Followed::Switched,
            };
        }
        self.abandon();
        if self.kept.is_none() && self.serving.rules.plan.fingerprint() == fingerprint {
            self.serving.rules = wanted.clone();
            return Followed::Switched;
        }
        self.build(wanted)
    }

    /// Builds what of these rules is not served, or not to be kept.
    fn build(&mut self, wanted: &Rules) -> Followed {
        self.last_number.0 += 1;
        let number = self.last_number;
        let before = self.kept.as_ref().unwrap_or(&self.serving.histories);
        let histories = Histories::of(&wanted.plan, before, number.0);
        self.building = Some(Deployment { number, rules: wanted.clone(), histories });
        if self.plans().get(1).is_some_and(|news| !news.is_empty()) {
            return Followed::Builds;
        }
        self.switch();
        Followed::Switched
    }

    /// Builds everything anew by the rules that are in force, as if all of them had changed.
    pub fn renew(&mut self) {
        self.abandon();
        self.last_number.0 += 1;
        let (number, rules) = (self.last_number, self.serving.rules.clone());
        let histories = Histories::of(&rules.plan, &Histories::default(), number.0);
        self.building = Some(Deployment { number, rules, histories });
    }

    /// Gives up what is being built.
    pub fn abandon(&mut self) {
        if let Some(building) = self.building.take() {
            self.retired.extend(building.histories.without(&self.serving.histories));
        }
    }

    /// What was built is served from now on.
    pub fn switch(&mut self) {
        if let Some(built) = self.building.take() {
            self.retired.extend(self.serving.histories.without(&built.histories));
            self.serving = built;
            self.kept = None;
        }
    }

    /// As the store keeps it.
    ///
    /// # Panics
    /// Never: text, numbers and lists always serialise.
    pub fn to_stored(&self) -> StoredRules {
        let stored = StoredState {
            serving: StoredDeployment::of(&self.serving),
            building: self.building.as_ref().map(StoredDeployment::of),
            retired: self.retired.clone(),
            kept: self.kept.clone(),
            last_number: self.last_number,
        };
        let state = serde_json::to_vec(&stored).expect("text, numbers and lists always serialise");
        StoredRules { serving: self.serving.number, state: state.into() }
    }

    /// Reads what the store keeps.
    ///
    /// # Errors
    /// When it was written by a release whose plans are others.
    pub fn from_stored(stored: &StoredRules) -> Result<Self, PlanError> {
        let stored: StoredState = serde_json::from_slice(&stored.state).map_err(PlanError::Damaged)?;
        Ok(Self {
            serving: stored.serving.read()?,
            building: stored.building.map(StoredDeployment::read).transpose()?,
            retired: stored.retired,
            kept: stored.kept,
            last_number: stored.last_number,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredState {
    serving: StoredDeployment,
    building: Option<StoredDeployment>,
    retired: NamePrefixes,
    #[serde(default)]
    kept: Option<Histories>,
    last_number: DeploymentNumber,
}

#[derive(Serialize, Deserialize)]
struct StoredDeployment {
    number: DeploymentNumber,
    text: String,
    plan: String,
    histories: Histories,
}

impl StoredDeployment {
    fn of(deployment: &Deployment) -> Self {
        let Deployment { number, rules, histories } = deployment;
        Self { number: *number, text: rules.text.clone(), plan: rules.plan.to_json(), histories: histories.clone() }
    }

    fn read(self) -> Result<Deployment, PlanError> {
        let rules = Rules { text: self.text, plan: SyncPlan::from_json(&self.plan)? };
        Ok(Deployment { number: self.number, rules, histories: self.histories })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "bucket_definitions: {a: {data: [SELECT id FROM items]}, b: {data: [SELECT id FROM notes]}}";

    fn rules(text: &str) -> Rules {
        let compiled = kairos_sync_rules::compile(text, "public");
        let plan = compiled.plan.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
        Rules { text: text.to_owned(), plan }
    }

    fn other() -> Rules {
        rules(&RULES.replace("id FROM notes", "* FROM notes"))
    }

    #[test]
    fn the_old_is_served_until_the_new_is_built_and_retired_then() {
        let mut state = RulesState::first(&rules(RULES));
        let first = state.clone();
        assert_eq!(state.follow(&rules(RULES)), Followed::Same);
        assert_eq!(state.follow(&other()), Followed::Builds);
        assert_eq!(state.serving(), first.serving());
        let plans = state.plans();
        assert_eq!(plans[0], first.plans()[0]);
        assert_eq!(plans[1].source_tables().len(), 1, "only what changed is built");
        assert_eq!(state.follow(&other()), Followed::Same);
        assert!(state.retired().is_empty());
        state.switch();
        assert_eq!(
            (state.serving().number, state.retired().buckets.as_slice()),
            (DeploymentNumber(1), &["b[".to_owned()][..])
        );
        assert_eq!(state.plans().len(), 1);
        state.forgotten();
        assert!(state.retired().is_empty());
    }

    #[test]
    fn what_is_wanted_no_more_is_given_up_and_never_taken_for_a_later_one() {
        let mut state = RulesState::first(&rules(RULES));
        state.follow(&other());
        assert_eq!(state.follow(&rules(RULES)), Followed::Switched);
        assert_eq!((state.building(), state.retired().buckets.as_slice()), (None, &["1#b[".to_owned()][..]));
        assert_eq!(state.follow(&other()), Followed::Builds);
        assert_eq!(state.building().map(|building| building.number), Some(DeploymentNumber(2)));
        let third = rules(&RULES.replace("id FROM items", "* FROM items"));
        assert_eq!(state.follow(&third), Followed::Builds);
        assert_eq!(state.retired().buckets, ["1#b[", "2#b["]);
    }

    #[test]
    fn what_needs_no_building_is_in_force_at_once() {
        let mut state = RulesState::first(&rules(RULES));
        let fewer = rules("bucket_definitions: {a: {data: [SELECT id FROM items]}}");
        assert_eq!(state.follow(&fewer), Followed::Switched);
        assert_eq!(
            (state.serving().number, state.retired().buckets.as_slice()),
            (DeploymentNumber(1), &["b[".to_owned()][..])
        );
        let comment = rules("# Fewer.\nbucket_definitions: {a: {data: [SELECT id FROM items]}}");
        assert_eq!(state.follow(&comment), Followed::Switched);
        assert_eq!(
            (state.serving().number, state.serving().rules.text.as_str()),
            (DeploymentNumber(1), comment.text.as_str())
        );
        assert_eq!(state.follow(&comment), Followed::Same);
    }

    #[test]
    fn what_is_renewed_is_built_as_a_whole_and_stays_wanted() {
        let mut state = RulesState::first(&rules(RULES));
        state.renew();
        let plans = state.plans();
        assert_eq!(plans[1].source_tables(), plans[0].source_tables());
        assert_eq!(state.follow(&rules(RULES)), Followed::Same);
        state.switch();
        assert_eq!((state.serving().number, state.retired().buckets.len()), (DeploymentNumber(1), 2));
        assert_eq!(state.follow(&rules(RULES)), Followed::Same);
    }

    #[test]
    fn what_lost_rows_went_into_is_built_anew_whatever_is_wanted_meanwhile() {
        let mut state = RulesState::first(&rules(RULES));
        let is_notes = |table: &TablePattern| table.name == "notes";
        state.distrust(is_notes);
        assert_eq!(state.plans()[1].source_tables().len(), 1, "only what had the rows");
        assert_eq!(RulesState::from_stored(&state.to_stored()).unwrap(), state);
        assert_eq!(state.follow(&rules(RULES)), Followed::Same);
        let fewer = "bucket_definitions: {b: {data: [SELECT id FROM notes]}}";
        assert_eq!(state.follow(&rules(fewer)), Followed::Builds);
        assert_eq!(state.follow(&rules(RULES)), Followed::Builds, "what is served is not what is wanted");
        let number = state.building().map(|building| building.number.0).unwrap();
        state.switch();
        assert!(!state.is_distrusted());
        assert_eq!(state.retired().buckets, ["1#b[", "2#b[", "b["]);
        assert!(state.serving().bucket_names() == ["a", "b"] && number == 3);
        assert_eq!(state.follow(&rules(RULES)), Followed::Same);
    }

    #[test]
    fn it_is_stored_and_read() {
        let mut state = RulesState::first(&rules(RULES));
        state.follow(&other());
        state.switch();
        state.follow(&rules(RULES));
        let stored = state.to_stored();
        assert_eq!(stored.serving, DeploymentNumber(1));
        assert_eq!(RulesState::from_stored(&stored).unwrap(), state);
        let damaged = StoredRules { state: stored.state.slice(1..), ..stored };
        assert!(RulesState::from_stored(&damaged).is_err());
    }
}
