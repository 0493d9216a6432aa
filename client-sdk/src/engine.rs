//! What the download and the upload loop share.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kairos_sync_protocol::request::SyncRequest;
use serde::Serialize;
use tokio::sync::{Mutex, Notify, watch};

use crate::{
    client::ClientOptions,
    connector::{Connector, Credentials, CredentialsReason},
    core::{CloseReason, ProtocolError},
    events::Events,
    network::NetworkKind,
    status::{Problem, StatusBoard},
    store::{Store, StoreError, account},
    token::TokenClaims,
    transport::{Transport, TransportError, backoff::Backoff},
};

/// The app has this long to come up with credentials.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_mins(1);

/// The loops' common ground.
pub(crate) struct Engine {
    pub(crate) store: Store,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) session: Session,
    pub(crate) board: StatusBoard,
    pub(crate) statistics: Counters,
    pub(crate) options: ClientOptions,
    /// What all sync requests have in common.
    pub(crate) template: SyncRequest,
    pub(crate) signals: Signals,
    pub(crate) events: Events,
    pub(crate) network: watch::Sender<NetworkKind>,
    /// Tells that a subscription was synced for the first time.
    pub(crate) first_syncs: watch::Sender<()>,
}

/// How the loops wake each other. A `Notify` remembers one signal, which is all each of them needs.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// The app wrote something.
    pub(crate) written: Notify,
    /// A stream is open, so an upload is worth trying.
    pub(crate) online: Notify,
    /// The queue is empty and the store knows the write checkpoint.
    pub(crate) drained: Notify,
    /// The app does not want to wait for the next attempt.
    pub(crate) retry: Notify,
    /// Other streams are wanted.
    pub(crate) resubscribe: Notify,
}

/// Why a stream ended, or could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The connector has no credentials.
    #[error("no server is configured")]
    NotConfigured,
    /// The service could not be asked, or did not answer as expected.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The local database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The token is of another user than the one whose data this is.
    #[error("this database is another user's; sign out, or open a database for this user")]
    OtherUser,
    /// Buckets whose operations do not add up to what the service announced.
    #[error("the buckets {0:?} did not add up; they are downloaded again")]
    Damaged(Vec<String>),
}

impl SyncError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotConfigured => "CLIENT-0300",
            Self::Transport(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Protocol(_) => "CLIENT-0301",
            Self::Damaged(_) => "CLIENT-0302",
            Self::OtherUser => "CLIENT-0303",
        }
    }

    /// How long the service wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transport(error) => error.retry_after(),
            _ => None,
        }
    }

    /// What it means to an app; nothing where there is no server.
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Self::NotConfigured => None,
            Self::Transport(error) => Some(error.into()),
            Self::Store(_) => Some(Problem::LocalDatabase),
            Self::Protocol(_) | Self::Damaged(_) => Some(Problem::Unavailable),
            Self::OtherUser => Some(Problem::OtherUser),
        }
    }
}

/// How a stream ended that did nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// The next one follows.
    Ended,
    /// What is left may wait.
    Deferred,
}

/// What the end of a stream means: whether it was an error.
pub(crate) fn outcome(reason: CloseReason) -> Result<StreamEnd, SyncError> {
    match reason {
        CloseReason::TokenExpired | CloseReason::TokenRefreshed => Ok(StreamEnd::Ended),
        CloseReason::Deferred => Ok(StreamEnd::Deferred),
        CloseReason::Damaged(buckets) => Err(SyncError::Damaged(buckets)),
        CloseReason::Protocol(error) => Err(error.into()),
    }
}

impl Engine {
    /// Makes a call with the current credentials; once more with new ones if they are refused.
    pub(crate) async fn authorized<T, F>(&self, call: impl Fn(Credentials) -> F) -> Result<T, SyncError>
    where
        F: Future<Output = Result<T, TransportError>>,
    {
        let credentials = self.credentials().await?;
        match call(credentials.clone()).await {
            Err(refused @ TransportError::Unauthorized(_)) => {
                self.session.expire(&credentials).await;
                let renewed = self.credentials().await?;
                if renewed == credentials {
                    self.session.expire(&credentials).await;
                    return Err(refused.into());
                }
                Ok(call(renewed).await?)
            }
            result => Ok(result?),
        }
    }

