//! fjall, a log-structured merge tree: operations by bucket and op id, rows by key, one synced batch for a commit.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{
    engine::{CACHE_BYTES, Engine, Outcome, Slices, operation_key, place, read_place},
    workload::{Changes, bucket_of, image_of},
};

/// What each of operations and rows collects in memory before it is written by key. Both together have about what our
/// store's tail may have; it is the least that fjall recommends.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// The least it takes. What is in there is read again when it opens.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Beside the rows, whose keys are shorter: a keyspace of its own would hardly ever be written out, and keep old journals.
const PLACE: &str = "place";

pub(super) struct FjallEngine {
    operations: Keyspace,
    rows: Keyspace,
    last_op_id: u64,
    // Dropped last.
    database: Database,
}

impl FjallEngine {
    pub(super) fn open(folder: &Path) -> Outcome<Self> {
        let builder = Database::builder(folder.join("fjall")).cache_size(CACHE_BYTES as u64);
        let database = builder.max_journaling_size(JOURNAL_BYTES).open()?;
        let keyspace =
            |name| database.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES));
        let (operations, rows) = (keyspace("operations")?, keyspace("rows")?);
        let (_, last_op_id) = place_of(&rows)?;
        Ok(Self { operations, rows, last_op_id, database })
    }
}

fn place_of(rows: &Keyspace) -> Outcome<(u64, u64)> {
    rows.get(PLACE)?.map_or(Ok((0, 0)), |numbers| read_place(&numbers))
}

impl Engine for FjallEngine {
    fn commit(&mut self, changes: &Changes) -> Outcome<()> {
        let mut op_id = self.last_op_id;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for change in &changes.rows {
            batch.insert(&self.rows, change.row.to_be_bytes(), change.row_form());
            if changes.has_operations {
                op_id += 1;
                batch.insert(&self.operations, operation_key(bucket_of(change.row), op_id), change.wire_form(op_id)?);
            }
        }
        batch.insert(&self.rows, PLACE, place(changes.position, op_id));
        batch.commit()?;
        self.last_op_id = op_id;
        Ok(())
    }

    fn position(&self) -> Outcome<u64> {
        Ok(place_of(&self.rows)?.0)
    }

    fn last_op_id(&self) -> Outcome<u64> {
        Ok(self.last_op_id)
    }

    fn row(&self, row: u32) -> Outcome<Option<Vec<u8>>> {
        Ok(self.rows.get(row.to_be_bytes())?.map(|form| image_of(&form)))
    }

    fn read(&self, bucket: u32, after: u64, take: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        let range = operation_key(bucket, after.saturating_add(1))..=operation_key(bucket, u64::MAX);
        let mut slices = Slices::new(take);
        for operation in self.operations.range(range) {
            slices.push(&operation.value()?)?;
        }
        slices.finish()
    }
}
