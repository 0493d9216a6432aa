//! How the text of each type is read: what the state knows, and what the catalog says of types met in the stream.
//!
//! A type stays as it was first met, until the catalog is read again on the next connection, or a value shows that it
//! has grown: so one description of a table always gives the same layout.

use std::collections::HashMap;

use tokio::runtime::Handle;

use crate::{
    postgres::{PgError, SourceConfig, pgoutput::Relation, type_catalog::TypeCatalog, value::ColumnType},
    replication::{
        replicator::within_deadline,
        state::{ColumnState, TableState},
    },
};

/// Types by object id.
pub(super) struct Types<'s> {
    source: &'s SourceConfig,
    known: HashMap<u32, ColumnType>,
}

impl<'s> Types<'s> {
    /// Knows the types of these tables, as their newest layouts have them.
    pub(super) fn new(source: &'s SourceConfig, tables: &[TableState]) -> Self {
        let columns = tables.iter().flat_map(|table| table.layouts.iter().flatten());
        let known = columns.map(|column| (column.type_oid, column.read_as.clone())).collect();
        Self { source, known }
    }

    /// The columns of a table as the stream describes it. Blocks while unknown types are looked up: stream and copies
    /// are applied on threads that may.
    ///
    /// # Errors
    /// [`PgError`] when the source cannot be asked; the description comes again after the next connection.
    pub(super) fn columns(&mut self, relation: &Relation) -> Result<Vec<ColumnState>, PgError> {
        self.look_up(relation)?;
        let column = |name: &String, type_oid: u32| ColumnState {
            name: name.clone(),
            type_oid,
            read_as: self.known.get(&type_oid).cloned().unwrap_or(ColumnType::Text),
        };
        Ok(relation.columns.iter().map(|found| column(&found.name, found.type_oid)).collect())
    }

    fn look_up(&mut self, relation: &Relation) -> Result<(), PgError> {
        let oids = relation.columns.iter().map(|column| column.type_oid);
        let unknown: Vec<_> = oids.filter(|oid| !self.known.contains_key(oid)).collect();
        let catalog = if unknown.iter().all(|oid| ColumnType::built_in(*oid).is_some()) {
            TypeCatalog::default()
        } else {
            Handle::current().block_on(read_catalog(self.source, &unknown))?
        };
        self.known.extend(unknown.into_iter().map(|oid| (oid, catalog.column_type(oid))));
        Ok(())
    }
}

/// In a session of its own: the others are at work, and a type of one's own that is new in the stream is rare.
async fn read_catalog(source: &SourceConfig, oids: &[u32]) -> Result<TypeCatalog, PgError> {
    let client = Box::pin(source.connect()).await?;
    within_deadline(TypeCatalog::read(&client, oids.iter().copied())).await
}
