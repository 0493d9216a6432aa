//! The routes over real sockets, with the store in memory.

mod carriers;
mod golden;
mod rsocket;

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
};

use super::*;
use crate::{
    auth::{AuthConfig, KeyOrigin, KeySource, TokenRules, jwks::Jwk, test_keys},
    lsn::Lsn,
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

/// Answers with what it was given; fails for tables named `down`.
struct Echo;

impl Upload for Echo {
    fn upload<'a>(
        &'a self,
        principal: &'a Principal,
        batch: UploadBatch,
    ) -> BoxFuture<'a, Result<UploadResponse, UploadError>> {
        Box::pin(async move {
            let result = |entry: kairos_sync_protocol::upload::CrudEntry| OpResult {
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
    start_serving(RULES, store, connection_count_max, sync_limits).await
}

async fn start_with_rules(rules: &str) -> TestService {
    start_serving(rules, Arc::new(MemoryStore::new()), 2, SYNC_LIMITS).await
}

async fn start_serving(
    rules: &str,
    store: Arc<dyn BucketStore>,
    connection_count_max: usize,
    sync_limits: SyncLimits,
) -> TestService {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let hub = Hub::new(None);
    let metrics = Arc::new(Metrics::new());
    let (shutdown, stopping) = watch::channel(false);
    let plan = kairos_sync_rules::compile(rules, "public").plan.expect("valid rules");
    let sync = SyncContext::new(
        Arc::clone(&store),
        Arc::new(plan),
        Arc::clone(&hub),
        Arc::clone(&metrics),
        sync_limits,
        stopping.clone(),
    );
    let jwk: Jwk = serde_json::from_value(test_keys::secret_jwk()).unwrap();
    let rules = TokenRules { audience: vec!["test".to_owned()], ..TokenRules::default() };
    let keys = KeyOrigin::Given(vec![jwk.to_key(0).unwrap()]);
    let auth = AuthConfig { sources: vec![KeySource { keys, rules }], ..AuthConfig::default() };
    let state = ApiState::new(ApiParts {
        sync: Arc::new(sync),
        hub: Arc::clone(&hub),
        authenticator: Authenticator::new(auth).unwrap(),
        write_checkpoints: WriteCheckpoints::new(Arc::new(FixedHead(100)), Arc::clone(&store), Arc::clone(&hub), false),
        uploads: Arc::new(Echo),
        replication: Arc::default(),
        heartbeat: None,
        base_path: Some("/sync-api".to_owned()),
        metrics,
        limits: ApiLimits { connection_count_max, body_bytes_max: 64 * 1024 },
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, router(state), 100, stopping));
    TestService { address, store, hub, shutdown, client: Client::new() }
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
            visible_at: Some(Lsn::new(lsn)),
            ..Batch::default()
        };
        self.hub.publish(&self.store.commit(batch).unwrap());
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

#[tokio::test]
async fn a_client_gets_its_rows_then_what_changes_and_nothing_of_others() {
    let service = start().await;
    service.commit(1, &[("anna", "a1"), ("ben", "b1")]);
    let mut anna = service.stream("anna").await;
    assert_eq!(anna.response.headers()["content-type"], "application/x-ndjson");
    assert_eq!(anna.response.headers()["x-accel-buffering"], "no");
    assert_eq!(anna.until_complete().await, (vec!["a1".to_owned()], None));
    service.commit(2, &[("ben", "b2")]);
    service.commit(3, &[("anna", "a2")]);
    assert_eq!(anna.until_complete().await, (vec!["a2".to_owned()], None));
}

#[tokio::test]
async fn a_client_that_waits_for_the_first_state_gets_it() {
    let service = start().await;
    let mut anna = service.stream("anna").await;
    let ready = service.client.get(service.url("/probes/readiness")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::BAD_REQUEST);
    let probe: Value = ready.json().await.unwrap();
    assert_eq!(probe["reason"], "no checkpoint is visible yet: connecting to the source");
    assert_eq!(probe["replication"]["phase"], "connecting");
    service.commit(1, &[("anna", "a1")]);
    assert_eq!(anna.until_complete().await.0, ["a1"]);
    let ready = service.client.get(service.url("/probes/readiness")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_returns_gets_only_what_it_misses() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    service.commit(2, &[("anna", "a2")]);
    let bucket = format!("{}by_user[\"anna\"]", service.store.bucket_prefix().unwrap());
    let body = json!({"raw_data": true, "buckets": [{"name": bucket, "after": "1"}]});
    let response = service.post("/sync/stream", "anna", &body).send().await.unwrap();
    let mut anna = Lines { response, rest: Vec::new() };
    assert_eq!(anna.until_complete().await.0, ["a2"]);
}

#[tokio::test]
async fn a_write_checkpoint_comes_once_the_source_has_passed_it_and_only_to_its_client() {
    let service = start().await;
    service.commit(1, &[]);
    let (mut anna, mut ben) = (service.stream("anna").await, service.stream("ben").await);
    anna.until_complete().await;
    ben.until_complete().await;
    let url = service.url("/write-checkpoint2.json?client_id=phone");
    let request = service.client.get(url).header("authorization", format!("Bearer {}", token("anna")));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({"data": {"write_checkpoint": "1"}}));
    service.commit(99, &[("anna", "a1"), ("ben", "b1")]);
    assert_eq!(anna.until_complete().await, (vec!["a1".to_owned()], None), "not passed yet");
    service.commit(100, &[]);
    assert_eq!(anna.until_complete().await, (vec![], Some(1)));
    service.commit(101, &[("anna", "a2"), ("ben", "b2")]);
    assert_eq!(anna.until_complete().await, (vec!["a2".to_owned()], Some(1)), "repeated in each diff");
    let (mut rows, mut write_checkpoint) = ben.until_complete().await;
    if rows.len() < 2 {
        let (more, later) = ben.until_complete().await;
        rows.extend(more);
        write_checkpoint = write_checkpoint.or(later);
    }
    assert_eq!((rows, write_checkpoint), (vec!["b1".to_owned(), "b2".to_owned()], None));
}

#[tokio::test]
async fn a_client_may_request_a_write_checkpoint_with_its_own_id() {
    let service = start().await;
    service.commit(1, &[]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    let request = async |body: Value| service.post("/sync/checkpoint-request", "anna", &body).send().await.unwrap();
    for id in [json!("42"), json!(42), json!("41")] {
        let answer: Value =
            request(json!({"client_id": "phone", "checkpoint_request_id": id})).await.json().await.unwrap();
        assert_eq!(answer, json!({"data": {"checkpoint_request_id": "42"}}));
    }
    service.commit(100, &[]);
    assert_eq!(anna.until_complete().await, (vec![], Some(42)));
    for body in [
        json!({"client_id": "phone", "checkpoint_request_id": "0"}),
        json!({"client_id": "phone", "checkpoint_request_id": -1}),
        json!({"client_id": "phone", "checkpoint_request_id": "9223372036854775808"}),
        json!({"checkpoint_request_id": "1"}),
        json!({"client_id": "phone"}),
    ] {
        assert_eq!(error_of(request(body).await).await, (400, "PSYNC_S2001".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_is_missed_however_fast_they_come() {
    let service = Arc::new(start().await);
    service.commit(1, &[]);
    let mut anna = service.stream("anna").await;
    let committer = tokio::task::spawn_blocking({
        let service = Arc::clone(&service);
        move || (2..=500).for_each(|lsn| service.commit(lsn, &[("anna", &format!("a{lsn}")), ("ben", "b")]))
    });
    let mut ids = Vec::new();
    while ids.len() < 499 {
        let (more, _) = tokio::time::timeout(DEADLINE, anna.until_complete()).await.expect("all commits arrive");
        ids.extend(more);
    }
    committer.await.unwrap();
    assert_eq!(ids, (2..=500).map(|lsn| format!("a{lsn}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_change_after_silence_is_told_at_once_and_the_next_has_to_wait() {
    let checkpoint_interval_min = Duration::from_hours(1);
    let service = start_with(2, SyncLimits { checkpoint_interval_min, ..SYNC_LIMITS }).await;
    service.commit(1, &[("anna", "a1")]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    service.commit(2, &[("anna", "a2")]);
    assert_eq!(anna.until_complete().await.0, ["a2"]);
    service.commit(3, &[("anna", "a3")]);
    assert!(tokio::time::timeout(Duration::from_millis(100), anna.next()).await.is_err());
}

#[tokio::test]
async fn what_changes_within_an_interval_is_one_checkpoint() {
    let checkpoint_interval_min = Duration::from_millis(50);
    let service = start_with(2, SyncLimits { checkpoint_interval_min, ..SYNC_LIMITS }).await;
    service.commit(1, &[]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    let started = Instant::now();
    let (mut ids, mut checkpoints) = (Vec::new(), 0);
    for lsn in 2..=200 {
        service.commit(lsn, &[("anna", &format!("a{lsn}"))]);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while ids.len() < 199 {
        ids.extend(anna.until_complete().await.0);
        checkpoints += 1;
    }
    assert_eq!(ids, (2..=200).map(|lsn| format!("a{lsn}")).collect::<Vec<_>>());
    let intervals = started.elapsed().as_millis() / checkpoint_interval_min.as_millis();
    assert!(checkpoints <= intervals + 1, "{checkpoints} in {intervals} intervals");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_share_one_reader_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { reader_count: 1, ..SqliteOptions::default() };
    let store = Arc::new(SqliteStore::open(folder.path(), options).unwrap());
    let service = start_on(store, 100, SYNC_LIMITS).await;
    service.commit(1, &[("anna", "a1")]);
    let clients = (0..50).map(|_| async {
        let mut anna = service.stream("anna").await;
        assert_eq!(anna.until_complete().await.0, ["a1"]);
    });
    let all = futures_util::future::join_all(clients);
    tokio::time::timeout(DEADLINE, all).await.expect("nobody waits for a second reader");
}

#[tokio::test]
async fn clients_of_long_ago_get_nested_data() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let mut response = service.post("/sync/stream", "anna", &json!({})).send().await.unwrap();
    let mut text = String::new();
    while !text.contains("checkpoint_complete") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains(r#""data":{"id":"a1"}"#), "{text}");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let service = start().await;
    service.commit(1, &[]);
    let token = token_of_a_second("anna");
    let request = service.client.post(service.url("/sync/stream")).json(&json!({}));
    let response = request.header("authorization", format!("Token {token}")).send().await.unwrap();
    let mut lines = Lines { response, rest: Vec::new() };
    let mut last = None;
    while let Some(line) = lines.next().await {
        last = Some(line);
    }
    assert_eq!(last, Some(SyncLine::TokenExpiresIn(0)));
}

#[tokio::test]
async fn a_reset_of_the_store_ends_the_streams_of_the_old_generation() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    service.store.reset().unwrap();
    service.hub.publish(&service.store.commit(Batch::default()).unwrap());
    assert_eq!(anna.next().await, None);
}

#[tokio::test]
async fn streams_end_when_the_service_stops() {
    let service = start().await;
    service.commit(1, &[]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    service.shutdown.send(true).unwrap();
    assert_eq!(anna.next().await, None);
}

#[tokio::test]
async fn too_many_streams_are_refused_without_a_body() {
    let service = start_with(1, SYNC_LIMITS).await;
    service.commit(1, &[]);
    let open = service.stream("anna").await;
    let refused = service.post("/sync/stream", "anna", &json!({})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.text().await.unwrap(), "");
    let metrics = service.client.get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"kairos_requests_refused_total{code="PSYNC_S2304"} 1"#), "{metrics}");
    drop(open);
    let deadline = Instant::now() + DEADLINE;
    while service.post("/sync/stream", "anna", &json!({})).send().await.unwrap().status() != StatusCode::OK {
        assert!(Instant::now() < deadline, "the place is given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn too_many_buckets_are_an_error_that_names_their_definition() {
    let service = start_with(1, SyncLimits { bucket_count_max: 0, ..SYNC_LIMITS }).await;
    service.commit(1, &[]);
    let refused = service.post("/sync/stream", "anna", &json!({})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], json!("PSYNC_S2305"));
    assert!(body["error"]["description"].as_str().unwrap().contains("1 of them come from `by_user`"), "{body}");
}

#[tokio::test]
async fn uploads_are_handed_on_under_every_path() {
    let service = start().await;
    let body = json!({"batch": [{"op": "PUT", "table": "lists", "id": "l1", "data": {}}]});
    for path in ["/api/sync/data", "/api/sync/data/", "/api/data", "/api/data/?client_id=phone"] {
        let response = service.post(path, "anna", &body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["data"]["results"][0]["id"], json!("anna"));
    }
    let down = json!([{"op": "PUT", "table": "down", "id": "l1"}]);
    let answer = service.post("/api/data", "anna", &down).send().await.unwrap();
    assert_eq!(error_of(answer).await, (503, "WRITE_DEADLINE".to_owned()));
}

#[tokio::test]
async fn requests_without_a_valid_token_all_get_the_same_answer() {
    let service = start().await;
    let forged = test_keys::sign(
        &test_keys::claims("anna"),
        Algorithm::HS256,
        Some("secret"),
        &jsonwebtoken::EncodingKey::from_secret(b"a guess with more than thirty-two bytes in it"),
    );
    for path in ["/sync/stream", "/api/sync/data"] {
        let request = || service.client.post(service.url(path)).body("not even JSON");
        let forged = request().header("authorization", format!("Token {forged}")).send().await.unwrap();
        let none = request().send().await.unwrap();
        assert_eq!(none.status(), StatusCode::UNAUTHORIZED);
        let (mut forged, mut none): (Value, Value) = (forged.json().await.unwrap(), none.json().await.unwrap());
        assert_eq!(forged["error"]["code"].take(), json!("PSYNC_S2101"));
        assert_eq!(none["error"]["code"].take(), json!("PSYNC_S2106"));
        assert_eq!(forged, none);
    }
}

#[tokio::test]
async fn malformed_requests_are_answered_with_their_code() {
    let service = start().await;
    let send = async |body: &str, content_type: &str| {
        let request = service.client.post(service.url("/sync/stream")).body(body.to_owned());
        let request = request.header("authorization", format!("Token {}", token("anna")));
        error_of(request.header("content-type", content_type.to_owned()).send().await.unwrap()).await
    };
    let json = "application/json; charset=utf-8";
    assert_eq!(send("{}", "text/plain").await, (415, "FST_ERR_CTP_INVALID_MEDIA_TYPE".to_owned()));
    for body in ["", "{", "\u{0}", r#"{"parameters":{"#] {
        assert_eq!(send(body, json).await, (400, "FST_ERR_CTP_INVALID_JSON_BODY".to_owned()), "{body:.9}");
    }
    let bomb = format!("{{\"parameters\":{}", r#"{"a":"#.repeat(10_000));
    assert_eq!(send(&bomb, json).await, (400, "FST_ERR_CTP_INVALID_JSON_BODY".to_owned()), "nested too deep");
    for body in [
        "7",
        r#"{"parameters":"x"}"#,
        r#"{"buckets":7}"#,
        r#"{"buckets":[{"name":"a","after":1}]}"#,
        r#"{"buckets":[{}]}"#,
    ] {
        assert_eq!(send(body, json).await, (400, "PSYNC_S2001".to_owned()), "{body}");
    }
    let large = format!(r#"{{"client_id":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(send(&large, json).await, (413, "FST_ERR_CTP_BODY_TOO_LARGE".to_owned()));
    let missing = service.client.get(service.url("/nowhere")).send().await.unwrap();
    assert_eq!(error_of(missing).await, (404, "PSYNC_S2002".to_owned()));
    let method = service.client.get(service.url("/sync/stream")).send().await.unwrap();
    assert_eq!(error_of(method).await, (405, "PSYNC_S2002".to_owned()));
    let metrics = service.client.get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for (code, count) in [
        ("PSYNC_S2001", 5),
        ("PSYNC_S2002", 2),
        ("FST_ERR_CTP_INVALID_MEDIA_TYPE", 1),
        ("FST_ERR_CTP_INVALID_JSON_BODY", 5),
        ("FST_ERR_CTP_BODY_TOO_LARGE", 1),
    ] {
        let line = format!(r#"kairos_requests_refused_total{{code="{code}"}} {count}"#);
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_query_that_is_ambiguous_is_refused_with_a_code() {
    let service = start().await;
    for path in ["/sync/stream", "/api/data"] {
        let path = format!("{path}?client_id=one&client_id=two");
        let refused = service.post(&path, "anna", &json!({})).send().await.unwrap();
        assert_eq!(error_of(refused).await, (400, "PSYNC_S2001".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_do_no_harm() {
    let service = start().await;
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"GET /\r\n\r\n", b"POST /sync/stream HTTP/9.9\r\n\r\n", &[0xFF; 4096]]
    {
        let mut socket = TcpStream::connect(service.address).await.unwrap();
        // The service may have closed the socket before it has read everything.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await.expect("closed");
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
    let alive = service.client.get(service.url("/probes/liveness")).send().await.unwrap();
    let probe: Value = alive.json().await.unwrap();
    assert_eq!((&probe["started"], &probe["ready"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn everything_is_served_under_the_base_path_as_well() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let stream = service.post("/sync-api/sync/stream", "anna", &json!({"raw_data": true})).send().await.unwrap();
    assert_eq!(Lines { response: stream, rest: Vec::new() }.until_complete().await.0, ["a1"]);
    let probe = service.client.get(service.url("/sync-api/probes/readiness")).send().await.unwrap();
    assert_eq!(probe.status(), StatusCode::OK);
    let missing = service.client.get(service.url("/sync-api/nowhere")).send().await.unwrap();
    assert_eq!(error_of(missing).await, (404, "PSYNC_S2002".to_owned()));
    let other = service.client.get(service.url("/other/probes/readiness")).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::NOT_FOUND);
    let preflight = service.client.request(reqwest::Method::OPTIONS, service.url("/sync-api/sync/stream"));
    let preflight = preflight.header("origin", "https://app.example").header("access-control-request-method", "POST");
    assert_eq!(preflight.send().await.unwrap().headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn browsers_may_ask_from_any_origin() {
    let service = start().await;
    let request = service.client.request(reqwest::Method::OPTIONS, service.url("/sync/stream"));
    let request = request.header("origin", "https://app.example").header("access-control-request-method", "POST");
    let headers = request.header("access-control-request-headers", "authorization,content-type");
    let answer = headers.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.headers()["access-control-max-age"], "3600");
    let allowed = answer.headers()["access-control-allow-headers"].to_str().unwrap();
    assert_eq!(allowed, "content-type,authorization,user-agent,x-user-agent");
}
