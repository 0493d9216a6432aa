//! The client.

use std::{path::Path, sync::Arc, time::Duration};

use kairos_client::{Client, ClientOptions, Command, SignOut, SyncEvent, database_of};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use crate::{
    connector::{AppConnector, TokenProvider},
    error::KairosError,
    runtime::{on_runtime, runtime},
    schema::{self, TableSchema},
    status::{KairosNetwork, KairosProgress, KairosStatus},
    subscription::{self, KairosSubscription},
    values::{self, Parameters},
    watch::{EventListener, KairosEvent, KairosWatch, RowsListener, StatusListener},
    writes::{KairosChoice, KairosRejectedWrite},
};

/// A statement with its parameters: a JSON array, or nothing.
#[derive(Debug, Clone, uniffi::Record)]
pub struct Statement {
    /// SQL.
    pub sql: String,
    /// For `?1`, `?2`, …
    #[uniffi(default = "")]
    pub parameters: String,
}

/// What a client can be told when it is opened.
#[derive(Debug, Clone, Default, uniffi::Record)]
pub struct KairosOptions {
    /// Client parameters for the sync rules, a JSON object. Not authenticated.
    #[uniffi(default = None)]
    pub parameters: Option<String>,
    /// Where data costs, buckets of later priorities than this wait.
    #[uniffi(default = None)]
    pub metered_priority_max: Option<u8>,
}

/// What becomes of the data on this device when its user signs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum KairosSignOut {
    /// It stays, and waits for the same user.
    KeepData,
    /// It is deleted, unless there are local writes that were not uploaded.
    DeleteData,
    /// It is deleted, whatever is lost with it.
    DeleteUnsentToo,
}

/// What an app wants of the sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum KairosCommand {
    /// As `connect`.
    Start,
    /// As `disconnect`.
    Stop,
    /// As `sync_now`.
    ForceSync,
}

/// Where the database of a user of a server is, in a folder that has one for each.
#[uniffi::export]
pub fn database_path(folder: &str, endpoint: &str, user_id: &str) -> String {
    database_of(Path::new(folder), endpoint, user_id).to_string_lossy().into_owned()
}

/// Makes a database of what `export_to` wrote.
#[uniffi::export]
pub async fn import_database(archive: String, database: String) -> Result<(), KairosError> {
    let import = move || kairos_client::import(Path::new(&archive), Path::new(&database));
    on_runtime(async move {
        let imported = tokio::task::spawn_blocking(import).await;
        Ok(imported.map_err(|error| KairosError::new("CLIENT-0105", &error.to_string()))??)
    })
    .await
}

/// A local SQLite database that syncs. The sync ends when it is dropped.
#[derive(uniffi::Object)]
pub struct KairosClient(Client);

impl KairosClient {
    /// Runs a call of the client on the library's threads.
    async fn run<T, F>(&self, call: impl FnOnce(Client) -> F) -> Result<T, KairosError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, KairosError>> + Send + 'static,
    {
        on_runtime(call(self.0.clone())).await
    }

    async fn within(&self, timeout_seconds: u32, wait: impl AsyncFnOnce(&Client) + Send) -> bool {
        let patience = Duration::from_secs(timeout_seconds.into());
        let Ok(runtime) = runtime() else { return false };
        let timed = {
            let _on = runtime.enter();
            tokio::time::timeout(patience, wait(&self.0))
        };
        timed.await.is_ok()
    }
}

#[uniffi::export]
impl KairosClient {
    /// Opens or creates the database. It can be read and written at once; nothing is synced before `connect`.
    #[uniffi::constructor]
    pub async fn open(
        path: String,
        tables: Vec<TableSchema>,
        tokens: Arc<dyn TokenProvider>,
        options: KairosOptions,
    ) -> Result<Arc<Self>, KairosError> {
        let options = ClientOptions {
            parameters: values::object(options.parameters.as_deref())?.unwrap_or_default(),
            metered_priority_max: options.metered_priority_max,
            ..ClientOptions::default()
        };
        let opened =
            async move { Ok(Client::open_with(path, schema::schema(tables), AppConnector(tokens), options).await?) };
        Ok(Arc::new(Self(on_runtime(opened).await?)))
    }

    /// Syncs in the background from now on.
    pub fn connect(&self) {
        self.0.connect();
    }

    /// Stops syncing. Local data and queued writes stay.
    pub async fn disconnect(&self) -> Result<(), KairosError> {
        self.run(async |client| {
            client.disconnect().await;
            Ok(())
        })
        .await
    }

