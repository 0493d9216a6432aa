//! The client against a service on a real socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod service;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use kairos_client::{
    Client, ClientOptions, Connector, Credentials, CredentialsReason, Problem, Schema, StaticConnector, Status,
    SyncState, Table, TransportError,
};
use serde_json::json;
use service::{FakeService, HOME};
use tempfile::TempDir;

fn schema() -> Schema {
    Schema::new([Table::new("habits").text("name").integer("done")])
}

fn options() -> ClientOptions {
    ClientOptions { retry_base: Duration::from_millis(20), retry_cap: Duration::from_millis(100), ..Default::default() }
}

/// A client in a folder of its own.
struct Device {
    client: Client,
    folder: TempDir,
}

impl std::ops::Deref for Device {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Device {
    async fn new(connector: impl Connector) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::open_with(folder.path().join("client.db"), schema(), connector, options()).await.unwrap();
        Self { client, folder }
    }

    async fn of(service: &FakeService) -> Self {
        Self::new(StaticConnector::new(&service.endpoint, "token")).await
    }

    /// The same database after the app was started again.
    async fn restart(self, connector: impl Connector) -> Self {
        self.client.disconnect().await;
        drop(self.client);
        let path = self.folder.path().join("client.db");
        let client = Client::open_with(path, schema(), connector, options()).await.unwrap();
        Self { client, folder: self.folder }
    }

    async fn habits(&self) -> Vec<String> {
        let text = |row: &kairos_client::rusqlite::Row<'_>| {
            Ok(format!("{}|{}", row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        };
        self.query("SELECT id, name FROM habits ORDER BY id", [], text).await.unwrap()
    }

    /// Waits until the habits are these.
    async fn expect(&self, expected: &[&str]) {
        let mut watch = self.watch(&["habits"]);
        let reached = async {
            while self.habits().await != expected {
                assert!(watch.changed().await);
            }
        };
        if within(reached).await.is_none() {
            assert_eq!(self.habits().await, expected, "{:?}", self.status());
        }
    }

    async fn expect_status(&self, what: &str, is_reached: impl FnMut(&Status) -> bool) {
        let mut stream = self.status_stream();
        let is_reached = within(stream.wait_for(is_reached)).await.is_some();
        assert!(is_reached, "{what}: {:?}", self.status());
    }

    async fn synced(&self) {
        assert!(within(self.wait_until_synced()).await.is_some(), "{:?}", self.status());
    }
}

async fn within<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(20), future).await.ok()
}

fn habit(name: &str) -> serde_json::Value {
    json!({ "name": name, "done": 0 })
}

#[tokio::test]
async fn a_first_sync_and_every_later_change_arrive() {
    let service = FakeService::start().await;
    service.change(|state| state.put(HOME, "habits", "h1", &habit("Read")));
    let phone = Device::of(&service).await;
    assert_eq!(phone.status().state, SyncState::NotConfigured);
    phone.connect();
    assert!(within(phone.wait_for_first_sync()).await.is_some());
    assert_eq!(phone.habits().await, ["h1|Read"]);

    service.change(|state| state.put(HOME, "habits", "h1", &habit("Write")));
    phone.expect(&["h1|Write"]).await;
    service.change(|state| state.put("other", "habits", "h2", &habit("Run")));
    phone.expect(&["h1|Write", "h2|Run"]).await;
    service.change(|state| state.remove(HOME, "habits", "h1"));
    phone.expect(&["h2|Run"]).await;
    service.change(|state| state.buckets.remove("other"));
    phone.expect(&[]).await;
    phone.synced().await;
    let statistics = phone.statistics();
    assert_eq!((statistics.streams, statistics.operations), (1, 4));
    assert!(statistics.checkpoints >= 5 && statistics.bytes_received > 0);
}

#[tokio::test]
async fn writes_made_offline_are_uploaded_later_and_reach_the_other_device() {
    let service = FakeService::start().await;
    let (phone, watch) = (Device::of(&service).await, Device::of(&service).await);
    watch.connect();
    phone
        .transaction(|tx| {
            tx.execute("INSERT INTO habits (id, name, done) VALUES ('h1', 'Read', 0)", [])?;
            tx.execute("INSERT INTO habits (id, name, done) VALUES ('h2', 'Run', 0)", [])
        })
        .await
        .unwrap();
    phone.execute("UPDATE habits SET done = 1 WHERE id = ?1", ["h1"]).await.unwrap();
    assert_eq!(phone.habits().await, ["h1|Read", "h2|Run"], "visible at once");
    assert_eq!(phone.status().pending, 3);

    phone.connect();
    phone.synced().await;
    watch.expect(&["h1|Read", "h2|Run"]).await;
    let done = watch.query("SELECT done FROM habits WHERE id = 'h1'", [], |row| row.get::<_, i64>(0)).await.unwrap();
    assert_eq!(done, [1]);
    service.change(|state| {
        let uploaded: usize = state.uploads.iter().map(|upload| upload.batch.len()).sum();
        assert_eq!(uploaded, 3);
        assert_eq!(state.uploads[0].client_id.as_deref(), Some(phone.client_id()));
    });
    watch.execute("DELETE FROM habits WHERE id = 'h2'", []).await.unwrap();
    phone.expect(&["h1|Read"]).await;
}

