//! Our client in a process of its own, driven by a test: the commands and answers of `tests/sdk/device.mjs`, so that a
//! scenario runs with either SDK, and so that a device can be killed.

use std::{
    collections::HashMap,
    error::Error,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kairos_client::{
    Client, ClientOptions, Connector, Credentials, CredentialsReason, Observer, Problem, PublishedCheckpoint, Refusal,
    Schema, SignOut, Subscription, SubscriptionOptions, SyncError, Table, Transport, TransportError,
    core::Scope,
    protocol::upload::{UploadBatch, UploadResponse},
    rusqlite::{self, ToSql, params_from_iter, types::Value as SqlValue},
};
use serde_json::{Map, Value, json};

type Answer = Result<Value, Box<dyn Error + Send + Sync>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As an app's own connector would be written.
#[derive(Clone, Default)]
struct Login(Arc<Mutex<LoginState>>);

#[derive(Default)]
struct LoginState {
    endpoint: String,
    /// Each is handed out once, the last one again and again.
    tokens: Vec<String>,
    fetch_count: usize,
    refuses: bool,
    uploads: Vec<Value>,
}

#[async_trait]
impl Connector for Login {
    async fn credentials(&self, _: CredentialsReason) -> Result<Option<Credentials>, TransportError> {
        let mut state = lock(&self.0);
        let Some(last) = state.tokens.len().checked_sub(1) else { return Ok(None) };
        let token = state.tokens[state.fetch_count.min(last)].clone();
        state.fetch_count += 1;
        Ok(Some(Credentials::new(state.endpoint.clone(), token)))
    }

    async fn upload(
        &self,
        service: &dyn Transport,
        credentials: &Credentials,
        batch: &UploadBatch,
    ) -> Result<UploadResponse, TransportError> {
        if lock(&self.0).refuses {
            return Err(TransportError::Refused { status: 503, refusal: Refusal::default() });
        }
        let response = service.upload(credentials, batch).await?;
        lock(&self.0).uploads.extend(response.results.iter().map(|result| json!(result)));
        Ok(response)
    }
}

/// What was true at some time since the device was opened, in order and without repetitions.
#[derive(Clone, Default)]
struct History(Arc<Record>);

#[derive(Default)]
struct Record {
    /// Whether each priority was visible whole.
    priorities: Mutex<[bool; 4]>,
    entries: Mutex<Vec<Value>>,
    /// What an app would be told.
    logged: Mutex<Vec<String>>,
}

impl Record {
    fn remember(&self, entry: Value) {
        let mut entries = lock(&self.entries);
        if entries.last() != Some(&entry) {
            entries.push(entry);
        }
    }
}

#[async_trait]
impl Observer for History {
    async fn published(&self, checkpoint: PublishedCheckpoint) {
        let priorities = {
            let mut priorities = lock(&self.0.priorities);
            for (priority, is_synced) in (0..).zip(priorities.iter_mut()) {
                *is_synced |= checkpoint.scope == Scope::Full || checkpoint.scope.includes(priority);
            }
            *priorities
        };
        let errors = checkpoint.target.streams.iter().flat_map(|stream| stream.errors.iter().map(move |e| (stream, e)));
        lock(&self.0.logged).extend(errors.map(|(stream, error)| format!("{}: {}", stream.name, error.message)));
        self.0.remember(json!({ "connected": true, "priorities": priorities, "downloadError": null }));
    }

    async fn failed(&self, error: &SyncError) {
        lock(&self.0.logged).push(error.to_string());
    }
}

struct Device {
    client: Client,
    login: Login,
    history: History,
    subscriptions: Mutex<HashMap<String, Subscription>>,
}

/// Tables as `{"habits": {"name": "text"}}`; with `"$trackPrevious": true` among the columns uploads say what was before.
fn schema(tables: &Value) -> Schema {
    let table = |(name, columns): (&String, &Value)| {
        let columns = columns.as_object().into_iter().flatten();
        columns.fold(Table::new(name), |table, (column, kind)| match kind.as_str() {
            Some("integer") => table.integer(column),
            Some("real") => table.real(column),
            Some(_) => table.text(column),
            None if column == "$localOnly" => table.local_only(),
            None => table.track_previous(),
        })
    };
    Schema::new(tables.as_object().into_iter().flatten().map(table))
}

fn sql_values(values: &Value) -> Vec<SqlValue> {
    let value = |value: &Value| match value {
        Value::Null => SqlValue::Null,
        Value::Bool(truth) => SqlValue::Integer((*truth).into()),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| SqlValue::Real(number.as_f64().unwrap_or_default()), SqlValue::Integer)
        }
        Value::String(text) => SqlValue::Text(text.clone()),
        nested => SqlValue::Text(nested.to_string()),
    };
    values.as_array().map(|values| values.iter().map(value).collect()).unwrap_or_default()
}

