//! Begin, Commit and logical messages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// From the epoch of Unix to that of Postgres: 30 years with 7 leap days.
const TO_POSTGRES_EPOCH: Duration = Duration::from_hours((30 * 365 + 7) * 24);

/// A transaction is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: once this is confirmed, the server does not send the transaction again.
    pub end_lsn: Lsn,
    /// When it was committed, by the server's clock.
    pub committed_at: SystemTime,
}

impl Commit {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let _flags = reader.u8()?;
        let (commit_lsn, end_lsn) = (reader.lsn()?, reader.lsn()?);
        Ok(Self { commit_lsn, end_lsn, committed_at: time_of(reader.i64()?) })
    }
}

/// The time so many microseconds after the epoch of Postgres.
pub(crate) fn time_of(microseconds: i64) -> SystemTime {
    let (epoch, distance) = (UNIX_EPOCH + TO_POSTGRES_EPOCH, Duration::from_micros(microseconds.unsigned_abs()));
    if microseconds < 0 { epoch - distance } else { epoch + distance }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_the_year_2000_and_none_is_too_large() {
        assert_eq!(time_of(0), UNIX_EPOCH + TO_POSTGRES_EPOCH);
        assert_eq!(time_of(-946_684_800_000_000), UNIX_EPOCH);
        assert!(time_of(i64::MIN) < time_of(i64::MAX));
    }
}
