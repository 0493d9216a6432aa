//! T48: clients that hold connections without ever finishing what they say.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    issuer::{AUDIENCE, Issuer},
    service::Service,
};

/// Much longer than any of the service's deadlines that are tried here.
const DEADLINE: Duration = Duration::from_mins(2);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// A PING frame.
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

async fn service() -> (Service, Issuer) {
    let issuer = Issuer::secret("secret");
    let service = Service::start(&format!("  audience: [{AUDIENCE}]\n  jwks: {{ keys: [{}] }}\n", issuer.jwk)).await;
    (service, issuer)
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.expect("connects")
}

/// Sends a beginning, then a byte twice a second, until the service hangs up. What it answered, and how long it took.
async fn drip(port: u16, beginning: &[u8], drop: &[u8]) -> (String, Duration) {
    let mut socket = connect(port).await;
    let began = Instant::now();
    socket.write_all(beginning).await.expect("takes the beginning");
    let (mut read, mut write) = socket.split();
    let dripping = async {
        loop {
            sleep(Duration::from_millis(500)).await;
            if write.write_all(drop).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = Vec::new();
    let closed = async {
        // A reset is an end as well.
        let _ = timeout(DEADLINE, read.read_to_end(&mut answer)).await.expect("closed");
    };
    tokio::select! {
        () = closed => {}
        () = dripping => {}
    }
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

#[tokio::test]
async fn t48_heads_that_never_end_are_closed_and_others_are_served() {
    let (service, issuer) = service().await;
    let port = service.port;
    let beginnings: [(&str, Vec<u8>, &[u8]); 7] = [
        ("nothing", Vec::new(), b""),
        ("half a preface of HTTP/2", PREFACE[..10].to_vec(), b""),
        ("a preface of HTTP/2 and nothing more", PREFACE.to_vec(), b""),
        ("HTTP/2 without a request", [PREFACE, SETTINGS].concat(), b""),
        ("HTTP/2 with a ping now and then", [PREFACE, SETTINGS].concat(), PING),
        ("a head, byte by byte", b"POST /sync/stream HTTP/1.1\r\nx-slow: ".to_vec(), b"x"),
        ("one request, then half of another", b"GET /probes/liveness HTTP/1.1\r\nhost: a\r\n\r\nGET /".to_vec(), b"x"),
    ];
    let attacks = join_all(beginnings.iter().map(async |(name, beginning, drop)| {
        let (answer, after) = drip(port, beginning, drop).await;
        println!("{name}: closed after {after:?}");
        assert!(!answer.contains("HTTP/1.1 200") || name.starts_with("one request"), "{name}: {answer}");
    }));
    // Many at once, beside them.
    let crowd = join_all((0..500).map(async |_| drip(port, b"GET / HTTP/1.1\r\nx: ", b"x").await));
    let others = async {
        for _ in 0..40 {
            assert_eq!(service.refusal(&issuer.token("anna")).await, None);
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(attacks, crowd, others);
}

#[tokio::test]
async fn t48_a_body_that_stops_is_given_up() {
    let (service, issuer) = service().await;
    let head = |token: &str| {
        format!(
            "POST /api/sync/data HTTP/1.1\r\nhost: a\r\nauthorization: Token {token}\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n"
        )
    };
    let stops = async {
        let beginning = format!("{}5\r\n{{\"bat\r\n", head(&issuer.token("anna")));
        let (answer, after) = drip(service.port, beginning.as_bytes(), b"").await;
        println!("a body that stops: closed after {after:?}");
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("PSYNC_S2001"), "{answer}");
    };
    // Who may not come in is told at once, and nothing of the body is waited for.
    let stranger = async {
        let (answer, after) = drip(service.port, head("a.b.c").as_bytes(), b"1\r\nx\r\n").await;
        println!("a stranger's body that never ends: closed after {after:?}");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    };
    tokio::join!(stops, stranger);
    assert_eq!(service.refusal(&issuer.token("anna")).await, None);
}

#[tokio::test]
async fn t48_a_flood_of_pings_costs_no_memory_and_hinders_nobody() {
    let (service, issuer) = service().await;
    service.warm_up(&issuer.token("anna")).await;
    let memory = service.memory();
    let flood = |reads: bool| async move {
        let mut socket = connect(service.port).await;
        socket.write_all(&[PREFACE, SETTINGS].concat()).await.expect("takes the preface");
        let (pings, began) = (PING.repeat(1000), Instant::now());
        let (mut read, mut write) = socket.split();
        let writing = async {
            // Until it hangs up; a flooder that reads nothing is soon not read either.
            while write.write_all(&pings).await.is_ok() {}
        };
        let reading = async {
            let mut buffer = vec![0; 1 << 16];
            while reads && read.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
            if !reads {
                std::future::pending::<()>().await;
            }
        };
        let ended = async {
            tokio::select! {
                () = writing => {}
                () = reading => {}
            }
        };
        timeout(DEADLINE, ended).await.expect("closed");
        began.elapsed()
    };
    let floods = async {
        let lives = tokio::join!(flood(true), flood(true), flood(false), flood(false));
        println!("floods of pings: closed after {lives:?}");
    };
    let others = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..40 {
            let began = Instant::now();
            assert_eq!(service.refusal(&issuer.token("anna")).await, None);
            slowest = slowest.max(began.elapsed());
            sleep(Duration::from_millis(100)).await;
        }
        println!("slowest answer to others meanwhile: {slowest:?}");
    };
    let ((), ()) = tokio::join!(floods, others);
    let grown = memory.grown();
    println!("floods of pings: {} KiB more", grown / 1024);
    assert!(grown < 4 << 20, "{grown} bytes more");
}

/// The head of a request for a WebSocket, and a message that goes on and on: its first frame, and further ones without
/// content.
const UPGRADE: &str = "GET /sync/stream HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const FIRST_FRAGMENT: &[u8] = &[0x02, 0x80, 0, 0, 0, 0];
const NEXT_FRAGMENT: &[u8] = &[0x00, 0x80, 0, 0, 0, 0];

#[tokio::test]
async fn t48_a_flood_of_fragments_is_closed_and_hinders_nobody() {
    let (service, issuer) = service().await;
    service.warm_up(&issuer.token("anna")).await;
    let memory = service.memory();
    let flood = async || {
        let mut socket = connect(service.port).await;
        socket.write_all(UPGRADE.as_bytes()).await.expect("takes the head");
        socket.write_all(FIRST_FRAGMENT).await.expect("takes the first frame");
        let (fragments, began) = (NEXT_FRAGMENT.repeat(1000), Instant::now());
        // Until it hangs up.
        let flooding = async { while socket.write_all(&fragments).await.is_ok() {} };
        timeout(DEADLINE, flooding).await.expect("closed");
        began.elapsed()
    };
    let others = async {
        for _ in 0..20 {
            assert_eq!(service.refusal(&issuer.token("anna")).await, None);
            sleep(Duration::from_millis(100)).await;
        }
    };
    let (first, second, ()) = tokio::join!(flood(), flood(), others);
    let grown = memory.grown();
    println!("floods of fragments: closed after {first:?} and {second:?}, {} KiB more", grown / 1024);
    assert!(grown < 4 << 20, "{grown} bytes more");
}
