//! Transactions that are sent in parts while they still run.

use bytes::Bytes;

use super::{
    reader::{Malformed, Reader},
    transaction::Commit,
};

/// A part of a streamed transaction begins; it ends before anything else is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartStart {
    /// The transaction's id, never that of a subtransaction.
    pub xid: u32,
}

/// A change in a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamedChange {
    /// The transaction or subtransaction that made it.
    pub xid: u32,
    /// The message as [`decode`](super::decode) takes it.
    pub change: Bytes,
}

/// A streamed transaction is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCommit {
    /// The transaction's id.
    pub xid: u32,
    /// Its commit.
    pub commit: Commit,
}

/// Changes that have been sent were rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAbort {
    /// The transaction's id.
    pub xid: u32,
    /// The subtransaction that was rolled back; the same as `xid` when all of it was.
    pub subxid: u32,
}

impl PartStart {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let xid = reader.u32()?;
        let _is_first = reader.u8()?;
        Ok(Self { xid })
    }
}

impl StreamCommit {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { xid: reader.u32()?, commit: Commit::read(reader)? })
    }
}

impl StreamAbort {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { xid: reader.u32()?, subxid: reader.u32()? })
    }
}
