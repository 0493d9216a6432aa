//! The embedded store as the service uses it: totals by bucket, checksums, compression, folds and compaction included.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use kairos_sync::{
    lsn::Lsn,
    storage::{Batch, BucketStore, NewOperation, RowKey, RowOutput, SqliteOptions, SqliteStore, StoredRow, TableId},
};
use kairos_sync_protocol::{BucketName, OpId};

use super::{
    engine::{CACHE_BYTES, Engine, Outcome, SLICE_BYTES},
    workload::{Changes, TYPE, bucket_of, object_id, subkey},
};

pub(super) struct OurStore {
    store: SqliteStore,
    object_type: Arc<str>,
}

impl OurStore {
    pub(super) fn open(folder: &Path) -> Outcome<Self> {
        let options = SqliteOptions { cache_bytes: CACHE_BYTES, ..SqliteOptions::default() };
        Ok(Self { store: SqliteStore::open(folder, options)?, object_type: TYPE.into() })
    }
}

fn bucket_name(bucket: u32) -> BucketName {
    BucketName::new(format!("todos[\"u{bucket}\"]"))
}

fn key(row: u32) -> RowKey {
    RowKey { table: TableId(1), identity: row.to_be_bytes().into() }
}

impl Engine for OurStore {
    fn commit(&mut self, changes: &Changes) -> Outcome<()> {
        let mut batch = Batch {
            visible_at: Some(Lsn::new(changes.position)),
            replication_state: Some(Bytes::copy_from_slice(&changes.position.to_be_bytes())),
            ..Batch::default()
        };
        for change in &changes.rows {
            let output = RowOutput {
                bucket: bucket_name(bucket_of(change.row)),
                object_type: Arc::clone(&self.object_type),
                object_id: object_id(change.row).into(),
            };
            let stored = StoredRow {
                image: Bytes::copy_from_slice(change.data.as_bytes()),
                outputs: vec![output.clone()],
                ..StoredRow::default()
            };
            batch.rows.push((key(change.row), Some(stored)));
            if changes.has_operations {
                batch.operations.push(NewOperation {
                    output,
                    subkey: subkey(change.row).into(),
                    checksum: change.checksum,
                    data: Some(change.data.as_str().into()),
                });
            }
        }
        self.store.commit(batch)?;
        Ok(())
    }

    fn position(&self) -> Outcome<u64> {
        let Some(state) = self.store.replication_state()? else { return Ok(0) };
        Ok(u64::from_be_bytes(state.as_ref().try_into()?))
    }

    fn last_op_id(&self) -> Outcome<u64> {
        Ok(self.store.view()?.checkpoint().map_or(0, |checkpoint| checkpoint.op_id.get()))
    }

    fn row(&self, row: u32) -> Outcome<Option<Vec<u8>>> {
        Ok(self.store.row(&key(row))?.map(|stored| stored.image.to_vec()))
    }

    fn read(&self, bucket: u32, after: u64, take: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        let (bucket, upto, mut after) = (bucket_name(bucket), OpId::new(self.last_op_id()?)?, OpId::new(after)?);
        let mut json = Vec::new();
        loop {
            let range = self.store.operations(&bucket, after, upto, SLICE_BYTES)?;
            if range.count > 0 {
                json.clear();
                range.json.write(&mut json)?;
                take(&json)?;
                after = range.last_op_id;
            }
            if !range.has_more {
                return Ok(());
            }
        }
    }
}