    /// The credentials, if they are of the user whose data this is: nobody's writes go up under another name.
    async fn credentials(&self) -> Result<Credentials, SyncError> {
        let credentials = self.session.credentials().await?;
        let Some(user) = TokenClaims::read(&credentials.token).sub else { return Ok(credentials) };
        if *self.session.user.lock().await != Some(user.clone()) {
            let claimed = user.clone();
            if !self.store.write(move |tx| account::belongs_to(tx, &claimed)).await? {
                return Err(SyncError::OtherUser);
            }
            *self.session.user.lock().await = Some(user);
        }
        Ok(credentials)
    }

    /// Shows what became of local writes. Looked up while noting, so that an older state never replaces a newer one.
    pub(crate) fn note_local_state(&self) {
        self.board.note(|facts| facts.local = self.store.local_state());
    }

    /// Waits while the device has no network.
    pub(crate) async fn has_network(&self) {
        // Fails only when the sender is gone, which `self` holds.
        let _ = self.network.subscribe().wait_for(|kind| *kind != NetworkKind::None).await;
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.options.retry_base, self.options.retry_cap)
    }
}

/// The credentials in use. Whoever needs new ones waits for the one call to the app that is under way.
pub(crate) struct Session {
    connector: Arc<dyn Connector>,
    cached: Mutex<Cached>,
    /// Whose data this is, once that was looked up.
    user: Mutex<Option<String>>,
}

#[derive(Default)]
struct Cached {
    credentials: Option<Credentials>,
    expired: bool,
}

impl Session {
    pub(crate) fn new(connector: Arc<dyn Connector>) -> Self {
        Self { connector, cached: Mutex::default(), user: Mutex::default() }
    }

    pub(crate) fn connector(&self) -> &dyn Connector {
        self.connector.as_ref()
    }

    pub(crate) async fn credentials(&self) -> Result<Credentials, SyncError> {
        let mut cached = self.cached.lock().await;
        if let Some(credentials) = &cached.credentials {
            return Ok(credentials.clone());
        }
        let reason = if cached.expired { CredentialsReason::Expired } else { CredentialsReason::First };
        self.fetch(&mut cached, reason).await
    }

    /// Fetches new credentials; true when they differ from those in use.
    pub(crate) async fn renew(&self) -> Result<bool, SyncError> {
        let mut cached = self.cached.lock().await;
        let before = cached.credentials.clone();
        let renewed = self.fetch(&mut cached, CredentialsReason::Expired).await?;
        Ok(before != Some(renewed))
    }

    /// The service does not accept these credentials. Newer ones, fetched meanwhile, stay.
    pub(crate) async fn expire(&self, refused: &Credentials) {
        let mut cached = self.cached.lock().await;
        if cached.credentials.as_ref() == Some(refused) {
            *cached = Cached { credentials: None, expired: true };
        }
    }

    /// Nobody is signed in.
    pub(crate) async fn forget(&self) {
        *self.cached.lock().await = Cached::default();
        *self.user.lock().await = None;
    }

    async fn fetch(&self, cached: &mut Cached, reason: CredentialsReason) -> Result<Credentials, SyncError> {
        let fetched = tokio::time::timeout(CREDENTIALS_TIMEOUT, self.connector.credentials(reason)).await;
        let credentials = fetched.map_err(|elapsed| TransportError::Unreachable(elapsed.into()))??;
        let Some(credentials) = credentials else {
            *cached = Cached::default();
            return Err(SyncError::NotConfigured);
        };
        *cached = Cached { credentials: Some(credentials.clone()), expired: false };
        Ok(credentials)
    }
}

/// Totals since the client was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Streams opened.
    pub streams: u64,
    /// Bytes of lines received, after decompression.
    pub bytes_received: u64,
    /// Operations received.
    pub operations: u64,
    /// Checkpoints that became visible, parts not counted.
    pub checkpoints: u64,
    /// Local writes the service answered.
    pub writes_uploaded: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) streams: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) operations: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) writes_uploaded: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            streams: read(&self.streams),
            bytes_received: read(&self.bytes_received),
            operations: read(&self.operations),
            checkpoints: read(&self.checkpoints),
            writes_uploaded: read(&self.writes_uploaded),
        }
    }
}
