//! What the app shows about the sync.

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

use crate::{
    core::{Download, Progress},
    store::LocalState,
    transport::TransportError,
};

/// The state of the sync, as an app shows it in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SyncState {
    /// There is no server yet.
    #[default]
    NotConfigured,
    /// No connection; the app works on local data.
    Offline,
    /// No connection, and this many local writes wait for one.
    Pending(u64),
    /// What is urgent is visible; the rest waits for a network where data does not cost.
    Deferred,
    /// A transfer is in progress.
    Syncing,
    /// Connected; all local writes are uploaded and the latest state of the service is visible.
    Synced,
    /// Something is wrong that the user, or whoever runs the server, should know.
    Error(Problem),
}

impl SyncState {
    /// The text of the status indicator. Apps that speak another language translate the state instead.
    pub fn label(self) -> String {
        match self {
            Self::NotConfigured => "Not synced".into(),
            Self::Offline => "Offline".into(),
            Self::Pending(writes) => format!("{writes} pending"),
            Self::Deferred => "Waiting for Wi-Fi".into(),
            Self::Syncing => "Syncing...".into(),
            Self::Synced => "Synced".into(),
            Self::Error(_) => "Sync error".into(),
        }
    }
}

/// Why the sync does not work. Local data is not affected by any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The server does not answer.
    Unreachable,
    /// The server does not accept the credentials, also not new ones.
    SignInAgain,
    /// The server answers with an error.
    Unavailable,
    /// At this address is nothing, or something else.
    ServerNotFound,
    /// The local database cannot be written, for example because the disk is full.
    LocalDatabase,
    /// The data on this device is of another user than the one who is signed in.
    OtherUser,
}

impl Problem {
    /// What to tell the user.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Unreachable => "Can't reach server. Working offline.",
            Self::SignInAgain => "Please sign in again",
            Self::Unavailable => "Sync temporarily unavailable",
            Self::ServerNotFound => "Server not found at this address",
            Self::LocalDatabase => "Can't write to this device's storage",
            Self::OtherUser => "This device has another account's data",
        }
    }

    /// What helps.
    pub const fn recovery(self) -> Recovery {
        match self {
            Self::Unreachable | Self::Unavailable | Self::LocalDatabase => Recovery::RetriesByItself,
            Self::SignInAgain | Self::OtherUser => Recovery::SignIn,
            Self::ServerNotFound => Recovery::CheckAddress,
        }
    }
}

impl From<&TransportError> for Problem {
    fn from(error: &TransportError) -> Self {
        match error {
            TransportError::Unreachable(_) | TransportError::Tls(_) => Self::Unreachable,
            TransportError::Unauthorized(_) => Self::SignInAgain,
            TransportError::NotFound { .. } => Self::ServerNotFound,
            TransportError::Refused { .. } | TransportError::Line(_) | TransportError::LineTooLong { .. } => {
                Self::Unavailable
            }
        }
    }
}

/// What helps against a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// The client tries again, less and less often.
    RetriesByItself,
    /// The user signs in again; the client tries again as soon as the connector has new credentials.
    SignIn,
    /// The user corrects the server's address.
    CheckAddress,
}

/// The sync in detail.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// In one word.
    pub state: SyncState,
    /// The last failure, until something works again. Also set while [`SyncState::Offline`].
    pub problem: Option<Problem>,
    /// A stream from the service is open.
    pub connected: bool,
    /// Local writes waiting for their upload.
    pub pending: u64,
    /// The download under way, if there is one.
    pub progress: Option<Progress>,
    /// The same by priority and by stream.
    pub download: Option<Download>,
    /// When a whole checkpoint became visible for the last time. `None` before the first sync.
    pub last_synced_at: Option<SystemTime>,
    /// Everything with this priority number, or a lower one, has been visible at least once. `None` before that is true
    /// of any, and the largest number once a whole checkpoint was visible.
    pub first_synced_priority: Option<u8>,
}

