//! What replication remembers between runs. Kept in the bucket store, so it never disagrees with the data beside it.

use std::ops::RangeInclusive;

use bytes::Bytes;
use kairos_sync_rules::{Compatibility, SourceTable, SqlValue};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    lsn::Lsn,
    postgres::{
        catalog::{Column, Table},
        membership::Partition,
        preflight::source_table,
        value::ColumnType,
        walsender::SystemIdentity,
    },
    replication::{error::ReplicationError, rebuild::Rebuild, unsettled::Unsettled},
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
    /// The publications being read, sorted.
    #[serde(alias = "publication", deserialize_with = "one_or_several")]
    pub(super) publications: Vec<String>,
    /// The tables being read, and those whose rows are still to be forgotten.
    pub(super) tables: Vec<TableState>,
    /// The number the next new table gets; never used twice.
    next_table_id: u32,
    /// Whether clients see nothing until all tables are copied: at first, and when changes were missed.
    pub(super) hides: bool,
    /// Transactions whose commit lies before this position are in the store.
    pub(super) resume: Lsn,
    /// What is in the store of the next transaction. Clients see nothing while there is something.
    #[serde(default)]
    pub(super) partial: Option<PartialTransaction>,
    /// What is left to be done for lookups that changed. Clients see nothing while there is something.
    #[serde(default)]
    pub(super) unsettled: Unsettled,
    /// What is left to be done for rules that are being built.
    #[serde(default)]
    pub(super) rebuild: Option<Rebuild>,
    /// Rows were lost of which clients may have what is no longer so: they see nothing until what is built anew is served.
    #[serde(default)]
    pub(super) awaits_switch: bool,
}

/// A transaction too large for one commit, part of which is in the store. The source sends it again from its beginning,
/// with the same changes in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartialTransaction {
    /// Where its commit is.
    pub(super) commit_lsn: Lsn,
    /// How many of its changes are stored.
    pub(super) change_count: u64,
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
    /// Names of the columns that identify a row.
    pub(super) identity: Vec<String>,
    /// What made it part of the publications when the catalog was last looked at. When that changes, changes of its rows
    /// may have been left out meanwhile, or are from now on.
    #[serde(default)]
    published_by: String,
    /// Its partitions then, if it is published as one table.
    #[serde(default)]
    partitions: Vec<Partition>,
    /// The columns it had over time; stored rows name the one they were written under. One that no row names any more
    /// is empty.
    pub(super) layouts: Vec<Vec<ColumnState>>,
    /// A copy that is to begin.
    #[serde(default)]
    pub(super) due: Option<DueCopy>,
    /// What is left of its copy; `None` once all its rows are here.
    pub(super) copy: Option<TableCopy>,
    /// It is no longer there, or no longer published: its rows are being forgotten.
    pub(super) is_gone: bool,
}

/// A copy of a table that begins once the stream has passed the look at the catalog that asked for it. What the stream
/// brings before that may be of rows that are no longer published: they go under an older layout than the copy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DueCopy {
    at: Lsn,
    columns: Vec<ColumnState>,
}

/// A copy of a table that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableCopy {
    /// The copy, and the stream since it began, write rows under this layout and later ones. Rows under older ones, once
    /// everything has been read, are no longer in the source.
    pub(super) first_layout: usize,
    /// What has been read of each heap.
    pub(super) parts: Vec<PartCopy>,
    /// Whether everything has been read, and only rows from before are left to be forgotten.
    pub(super) is_read: bool,
    /// Rows under earlier layouts may have changed unseen.
    #[serde(default)]
    pub(super) trusted_from: usize,
    /// Whether rows may be stored of which the stream sent only parts. If the copy does not meet them, because they lie in
    /// pages by now that had been read before, they are fetched in the end.
    #[serde(default)]
    pub(super) has_gaps: bool,
}

/// What has been read of one heap: the table's own, or that of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartCopy {
    /// The heap's table.
    pub(super) oid: u32,
    /// The file that had the pages; in another one rows lie elsewhere.
    pub(super) filenode: u32,
    /// Pages that have been read, in order, with no two ranges touching.
    pub(super) done: Vec<PageRange>,
}

/// Pages of a heap, from `first` up to but without `end`; `u32::MAX` stands for all that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct PageRange {
    pub(super) first: u32,
    pub(super) end: u32,
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

