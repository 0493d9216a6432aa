//! The source may forget only what is durable in the store: at every moment the slot's confirmed position lies before
//! the position that is in the store's file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kairos_client::rusqlite::{self, Connection, OpenFlags, OptionalExtension};
use kairos_sync::{lsn::Lsn, storage::BucketStore};
use kairos_tests::service::{TestService, connect};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tokio_postgres::Client;

/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// How far the store has read the source, as it wrote down; nothing before that may be asked for again.
pub(super) fn stored_position(store: &dyn BucketStore) -> Lsn {
    stored(store, "resume").unwrap_or(Lsn::ZERO)
}

/// Where the slot began that the store follows: another position after a slot was created anew.
pub(super) fn slot_origin(store: &dyn BucketStore) -> Option<Lsn> {
    stored(store, "slot_created_at")
}

fn stored(store: &dyn BucketStore, field: &str) -> Option<Lsn> {
    store.replication_state().expect("readable").and_then(|state| position_in(&state, field))
}

/// A position in what replication stored about itself.
fn position_in(state: &[u8], field: &str) -> Option<Lsn> {
    let state: Value = serde_json::from_slice(state).expect("JSON");
    state[field].as_str().map(|text| text.parse().expect("a position"))
}

/// Looks at slot and store again and again, whatever happens to the service.
pub(super) struct Watch {
    stop: watch::Sender<bool>,
    task: JoinHandle<usize>,
}

impl Watch {
    /// Of a service with a database of its own.
    pub(super) async fn start(service: &TestService) -> Self {
        let client = connect(&service.cluster.uri("postgres", &service.database)).await;
        let file = service.data_dir.join("buckets.sqlite3");
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(compare(client, file, stopped)) }
    }

    /// Fails if it ever saw a position confirmed that was not durable.
    pub(super) async fn assert_held(self) {
        self.stop.send_replace(true);
        let looks = self.task.await.expect("nothing was confirmed before it was durable");
        println!("{looks} comparisons of the slot with the store");
        assert!(looks > 0, "at least one comparison");
    }
}

async fn compare(client: Client, file: PathBuf, stopped: watch::Receiver<bool>) -> usize {
    let mut looks = 0;
    while !*stopped.borrow() {
        // First the slot: the store may only be further on when it is looked at later.
        if let (Some(confirmed), Some(durable)) = (confirmed_position(&client).await, durable_position(&file)) {
            assert!(confirmed <= durable, "look {looks}: {confirmed} is confirmed, {durable} is durable");
            looks += 1;
        }
        sleep(POLL).await;
    }
    looks
}

async fn confirmed_position(client: &Client) -> Option<Lsn> {
    let sql = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()";
    let row = client.query_opt(sql, &[]).await.expect("one slot")?;
    row.get::<_, Option<String>>(0)?.parse().ok()
}

/// What another process finds in the file; `None` while it cannot be read, as when the store is being opened.
fn durable_position(file: &Path) -> Option<Lsn> {
    let read = || -> rusqlite::Result<Option<Vec<u8>>> {
        let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        database.query_row("SELECT state FROM replication", [], |row| row.get(0)).optional()
    };
    let state = read().ok().flatten()?;
    // While the slot is being created it may be there already, and nothing of it is read yet.
    position_in(&state, "slot_created_at")?;
    position_in(&state, "resume")
}
