//! Tells a tool what the sync does, step by step. Apps show the [`Status`](crate::Status) instead.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use crate::{
    core::{Event, Instruction, Scope, Target},
    engine::{Statistics, SyncError},
    store::RowChanges,
};

/// Hears of every step, in order. The sync waits until it has.
#[async_trait]
pub trait Observer: Send + Sync + 'static {
    /// A checkpoint, or its first priorities, became visible.
    async fn published(&self, checkpoint: PublishedCheckpoint);

    /// A stream could not be opened, or ended with an error. The client tries again by itself, sooner or later.
    async fn failed(&self, error: &SyncError);

    /// The state machine is about to be told this. With what it [decides](Self::decided), a sync can be told again, on
    /// any platform.
    fn told(&self, _event: &Event) {}

    /// What the state machine has decided.
    fn decided(&self, _instructions: &[Instruction]) {}
}

/// A checkpoint the app sees now.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedCheckpoint {
    /// The checkpoint, with all buckets and streams of the client.
    pub target: Arc<Target>,
    /// How much of it is visible.
    pub scope: Scope,
    /// What it did to the app's tables; those it left as they were are not named.
    pub rows: BTreeMap<String, RowChanges>,
    /// Totals at this moment.
    pub statistics: Statistics,
}
