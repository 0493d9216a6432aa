//! The routes over real sockets, with the store in memory.

mod admin;
mod carriers;
mod conflicts;
mod golden;
mod openapi;
mod rates;
mod raw_streams;
mod requests;
mod rsocket;
mod streams;
mod unread_bodies;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::BoxFuture;
use jsonwebtoken::Algorithm;
use kairos_sync_protocol::{
    BucketName, Checksum, WriteCheckpointId,
    line::SyncLine,
    upload::{OpResult, Outcome, UploadBatch, UploadResponse},
};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::*;
use crate::{
    admin::Admin,
    auth::{ApiTokens, AuthConfig, KeyOrigin, KeySource, Principal, TokenRules, jwks::Jwk, test_keys},
    deployment::{Deployments, Rules, RulesState},
    lsn::Lsn,
    postgres::SourceConfig,
    rate_limit::TableLimited,
    secret::Secret,
    storage::{Batch, BucketStore, MemoryStore, NewOperation, RowOutput, SqliteOptions, SqliteStore},
    sync::{HeadUnavailable, SourceHead, SyncLimits},
    write::UploadError,
};

const RULES: &str = "bucket_definitions:
  by_user:
    parameters: SELECT request.user_id() AS user_id
    data: ['SELECT * FROM lists WHERE owner_id = bucket.user_id']
";
const DEADLINE: Duration = Duration::from_secs(10);
const ADMIN_TOKEN: &str = "let-me-in";
const SYNC_LIMITS: SyncLimits = SyncLimits {
    bucket_count_max: 10,
    fetch_concurrency_max: 4,
    shared_bytes_max: 1 << 20,
    checkpoint_interval_min: Duration::from_millis(1),
};

/// A service over a store in memory; tests play replication by committing to it.
struct TestService {
    address: SocketAddr,
    store: Arc<dyn BucketStore>,
    hub: Arc<Hub>,
    shutdown: watch::Sender<bool>,
    /// Until it has stopped.
    served: JoinHandle<()>,
    client: Client,
}

/// The source stands at a position that never moves by itself.
struct FixedHead(u64);

impl SourceHead for FixedHead {
    fn head(&self) -> BoxFuture<'_, Result<Lsn, HeadUnavailable>> {
        Box::pin(async { Ok(Lsn::new(self.0)) })
    }

    fn nudge(&self) -> BoxFuture<'_, Result<(), HeadUnavailable>> {
        Box::pin(async { Ok(()) })
    }
}

/// Answers with what it was given; fails for tables named `down`, and `busy` takes no more.
struct Echo;

impl Upload for Echo {
    fn upload<'a>(
        &'a self,
        principal: &'a Principal,
        batch: UploadBatch,
    ) -> BoxFuture<'a, Result<UploadResponse, UploadError>> {
        Box::pin(async move {
            let result = |entry: kairos_sync_protocol::upload::CrudEntry| OpResult {
                row: None,
                op_id: batch.client_id.clone(),
                table: entry.table,
                id: Some(principal.user_id.clone()),
                outcome: Outcome::Applied,
                code: None,
                message: None,
            };
            let results: Vec<OpResult> = batch.batch.into_iter().map(result).collect();
            if results.iter().any(|result| result.table == "down") {
                return Err(UploadError::Deadline(Duration::from_secs(1)));
            }
            if results.iter().any(|result| result.table == "busy") {
                let limited = TableLimited { table: "busy".to_owned(), wait: Duration::from_secs(7) };
                return Err(UploadError::RateLimited(limited));
            }
            Ok(UploadResponse { write_checkpoint: None, results })
        })
    }
}

async fn start() -> TestService {
    start_with(2, SYNC_LIMITS).await
}

async fn start_with(connection_count_max: usize, sync_limits: SyncLimits) -> TestService {
    start_on(Arc::new(MemoryStore::new()), connection_count_max, sync_limits).await
}

async fn start_on(store: Arc<dyn BucketStore>, connection_count_max: usize, sync_limits: SyncLimits) -> TestService {
    start_serving(RULES, store, connection_count_max, sync_limits, RateLimits::default()).await
}

async fn start_with_rules(rules: &str) -> TestService {
    start_serving(rules, Arc::new(MemoryStore::new()), 2, SYNC_LIMITS, RateLimits::default()).await
}

async fn start_limited(rate: RateLimits) -> TestService {
    start_serving(RULES, Arc::new(MemoryStore::new()), 10, SYNC_LIMITS, rate).await
}

