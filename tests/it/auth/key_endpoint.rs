//! A small HTTP server with keys, which can be as bad as servers are.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use super::issuer::Issuer;

/// What it answers.
#[derive(Clone)]
pub(super) enum Answer {
    /// This body, after a while.
    Body(String, Duration),
    Status(u16),
    /// A redirect to this address.
    Redirect(String),
    /// A body without an end.
    Endless,
}

impl Answer {
    pub(super) fn keys(issuers: &[&Issuer]) -> Self {
        let keys: Vec<_> = issuers.iter().map(|issuer| &issuer.jwk).collect();
        Self::Body(json!({ "keys": keys }).to_string(), Duration::ZERO)
    }
}

/// The server; it goes when this is dropped.
pub(super) struct KeyEndpoint {
    port: u16,
    answer: Arc<Mutex<Answer>>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl KeyEndpoint {
    pub(super) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (answer, count) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                    tokio::spawn(async move {
                        // A client that goes away is none of our business.
                        let _ = serve(socket, &answer, &count).await;
                    });
                }
            }
        });
        Self { port, answer, count, task }
    }

    pub(super) fn uri(&self) -> String {
        format!("http://127.0.0.1:{}/keys", self.port)
    }

    /// Answers like this from now on.
    pub(super) fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// How often it was asked.
    pub(super) fn count(&self) -> usize {
        self.count.load(SeqCst)
    }
}

impl Drop for KeyEndpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut socket: TcpStream, answer: &Mutex<Answer>, count: &AtomicUsize) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    count.fetch_add(1, SeqCst);
    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match answer {
        Answer::Body(body, after) => {
            sleep(after).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            socket.write_all(format!("{head}{body}").as_bytes()).await?;
        }
        Answer::Status(status) => {
            let answer = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await?;
        }
        Answer::Redirect(to) => {
            let answer =
                format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await?;
        }
        Answer::Endless => {
            socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            loop {
                socket.write_all(chunk.as_bytes()).await?;
            }
        }
    }
    socket.shutdown().await
}