impl ColumnState {
    /// A value from its text; `None` is NULL.
    pub(super) fn decode(&self, text: Option<&[u8]>, compatibility: Compatibility) -> SqlValue {
        match text.map(std::str::from_utf8) {
            None => SqlValue::Null,
            Some(Ok(text)) => self.read_as.decode(text, compatibility),
            Some(Err(_)) => self.read_as.decode(&String::from_utf8_lossy(text.unwrap_or_default()), compatibility),
        }
    }
}

impl ReplicationState {
    /// The state before anything was copied, for a slot that is still to be created.
    pub(super) fn fresh(system: &SystemIdentity, slot: String, publications: Vec<String>, tables: &[Table]) -> Self {
        let mut state = Self {
            system_id: system.system_id.clone(),
            timeline: system.timeline.clone(),
            slot,
            slot_created_at: None,
            publications,
            tables: Vec::new(),
            next_table_id: 1,
            hides: !tables.is_empty(),
            resume: Lsn::ZERO,
            partial: None,
            unsettled: Unsettled::default(),
            rebuild: None,
            awaits_switch: false,
        };
        state.follow_catalog(tables, Lsn::ZERO);
        state
    }

    /// What the last commit stored.
    pub(super) fn load(store: &dyn BucketStore) -> Result<Option<Self>, ReplicationError> {
        let stored = store.replication_state()?;
        stored.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(ReplicationError::State)
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("text, numbers and lists always serialise").into()
    }

    /// Whether all tables have been copied, and nothing is left of those that are gone.
    pub(super) fn is_copied(&self) -> bool {
        self.tables.iter().all(|table| table.copy.is_none() && table.due.is_none())
    }

    /// The position clients may see the store at; `None` while it is not equal to the source at one.
    pub(super) fn visible_at(&self) -> Option<Lsn> {
        (!self.awaits_switch && self.is_equal()).then_some(self.resume)
    }

    /// Whether what is built, if anything, is equal to the source at a position.
    pub(super) fn is_equal(&self) -> bool {
        !self.hides && self.partial.is_none() && self.unsettled.is_empty()
    }

    /// Takes in which tables there are now, or were when the source's WAL ended at `seen_at`. What changed is copied; the
    /// names of what changed are returned with the reason.
    pub(super) fn follow_catalog(&mut self, tables: &[Table], seen_at: Lsn) -> Vec<(String, &'static str)> {
        let mut changes = Vec::new();
        for state in self.tables.iter_mut().filter(|state| !state.is_gone) {
            if !tables.iter().any(|table| state.has_name_of(table)) {
                changes.push((state.full_name(), "it is no longer published under this name: its rows are removed"));
                state.give_up();
            }
        }
        for table in tables {
            let known = self.tables.iter_mut().find(|state| !state.is_gone && state.has_name_of(table));
            if let Some(state) = known {
                changes.extend(state.follow(table, seen_at).map(|change| (state.full_name(), change)));
                continue;
            }
            let state = TableState::new(self.next_table_id, table, seen_at);
            self.next_table_id += 1;
            changes.push((state.full_name(), "it is new: its rows are copied"));
            self.tables.push(state);
        }
        changes
    }

    /// Changes may have been missed: everything is to be read again and compared with what is stored.
    pub(super) fn copy_everything_again(&mut self) {
        self.hides = !self.tables.is_empty();
        // Where the slot was never created nothing was read either, and what was begun for it will do.
        let is_begun = |table: &TableState| {
            self.slot_created_at.is_none()
                && table.copy.as_ref().is_some_and(|copy| copy.parts.is_empty() && !copy.is_read)
        };
        for table in self.tables.iter_mut().filter(|table| !table.is_gone && !is_begun(table)) {
            let due = table.due.as_ref().map(|due| &due.columns);
            let columns = due.or(table.layouts.last()).cloned().unwrap_or_default();
            table.begin_copy_of_unseen(columns);
        }
    }

