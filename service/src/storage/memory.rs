//! A store in memory: the model other engines are compared with, and the store of tests. Nothing survives the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use kairos_sync_protocol::{BucketName, Checksum, OpId, WriteCheckpointId};

use super::{
    Batch, BucketGrowth, BucketStore, BucketTotals, Checkpoint, Commit, DamageReport, DefinitionStats, Dependency,
    DeploymentNumber, LookupKey, LookupValue, NamePrefixes, NewOperation, OperationRange, RowKey, StorageError,
    StoreStats, StoreView, StoredRow, StoredRules, TableId, WriteCheckpoint, WriteCheckpointKey,
    compaction::{Superseding, clear, cleared, count_to_clear, moved},
    definition_of, generation,
    range::RangeBuilder,
    wire::{WireOperation, write_json},
};
use crate::lsn::Lsn;

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    /// A view shares the state; a commit that meets a view changes a copy instead.
    state: RwLock<Arc<State>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    creation_id: String,
    write_checkpoints: BTreeMap<String, WriteCheckpoint>,
    generation: u64,
    last_op_id: OpId,
    checkpoint: Option<Checkpoint>,
    buckets: BTreeMap<BucketName, Bucket>,
    rows: BTreeMap<RowKey, StoredRow>,
    lookups: BTreeMap<LookupKey, BTreeMap<RowKey, Vec<LookupValue>>>,
    dependents: BTreeMap<LookupKey, BTreeSet<RowKey>>,
    replication: Option<Bytes>,
    rules: Option<StoredRules>,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    operations: Vec<WireOperation>,
    /// What the results of compaction stand for was replaced by operations up to these.
    valid_from: BTreeMap<OpId, OpId>,
    totals: BucketTotals,
    /// It was emptied, and is not mended.
    is_mending: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let state = State { creation_id: generation::creation_id(), generation: 1, ..State::default() };
        Self { state: RwLock::new(Arc::new(state)) }
    }

    /// The current state. A poisoned lock is harmless: states are replaced whole.
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut state))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn apply(&mut self, batch: Batch) -> Commit {
        let appended: Vec<_> = batch.operations.iter().map(|operation| self.append(operation)).collect();
        let named = appended.into_iter().zip(&batch.operations);
        let buckets =
            BucketGrowth::of(named.map(|(op_id, operation)| (&operation.output.bucket, op_id, operation.checksum)));
        for (key, row) in batch.rows {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        let mut lookups = BTreeSet::new();
        for (key, row, values) in batch.lookups {
            if self.set_lookup(&key, row, values) {
                lookups.insert(key);
            }
        }
        for (key, row, dependency) in batch.dependents {
            let rows = self.dependents.entry(key).or_default();
            match dependency {
                Dependency::Added => rows.insert(row),
                Dependency::Removed => rows.remove(&row),
            };
        }
        let record = |(key, id)| {
            let stored = self.put_write_checkpoint(&key, Lsn::ZERO, Some(id));
            (key, stored)
        };
        let write_checkpoints = batch.write_checkpoints.into_iter().map(record).collect();
        if let Some(state) = batch.replication_state {
            self.replication = Some(state);
        }
        if let Some(rules) = batch.rules {
            self.rules = Some(rules);
        }
        self.checkpoint = batch.visible_at.map(|lsn| Checkpoint { op_id: self.last_op_id, lsn });
        let (checkpoint, lookups) = (self.checkpoint, lookups.into_iter().collect());
        Commit { checkpoint, buckets, emptied: Vec::new(), lookups, write_checkpoints, serving: self.serving() }
    }

    fn empty(&mut self, names: &[BucketName]) -> Commit {
        let mut emptied = Vec::new();
        for name in names {
            let Some(bucket) = self.buckets.get_mut(name) else { continue };
            let op_id = self.last_op_id.next();
            self.last_op_id = op_id;
            *bucket = Bucket { is_mending: true, ..Bucket::default() };
            bucket.totals.append(op_id, Checksum::default());
            bucket.operations.push(clear(op_id));
            bucket.valid_from.insert(op_id, op_id);
            emptied.push(name.clone());
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.op_id = self.last_op_id;
        }
        Commit {
            checkpoint: self.checkpoint,
            buckets: Vec::new(),
            emptied,
            lookups: Vec::new(),
            write_checkpoints: Vec::new(),
            serving: self.serving(),
        }
    }

    fn serving(&self) -> DeploymentNumber {
        self.rules.as_ref().map(|rules| rules.serving).unwrap_or_default()
    }

    fn forget(&mut self, names: &NamePrefixes) {
        let prefix = generation::bucket_prefix(&self.creation_id, self.generation);
        let is_kept = |bucket: &BucketName| !names.has_bucket(&prefix, bucket);
        self.buckets.retain(|bucket, _| is_kept(bucket));
        self.rows.values_mut().for_each(|row| row.outputs.retain(|output| is_kept(&output.bucket)));
        self.lookups.retain(|key, _| !names.has_lookup(key));
        self.dependents.retain(|key, _| !names.has_lookup(key));
    }

    fn put_write_checkpoint(
        &mut self,
        key: &WriteCheckpointKey,
        head: Lsn,
        requested: Option<WriteCheckpointId>,
    ) -> WriteCheckpoint {
        let stored = WriteCheckpoint::after(self.write_checkpoints.get(&key.0).copied(), head, requested);
        self.write_checkpoints.insert(key.0.clone(), stored);
        stored
    }

    fn append(&mut self, operation: &NewOperation) -> OpId {
        let op_id = self.last_op_id.next();
        self.last_op_id = op_id;
        let mut json = Vec::new();
        write_json(op_id, operation, &mut json);
        let bucket = self.buckets.entry(operation.output.bucket.clone()).or_default();
        bucket.totals.append(op_id, operation.checksum);
        bucket.operations.push(WireOperation { op_id, checksum: operation.checksum, json: json.into() });
        op_id
    }

    /// Whether it changed anything.
    fn set_lookup(&mut self, key: &LookupKey, row: RowKey, mut values: Vec<LookupValue>) -> bool {
        values.sort();
        values.dedup();
        let rows = self.lookups.entry(key.clone()).or_default();
        let before = if values.is_empty() { rows.remove(&row) } else { rows.insert(row, values.clone()) };
        before.unwrap_or_default() != values
    }

    /// Compacts one bucket, if all is visible; whether any was changed.
    fn compact(&mut self) -> Result<bool, StorageError> {
        if self.checkpoint.is_none() {
            return Ok(false);
        }
        for bucket in self.buckets.values_mut() {
            if bucket.compact()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn definition_stats(&self) -> Vec<DefinitionStats> {
        let prefix = generation::bucket_prefix(&self.creation_id, self.generation);
        let mut all: BTreeMap<&str, DefinitionStats> = BTreeMap::new();
        for (name, bucket) in &self.buckets {
            let stats = all.entry(definition_of(name, &prefix)).or_default();
            stats.bucket_count += 1;
            stats.operation_count += bucket.totals.count;
            let bytes: usize = bucket.operations.iter().map(|operation| operation.json.len()).sum();
            stats.json_bytes += bytes as u64;
            stats.stored_bytes += bytes as u64;
        }
        for output in self.rows.values().flat_map(|row| &row.outputs) {
            if let Some(stats) = all.get_mut(definition_of(&output.bucket, &prefix)) {
                stats.row_count += 1;
            }
        }
        all.into_iter()
            .map(|(definition, stats)| DefinitionStats { definition: definition.to_owned(), ..stats })
            .collect()
    }

    fn size_bytes(&self) -> u64 {
        let operations = self.buckets.values().flat_map(|bucket| &bucket.operations).map(|op| op.json.len());
        let rows = self.rows.iter().map(|(key, row)| key.identity.len() + row.image.len());
        operations.chain(rows).map(|length| length as u64).sum()
    }
}

impl Bucket {
    /// Itself, unless it is not to be served.
    fn whole(&self) -> Result<&Self, StorageError> {
        let damaged = || StorageError::BucketDamaged { what: "it was emptied".to_owned() };
        (!self.is_mending).then_some(self).ok_or_else(damaged)
    }

    /// Whether it changed anything.
    fn compact(&mut self) -> Result<bool, StorageError> {
        let mut superseding = Superseding::new(0);
        let mut changes = false;
        for operation in self.operations.iter_mut().rev() {
            if let Some(later) = superseding.superseding(operation)? {
                *operation = moved(operation);
                self.valid_from.insert(operation.op_id, later);
                changes = true;
            }
        }
        let count = count_to_clear(&self.operations)?;
        if let Some(clear) = cleared(&self.operations[..count]) {
            let kept = self.valid_from.split_off(&clear.op_id.next());
            let latest = mem::replace(&mut self.valid_from, kept).into_values().chain([clear.op_id]).max();
            self.valid_from.insert(clear.op_id, latest.unwrap_or_default());
            self.operations.splice(..count, [clear]);
            self.totals.count = self.operations.len() as u64;
            changes = true;
        }
        Ok(changes)
    }
}

impl StoreView for Arc<State> {
    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn lookup(&self, key: &LookupKey) -> Result<Vec<LookupValue>, StorageError> {
        let rows = self.lookups.get(key).filter(|_| self.checkpoint.is_some());
        let values = rows.into_iter().flat_map(BTreeMap::values).flatten().cloned().collect::<BTreeSet<_>>();
        Ok(values.into_iter().collect())
    }

    fn bucket(&self, name: &BucketName) -> Result<BucketTotals, StorageError> {
        let bucket = self.buckets.get(name).filter(|_| self.checkpoint.is_some());
        Ok(bucket.map(Bucket::whole).transpose()?.map(|bucket| bucket.totals).unwrap_or_default())
    }

    fn serving(&self) -> DeploymentNumber {
        State::serving(self)
    }

    fn bucket_prefix(&self) -> String {
        generation::bucket_prefix(&self.creation_id, self.generation)
    }

    fn write_checkpoint(&self, key: &WriteCheckpointKey) -> Result<Option<WriteCheckpoint>, StorageError> {
        Ok(self.write_checkpoints.get(&key.0).copied())
    }
}

impl BucketStore for MemoryStore {
    fn view(&self) -> Result<Box<dyn StoreView + '_>, StorageError> {
        Ok(Box::new(self.state()))
    }

    fn operations(
        &self,
        bucket: &BucketName,
        after: OpId,
        upto: OpId,
        bytes_max: usize,
    ) -> Result<OperationRange, StorageError> {
        let state = self.state();
        let mut range = RangeBuilder::new(bytes_max);
        if let Some(bucket) = state.buckets.get(bucket).map(Bucket::whole).transpose()? {
            let start = bucket.operations.partition_point(|operation| operation.op_id <= after);
            for operation in &bucket.operations[start..] {
                let valid_from = bucket.valid_from.get(&operation.op_id).copied().unwrap_or_default();
                if operation.op_id > upto {
                    if start == 0 && range.is_empty() {
                        range.replaced_upto(valid_from);
                    }
                    break;
                }
                if !range.push(operation.op_id, &operation.json) {
                    break;
                }
                range.replaced_upto(valid_from);
            }
        }
        Ok(range.finish())
    }

    fn row(&self, key: &RowKey) -> Result<Option<StoredRow>, StorageError> {
        Ok(self.state().rows.get(key).cloned())
    }

    fn rows_of_table(&self, table: TableId, after: Option<&RowKey>, limit: usize) -> Result<Vec<RowKey>, StorageError> {
        let first = RowKey { table, identity: Arc::default() };
        let start = after.map_or(Bound::Included(&first), Bound::Excluded);
        let state = self.state();
        let keys = state.rows.range((start, Bound::Unbounded)).map(|(key, _)| key);
        Ok(keys.take_while(|key| key.table == table).take(limit).cloned().collect())
    }

    fn stored_rows(
        &self,
        table: TableId,
        after: Option<&RowKey>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(RowKey, StoredRow)>, StorageError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for key in self.rows_of_table(table, after, limit)? {
            let Some(row) = self.row(&key)? else { continue };
            bytes += row.image.len();
            rows.push((key, row));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(rows)
    }

    fn lookup_entries(&self, key: &LookupKey) -> Result<Vec<(RowKey, Vec<LookupValue>)>, StorageError> {
        let state = self.state();
        let entries = state.lookups.get(key).into_iter().flatten();
        Ok(entries.map(|(row, values)| (row.clone(), values.clone())).collect())
    }

    fn dependents(&self, key: &LookupKey, after: Option<&RowKey>, limit: usize) -> Result<Vec<RowKey>, StorageError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        let rows = state.dependents.get(key).into_iter().flat_map(|rows| rows.range((start, Bound::Unbounded)));
        Ok(rows.take(limit).cloned().collect())
    }

    fn replication_state(&self) -> Result<Option<Bytes>, StorageError> {
        Ok(self.state().replication.clone())
    }

    fn rules(&self) -> Result<Option<StoredRules>, StorageError> {
        Ok(self.state().rules.clone())
    }

    fn commit(&self, batch: Batch) -> Result<Commit, StorageError> {
        Ok(self.change(|state| state.apply(batch)))
    }

    fn forget(&self, names: &NamePrefixes, _: u32) -> Result<bool, StorageError> {
        self.change(|state| state.forget(names));
        Ok(false)
    }

    fn damaged_buckets(&self, limit: usize) -> Result<Vec<BucketName>, StorageError> {
        let state = self.state();
        let mending = state.buckets.iter().filter(|(_, bucket)| bucket.is_mending);
        Ok(mending.map(|(name, _)| name.clone()).take(limit).collect())
    }

    fn damages(&self) -> Result<DamageReport, StorageError> {
        let prefix = self.bucket_prefix()?;
        let state = self.state();
        let mending = state.buckets.iter().filter(|(_, bucket)| bucket.is_mending);
        Ok(DamageReport::of(false, false, mending.map(|(name, _)| (name, true)), &prefix))
    }

    fn shrink_damaged(&self, _: &BucketName) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn empty_buckets(&self, names: &[BucketName]) -> Result<Commit, StorageError> {
        Ok(self.change(|state| state.empty(names)))
    }

    fn buckets_mended(&self, names: &[BucketName]) -> Result<(), StorageError> {
        self.change(|state| {
            for name in names {
                if let Some(bucket) = state.buckets.get_mut(name) {
                    bucket.is_mending = false;
                }
            }
        });
        Ok(())
    }

    fn reset(&self) -> Result<(), StorageError> {
        self.change(|state| {
            let State { creation_id, write_checkpoints, generation, last_op_id, .. } = mem::take(state);
            let generation = generation + 1;
            *state = State { creation_id, write_checkpoints, generation, last_op_id, ..State::default() };
        });
        Ok(())
    }

    fn put_write_checkpoints(
        &self,
        wanted: &[(WriteCheckpointKey, Option<WriteCheckpointId>)],
        head: Lsn,
    ) -> Result<Vec<WriteCheckpoint>, StorageError> {
        let put = |state: &mut State, (key, requested): &(_, _)| state.put_write_checkpoint(key, head, *requested);
        Ok(self.change(|state| wanted.iter().map(|one| put(state, one)).collect()))
    }

    fn release_write_checkpoints(&self) -> Result<(), StorageError> {
        self.change(|state| state.write_checkpoints.values_mut().for_each(|stored| stored.lsn = Lsn::ZERO));
        Ok(())
    }

    fn compact(&self) -> Result<bool, StorageError> {
        self.change(State::compact)
    }

    fn definition_stats(&self) -> Result<Vec<DefinitionStats>, StorageError> {
        Ok(self.state().definition_stats())
    }

    fn stats(&self) -> Result<StoreStats, StorageError> {
        let state = self.state();
        Ok(StoreStats {
            bucket_count: state.buckets.len() as u64,
            operation_count: state.buckets.values().map(|bucket| bucket.totals.count).sum(),
            row_count: state.rows.len() as u64,
            size_bytes: state.size_bytes(),
            free_bytes: None,
            has_damaged_rows: false,
            damaged_bucket_count: state.buckets.values().filter(|bucket| bucket.is_mending).count() as u64,
            scrubbed_bytes: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::conformance::{self, Engine},
        *,
    };

    impl Engine for Arc<MemoryStore> {
        fn open(&self) -> Arc<dyn BucketStore> {
            Arc::<MemoryStore>::clone(self) as Arc<dyn BucketStore>
        }
    }

    conformance::suite!(Arc::new(MemoryStore::new()));
}
