//! Events and commands over channels, for apps whose parts speak that way.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::sync::{broadcast, mpsc};

use crate::{
    client::{Client, WeakClient},
    status::Problem,
};

/// Events an app may be behind. Who is further behind misses some, and is told how many.
const EVENTS_MAX: usize = 256;
/// Commands that may wait.
const COMMANDS_MAX: usize = 16;

/// What happened in the sync.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncEvent {
    /// A whole checkpoint became visible: what the service had at one moment.
    SyncCompleted,
    /// A checkpoint, or a part of one, changed rows of these tables.
    EntitiesUpdated {
        /// The app's tables.
        tables: BTreeSet<String>,
    },
    /// The stream ended with an error; it is tried again.
    SyncError {
        /// Stable code, as in `docs/errors.md`.
        code: &'static str,
        /// What it means to the user; nothing where there is no server.
        problem: Option<Problem>,
    },
    /// The service did not take some local writes: see [`Client::rejected_writes`].
    WritesRejected {
        /// How many.
        count: usize,
    },
}

/// What an app wants of the sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// [`Client::connect`].
    Start,
    /// [`Client::disconnect`].
    Stop,
    /// [`Client::sync_now`].
    ForceSync,
}

/// An event as the log keeps it: what and when, without a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggedEvent {
    /// Seconds since 1970.
    pub at: u64,
    /// Its name, with the code of an error.
    pub event: String,
}

/// Where events are sent, and the last of them kept.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<SyncEvent>,
    log: Mutex<VecDeque<LoggedEvent>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(EVENTS_MAX), log: Mutex::default() }
    }
}

impl Events {
    pub(crate) fn send(&self, event: SyncEvent) {
        self.log(&event);
        // An error says that nobody listens.
        let _ = self.sender.send(event);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<SyncEvent> {
        self.sender.subscribe()
    }

    pub(crate) fn logged(&self) -> Vec<LoggedEvent> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn log(&self, event: &SyncEvent) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let event = match event {
            SyncEvent::SyncCompleted => "sync_completed".to_owned(),
            SyncEvent::EntitiesUpdated { tables } => format!("entities_updated in {} tables", tables.len()),
            SyncEvent::SyncError { code, .. } => format!("sync_error {code}"),
            SyncEvent::WritesRejected { count } => format!("writes_rejected {count}"),
        };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == EVENTS_MAX {
            log.pop_front();
        }
        log.push_back(LoggedEvent { at, event });
    }
}

/// Performs commands in the order in which they are sent, until the sender or the client is gone.
pub(crate) fn commands(client: WeakClient) -> mpsc::Sender<Command> {
    let (sender, mut receiver) = mpsc::channel(COMMANDS_MAX);
    let runtime = client.runtime().clone();
    runtime.spawn(async move {
        while let Some(command) = receiver.recv().await {
            let Some(client) = client.upgrade() else { return };
            perform(&client, command).await;
        }
    });
    sender
}

async fn perform(client: &Client, command: Command) {
    match command {
        Command::Start => client.connect(),
        Command::Stop => client.disconnect().await,
        Command::ForceSync => client.sync_now(),
    }
}