    /// Stored rows of tables with these numbers were lost. The tables are copied as if they were new; what is left of their
    /// rows is forgotten, since older states may have come to light. Gives the tables that are there.
    pub(super) fn begin_anew(&mut self, lost: &[RangeInclusive<TableId>]) -> Vec<SourceTable> {
        let is_lost = |table: &&mut TableState| !table.is_gone && lost.iter().any(|ids| ids.contains(&table.id()));
        let mut anew = Vec::new();
        for table in self.tables.iter_mut().filter(is_lost) {
            anew.push(table.again(self.next_table_id));
            self.next_table_id += 1;
            table.give_up();
        }
        let names = anew.iter().map(TableState::source_table).collect();
        self.tables.append(&mut anew);
        names
    }

    /// A row of the table is stored of which the stream sent only parts.
    pub(super) fn has_gaps(&mut self, table: TableId) {
        let table = self.tables.iter_mut().find(|known| known.id() == table);
        if let Some(copy) = table.and_then(|table| table.copy.as_mut()) {
            copy.has_gaps = true;
        }
    }
}

impl TableState {
    fn new(id: u32, table: &Table, seen_at: Lsn) -> Self {
        let columns = columns_of(table);
        let due = (seen_at > Lsn::ZERO).then(|| DueCopy { at: seen_at, columns: columns.clone() });
        Self {
            id,
            oid: table.oid,
            schema: table.schema.clone(),
            name: table.name.clone(),
            identity: identity_of(table),
            published_by: table.published_by.clone(),
            partitions: table.partitions.clone(),
            layouts: vec![columns],
            copy: due.is_none().then(|| TableCopy::from_layout(0)),
            due,
            is_gone: false,
        }
    }

    pub(super) fn id(&self) -> TableId {
        TableId(self.id)
    }

    /// Schema and name, for messages.
    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The table as the rules name it.
    pub(super) fn source_table(&self) -> SourceTable {
        source_table(&self.schema, &self.name)
    }

    pub(super) fn has_name_of(&self, table: &Table) -> bool {
        (&self.schema, &self.name) == (&table.schema, &table.name)
    }

    /// What makes a copy necessary, if anything.
    fn follow(&mut self, table: &Table, seen_at: Lsn) -> Option<&'static str> {
        let (columns, identity) = (columns_of(table), identity_of(table));
        let newest = self.due.as_ref().map(|due| &due.columns).or(self.layouts.last());
        let partitions = std::mem::replace(&mut self.partitions, table.partitions.clone());
        let change = if self.oid != table.oid {
            "it was dropped and created again: its rows are copied again"
        } else if self.identity != identity {
            "its key or replica identity changed: its rows are copied again"
        } else if newest != Some(&columns) {
            "its columns changed: its rows are copied again"
        } else if self.published_by != table.published_by {
            "it is published in another way, or was not for a while: its rows are copied again"
        } else if partitions == table.partitions {
            return None;
        } else if partitions.iter().all(|known| table.partitions.contains(known)) && self.copy_rest(&partitions) {
            return Some("it has further partitions: their rows are copied");
        } else {
            "partitions of it were removed, emptied or rewritten: its rows are copied again"
        };
        (self.oid, self.identity) = (table.oid, identity);
        self.published_by.clone_from(&table.published_by);
        self.due = Some(DueCopy { at: seen_at, columns });
        Some(change)
    }

    /// Copies what is in no partition of these. `false` where a copy that has read all is not over.
    fn copy_rest(&mut self, partitions: &[Partition]) -> bool {
        if self.due.is_some() {
            return true;
        }
        if let Some(copy) = &self.copy {
            return !copy.is_read;
        }
        let all = PageRange { first: 0, end: u32::MAX };
        let read = |known: &Partition| PartCopy { oid: known.oid, filenode: known.filenode, done: vec![all] };
        // Of the first layout, as rows of the other partitions stay as they are.
        self.copy = Some(TableCopy { parts: partitions.iter().map(read).collect(), ..TableCopy::from_layout(0) });
        true
    }

    /// Begins the copy that is due at this position of the stream. Whether there was one.
    pub(super) fn begin_due(&mut self, position: Lsn) -> bool {
        let due = self.due.take_if(|due| due.at <= position);
        due.map(|due| self.begin_copy_of_unseen(due.columns)).is_some()
    }

    /// [`Self::begin_copy`] of rows that may have changed without the stream telling it.
    fn begin_copy_of_unseen(&mut self, columns: Vec<ColumnState>) {
        self.begin_copy(columns);
        if let Some(copy) = &mut self.copy {
            copy.trusted_from = copy.first_layout;
        }
    }

    /// Its full name and whether all its pages are read, if it is to be copied.
    pub(super) fn copy_progress(&self) -> Option<(String, bool)> {
        let is_read = self.due.is_none() && self.copy.as_ref().is_some_and(|copy| copy.is_read);
        (self.due.is_some() || self.copy.is_some()).then(|| (self.full_name(), is_read))
    }

    /// From now on rows are written under a layout of their own, so that those not met again can be told.
    pub(super) fn begin_copy(&mut self, columns: Vec<ColumnState>) {
        self.due = None;
        let trusted_from = self.copy.as_ref().map_or(0, |copy| copy.trusted_from);
        self.copy = Some(TableCopy { trusted_from, ..TableCopy::from_layout(self.layouts.len()) });
        self.layouts.push(columns);
    }

    /// All rows are here, and none from before.
    pub(super) fn end_copy(&mut self) {
        if let Some(copy) = self.copy.take() {
            self.layouts.iter_mut().take(copy.first_layout).for_each(Vec::clear);
        }
    }

    /// The same table under another number, with no row yet. The stream brings its rows from now on.
    fn again(&self, id: u32) -> Self {
        let layouts = vec![self.layouts.last().cloned().unwrap_or_default()];
        Self { id, layouts, copy: Some(TableCopy::from_layout(0)), ..self.clone() }
    }

    /// No row is here to stay.
    fn give_up(&mut self) {
        self.due = None;
        self.is_gone = true;
        let first_layout = self.layouts.len();
        self.copy = Some(TableCopy { is_read: true, ..TableCopy::from_layout(first_layout) });
    }

    /// The number of a layout rows may be written under now, a new one if need be.
    pub(super) fn layout_of(&mut self, columns: &[ColumnState]) -> usize {
        let first = self.copy.as_ref().map_or(0, |copy| copy.first_layout);
        let known = self.layouts.iter().skip(first).rposition(|layout| layout == columns);
        known.map_or_else(
            || {
                self.layouts.push(columns.to_vec());
                self.layouts.len() - 1
            },
            |position| first + position,
        )
    }
}

