//! How far a download is, counted in operations.

use std::{collections::HashMap, ops::AddAssign, sync::Arc};

use kairos_sync_protocol::{
    line::{BucketChecksum, BucketData, SubscriptionReason},
    request::StreamSubscription,
};
use serde_json::{Map, Value};

use crate::event::{BucketState, Target};

/// Priorities are 0 to 3; what a later version of the protocol adds counts as the last.
const PRIORITIES: usize = 4;

/// Operations of the checkpoint under way, for progress bars. Both are zero when there is nothing to download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Progress {
    /// Received since the last published checkpoint.
    pub done: u64,
    /// To receive since the last published checkpoint.
    pub total: u64,
}

impl Progress {
    /// Between 0 and 1; 0 when there is nothing to download.
    #[expect(clippy::cast_precision_loss, reason = "a progress bar has fewer pixels than a mantissa has values")]
    pub fn fraction(self) -> f64 {
        if self.total == 0 { 0.0 } else { self.done as f64 / self.total as f64 }
    }
}

impl AddAssign for Progress {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.total += other.total;
    }
}

/// How far the download of the checkpoint under way is: of all of it, of its first priorities, and of each stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Download {
    /// Of each priority alone.
    priorities: [Progress; PRIORITIES],
    streams: Vec<StreamProgress>,
}

/// How far the download of a stream is. A bucket that several streams have counts for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamProgress {
    /// Name of the stream, or of a bucket definition.
    pub stream: Arc<str>,
    /// What it was subscribed to with. `None` for what everybody gets, too.
    pub parameters: Option<Arc<Map<String, Value>>>,
    /// Its operations.
    pub progress: Progress,
}

impl Download {
    /// Of everything.
    pub fn total(&self) -> Progress {
        self.up_to(u8::MAX)
    }

    /// Of what must arrive before this priority is visible: its buckets, and those of lower numbers.
    pub fn up_to(&self, priority: u8) -> Progress {
        let mut sum = Progress::default();
        self.priorities.iter().take(usize::from(priority) + 1).for_each(|progress| sum += *progress);
        sum
    }

    /// Of each stream that has buckets.
    pub fn streams(&self) -> &[StreamProgress] {
        &self.streams
    }

    /// Of one stream. `None` where the service named no bucket of it.
    pub fn stream(&self, stream: &str, parameters: Option<&Map<String, Value>>) -> Option<Progress> {
        let mut of_stream = self.streams.iter().filter(|of| &*of.stream == stream);
        of_stream.find(|of| of.parameters.as_deref() == parameters).map(|of| of.progress)
    }
}

/// Counters per bucket, kept as the store keeps them, and what they come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    buckets: HashMap<String, BucketCount>,
    priorities: [Progress; PRIORITIES],
    /// In the order in which the target first names them.
    streams: Vec<StreamProgress>,
    positions: HashMap<SubscriptionReason, usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct BucketCount {
    at_last: u64,
    since_last: u64,
}

impl Counters {
    pub(super) fn new(buckets: &[BucketState]) -> Self {
        let count =
            |state: &BucketState| BucketCount { at_last: state.count_at_last, since_last: state.count_since_last };
        let buckets = buckets.iter().map(|state| (state.name.clone(), count(state))).collect();
        Self { buckets, ..Self::default() }
    }

    pub(super) fn download(&self) -> Download {
        Download { priorities: self.priorities, streams: self.streams.clone() }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.buckets.keys()
    }

    pub(super) fn contains(&self, bucket: &str) -> bool {
        self.buckets.contains_key(bucket)
    }

    pub(super) fn remove(&mut self, bucket: &str) {
        self.buckets.remove(bucket);
    }

    /// A new target. Where the service has fewer operations than were counted (it compacted), counting starts again.
    pub(super) fn aim_at(&mut self, target: &Target, subscriptions: &[StreamSubscription]) {
        let shrunk = target.buckets.values().any(|bucket| {
            self.buckets
                .get(&bucket.bucket)
                .is_some_and(|count| bucket.count < count.at_last.saturating_add(count.since_last))
        });
        if shrunk {
            self.buckets.values_mut().for_each(|count| *count = BucketCount::default());
        }
        self.priorities = Default::default();
        self.streams.clear();
        self.positions.clear();
        for bucket in target.buckets.values() {
            for reason in &bucket.subscriptions {
                self.name_stream(*reason, target, subscriptions);
            }
            let count = self.buckets.get(&bucket.bucket).copied().unwrap_or_default();
            let total = bucket.count.saturating_sub(count.at_last);
            self.count(bucket, |progress| *progress += Progress { done: count.since_last, total });
        }
    }

    pub(super) fn receive(&mut self, data: &BucketData, bucket: &BucketChecksum) {
        let operations = data.data.len() as u64;
        self.count(bucket, |progress| progress.done = (progress.done + operations).min(progress.total));
        match self.buckets.get_mut(&data.bucket) {
            Some(count) => count.since_last += operations,
            None => {
                self.buckets.insert(data.bucket.clone(), BucketCount { at_last: 0, since_last: operations });
            }
        }
    }

    /// Wherever the bucket counts.
    fn count(&mut self, bucket: &BucketChecksum, count: impl Fn(&mut Progress)) {
        let last = usize::from(bucket.priority).min(PRIORITIES - 1);
        if let Some(progress) = self.priorities.get_mut(last) {
            count(progress);
        }
        for reason in &bucket.subscriptions {
            if let Some(stream) = self.positions.get(reason).and_then(|position| self.streams.get_mut(*position)) {
                count(&mut stream.progress);
            }
        }
    }

    /// A reason that names no stream is passed over.
    fn name_stream(&mut self, reason: SubscriptionReason, target: &Target, subscriptions: &[StreamSubscription]) {
        if self.positions.contains_key(&reason) {
            return;
        }
        let named = match reason {
            SubscriptionReason::Default(index) => target.streams.get(index).map(|stream| (&stream.name, None)),
            SubscriptionReason::Sub(index) => {
                subscriptions.get(index).map(|subscription| (&subscription.stream, subscription.parameters.clone()))
            }
        };
        let Some((stream, parameters)) = named else { return };
        let (stream, parameters) = (stream.as_str().into(), parameters.map(Arc::new));
        self.positions.insert(reason, self.streams.len());
        self.streams.push(StreamProgress { stream, parameters, progress: Progress::default() });
    }

    pub(super) fn publish(&mut self, target: &Target) {
        for bucket in target.buckets.values() {
            let count = BucketCount { at_last: bucket.count, since_last: 0 };
            match self.buckets.get_mut(&bucket.bucket) {
                Some(known) => *known = count,
                None => {
                    self.buckets.insert(bucket.bucket.clone(), count);
                }
            }
        }
        self.priorities = Default::default();
        self.streams.clear();
        self.positions.clear();
    }
}
