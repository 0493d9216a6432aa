//! The tables being read, ready to evaluate rows of: what the stream's relation numbers mean.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use kairos_sync_rules::{Compatibility, Evaluation, LookupSource, Scratch, SqlValue, SyncPlan, TableEvaluator};

use crate::{
    postgres::{
        pgoutput::{IdentitySetting, Relation, Tuple, TupleValue},
        preflight::source_table,
    },
    replication::{
        error::ReplicationError,
        image::{CompleteRow, Image},
        plans::Plans,
        state::{ColumnState, TableState},
        types::Types,
    },
    storage::TableId,
};

/// All tables being read.
pub(super) struct Relations<'p> {
    plans: &'p Plans,
    bucket_prefix: String,
    tables: HashMap<TableId, SourceRelation>,
    by_oid: HashMap<u32, TableId>,
    /// Published tables which the rules do not read.
    ignored: HashSet<u32>,
    /// Partitions that are published as their root: described, and never named by a change.
    partitions: BTreeSet<u32>,
}

/// A table being read.
pub(super) struct SourceRelation {
    pub(super) id: TableId,
    pub(super) schema: String,
    pub(super) name: String,
    /// Whether its copy has not ended: the stream's changes are noted then.
    pub(super) is_being_copied: bool,
    /// Whether a rule reads it. Else its rows are being forgotten, and clients lose its buckets as a whole.
    pub(super) is_read: bool,
    /// Rows under earlier layouts may have changed unseen: nothing is taken from them.
    pub(super) trusted_from: usize,
    /// Number of the layout in which the stream sends rows.
    current: usize,
    /// Shared with those who read rows for a copy.
    layouts: Vec<Arc<Layout>>,
}

/// What became of a description in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Described {
    /// Changes of this table can be applied.
    Known,
    /// So they can, but rows that do not change are no longer what the source shows: the table is to be copied again.
    Outdated(TableId),
    /// Its changes concern nobody, or are older than the copy that is to come.
    Ignored,
}

/// Columns a table has or had, and how rows of that time are evaluated.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) table: TableId,
    pub(super) schema: String,
    pub(super) name: String,
    /// Among the table's.
    pub(super) number: usize,
    /// Positions of the identifying columns.
    pub(super) identity: Vec<usize>,
    /// Whether no two rows of the table have the same identity at a time. Those without a key may.
    pub(super) has_unique_keys: bool,
    columns: Vec<ColumnState>,
    /// Positions of columns whose types may get further parts.
    growing: Vec<usize>,
    /// One per plan, with how it wants values to be printed.
    evaluators: Vec<(TableEvaluator, Compatibility)>,
}

impl Layout {
    /// How many columns rows have.
    pub(super) fn column_count(&self) -> usize {
        self.columns.len()
    }

    /// Evaluates a row.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub(super) fn evaluate<L: LookupSource, T: AsRef<[u8]>>(
        &self,
        row: &CompleteRow<T>,
        lookups: &mut L,
        scratch: &mut Scratch,
    ) -> Result<Evaluation, L::Error> {
        self.evaluate_by(&self.evaluators, row, lookups, scratch)
    }

    /// As [`Self::evaluate`], by what is being built alone.
    pub(super) fn evaluate_news<L: LookupSource, T: AsRef<[u8]>>(
        &self,
        row: &CompleteRow<T>,
        lookups: &mut L,
        scratch: &mut Scratch,
    ) -> Result<Evaluation, L::Error> {
        // The first plan is that of what is served.
        self.evaluate_by(self.evaluators.get(1..).unwrap_or_default(), row, lookups, scratch)
    }

    fn evaluate_by<L: LookupSource, T: AsRef<[u8]>>(
        &self,
        evaluators: &[(TableEvaluator, Compatibility)],
        row: &CompleteRow<T>,
        lookups: &mut L,
        scratch: &mut Scratch,
    ) -> Result<Evaluation, L::Error> {
        let mut evaluation: Option<Evaluation> = None;
        for (evaluator, compatibility) in evaluators {
            let values = self.values(row, *compatibility);
            let next = evaluator.evaluate_with(&values, lookups, scratch)?;
            match &mut evaluation {
                None => evaluation = Some(next),
                Some(evaluation) => evaluation.extend(next),
            }
        }
        Ok(evaluation.unwrap_or_default())
    }

    fn values<T: AsRef<[u8]>>(&self, row: &CompleteRow<T>, compatibility: Compatibility) -> Vec<SqlValue> {
        let decode = |(value, column): (&Option<T>, &ColumnState)| {
            column.decode(value.as_ref().map(AsRef::as_ref), compatibility)
        };
        row.0.iter().zip(&self.columns).map(decode).collect()
    }
}

