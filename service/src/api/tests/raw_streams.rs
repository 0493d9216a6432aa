//! Streams as they are on the wire, by version of HTTP, and what else is said on their connection.

use std::{io, sync::Mutex};

use super::*;

const BODY: &str = r#"{"raw_data":true}"#;

/// A request for a stream.
fn request(version: &str, headers: &str) -> String {
    format!(
        "POST /sync/stream {version}\r\nhost: localhost\r\nauthorization: Token {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{BODY}",
        token("anna"),
        BODY.len()
    )
}

/// A socket, and all that was read from it.
struct Raw {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    async fn send(service: &TestService, bytes: &[u8]) -> Self {
        let mut socket = TcpStream::connect(service.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        Self { socket, read: Vec::new() }
    }

    /// Reads until all that came has this in it.
    async fn until(&mut self, text: &str) -> String {
        let mut looked_at = 0;
        while memchr::memmem::find(&self.read[looked_at..], text.as_bytes()).is_none() {
            looked_at = self.read.len().saturating_sub(text.len());
            let read = tokio::time::timeout(DEADLINE, self.socket.read_buf(&mut self.read)).await;
            assert!(matches!(read, Ok(Ok(1..))), "{text:?} does not come: {}", self.text());
        }
        self.text()
    }

    /// Reads until the connection ends.
    async fn all(mut self) -> String {
        let all = self.socket.read_to_end(&mut self.read);
        tokio::time::timeout(DEADLINE, all).await.expect("the connection ends").unwrap();
        self.text()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

/// The parts of a body in chunks, which must be whole.
fn chunks(mut body: &str) -> Vec<&str> {
    let mut chunks = Vec::new();
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let (chunk, rest) = rest.split_at(size);
        body = rest.strip_prefix("\r\n").unwrap();
        if size == 0 {
            assert_eq!(body, "", "nothing follows the end");
            return chunks;
        }
        chunks.push(chunk);
    }
}

async fn service() -> TestService {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    service
}

#[tokio::test]
async fn a_stream_has_the_headers_of_every_answer_and_whole_chunks() {
    let service = service().await;
    let mut stream = Raw::send(&service, request("HTTP/1.1", "x-request-id: seven\r\n").as_bytes()).await;
    stream.until("checkpoint_complete").await;
    service.commit(2, &[("anna", "a2")]);
    stream.until("a2").await;
    service.shutdown.send(true).unwrap();
    let all = stream.all().await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(lines.remove(0), "HTTP/1.1 200 OK");
    lines.sort_unstable();
    let date = lines.iter().position(|line| line.starts_with("date: ")).map(|place| lines.remove(place)).unwrap();
    assert!(httpdate::parse_http_date(&date["date: ".len()..]).is_ok(), "{date}");
    let expected = [
        "access-control-allow-origin: *",
        "access-control-expose-headers: content-type,retry-after,x-request-id",
        "cache-control: no-store, no-transform",
        "connection: close",
        "content-type: application/x-ndjson",
        "transfer-encoding: chunked",
        "vary: accept, accept-encoding",
        "x-accel-buffering: no",
        "x-request-id: seven",
    ];
    lines.retain(|line| !line.starts_with("vary: origin"));
    assert_eq!(lines, expected);
    let text = chunks(body).concat();
    let lines: Vec<SyncLine> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 5, "{text}");
}

#[tokio::test]
async fn a_stream_of_http_1_0_ends_with_its_connection() {
    let service = service().await;
    let mut stream = Raw::send(&service, request("HTTP/1.0", "").as_bytes()).await;
    stream.until("checkpoint_complete").await;
    service.shutdown.send(true).unwrap();
    let all = stream.all().await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK") && !head.contains("chunked"), "{head}");
    assert!(body.lines().all(|line| serde_json::from_str::<SyncLine>(line).is_ok()), "{body}");
}

#[tokio::test]
async fn a_stream_may_follow_other_requests_even_those_that_were_not_answered_yet() {
    let service = service().await;
    // More than sockets hold.
    let file = "GET /mirror/build/wa-sqlite.wasm HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let all = file.repeat(15) + &request("HTTP/1.1", "");
    let mut stream = Raw::send(&service, all.as_bytes()).await;
    stream.until("checkpoint_complete").await;
    let mut rest = &stream.read[..];
    for _ in 0..15 {
        let head = memchr::memmem::find(rest, b"\r\n\r\n").unwrap() + 4;
        let text = std::str::from_utf8(&rest[..head]).unwrap();
        let (_, length) = text.split_once("content-length: ").unwrap();
        let length: usize = length.split_once("\r\n").unwrap().0.parse().unwrap();
        rest = &rest[head + length..];
    }
    let text = std::str::from_utf8(rest).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("transfer-encoding: chunked"), "{text}");
}

#[tokio::test]
async fn what_is_asked_behind_a_stream_is_not_answered_and_does_it_no_harm() {
    let service = service().await;
    let more = "GET /probes/liveness HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20);
    let mut stream = Raw::send(&service, (request("HTTP/1.1", "") + &more).as_bytes()).await;
    stream.until("checkpoint_complete").await;
    service.commit(2, &[("anna", "a2")]);
    stream.until("a2").await;
    service.shutdown.send(true).unwrap();
    let text = stream.all().await;
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(chunks(body).concat().ends_with('\n'));
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 1);
}

