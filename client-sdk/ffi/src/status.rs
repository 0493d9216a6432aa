//! What the app shows about the sync.

use std::time::{SystemTime, UNIX_EPOCH};

use kairos_client::{NetworkKind, Problem, Progress, Recovery, Status, SyncState};

/// The state of the sync in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum KairosState {
    /// There is no server yet.
    NotConfigured,
    /// No connection; the app works on local data.
    Offline,
    /// No connection, and local writes wait for one.
    Pending,
    /// What is urgent is visible; the rest waits for a network where data does not cost.
    Deferred,
    /// A transfer is in progress.
    Syncing,
    /// Everything is uploaded, and the latest state of the service is visible.
    Synced,
    /// Something is wrong that the user, or whoever runs the server, should know.
    Failed,
}

/// What helps against a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum KairosRecovery {
    /// The client tries again.
    RetriesByItself,
    /// The user signs in again.
    SignIn,
    /// The user corrects the server's address.
    CheckAddress,
}

/// The last failure.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct KairosProblem {
    /// What to tell the user.
    pub message: String,
    /// What helps.
    pub recovery: KairosRecovery,
}

/// Operations of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct KairosProgress {
    /// Received.
    pub done: u64,
    /// To receive.
    pub total: u64,
}

/// The sync in detail.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct KairosStatus {
    /// In one word.
    pub state: KairosState,
    /// The text of the status indicator, in English.
    pub label: String,
    /// The last failure, until something works again.
    pub problem: Option<KairosProblem>,
    /// A stream from the service is open.
    pub connected: bool,
    /// Local writes waiting for their upload.
    pub pending: u64,
    /// The download under way, if there is one.
    pub progress: Option<KairosProgress>,
    /// Seconds since 1970 at which a whole checkpoint became visible for the last time.
    pub last_synced_at: Option<u64>,
}

/// The network a device is in, as its system tells the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum KairosNetwork {
    /// Data costs nothing.
    Unmetered,
    /// Data costs: late priorities wait.
    Metered,
    /// None: nothing is tried.
    Absent,
}

impl From<Progress> for KairosProgress {
    fn from(Progress { done, total }: Progress) -> Self {
        Self { done, total }
    }
}

impl From<KairosNetwork> for NetworkKind {
    fn from(network: KairosNetwork) -> Self {
        match network {
            KairosNetwork::Unmetered => Self::Unmetered,
            KairosNetwork::Metered => Self::Metered,
            KairosNetwork::Absent => Self::None,
        }
    }
}

impl From<Problem> for KairosProblem {
    fn from(problem: Problem) -> Self {
        let recovery = match problem.recovery() {
            Recovery::RetriesByItself => KairosRecovery::RetriesByItself,
            Recovery::SignIn => KairosRecovery::SignIn,
            Recovery::CheckAddress => KairosRecovery::CheckAddress,
        };
        Self { message: problem.message().to_owned(), recovery }
    }
}

impl From<&Status> for KairosStatus {
    fn from(status: &Status) -> Self {
        let state = match status.state {
            SyncState::NotConfigured => KairosState::NotConfigured,
            SyncState::Offline => KairosState::Offline,
            SyncState::Pending(_) => KairosState::Pending,
            SyncState::Deferred => KairosState::Deferred,
            SyncState::Syncing => KairosState::Syncing,
            SyncState::Synced => KairosState::Synced,
            SyncState::Error(_) => KairosState::Failed,
        };
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        Self {
            state,
            label: status.state.label(),
            problem: status.problem.map(KairosProblem::from),
            connected: status.connected,
            pending: status.pending,
            progress: status.progress.map(KairosProgress::from),
            last_synced_at: status.last_synced_at.and_then(seconds),
        }
    }
}
