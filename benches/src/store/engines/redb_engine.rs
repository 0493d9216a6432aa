//! redb, a copy-on-write B-tree: operations by bucket and op id, rows by key, one synced transaction for a commit.

use std::path::Path;

use redb::{Builder, Database, ReadableDatabase, TableDefinition};

use super::{
    engine::{CACHE_BYTES, Engine, Outcome, Slices},
    workload::{Changes, bucket_of, image_of},
};

const OPERATIONS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("operations");
const ROWS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("rows");
/// The position and the last op id, under 0.
const PLACE: TableDefinition<'_, u8, (u64, u64)> = TableDefinition::new("place");

pub(super) struct RedbEngine {
    database: Database,
    last_op_id: u64,
}

impl RedbEngine {
    pub(super) fn open(folder: &Path) -> Outcome<Self> {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create(folder.join("redb"))?;
        let is_new = database.begin_read()?.list_tables()?.next().is_none();
        if is_new {
            let tx = database.begin_write()?;
            tx.open_table(OPERATIONS)?;
            tx.open_table(ROWS)?;
            tx.open_table(PLACE)?;
            tx.commit()?;
        }
        let (_, last_op_id) = place_of(&database)?;
        Ok(Self { database, last_op_id })
    }
}

fn place_of(database: &Database) -> Outcome<(u64, u64)> {
    let place = database.begin_read()?.open_table(PLACE)?.get(0)?;
    Ok(place.map_or((0, 0), |place| place.value()))
}

impl Engine for RedbEngine {
    fn commit(&mut self, changes: &Changes) -> Outcome<()> {
        let mut op_id = self.last_op_id;
        let tx = self.database.begin_write()?;
        {
            let (mut operations, mut rows) = (tx.open_table(OPERATIONS)?, tx.open_table(ROWS)?);
            for change in &changes.rows {
                rows.insert(change.row, change.row_form().as_slice())?;
                if changes.has_operations {
                    op_id += 1;
                    operations.insert((bucket_of(change.row), op_id), change.wire_form(op_id)?.as_slice())?;
                }
            }
            tx.open_table(PLACE)?.insert(0, (changes.position, op_id))?;
        }
        tx.commit()?;
        self.last_op_id = op_id;
        Ok(())
    }

    fn position(&self) -> Outcome<u64> {
        Ok(place_of(&self.database)?.0)
    }

    fn last_op_id(&self) -> Outcome<u64> {
        Ok(self.last_op_id)
    }

    fn row(&self, row: u32) -> Outcome<Option<Vec<u8>>> {
        let form = self.database.begin_read()?.open_table(ROWS)?.get(row)?;
        Ok(form.map(|form| image_of(form.value())))
    }

    fn read(&self, bucket: u32, after: u64, take: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        let table = self.database.begin_read()?.open_table(OPERATIONS)?;
        let mut slices = Slices::new(take);
        for operation in table.range((bucket, after.saturating_add(1))..=(bucket, u64::MAX))? {
            slices.push(operation?.1.value())?;
        }
        slices.finish()
    }
}
