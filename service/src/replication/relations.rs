//! The tables being read, ready to evaluate rows of: what the stream's relation numbers mean.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use kairos_sync_rules::{Compatibility, SourceTable, SqlValue, SyncPlan, TableEvaluator};

use crate::{
    postgres::{
        pgoutput::{Relation, Tuple, TupleValue},
        preflight::CONNECTION_TAG,
    },
    replication::{
        error::ReplicationError,
        image::CompleteRow,
        state::{ColumnState, TableState},
        types::Types,
    },
    storage::TableId,
};

/// All tables being read.
pub(super) struct Relations<'p> {
    plan: &'p SyncPlan,
    bucket_prefix: String,
    tables: HashMap<TableId, SourceRelation>,
    by_oid: HashMap<u32, TableId>,
    /// Published tables which the rules do not read.
    ignored: HashSet<u32>,
}

/// A table being read.
pub(super) struct SourceRelation {
    pub(super) id: TableId,
    pub(super) schema: String,
    pub(super) name: String,
    /// Positions of the identifying columns in the current layout.
    pub(super) identity: Vec<usize>,
    layouts: Vec<Layout>,
}

/// Columns a table has or had, and how rows of that time are evaluated.
struct Layout {
    columns: Vec<ColumnState>,
    /// Positions of columns whose types may get further parts.
    growing: Vec<usize>,
    evaluator: TableEvaluator,
    compatibility: Compatibility,
}

impl<'p> Relations<'p> {
    pub(super) fn new(plan: &'p SyncPlan, bucket_prefix: String, tables: &[TableState]) -> Self {
        let mut relations =
            Self { plan, bucket_prefix, tables: HashMap::new(), by_oid: HashMap::new(), ignored: HashSet::new() };
        for table in tables {
            relations.by_oid.insert(table.oid, table.id());
            relations.tables.insert(table.id(), relations.prepare(table));
        }
        relations
    }

    fn prepare(&self, table: &TableState) -> SourceRelation {
        let layouts: Vec<_> =
            table.layouts.iter().map(|columns| self.layout(&table.schema, &table.name, columns)).collect();
        SourceRelation {
            id: table.id(),
            schema: table.schema.clone(),
            name: table.name.clone(),
            identity: identity_positions(table),
            layouts,
        }
    }

    fn layout(&self, schema: &str, name: &str, columns: &[ColumnState]) -> Layout {
        let source =
            SourceTable { connection: CONNECTION_TAG.to_owned(), schema: schema.to_owned(), name: name.to_owned() };
        let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
        let reads_parts = self.plan.compatibility().custom_postgres_types;
        let may_grow = |(_, column): &(usize, &ColumnState)| reads_parts && column.read_as.has_composite();
        Layout {
            columns: columns.to_vec(),
            growing: columns.iter().enumerate().filter(may_grow).map(|(position, _)| position).collect(),
            evaluator: self.plan.evaluator(&source, &names, &self.bucket_prefix),
            compatibility: self.plan.compatibility(),
        }
    }

    /// The table a change names; `None` for one the rules do not read.
    pub(super) fn by_oid(&self, oid: u32) -> Option<&SourceRelation> {
        self.by_oid.get(&oid).and_then(|id| self.tables.get(id))
    }

    /// The table of a row key.
    pub(super) fn by_id(&self, id: TableId) -> Option<&SourceRelation> {
        self.tables.get(&id)
    }

