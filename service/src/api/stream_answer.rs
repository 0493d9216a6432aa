//! Sending a stream as the answer to a request of HTTP/1.1, without the HTTP library.
//!
//! A stream is silent nearly all its life. The library keeps 16 KiB of buffers and its own state for a connection
//! meanwhile; here are a socket and the stream. What is sent is what the library would send, but for one thing: the
//! connection ends with the stream, since what the client said after its request is not kept.
//!
//! HTTP/2, and HTTP/1.0, which has no chunks, stay with the library.

use std::{
    future::{pending, poll_fn},
    io::{self, IoSlice, Write},
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::http::{Request, Version, header, response::Parts};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::timeout,
};

use super::sync_stream::HttpStream;

/// What ends a body of chunks.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How long a client may take to close a connection on which all was sent.
const LINGER: Duration = Duration::from_secs(1);

/// In the extensions of a request whose connection may be taken over: where to leave the stream that answers it.
#[derive(Clone, Default)]
pub(super) struct StreamOffer(Arc<Mutex<Option<HttpStream>>>);

impl StreamOffer {
    /// What requests of this kind are offered.
    pub(super) fn to<B>(request: &Request<B>) -> Option<Self> {
        (request.version() == Version::HTTP_11).then(Self::default)
    }

    /// Leaves a stream. The answer then needs a head only.
    pub(super) fn leave(&self, stream: HttpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    /// The stream that was left.
    pub(super) fn take(&self) -> Option<HttpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An answer that goes on.
pub(super) struct StreamAnswer {
    /// As it is sent.
    head: Vec<u8>,
    stream: HttpStream,
}

impl StreamAnswer {
    /// In a place of its own: a stream that is moved from future to future takes room in each of them.
    pub(super) fn new(head: &Parts, stream: HttpStream) -> Box<Self> {
        Box::new(Self { head: write_head(head, SystemTime::now()), stream })
    }

    /// Sends it all, until it ends or the client has gone.
    pub(super) async fn send(mut self: Box<Self>, mut socket: TcpStream) {
        let (reader, writer) = socket.split();
        let ended = tokio::select! {
            () = gone(reader) => return,
            ended = self.write(writer) => ended,
        };
        drop(self);
        match ended {
            Ok(()) => linger(&socket).await,
            Err(error) => tracing::debug!(%error, "connection ended early"),
        }
    }

    async fn write(&mut self, mut socket: WriteHalf<'_>) -> io::Result<()> {
        socket.write_all(&mem::take(&mut self.head)).await?;
        while let Some(chunk) = self.stream.next().await {
            // An error can only be told by ending the connection without a last chunk.
            write_chunk(&mut socket, &chunk?).await?;
        }
        socket.write_all(LAST_CHUNK).await?;
        socket.shutdown().await
    }
}

fn write_head(head: &Parts, now: SystemTime) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    let reason = head.status.canonical_reason().unwrap_or_default();
    for part in [" ", reason, "\r\ntransfer-encoding: chunked\r\nconnection: close\r\ndate: "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(httpdate::fmt_http_date(now).as_bytes());
    // An empty body was announced by its length.
    for (name, value) in head.headers.iter().filter(|(name, _)| **name != header::CONTENT_LENGTH) {
        for part in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// Writes a chunk with what goes around it. Nothing is copied.
async fn write_chunk(socket: &mut WriteHalf<'_>, chunk: &[u8]) -> io::Result<()> {
    let mut size = [0; 18];
    let mut rest = &mut size[..];
    write!(rest, "{:x}\r\n", chunk.len())?;
    let unused = rest.len();
    let mut parts = [IoSlice::new(&size[..size.len() - unused]), IoSlice::new(chunk), IoSlice::new(b"\r\n")];
    let mut parts = &mut parts[..];
    while !parts.is_empty() {
        let written = socket.write_vectored(parts).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut parts, written);
    }
    Ok(())
}

/// Until the client has gone. Once it has said more, which nobody will answer, only writing finds out.
async fn gone(mut socket: ReadHalf<'_>) {
    let has_said_more = poll_fn(|context| {
        let mut said = [0; 64];
        let mut said = ReadBuf::new(&mut said);
        let read = Pin::new(&mut socket).poll_read(context, &mut said);
        read.map(|read| read.is_ok() && !said.filled().is_empty())
    });
    if has_said_more.await {
        pending::<()>().await;
    }
}

/// Reads what the client still says, for a moment or until it has closed the connection. A socket that is closed before
/// tells its client to forget what it was sent.
async fn linger(socket: &TcpStream) {
    let closed = async {
        let mut said = [0; 256];
        while socket.readable().await.is_ok() {
            match socket.try_read(&mut said) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    };
    // Whoever has not closed it by then has had time to read.
    let _ = timeout(LINGER, closed).await;
}
