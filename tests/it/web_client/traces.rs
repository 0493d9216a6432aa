//! Whole syncs of the Rust client, as its state machine was told them, are told again to the machine in WebAssembly.
//!
//! `client-sdk/core/traces` has recordings of this test: `KAIROS_RECORD=1 cargo test --test it -- web_client::traces`.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use kairos_client::{
    Client, ClientOptions, Connector, Credentials, CredentialsReason, Observer, PublishedCheckpoint, Schema, SyncError,
    Table,
    core::{Event, Instruction},
    transport::{HttpTransport, LineStream, Transport, TransportError},
};
use kairos_sync_protocol::{
    Checksum, WriteCheckpointId,
    line::SyncLine,
    request::SyncRequest,
    upload::{UploadBatch, UploadResponse},
};
use kairos_tests::service::{TestService, eventually};
use serde_json::{Value, json};

use super::package::node_tests;
use crate::tidy::root;

const SCHEMA: &str = "
    CREATE TABLE lists (id text PRIMARY KEY, owner text NOT NULL, name text NOT NULL);
    CREATE TABLE todos (id text PRIMARY KEY, list_id text NOT NULL, title text);
    SELECT kairos.publish_table('lists', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('todos', 'INSERT, UPDATE, DELETE');
    INSERT INTO lists SELECT 'list-' || n, 'ann', 'List ' || n FROM generate_series(1, 3) n;
    INSERT INTO todos SELECT 'todo-' || n, 'list-' || n % 3 + 1, 'Todo ' || n FROM generate_series(1, 9) n;
";

const RULES: &str = r"
bucket_definitions:
  lists:
    priority: 1
    parameters: SELECT request.user_id() AS owner
    data:
      - SELECT * FROM lists WHERE owner = bucket.owner
  todos:
    parameters: SELECT id AS list_id FROM lists WHERE owner = request.user_id()
    data:
      - SELECT * FROM todos WHERE list_id = bucket.list_id
write_rules:
  lists:
    allow: [put, patch, delete]
    check: true
  todos:
    allow: [put, patch, delete]
    check: true
";

/// Writes down what the machine is told and decides.
#[derive(Default)]
struct Recorder {
    steps: Mutex<Vec<Value>>,
    told: Mutex<Value>,
}

impl Recorder {
    fn steps(&self) -> Vec<Value> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The machine had this instruction.
    fn has(&self, instruction: &str) -> bool {
        self.steps().iter().any(|step| step["instructions"].to_string().contains(instruction))
    }

    /// The machine was told this.
    fn was_told(&self, event: &str) -> bool {
        self.steps().iter().any(|step| step["event"].to_string().contains(event))
    }
}

#[async_trait]
impl Observer for Recorder {
    async fn published(&self, _: PublishedCheckpoint) {}

    async fn failed(&self, _: &SyncError) {}

    fn told(&self, event: &Event) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = json!(event);
    }

    fn decided(&self, instructions: &[Instruction]) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        // A stream has a machine of its own, whose requests have this in common.
        if let [Instruction::OpenStream(request)] = instructions {
            steps.push(json!({"template": SyncRequest { buckets: Vec::new(), ..(**request).clone() }}));
        }
        let event = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        steps.push(json!({"event": event, "instructions": instructions}));
    }
}

/// Changes the checksum of the next operation that arrives.
struct Damaging {
    inner: HttpTransport,
    damages: Arc<AtomicBool>,
}

struct DamagedLines {
    inner: Box<dyn LineStream>,
    damages: Arc<AtomicBool>,
}

#[async_trait]
impl Transport for Damaging {
    async fn open(
        &self,
        credentials: &Credentials,
        request: &SyncRequest,
    ) -> Result<Box<dyn LineStream>, TransportError> {
        let inner = self.inner.open(credentials, request).await?;
        Ok(Box::new(DamagedLines { inner, damages: Arc::clone(&self.damages) }))
    }

    async fn upload(&self, credentials: &Credentials, batch: &UploadBatch) -> Result<UploadResponse, TransportError> {
        self.inner.upload(credentials, batch).await
    }

