//! Descriptions of tables.

use super::reader::{Malformed, Reader};

/// A table as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its object id, by which changes name it.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Which columns the old row of an update or delete shows.
    pub identity: IdentitySetting,
    /// The published columns, in the order values come in.
    pub columns: Vec<RelationColumn>,
}

/// `REPLICA IDENTITY` of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentitySetting {
    /// The primary key, if there is one.
    Default,
    /// Nothing.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a unique index.
    Index,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub is_identity: bool,
    /// Its name.
    pub name: String,
    /// Object id of its type.
    pub type_oid: u32,
}

impl Relation {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let oid = reader.u32()?;
        let schema = reader.text()?;
        let name = reader.text()?;
        let identity = match reader.u8()? {
            b'd' => IdentitySetting::Default,
            b'n' => IdentitySetting::Nothing,
            b'f' => IdentitySetting::Full,
            b'i' => IdentitySetting::Index,
            _ => return Err(Malformed),
        };
        let count = reader.u16()?;
        let columns = (0..count).map(|_| RelationColumn::read(reader)).collect::<Result<_, _>>()?;
        // An empty name stands for `pg_catalog`.
        let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
        Ok(Self { oid, schema, name, identity, columns })
    }
}

impl RelationColumn {
    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let is_identity = reader.u8()? & 1 != 0;
        let name = reader.text()?;
        let type_oid = reader.u32()?;
        let _modifier = reader.i32()?;
        Ok(Self { is_identity, name, type_oid })
    }
}
