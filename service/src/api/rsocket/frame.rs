//! RSocket frames, as far as sync streams need them. Pure.
//!
//! A WebSocket message holds one frame: stream id (31 bits), type (6 bits), flags (10 bits), body; all big-endian. See
//! the RSocket protocol 1.0, <https://rsocket.io/about/protocol>. Fragments, leases and resumption are not used by
//! clients and refused.

use bytes::{BufMut, Bytes, BytesMut};

/// Flags.
const IGNORE: u16 = 0x200;
const METADATA: u16 = 0x100;
/// For payloads and requests: a fragment follows; for SETUP: resumption; for KEEPALIVE: answer this.
const FOLLOWS: u16 = 0x80;
const COMPLETE: u16 = 0x40;
const LEASE: u16 = 0x40;
const NEXT: u16 = 0x20;

const SETUP: u16 = 0x01;
const KEEPALIVE: u16 = 0x03;
const REQUEST_STREAM: u16 = 0x06;
const REQUEST_N: u16 = 0x08;
const CANCEL: u16 = 0x09;
const PAYLOAD: u16 = 0x0A;
const ERROR: u16 = 0x0B;

/// Credit is counted up to here: more than a stream ever uses.
const CREDIT_MAX: u32 = 0x7FFF_FFFF;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientFrame {
    /// The first frame.
    Setup(Setup),
    /// The client is there.
    KeepAlive {
        /// It wants to know whether the service is, too.
        respond: bool,
        /// To be sent back.
        data: Bytes,
    },
    /// Opens a stream.
    RequestStream {
        /// Its number.
        stream: u32,
        /// How many payloads may be sent.
        credit: u32,
        /// Where to.
        metadata: Bytes,
        /// What is asked for.
        data: Bytes,
    },
    /// So many more payloads may be sent.
    RequestN {
        /// Which stream.
        stream: u32,
        /// How many.
        credit: u32,
    },
    /// Ends a stream.
    Cancel {
        /// Which one.
        stream: u32,
    },
    /// Something that may be ignored.
    Ignored,
}

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    /// Milliseconds without any frame after which the client is gone.
    pub(super) lifetime_ms: u32,
    /// How metadata is written.
    pub(super) metadata_type: String,
    /// How requests are written.
    pub(super) data_type: String,
    /// Who the client is.
    pub(super) metadata: Bytes,
}

/// A frame that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct InvalidFrame(pub(super) &'static str);

/// Why a stream or a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorCode {
    /// The connection is refused.
    RejectedSetup = 0x003,
    /// The connection cannot go on.
    ConnectionError = 0x101,
    /// The request failed.
    ApplicationError = 0x201,
}

impl ClientFrame {
    /// Reads a message.
    pub(super) fn read(message: Bytes) -> Result<Self, InvalidFrame> {
        let mut body = Reader(message);
        let stream = body.u32()?;
        if stream > CREDIT_MAX {
            return Err(InvalidFrame("a stream id has more than 31 bits"));
        }
        let kind = body.u16()?;
        let (kind, flags) = (kind >> 10, kind & 0x3FF);
        match kind {
            SETUP if stream == 0 => Setup::read(flags, body).map(Self::Setup),
            KEEPALIVE if stream == 0 => {
                body.take(8)?; // the position, for resumption
                Ok(Self::KeepAlive { respond: flags & FOLLOWS != 0, data: body.0 })
            }
            REQUEST_STREAM if stream != 0 => {
                if flags & FOLLOWS != 0 {
                    return Err(InvalidFrame("fragments are not supported"));
                }
                let credit = body.credit()?;
                let metadata = body.metadata(flags)?;
                Ok(Self::RequestStream { stream, credit, metadata, data: body.0 })
            }
            REQUEST_N if stream != 0 => Ok(Self::RequestN { stream, credit: body.credit()? }),
            CANCEL if stream != 0 => Ok(Self::Cancel { stream }),
            // What a client that only asks for streams has to say on them.
            PAYLOAD | ERROR => Ok(Self::Ignored),
            _ if flags & IGNORE != 0 => Ok(Self::Ignored),
            _ => Err(InvalidFrame("a frame of this type is not supported")),
        }
    }
}

impl Setup {
    fn read(flags: u16, mut body: Reader) -> Result<Self, InvalidFrame> {
        if body.u16()? != 1 {
            return Err(InvalidFrame("only version 1 of the protocol is supported"));
        }
        body.u16()?;
        if flags & (FOLLOWS | LEASE) != 0 {
            return Err(InvalidFrame("resumption and leases are not supported"));
        }
        body.u32()?; // how often the client says that it is there
        let lifetime_ms = body.u32()?;
        let metadata_type = body.short_text()?;
        let data_type = body.short_text()?;
        let metadata = body.metadata(flags)?;
        Ok(Self { lifetime_ms, metadata_type, data_type, metadata })
    }
}

