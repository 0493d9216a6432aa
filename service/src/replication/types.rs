//! How the text of each type is read: what the state knows, and what the catalog says of types met in the stream.
//!
//! A type stays as it was first met, until the catalog is read again on the next connection, or a value shows that it
//! has grown: so one description of a table always gives the same layout.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use crate::{
    postgres::{PgError, SourceConfig, pgoutput::Relation, type_catalog::TypeCatalog, value::ColumnType},
    replication::{
        replicator::within_deadline,
        state::{ColumnState, TableState},
    },
};

/// How soon types are looked at again that did not explain a value: it may be older than what the catalog says now, and
/// so may all that follow it.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Types by object id.
pub(super) struct Types<'s> {
    source: &'s SourceConfig,
    known: HashMap<u32, ColumnType>,
    /// Tables by object id, as the stream described them last.
    described: HashMap<u32, Described>,
}

struct Described {
    relation: Relation,
    /// When its types were looked at again in vain.
    looked_in_vain: Option<Instant>,
}

impl<'s> Types<'s> {
    /// Knows the types of these tables, as their newest layouts have them.
    pub(super) fn new(source: &'s SourceConfig, tables: &[TableState]) -> Self {
        let newest = tables.iter().filter(|table| !table.is_gone).filter_map(|table| table.layouts.last());
        let columns = newest.flatten();
        let known = columns.map(|column| (column.type_oid, column.read_as.clone())).collect();
        Self { source, known, described: HashMap::new() }
    }

    /// The columns of a table as the stream describes it. Types that are not known, or that `newest`, the newest layout of
    /// the table, has otherwise, are looked up. Blocks meanwhile: the stream is applied on a thread that may.
    ///
    /// # Errors
    /// [`PgError`] when the source cannot be asked; the description comes again after the next connection.
    pub(super) fn columns(&mut self, relation: &Relation, newest: &[ColumnState]) -> Result<Vec<ColumnState>, PgError> {
        let is_doubtful = |oid: &u32| {
            let known = self.known.get(oid);
            known.is_none() || newest.iter().any(|column| column.type_oid == *oid && Some(&column.read_as) != known)
        };
        let doubtful: Vec<_> = relation.columns.iter().map(|column| column.type_oid).filter(is_doubtful).collect();
        self.look_up(&doubtful)?;
        let described = Described { relation: relation.clone(), looked_in_vain: None };
        self.described.entry(relation.oid).or_insert(described).relation.clone_from(relation);
        Ok(self.known_columns(relation))
    }

    fn known_columns(&self, relation: &Relation) -> Vec<ColumnState> {
        let column = |name: &String, type_oid: u32| ColumnState {
            name: name.clone(),
            type_oid,
            read_as: self.known.get(&type_oid).cloned().unwrap_or(ColumnType::Text),
        };
        relation.columns.iter().map(|found| column(&found.name, found.type_oid)).collect()
    }

    /// Looks at the types of a table again, since a value has more parts than its type had. Gives the table's description
    /// if its columns are no longer the `current` ones. Blocks like [`Self::columns`].
    pub(super) fn look_again(&mut self, oid: u32, current: &[ColumnState]) -> Result<Option<Relation>, PgError> {
        let Some(described) = self.described.get(&oid) else { return Ok(None) };
        if described.looked_in_vain.is_some_and(|at| at.elapsed() < LOOK_AGAIN_AFTER) {
            return Ok(None);
        }
        let relation = described.relation.clone();
        let own = |oid: &u32| matches!(self.known.get(oid), Some(ColumnType::Own(_)));
        let oids: Vec<_> = relation.columns.iter().map(|column| column.type_oid).filter(own).collect();
        self.look_up(&oids)?;
        let is_new = self.known_columns(&relation) != current;
        if let Some(described) = self.described.get_mut(&relation.oid) {
            described.looked_in_vain = (!is_new).then(Instant::now);
        }
        Ok(is_new.then_some(relation))
    }

    fn look_up(&mut self, oids: &[u32]) -> Result<(), PgError> {
        let catalog = if oids.iter().all(|oid| ColumnType::built_in(*oid).is_some()) {
            TypeCatalog::default()
        } else {
            Handle::current().block_on(read_catalog(self.source, oids))?
        };
        self.known.extend(oids.iter().map(|oid| (*oid, catalog.column_type(*oid))));
        Ok(())
    }
}

/// In a session of its own: the others are at work, and a type of one's own that is new in the stream is rare.
async fn read_catalog(source: &SourceConfig, oids: &[u32]) -> Result<TypeCatalog, PgError> {
    let client = Box::pin(source.connect()).await?;
    within_deadline(TypeCatalog::read(&client, oids.iter().copied())).await
}