    /// Does not wait for the next attempt.
    pub fn sync_now(&self) {
        self.0.sync_now();
    }

    /// The app was opened, or came back to the front.
    pub fn on_foreground(&self) {
        self.0.on_foreground();
    }

    /// The app goes to the background: uploads what waits, for so long at most, then stops.
    pub async fn on_background(&self, budget_seconds: u32) -> Result<(), KairosError> {
        self.run(async move |client| {
            client.on_background(Duration::from_secs(budget_seconds.into())).await;
            Ok(())
        })
        .await
    }

    /// Tells in which network the device is.
    pub fn set_network(&self, network: KairosNetwork) {
        self.0.set_network(network.into());
    }

    /// Performs a command.
    pub async fn perform(&self, command: KairosCommand) -> Result<(), KairosError> {
        let command = match command {
            KairosCommand::Start => Command::Start,
            KairosCommand::Stop => Command::Stop,
            KairosCommand::ForceSync => Command::ForceSync,
        };
        self.run(async move |client| {
            // Fails only when the client is gone.
            let _ = client.commands().send(command).await;
            Ok(())
        })
        .await
    }

    /// Runs a statement that writes, and gives how many rows it wrote. Parameters are a JSON array.
    pub async fn execute(&self, sql: String, parameters: String) -> Result<u64, KairosError> {
        let parameters = Parameters::read(&parameters)?;
        self.run(async move |client| Ok(client.execute(sql, parameters.into_params()).await? as u64)).await
    }

