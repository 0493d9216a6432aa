//! Reading the state of the store as far as it concerns one client. Blocks on disk.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use kairos_sync_protocol::{
    BucketName, WriteCheckpointId,
    line::{StreamDescription, StreamError, StreamErrorSubject, SubscriptionReason},
};
use kairos_sync_rules::{
    LookupKey, LookupSource, LookupValue, Querier, Reason, RequestContext, Resolution, ResolvedBucket,
};

use super::{
    SyncError,
    checkpoint_state::{CheckpointState, Observation, ObservedBucket, ObservedBuckets},
    hub::{Changes, Registration},
};
use crate::{
    deployment::Deployments,
    storage::{BucketStore, Checkpoint, DeploymentNumber, StorageError, StoreView, WriteCheckpointKey},
};

/// How often a view is opened in the hope of one that equals the published state. Where commits come faster than that,
/// everything is read, which is always right.
const VIEW_ATTEMPTS: usize = 3;

/// Reads what concerns one client.
pub(super) struct Observer {
    pub(super) store: Arc<dyn BucketStore>,
    pub(super) deployments: Arc<Deployments>,
    pub(super) registration: Registration,
    /// What was proved and asked for, which operators can see as well.
    pub(super) request: Arc<RequestContext>,
    /// Locked while the state is read, which one session does at a time.
    pub(super) evaluated: Mutex<Evaluated>,
    pub(super) write_key: WriteCheckpointKey,
    pub(super) bucket_count_max: usize,
}

/// The request by the rules of a state.
pub(super) struct Evaluated {
    querier: Querier,
    /// Of the bucket names of the store's generation.
    bucket_prefix: String,
    deployment: DeploymentNumber,
}

impl Evaluated {
    /// Evaluates a request by the rules that clients are served by in this state.
    pub(super) fn of(
        request: &RequestContext,
        view: &dyn StoreView,
        deployments: &Deployments,
    ) -> Result<Self, SyncError> {
        let (deployment, bucket_prefix) = (view.serving(), view.bucket_prefix());
        let plan = deployments.plan(deployment).ok_or(SyncError::UnknownRules)?;
        let querier = plan.querier(request, &bucket_prefix)?;
        Ok(Self { querier, bucket_prefix, deployment })
    }
}

/// What was found.
pub(super) enum Observed {
    /// No state is visible yet.
    Nothing,
    /// The store was reset: the client must connect anew.
    OtherGeneration,
    /// This; the client gets it by other rules than the state before.
    State { observation: Observation, by_other_rules: bool },
}

impl Observer {
    /// Reads the store because of `changes`, which are complete as of `published`, for a client that knows `state` and
    /// this write checkpoint.
    pub(super) fn observe(
        &self,
        mut changes: Changes,
        mut published: Option<Checkpoint>,
        state: &CheckpointState,
        write_checkpoint: Option<WriteCheckpointId>,
    ) -> Result<Observed, SyncError> {
        for attempt in 1.. {
            let view = self.store.view()?;
            if view.checkpoint() == published {
                return self.read(&*view, &changes, state, write_checkpoint);
            }
            if attempt == VIEW_ATTEMPTS {
                // The view holds commits that are not published yet. What they changed is not known, so all is read;
                // their marks come later and find nothing new.
                changes.everything = true;
                return self.read(&*view, &changes, state, write_checkpoint);
            }
            drop(view);
            let (more, newer) = self.registration.take();
            changes.merge(&more);
            published = newer;
        }
        unreachable!("attempts are bounded")
    }

    fn read(
        &self,
        view: &dyn StoreView,
        changes: &Changes,
        state: &CheckpointState,
        write_checkpoint: Option<WriteCheckpointId>,
    ) -> Result<Observed, SyncError> {
        let mut evaluated = self.evaluated.lock().unwrap_or_else(PoisonError::into_inner);
        if view.bucket_prefix() != evaluated.bucket_prefix {
            return Ok(Observed::OtherGeneration);
        }
        let Some(checkpoint) = view.checkpoint() else { return Ok(Observed::Nothing) };
        let by_other_rules = view.serving() != evaluated.deployment;
        if by_other_rules {
            *evaluated = Evaluated::of(&self.request, view, &self.deployments)?;
        }
        let everything = changes.everything || by_other_rules || !state.is_announced();
        let reached = if everything { self.reached(view, checkpoint)? } else { None };
        let write_checkpoint = reached.max(changes.write_checkpoint).max(write_checkpoint);
        let is_known = |name: &BucketName| !everything && state.holds(name) && !changes.buckets.contains_key(name);
        let buckets = self.resolve(&evaluated.querier, view, checkpoint, is_known)?;
        let observation = Observation { op_id: checkpoint.op_id, write_checkpoint, buckets };
        Ok(Observed::State { observation, by_other_rules })
    }