/// What there is between client and service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing.
    #[default]
    Down,
    /// Nothing for now: what is left may wait.
    Deferred,
    /// A stream is open.
    Up,
}

/// What is known, before it is put into one word.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    /// The connector has a server and credentials.
    pub(crate) configured: bool,
    pub(crate) link: Link,
    /// The latest checkpoint of the stream is visible.
    pub(crate) current: bool,
    pub(crate) download: Download,
    pub(crate) local: LocalState,
    /// Why there is no stream.
    pub(crate) stream_problem: Option<Problem>,
    /// Why the last upload failed.
    pub(crate) upload_problem: Option<Problem>,
}

impl Facts {
    pub(crate) fn status(&self) -> Status {
        let is_up = self.link == Link::Up;
        let progress = Some(self.download.total()).filter(|progress| is_up && progress.total > 0);
        Status {
            state: self.state(),
            problem: self.problem(),
            connected: is_up,
            pending: self.local.pending,
            progress,
            download: progress.map(|_| self.download.clone()),
            last_synced_at: self.local.last_synced_at,
            first_synced_priority: self.local.first_synced_priority,
        }
    }

    fn problem(&self) -> Option<Problem> {
        self.stream_problem.or(self.upload_problem)
    }

    fn state(&self) -> SyncState {
        if !self.configured {
            return SyncState::NotConfigured;
        }
        let is_up = self.link == Link::Up;
        match self.problem() {
            Some(problem) if problem != Problem::Unreachable => SyncState::Error(problem),
            _ if is_up && self.current && self.local.pending == 0 && !self.local.awaiting => SyncState::Synced,
            _ if is_up => SyncState::Syncing,
            _ if self.link == Link::Deferred && self.local.pending == 0 => SyncState::Deferred,
            _ if self.local.pending > 0 => SyncState::Pending(self.local.pending),
            _ => SyncState::Offline,
        }
    }
}

/// Where facts are noted and the status is read.
#[derive(Debug)]
pub(crate) struct StatusBoard {
    facts: Mutex<Facts>,
    status: watch::Sender<Status>,
}

impl StatusBoard {
    pub(crate) fn new(facts: Facts) -> Self {
        Self { status: watch::Sender::new(facts.status()), facts: Mutex::new(facts) }
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut Facts)) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut facts);
        let status = facts.status();
        self.status.send_if_modified(|shown| {
            let is_new = *shown != status;
            *shown = status;
            is_new
        });
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced() -> Facts {
        Facts { configured: true, link: Link::Up, current: true, ..Facts::default() }
    }

    fn with_local(facts: Facts, pending: u64, awaiting: bool) -> SyncState {
        Facts { local: LocalState { pending, awaiting, ..LocalState::default() }, ..facts }.status().state
    }

    #[test]
    fn synced_means_uploaded_acknowledged_and_current() {
        assert_eq!(synced().status().state, SyncState::Synced);
        assert_eq!(with_local(synced(), 1, true), SyncState::Syncing);
        assert_eq!(with_local(synced(), 0, true), SyncState::Syncing);
        assert_eq!(Facts { current: false, ..synced() }.status().state, SyncState::Syncing);
    }

    #[test]
    fn without_a_connection_queued_writes_are_counted() {
        let offline = Facts { link: Link::Down, stream_problem: Some(Problem::Unreachable), ..synced() };
        assert_eq!(offline.status().state, SyncState::Offline);
        assert_eq!(with_local(offline.clone(), 3, true).label(), "3 pending");
        assert_eq!(offline.status().problem.map(Problem::message), Some("Can't reach server. Working offline."));
    }

    #[test]
    fn what_the_user_must_solve_is_an_error() {
        let facts = Facts { link: Link::Down, stream_problem: Some(Problem::SignInAgain), ..synced() };
        assert_eq!(facts.status().state, SyncState::Error(Problem::SignInAgain));
        assert_eq!(Facts { configured: false, ..facts }.status().state, SyncState::NotConfigured);
    }
}
