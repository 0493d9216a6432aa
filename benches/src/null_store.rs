//! A bucket store that keeps nothing but replication's own state: what replication costs without one.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use kairos_sync::{
    lsn::Lsn,
    storage::{
        Batch, BucketStore, BucketTotals, Checkpoint, Commit, DamageReport, DefinitionStats, DeploymentNumber,
        LookupKey, LookupValue, NamePrefixes, OperationRange, RowKey, StorageError, StoreStats, StoreView, StoredRow,
        StoredRules, TableId, WriteCheckpoint, WriteCheckpointKey,
    },
};
use kairos_sync_protocol::{BucketName, OpId, WriteCheckpointId};

/// Fit for sources whose changes need no stored row: complete rows, and rules without joins.
#[derive(Debug, Default)]
pub(crate) struct NullStore {
    state: Mutex<Option<Bytes>>,
    rules: Mutex<Option<StoredRules>>,
}

struct Nothing;

impl StoreView for Nothing {
    fn checkpoint(&self) -> Option<Checkpoint> {
        None
    }

    fn lookup(&self, _key: &LookupKey) -> Result<Vec<LookupValue>, StorageError> {
        Ok(Vec::new())
    }

    fn bucket(&self, _name: &BucketName) -> Result<BucketTotals, StorageError> {
        Ok(BucketTotals::default())
    }

    fn serving(&self) -> DeploymentNumber {
        DeploymentNumber::default()
    }

    fn bucket_prefix(&self) -> String {
        "null#".to_owned()
    }

    fn write_checkpoint(&self, _key: &WriteCheckpointKey) -> Result<Option<WriteCheckpoint>, StorageError> {
        Ok(None)
    }
}

impl BucketStore for NullStore {
    fn view(&self) -> Result<Box<dyn StoreView + '_>, StorageError> {
        Ok(Box::new(Nothing))
    }

    fn operations(
        &self,
        _bucket: &BucketName,
        _after: OpId,
        _upto: OpId,
        _bytes_max: usize,
    ) -> Result<OperationRange, StorageError> {
        Ok(OperationRange::default())
    }

    fn row(&self, _key: &RowKey) -> Result<Option<StoredRow>, StorageError> {
        Ok(None)
    }

    fn rows_of_table(
        &self,
        _table: TableId,
        _after: Option<&RowKey>,
        _limit: usize,
    ) -> Result<Vec<RowKey>, StorageError> {
        Ok(Vec::new())
    }

    fn stored_rows(
        &self,
        _table: TableId,
        _after: Option<&RowKey>,
        _limit: usize,
        _bytes_max: usize,
    ) -> Result<Vec<(RowKey, StoredRow)>, StorageError> {
        Ok(Vec::new())
    }

    fn lookup_entries(&self, _key: &LookupKey) -> Result<Vec<(RowKey, Vec<LookupValue>)>, StorageError> {
        Ok(Vec::new())
    }

    fn dependents(
        &self,
        _key: &LookupKey,
        _after: Option<&RowKey>,
        _limit: usize,
    ) -> Result<Vec<RowKey>, StorageError> {
        Ok(Vec::new())
    }

    fn replication_state(&self) -> Result<Option<Bytes>, StorageError> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn rules(&self) -> Result<Option<StoredRules>, StorageError> {
        Ok(self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn commit(&self, batch: Batch) -> Result<Commit, StorageError> {
        if let Some(state) = batch.replication_state {
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        }
        if let Some(rules) = batch.rules {
            *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some(rules);
        }
        let checkpoint = batch.visible_at.map(|lsn| Checkpoint { op_id: OpId::ZERO, lsn });
        Ok(Commit {
            checkpoint,
            buckets: Vec::new(),
            emptied: Vec::new(),
            lookups: Vec::new(),
            write_checkpoints: Vec::new(),
            serving: DeploymentNumber::default(),
        })
    }

    fn forget(&self, _names: &NamePrefixes, _limit: u32) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn damaged_buckets(&self, _limit: usize) -> Result<Vec<BucketName>, StorageError> {
        Ok(Vec::new())
    }

    fn damages(&self) -> Result<DamageReport, StorageError> {
        Ok(DamageReport::default())
    }

    fn shrink_damaged(&self, _name: &BucketName) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn empty_buckets(&self, _names: &[BucketName]) -> Result<Commit, StorageError> {
        self.commit(Batch::default())
    }

    fn buckets_mended(&self, _names: &[BucketName]) -> Result<(), StorageError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), StorageError> {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn put_write_checkpoints(
        &self,
        wanted: &[(WriteCheckpointKey, Option<WriteCheckpointId>)],
        head: Lsn,
    ) -> Result<Vec<WriteCheckpoint>, StorageError> {
        let put = |(_, requested): &(_, Option<WriteCheckpointId>)| WriteCheckpoint {
            id: requested.unwrap_or_default(),
            lsn: head,
        };
        Ok(wanted.iter().map(put).collect())
    }

    fn release_write_checkpoints(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn definition_stats(&self) -> Result<Vec<DefinitionStats>, StorageError> {
        Ok(Vec::new())
    }

    fn compact(&self) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn stats(&self) -> Result<StoreStats, StorageError> {
        Ok(StoreStats::default())
    }
}