impl TableCopy {
    fn from_layout(first_layout: usize) -> Self {
        Self { first_layout, parts: Vec::new(), is_read: false, trusted_from: 0, has_gaps: false }
    }

    /// Takes in that pages were read.
    pub(super) fn read(&mut self, oid: u32, filenode: u32, pages: PageRange) {
        match self.parts.iter_mut().find(|part| part.oid == oid) {
            Some(part) if part.filenode == filenode => part.add(pages),
            Some(part) => *part = PartCopy { oid, filenode, done: vec![pages] },
            None => self.parts.push(PartCopy { oid, filenode, done: vec![pages] }),
        }
    }
}

impl PartCopy {
    fn add(&mut self, pages: PageRange) {
        self.done.push(pages);
        self.done.sort_unstable();
        let mut merged: Vec<PageRange> = Vec::with_capacity(self.done.len());
        for range in &self.done {
            match merged.last_mut() {
                Some(last) if range.first <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(*range),
            }
        }
        self.done = merged;
    }
}

/// Earlier releases read one publication.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::One(name) => vec![name],
        Names::Several(names) => names,
    })
}

/// The columns of a table as the catalog has it.
pub(super) fn columns_of(table: &Table) -> Vec<ColumnState> {
    let column = |column: &Column| ColumnState {
        name: column.name.clone(),
        type_oid: column.type_oid,
        read_as: column.read_as.clone(),
    };
    table.columns.iter().map(column).collect()
}

