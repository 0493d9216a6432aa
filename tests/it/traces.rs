//! What a collector of OpenTelemetry gets, and that the service does without one.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kairos_tests::service::TestService;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, status::StatusCode},
};
use prost::Message;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const SCHEMA: &str = "CREATE TABLE items (id text PRIMARY KEY, body text);
    SELECT kairos.publish_table('items', 'INSERT, UPDATE, DELETE');
    ALTER TABLE items ENABLE ROW LEVEL SECURITY;
    CREATE POLICY everybody ON items TO kairos_write USING (true) WITH CHECK (true);";
const RULES: &str = "bucket_definitions: { everything: { data: [SELECT * FROM items] } }
write_rules: { items: { allow: [put, patch, delete], check: true } }";

/// Spans go every five seconds.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest answer to a stop.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Takes what is exported, over OTLP as it is.
struct Collector {
    endpoint: String,
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    serving: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let received = Arc::default();
        let serving = tokio::spawn(accept(listener, Arc::clone(&received)));
        Self { endpoint, received, serving }
    }

    fn settings(&self) -> String {
        format!("traces: {{ endpoint: '{}', service_name: household }}\n", self.endpoint)
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().expect("nobody failed");
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Waits until there is a span for which it holds.
    async fn span(&self, wanted: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let spans = self.spans();
            if let Some(span) = spans.iter().find(|span| is_it(span)) {
                return span.clone();
            }
            let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
            assert!(Instant::now() < deadline, "{wanted} is not among {}", names.join(", "));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn accept(listener: TcpListener, received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(take(socket, Arc::clone(&received)));
    }
}

/// Takes requests until the connection ends.
async fn take(socket: TcpStream, received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>) {
    let mut socket = BufReader::new(socket);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await.unwrap_or_default() == 0 {
                return;
            }
            if let Some(("content-length", value)) = line.to_lowercase().trim().split_once(": ") {
                length = value.parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.expect("a whole body");
        assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
        let request = ExportTraceServiceRequest::decode(&*body).expect("the protobuf of OTLP");
        received.lock().expect("nobody failed").push(request);
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        socket.write_all(answer.as_bytes()).await.expect("it waits for the answer");
    }
}

/// An attribute as JSON; `null` where it is not there.
fn attribute(pairs: &[KeyValue], key: &str) -> Value {
    let value = pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()?.value);
    match value {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::BoolValue(flag)) => json!(flag),
        _ => Value::Null,
    }
}

fn of(span: &Span, key: &str) -> Value {
    attribute(&span.attributes, key)
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32)
}