impl<'p> Relations<'p> {
    pub(super) fn new(
        plans: &'p Plans,
        bucket_prefix: String,
        tables: &[TableState],
        partitions: BTreeSet<u32>,
    ) -> Self {
        let (tables_by_id, by_oid, ignored) = (HashMap::new(), HashMap::new(), HashSet::new());
        let mut relations = Self { plans, bucket_prefix, tables: tables_by_id, by_oid, ignored, partitions };
        for table in tables {
            relations.set(table);
        }
        relations
    }

    /// Takes in the state of a table that is new or has changed.
    pub(super) fn set(&mut self, table: &TableState) {
        self.by_oid.retain(|_, id| *id != table.id());
        if !table.is_gone {
            self.by_oid.insert(table.oid, table.id());
        }
        let prepared = self.prepare(table);
        self.tables.insert(table.id(), prepared);
    }

    /// A copy of a table has begun: the stream's rows, too, go under a layout of it from now on.
    pub(super) fn begin_copy(&mut self, table: &mut TableState) {
        let streamed = self.tables.get(&table.id()).map(|known| known.columns().to_vec());
        let current = streamed.map(|columns| table.layout_of(&columns));
        self.set(table);
        if let (Some(current), Some(prepared)) = (current, self.tables.get_mut(&table.id())) {
            prepared.current = current;
        }
    }

    /// Forgets a table.
    pub(super) fn remove(&mut self, id: TableId) {
        self.by_oid.retain(|_, known| *known != id);
        self.tables.remove(&id);
    }

    fn prepare(&self, table: &TableState) -> SourceRelation {
        let layouts = table.layouts.iter().enumerate();
        let layouts: Vec<_> = layouts.map(|(number, columns)| Arc::new(self.layout(table, number, columns))).collect();
        let known = self.tables.get(&table.id());
        SourceRelation {
            id: table.id(),
            schema: table.schema.clone(),
            name: table.name.clone(),
            is_being_copied: table.copy.is_some(),
            is_read: self.plans.read(&table.source_table()),
            trusted_from: table.copy.as_ref().map_or(0, |copy| copy.trusted_from),
            current: known.map_or(layouts.len().saturating_sub(1), |known| known.current),
            layouts,
        }
    }

