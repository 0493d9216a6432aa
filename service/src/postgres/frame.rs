//! Messages of the wire protocol on a [`Transport`]: whole, and of bounded size.

use std::io;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::{ErrorFields, Header, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::postgres::{
    dial::Transport,
    error::{PgError, ServerError},
};

/// Postgres bounds a row at 1 GiB and most installations far below; a larger length is a torn or hostile stream.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Type byte and length.
const HEADER_BYTES: usize = 5;

/// One message, header included.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tag: u8,
    bytes: BytesMut,
}

impl Frame {
    /// What follows the header.
    pub(super) fn into_body(mut self) -> BytesMut {
        self.bytes.advance(HEADER_BYTES);
        self.bytes
    }

    /// The message as `postgres-protocol` reads it, which does not know them all.
    pub(super) fn parse(mut self) -> Result<Message, PgError> {
        Message::parse(&mut self.bytes)
            .ok()
            .flatten()
            .ok_or(PgError::Protocol("one that is malformed, or of an unknown kind"))
    }
}

/// A transport that reads and writes whole messages.
#[derive(Debug)]
pub(super) struct Framed {
    transport: Transport,
    buffer: BytesMut,
}

impl Framed {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, buffer: BytesMut::with_capacity(READ_BUFFER_BYTES) }
    }

    pub(super) fn is_private(&self) -> bool {
        matches!(self.transport, Transport::Tls(_) | Transport::Unix(_))
    }

    /// The next message. Cancelling loses nothing: bytes read so far stay in the buffer.
    pub(super) async fn read(&mut self) -> Result<Frame, PgError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            if self.transport.read_buf(&mut self.buffer).await.map_err(PgError::Lost)? == 0 {
                return Err(PgError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The next message if it has arrived in full and is of this kind.
    pub(super) fn next_if(&mut self, tag: u8) -> Result<Option<Frame>, PgError> {
        if self.buffer.first() == Some(&tag) { self.buffered() } else { Ok(None) }
    }

    /// Whether the next message has arrived in full and is of this kind.
    pub(super) fn has_next(&self, tag: u8) -> bool {
        let Ok(Some(header)) = Header::parse(&self.buffer) else { return false };
        header.tag() == tag && usize::try_from(header.len()).is_ok_and(|length| length < self.buffer.len())
    }

    /// A message that has arrived in full.
    fn buffered(&mut self) -> Result<Option<Frame>, PgError> {
        let header = Header::parse(&self.buffer).map_err(|_| PgError::Protocol("one with an impossible length"))?;
        let Some(header) = header else {
            self.buffer.reserve(READ_BUFFER_BYTES);
            return Ok(None);
        };
        let size = usize::try_from(header.len()).unwrap_or(usize::MAX);
        if size > MESSAGE_BYTES_MAX {
            return Err(PgError::MessageTooLarge { size, bound: MESSAGE_BYTES_MAX });
        }
        // The length counts itself, not the type byte.
        let total = size + 1;
        if self.buffer.len() < total {
            // At most twice what is there: the length is only what the other side says.
            let held = self.buffer.len();
            self.buffer.reserve((total - held).min(held).max(READ_BUFFER_BYTES));
            return Ok(None);
        }
        Ok(Some(Frame { tag: header.tag(), bytes: self.buffer.split_to(total) }))
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), PgError> {
        self.transport.write_all(bytes).await.map_err(PgError::Lost)?;
        self.transport.flush().await.map_err(PgError::Lost)
    }
}

/// Code and message of an error response; its detail may quote values and is left out.
pub(super) fn server_error(mut fields: ErrorFields<'_>) -> ServerError {
    let mut error = ServerError { sqlstate: "XX000".to_owned(), message: String::new() };
    while let Ok(Some(field)) = fields.next() {
        let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => error.sqlstate = text(),
            b'M' => error.message = text(),
            _ => {}
        }
    }
    error
}
