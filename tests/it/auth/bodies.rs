//! T47: bodies that are small on the wire and large in memory, at the running service.

use std::{fs, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    issuer::{AUDIENCE, Issuer},
    service::Service,
};

const DEADLINE: Duration = Duration::from_mins(2);
/// What a refused body may cost.
const MEMORY_MAX: u64 = 2 << 20;

/// Processor time of a process, in the kernel's ticks of 10 ms.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// A body: its beginning, what is repeated so many times, its end.
struct Bomb {
    name: &'static str,
    head: &'static str,
    parts: Box<dyn Fn(usize) -> String + Send + Sync>,
    count: usize,
    tail: &'static str,
    expected: (u16, &'static str),
}

const TOO_LARGE: (u16, &str) = (413, "FST_ERR_CTP_BODY_TOO_LARGE");
const NO_JSON: (u16, &str) = (400, "FST_ERR_CTP_INVALID_JSON_BODY");

fn bombs() -> Vec<Bomb> {
    let repeated = |text: &'static str| -> Box<dyn Fn(usize) -> String + Send + Sync> {
        let block = text.repeat(1000);
        Box::new(move |_| block.clone())
    };
    let bomb = |name, head, parts, count, tail, expected| Bomb { name, head, parts, count, tail, expected };
    vec![
        bomb("100,000 lists in each other", r#"{"parameters":{"a":"#, repeated("["), 100, "", NO_JSON),
        bomb("100,000 objects in each other", r#"{"parameters":"#, repeated("{\"a\":"), 100, "", NO_JSON),
        bomb(
            "10 million members",
            r#"{"parameters":{"a":1"#,
            Box::new(|part| (0..1000).fold(String::new(), |text, n| format!("{text},\"{part}-{n}\":1"))),
            10_000,
            "}}",
            TOO_LARGE,
        ),
        bomb("10 million lists", r#"{"buckets":[[]"#, repeated(",[]"), 10_000, "]}", TOO_LARGE),
        bomb("a number of a million digits", r#"{"parameters":{"a":9"#, repeated("9"), 1000, "}}", TOO_LARGE),
        bomb("a number with a large exponent", r#"{"parameters":{"a":1e999999999"#, repeated(""), 1, "}}", NO_JSON),
        bomb("a member twice", r#"{"parameters":{"a":1,"a":2"#, repeated(""), 1, "}}", (400, "PSYNC_S2001")),
        bomb("batches twice", r#"{"batch":[],"batch":["#, repeated(""), 1, "]}", (400, "PSYNC_S2001")),
    ]
}

async fn read_answer(socket: &mut TcpStream) -> (u16, Value) {
    let mut answer = Vec::new();
    // It may hang up on what it does not want to read.
    let _ = timeout(DEADLINE, socket.read_to_end(&mut answer)).await.expect("answers");
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Sends a body in chunks, without saying beforehand how long it is, until it is refused.
async fn send(service: &Service, path: &str, token: &str, bomb: &Bomb) -> (u16, Value) {
    let mut socket = TcpStream::connect(("127.0.0.1", service.port)).await.expect("connects");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Token {token}\r\ncontent-type: application/json\r\n\
         connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("takes the head");
    let (mut read, mut write) = socket.split();
    let body = async {
        let parts =
            [bomb.head.to_owned()].into_iter().chain((0..bomb.count).map(&bomb.parts)).chain([bomb.tail.to_owned()]);
        for part in parts.filter(|part| !part.is_empty()) {
            if write.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await.is_err() {
                return std::future::pending().await;
            }
        }
        if write.write_all(b"0\r\n\r\n").await.is_err() {
            return std::future::pending().await;
        }
        std::future::pending::<()>().await;
    };
    let mut first = [0];
    let answered = async { timeout(DEADLINE, read.peek(&mut first)).await.expect("answers") };
    tokio::select! {
        () = body => {}
        answered = answered => { let _ = answered; }
    }
    read_answer(&mut socket).await
}

async fn service() -> (Service, Issuer) {
    let issuer = Issuer::secret("secret");
    let service = Service::start(&format!("  audience: [{AUDIENCE}]\n  jwks: {{ keys: [{}] }}\n", issuer.jwk)).await;
    service.warm_up(&issuer.token("anna")).await;
    (service, issuer)
}

#[tokio::test]
async fn t47_json_bombs_are_refused_while_they_arrive() {
    let (service, issuer) = service().await;
    let (process, token) = (service.process.id(), issuer.token("anna"));
    for path in ["/sync/stream", "/api/sync/data"] {
        for bomb in bombs() {
            let (memory, began) = (service.memory(), ticks(process));
            let (status, body) = send(&service, path, &token, &bomb).await;
            let (grown, spent) = (memory.grown(), ticks(process) - began);
            let code = body["error"]["code"].as_str().unwrap_or_default();
            println!(
                "{path}, {}: {status} {code}, {} KiB more, {} ms of processor time",
                bomb.name,
                grown / 1024,
                spent * 10
            );
            assert_eq!((status, code), bomb.expected, "{path} {}: {body}", bomb.name);
            assert!(grown <= MEMORY_MAX, "{path} {}: {grown} bytes more", bomb.name);
        }
    }
    assert_eq!(service.refusal(&token).await, None, "others are served");
}

#[tokio::test]
async fn t47_bytes_that_are_no_text_and_compressed_bodies_are_refused() {
    let (service, issuer) = service().await;
    let url = format!("{}/api/sync/data", service.process.endpoint());
    let post = |body: Vec<u8>| {
        let request = service.http.post(&url).header("content-type", "application/json").body(body);
        request.header("authorization", format!("Token {}", issuer.token("anna")))
    };
    for body in [
        &b"{\"client_id\":\"\xff\xfe\",\"batch\":[]}"[..],
        b"\x00",
        b"{\"client_id\":\"\xed\xa0\x80\"}",
        b"\xef\xbb\xbf{}",
    ] {
        let answer = post(body.to_vec()).send().await.expect("answers");
        assert_eq!(answer.status(), 400, "{body:?}");
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["error"]["code"], NO_JSON.1);
    }
    // Nothing is ever unpacked, so there is nothing to blow up.
    for encoding in ["gzip", "zstd", "br", "gzip, gzip"] {
        let answer = post(b"\x1f\x8b".to_vec()).header("content-encoding", encoding).send().await.expect("answers");
        assert_eq!(answer.status(), 415, "{encoding}");
    }
    assert_eq!(service.refused("FST_ERR_CTP_INVALID_MEDIA_TYPE").await, 4);
    assert_eq!(service.refused(NO_JSON.1).await, 4);
}

#[tokio::test]
async fn t47_a_body_that_says_it_is_too_large_is_not_read() {
    let (service, issuer) = service().await;
    let (memory, token) = (service.memory(), issuer.token("anna"));
    let mut socket = TcpStream::connect(("127.0.0.1", service.port)).await.expect("connects");
    let head = format!(
        "POST /api/sync/data HTTP/1.1\r\nhost: a\r\nauthorization: Token {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{{\"client_id\":\"",
        1 << 30
    );
    socket.write_all(head.as_bytes()).await.expect("takes the head");
    let (status, body) = read_answer(&mut socket).await;
    assert_eq!((status, body["error"]["code"].as_str().unwrap_or_default()), TOO_LARGE);
    let grown = memory.grown();
    println!("a text of 1 GiB, announced: {} KiB more", grown / 1024);
    assert!(grown <= MEMORY_MAX, "{grown} bytes more");
}

/// A text has no bound of its own: one that is too long for its column is refused as one write, so that a device is not
/// stuck with it. What is not announced is kept up to the largest body, twice while the memory for it grows, and what that
/// leaves behind is not given back at once.
#[tokio::test]
async fn t47_a_text_without_an_end_costs_no_more_than_the_largest_body() {
    let (service, issuer) = service().await;
    let memory = service.memory();
    let bomb = Bomb {
        name: "a text of 1 GiB",
        head: r#"{"client_id":""#,
        parts: Box::new(|_| "x".repeat(1 << 16)),
        count: 1 << 14,
        tail: "\"}",
        expected: TOO_LARGE,
    };
    let (status, body) = send(&service, "/api/sync/data", &issuer.token("anna"), &bomb).await;
    assert_eq!((status, body["error"]["code"].as_str().unwrap_or_default()), bomb.expected);
    let grown = memory.grown();
    println!("{}, not announced: {} KiB more", bomb.name, grown / 1024);
    assert!(grown <= 48 << 20, "{grown} bytes more");
}