#[tokio::test]
async fn a_write_checkpoint_is_asked_for_where_the_upload_did_not_bring_one() {
    let service = FakeService::start().await;
    service.change(|state| state.answers_with_checkpoint = false);
    let phone = Device::of(&service).await;
    phone.connect();
    phone.synced().await;
    phone.execute("INSERT INTO habits (id, name) VALUES ('h1', 'Read')", []).await.unwrap();
    phone.synced().await;
    assert_eq!(service.change(|state| state.write_checkpoint_calls), 1);
}

#[tokio::test]
async fn a_download_cut_after_any_line_goes_on_where_it_stopped() {
    const ROWS: usize = 12;
    let service = FakeService::start().await;
    service.change(|state| {
        for row in 0..ROWS {
            state.put(if row % 2 == 0 { HOME } else { "other" }, "habits", &format!("h{row:02}"), &habit("Read"));
        }
        state.cuts = (0..ROWS + 2).collect();
    });
    let mut phone = Device::of(&service).await;
    let cuts_left = || service.change(|state| state.cuts.len());
    while cuts_left() > ROWS / 2 {
        phone.connect();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    phone = phone.restart(StaticConnector::new(&service.endpoint, "token")).await;
    phone.connect();
    phone.synced().await;
    assert_eq!(phone.habits().await.len(), ROWS);
    service.change(|state| {
        let progress = |index: usize| -> u64 {
            state.requests[index].buckets.iter().map(|bucket| bucket.after.get()).max().unwrap_or(0)
        };
        for index in 1..state.requests.len() {
            assert!(progress(index) >= progress(index - 1), "a later request never starts earlier");
        }
    });
}

#[tokio::test]
async fn only_the_damaged_bucket_is_downloaded_again() {
    let service = FakeService::start().await;
    service.change(|state| {
        state.put(HOME, "habits", "h1", &habit("Read"));
        state.put("other", "habits", "h2", &habit("Run"));
        state.damage = Some("other".to_owned());
    });
    let phone = Device::of(&service).await;
    phone.connect();
    phone.synced().await;
    assert_eq!(phone.habits().await, ["h1|Read", "h2|Run"]);
    service.change(|state| {
        let again: Vec<_> = state.requests[1].buckets.iter().map(|bucket| bucket.name.as_str()).collect();
        assert_eq!(again, [HOME]);
    });
}

#[tokio::test]
async fn a_refused_write_is_reported_and_taken_back() {
    let service = FakeService::start().await;
    service.change(|state| state.put(HOME, "habits", "h1", &habit("Read")));
    let phone = Device::of(&service).await;
    phone.connect();
    phone.synced().await;
    service.change(|state| state.refused_table = Some("habits"));
    phone.execute("UPDATE habits SET name = 'Mine'", []).await.unwrap();
    assert_eq!(phone.habits().await, ["h1|Mine"]);
    phone.expect(&["h1|Read"]).await;
    phone.synced().await;
    let rejected = phone.rejected_writes().await.unwrap();
    assert_eq!((rejected.len(), rejected[0].code.as_deref()), (1, Some("WRITE_TABLE")));
    phone.forget_rejected_write(rejected[0].id).await.unwrap();
    assert!(phone.rejected_writes().await.unwrap().is_empty());
}

/// Gives out `token-1`, `token-2`, … each time newer ones are asked for.
struct Counting {
    endpoint: String,
    calls: Arc<AtomicUsize>,
}

#[async_trait]
impl Connector for Counting {
    async fn credentials(&self, _: CredentialsReason) -> Result<Option<Credentials>, TransportError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Some(Credentials::new(&self.endpoint, format!("token-{call}"))))
    }
}

#[tokio::test]
async fn a_refused_token_is_replaced() {
    let service = FakeService::start().await;
    service.change(|state| state.token = "token-2".to_owned());
    let calls = Arc::new(AtomicUsize::new(0));
    let phone = Device::new(Counting { endpoint: service.endpoint.clone(), calls: Arc::clone(&calls) }).await;
    phone.connect();
    phone.synced().await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(phone.status().problem, None);
}

