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
/// Before the server has let us in: its messages are short then, and it may be something else that answers.
const GREETING_BYTES_MAX: usize = 64 * 1024;
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
    /// All of it, as it was sent.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

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
    has_begun: bool,
}

impl Framed {
    /// Over a connection on which nothing has been said.
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, buffer: BytesMut::with_capacity(READ_BUFFER_BYTES), has_begun: false }
    }

    /// The server has let us in: rows may come, which may be large.
    pub(super) fn begun(&mut self) {
        self.has_begun = true;
    }

    /// The connection, and what has been read from it but not taken.
    pub(super) fn into_parts(self) -> (Transport, BytesMut) {
        (self.transport, self.buffer)
    }

    pub(super) fn is_private(&self) -> bool {
        matches!(self.transport, Transport::Tls(_) | Transport::Unix(_))
    }

    /// The server's certificate, in DER.
    pub(super) fn server_certificate(&self) -> Option<&[u8]> {
        let Transport::Tls(stream) = &self.transport else { return None };
        stream.get_ref().1.peer_certificates()?.first().map(AsRef::as_ref)
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
            self.make_room(READ_BUFFER_BYTES);
            return Ok(None);
        };
        let size = usize::try_from(header.len()).unwrap_or(usize::MAX);
        if !self.has_begun && size > GREETING_BYTES_MAX {
            return Err(PgError::Protocol("one that no Postgres begins with: something else may listen there"));
        }
        if size > MESSAGE_BYTES_MAX {
            return Err(PgError::MessageTooLarge { size, bound: MESSAGE_BYTES_MAX });
        }
        // The length counts itself, not the type byte.
        let total = size + 1;
        if self.buffer.len() < total {
            // At most twice what is there: the length is only what the other side says.
            let held = self.buffer.len();
            self.make_room((total - held).min(held).max(READ_BUFFER_BYTES));
            return Ok(None);
        }
        Ok(Some(Frame { tag: header.tag(), bytes: self.buffer.split_to(total) }))
    }

    /// Room for the next read. Messages are slices of the buffer and keep all of it while they are held, so a new one is
    /// begun only once this one is used up by half: or else each message that comes by itself would have one.
    fn make_room(&mut self, wanted: usize) {
        if self.buffer.capacity() - self.buffer.len() < READ_BUFFER_BYTES / 2 {
            self.buffer.reserve(wanted);
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{net::UnixStream, time::timeout};

    use super::*;
    use crate::fuzz::bounded;

    /// Only a reader that hangs takes so long.
    const DEADLINE: Duration = Duration::from_mins(1);

    fn pair() -> (UnixStream, Framed) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut framed = Framed::new(Transport::Unix(theirs));
        framed.begun();
        (ours, framed)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a short message");
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    async fn read(framed: &mut Framed) -> Result<(u8, Vec<u8>), PgError> {
        let frame = timeout(DEADLINE, framed.read()).await.expect("it does not hang")?;
        Ok((frame.tag, frame.into_body().to_vec()))
    }

    /// Lets the reader take what has been written; that a message is whole too early would end it.
    async fn assert_waits(framed: &mut Framed) {
        tokio::select! {
            biased;
            frame = framed.read() => panic!("{frame:?} before it has arrived"),
            () = tokio::time::sleep(Duration::from_micros(100)) => {}
        }
    }

    fn is_torn(outcome: &Result<(u8, Vec<u8>), PgError>) -> bool {
        matches!(outcome, Err(PgError::Lost(error)) if error.kind() == io::ErrorKind::UnexpectedEof)
    }

    #[tokio::test]
    async fn messages_may_be_torn_at_every_byte() {
        let messages = [message(b'Z', b"I"), message(b'C', b""), message(b'd', &[7; 300])];
        let bytes = messages.concat();
        for place in 0..=bytes.len() {
            let (mut ours, mut framed) = pair();
            let (before, after) = bytes.split_at(place);
            ours.write_all(before).await.expect("room");
            let mut whole = 0;
            while messages[..=whole].concat().len() <= place {
                let (tag, body) = read(&mut framed).await.expect("it has arrived");
                assert_eq!(message(tag, &body), messages[whole], "torn at {place}");
                whole += 1;
                if whole == messages.len() {
                    break;
                }
            }
            assert_waits(&mut framed).await;
            ours.write_all(after).await.expect("room");
            for expected in &messages[whole..] {
                let (tag, body) = read(&mut framed).await.expect("it has arrived");
                assert_eq!(message(tag, &body), *expected, "torn at {place}");
            }
        }
    }

    #[tokio::test]
    async fn what_has_arrived_is_known_without_reading() {
        let (mut ours, mut framed) = pair();
        ours.write_all(
            &[message(b'd', b"one"), message(b'd', b"two"), message(b'N', b""), message(b'd', b"")].concat(),
        )
        .await
        .expect("room");
        assert!(!framed.has_next(b'd'), "nothing was read");
        assert!(framed.next_if(b'd').expect("nothing wrong").is_none());
        assert_eq!(read(&mut framed).await.expect("the first"), (b'd', b"one".to_vec()));
        assert!(framed.has_next(b'd') && !framed.has_next(b'N'));
        assert_eq!(framed.next_if(b'd').expect("nothing wrong").map(Frame::into_body).as_deref(), Some(&b"two"[..]));
        assert!(framed.next_if(b'd').expect("nothing wrong").is_none(), "another kind comes first");
        assert_eq!(read(&mut framed).await.expect("the third"), (b'N', Vec::new()));
        assert!(framed.has_next(b'd'), "one without a body");
    }

    #[tokio::test]
    async fn lengths_that_lie_are_refused() {
        for (length, code) in [
            (i32::MIN, "PG-0112"),
            (-1, "PG-0112"),
            (0, "PG-0112"),
            (3, "PG-0112"),
            ((1 << 30) + 1, "PG-0113"),
            (i32::MAX, "PG-0113"),
        ] {
            let (mut ours, mut framed) = pair();
            ours.write_all(&[&message(b'C', b"before")[..], b"d", &length.to_be_bytes(), &[0; 8]].concat())
                .await
                .expect("room");
            assert_eq!(read(&mut framed).await.expect("nothing is wrong with it"), (b'C', b"before".to_vec()));
            for _ in 0..2 {
                let refused = read(&mut framed).await.expect_err("no such message");
                assert_eq!(refused.code(), code, "{length}");
            }
            assert!(!framed.has_next(b'd'));
        }
    }

    #[test]
    fn messages_that_come_one_by_one_share_their_memory() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let bytes = message(b'd', &[7; 20]);
        let held = bounded(200 * bytes.len(), || {
            runtime.block_on(async {
                let ((mut ours, mut framed), mut held) = (pair(), Vec::new());
                for _ in 0..200 {
                    ours.write_all(&bytes).await.expect("room");
                    held.push(framed.read().await.expect("it has arrived"));
                }
                held
            })
        });
        assert!(held.iter().all(|frame| frame.as_bytes() == bytes));
    }

    #[tokio::test]
    async fn before_the_server_has_let_us_in_messages_are_short() {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut framed = Framed::new(Transport::Unix(theirs));
        ours.write_all(&message(b'R', &vec![0; GREETING_BYTES_MAX - 4])).await.expect("room");
        assert_eq!(read(&mut framed).await.expect("just short enough").1.len(), GREETING_BYTES_MAX - 4);
        ours.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("room");
        assert_eq!(read(&mut framed).await.expect_err("not Postgres").code(), "PG-0112");
    }

    #[tokio::test]
    async fn the_end_in_a_message_is_an_error_and_so_is_the_end_after_one() {
        let bytes = message(b'd', b"text");
        for place in 0..=bytes.len() {
            let (mut ours, mut framed) = pair();
            ours.write_all(&bytes[..place]).await.expect("room");
            drop(ours);
            let first = read(&mut framed).await;
            if place == bytes.len() {
                assert!(first.is_ok());
                assert!(is_torn(&read(&mut framed).await));
            } else {
                assert!(is_torn(&first), "ends after {place} bytes: {first:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_length_alone_takes_no_memory() {
        const SENT: usize = 100_000;
        let (mut ours, mut framed) = pair();
        let send = async move {
            ours.write_all(&[&b"d"[..], &(1_i32 << 30).to_be_bytes(), &vec![0; SENT]].concat())
                .await
                .expect("it is read");
            drop(ours);
        };
        let ((), outcome) = tokio::join!(send, read(&mut framed));
        assert!(is_torn(&outcome), "{outcome:?}");
        let held = framed.buffer.capacity();
        assert!(held <= 4 * (SENT + READ_BUFFER_BYTES), "{held} bytes for {SENT}");
    }
}
