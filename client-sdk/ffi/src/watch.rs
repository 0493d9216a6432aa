//! What the app hears of until it does not want to any more.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::{error::KairosError, status::KairosStatus};

/// Hears of the rows of a query, at once and whenever they are others.
#[uniffi::export(with_foreign)]
pub trait RowsListener: Send + Sync {
    /// All rows: a JSON array of objects.
    fn rows(&self, json: String);
    /// The query cannot go on; nothing comes any more.
    fn failed(&self, error: KairosError);
}

/// Hears of the status.
#[uniffi::export(with_foreign)]
pub trait StatusListener: Send + Sync {
    /// The status now.
    fn changed(&self, status: KairosStatus);
}

/// Hears of what happens.
#[uniffi::export(with_foreign)]
pub trait EventListener: Send + Sync {
    /// Something happened.
    fn happened(&self, event: KairosEvent);
}

/// What happened in the sync.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum KairosEvent {
    /// A whole checkpoint became visible.
    SyncCompleted,
    /// Rows of these tables changed.
    EntitiesUpdated {
        /// The app's tables.
        tables: Vec<String>,
    },
    /// The stream ended with an error; it is tried again.
    SyncError {
        /// Stable code.
        code: String,
    },
    /// The service did not take some local writes.
    WritesRejected {
        /// How many.
        count: u64,
    },
}

/// Something that is heard of. Ends when it is dropped.
#[derive(uniffi::Object)]
pub struct KairosWatch(JoinHandle<()>);

#[uniffi::export]
impl KairosWatch {
    /// Ends it. A call to the listener that has begun still comes.
    pub fn cancel(&self) {
        self.0.abort();
    }
}

impl KairosWatch {
    pub(crate) fn new(task: JoinHandle<()>) -> Arc<Self> {
        Arc::new(Self(task))
    }
}

impl Drop for KairosWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