    fn layout(&self, table: &TableState, number: usize, columns: &[ColumnState]) -> Layout {
        let source = table.source_table();
        let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
        let position = |wanted: &String| names.iter().position(|name| name == wanted);
        let reads_parts = self.plans.iter().any(|plan| plan.compatibility().custom_postgres_types);
        let evaluator = |plan: &SyncPlan| (plan.evaluator(&source, &names, &self.bucket_prefix), plan.compatibility());
        let may_grow = |(_, column): &(usize, &ColumnState)| reads_parts && column.read_as.has_composite();
        let identity: Vec<_> = table.identity.iter().filter_map(position).collect();
        Layout {
            table: table.id(),
            schema: table.schema.clone(),
            name: table.name.clone(),
            number,
            has_unique_keys: identity.len() == table.identity.len() && (1..columns.len()).contains(&identity.len()),
            identity,
            columns: columns.to_vec(),
            growing: columns.iter().enumerate().filter(may_grow).map(|(position, _)| position).collect(),
            evaluators: self.plans.iter().map(evaluator).collect(),
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

    /// Takes in what the stream says about a table. `is_history`: it says so of a time before the catalog was looked at,
    /// so that what differs from `tables` has been dealt with. `has_rows` tells whether a copy has stored rows already.
    ///
    /// # Errors
    /// [`ReplicationError::SchemaChanged`] when the catalog must be looked at again.
    pub(super) fn describe(
        &mut self,
        relation: &Relation,
        tables: &mut [TableState],
        types: &mut Types<'_>,
        is_history: bool,
        has_rows: impl Fn(TableId) -> bool,
    ) -> Result<Described, ReplicationError> {
        if self.partitions.contains(&relation.oid) {
            return Ok(Described::Ignored);
        }
        let known = tables.iter_mut().find(|table| !table.is_gone && table.oid == relation.oid);
        let Some(table) = known.filter(|table| is_described_by(table, relation)) else {
            let source = source_table(&relation.schema, &relation.name);
            let is_known = self.by_oid.contains_key(&relation.oid);
            let is_read = is_known || self.plans.read(&source);
            if is_read && !is_history {
                return Err(ReplicationError::SchemaChanged {
                    table: format!("{}.{}", relation.schema, relation.name),
                    change: "it is new, or its name or key changed",
                });
            }
            self.ignored.insert(relation.oid);
            return Ok(Described::Ignored);
        };
        self.ignored.remove(&relation.oid);
        let columns = types.columns(relation, table.layouts.last().map_or(&[], Vec::as_slice))?;
        // Rows that a copy is about to bring need no second one, and history is what a copy, if need be, comes after.
        let is_new = table.layouts.last() != Some(&columns) && !is_history;
        let is_outdated = is_new && (table.copy.is_none() || has_rows(table.id()));
        if is_outdated {
            table.begin_copy(columns.clone());
        }
        let layout_count = table.layouts.len();
        let current = table.layout_of(&columns);
        if is_outdated || layout_count != table.layouts.len() {
            self.set(table);
        }
        if let Some(prepared) = self.tables.get_mut(&table.id()) {
            prepared.current = current;
        }
        Ok(if is_outdated { Described::Outdated(table.id()) } else { Described::Known })
    }

    /// Whether a change of this table may be passed over; every other one must be known.
    pub(super) fn is_ignored(&self, oid: u32) -> bool {
        self.ignored.contains(&oid)
    }
}

/// Whether the stream speaks of the table as it was last found in the catalog: name and key.
fn is_described_by(table: &TableState, relation: &Relation) -> bool {
    let has = |name: &String| relation.columns.iter().any(|column| column.name == *name);
    let is_key = |name: &String| relation.columns.iter().any(|column| column.is_identity && column.name == *name);
    // Rows without a key are told apart by all they have, so another column makes other identities.
    let is_whole_row = table.layouts.last().is_some_and(|columns| columns.len() == table.identity.len());
    let has_same_identity = match relation.identity {
        // The whole row is sent, so any key can be taken from it.
        IdentitySetting::Full => {
            table.identity.iter().all(has) && (!is_whole_row || relation.columns.len() == table.identity.len())
        }
        IdentitySetting::Nothing => false,
        IdentitySetting::Default | IdentitySetting::Index => {
            let key_count = relation.columns.iter().filter(|column| column.is_identity).count();
            key_count == table.identity.len() && table.identity.iter().all(is_key)
        }
    };
    (&table.schema, &table.name) == (&relation.schema, &relation.name) && has_same_identity
}

impl SourceRelation {
    /// Schema and name, for messages.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Number of the layout in which the stream sends rows.
    pub(super) fn current_layout(&self) -> usize {
        self.current
    }

    /// The columns in which the stream sends rows.
    pub(super) fn columns(&self) -> &[ColumnState] {
        self.columns_of(self.current)
    }

    fn columns_of(&self, layout: usize) -> &[ColumnState] {
        self.layouts.get(layout).map_or(&[], |layout| &layout.columns)
    }

    /// How many columns rows of a layout have.
    pub(super) fn column_count(&self, layout: usize) -> usize {
        self.columns_of(layout).len()
    }

    /// Positions of the columns that identify a row of a layout.
    pub(super) fn identity(&self, layout: usize) -> &[usize] {
        self.layouts.get(layout).map_or(&[], |layout| &layout.identity)
    }

    /// Whether rows of two layouts with equal values are equal.
    pub(super) fn has_same_columns(&self, one: usize, other: usize) -> bool {
        one == other || self.columns_of(one) == self.columns_of(other)
    }

    /// Whether a row, in the current layout, has a value with more parts than are known of its type.
    pub(super) fn is_outgrown_by(&self, row: &Tuple) -> bool {
        let Some(layout) = self.layouts.get(self.current) else { return false };
        layout.growing.iter().any(|position| match (row.0.get(*position), layout.columns.get(*position)) {
            (Some(TupleValue::Text(text)), Some(column)) => {
                std::str::from_utf8(text).is_ok_and(|text| column.read_as.is_outgrown_by(text))
            }
            _ => false,
        })
    }

    /// A layout by its number; `None` for one that never was.
    pub(super) fn layout(&self, number: usize) -> Option<&Arc<Layout>> {
        self.layouts.get(number)
    }

    /// All its layouts, by number.
    pub(super) fn layouts(&self) -> &[Arc<Layout>] {
        &self.layouts
    }

    /// A column of the current layout, taken from a row of any layout; still unchanged if that row had no such column.
    pub(super) fn carry_over(&self, position: usize, layout: usize, row: &Image) -> TupleValue {
        // Under another type the same value may be another text.
        let wanted = self.columns().get(position);
        let old_position = self.columns_of(layout).iter().position(|old| Some(old) == wanted);
        old_position.map_or(TupleValue::Unchanged, |position| row.value(position))
    }
}