/// The answer's status.
async fn upload(service: &TestService, token: &str, id: &str) -> u16 {
    let row = json!({ "body": "a value nobody may see" });
    let batch = json!({ "batch": [{ "op_id": 1, "op": "PUT", "table": "items", "id": id, "data": row }] });
    let url = format!("{}/api/sync/data", service.process.endpoint());
    let request = Client::new().post(url).bearer_auth(token).header("x-request-id", format!("upload-{id}"));
    request.json(&batch).send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn a_collector_gets_where_the_time_went_and_no_row_or_token() {
    let collector = Collector::start().await;
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.reconfigure(&collector.settings()).await;
    service.wait_until_ready().await;
    let token = service.token("anna-the-user");
    let url = format!("{}/sync/stream", service.process.endpoint());
    let stream = Client::new().post(url).bearer_auth(&token).header("x-request-id", "the-stream");
    let mut stream = stream.json(&json!({})).send().await.expect("an answer");
    assert_eq!(upload(&service, &token, "one").await, 200);
    let mut text = String::new();
    while !text.contains("nobody may see") {
        let chunk = tokio::time::timeout(Duration::from_secs(30), stream.chunk()).await.expect("in time");
        text.push_str(&String::from_utf8_lossy(&chunk.expect("no error").expect("the stream goes on")));
    }

    // The stream is still open: what it was asked with has long been told, and so has what was sent on it.
    let opened = collector.span("the stream's request", |span| of(span, "request.id") == "the-stream").await;
    assert_eq!(opened.name, "POST /sync/stream");
    assert_eq!(of(&opened, "http.response.status_code"), 200);
    let is_sent =
        |span: &Span| span.name == "sync.checkpoint" && of(span, "operations") == 1 && of(span, "is_complete") == true;
    collector.span("the change on the stream", is_sent).await;
    let grouped = |span: &Span| span.name == "replication.group" && of(span, "delay_ms").is_u64();
    let group = collector.span("a group", grouped).await;
    let commit = collector.span("its commit", |span| span.parent_span_id == group.span_id).await;
    assert_eq!((&*commit.name, &commit.trace_id), ("store.commit", &group.trace_id));

    // One trace from the request to what Postgres was asked.
    let request = collector.span("the request of the upload", |span| of(span, "request.id") == "upload-one").await;
    assert_eq!((&*request.name, request.parent_span_id.is_empty()), ("POST /api/sync/data", true));
    let uploaded = collector.span("the upload", |span| span.name == "upload").await;
    assert_eq!((&uploaded.trace_id, &uploaded.parent_span_id), (&request.trace_id, &request.span_id));
    let attempt = collector.span("its attempt", |span| span.name == "upload.attempt").await;
    assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&request.trace_id, &uploaded.span_id));
    assert!(!collector.spans().iter().any(is_error));

    // A proxy that traces by itself has the service in its trace; what it does not follow is not sent, and nonsense is nothing.
    let probe = async |caller: &str, id: &str| {
        let request = Client::new().get(format!("{}/probes/liveness", service.process.endpoint()));
        let request = request.header("traceparent", caller).header("x-request-id", id);
        assert_eq!(request.send().await.expect("an answer").status(), 200);
    };
    probe("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "not-followed").await;
    probe("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "followed").await;
    probe("00-zzz", "nonsense").await;
    let followed = collector.span("the caller's", |span| of(span, "request.id") == "followed").await;
    let ids = [
        0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes().to_vec(),
        0xb7ad_6b71_6920_3331_u64.to_be_bytes().to_vec(),
    ];
    assert_eq!([followed.trace_id, followed.parent_span_id], ids);
    let own = collector.span("the one with nonsense", |span| of(span, "request.id") == "nonsense").await;
    assert!(own.parent_span_id.is_empty());
    assert!(!collector.spans().iter().any(|span| of(span, "request.id") == "not-followed"));

    // What is done last is sent before the process ends.
    service.run("REVOKE kairos_write FROM kairos_service").await;
    let status = upload(&service, &token, "two").await;
    assert!(status >= 500, "{status}");
    service.process.terminate().await.expect("it ends");
    let failed = collector.spans().into_iter().find(|span| span.name == "upload" && is_error(span));
    let failed = failed.expect("it was sent at the end");
    assert!(of(&failed, "error.type").as_str().is_some_and(|code| code.starts_with("WRITE_")));

    let received = collector.received.lock().expect("nobody failed");
    let resource = received[0].resource_spans[0].resource.clone().expect("who sends");
    assert_eq!(attribute(&resource.attributes, "service.name"), "household");
    let all = format!("{received:?}");
    for secret in ["nobody may see", "anna-the-user", &token] {
        assert!(!all.contains(secret), "{secret}");
    }
    drop(received);
    collector.serving.abort();
}

/// One that takes connections, and never answers.
#[tokio::test]
async fn a_collector_that_hangs_costs_neither_memory_nor_the_stop() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut service = TestService::start(SCHEMA, RULES).await;
    let address = silent.local_addr().expect("an address");
    service.reconfigure(&format!("traces: {{ endpoint: 'http://{address}' }}\n")).await;
    service.wait_until_ready().await;
    // More spans than the queue takes.
    let client = Client::new();
    let url = format!("{}/probes/liveness", service.process.endpoint());
    let ask = async |count: usize| {
        for _ in 0..count {
            assert_eq!(client.get(&url).send().await.expect("an answer").status(), 200);
        }
    };
    ask(3_000).await;
    let before = service.process.resident_bytes().expect("it runs");
    ask(6_000).await;
    let grown = service.process.resident_bytes().expect("it runs").saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more, for spans that nobody takes");
    let began = Instant::now();
    service.process.terminate().await.expect("it ends");
    assert!(began.elapsed() < STOP_TIME, "the stop took {:?}", began.elapsed());
}
