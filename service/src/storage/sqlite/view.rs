//! One consistent state of the store.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use kairos_sync_protocol::BucketName;

use super::{
    super::{
        BucketTotals, Checkpoint, DeploymentNumber, LookupKey, LookupValue, StorageError, StoreView, WriteCheckpoint,
        WriteCheckpointKey, generation,
    },
    Inner,
    bucket::Bucket,
    head::Head,
    index,
    pool::PooledReader,
    tail::TailTotals,
    write_checkpoint,
};

/// Longest wait for memory and file to be of one version, which differ for an instant only.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A read transaction with the tail's totals of the same version.
pub(super) struct SqliteView<'a> {
    reader: PooledReader<'a>,
    checkpoint: Option<Checkpoint>,
    bucket_prefix: String,
    serving: DeploymentNumber,
    tail_totals: Arc<TailTotals>,
}

impl StoreView for SqliteView<'_> {
    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn lookup(&self, key: &LookupKey) -> Result<Vec<LookupValue>, StorageError> {
        if self.checkpoint.is_none() {
            return Ok(Vec::new());
        }
        let mut values = BTreeSet::new();
        index::visit_entries(self.reader.conn(), key, |_, of_row| values.extend(of_row))?;
        Ok(values.into_iter().collect())
    }

    fn bucket(&self, name: &BucketName) -> Result<BucketTotals, StorageError> {
        if self.checkpoint.is_none() {
            return Ok(BucketTotals::default());
        }
        let Some(bucket) = Bucket::find(self.reader.conn(), name)? else {
            return Ok(BucketTotals::default());
        };
        let Bucket { id, folded: mut totals, .. } = bucket.whole()?;
        if let Some(tail) = self.tail_totals.get(&id) {
            totals.extend(tail);
        }
        Ok(totals)
    }

    fn serving(&self) -> DeploymentNumber {
        self.serving
    }

    fn bucket_prefix(&self) -> String {
        self.bucket_prefix.clone()
    }

    fn write_checkpoint(&self, key: &WriteCheckpointKey) -> Result<Option<WriteCheckpoint>, StorageError> {
        write_checkpoint::find(self.reader.conn(), key)
    }
}

impl Inner {
    /// A read transaction and the tail's totals of the same version. They differ only between a commit of the writer
    /// and its change in memory, so a few attempts do.
    pub(super) fn view(&self) -> Result<SqliteView<'_>, StorageError> {
        let reader = self.reader()?;
        let (checkpoint, bucket_prefix, serving, tail_totals) = until_some(|| {
            let (version, checkpoint, totals) = {
                let tail = self.tail_read();
                (tail.version, tail.checkpoint, tail.totals())
            };
            reader.conn().execute_batch("BEGIN")?;
            let head = Head::read(reader.conn())?;
            if head.version == version {
                let bucket_prefix = generation::bucket_prefix(&head.creation_id, head.generation);
                return Ok(Some((checkpoint, bucket_prefix, head.serving, totals)));
            }
            reader.conn().execute_batch("ROLLBACK")?;
            Ok(None)
        })?;
        Ok(SqliteView { reader, checkpoint, bucket_prefix, serving, tail_totals })
    }
}

/// Repeats `attempt` until it gives something.
fn until_some<T>(mut attempt: impl FnMut() -> Result<Option<T>, StorageError>) -> Result<T, StorageError> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(StorageError::Engine(format!("no consistent state could be read in {WAIT_MAX:?}")));
        }
        std::thread::yield_now();
    }
}
