//! Changes of rows.

use bytes::Bytes;

use super::reader::{Malformed, Reader};

/// One column of a row in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TupleValue {
    /// SQL NULL. In an [`OldTuple::Key`] also: not part of the key.
    Null,
    /// A large value that was not sent again because it did not change.
    Unchanged,
    /// The value as Postgres prints it.
    Text(Bytes),
}

/// The columns of a row, in the order of its relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple(pub Vec<TupleValue>);

impl Tuple {
    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let count = reader.u16()?;
        let value = |reader: &mut Reader| match reader.u8()? {
            b'n' => Ok(TupleValue::Null),
            b'u' => Ok(TupleValue::Unchanged),
            b't' => reader.sized().map(TupleValue::Text),
            _ => Err(Malformed),
        };
        (0..count).map(|_| value(reader)).collect::<Result<_, _>>().map(Self)
    }
}

/// What an update or delete tells of the row before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldTuple {
    /// Only its replica identity.
    Key(Tuple),
    /// All of it, under `REPLICA IDENTITY FULL`.
    Full(Tuple),
}

/// A new row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// Its table.
    pub relation: u32,
    /// The row.
    pub new: Tuple,
}

impl Insert {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let relation = reader.u32()?;
        match reader.u8()? {
            b'N' => Ok(Self { relation, new: Tuple::read(reader)? }),
            _ => Err(Malformed),
        }
    }
}

/// A changed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Its table.
    pub relation: u32,
    /// Present when the replica identity changed or is the whole row.
    pub old: Option<OldTuple>,
    /// The row as it is now.
    pub new: Tuple,
}

impl Update {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let relation = reader.u32()?;
        let (old, marker) = match reader.u8()? {
            b'K' => (Some(OldTuple::Key(Tuple::read(reader)?)), reader.u8()?),
            b'O' => (Some(OldTuple::Full(Tuple::read(reader)?)), reader.u8()?),
            marker => (None, marker),
        };
        match marker {
            b'N' => Ok(Self { relation, old, new: Tuple::read(reader)? }),
            _ => Err(Malformed),
        }
    }
}

/// A removed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Its table.
    pub relation: u32,
    /// What is known of it.
    pub old: OldTuple,
}

impl Delete {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let relation = reader.u32()?;
        let old = match reader.u8()? {
            b'K' => OldTuple::Key(Tuple::read(reader)?),
            b'O' => OldTuple::Full(Tuple::read(reader)?),
            _ => return Err(Malformed),
        };
        Ok(Self { relation, old })
    }
}

/// Tables emptied by one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncate {
    /// The tables.
    pub relations: Vec<u32>,
}

impl Truncate {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let count = reader.u32()?;
        // CASCADE and RESTART IDENTITY: the relations listed are complete either way.
        let _options = reader.u8()?;
        (0..count).map(|_| reader.u32()).collect::<Result<_, _>>().map(|relations| Self { relations })
    }
}