#[tokio::test]
async fn a_client_may_ask_first_whether_its_body_is_wanted() {
    let service = service().await;
    let whole = request("HTTP/1.1", "expect: 100-continue\r\n");
    let mut stream = Raw::send(&service, whole.strip_suffix(BODY).unwrap().as_bytes()).await;
    stream.until("100 Continue\r\n\r\n").await;
    stream.socket.write_all(BODY.as_bytes()).await.unwrap();
    let text = stream.until("checkpoint_complete").await;
    assert!(text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{text}");
}

#[tokio::test]
async fn a_refused_stream_leaves_its_connection_for_the_next_request() {
    let service = start().await;
    let refused = request("HTTP/1.1", "").replace("Token ", "Token x");
    let mut stream = Raw::send(&service, refused.as_bytes()).await;
    stream.until("PSYNC_S2101").await;
    service.commit(1, &[("anna", "a1")]);
    stream.socket.write_all(request("HTTP/1.1", "").as_bytes()).await.unwrap();
    stream.until("checkpoint_complete").await;
}

#[tokio::test]
async fn a_client_that_goes_or_is_silent_is_noticed() {
    let service = service().await;
    let connections = async || {
        let metrics = service.client.get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
        metrics
            .lines()
            .find_map(|line| line.strip_prefix("powersync_concurrent_connections ")?.parse().ok())
            .unwrap_or(0)
    };
    let mut stream = Raw::send(&service, request("HTTP/1.1", "").as_bytes()).await;
    stream.until("checkpoint_complete").await;
    assert_eq!(connections().await, 1_u64);
    // As a client does that has nothing more to say, and as it does that has gone: they cannot be told apart.
    stream.socket.shutdown().await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    while connections().await > 0 {
        assert!(Instant::now() < deadline, "nobody has noticed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn commit_rows(service: &TestService, row_count: u64, bytes: usize) {
    let rows: Vec<_> = (0..row_count).map(|row| format!("{row}-{}", "x".repeat(bytes))).collect();
    service.commit(2, &rows.iter().map(|id| ("anna", &**id)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_service_that_stops_waits_for_streams_and_tells_clients_that_they_ended() {
    let service = service().await;
    commit_rows(&service, 1, 16 << 20);
    let mut stream = Raw::send(&service, request("HTTP/1.1", "").as_bytes()).await;
    stream.until("\"data\"").await;
    service.shutdown.send(true).unwrap();
    // One chunk is being sent that does not fit into the sockets.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!service.served.is_finished());
    // Nobody answers this, and it does not keep the client from reading the end.
    stream.socket.write_all(&[b'x'; 1000]).await.unwrap();
    let all = stream.all().await;
    chunks(all.split_once("\r\n\r\n").unwrap().1);
    tokio::time::timeout(DEADLINE, service.served).await.expect("nothing is left to wait for").unwrap();
}

/// What was logged.
#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl LogBuffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_stream_that_fails_is_cut_and_does_not_seem_to_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let service = start_on(Arc::new(store), 2, SYNC_LIMITS).await;
    // So many go into chunks at once.
    commit_rows(&service, 1500, 10);
    let file = rusqlite::Connection::open(folder.path().join("buckets.sqlite3")).unwrap();
    assert!(file.execute("UPDATE chunk SET block = x'00'", []).unwrap() > 0);
    let log = LogBuffer::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let stream = Raw::send(&service, request("HTTP/1.1", "x-request-id: seven\r\n").as_bytes()).await;
    let all = stream.all().await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, "", "a last chunk would say that this is all");
    let log = log.text();
    let line = log.lines().find(|line| line.contains("STORE-0106")).expect("the error is logged");
    let line: Value = serde_json::from_str(line).unwrap();
    let expected =
        json!({"name": "request", "id": "seven", "method": "POST", "route": "/sync/stream", "connection": 1});
    assert_eq!(line["span"], expected);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn a_stream_of_http_2_leaves_its_connection_to_others() {
    let [data, headers, settings] = [0, 1, 4];
    let [end_stream, end_headers] = [1, 4];
    let service = service().await;
    let token = format!("Token {}", token("anna"));
    let fields = |path: &str| {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("authorization", &token),
            ("content-type", "application/json"),
        ];
        let mut block = Vec::new();
        for (name, value) in fields {
            // A literal that is not indexed, none of it compressed (RFC 7541, 6.2.2). Lengths from 127 on have a second byte.
            block.extend([0, u8::try_from(name.len()).unwrap()]);
            block.extend(name.as_bytes());
            if let Ok(short @ 0..127) = u8::try_from(value.len()) {
                block.push(short);
            } else {
                let rest = value.len() - 127;
                block.extend([127, u8::try_from(rest % 128).unwrap() | 128, u8::try_from(rest / 128).unwrap()]);
            }
            block.extend(value.as_bytes());
        }
        block
    };
    let ask = |path: &str, stream| {
        let head = frame(headers, end_headers, stream, &fields(path));
        [head, frame(data, end_stream, stream, BODY.as_bytes())].concat()
    };
    let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(settings, 0, 0, &[])].concat();
    let mut client = Raw::send(&service, &[begin, ask("/sync/stream", 1)].concat()).await;
    client.until("checkpoint_complete").await;
    client.socket.write_all(&ask("/nowhere", 3)).await.unwrap();
    client.until("PSYNC_S2002").await;
    service.commit(2, &[("anna", "a2")]);
    client.until("a2").await;
}