    /// Takes in what the stream says about a table. `tables` are told of new columns, `types` of their types.
    ///
    /// # Errors
    /// [`ReplicationError::SchemaChanged`] when rows copied earlier no longer fit.
    pub(super) fn describe(
        &mut self,
        relation: &Relation,
        tables: &mut [TableState],
        types: &mut Types<'_>,
    ) -> Result<(), ReplicationError> {
        let changed = |change| ReplicationError::SchemaChanged {
            table: format!("{}.{}", relation.schema, relation.name),
            change,
        };
        let Some(table) = tables.iter_mut().find(|table| table.oid == relation.oid) else {
            let source = SourceTable {
                connection: CONNECTION_TAG.to_owned(),
                schema: relation.schema.clone(),
                name: relation.name.clone(),
            };
            if self.plan.source_tables().iter().any(|pattern| pattern.matches(&source)) {
                return Err(changed("it is new in the publication, or was dropped and created again"));
            }
            self.ignored.insert(relation.oid);
            return Ok(());
        };
        if (&table.schema, &table.name) != (&relation.schema, &relation.name) {
            return Err(changed("it was renamed"));
        }
        let columns = types.columns(relation)?;
        let current = table.layouts.last().map_or(&[][..], Vec::as_slice);
        if current == columns {
            return Ok(());
        }
        if !table.identity.iter().all(|column| columns.contains(column)) {
            return Err(changed("its key or replica identity changed"));
        }
        let retyped =
            |new: &ColumnState| current.iter().any(|old| old.name == new.name && old.type_oid != new.type_oid);
        if columns.iter().any(retyped) {
            return Err(changed("a column got another type"));
        }
        table.layouts.push(columns);
        let prepared = self.prepare(table);
        self.tables.insert(table.id(), prepared);
        Ok(())
    }

    /// Whether a change of this table may be passed over; every other one must be known.
    pub(super) fn is_ignored(&self, oid: u32) -> bool {
        self.ignored.contains(&oid)
    }
}

fn identity_positions(table: &TableState) -> Vec<usize> {
    let columns = table.layouts.last().map_or(&[][..], Vec::as_slice);
    table.identity.iter().filter_map(|wanted| columns.iter().position(|column| column == wanted)).collect()
}

impl SourceRelation {
    /// Schema and name, for messages.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Number of the current layout.
    pub(super) fn current_layout(&self) -> usize {
        self.layouts.len() - 1
    }

    /// How many columns the table has now.
    pub(super) fn column_count(&self) -> usize {
        self.layouts[self.current_layout()].columns.len()
    }

    /// Whether a row, in the current layout, has a value with more parts than are known of its type.
    pub(super) fn is_outgrown_by(&self, row: &Tuple) -> bool {
        let layout = &self.layouts[self.current_layout()];
        layout.growing.iter().any(|position| match (row.0.get(*position), layout.columns.get(*position)) {
            (Some(TupleValue::Text(text)), Some(column)) => {
                std::str::from_utf8(text).is_ok_and(|text| column.read_as.is_outgrown_by(text))
            }
            _ => false,
        })
    }

    /// What evaluates rows of a layout, and the row as it takes it. `None` for a layout that never was.
    pub(super) fn evaluable(&self, layout: usize, row: &CompleteRow) -> Option<(&TableEvaluator, Vec<SqlValue>)> {
        let layout = self.layouts.get(layout)?;
        let decode = |(value, column): (&Option<Bytes>, &ColumnState)| match value {
            None => SqlValue::Null,
            Some(text) => match std::str::from_utf8(text) {
                Ok(text) => column.read_as.decode(text, layout.compatibility),
                Err(_) => column.read_as.decode(&String::from_utf8_lossy(text), layout.compatibility),
            },
        };
        Some((&layout.evaluator, row.0.iter().zip(&layout.columns).map(decode).collect()))
    }

    /// A column of the current layout, taken from a row of any layout; still unchanged if that row had no such column.
    pub(super) fn carry_over(&self, position: usize, layout: usize, row: &CompleteRow) -> TupleValue {
        let column = |layout: usize| self.layouts.get(layout).map(|layout| &layout.columns);
        let wanted = column(self.current_layout()).and_then(|columns| columns.get(position));
        let old_position = column(layout)
            .and_then(|columns| columns.iter().position(|old| Some(&old.name) == wanted.map(|new| &new.name)));
        match old_position.and_then(|position| row.0.get(position)) {
            Some(Some(text)) => TupleValue::Text(text.clone()),
            Some(None) => TupleValue::Null,
            None => TupleValue::Unchanged,
        }
    }
}
