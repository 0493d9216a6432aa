//! Streams over a WebSocket, spoken to frame by frame.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Bytes, Message},
};

use super::*;

pub(super) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// A frame of the service: stream, type, flags and the rest.
#[derive(Debug, PartialEq)]
struct Frame {
    stream: u32,
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Frame {
    fn line(&self) -> Value {
        assert_eq!((self.kind, self.flags), (0x0A, 0x20), "a payload: {self:?}");
        let document: bson::Document = bson::deserialize_from_slice(&self.body).unwrap();
        serde_json::to_value(document).unwrap()
    }

    /// Code and message of an error.
    fn error(&self) -> (u32, String) {
        assert_eq!(self.kind, 0x0B, "an error: {self:?}");
        let code = u32::from_be_bytes(self.body[..4].try_into().unwrap());
        (code, String::from_utf8(self.body[4..].to_vec()).unwrap())
    }
}

fn header(stream: u32, kind: u16, flags: u16) -> Vec<u8> {
    [&stream.to_be_bytes()[..], &(kind << 10 | flags).to_be_bytes()].concat()
}

fn setup(mime: &str, metadata: &[u8]) -> Vec<u8> {
    let mut frame = header(0, 1, 0x100);
    frame.extend_from_slice(&[0, 1, 0, 0]);
    frame.extend_from_slice(&20_000_u32.to_be_bytes());
    frame.extend_from_slice(&90_000_u32.to_be_bytes());
    for _ in 0..2 {
        frame.push(u8::try_from(mime.len()).unwrap());
        frame.extend_from_slice(mime.as_bytes());
    }
    frame.extend_from_slice(&u32::try_from(metadata.len()).unwrap().to_be_bytes()[1..]);
    [frame, metadata.to_vec()].concat()
}

fn request(stream: u32, credit: u32, metadata: &[u8], data: &[u8]) -> Vec<u8> {
    let mut frame = header(stream, 6, 0x100);
    frame.extend_from_slice(&credit.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(metadata.len()).unwrap().to_be_bytes()[1..]);
    [frame, metadata.to_vec(), data.to_vec()].concat()
}

impl Socket {
    async fn connect(service: &TestService) -> Self {
        let url = format!("ws://{}/sync/stream", service.address);
        Self(connect_async(url).await.unwrap().0)
    }

    pub(super) async fn set_up(service: &TestService, user_id: &str) -> Self {
        let mut socket = Self::connect(service).await;
        let metadata = json!({"token": format!("Token {}", token(user_id)), "user_agent": "test"});
        socket.send(setup("application/json", metadata.to_string().as_bytes())).await;
        socket
    }

    async fn send(&mut self, frame: Vec<u8>) {
        self.0.send(Message::Binary(Bytes::from(frame))).await.unwrap();
    }

