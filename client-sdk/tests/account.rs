//! Whose data it is, what happens to it, and what the app is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod service;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use kairos_client::{
    Client, ClientOptions, Command, Connector, Credentials, CredentialsReason, Problem, Schema, SignOut,
    StaticConnector, SubscriptionOptions, SyncEvent, SyncState, Table, TransportError, database_of, import,
};
use serde_json::{Value, json};
use service::{FakeService, HOME};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A token of this user; the fake service wants the same text.
fn token(user: &str, more: &str) -> String {
    format!("e30.{}.s", BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{user}"{more}}}"#)))
}

fn schema() -> Schema {
    Schema::new([Table::new("habits").text("name"), Table::new("drafts").text("body").local_only()])
}

async fn open(folder: &TempDir, connector: impl Connector) -> Client {
    let options = ClientOptions {
        retry_base: Duration::from_millis(20),
        retry_cap: Duration::from_millis(100),
        ..ClientOptions::default()
    };
    Client::open_with(folder.path().join("client.db"), schema(), connector, options).await.unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

async fn count(client: &Client, table: &str) -> i64 {
    client.query(format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).await.unwrap()[0]
}

/// A service for ann, with one habit, and her device, in sync.
async fn ann() -> (FakeService, TempDir, Client) {
    let (service, folder) = (FakeService::start().await, tempfile::tempdir().unwrap());
    service.change(|state| {
        state.token = token("ann", "");
        state.put(HOME, "habits", "h1", &json!({ "name": "Read" }));
    });
    let client = open(&folder, StaticConnector::new(&service.endpoint, token("ann", ""))).await;
    client.connect();
    within(client.wait_until_synced()).await;
    (service, folder, client)
}

#[tokio::test]
async fn signing_out_deletes_nothing_that_was_not_uploaded_unless_told() {
    let (service, _folder, client) = ann().await;
    client.execute("INSERT INTO drafts (id, body) VALUES ('d1', 'mine alone')", []).await.unwrap();
    service.change(|state| state.status = Some(503));
    client.disconnect().await;
    client.execute("INSERT INTO habits (id, name) VALUES ('h2', 'Run')", []).await.unwrap();
    let error = client.sign_out(SignOut::DeleteData).await.unwrap_err();
    assert_eq!(error.code(), "CLIENT-0112");
    assert_eq!(count(&client, "habits").await, 2);
    client.sign_out(SignOut::KeepData).await.unwrap();
    assert_eq!((count(&client, "habits").await, client.status().state), (2, SyncState::NotConfigured));
    client.sign_out(SignOut::DeleteUnsentToo).await.unwrap();
    assert_eq!((count(&client, "habits").await, count(&client, "drafts").await), (0, 0));
    assert_eq!(client.status().pending, 0);
    // The same user signs in again and has what the service has.
    service.change(|state| state.status = None);
    client.connect();
    within(client.wait_until_synced()).await;
    assert_eq!(count(&client, "habits").await, 1);
}

#[tokio::test]
async fn what_one_user_wrote_is_never_uploaded_as_another() {
    let (service, folder, client) = ann().await;
    client.disconnect().await;
    client.execute("INSERT INTO habits (id, name) VALUES ('h2', 'Run')", []).await.unwrap();
    drop(client);
    service.change(|state| state.token = token("eve", ""));
    let uploads = service.change(|state| state.uploads.len());
    let client = open(&folder, StaticConnector::new(&service.endpoint, token("eve", ""))).await;
    client.connect();
    let mut status = client.status_stream();
    within(status.wait_for(|status| status.state == SyncState::Error(Problem::OtherUser))).await.unwrap();
    assert_eq!(service.change(|state| (state.uploads.len(), state.requests.len())), (uploads, 1), "eve asked nothing");
    client.sign_out(SignOut::DeleteUnsentToo).await.unwrap();
    client.connect();
    within(client.wait_until_synced()).await;
    assert_eq!(count(&client, "habits").await, 1, "the database is eve's now");

    let of = |user: &str| database_of(folder.path(), "https://kairos.home.local", user);
    assert_ne!(of("ann"), of("eve"));
    assert_eq!(of("ann"), database_of(folder.path(), "https://kairos.home.local/", "ann"));
    assert!(!of("ann").to_str().unwrap().contains("ann"));
}

#[tokio::test]
async fn an_archive_is_the_whole_database_and_another_device() {
    let (service, folder, client) = ann().await;
    client.disconnect().await;
    client.execute("INSERT INTO habits (id, name) VALUES ('h2', 'Run')", []).await.unwrap();
    let (archive, path) = (folder.path().join("archive.db"), folder.path().join("second.db"));
    client.export(&archive).await.unwrap();
    assert_eq!(client.export(&archive).await.unwrap_err().code(), "CLIENT-0109");
    import(&archive, &path).unwrap();
    assert_eq!(import(&archive, &path).unwrap_err().code(), "CLIENT-0109");
    let connector = StaticConnector::new(&service.endpoint, token("ann", ""));
    let second = Client::open(&path, schema(), connector).await.unwrap();
    assert_ne!(second.client_id(), client.client_id());
    assert_eq!((count(&second, "habits").await, second.status().pending), (2, 1));
    second.connect();
    within(second.wait_until_synced()).await;
    let uploaded_as = service.change(|state| state.uploads.last().unwrap().client_id.clone());
    assert_eq!(
        uploaded_as.as_deref(),
        Some(client.client_id()),
        "the service knows the write if the other sends it too"
    );

    std::fs::write(folder.path().join("none"), "not a database, but long enough to look like a file").unwrap();
    assert!(import(&folder.path().join("none"), &folder.path().join("third.db")).is_err());
    assert!(!folder.path().join("third.db").exists());
}

#[tokio::test]
async fn diagnostics_tell_sizes_and_codes_and_no_value() {
    let (service, _folder, client) = ann().await;
    service.change(|state| state.refused_table = Some("habits"));
    let mut events = client.events();
    client.execute("INSERT INTO habits (id, name) VALUES ('h2', 'a secret')", []).await.unwrap();
    within(async { while events.recv().await.unwrap() != (SyncEvent::WritesRejected { count: 1 }) {} }).await;
    within(client.wait_until_synced()).await;
    let found = client.diagnostics().await.unwrap();
    assert_eq!(found.rejected, [("WRITE_TABLE".to_owned(), 1)]);
    assert_eq!((found.state.as_str(), found.bucket_count, found.operation_count), ("Synced", 1, 1));
    assert!(found.log.iter().any(|event| event.event == "sync_completed"), "{:?}", found.log);
    assert!(found.log.iter().any(|event| event.event == "writes_rejected 1"), "{:?}", found.log);
    let text = serde_json::to_string(&found).unwrap();
    for value in ["secret", "Read", "h1", "ann", HOME] {
        assert!(!text.contains(value), "{value}: {text}");
    }
}

#[tokio::test]
async fn events_and_commands_go_over_channels() {
    let (service, folder) = (FakeService::start().await, tempfile::tempdir().unwrap());
    service.change(|state| state.put(HOME, "habits", "h1", &json!({ "name": "Read" })));
    let client = open(&folder, StaticConnector::new(&service.endpoint, "token")).await;
    let (mut events, commands) = (client.events(), client.commands());
    commands.send(Command::Start).await.unwrap();
    let mut next = async || within(events.recv()).await.unwrap();
    assert_eq!(next().await, SyncEvent::EntitiesUpdated { tables: ["habits".to_owned()].into() });
    assert_eq!(next().await, SyncEvent::SyncCompleted);
    service.change(|state| state.status = Some(503));
    commands.send(Command::Stop).await.unwrap();
    commands.send(Command::Start).await.unwrap();
    let expected = SyncEvent::SyncError { code: "CLIENT-0204", problem: Some(Problem::Unavailable) };
    assert_eq!(next().await, expected);
    service.change(|state| state.status = None);
    commands.send(Command::ForceSync).await.unwrap();
    while next().await != SyncEvent::SyncCompleted {}
    drop(client);
    commands.send(Command::Start).await.unwrap();
    within(commands.closed()).await;
}

#[tokio::test]
async fn streams_are_asked_for_as_long_as_they_are_held_and_their_time_after() {
    let (service, folder, client) = ann().await;
    let asked = |service: &FakeService| -> Vec<String> {
        let request = service.change(|state| state.requests.last().unwrap().clone());
        request
            .streams
            .subscriptions
            .into_iter()
            .map(|one| format!("{} {}", one.stream, json!(one.parameters)))
            .collect()
    };
    let eventually = async |expected: &[&str]| {
        within(async {
            while asked(&service) != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    let Value::Object(parameters) = json!({ "b": 1, "a": [2] }) else { unreachable!("an object") };
    let Value::Object(same) = json!({ "a": [2], "b": 1 }) else { unreachable!("an object") };
    let options = |seconds| SubscriptionOptions { ttl: Duration::from_secs(seconds), override_priority: None };
    let board = client.subscribe("board", Some(parameters), options(60)).await.unwrap();
    eventually(&[r#"board {"a":[2],"b":1}"#]).await;
    let brief = client.subscribe("brief", None, options(0)).await.unwrap();
    eventually(&[r#"board {"a":[2],"b":1}"#, "brief null"]).await;
    // One more holder of the same is nothing new, and one less is not the last.
    let requests = service.change(|state| state.requests.len());
    client.subscribe("board", Some(same), options(60)).await.unwrap().unsubscribe().await.unwrap();
    within(client.wait_until_synced()).await;
    assert_eq!(service.change(|state| state.requests.len()), requests);
    brief.unsubscribe().await.unwrap();
    drop(board);
    client.disconnect().await;
    client.connect();
    eventually(&[r#"board {"a":[2],"b":1}"#]).await;
    // Also after the app was started again.
    client.disconnect().await;
    drop(client);
    let client = open(&folder, StaticConnector::new(&service.endpoint, token("ann", ""))).await;
    client.connect();
    within(async {
        while service.change(|state| state.requests.len()) < requests + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    eventually(&[r#"board {"a":[2],"b":1}"#]).await;
}

/// Gives out tokens that live for four seconds.
struct ShortLived {
    endpoint: String,
    calls: Arc<AtomicUsize>,
}

#[async_trait]
impl Connector for ShortLived {
    async fn credentials(&self, _: CredentialsReason) -> Result<Option<Credentials>, TransportError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let life = format!(r#","iat":{now},"exp":{}"#, now + 4);
        Ok(Some(Credentials::new(&self.endpoint, token("ann", &life))))
    }
}

#[tokio::test]
async fn a_token_is_replaced_before_the_service_has_to_say_so() {
    let (service, folder) = (FakeService::start().await, tempfile::tempdir().unwrap());
    service.change(|state| state.accepts_any_token = true);
    let calls = Arc::new(AtomicUsize::new(0));
    let client = open(&folder, ShortLived { endpoint: service.endpoint.clone(), calls: Arc::clone(&calls) }).await;
    client.connect();
    within(client.wait_until_synced()).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    within(async {
        while service.change(|state| state.requests.len()) < 2 {
            assert!(client.status().connected, "there is no gap");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(calls.load(Ordering::SeqCst), 2, "once");
}

#[tokio::test]
async fn an_app_that_goes_to_the_background_uploads_what_it_can() {
    let (service, _folder, client) = ann().await;
    client.execute("INSERT INTO habits (id, name) VALUES ('h2', 'Run')", []).await.unwrap();
    client.on_background(PATIENCE).await;
    assert_eq!((client.status().pending, client.status().connected), (0, false));
    service.change(|state| state.status = Some(503));
    client.execute("INSERT INTO habits (id, name) VALUES ('h3', 'Swim')", []).await.unwrap();
    client.on_foreground();
    client.on_background(Duration::from_millis(50)).await;
    assert_eq!(client.status().pending, 1, "it stays in the queue");
    service.change(|state| state.status = None);
    client.on_foreground();
    within(client.wait_until_synced()).await;
}
