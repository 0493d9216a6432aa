//! The primitive parts all messages are made of.

use bytes::Bytes;

use crate::lsn::Lsn;

/// The bytes are not a message of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed pgoutput message")]
pub struct Malformed;

/// Takes a message apart from the front.
#[derive(Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(message: Bytes) -> Self {
        Self { rest: message }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.rest.len() {
            return Err(Malformed);
        }
        Ok(self.rest.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array = self.rest.first_chunk().copied().ok_or(Malformed)?;
        bytes::Buf::advance(&mut self.rest, N);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn, Malformed> {
        self.array().map(u64::from_be_bytes).map(Lsn::new)
    }

    /// Text up to a zero byte.
    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        let length = self.rest.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let text = self.bytes(length)?;
        self.u8()?;
        String::from_utf8(text.into()).map_err(|_| Malformed)
    }

    /// Bytes preceded by their length.
    pub(super) fn sized(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()?;
        self.bytes(length.try_into().map_err(|_| Malformed)?)
    }

    /// A message holds nothing beyond what was read.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}