    /// The client's newest write checkpoint if the state includes it. Otherwise the hub tells when it does.
    fn reached(&self, view: &dyn StoreView, checkpoint: Checkpoint) -> Result<Option<WriteCheckpointId>, StorageError> {
        let Some(newest) = view.write_checkpoint(&self.write_key)? else { return Ok(None) };
        if newest.lsn <= checkpoint.lsn {
            return Ok(Some(newest.id));
        }
        self.registration.await_write_checkpoint(newest);
        Ok(None)
    }

    /// The buckets the client gets. Totals of those that `is_known` are as they were.
    fn resolve(
        &self,
        querier: &Querier,
        view: &dyn StoreView,
        checkpoint: Checkpoint,
        is_known: impl Fn(&BucketName) -> bool,
    ) -> Result<ObservedBuckets, SyncError> {
        let resolution = querier.resolve(&mut Lookups(view))?;
        self.check_bucket_count(querier, &resolution)?;
        let streams = describe_streams(querier, &resolution);
        let Resolution { buckets, consulted, .. } = resolution;
        let names = buckets.iter().map(|bucket| bucket.name.clone()).collect();
        let observe = |bucket: ResolvedBucket| {
            let totals = if is_known(&bucket.name) { None } else { Some(view.bucket(&bucket.name)?) };
            let subscribed = bucket.reasons.iter().filter_map(|reason| match reason {
                Reason::Default => None,
                Reason::Subscription(index) => Some(SubscriptionReason::Sub(*index)),
            });
            let by_default = bucket.default_of.iter().map(|definition| SubscriptionReason::Default(*definition));
            let reasons = by_default.chain(subscribed).collect();
            Ok(ObservedBucket { name: bucket.name, totals, priority: bucket.priority, reasons })
        };
        let observed = buckets.into_iter().map(observe).collect::<Result<_, StorageError>>()?;
        self.registration.watch(names, consulted.into_iter().collect(), checkpoint);
        Ok(ObservedBuckets::All(observed, streams))
    }

    fn check_bucket_count(&self, querier: &Querier, resolution: &Resolution) -> Result<(), SyncError> {
        let count = resolution.buckets.len();
        if count <= self.bucket_count_max {
            return Ok(());
        }
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for bucket in &resolution.buckets {
            *counts.entry(bucket.definition).or_default() += 1;
        }
        let (definition, largest_count) = counts.into_iter().max_by_key(|(_, count)| *count).unwrap_or_default();
        let largest = querier.definitions().get(definition).map(|found| found.name.clone()).unwrap_or_default();
        Err(SyncError::TooManyBuckets { count, limit: self.bucket_count_max, largest, largest_count })
    }
}

fn describe_streams(querier: &Querier, resolution: &Resolution) -> Vec<StreamDescription> {
    let errors_of = |name: &str| {
        let errors = resolution.errors.iter().filter(|(_, error)| error.definition == name);
        errors
            .map(|(subscription, error)| StreamError {
                subscription: subscription
                    .map_or_else(|| StreamErrorSubject::Default("default".to_owned()), StreamErrorSubject::Index),
                message: error.message.clone(),
            })
            .collect()
    };
    let definitions = querier.definitions().iter();
    definitions
        .map(|definition| StreamDescription {
            name: definition.name.clone(),
            is_default: definition.is_default,
            errors: errors_of(&definition.name),
        })
        .collect()
}

/// The lookups of a view.
struct Lookups<'a>(&'a dyn StoreView);

impl LookupSource for Lookups<'_> {
    type Error = StorageError;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, StorageError> {
        self.0.lookup(key)
    }
}
