//! What one connection has announced and sent, and what is to be sent next. Pure.
//!
//! **Invariants**
//!
//! - The first line is a `checkpoint`, and the first by other rules, since only that says which streams there are; all
//!   later ones are `checkpoint_diff`s. None is made when nothing changed.
//! - A diff repeats the write checkpoint, since clients overwrite what they remember.
//! - No operation is sent twice: each bucket has a position that only moves forward while the client holds it.
//! - All data of a priority precedes its partial completion, which precedes data of the next; the last group, and a
//!   checkpoint without data, ends with `checkpoint_complete`.
//! - Priority 0 has a partial completion also as the last group: clients that have something to upload show what is
//!   partially complete of priority 0, and nothing else.
//! - While a bucket has operations in place of which later ones must come, nothing is called complete: a newer state, which
//!   the store already has, is announced instead.
//! - A bucket that was removed starts anew when it returns, because the client has deleted it meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use kairos_sync_protocol::{
    BucketName, OpId, WriteCheckpointId,
    line::{
        BucketChecksum, Checkpoint, CheckpointComplete, CheckpointDiff, PartialCheckpointComplete, StreamDescription,
        SubscriptionReason, SyncLine,
    },
};

use crate::storage::{BucketGrowth, BucketTotals};

/// Clients show what is partially complete of this priority even while they have something to upload.
const PRIORITY_OVER_UPLOADS: u8 = 0;

/// The state of the store as far as it concerns one client.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Last operation of the observed state.
    pub op_id: OpId,
    /// The client's newest write checkpoint that the observed state includes.
    pub write_checkpoint: Option<WriteCheckpointId>,
    /// What was read.
    pub buckets: ObservedBuckets,
}

/// How much was read.
#[derive(Debug, Clone)]
pub enum ObservedBuckets {
    /// All buckets the client gets now, and the streams they come from.
    All(Vec<ObservedBucket>, Vec<StreamDescription>),
    /// How buckets grew since the state before; which buckets the client gets is as before. Only where
    /// [`CheckpointState::continues`] says so of each.
    Grown(Vec<BucketGrowth>),
}

/// A bucket the client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedBucket {
    /// Its name.
    pub name: BucketName,
    /// Its sums as of the observed state; `None`: as they were.
    pub totals: Option<BucketTotals>,
    /// 0 syncs first, 3 last.
    pub priority: u8,
    /// Why the client gets it.
    pub reasons: Vec<SubscriptionReason>,
}

/// Operations of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketRange {
    /// The bucket.
    pub bucket: BucketName,
    /// Operations after this one…
    pub after: OpId,
    /// …up to this one: the bucket's last one in the announced state.
    pub upto: OpId,
}

/// What to do next for the announced checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// Send operations of a bucket, then report how far with [`CheckpointState::sent`].
    Fetch(BucketRange),
    /// Send this line.
    Line(SyncLine),
}

/// The state of one connection. See the module.
#[derive(Debug, Default)]
pub struct CheckpointState {
    /// Positions the client named; used for the first checkpoint only, after which it has deleted all other buckets.
    requested: HashMap<BucketName, OpId>,
    /// Boxed: a tree has room for eleven where a client has two.
    held: BTreeMap<BucketName, Box<Held>>,
    /// Buckets that are not fully sent, in the order they will be.
    pending: BTreeSet<(u8, BucketName)>,
    /// Buckets of which something was sent that is valid in later states only.
    outdated: BTreeSet<BucketName>,
    write_checkpoint: Option<WriteCheckpointId>,
    /// The latest state that was announced.
    op_id: OpId,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Unannounced,
    /// Sending the checkpoint that ends at `op_id`; `priority` is the group that is being sent.
    Sending {
        op_id: OpId,
        priority: Option<u8>,
    },
    Complete,
}

#[derive(Debug)]
struct Held {
    totals: BucketTotals,
    priority: u8,
    reasons: Vec<SubscriptionReason>,
    /// The client has everything up to here.
    position: OpId,
    /// What it has is valid in states with this operation.
    valid_from: OpId,
}

impl CheckpointState {
    /// For a client that has these buckets up to these operations.
    pub fn new(requested: HashMap<BucketName, OpId>) -> Self {
        Self { requested, ..Self::default() }
    }

