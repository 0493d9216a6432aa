//! From row changes to the operations of one store commit.
//!
//! Pure over a store to read from: nothing is written here. [`Applier`] collects the changes of a batch on top of what
//! the store has, so that later changes of the batch see earlier ones; [`Applier::settle`] brings in what these changes
//! mean for rows that joined the changed ones, and [`Applier::finish`] hands out the difference.

mod settle;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use kairos_sync_protocol::{BucketName, Checksum, WriteCheckpointId};
use kairos_sync_rules::{EvaluatedRow, EvaluationError, LookupKey, Scratch};

pub(super) use self::settle::PartSize;
use crate::{
    postgres::pgoutput::{OldTuple, Tuple, TupleValue},
    replication::{
        copy::{
            copied::{CopiedRow, Found},
            ledger::{Touched, Verdict},
        },
        error::ReplicationError,
        evaluated::{Evaluated, FEW_OUTPUTS, Put},
        image::{CompleteRow, Image, damaged_image, identity_key, subkey},
        lookups::{Lookups, group},
        pending::{PendingRows, Place},
        relations::SourceRelation,
    },
    storage::{
        Batch, BucketStore, Dependency, NewOperation, RowKey, RowOutput, StorageError, StoredRow, WriteCheckpointKey,
    },
};

/// Keys read from the store at once.
const PAGE: usize = 1_000;

/// Collects the changes of one store commit.
pub(super) struct Applier<'s> {
    store: &'s dyn BucketStore,
    lookups: Lookups<'s>,
    scratch: Scratch,
    rows: PendingRows<'s>,
    /// Rows of this batch by the lookups they asked; may name rows that no longer ask.
    consulting: HashMap<LookupKey, HashSet<RowKey, RandomState>, RandomState>,
    operations: Vec<NewOperation>,
    write_checkpoints: Vec<(WriteCheckpointKey, WriteCheckpointId)>,
    errors: Vec<EvaluationError>,
    touched: Vec<Touched>,
    bytes: usize,
}

/// How operations for an evaluated row are chosen.
#[derive(Clone, Copy)]
enum Emit<'o> {
    /// The row changed: all outputs are written again.
    All,
    /// Only something the row depends on changed: outputs that were there already are left alone.
    Differences,
    /// The row was taken through what is being built: outputs that were not there are written, all others stay.
    Additions,
    /// Outputs that clients have with this very data are left alone.
    Except(&'o HashMap<RowOutput, Arc<str>>),
    /// Nobody is served the outputs any more.
    Nothing,
}

impl<'s> Applier<'s> {
    pub(super) fn new(store: &'s dyn BucketStore) -> Self {
        Self::with_capacity(store, 0)
    }

    /// For about so many rows.
    pub(super) fn with_capacity(store: &'s dyn BucketStore, row_count: usize) -> Self {
        Self {
            store,
            lookups: Lookups::new(store),
            scratch: Scratch::default(),
            rows: PendingRows::new(store, row_count),
            consulting: HashMap::default(),
            operations: Vec::with_capacity(row_count),
            write_checkpoints: Vec::new(),
            errors: Vec::new(),
            touched: Vec::new(),
            bytes: 0,
        }
    }

