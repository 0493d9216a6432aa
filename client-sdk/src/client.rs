//! The façade.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use kairos_sync_protocol::{
    conflict::Choice,
    request::{StreamSubscription, StreamSubscriptions, SyncRequest},
};
use rusqlite::{Connection, Params, Row, Transaction};
use serde_json::{Map, Value};
use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{
    changes::TableWatch,
    connector::Connector,
    download,
    engine::{Counters, Engine, Session, Signals, Statistics},
    events::{self, Command, Events, LoggedEvent, SyncEvent},
    live::LiveQuery,
    network::NetworkKind,
    observer::Observer,
    schema::Schema,
    status::{Facts, Status, StatusBoard, SyncState},
    store::{
        self, RejectedWrite, Store, StoreError, Verification, account, archive, attention, identity, subscriptions,
    },
    subscription::{Subscription, SubscriptionOptions},
    transport::{HttpOptions, HttpTransport, Transport, TransportError},
    upload,
};

/// Why a call failed. Failures of the sync are not here but in the [`Status`]: the app works on without it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The local database.
    #[error("local database")]
    Store(#[from] StoreError),
    /// The transport could not be set up.
    #[error("set up the transport")]
    Transport(#[from] TransportError),
    /// Local writes would be lost.
    #[error("{pending} local writes are not uploaded yet: sync first, keep the data, or delete those too")]
    Unsent {
        /// How many.
        pending: u64,
    },
}

/// What becomes of the data on this device when its user signs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignOut {
    /// It stays, and waits for the same user.
    KeepData,
    /// It is deleted, unless there are local writes that were not uploaded.
    DeleteData,
    /// It is deleted, whatever is lost with it.
    DeleteUnsentToo,
}

impl ClientError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Transport(error) => error.code(),
            Self::Unsent { .. } => "CLIENT-0112",
        }
    }
}

/// What [`Client::open_with`] can be told.
#[derive(Clone)]
pub struct ClientOptions {
    /// Client parameters for the sync rules. Not authenticated.
    pub parameters: Map<String, Value>,
    /// For the service's logs.
    pub app_metadata: Map<String, Value>,
    /// Streams to sync; by default those everybody gets.
    pub streams: StreamSubscriptions,
    /// Longest wait after a first failure; doubles with each further one. Default 1 s.
    pub retry_base: Duration,
    /// Longest wait. Default 60 s.
    pub retry_cap: Duration,
    /// While the app says that data costs ([`Client::set_network`]), buckets of later priorities than this wait. Default
    /// `None`: nothing waits.
    pub metered_priority_max: Option<u8>,
    /// Where something waits, what is urgent is asked for again so often, and whenever [`Client::sync_now`] is called.
    /// Default 5 min.
    pub metered_interval: Duration,
    /// Another transport than HTTP.
    pub transport: Option<Arc<dyn Transport>>,
    /// Hears of every step of the sync.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            parameters: Map::new(),
            app_metadata: Map::new(),
            streams: StreamSubscriptions::default(),
            retry_base: Duration::from_secs(1),
            retry_cap: Duration::from_mins(1),
            metered_priority_max: None,
            metered_interval: Duration::from_mins(5),
            transport: None,
            observer: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// A local SQLite database that syncs. Cheap to clone; the sync ends with the last clone.
///
/// Works on the tokio runtime it was opened on.
#[derive(Clone)]
pub struct Client {
    engine: Arc<Engine>,
    runtime: Handle,
    /// Aborted when dropped.
    loops: Arc<Mutex<JoinSet<()>>>,
}

/// A [`Client`] that does not keep the sync going.
pub(crate) struct WeakClient {
    engine: Weak<Engine>,
    runtime: Handle,
    loops: Weak<Mutex<JoinSet<()>>>,
}

impl WeakClient {
    pub(crate) fn upgrade(&self) -> Option<Client> {
        let (engine, loops) = (self.engine.upgrade()?, self.loops.upgrade()?);
        Some(Client { engine, runtime: self.runtime.clone(), loops })
    }