    /// Whether a checkpoint was announced.
    pub fn is_announced(&self) -> bool {
        self.phase != Phase::Unannounced
    }

    /// Announces the next state in full, as to a client that has what was sent so far.
    pub fn begin_anew(&mut self) {
        self.phase = Phase::Unannounced;
    }

    /// Whether all that was announced was sent.
    pub fn is_complete(&self) -> bool {
        !matches!(self.phase, Phase::Sending { .. })
    }

    /// Takes a newer state of the store. Returns the line that announces it, unless nothing changed for the client.
    pub fn advance(&mut self, observation: Observation) -> Option<SyncLine> {
        let Observation { op_id, write_checkpoint, buckets } = observation;
        // What is published may lag behind a state that was read. All that it has is known then.
        let op_id = op_id.max(self.op_id);
        let first = !self.is_announced();
        let (updated, removed, streams) = match buckets {
            ObservedBuckets::All(buckets, streams) => {
                let removed = self.remove_all_but(&buckets);
                let updated = buckets.into_iter().filter_map(|bucket| self.replace(bucket)).collect::<Vec<_>>();
                (updated, removed, streams)
            }
            ObservedBuckets::Grown(grown) => {
                let updated = grown.into_iter().filter_map(|growth| self.grow(&growth)).collect();
                (updated, Vec::new(), Vec::new())
            }
        };
        if !first && updated.is_empty() && removed.is_empty() && self.write_checkpoint == write_checkpoint {
            return None;
        }
        self.write_checkpoint = write_checkpoint;
        self.requested = HashMap::new();
        self.op_id = op_id;
        self.phase = Phase::Sending { op_id, priority: None };
        Some(if first {
            let buckets = self.held.iter().map(|(name, held)| held.describe(name)).collect();
            SyncLine::Checkpoint(Checkpoint { last_op_id: op_id, write_checkpoint, buckets, streams })
        } else {
            SyncLine::CheckpointDiff(CheckpointDiff {
                last_op_id: op_id,
                write_checkpoint,
                updated_buckets: updated,
                removed_buckets: removed,
            })
        })
    }

    fn remove_all_but(&mut self, wanted: &[ObservedBucket]) -> Vec<String> {
        let wanted: BTreeSet<&BucketName> = wanted.iter().map(|bucket| &bucket.name).collect();
        let (kept, removed): (BTreeMap<_, _>, BTreeMap<_, _>) =
            mem::take(&mut self.held).into_iter().partition(|(name, _)| wanted.contains(name));
        self.held = kept;
        for (name, held) in &removed {
            self.pending.remove(&(held.priority, name.clone()));
            self.outdated.remove(name);
        }
        removed.into_keys().map(|name| name.as_str().to_owned()).collect()
    }

    /// The bucket as the client must know it now, unless it knows it so already.
    fn replace(&mut self, bucket: ObservedBucket) -> Option<BucketChecksum> {
        let ObservedBucket { name, totals, priority, reasons } = bucket;
        let before = self.held.remove(&name);
        let totals = totals.or(before.as_ref().map(|held| held.totals)).unwrap_or_default();
        if let Some(before) = &before {
            self.pending.remove(&(before.priority, name.clone()));
        }
        // Compaction makes operations fewer, which is nothing to those who have them.
        let unchanged = before.as_ref().is_some_and(|held| {
            let sums = |totals: &BucketTotals| (totals.checksum, totals.last_op_id);
            (sums(&held.totals), held.priority, &held.reasons) == (sums(&totals), priority, &reasons)
        });
        let (position, valid_from) = match before {
            Some(before) => (before.position, before.valid_from),
            // Clients call everything up to a checkpoint theirs. One name for the same position lets them share ranges.
            None => (self.requested.remove(&name).unwrap_or_default().min(totals.last_op_id), OpId::ZERO),
        };
        let held = Box::new(Held { totals, priority, reasons, position, valid_from });
        let line = (!unchanged).then(|| held.describe(&name));
        self.note(&name, &held);
        self.held.insert(name, held);
        line
    }

