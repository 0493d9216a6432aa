//! How far a download is, counted in operations.

use std::collections::HashMap;

use kairos_sync_protocol::line::BucketData;

use crate::event::{BucketState, Target};

/// Operations of the checkpoint under way, for progress bars. Both are zero when there is nothing to download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// Counters per bucket, kept as the store keeps them.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    buckets: HashMap<String, BucketCount>,
    progress: Progress,
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
        Self { buckets, progress: Progress::default() }
    }

    pub(super) const fn progress(&self) -> Progress {
        self.progress
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
    pub(super) fn aim_at(&mut self, target: &Target) {
        let shrunk = target.buckets.values().any(|bucket| {
            self.buckets
                .get(&bucket.bucket)
                .is_some_and(|count| bucket.count < count.at_last.saturating_add(count.since_last))
        });
        if shrunk {
            self.buckets.values_mut().for_each(|count| *count = BucketCount::default());
        }
        self.progress = Progress::default();
        for bucket in target.buckets.values() {
            let count = self.buckets.get(&bucket.bucket).copied().unwrap_or_default();
            self.progress.total += bucket.count.saturating_sub(count.at_last);
            self.progress.done += count.since_last;
        }
    }

    pub(super) fn receive(&mut self, data: &BucketData) {
        let operations = data.data.len() as u64;
        self.progress.done = (self.progress.done + operations).min(self.progress.total);
        match self.buckets.get_mut(&data.bucket) {
            Some(count) => count.since_last += operations,
            None => {
                self.buckets.insert(data.bucket.clone(), BucketCount { at_last: 0, since_last: operations });
            }
        }
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
        self.progress = Progress::default();
    }
}