    async fn write_checkpoint(
        &self,
        credentials: &Credentials,
        client_id: &str,
    ) -> Result<WriteCheckpointId, TransportError> {
        self.inner.write_checkpoint(credentials, client_id).await
    }
}

#[async_trait]
impl LineStream for DamagedLines {
    async fn next(&mut self) -> Result<Option<(SyncLine, usize)>, TransportError> {
        let mut received = self.inner.next().await?;
        if let Some((SyncLine::Data(data), _)) = &mut received
            && let Some(operation) = data.data.first_mut()
            && self.damages.swap(false, Relaxed)
        {
            operation.checksum += Checksum::from_bits(1);
        }
        Ok(received)
    }
}

/// The first token lives for some seconds, the next for an hour.
struct ShortThenLong {
    endpoint: String,
    tokens: [String; 2],
}

#[async_trait]
impl Connector for ShortThenLong {
    async fn credentials(&self, reason: CredentialsReason) -> Result<Option<Credentials>, TransportError> {
        let token = &self.tokens[usize::from(reason == CredentialsReason::Expired)];
        Ok(Some(Credentials::new(&self.endpoint, token)))
    }
}

async fn record(service: &TestService) -> Vec<Value> {
    let recorder = Arc::new(Recorder::default());
    let damages = Arc::new(AtomicBool::new(false));
    let inner = HttpTransport::new(kairos_client::transport::HttpOptions::default()).expect("TLS is set up");
    let options = ClientOptions {
        retry_base: Duration::from_millis(20),
        transport: Some(Arc::new(Damaging { inner, damages: Arc::clone(&damages) })),
        observer: Some(Arc::clone(&recorder) as Arc<dyn Observer>),
        ..ClientOptions::default()
    };
    let tables = [Table::new("lists").text("owner").text("name"), Table::new("todos").text("list_id").text("title")];
    let tokens = [service.mint.mint("ann", Duration::from_secs(8)), service.token("ann")];
    let connector = ShortThenLong { endpoint: service.process.endpoint().to_owned(), tokens };
    let file = service.folder.path().join("recorded.db");
    let client = Client::open_with(file, Schema::new(tables), connector, options).await.expect("it opens");

    client.connect();
    client.wait_until_synced().await;
    service.run("UPDATE todos SET title = 'Changed' WHERE id = 'todo-1'; DELETE FROM todos WHERE id = 'todo-2'").await;
    service.run("UPDATE lists SET owner = 'bob' WHERE id = 'list-3'").await;
    eventually(true, async || recorder.has("delete_buckets")).await;
    client.execute("UPDATE lists SET name = 'Written here' WHERE id = 'list-1'", []).await.expect("it is written");
    eventually(true, async || recorder.was_told("token_aging") && recorder.was_told("token_refreshed")).await;
    client.wait_until_synced().await;

    // Rows change while a local write waits: what arrives is held back until the write is up.
    client.disconnect().await;
    client.execute("UPDATE lists SET name = 'Written later' WHERE id = 'list-1'", []).await.expect("it is written");
    service.run("INSERT INTO todos SELECT 'more-' || n, 'list-1', 'More' FROM generate_series(1, 4) n").await;
    damages.store(true, Relaxed);
    client.connect();
    eventually(true, async || recorder.has("damaged")).await;
    client.wait_until_synced().await;
    client.disconnect().await;
    recorder.steps()
}

#[tokio::test]
async fn a_sync_told_to_web_assembly_has_the_same_instructions() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let steps = record(&service).await;
    let folder = service.folder.path().join("traces");
    fs::create_dir(&folder).expect("writable");
    let lines: Vec<String> = steps.iter().map(Value::to_string).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    fs::write(folder.join("sync.json"), &text).expect("writable");
    if std::env::var_os("KAIROS_RECORD").is_some() {
        fs::write(root().join("client-sdk/core/traces/sync.json"), &text).expect("writable");
    }
    tell_again(&folder).await;
}

async fn tell_again(folder: &Path) {
    node_tests("core.test.mjs", &[("KAIROS_TRACES", folder)]).await;
}