    /// About how much memory the batch holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.rows.bytes()
    }

    /// Whether it holds no operation.
    pub(super) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Queries that failed for a row; their outputs are missing from the batch.
    pub(super) fn take_errors(&mut self) -> Vec<EvaluationError> {
        std::mem::take(&mut self.errors)
    }

    /// A row as the copy found it, under a layout of its own. `false` when it could not be stored.
    ///
    /// One that is stored with the same values stays as clients have it.
    pub(super) fn copied(
        &mut self,
        table: &SourceRelation,
        copied: CopiedRow,
        verdict: Verdict,
    ) -> Result<bool, ReplicationError> {
        let place = match verdict {
            Verdict::Skip => return Ok(true),
            Verdict::Complete => return self.completed(table, &copied),
            Verdict::New => match copied {
                CopiedRow { key, found: Found::Alone(evaluated) } => {
                    self.add_alone(key, evaluated);
                    return Ok(true);
                }
                _ => self.rows.add_new(&copied.key),
            },
            Verdict::Compare => {
                let place = self.rows.place(&copied.key)?;
                let stored = self.rows.at(place).cloned();
                let decoded = stored.as_ref().map(|stored| Image::decode(&stored.image).ok_or_else(damaged_image));
                if let (Some(stored), Some((stored_layout, Image::Complete(stored_row)))) =
                    (stored, decoded.transpose()?)
                {
                    self.compared(table, copied, place, stored, (stored_layout, &stored_row))?;
                    return Ok(true);
                }
                place
            }
        };
        self.put_copied(table, copied, place, Emit::All)?;
        Ok(true)
    }

    /// Adds a new row that nothing in the batch has to do with.
    fn add_alone(&mut self, key: RowKey, evaluated: Evaluated) {
        let Evaluated { stored, subkey, outputs, mut write_checkpoints, mut errors } = evaluated;
        self.errors.append(&mut errors);
        self.write_checkpoints.append(&mut write_checkpoints);
        self.emit(&subkey, &[], outputs, Emit::All);
        self.bytes += stored.image.len() + key.identity.len();
        self.rows.add_alone(key, stored);
    }

    /// Brings a row to the state that was copied.
    fn put_copied(
        &mut self,
        table: &SourceRelation,
        copied: CopiedRow,
        place: Place,
        emit: Emit<'_>,
    ) -> Result<(), ReplicationError> {
        let CopiedRow { key, found } = copied;
        match found {
            Found::Evaluated(evaluated) | Found::Alone(evaluated) => self.put(&key, place, evaluated, emit),
            Found::Image(image) => {
                let (layout, row) = complete(&image)?;
                let evaluated = self.evaluated(table, &key, (layout, &row), image)?;
                self.put(&key, place, evaluated, emit);
            }
        }
        Ok(())
    }

    /// A copied row which the stream has touched since: what the stream did not send is as it was.
    fn completed(&mut self, table: &SourceRelation, copied: &CopiedRow) -> Result<bool, ReplicationError> {
        let Some(stored) = self.rows.get(&copied.key)? else { return Ok(true) };
        let (stored_layout, image) = Image::decode(&stored.image).ok_or_else(damaged_image)?;
        let Image::Partial(sent) = image else { return Ok(true) };
        let (layout, row) = complete(copied.image())?;
        if !table.has_same_columns(layout, stored_layout) {
            return Ok(false);
        }
        let row = sent.completed_by(&row);
        self.evaluate(table, &copied.key, (layout, &row), row.encode(layout), Emit::All)?;
        Ok(true)
    }

    /// A copied row that is stored already.
    fn compared(
        &mut self,
        table: &SourceRelation,
        copied: CopiedRow,
        place: Place,
        stored: Arc<StoredRow>,
        (stored_layout, stored_row): (usize, &CompleteRow),
    ) -> Result<(), ReplicationError> {
        let (layout, row) = complete(copied.image())?;
        if *stored_row == row && table.has_same_columns(stored_layout, layout) {
            if stored_layout != layout {
                let image = copied.image().clone();
                self.bytes += image.len() + copied.key.identity.len();
                self.rows.set(place, Some(StoredRow { image, ..Arc::unwrap_or_clone(stored) }));
            }
            return Ok(());
        }
        let same = self.outputs_now(table, (stored_layout, stored_row), &stored)?;
        self.put_copied(table, copied, place, Emit::Except(&same))
    }

    /// What clients have of a stored row, with its data: outputs that will be the same again need no operation.
    fn outputs_now(
        &mut self,
        table: &SourceRelation,
        (layout, row): (usize, &CompleteRow),
        stored: &StoredRow,
    ) -> Result<HashMap<RowOutput, Arc<str>>, ReplicationError> {
        let Some(layout) = table.layout(layout) else {
            return Ok(HashMap::new());
        };
        let rows = layout.evaluate(row, &mut self.lookups, &mut self.scratch)?.rows;
        let outputs = rows.into_iter().map(|EvaluatedRow { bucket, object_type, object_id, data }| {
            (RowOutput { bucket, object_type, object_id }, data)
        });
        Ok(outputs.filter(|(output, _)| stored.outputs.contains(output)).collect())
    }

    /// Forgets a row that is no longer in the source: one that was written under an older layout than `first_layout`.
    /// Of one that the copy did not complete, gives the identifying values.
    pub(super) fn sweep(
        &mut self,
        table: &SourceRelation,
        key: &RowKey,
        first_layout: usize,
    ) -> Result<Option<Vec<Bytes>>, ReplicationError> {
        let Some(stored) = self.rows.get(key)? else { return Ok(None) };
        let (layout, image) = Image::decode(&stored.image).ok_or_else(damaged_image)?;
        if layout < first_layout {
            self.delete_key(table, key)?;
            return Ok(None);
        }
        match image {
            Image::Complete(_) => Ok(None),
            Image::Partial(row) => Ok(Some(row.identity(table.identity(layout)).ok_or_else(damaged_image)?)),
        }
    }

    /// What the stream did to rows of tables that are being copied, since the last call.
    pub(super) fn take_touched(&mut self) -> Vec<Touched> {
        std::mem::take(&mut self.touched)
    }

    /// A new row, or a new state of one. `old` is what the stream told of the row before.
    pub(super) fn upsert(
        &mut self,
        table: &SourceRelation,
        old: Option<OldTuple>,
        new: Tuple,
    ) -> Result<Upserted, ReplicationError> {
        if new.0.len() != table.column_count(table.current_layout()) {
            return Err(ReplicationError::RowShape { table: table.full_name() });
        }
        let (old_key, new) = match old {
            None => (None, new),
            Some(OldTuple::Key(old)) => (Some(tuple_key(table, &old)), fill_key(table, new, &old)),
            Some(OldTuple::Full(old)) => (Some(tuple_key(table, &old)), fill_from_old(new, &old)),
        };
        // Columns of the identity are known by now, even while others are not.
        let key = tuple_key(table, &new);
        let image = Image::of(self.fill(table, new, old_key.as_ref(), &key)?);
        let old_key = old_key.filter(|old_key| *old_key != key);
        self.touch(table, &key, old_key.is_some());
        if let Some(old_key) = old_key {
            self.touch(table, &old_key, false);
            self.delete_key(table, &old_key)?;
        }
        let layout = table.current_layout();
        match image {
            Image::Complete(row) => {
                self.evaluate(table, &key, (layout, &row), row.encode(layout), Emit::All)?;
                Ok(Upserted::Done)
            }
            Image::Partial(row) => {
                if table.is_being_copied {
                    self.keep_partial(&key, row.encode(layout))?;
                }
                Ok(Upserted::Partly)
            }
        }
    }

    /// Stores what is known of a row. Clients keep what they have of it.
    fn keep_partial(&mut self, key: &RowKey, image: Bytes) -> Result<(), StorageError> {
        let place = self.rows.place(key)?;
        let stored = self.rows.at(place).cloned().map_or_else(StoredRow::default, Arc::unwrap_or_clone);
        self.bytes += image.len() + key.identity.len();
        self.rows.set(place, Some(StoredRow { image, ..stored }));
        Ok(())
    }

    /// A row that is gone.
    pub(super) fn delete(&mut self, table: &SourceRelation, old: OldTuple) -> Result<(), StorageError> {
        let (OldTuple::Key(tuple) | OldTuple::Full(tuple)) = old;
        let key = tuple_key(table, &tuple);
        self.touch(table, &key, false);
        self.delete_key(table, &key)
    }

    fn touch(&mut self, table: &SourceRelation, key: &RowKey, has_moved_here: bool) {
        if table.is_being_copied {
            self.touched.push(Touched { key: key.clone(), has_moved_here });
        }
    }

    /// All rows of a table are gone that are in the batch. Those in the store follow by [`Self::truncate_page`].
    pub(super) fn truncate(&mut self, table: &SourceRelation) -> Result<(), StorageError> {
        self.rows.keys_of_table(table.id).iter().try_for_each(|key| self.delete_key(table, key))
    }

    /// Removes rows that are in the store, in the order of their keys. Gives the last one's key; `None` when there are
    /// no more after `after`.
    pub(super) fn truncate_page(
        &mut self,
        table: &SourceRelation,
        after: Option<&RowKey>,
    ) -> Result<Option<RowKey>, StorageError> {
        let page = self.store.rows_of_table(table.id, after, PAGE)?;
        page.iter().try_for_each(|key| self.delete_key(table, key))?;
        Ok(page.last().cloned())
    }

    /// The batch: what differs from the store.
    pub(super) fn finish(self) -> Batch {
        let Self { operations, write_checkpoints, rows, .. } = self;
        let (alone, changed) = rows.into_changed();
        let mut batch = Batch { operations, write_checkpoints, rows: alone, ..Batch::default() };
        for (key, before, after) in changed {
            let (old, new) = (before.as_deref(), after.as_deref());
            if [old, new].into_iter().flatten().any(|row| !row.lookups.is_empty()) {
                diff_lookups(&key, old, new, &mut batch);
            }
            if [old, new].into_iter().flatten().any(|row| !row.consulted.is_empty()) {
                diff_dependents(&key, old, new, &mut batch);
            }
            batch.rows.push((key, after.map(Arc::unwrap_or_clone)));
        }
        batch
    }

    /// Takes a stored row through what is being built. One that is not complete is evaluated when it is.
    pub(super) fn evaluate_news(
        &mut self,
        table: &SourceRelation,
        key: &RowKey,
        stored: StoredRow,
    ) -> Result<(), ReplicationError> {
        let (layout, decoded) = Image::decode(&stored.image).ok_or_else(damaged_image)?;
        let Image::Complete(row) = decoded else { return Ok(()) };
        let layout = table.layout(layout).ok_or_else(damaged_image)?;
        let evaluated = Evaluated::of_news(layout, key, &row, &stored, &mut self.lookups, &mut self.scratch)?;
        self.put_news(key, stored, evaluated);
        Ok(())
    }

    /// Brings a stored row to what [`Evaluated::of_news`] made of it.
    pub(super) fn put_news(&mut self, key: &RowKey, stored: StoredRow, evaluated: Evaluated) {
        let place = self.rows.add_stored(key, stored);
        self.put(key, place, evaluated, Emit::Additions);
    }

    /// Appends again what a stored row has in some buckets, which were emptied.
    pub(super) fn append_again(
        &mut self,
        table: &SourceRelation,
        key: &RowKey,
        stored: &StoredRow,
        buckets: &HashSet<BucketName>,
    ) -> Result<(), ReplicationError> {
        let (layout, image) = Image::decode(&stored.image).ok_or_else(damaged_image)?;
        let Image::Complete(row) = image else {
            return Err(ReplicationError::RowMissing { table: table.full_name() });
        };
        let Evaluated { subkey, outputs, .. } = self.evaluated(table, key, (layout, &row), stored.image.clone())?;
        // Other outputs come, or go, with what is left to be settled.
        let is_there = |put: &Put| buckets.contains(&put.output.bucket) && stored.outputs.contains(&put.output);
        for Put { output, data, checksum } in outputs.into_iter().filter(is_there) {
            self.push(NewOperation { output, subkey: Arc::clone(&subkey), checksum, data: Some(data) });
        }
        Ok(())
    }

    /// Evaluates a row again. One that is not complete is evaluated when it is.
    fn evaluate_image(&mut self, table: &SourceRelation, key: &RowKey, image: Bytes) -> Result<(), ReplicationError> {
        let (layout, decoded) = Image::decode(&image).ok_or_else(damaged_image)?;
        let Image::Complete(row) = decoded else { return Ok(()) };
        self.evaluate(table, key, (layout, &row), image, Emit::Differences)
    }

    /// Fills in the columns that were not sent because they did not change, as far as the stored row has them.
    fn fill(
        &mut self,
        table: &SourceRelation,
        new: Tuple,
        old_key: Option<&RowKey>,
        key: &RowKey,
    ) -> Result<Tuple, ReplicationError> {
        if !new.0.contains(&TupleValue::Unchanged) {
            return Ok(new);
        }
        // A row may be stored under its new key already, when the copy saw it after the key had changed.
        let mut known = None;
        for candidate in old_key.into_iter().chain([key]) {
            if known.is_none()
                && let Some(stored) = self.rows.get(candidate)?
            {
                let (layout, image) = Image::decode(&stored.image).ok_or_else(damaged_image)?;
                known = (layout >= table.trusted_from).then_some((layout, image));
            }
        }
        let Some((layout, image)) = known else { return Ok(new) };
        let fill = |(position, value)| match value {
            TupleValue::Unchanged => table.carry_over(position, layout, &image),
            value => value,
        };
        Ok(Tuple(new.0.into_iter().enumerate().map(fill).collect()))
    }

    fn delete_key(&mut self, table: &SourceRelation, key: &RowKey) -> Result<(), StorageError> {
        let place = self.rows.place(key)?;
        if self.rows.at(place).is_none() {
            return Ok(());
        }
        let subkey = subkey(&table.schema, &table.name, key);
        let emit = if table.is_read { Emit::All } else { Emit::Nothing };
        self.replace(key, place, None, &subkey, Vec::new(), emit);
        Ok(())
    }

    /// Evaluates a row, given with the number of its layout and as an image, and brings it to that state.
    fn evaluate(
        &mut self,
        table: &SourceRelation,
        key: &RowKey,
        row: (usize, &CompleteRow),
        image: Bytes,
        emit: Emit<'_>,
    ) -> Result<(), ReplicationError> {
        let evaluated = self.evaluated(table, key, row, image)?;
        let place = self.rows.place(key)?;
        self.put(key, place, evaluated, emit);
        Ok(())
    }

    fn evaluated(
        &mut self,
        table: &SourceRelation,
        key: &RowKey,
        (layout, row): (usize, &CompleteRow),
        image: Bytes,
    ) -> Result<Evaluated, StorageError> {
        let layout = table.layout(layout).ok_or_else(damaged_image)?;
        Evaluated::of(layout, key, row, image, &mut self.lookups, &mut self.scratch)
    }

    fn put(
        &mut self,
        key: &RowKey,
        place: Place,
        Evaluated { stored, subkey, outputs, mut write_checkpoints, mut errors }: Evaluated,
        emit: Emit<'_>,
    ) {
        self.errors.append(&mut errors);
        self.write_checkpoints.append(&mut write_checkpoints);
        self.replace(key, place, Some(stored), &subkey, outputs, emit);
    }

    /// Brings a row to its new state: PUTs for what it is now, then REMOVEs for what it is no longer.
    fn replace(
        &mut self,
        key: &RowKey,
        place: Place,
        after: Option<StoredRow>,
        subkey: &Arc<str>,
        outputs: Vec<Put>,
        emit: Emit<'_>,
    ) {
        let before = self.rows.at(place).cloned();
        let empty = StoredRow::default();
        let (old, new) = (before.as_deref().unwrap_or(&empty), after.as_ref().unwrap_or(&empty));
        self.emit(subkey, &old.outputs, outputs, emit);
        self.change_lookups(key, old, new);
        for lookup in &new.consulted {
            self.consulting.entry(lookup.clone()).or_default().insert(key.clone());
        }
        self.bytes += new.image.len() + key.identity.len();
        self.rows.set(place, after);
    }

    fn emit(&mut self, subkey: &Arc<str>, old: &[RowOutput], new: Vec<Put>, emit: Emit<'_>) {
        if matches!(emit, Emit::Nothing) {
            return;
        }
        let gone = if matches!(emit, Emit::Additions) { Vec::new() } else { outputs_gone(old, &new) };
        // Only asked when differences are wanted, or there are none.
        let wants_differences = matches!(emit, Emit::Differences | Emit::Additions);
        let had: HashSet<&RowOutput, RandomState> =
            if wants_differences { old.iter().collect() } else { HashSet::default() };
        for Put { output, data, checksum } in new {
            let is_same = |same: &HashMap<RowOutput, Arc<str>>| same.get(&output).is_some_and(|same| *same == data);
            if had.contains(&output) || matches!(emit, Emit::Except(same) if is_same(same)) {
                continue;
            }
            self.push(NewOperation { output, subkey: Arc::clone(subkey), checksum, data: Some(data) });
        }
        if gone.is_empty() {
            return;
        }
        let checksum = Checksum::of_remove(subkey);
        for output in gone {
            self.push(NewOperation { output, subkey: Arc::clone(subkey), checksum, data: None });
        }
    }

    fn push(&mut self, operation: NewOperation) {
        self.bytes += operation.data.as_ref().map_or(0, |data| data.len()) + std::mem::size_of::<NewOperation>();
        self.operations.push(operation);
    }

    fn change_lookups(&mut self, key: &RowKey, old: &StoredRow, new: &StoredRow) {
        if old.lookups.is_empty() && new.lookups.is_empty() {
            return;
        }
        let (old, mut new) = (group(&old.lookups), group(&new.lookups));
        for (lookup, values) in old {
            let now = new.remove(lookup).unwrap_or_default();
            if now != values {
                self.lookups.replace(lookup, key, now);
            }
        }
        for (lookup, values) in new {
            self.lookups.replace(lookup, key, values);
        }
    }
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upserted {
    /// It is in the batch.
    Done,
    /// It left values out which are not stored. While the table is being copied, what is known is kept.
    Partly,
}