fn identity_of(table: &Table) -> Vec<String> {
    table.identity_columns().into_iter().map(|position| table.columns[position].name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_pages_grow_together() {
        let mut copy = TableCopy::from_layout(0);
        for (first, end) in [(0, 2), (4, 6), (8, u32::MAX), (2, 4), (6, 8)] {
            copy.read(1, 7, PageRange { first, end });
        }
        assert_eq!(copy.parts[0].done, [PageRange { first: 0, end: u32::MAX }]);
        copy.read(1, 8, PageRange { first: 4, end: 6 });
        assert_eq!(copy.parts[0].done, [PageRange { first: 4, end: 6 }], "in another file rows lie elsewhere");
    }

    fn table() -> TableState {
        let columns = vec![ColumnState { name: "id".to_owned(), type_oid: 25, read_as: ColumnType::Text }];
        TableState {
            id: 1,
            oid: 5,
            schema: "public".to_owned(),
            name: "items".to_owned(),
            identity: vec!["id".to_owned()],
            published_by: String::new(),
            partitions: Vec::new(),
            layouts: vec![columns],
            due: None,
            copy: None,
            is_gone: false,
        }
    }

    #[test]
    fn of_a_table_with_further_partitions_only_these_are_read() {
        let mut table = table();
        let columns = table.layouts[0].clone();
        assert!(table.copy_rest(&[Partition { oid: 7, attached_by: 1, filenode: 9 }]));
        let copy = table.copy.clone().expect("a copy");
        assert_eq!(copy.parts, [PartCopy { oid: 7, filenode: 9, done: vec![PageRange { first: 0, end: u32::MAX }] }]);
        assert_eq!(table.layout_of(&columns), 0, "rows of before are not told apart from it, and so stay");
        table.end_copy();
        assert_eq!(table.layouts, [columns]);
    }

    #[test]
    fn a_table_of_which_rows_were_lost_is_copied_under_another_number_and_its_rows_are_forgotten() {
        let system = SystemIdentity { system_id: "7".to_owned(), timeline: "1".to_owned(), head: Lsn::ZERO };
        let mut state = ReplicationState::fresh(&system, "s".to_owned(), vec!["p".to_owned()], &[]);
        state.next_table_id = 5;
        state.tables = (1..5).map(|id| TableState { id, name: format!("t{id}"), ..table() }).collect();
        state.tables[2].is_gone = true;
        let lost = state.begin_anew(&[TableId(2)..=TableId(3)]);
        assert_eq!(lost.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["t2"]);
        let told = |table: &TableState| (table.id, table.is_gone, table.copy.as_ref().map(|copy| copy.is_read));
        let told: Vec<_> = state.tables.iter().map(told).collect();
        let expected = [(1, false, None), (2, true, Some(true)), (3, true, None), (4, false, None)];
        assert_eq!(told, [&expected[..], &[(5, false, Some(false))]].concat());
        assert_eq!((state.tables[4].name.as_str(), &state.tables[4].layouts), ("t2", &table().layouts));
        assert!(state.begin_anew(&[TableId(2)..=TableId(3)]).is_empty(), "once is enough");
    }

    #[test]
    fn a_due_copy_begins_where_the_catalog_was_looked_at() {
        let mut table = table();
        let columns = table.layouts[0].clone();
        table.due = Some(DueCopy { at: Lsn::new(7), columns: columns.clone() });
        assert!(!table.begin_due(Lsn::new(6)));
        assert_eq!(table.layout_of(&columns), 0, "what comes before may not be published any more, and is not kept");
        assert!(table.begin_due(Lsn::new(7)));
        assert_eq!((table.layout_of(&columns), table.begin_due(Lsn::new(8))), (1, false));
    }

    #[test]
    fn the_state_of_an_earlier_release_is_read() {
        let system = SystemIdentity { system_id: "7".to_owned(), timeline: "1".to_owned(), head: Lsn::ZERO };
        let state = ReplicationState::fresh(&system, "s".to_owned(), vec!["p".to_owned()], &[]);
        let mut stored: serde_json::Value = serde_json::from_slice(&state.to_bytes()).expect("JSON");
        let fields = stored.as_object_mut().expect("an object");
        fields.remove("publications");
        fields.insert("publication".to_owned(), "p".into());
        assert_eq!(serde_json::from_value::<ReplicationState>(stored).expect("readable"), state);
    }

    #[test]
    fn a_copy_writes_under_layouts_of_its_own() {
        let mut table = table();
        let columns = table.layouts[0].clone();
        assert_eq!(table.layout_of(&columns), 0);
        table.begin_copy(columns.clone());
        assert_eq!(table.layout_of(&columns), 1, "the same columns, yet told apart from the rows of before");
        table.end_copy();
        assert_eq!((table.layouts[0].len(), table.layout_of(&columns)), (0, 1));
    }
}
