//! A session that has begun, for `tokio-postgres`, which insists on beginning sessions itself.
//!
//! All connections authenticate in one way, that of [`startup`](super::startup), so that a password goes only where it
//! may and a refusal is named alike. The start-up message of `tokio-postgres` is therefore swallowed, and answered with
//! what the server has said already.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::postgres::{dial::Transport, frame::Framed};

/// `AuthenticationOk`.
const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// The connection of a session that has begun.
#[derive(Debug)]
pub(super) struct Handover {
    transport: Transport,
    /// Is read before anything that comes from the server.
    said: BytesMut,
    /// Bytes of the start-up message that are still to be swallowed; `None` before its length is known.
    to_swallow: Option<usize>,
}

impl Handover {
    /// `said` is what the server has said of the session, up to `ReadyForQuery`.
    pub(super) fn new(framed: Framed, said: &[u8]) -> Self {
        let (transport, unread) = framed.into_parts();
        Self { transport, said: [LET_IN, said, &unread].concat().as_slice().into(), to_swallow: None }
    }
}

impl AsyncRead for Handover {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.said.is_empty() {
            return Pin::new(&mut self.transport).poll_read(cx, buffer);
        }
        let count = self.said.len().min(buffer.remaining());
        buffer.put_slice(&self.said.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Handover {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let left = match (self.to_swallow, bytes.first_chunk()) {
            (Some(0), _) => return Pin::new(&mut self.transport).poll_write(cx, bytes),
            (Some(left), _) => left,
            // The message begins with its length, which counts itself.
            (None, Some(length)) => u32::from_be_bytes(*length) as usize,
            (None, None) => return Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
        };
        let swallowed = left.min(bytes.len());
        self.to_swallow = Some(left - swallowed);
        Poll::Ready(Ok(swallowed))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