/// Takes a frame apart.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Result<Bytes, InvalidFrame> {
        if self.0.len() < length {
            return Err(InvalidFrame("a frame ends early"));
        }
        Ok(self.0.split_to(length))
    }

    fn number(&mut self, bytes: usize) -> Result<u32, InvalidFrame> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn u16(&mut self) -> Result<u16, InvalidFrame> {
        Ok(u16::from_be_bytes(self.take(2)?[..].try_into().expect("two bytes")))
    }

    fn u32(&mut self) -> Result<u32, InvalidFrame> {
        self.number(4)
    }

    fn credit(&mut self) -> Result<u32, InvalidFrame> {
        match self.u32()? {
            credit @ 1..=CREDIT_MAX => Ok(credit),
            _ => Err(InvalidFrame("the number of requested payloads is out of range")),
        }
    }

    fn short_text(&mut self) -> Result<String, InvalidFrame> {
        let length = self.number(1)? as usize;
        let text = self.take(length)?;
        String::from_utf8(text.to_vec()).map_err(|_| InvalidFrame("a MIME type is not text"))
    }

    fn metadata(&mut self, flags: u16) -> Result<Bytes, InvalidFrame> {
        if flags & METADATA == 0 {
            return Ok(Bytes::new());
        }
        let length = self.number(3)? as usize;
        self.take(length)
    }
}

fn frame(stream: u32, kind: u16, flags: u16, body_length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(6 + body_length);
    frame.put_u32(stream);
    frame.put_u16(kind << 10 | flags);
    frame
}

/// One payload of a stream.
pub(super) fn payload(stream: u32, data: &[u8]) -> Bytes {
    let mut frame = frame(stream, PAYLOAD, NEXT, data.len());
    frame.put_slice(data);
    frame.freeze()
}

/// The end of a stream.
pub(super) fn complete(stream: u32) -> Bytes {
    frame(stream, PAYLOAD, COMPLETE, 0).freeze()
}

/// The end of a stream, or of the connection with stream 0, for a reason.
pub(super) fn error(stream: u32, code: ErrorCode, message: &str) -> Bytes {
    let mut frame = frame(stream, ERROR, 0, 4 + message.len());
    frame.put_u32(code as u32);
    frame.put_slice(message.as_bytes());
    frame.freeze()
}

/// The answer to a keepalive.
pub(super) fn keepalive(data: &[u8]) -> Bytes {
    let mut frame = frame(0, KEEPALIVE, 0, 8 + data.len());
    frame.put_u64(0);
    frame.put_slice(data);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Bytes {
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    /// Frames as an independent implementation of the protocol writes them.
    #[test]
    fn frames_of_clients_are_understood() {
        let setup = "0000000005000001000000004e2000015f90106170706c69636174696f6e2f6a736f6e106170706c69636174696f6e2f6a736f6e0000027b7d";
        let json = "application/json".to_owned();
        let expect = Setup {
            lifetime_ms: 90_000,
            metadata_type: json.clone(),
            data_type: json,
            metadata: Bytes::from_static(b"{}"),
        };
        assert_eq!(ClientFrame::read(hex(setup)), Ok(ClientFrame::Setup(expect)));
        let request = "0000000119000000000a0000027b7d7b2261223a317d";
        let expect = ClientFrame::RequestStream {
            stream: 1,
            credit: 10,
            metadata: Bytes::from_static(b"{}"),
            data: Bytes::from_static(br#"{"a":1}"#),
        };
        assert_eq!(ClientFrame::read(hex(request)), Ok(expect));
        let request_n = ClientFrame::RequestN { stream: 1, credit: 5 };
        assert_eq!(ClientFrame::read(hex("00000001200000000005")), Ok(request_n));
        let keepalive = ClientFrame::KeepAlive { respond: true, data: Bytes::new() };
        assert_eq!(ClientFrame::read(hex("000000000c800000000000000000")), Ok(keepalive));
        assert_eq!(ClientFrame::read(hex("000000032400")), Ok(ClientFrame::Cancel { stream: 3 }));
    }

    #[test]
    fn frames_for_clients_are_as_others_write_them() {
        assert_eq!(payload(1, &[5, 0, 0, 0, 0]), hex("0000000128200500000000"));
        assert_eq!(complete(1), hex("000000012840"));
        assert_eq!(keepalive(b"x"), hex("000000000c00000000000000000078"));
        assert_eq!(error(0, ErrorCode::RejectedSetup, "no"), hex("000000002c00000000036e6f"));
        assert_eq!(error(1, ErrorCode::ApplicationError, ""), hex("000000012c0000000201"));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (frame, reason) in [
            ("", "a frame ends early"),
            ("00000001", "a frame ends early"),
            ("800000012400", "a stream id has more than 31 bits"),
            ("0000000119800000000a", "fragments are not supported"),
            ("000000011900000000000000", "the number of requested payloads is out of range"),
            ("00000001190000000001ffffff", "a frame ends early"),
            ("000000002000000000005", "a frame of this type is not supported"),
            ("000000011000", "a frame of this type is not supported"),
            ("00000000040000020000", "only version 1 of the protocol is supported"),
        ] {
            let frame = if frame.len() % 2 == 1 { format!("{frame}0") } else { frame.to_owned() };
            assert_eq!(ClientFrame::read(hex(&frame)), Err(InvalidFrame(reason)), "{frame}");
        }
        assert_eq!(ClientFrame::read(hex("000000011200")), Ok(ClientFrame::Ignored), "it says that it may be ignored");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(bytes: Vec<u8>) {
            let _ = ClientFrame::read(bytes.into());
        }

        #[test]
        fn any_body_is_read_or_refused(kind in 0..64_u16, flags in 0..0x400_u16, stream in 0..3_u32, body: Vec<u8>) {
            let mut message = frame(stream, kind, flags, body.len());
            message.put_slice(&body);
            let _ = ClientFrame::read(message.freeze());
        }
    }
}