#[tokio::test]
async fn a_token_that_ends_soon_is_replaced_without_a_gap() {
    let service = FakeService::start().await;
    service.change(|state| {
        state.token = "token-1".to_owned();
        state.token_expires_in = Some(20);
    });
    let calls = Arc::new(AtomicUsize::new(0));
    let phone = Device::new(Counting { endpoint: service.endpoint.clone(), calls: Arc::clone(&calls) }).await;
    let mut statuses = phone.status_stream();
    phone.connect();
    assert!(within(statuses.wait_for(|status| status.connected)).await.is_some());
    let mut was_lost = false;
    let renewed = async {
        while service.change(|state| state.requests.len()) < 2 {
            service.change(|state| state.token = format!("token-{}", calls.load(Ordering::SeqCst)));
            was_lost |= !phone.status().connected;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(within(renewed).await.is_some());
    assert!(!was_lost, "the status shows no gap");
    phone.synced().await;
}

#[tokio::test]
async fn every_failure_has_its_state_and_its_message() {
    let service = FakeService::start().await;
    let phone = Device::of(&service).await;
    for (status, problem, message) in [
        (401, Problem::SignInAgain, "Please sign in again"),
        (404, Problem::ServerNotFound, "Server not found at this address"),
        (503, Problem::Unavailable, "Sync temporarily unavailable"),
        (200, Problem::ServerNotFound, "Server not found at this address"),
    ] {
        service.change(|state| state.status = Some(status));
        phone.connect();
        phone.expect_status(message, |status| status.state == SyncState::Error(problem)).await;
        assert_eq!(problem.message(), message);
        phone.disconnect().await;
    }
    service.change(|state| state.status = None);
    phone.connect();
    phone.synced().await;
}

#[tokio::test]
async fn a_service_that_asks_for_time_gets_it() {
    let service = FakeService::start().await;
    service.change(|state| (state.status, state.retry_after) = (Some(429), Some(600)));
    let phone = Device::of(&service).await;
    phone.execute("INSERT INTO habits (id, name) VALUES ('h1', 'Read')", []).await.unwrap();
    phone.connect();
    phone.expect_status("refused", |status| status.problem == Some(Problem::Unavailable)).await;
    // The wait without that header is a tenth of a second at most, and none after a call for it.
    for _ in 0..10 {
        phone.sync_now();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = service.change(|state| {
        state.status = None;
        state.refused_count
    });
    assert!((1..=2).contains(&refused), "{refused} requests: one for a stream, one for an upload at most");
    // Who connects anew has not been told to wait.
    phone.disconnect().await;
    phone.connect();
    phone.synced().await;
    assert_eq!(phone.habits().await, ["h1|Read"]);
}

#[tokio::test]
async fn without_a_server_the_app_works_and_counts_what_waits() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let phone = Device::new(StaticConnector::new(endpoint, "token")).await;
    phone.connect();
    phone.expect_status("offline", |status| status.problem == Some(Problem::Unreachable)).await;
    assert_eq!(phone.status().state, SyncState::Offline);
    phone.execute("INSERT INTO habits (id, name) VALUES ('h1', 'Read')", []).await.unwrap();
    assert_eq!(phone.status().state, SyncState::Pending(1));

    let service = FakeService::start().await;
    let phone = phone.restart(StaticConnector::new(&service.endpoint, "token")).await;
    phone.connect();
    phone.synced().await;
    assert_eq!(phone.habits().await, ["h1|Read"]);
}

#[tokio::test]
async fn addresses_that_are_none_and_no_server_at_all_are_told_apart() {
    let wrong = Device::new(StaticConnector::new("kairos home", "token")).await;
    wrong.connect();
    wrong.expect_status("no address", |status| status.state == SyncState::Error(Problem::ServerNotFound)).await;
    let alone = Device::new(StaticConnector::not_configured()).await;
    alone.connect();
    alone.expect_status("no server", |status| status.state == SyncState::NotConfigured).await;
    alone.execute("INSERT INTO habits (id, name) VALUES ('h1', 'Read')", []).await.unwrap();
    assert_eq!(alone.status().state, SyncState::NotConfigured);
}

#[tokio::test]
async fn a_watch_reports_committed_changes_of_its_tables_only() {
    let service = FakeService::start().await;
    let phone = Device::of(&service).await;
    let (mut habits, mut others) = (phone.watch(&["habits"]), phone.watch(&["others"]));
    let failed = phone
        .transaction(|tx| {
            tx.execute("INSERT INTO habits (id, name) VALUES ('h1', 'Read')", [])?;
            tx.execute("INSERT INTO nowhere VALUES (1)", [])
        })
        .await;
    assert!(failed.is_err());
    phone.execute("INSERT INTO habits (id, name) VALUES ('h2', 'Run')", []).await.unwrap();
    assert!(within(habits.changed()).await.unwrap());
    let quiet = tokio::time::timeout(Duration::from_millis(50), habits.changed()).await;
    assert!(quiet.is_err(), "one commit, one change");
    phone.connect();
    service.change(|state| state.put(HOME, "habits", "h3", &habit("Swim")));
    phone.expect(&["h2|Run", "h3|Swim"]).await;
    assert!(within(habits.changed()).await.unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(50), others.changed()).await.is_err());
}
