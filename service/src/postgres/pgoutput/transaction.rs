//! Begin, Commit and logical messages.

use bytes::Bytes;

use super::reader::{Malformed, Reader};
use crate::lsn::Lsn;

/// A transaction begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Where its commit record is: known already, since the plugin sends whole transactions.
    pub commit_lsn: Lsn,
    /// The transaction's id.
    pub xid: u32,
}

impl Begin {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let commit_lsn = reader.lsn()?;
        let _committed_at = reader.i64()?;
        let xid = reader.u32()?;
        Ok(Self { commit_lsn, xid })
    }
}

/// A transaction is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: once this is confirmed, the server does not send the transaction again.
    pub end_lsn: Lsn,
}

impl Commit {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let _flags = reader.u8()?;
        let (commit_lsn, end_lsn) = (reader.lsn()?, reader.lsn()?);
        let _committed_at = reader.i64()?;
        Ok(Self { commit_lsn, end_lsn })
    }
}

/// Something written by `pg_logical_emit_message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    /// Part of a transaction, or on its own.
    pub is_transactional: bool,
    /// Where it is in the WAL.
    pub lsn: Lsn,
    /// Says whose it is.
    pub prefix: String,
    /// Its text.
    pub content: Bytes,
}

impl LogicalMessage {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let flags = reader.u8()?;
        Ok(Self {
            is_transactional: flags & 1 != 0,
            lsn: reader.lsn()?,
            prefix: reader.text()?,
            content: reader.sized()?,
        })
    }
}