async fn start_serving(
    rules: &str,
    store: Arc<dyn BucketStore>,
    connection_count_max: usize,
    sync_limits: SyncLimits,
    rate: RateLimits,
) -> TestService {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let hub = Hub::new(None);
    let metrics = Arc::new(Metrics::new());
    let (shutdown, stopping) = watch::channel(false);
    let rules = Rules::compile("rules", rules).expect("valid rules");
    let deployments = Arc::new(Deployments::new(rules.clone()));
    deployments.in_force(&RulesState::first(&rules));
    let sync = SyncContext::new(
        Arc::clone(&store),
        Arc::clone(&deployments),
        Arc::clone(&hub),
        Arc::clone(&metrics),
        sync_limits,
        stopping.clone(),
    );
    let jwk: Jwk = serde_json::from_value(test_keys::secret_jwk()).unwrap();
    let token_rules = TokenRules { audience: vec!["test".to_owned()], ..TokenRules::default() };
    let keys = KeyOrigin::Given(vec![jwk.to_key(0).unwrap()]);
    let auth = AuthConfig { sources: vec![KeySource { keys, rules: token_rules }], ..AuthConfig::default() };
    let sync = Arc::new(sync);
    let nowhere = SourceConfig::from_uri("postgresql://role:s3cret@127.0.0.1:1/app?connect_timeout=5").unwrap();
    let admin = Admin::new(Arc::clone(&sync), nowhere, Arc::default());
    let state = ApiState::new(ApiParts {
        sync,
        admin,
        hub: Arc::clone(&hub),
        authenticator: Authenticator::new(auth, &metrics).unwrap(),
        api_tokens: ApiTokens::new(&[Secret::new(ADMIN_TOKEN)]),
        write_checkpoints: WriteCheckpoints::new(
            Arc::new(FixedHead(100)),
            Arc::clone(&store),
            Arc::clone(&hub),
            || false,
        ),
        uploads: Arc::new(Echo),
        conflicts: Arc::new(conflicts::OneConflict),
        replication: Arc::default(),
        deployments,
        rules_file: None,
        heartbeat: None,
        leaving: shutdown.subscribe(),
        serves_mirror: true,
        base_path: Some("/sync-api".to_owned()),
        metrics,
        events: RecentEvents::default(),
        limits: ApiLimits { connection_count_max, body_bytes_max: 64 * 1024, rate },
        trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(serve(listener, router(state), 100, stopping));
    TestService { address, store, hub, shutdown, served, client: Client::new() }
}

fn token(user_id: &str) -> String {
    test_keys::sign(&test_keys::claims(user_id), Algorithm::HS256, Some("secret"), &test_keys::secret())
}

/// A token that expires after a second.
fn token_of_a_second(user_id: &str) -> String {
    let mut claims = test_keys::claims(user_id);
    claims["exp"] = json!(test_keys::seconds_since_epoch(SystemTime::now()) + 1);
    test_keys::sign(&claims, Algorithm::HS256, Some("secret"), &test_keys::secret())
}

impl TestService {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn post(&self, path: &str, user_id: &str, body: &Value) -> RequestBuilder {
        let request = self.client.post(self.url(path)).timeout(DEADLINE).json(body);
        request.header("authorization", format!("Token {}", token(user_id)))
    }

    /// Commits a new row for a user's bucket at a source position, as replication does.
    fn commit(&self, lsn: u64, rows: &[(&str, &str)]) {
        self.commit_part(lsn, rows, true);
    }

    /// A commit that clients may see, or one of something that is not stored as a whole yet.
    fn commit_part(&self, lsn: u64, rows: &[(&str, &str)], is_visible: bool) {
        let prefix = self.store.bucket_prefix().unwrap();
        let operation = |(user_id, id): &(&str, &str)| NewOperation {
            output: RowOutput {
                bucket: BucketName::new(format!("{prefix}by_user[\"{user_id}\"]")),
                object_type: "lists".into(),
                object_id: (*id).into(),
            },
            subkey: "key".into(),
            checksum: Checksum::from_bits(u32::try_from(lsn).unwrap()),
            data: Some(format!("{{\"id\":\"{id}\"}}").into()),
        };
        let batch = Batch {
            operations: rows.iter().map(operation).collect(),
            visible_at: is_visible.then_some(Lsn::new(lsn)),
            ..Batch::default()
        };
        self.hub.publish(&self.store.commit(batch).unwrap());
    }

    /// An operator's question.
    async fn ask(&self, path: &str, body: &Value) -> Value {
        let request = self.client.post(self.url(path)).timeout(DEADLINE).json(body).bearer_auth(ADMIN_TOKEN);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    async fn stream(&self, user_id: &str) -> Lines {
        let body = json!({"raw_data": true, "client_id": "phone"});
        let response = self.post("/sync/stream", user_id, &body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Lines { response, rest: Vec::new() }
    }
}

/// The lines of a stream as they come.
struct Lines {
    response: Response,
    rest: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Option<SyncLine> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.rest.extend_from_slice(&self.response.chunk().await.unwrap()?);
        }
    }

    /// Ids of the rows that come until the next complete checkpoint, and its write checkpoint.
    async fn until_complete(&mut self) -> (Vec<String>, Option<u64>) {
        let (mut ids, mut write_checkpoint) = (Vec::new(), None);
        loop {
            match self.next().await.expect("the stream goes on") {
                SyncLine::Checkpoint(line) => write_checkpoint = line.write_checkpoint,
                SyncLine::CheckpointDiff(line) => write_checkpoint = line.write_checkpoint,
                SyncLine::Data(line) => ids.extend(line.data.into_iter().filter_map(|operation| operation.object_id)),
                SyncLine::CheckpointComplete(_) => return (ids, write_checkpoint.map(WriteCheckpointId::get)),
                _ => {}
            }
        }
    }
}

async fn error_of(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["status"], json!(status));
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}
