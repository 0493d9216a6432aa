//! A proxy in front of the service that hands on what came within a while in one piece, however it was cut before.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Client;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// How long it collects.
const WHILE: Duration = Duration::from_millis(300);

/// Starts it in front of `endpoint` and gives where clients connect. It takes one request per connection, and ends with the
/// test.
pub(super) async fn start(endpoint: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let endpoint = endpoint.to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, endpoint.clone()));
        }
    });
    format!("http://{address}")
}

async fn carry(client: TcpStream, endpoint: String) {
    let mut client = BufReader::new(client);
    let mut line = String::new();
    client.read_line(&mut line).await.expect("a request");
    let path = line.split(' ').nth(1).expect("a path");
    let http = Client::builder().no_gzip().no_zstd().build().expect("a client");
    let mut request = http.post(format!("{endpoint}{path}"));
    let mut body_bytes = 0;
    loop {
        line.clear();
        client.read_line(&mut line).await.expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => body_bytes = value.parse().expect("a number"),
            name @ ("authorization" | "content-type" | "accept" | "accept-encoding") => {
                request = request.header(name, value);
            }
            _ => {}
        }
    }
    let mut body = vec![0; body_bytes];
    client.read_exact(&mut body).await.expect("a body");
    let response = request.body(body).send().await.expect("an answer");
    let of = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("identity");
    let head = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: {}\r\ncontent-encoding: {}\r\n\r\n",
        response.status(),
        of("content-type"),
        of("content-encoding"),
    );
    client.write_all(head.as_bytes()).await.expect("the client reads");
    let mut pieces = response.bytes_stream();
    while let Some(Ok(first)) = pieces.next().await {
        let mut joined = first.to_vec();
        let collect = async {
            while let Some(Ok(piece)) = pieces.next().await {
                joined.extend_from_slice(&piece);
            }
        };
        let _ = timeout(WHILE, collect).await;
        if client.write_all(&joined).await.is_err() {
            return;
        }
    }
}