    /// Runs statements in one transaction. They are uploaded together, too.
    pub async fn transaction(&self, statements: Vec<Statement>) -> Result<(), KairosError> {
        let read = |statement: Statement| Ok((statement.sql, Parameters::read(&statement.parameters)?));
        let statements: Vec<(String, Parameters)> =
            statements.into_iter().map(read).collect::<Result<_, KairosError>>()?;
        self.run(async move |client| {
            let work = move |tx: &kairos_client::rusqlite::Transaction<'_>| {
                statements.iter().try_for_each(|(sql, parameters)| tx.execute(sql, parameters.bound()).map(drop))
            };
            Ok(client.transaction(work).await?)
        })
        .await
    }

    /// Rows of a query: a JSON array of objects.
    pub async fn query(&self, sql: String, parameters: String) -> Result<String, KairosError> {
        let parameters = Parameters::read(&parameters)?;
        self.run(async move |client| {
            Ok(Value::Array(client.query(sql, parameters.into_params(), values::row).await?).to_string())
        })
        .await
    }

    /// Follows a query.
    pub async fn watch(
        &self,
        sql: String,
        parameters: String,
        listener: Arc<dyn RowsListener>,
    ) -> Result<Arc<KairosWatch>, KairosError> {
        let parameters = Parameters::read(&parameters)?;
        let live = async move |client: Client| Ok(client.live(sql, parameters.into_params(), values::row).await?);
        let mut live = self.run(live).await?;
        Ok(KairosWatch::new(runtime()?.spawn(async move {
            loop {
                match live.next().await {
                    Ok(Some(rows)) => {
                        tell(&listener, move |listener| listener.rows(Value::Array(rows).to_string())).await;
                    }
                    Ok(None) => return,
                    Err(error) => return tell(&listener, move |listener| listener.failed(error.into())).await,
                }
            }
        })))
    }

    /// How the sync is doing.
    pub fn status(&self) -> KairosStatus {
        (&self.0.status()).into()
    }

    /// Follows the status, from now on.
    pub fn watch_status(&self, listener: Arc<dyn StatusListener>) -> Result<Arc<KairosWatch>, KairosError> {
        let mut statuses = self.0.status_stream();
        Ok(KairosWatch::new(runtime()?.spawn(async move {
            loop {
                let status = KairosStatus::from(&*statuses.borrow_and_update());
                tell(&listener, move |listener| listener.changed(status)).await;
                if statuses.changed().await.is_err() {
                    return;
                }
            }
        })))
    }

    /// Follows what happens, from now on.
    pub fn watch_events(&self, listener: Arc<dyn EventListener>) -> Result<Arc<KairosWatch>, KairosError> {
        let mut events = self.0.events();
        Ok(KairosWatch::new(runtime()?.spawn(async move {
            loop {
                match events.recv().await.map(event) {
                    Ok(Some(event)) => tell(&listener, move |listener| listener.happened(event)).await,
                    Ok(None) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        })))
    }

    /// Local writes waiting for their upload.
    pub fn pending(&self) -> u64 {
        self.0.status().pending
    }

    /// How far the download is up to a priority. Nothing while there is nothing to download.
    pub fn progress_up_to(&self, priority: u8) -> Option<KairosProgress> {
        self.0.status().download.map(|download| download.up_to(priority).into())
    }

    /// Waits until the database had a whole checkpoint once, but not longer than that. True when it had.
    pub async fn wait_for_first_sync(&self, timeout_seconds: u32) -> bool {
        self.within(timeout_seconds, async |client| client.wait_for_first_sync().await).await
    }

    /// Waits until every local write came back and the latest state is visible. True when that is so in time.
    pub async fn wait_until_synced(&self, timeout_seconds: u32) -> bool {
        self.within(timeout_seconds, async |client| client.wait_until_synced().await).await
    }

    /// Local writes the service did not take, oldest first.
    pub async fn rejected_writes(&self) -> Result<Vec<KairosRejectedWrite>, KairosError> {
        self.run(async |client| Ok(client.rejected_writes().await?.into_iter().map(Into::into).collect())).await
    }

    /// Ends one of them as its user chose; `merged` is a JSON object of columns. False where it is not on the list.
    pub async fn resolve_rejected_write(
        &self,
        id: i64,
        choice: KairosChoice,
        merged: Option<String>,
    ) -> Result<bool, KairosError> {
        let merged = values::object(merged.as_deref())?;
        self.run(async move |client| Ok(client.resolve_rejected_write(id, choice.into(), merged).await?)).await
    }

    /// Takes one off the list.
    pub async fn forget_rejected_write(&self, id: i64) -> Result<(), KairosError> {
        self.run(async move |client| Ok(client.forget_rejected_write(id).await?)).await
    }

    /// Asks for a stream; `parameters` is a JSON object. By default it stays wanted for a day after it is dropped.
    #[uniffi::method(default(parameters = None, ttl_seconds = None, priority = None))]
    pub async fn subscribe(
        &self,
        stream: String,
        parameters: Option<String>,
        ttl_seconds: Option<u64>,
        priority: Option<u8>,
    ) -> Result<Arc<KairosSubscription>, KairosError> {
        let parameters = values::object(parameters.as_deref())?;
        let options = subscription::options(ttl_seconds, priority);
        self.run(async move |client| Ok(KairosSubscription::new(client.subscribe(stream, parameters, options).await?)))
            .await
    }

    /// The user signs out.
    pub async fn sign_out(&self, data: KairosSignOut) -> Result<(), KairosError> {
        let data = match data {
            KairosSignOut::KeepData => SignOut::KeepData,
            KairosSignOut::DeleteData => SignOut::DeleteData,
            KairosSignOut::DeleteUnsentToo => SignOut::DeleteUnsentToo,
        };
        self.run(async move |client| Ok(client.sign_out(data).await?)).await
    }

    /// Writes the whole database, queued writes included, to a new file.
    pub async fn export_to(&self, archive: String) -> Result<(), KairosError> {
        self.run(async move |client| Ok(client.export(archive).await?)).await
    }

    /// What to attach to a report, as JSON.
    pub async fn diagnostics(&self) -> Result<String, KairosError> {
        self.run(async |client| Ok(serde_json::json!(client.diagnostics().await?).to_string())).await
    }

    /// The random id of this database, by which the service knows it.
    pub fn client_id(&self) -> String {
        self.0.client_id().to_owned()
    }
}

/// Calls the app where it may block.
async fn tell<L: ?Sized + Send + Sync + 'static>(listener: &Arc<L>, call: impl FnOnce(&L) + Send + 'static) {
    let listener = Arc::clone(listener);
    // An app that panics in there is told so by its own language.
    let _ = tokio::task::spawn_blocking(move || call(&listener)).await;
}

/// Kinds that later versions add are not for this app.
fn event(event: SyncEvent) -> Option<KairosEvent> {
    match event {
        SyncEvent::SyncCompleted => Some(KairosEvent::SyncCompleted),
        SyncEvent::EntitiesUpdated { tables } => {
            Some(KairosEvent::EntitiesUpdated { tables: tables.into_iter().collect() })
        }
        SyncEvent::SyncError { code, .. } => Some(KairosEvent::SyncError { code: code.to_owned() }),
        SyncEvent::WritesRejected { count } => Some(KairosEvent::WritesRejected { count: count as u64 }),
        _ => None,
    }
}