    pub(super) async fn open(&mut self, stream: u32, credit: u32) {
        let body = json!({"client_id": "phone", "buckets": []});
        self.send(request(stream, credit, br#"{"path":"/sync/stream"}"#, body.to_string().as_bytes())).await;
    }

    /// A frame as it came; `None` when the service closed the connection.
    pub(super) async fn message(&mut self) -> Option<Bytes> {
        match tokio::time::timeout(DEADLINE, self.0.next()).await.expect("a frame comes") {
            Some(Ok(Message::Binary(message))) => Some(message),
            _ => None,
        }
    }

    /// `None` when the service closed the connection.
    async fn next(&mut self) -> Option<Frame> {
        let message = self.message().await?;
        let word = u16::from_be_bytes(message[4..6].try_into().unwrap());
        let stream = u32::from_be_bytes(message[..4].try_into().unwrap());
        Some(Frame { stream, kind: word >> 10, flags: word & 0x3FF, body: message[6..].to_vec() })
    }

    /// A keepalive there and back.
    async fn echo(&mut self) {
        self.send([header(0, 3, 0x80), vec![0; 8], b"echo".to_vec()].concat()).await;
        let keepalive = self.next().await.unwrap();
        assert_eq!((keepalive.kind, keepalive.flags, &keepalive.body[8..]), (3, 0, &b"echo"[..]));
    }

    async fn line(&mut self) -> Value {
        self.next().await.unwrap().line()
    }
}

#[tokio::test]
async fn a_stream_sends_as_much_as_the_client_asks_for() {
    let service = start().await;
    service.commit(1, &[("anna", "a1"), ("ben", "b1")]);
    let mut anna = Socket::set_up(&service, "anna").await;
    anna.open(1, 2).await;
    assert_eq!(anna.line().await["checkpoint"]["buckets"][0]["count"], 1);
    assert_eq!(anna.line().await["data"]["data"][0]["object_id"], "a1");
    anna.echo().await; // and no payload before it
    anna.send([header(1, 8, 0), 1_u32.to_be_bytes().to_vec()].concat()).await;
    assert_eq!(anna.line().await, json!({"checkpoint_complete": {"last_op_id": "2"}}));
    anna.send([header(1, 8, 0), 10_u32.to_be_bytes().to_vec()].concat()).await;
    service.commit(2, &[("anna", "a2")]);
    assert_eq!(anna.line().await["checkpoint_diff"]["updated_buckets"][0]["count"], 2);
    assert_eq!(anna.line().await["data"]["data"][0]["data"], r#"{"id":"a2"}"#);
    assert!(anna.line().await["checkpoint_complete"].is_object());
}

#[tokio::test]
async fn clients_of_long_ago_write_bson() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let document = |value: Value| bson::serialize_to_vec(&value).unwrap();
    let mut anna = Socket::connect(&service).await;
    let metadata = document(json!({"token": format!("Bearer {}", token("anna"))}));
    anna.send(setup("application/bson", &metadata)).await;
    let body = document(json!({"buckets": [], "raw_data": true, "client_id": "c", "parameters": {}}));
    anna.send(request(1, 10, &document(json!({"path": "/sync/stream"})), &body)).await;
    assert!(anna.line().await["checkpoint"].is_object());
    assert_eq!(anna.line().await["data"]["data"][0]["object_id"], "a1");
}

#[tokio::test]
async fn several_streams_share_a_connection_and_end_alone() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let mut anna = Socket::set_up(&service, "anna").await;
    for stream in [1, 3] {
        anna.open(stream, 100).await;
        for _ in 0..3 {
            assert_eq!(anna.next().await.unwrap().stream, stream);
        }
    }
    anna.open(5, 100).await;
    assert_eq!(
        anna.next().await.unwrap().error(),
        (0x201, "[PSYNC_S2304] There are too many open connections: try again later".to_owned())
    );
    anna.send(header(1, 9, 0)).await;
    anna.echo().await;
    service.commit(2, &[("anna", "a2")]);
    for _ in 0..3 {
        assert_eq!(anna.next().await.unwrap().stream, 3, "the other one was cancelled");
    }
    service.shutdown.send(true).unwrap();
    let end = anna.next().await.unwrap();
    assert_eq!((end.stream, end.kind, end.flags), (3, 0x0A, 0x40), "completed");
}

#[tokio::test]
async fn a_refused_client_is_told_the_code() {
    let service = start().await;
    service.commit(1, &[]);
    let refused = async |first: Vec<u8>| {
        let mut socket = Socket::connect(&service).await;
        socket.send(first).await;
        let error = socket.next().await.unwrap();
        assert_eq!(error.stream, 0);
        assert_eq!(socket.next().await, None, "the connection is closed");
        error.error()
    };
    let failed = "Authorization failed";
    assert_eq!(refused(setup("application/json", b"{}")).await, (3, format!("[PSYNC_S2106] {failed}")));
    let forged = br#"{"token":"Token e30.e30.e30"}"#;
    let (code, message) = refused(setup("application/json", forged)).await;
    assert_eq!(code, 3);
    assert!(message.starts_with("[PSYNC_S2101]") && message.ends_with(failed), "{message}");
    assert!(refused(setup("text/plain", b"{}")).await.1.starts_with("[PSYNC_S2004]"));
    assert!(refused(setup("application/json", b"{")).await.1.starts_with("[PSYNC_S2001]"));
    assert!(refused(request(1, 1, b"{}", b"{}")).await.1.contains("The first frame must be SETUP"));
    assert!(refused(vec![1, 2, 3]).await.1.contains("a frame ends early"));
    let metrics = service.client.get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"kairos_requests_refused_total{code="PSYNC_S2106"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_open() {
    let service = start().await;
    service.commit(1, &[]);
    let mut anna = Socket::set_up(&service, "anna").await;
    anna.send(request(1, 1, br#"{"path":"/elsewhere"}"#, b"{}")).await;
    assert_eq!(anna.next().await.unwrap().error(), (0x201, "[PSYNC_S2002] There is nothing at this path".to_owned()));
    let long = format!(r#"{{"parameters":{{"n":{}}}}}"#, "9".repeat(2000));
    for (stream, body, reason) in [
        (3, r#"{"buckets":7}"#, "a value has the wrong kind, at line 1 column 12"),
        (
            5,
            r#"{"parameters":{"a":1,"a":2}}"#,
            "duplicate field: a member occurs twice in an object at line 1 column 24",
        ),
        (7, &long, "A number in the body is longer than 1024 bytes"),
    ] {
        anna.send(request(stream, 1, br#"{"path":"/sync/stream"}"#, body.as_bytes())).await;
        let refused = anna.next().await.unwrap();
        assert_eq!(refused.error(), (0x201, format!("[PSYNC_S2001] Validation failed: {reason}")));
    }
    anna.open(9, 1).await;
    assert_eq!(anna.next().await.unwrap().stream, 9);
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let service = start().await;
    service.commit(1, &[]);
    let token = token_of_a_second("anna");
    let mut anna = Socket::connect(&service).await;
    anna.send(setup("application/json", json!({"token": format!("Token {token}")}).to_string().as_bytes())).await;
    anna.open(1, 100).await;
    let mut last = Value::Null;
    loop {
        let frame = anna.next().await.unwrap();
        if frame.flags == 0x40 {
            break;
        }
        last = frame.line();
    }
    assert_eq!(last, json!({"token_expires_in": 0}));
}

#[tokio::test]
async fn a_client_that_asks_for_nothing_holds_nothing_up() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let mut anna = Socket::set_up(&service, "anna").await;
    anna.open(1, 1).await;
    anna.line().await;
    for lsn in 2..200 {
        service.commit(lsn, &[("anna", "more")]);
    }
    anna.send([header(1, 8, 0), 0x7FFF_FFFF_u32.to_be_bytes().to_vec()].concat()).await;
    let mut rows = 0;
    while rows < 199 {
        rows += anna.line().await["data"]["data"].as_array().map_or(0, Vec::len);
    }
    assert_eq!(rows, 199, "each once");
}

#[tokio::test]
async fn a_stream_too_many_is_refused_and_the_connection_stays() {
    let mut rate = RateLimits::default();
    rate.device.streams_per_minute = 1;
    let service = start_limited(rate).await;
    service.commit(1, &[]);
    let mut socket = Socket::set_up(&service, "anna").await;
    socket.open(1, 1).await;
    assert!(socket.line().await.get("checkpoint").is_some());
    socket.open(3, 1).await;
    let (_, message) = socket.next().await.unwrap().error();
    assert!(message.starts_with("[SYNC_RATE_LIMITED] Too many streams of this device"), "{message}");
    socket.echo().await;
}