    /// Notes what a bucket lacks.
    fn note(&mut self, name: &BucketName, held: &Held) {
        let place = (held.priority, name.clone());
        if held.is_pending() {
            self.pending.insert(place);
        } else {
            self.pending.remove(&place);
        }
        if held.is_outdated() {
            self.outdated.insert(name.clone());
        } else {
            self.outdated.remove(name);
        }
    }

    /// Whether the client gets this bucket.
    pub fn holds(&self, name: &BucketName) -> bool {
        self.held.contains_key(name)
    }

    /// Whether what is known of a bucket and this growth give its new totals. Not so if some of the growth, but not all,
    /// was already seen in a state that was read.
    pub fn continues(&self, growth: &BucketGrowth) -> bool {
        self.held.get(&growth.bucket).is_none_or(|held| {
            let known = held.totals.last_op_id;
            known < growth.first_op_id || known >= growth.added.last_op_id
        })
    }

    fn grow(&mut self, growth: &BucketGrowth) -> Option<BucketChecksum> {
        let (name, mut held) = self.held.remove_entry(&growth.bucket)?;
        let grows = held.totals.last_op_id < growth.added.last_op_id;
        if grows {
            held.totals.extend(&growth.added);
            self.note(&name, &held);
        }
        let line = grows.then(|| held.describe(&name));
        self.held.insert(name, held);
        line
    }

    /// Whether the announced state cannot become complete any more: a newer one is needed, which the store already has.
    pub fn is_outdated(&self) -> bool {
        !self.outdated.is_empty()
    }

    /// What to do next; `None` when all that was announced was sent, or must not be called complete.
    pub fn next_step(&mut self) -> Option<NextStep> {
        if self.is_outdated() {
            return None;
        }
        let Phase::Sending { op_id, priority: sending } = self.phase else { return None };
        let Some((priority, _)) = self.pending.first() else {
            if sending == Some(PRIORITY_OVER_UPLOADS) {
                self.phase = Phase::Sending { op_id, priority: None };
                return Some(partially_complete(op_id, PRIORITY_OVER_UPLOADS));
            }
            self.phase = Phase::Complete;
            // Gives back the last of its memory, too.
            self.pending.clear();
            return Some(NextStep::Line(SyncLine::CheckpointComplete(CheckpointComplete { last_op_id: op_id })));
        };
        self.phase = Phase::Sending { op_id, priority: Some(*priority) };
        if let Some(sent) = sending.filter(|sent| sent < priority) {
            return Some(partially_complete(op_id, sent));
        }
        self.next_range().map(NextStep::Fetch)
    }

    /// The operations that are sent next, if nothing newer comes in between.
    pub fn next_range(&self) -> Option<BucketRange> {
        let (_, bucket) = self.pending.first()?;
        let held = self.held.get(bucket)?;
        Some(BucketRange { bucket: bucket.clone(), after: held.position, upto: held.totals.last_op_id })
    }

    /// Operations of `bucket` were sent: up to `position`, where more follow, otherwise all of them. A range without any
    /// is sent up to zero. They are valid in states with `valid_from`, see [`OperationRange`](crate::storage::OperationRange).
    pub fn sent(&mut self, bucket: &BucketName, position: OpId, has_more: bool, valid_from: OpId) {
        let Some((name, mut held)) = self.held.remove_entry(bucket) else { return };
        held.valid_from = held.valid_from.max(valid_from);
        let is_all = !has_more && !held.is_outdated();
        held.position = if is_all { held.totals.last_op_id } else { held.position.max(position) };
        self.note(&name, &held);
        self.held.insert(name, held);
    }
}

fn partially_complete(last_op_id: OpId, priority: u8) -> NextStep {
    NextStep::Line(SyncLine::PartialCheckpointComplete(PartialCheckpointComplete { last_op_id, priority }))
}

impl Held {
    fn is_pending(&self) -> bool {
        self.position < self.totals.last_op_id
    }

    fn is_outdated(&self) -> bool {
        self.valid_from > self.totals.last_op_id
    }

    fn describe(&self, name: &BucketName) -> BucketChecksum {
        BucketChecksum {
            bucket: name.as_str().to_owned(),
            checksum: self.totals.checksum,
            count: self.totals.count,
            priority: self.priority,
            subscriptions: self.reasons.clone(),
        }
    }
}

#[cfg(test)]
#[path = "checkpoint_state_tests.rs"]
mod tests;