    pub(crate) const fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// Where the database of a user of a server is, in a folder that has one for each: another user on the device gets
/// another. The name does not tell who it is.
pub fn database_of(folder: &Path, endpoint: &str, user_id: &str) -> PathBuf {
    let server = Uuid::new_v5(&Uuid::NAMESPACE_URL, endpoint.trim_end_matches('/').as_bytes());
    folder.join(format!("kairos-{}.db", Uuid::new_v5(&server, user_id.as_bytes()).simple()))
}

/// Makes a database of what [`Client::export`] wrote. Opened, it is a device of its own; what was queued in both is
/// taken by the service once. Blocks on the disk.
///
/// # Errors
/// There is a file at `database` already, or `archive` is damaged or none.
pub fn import(archive: &Path, database: &Path) -> Result<(), ClientError> {
    Ok(archive::import(archive, database)?)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Client {
    /// Opens or creates the database. It can be read and written at once; nothing is synced before
    /// [`connect`](Self::connect).
    ///
    /// # Errors
    /// The file or the schema cannot be used.
    pub async fn open(
        path: impl Into<PathBuf>,
        schema: Schema,
        connector: impl Connector,
    ) -> Result<Self, ClientError> {
        Self::open_with(path, schema, connector, ClientOptions::default()).await
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// The file, the schema or the transport cannot be used.
    pub async fn open_with(
        path: impl Into<PathBuf>,
        schema: Schema,
        connector: impl Connector,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let store = Store::open(path.into(), schema).await?;
        let local = store.local_state();
        let client_id = store.read(identity::client_id).await?;
        let transport = match &options.transport {
            Some(transport) => Arc::clone(transport),
            None => Arc::new(HttpTransport::new(HttpOptions::default())?),
        };
        let template = SyncRequest {
            include_checksum: true,
            raw_data: true,
            binary_data: true,
            client_id: Some(client_id),
            parameters: options.parameters.clone(),
            app_metadata: options.app_metadata.clone(),
            streams: options.streams.clone(),
            ..SyncRequest::default()
        };
        let engine = Engine {
            store,
            transport,
            session: Session::new(Arc::new(connector)),
            board: StatusBoard::new(Facts { local, ..Facts::default() }),
            statistics: Counters::default(),
            options,
            template,
            signals: Signals::default(),
            events: Events::default(),
            network: watch::Sender::default(),
            first_syncs: watch::Sender::default(),
        };
        Ok(Self { engine: Arc::new(engine), runtime: Handle::current(), loops: Arc::default() })
    }

    /// Syncs in the background from now on, and whenever the connection is lost, again. Does nothing where that is so
    /// already, except to try at once.
    pub fn connect(&self) {
        self.sync_now();
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        if loops.is_empty() {
            self.engine.board.note(|facts| facts.configured = true);
            loops.spawn_on(download::run(Arc::clone(&self.engine)), &self.runtime);
            loops.spawn_on(upload::run(Arc::clone(&self.engine)), &self.runtime);
        }
    }

    /// Stops syncing. Local data and queued writes stay.
    pub async fn disconnect(&self) {
        let mut loops = std::mem::take(&mut *self.loops.lock().unwrap_or_else(PoisonError::into_inner));
        loops.shutdown().await;
        self.engine
            .board
            .note(|facts| *facts = Facts { configured: facts.configured, local: facts.local, ..Facts::default() });
    }

    /// The app was opened, or came back to the front: syncs at once, and from now on.
    pub fn on_foreground(&self) {
        self.connect();
    }

    /// The app goes to the background: uploads what waits, for at most `budget`, then stops. The system may end the
    /// process at any moment meanwhile.
    pub async fn on_background(&self, budget: Duration) {
        self.sync_now();
        // What is not up by then stays in the queue.
        let _ = tokio::time::timeout(budget, self.wait_for(|status| status.pending == 0)).await;
        self.disconnect().await;
    }

    /// The user signs out: the sync stops, and the credentials are asked for anew before it goes on. The data of a user
    /// is never synced as another's, kept or not: open a [`database_of`] each where several use one device.
    ///
    /// # Errors
    /// [`ClientError::Unsent`], when nothing was deleted; or the database cannot be written.
    pub async fn sign_out(&self, data: SignOut) -> Result<(), ClientError> {
        self.disconnect().await;
        let pending = self.engine.store.local_state().pending;
        match data {
            SignOut::DeleteData if pending > 0 => return Err(ClientError::Unsent { pending }),
            SignOut::DeleteData | SignOut::DeleteUnsentToo => {
                self.engine.store.write_as_sync(|tx| account::clear(tx)).await?;
                self.engine.note_local_state();
            }
            SignOut::KeepData => {}
        }
        self.engine.session.forget().await;
        self.engine.board.note(|facts| facts.configured = false);
        Ok(())
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<SyncEvent> {
        self.engine.events.subscribe()
    }

    pub(crate) fn logged_events(&self) -> Vec<LoggedEvent> {
        self.engine.events.logged()
    }

    /// Where commands can be sent instead of calling methods. They are performed in order; the sender does not keep the
    /// client alive.
    pub fn commands(&self) -> mpsc::Sender<Command> {
        events::commands(self.downgrade())
    }

    /// Writes the whole database, queued writes included, to a new file. Nothing waits for that.
    ///
    /// # Errors
    /// There is a file already, or it cannot be written.
    pub async fn export(&self, archive: impl Into<PathBuf>) -> Result<(), ClientError> {
        Ok(self.engine.store.export(archive.into()).await?)
    }

    /// Tells in which network the device is, as often as that changes. The open stream is replaced by one that suits it;
    /// without a network nothing is tried.
    pub fn set_network(&self, kind: NetworkKind) {
        let changes = |shown: &mut NetworkKind| std::mem::replace(shown, kind) != kind;
        if self.engine.network.send_if_modified(changes) {
            self.sync_now();
        }
    }

    /// Does not wait for the next attempt, for example because the network is back.
    pub fn sync_now(&self) {
        self.engine.signals.retry.notify_one();
        self.engine.signals.online.notify_one();
    }

    pub(crate) fn downgrade(&self) -> WeakClient {
        WeakClient {
            engine: Arc::downgrade(&self.engine),
            runtime: self.runtime.clone(),
            loops: Arc::downgrade(&self.loops),
        }
    }

    /// Asks for a stream, besides those of the options, for as long as the [`Subscription`] lives and its time after
    /// that, also when the app is started again meanwhile.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn subscribe(
        &self,
        stream: impl Into<String>,
        parameters: Option<Map<String, Value>>,
        options: SubscriptionOptions,
    ) -> Result<Subscription, ClientError> {
        let wanted =
            StreamSubscription { stream: stream.into(), parameters, override_priority: options.override_priority };
        let held = wanted.clone();
        if self.engine.store.write(move |tx| subscriptions::hold(tx, &held, options.ttl)).await? {
            self.engine.signals.resubscribe.notify_one();
        }
        Ok(Subscription::new(self.downgrade(), wanted))
    }

    pub(crate) async fn wait_for_first_sync_of(&self, wanted: &StreamSubscription) -> Result<(), ClientError> {
        let mut first_syncs = self.engine.first_syncs.subscribe();
        loop {
            let of = wanted.clone();
            if self.engine.store.read(move |connection| subscriptions::is_synced(connection, &of)).await? {
                return Ok(());
            }
            // Fails only when the sender is gone, which `self` holds.
            let _ = first_syncs.changed().await;
        }
    }

    pub(crate) async fn release(&self, subscription: StreamSubscription) -> Result<(), ClientError> {
        let StreamSubscription { stream, parameters, .. } = subscription;
        Ok(self.engine.store.write(move |tx| subscriptions::release(tx, &stream, parameters.as_ref())).await?)
    }

    /// Runs a statement that writes. The write is on disk, and queued for upload, when this returns.
    ///
    /// # Errors
    /// SQLite refused it; nothing is written.
    pub async fn execute(
        &self,
        sql: impl Into<String>,
        params: impl Params + Send + 'static,
    ) -> Result<usize, ClientError> {
        let sql = sql.into();
        self.transaction(move |tx| tx.prepare_cached(&sql)?.execute(params)).await
    }

    /// Runs several statements in one transaction. They are uploaded together, too.
    ///
    /// # Errors
    /// Whatever `work` returns; nothing is written then.
    pub async fn transaction<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ClientError> {
        let value = self.engine.store.write(move |tx| Ok::<_, StoreError>(work(tx)?)).await?;
        self.note_written();
        Ok(value)
    }

    fn note_written(&self) {
        self.engine.note_local_state();
        if self.engine.store.local_state().pending > 0 {
            self.engine.signals.written.notify_one();
        }
    }

    /// Runs a query. Reads never wait for writes or downloads.
    ///
    /// # Errors
    /// SQLite refused it.
    pub async fn query<T: Send + 'static>(
        &self,
        sql: impl Into<String>,
        params: impl Params + Send + 'static,
        map: impl FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Vec<T>, ClientError> {
        let sql = sql.into();
        self.read(move |connection| connection.prepare_cached(&sql)?.query_map(params, map)?.collect()).await
    }

    /// Runs several queries on one connection. It refuses writes.
    ///
    /// # Errors
    /// Whatever `work` returns.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ClientError> {
        Ok(self.engine.store.read(move |connection| Ok::<_, StoreError>(work(connection)?)).await?)
    }

    /// A query whose result follows the data: it comes again whenever a change makes it another one, whoever made it.
    /// Which tables matter SQLite says.
    ///
    /// # Errors
    /// SQLite refuses the query.
    pub async fn live<T: PartialEq + Clone + Send + 'static>(
        &self,
        sql: impl Into<String>,
        params: impl Params + Clone + Send + Sync + 'static,
        map: impl Fn(&Row<'_>) -> rusqlite::Result<T> + Send + Sync + 'static,
    ) -> Result<LiveQuery<T>, ClientError> {
        LiveQuery::open(self.clone(), sql.into(), params, map).await
    }

    pub(crate) async fn read_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ClientError> {
        Ok(self.engine.store.read(work).await?)
    }

    pub(crate) async fn tables_read_by(&self, sql: String) -> Result<BTreeSet<String>, ClientError> {
        Ok(self.engine.store.tables_read_by(sql).await?)
    }

    /// Waits for changes of these tables, whoever makes them.
    pub fn watch(&self, tables: &[&str]) -> TableWatch {
        self.engine.store.changes().watch(tables)
    }

    /// How the sync is doing.
    pub fn status(&self) -> Status {
        self.engine.board.subscribe().borrow().clone()
    }

    /// The status and all later ones. Who is slow misses some, but never the last.
    pub fn status_stream(&self) -> watch::Receiver<Status> {
        self.engine.board.subscribe()
    }

    /// Totals since the client was opened.
    pub fn statistics(&self) -> Statistics {
        self.engine.statistics.totals()
    }

    /// Waits until the database had a whole checkpoint once, now or in an earlier run. Waits for ever without a server;
    /// callers with less patience use a timeout.
    pub async fn wait_for_first_sync(&self) {
        self.wait_for(|status| status.last_synced_at.is_some()).await;
    }

    /// Waits until everything with this priority number, or a lower one, was visible once, now or in an earlier run.
    pub async fn wait_for_first_sync_up_to(&self, priority: u8) {
        self.wait_for(|status| status.first_synced_priority.is_some_and(|synced| synced >= priority)).await;
    }

    /// Waits until every local write is uploaded and came back, and the latest state of the service is visible.
    pub async fn wait_until_synced(&self) {
        self.wait_for(|status| status.state == SyncState::Synced).await;
    }

    async fn wait_for(&self, is_reached: impl FnMut(&Status) -> bool) {
        // Fails only when the board is gone, which `self` holds.
        let _ = self.engine.board.subscribe().wait_for(is_reached).await;
    }

    /// Local writes the service did not take, oldest first. They stay until the app resolves or forgets them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn rejected_writes(&self) -> Result<Vec<RejectedWrite>, ClientError> {
        Ok(self.engine.store.read(attention::list).await?)
    }

    /// Takes a write off [`rejected_writes`](Self::rejected_writes).
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn forget_rejected_write(&self, id: i64) -> Result<(), ClientError> {
        Ok(self.engine.store.write(move |tx| attention::forget(tx, id)).await?)
    }

    /// Ends one of [`rejected_writes`](Self::rejected_writes) as its user chose. `Theirs` leaves the row as the service
    /// has it. `Mine` writes the same again, and `Merged` the columns in `merged`, as a new local write of somebody who
    /// knows what others made of the row; a row that is gone comes back. False where it is not on the list any more.
    ///
    /// # Errors
    /// The database cannot be written, or the table is not declared any more.
    pub async fn resolve_rejected_write(
        &self,
        id: i64,
        choice: Choice,
        merged: Option<Map<String, Value>>,
    ) -> Result<bool, ClientError> {
        let resolved = self.engine.store.write_as_sync(move |tx| attention::resolve(tx, id, choice, merged)).await?;
        self.note_written();
        Ok(resolved)
    }

    /// Recomputes everything, as [`LocalDatabase::verify`](crate::LocalDatabase::verify) does, and drops what differs:
    /// the next stream downloads it again, and rows change with its first checkpoint. An open stream is closed.
    /// Returns what was found.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub async fn repair(&self) -> Result<Verification, ClientError> {
        let is_running = !self.loops.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        self.disconnect().await;
        let found = self.engine.store.write(|tx| store::repair(tx)).await?;
        if is_running {
            self.connect();
        }
        Ok(found)
    }

    /// The random id of this database, by which the service knows it.
    pub fn client_id(&self) -> &str {
        self.engine.template.client_id.as_deref().unwrap_or_default()
    }
}