fn text(command: &Value, key: &str) -> String {
    command[key].as_str().unwrap_or_default().to_owned()
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Value> {
    let mut object = Map::new();
    for column in 0..row.as_ref().column_count() {
        let value = match row.get(column)? {
            SqlValue::Null => Value::Null,
            SqlValue::Integer(number) => number.into(),
            SqlValue::Real(number) => number.into(),
            SqlValue::Text(text) => text.into(),
            SqlValue::Blob(bytes) => bytes.into(),
        };
        object.insert(row.as_ref().column_name(column)?.to_owned(), value);
    }
    Ok(Value::Object(object))
}

impl Device {
    async fn open(command: &Value) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let path = PathBuf::from(text(command, "folder")).join(text(command, "file"));
        let (login, history) = (Login::default(), History::default());
        let options = ClientOptions {
            retry_base: Duration::from_millis(20),
            retry_cap: Duration::from_millis(200),
            observer: Some(Arc::new(history.clone())),
            ..ClientOptions::default()
        };
        let client = Client::open_with(path, schema(&command["tables"]), login.clone(), options).await?;
        let synced = client.status().first_synced_priority;
        *lock(&history.0.priorities) = [0, 1, 2, 3].map(|priority| synced >= Some(priority));
        let device = Self { client, login, history, subscriptions: Mutex::default() };
        device.follow_status();
        Ok(device)
    }

    fn follow_status(&self) {
        let (mut statuses, history) = (self.client.status_stream(), Arc::clone(&self.history.0));
        tokio::spawn(async move {
            loop {
                let (connected, problem) = {
                    let status = statuses.borrow_and_update();
                    (status.connected, status.problem.map(Problem::message))
                };
                let priorities = *lock(&history.priorities);
                history.remember(json!({ "connected": connected, "priorities": priorities, "downloadError": problem }));
                if statuses.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    fn status(&self) -> Value {
        let status = self.client.status();
        let priorities = [0, 1, 2, 3].map(|priority| status.first_synced_priority >= Some(priority));
        json!({ "connected": status.connected, "hasSynced": status.last_synced_at.is_some(), "pending": status.pending,
            "priorities": priorities,
            "state": status.state.label(),
            "downloadError": status.problem.map(Problem::message), "uploadError": null })
    }

    async fn perform(&self, command: &Value) -> Answer {
        match command["do"].as_str().unwrap_or_default() {
            "open" => {}
            "connect" => self.connect(command).await?,
            "synced" => {
                tokio::time::timeout(patience(command), self.client.wait_for_first_sync()).await?;
                return Ok(self.status());
            }
            "disconnect" => {
                self.client.disconnect().await;
                return Ok(self.status());
            }
            "close" => self.client.disconnect().await,
            "subscribe" => return self.subscribe(command).await,
            "unsubscribe" => {
                let subscription = lock(&self.subscriptions).remove(&key(command));
                if let Some(subscription) = subscription {
                    subscription.unsubscribe().await?;
                }
            }
            "execute" => {
                let statement = json!([[command["sql"], command["parameters"]]]);
                self.transaction(&statement).await?;
            }
            "transaction" => self.transaction(&command["statements"]).await?,
            "query" => {
                let (sql, parameters) = (text(command, "sql"), sql_values(&command["parameters"]));
                return Ok(self.client.query(sql, params_from_iter(parameters), row).await?.into());
            }
            "status" => return Ok(self.status()),
            "history" => return Ok(lock(&self.history.0.entries).clone().into()),
            "logged" => return Ok(json!(*lock(&self.history.0.logged))),
            "refuse_uploads" => {
                lock(&self.login.0).refuses = command["refuses"] == json!(true);
                self.client.sync_now();
            }
            "uploads" => return Ok(lock(&self.login.0).uploads.clone().into()),
            "fetches" => return Ok(lock(&self.login.0).fetch_count.into()),
            unknown => return Err(format!("`{unknown}` is not for this SDK").into()),
        }
        Ok(Value::Null)
    }

    async fn connect(&self, command: &Value) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.client.sign_out(SignOut::KeepData).await?;
        {
            let mut login = lock(&self.login.0);
            let tokens = command["tokens"].as_array().into_iter().flatten();
            login.tokens = tokens.filter_map(|token| token.as_str().map(str::to_owned)).collect();
            login.endpoint = text(command, "endpoint");
            login.fetch_count = 0;
        }
        self.client.connect();
        Ok(())
    }

    async fn subscribe(&self, command: &Value) -> Answer {
        let options = SubscriptionOptions {
            ttl: command["ttl"].as_u64().map_or(SubscriptionOptions::default().ttl, Duration::from_secs),
            override_priority: command["priority"].as_u64().and_then(|priority| u8::try_from(priority).ok()),
        };
        let parameters = command["parameters"].as_object().cloned();
        let subscription = self.client.subscribe(text(command, "stream"), parameters, options).await?;
        tokio::time::timeout(patience(command), subscription.wait_for_first_sync()).await??;
        lock(&self.subscriptions).insert(key(command), subscription);
        Ok(json!({ "hasSynced": true, "priority": options.override_priority }))
    }

    /// Statements of one transaction, each `[sql, parameters]`.
    async fn transaction(&self, statements: &Value) -> Result<(), Box<dyn Error + Send + Sync>> {
        let statements = statements.as_array().cloned().unwrap_or_default();
        let work = move |tx: &rusqlite::Transaction<'_>| {
            for statement in &statements {
                let parameters = sql_values(&statement[1]);
                let bound = parameters.iter().map(|value| value as &dyn ToSql);
                tx.execute(statement[0].as_str().unwrap_or_default(), params_from_iter(bound))?;
            }
            Ok(())
        };
        Ok(self.client.transaction(work).await?)
    }
}

fn patience(command: &Value) -> Duration {
    Duration::from_secs(command["seconds"].as_u64().unwrap_or_default())
}

fn key(command: &Value) -> String {
    json!([command["stream"], command["parameters"]]).to_string()
}

type Devices = Arc<Mutex<HashMap<String, Arc<Device>>>>;

async fn answer(devices: Devices, command: Value) -> Value {
    let name = text(&command, "device");
    let performed = async {
        if command["do"] == json!("open") {
            lock(&devices).remove(&name);
            let device = Arc::new(Device::open(&command).await?);
            lock(&devices).insert(name.clone(), device);
        }
        let device = lock(&devices).get(&name).cloned().ok_or("the device is not open")?;
        device.perform(&command).await
    };
    match performed.await {
        Ok(value) => json!({ "id": command["id"], "ok": value }),
        Err(error) => json!({ "id": command["id"], "error": message(error.as_ref()) }),
    }
}

/// With the causes.
fn message(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// One command per line on stdin, one answer per line on stdout; they run side by side.
#[tokio::main]
async fn main() {
    let devices = Devices::default();
    // Nothing else runs on this thread.
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let Ok(command) = serde_json::from_str(&line) else { continue };
        let devices = Arc::clone(&devices);
        tokio::spawn(async move {
            println!("{}", answer(devices, command).await);
        });
    }
}