/// Outputs a row had and has no longer.
fn outputs_gone(old: &[RowOutput], new: &[Put]) -> Vec<RowOutput> {
    if old.len().min(new.len()) <= FEW_OUTPUTS {
        let is_gone = |output: &&RowOutput| !new.iter().any(|kept| kept.output == **output);
        return old.iter().filter(is_gone).cloned().collect();
    }
    let kept: HashSet<&RowOutput, RandomState> = new.iter().map(|kept| &kept.output).collect();
    old.iter().filter(|output| !kept.contains(output)).cloned().collect()
}

/// Layout and row of an image that is complete.
fn complete(image: &Bytes) -> Result<(usize, CompleteRow), StorageError> {
    match Image::decode(image) {
        Some((layout, Image::Complete(row))) => Ok((layout, row)),
        _ => Err(damaged_image()),
    }
}

fn tuple_key(table: &SourceRelation, tuple: &Tuple) -> RowKey {
    let text = |position: usize| match tuple.0.get(position) {
        Some(TupleValue::Text(text)) => Some(&**text),
        _ => None,
    };
    identity_key(table.id, table.identity(table.current_layout()), text)
}

/// A large value of the key that did not change is not sent again, but the old key is then.
fn fill_key(table: &SourceRelation, mut new: Tuple, old: &Tuple) -> Tuple {
    for position in table.identity(table.current_layout()) {
        if let (Some(value @ TupleValue::Unchanged), Some(old)) = (new.0.get_mut(*position), old.0.get(*position)) {
            value.clone_from(old);
        }
    }
    new
}

