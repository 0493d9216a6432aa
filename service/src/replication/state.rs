//! What replication remembers between runs. Kept in the bucket store, so it never disagrees with the data beside it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    lsn::Lsn,
    postgres::{
        catalog::{Column, Table},
        value::ColumnType,
        walsender::SystemIdentity,
    },
    replication::error::ReplicationError,
    storage::{BucketStore, TableId},
};

/// Everything needed to go on, or to see that going on would be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReplicationState {
    /// Of the server's cluster.
    pub(super) system_id: String,
    /// Of the server.
    pub(super) timeline: String,
    /// The slot's name.
    pub(super) slot: String,
    /// Where the slot begins; `None` while it is being created.
    pub(super) slot_created_at: Option<Lsn>,
    /// The publication being read.
    pub(super) publication: String,
    /// Of the rules all operations were made with.
    pub(super) rules_fingerprint: String,
    /// The tables being read.
    pub(super) tables: Vec<TableState>,
    /// Where the source's WAL ended after the last table was copied: clients see nothing before the stream is there.
    pub(super) consistent_from: Lsn,
    /// Transactions whose commit lies before this position are in the store.
    pub(super) resume: Lsn,
}

/// A table being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableState {
    /// Its number in row keys.
    id: u32,
    /// Its object id in Postgres.
    pub(super) oid: u32,
    /// Its schema.
    pub(super) schema: String,
    /// Its name.
    pub(super) name: String,
    /// The columns that identify a row.
    pub(super) identity: Vec<ColumnState>,
    /// The columns it had over time; stored rows name the one they were written under. The last is the current one.
    pub(super) layouts: Vec<Vec<ColumnState>>,
    /// Whether its rows have been copied.
    pub(super) is_copied: bool,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ColumnState {
    /// Its name.
    pub(super) name: String,
    /// Object id of its type.
    pub(super) type_oid: u32,
    /// How its text is to be read. Kept with the rows, so that those written before a type changed, or before a newer
    /// service reads it in another way, are known to be of another layout.
    pub(super) read_as: ColumnType,
}

impl ReplicationState {
    /// The state before anything was copied, for a slot that is still to be created.
    pub(super) fn fresh(
        system: &SystemIdentity,
        slot: String,
        publication: String,
        rules_fingerprint: String,
        tables: &[Table],
    ) -> Self {
        let tables = (1..).zip(tables).map(|(id, table)| TableState::new(id, table)).collect();
        Self {
            system_id: system.system_id.clone(),
            timeline: system.timeline.clone(),
            slot,
            slot_created_at: None,
            publication,
            rules_fingerprint,
            tables,
            consistent_from: Lsn::ZERO,
            resume: Lsn::ZERO,
        }
    }

    /// What the last commit stored.
    pub(super) fn load(store: &dyn BucketStore) -> Result<Option<Self>, ReplicationError> {
        let stored = store.replication_state()?;
        stored.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(ReplicationError::State)
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("text, numbers and lists always serialise").into()
    }

    /// Whether all tables have been copied.
    pub(super) fn is_copied(&self) -> bool {
        self.tables.iter().all(|table| table.is_copied)
    }
}

impl TableState {
    fn new(id: u32, table: &Table) -> Self {
        let columns: Vec<_> = table
            .columns
            .iter()
            .map(|column| ColumnState {
                name: column.name.clone(),
                type_oid: column.type_oid,
                read_as: column.read_as.clone(),
            })
            .collect();
        Self {
            id,
            oid: table.oid,
            schema: table.schema.clone(),
            name: table.name.clone(),
            identity: table.identity_columns().into_iter().map(|position| columns[position].clone()).collect(),
            layouts: vec![columns],
            is_copied: false,
        }
    }

    pub(super) fn id(&self) -> TableId {
        TableId(self.id)
    }

    /// Whether this is still the table that was copied, as far as its rows' identity goes.
    pub(super) fn is_same_as(&self, table: &Table) -> bool {
        let now = Self::new(self.id, table);
        self.oid == now.oid && self.schema == now.schema && self.name == now.name && self.identity == now.identity
    }

    /// Whether values are still made of what they were made of when they were read.
    pub(super) fn has_types_of(&self, table: &Table) -> bool {
        let columns = self.layouts.last().map_or(&[][..], Vec::as_slice);
        columns.iter().all(|known| {
            let is_same = |column: &&Column| column.name == known.name && column.type_oid == known.type_oid;
            table.columns.iter().find(is_same).is_none_or(|column| column.read_as == known.read_as)
        })
    }
}