/// Under `REPLICA IDENTITY FULL` the old row has the values that were not sent again.
fn fill_from_old(new: Tuple, old: &Tuple) -> Tuple {
    let fill = |(position, value)| match value {
        TupleValue::Unchanged => old.0.get(position).cloned().unwrap_or(TupleValue::Unchanged),
        value => value,
    };
    Tuple(new.0.into_iter().enumerate().map(fill).collect())
}

fn diff_lookups(key: &RowKey, before: Option<&StoredRow>, after: Option<&StoredRow>, batch: &mut Batch) {
    let grouped = |row: Option<&StoredRow>| -> BTreeMap<LookupKey, _> {
        let grouped = group(row.map_or(&[], |row| &row.lookups));
        grouped.into_iter().map(|(lookup, values)| (lookup.clone(), values)).collect()
    };
    let (mut old, new) = (grouped(before), grouped(after));
    for (lookup, values) in new {
        if old.remove(&lookup).as_ref() != Some(&values) {
            batch.lookups.push((lookup, key.clone(), values));
        }
    }
    batch.lookups.extend(old.into_keys().map(|lookup| (lookup, key.clone(), Vec::new())));
}

fn diff_dependents(key: &RowKey, before: Option<&StoredRow>, after: Option<&StoredRow>, batch: &mut Batch) {
    let consulted = |row: Option<&StoredRow>| -> BTreeSet<LookupKey> {
        row.into_iter().flat_map(|row| row.consulted.iter().cloned()).collect()
    };
    let (old, new) = (consulted(before), consulted(after));
    let entry = |lookup: &LookupKey, dependency| (lookup.clone(), key.clone(), dependency);
    batch.dependents.extend(new.difference(&old).map(|lookup| entry(lookup, Dependency::Added)));
    batch.dependents.extend(old.difference(&new).map(|lookup| entry(lookup, Dependency::Removed)));
}

#[cfg(test)]
pub(super) mod tests;
