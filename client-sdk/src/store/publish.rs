//! Makes a completed checkpoint visible, whole or not at all.

use std::collections::{BTreeMap, HashMap};

use kairos_sync_protocol::Checksum;
use rusqlite::{
    Connection, Statement, params,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    StoreError, crud,
    learn::{self, Columns},
    oplog::{delete_buckets, sql_id, unsigned},
    raw, staging, views,
};
use crate::{
    core::{Completion, Scope, Target},
    schema::Schema,
};

/// What became of a completed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The app sees it.
    Published(BTreeMap<String, RowChanges>),
    /// It is valid, but local writes hold it back.
    Withheld,
    /// These buckets did not add up. They are dropped; the others are kept.
    Damaged(Vec<String>),
}

/// What a checkpoint did to a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowChanges {
    /// Rows written: new ones, and those with another content.
    pub written: u64,
    /// Rows that are gone.
    pub deleted: u64,
}

/// Operations of complete buckets that the app does not see yet and that decide what their row is: no operation with a
/// higher id is visible or complete. `?1` is the largest priority number in scope; `?2` spares rows written locally; `?3` is
/// true for a part of a checkpoint, which cannot show all that was staged, and therefore brings staged rows itself.
const NEW_ROWS: &str = "SELECT o.row_type, o.row_id, o.data
    FROM kairos_bucket b CROSS JOIN kairos_oplog o ON o.bucket = b.id AND o.op_id > b.last_applied_op_id
    WHERE b.priority <= ?1
      AND (?3 OR (b.has_unstaged
        AND o.row_type NOT IN (SELECT name FROM kairos_table WHERE staged_rows IS NOT NULL)))
      AND NOT EXISTS (
        SELECT 1 FROM kairos_oplog p CROSS JOIN kairos_bucket q ON q.id = p.bucket
        WHERE p.row_id = o.row_id AND p.row_type = o.row_type AND p.op_id > o.op_id
          AND (q.priority <= ?1 OR p.op_id <= q.last_applied_op_id))
      AND NOT (?2 AND EXISTS (
        SELECT 1 FROM kairos_touched_row t WHERE t.row_type = o.row_type AND t.row_id = o.row_id AND t.is_local))";

/// Rows written locally or removed from a bucket, with what the service has of them now.
const TOUCHED_ROWS: &str = "SELECT t.row_type, t.row_id, (
        SELECT o.data FROM kairos_oplog o WHERE o.row_id = t.row_id AND o.row_type = t.row_type
        ORDER BY o.op_id DESC LIMIT 1)
    FROM kairos_touched_row t";

/// What the store has of a bucket.
struct Bucket {
    id: i64,
    checksum: Checksum,
    priority: u8,
    announced: Option<Announced>,
}

/// What the service said of a bucket with the last published checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announced {
    count: u64,
    checksum: Checksum,
}

/// Validates the checkpoint and publishes it, if local writes allow.
pub(super) fn complete(tx: &Connection, completion: &Completion, schema: &Schema) -> Result<Outcome, StoreError> {
    let Completion { target, scope } = completion;
    let buckets = buckets(tx)?;
    let damaged = damaged_buckets(&buckets, target, *scope);
    if !damaged.is_empty() {
        delete_buckets(tx, &damaged)?;
        return Ok(Outcome::Damaged(damaged));
    }
    if !scope.ignores_local_writes() && !crud::may_publish(tx, target.write_checkpoint)? {
        return Ok(Outcome::Withheld);
    }
    update_priorities(tx, &buckets, target)?;
    let mut tables = Tables::new(tx, schema);
    publish_new_rows(tx, *scope, &mut tables)?;
    mark_applied(tx, *scope)?;
    note_first_sync(tx, *scope)?;
    // After a part only: what the service has of a touched row may be in a bucket that is not complete.
    if *scope == Scope::Full {
        publish_touched_rows(tx, &mut tables)?;
        tables.show_staged()?;
        note_announced(tx, &buckets, target)?;
        crud::open_gate(tx)?;
        tx.execute("INSERT OR REPLACE INTO kairos_kv (key, value) VALUES ('last_synced_at', unixepoch())", [])?;
    }
    Ok(Outcome::Published(tables.finish()?))
}

fn buckets(tx: &Connection) -> Result<HashMap<String, Bucket>, StoreError> {
    let sql = "SELECT name, id, checksum, priority, count_at_last, announced_checksum FROM kairos_bucket";
    let mut statement = tx.prepare_cached(sql)?;
    let buckets = statement.query_map([], |row| {
        let (count, announced): (_, Option<u32>) = (unsigned(row, 4)?, row.get(5)?);
        let announced = announced.map(|bits| Announced { count, checksum: Checksum::from_bits(bits) });
        let checksum = Checksum::from_bits(row.get(2)?);
        Ok((row.get(0)?, Bucket { id: row.get(1)?, checksum, priority: row.get(3)?, announced }))
    })?;
    Ok(buckets.collect::<Result<_, _>>()?)
}

/// A bucket that is not in the store has no operations, and adds up to zero.
fn damaged_buckets(buckets: &HashMap<String, Bucket>, target: &Target, scope: Scope) -> Vec<String> {
    let sum = |name: &str| buckets.get(name).map_or(Checksum::ZERO, |bucket| bucket.checksum);
    let in_scope = target.buckets.values().filter(|bucket| scope.includes(bucket.priority));
    in_scope.filter(|bucket| sum(&bucket.bucket) != bucket.checksum).map(|bucket| bucket.bucket.clone()).collect()
}

/// Of all buckets: one that moved to a later priority must not be published with an earlier one.
fn update_priorities(tx: &Connection, buckets: &HashMap<String, Bucket>, target: &Target) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached("UPDATE kairos_bucket SET priority = ?2 WHERE id = ?1")?;
    for aim in target.buckets.values() {
        if let Some(bucket) = buckets.get(&aim.bucket).filter(|bucket| bucket.priority != aim.priority) {
            statement.execute(params![bucket.id, aim.priority])?;
        }
    }
    Ok(())
}

/// Also of buckets without operations, so that they are known.
fn note_announced(tx: &Connection, buckets: &HashMap<String, Bucket>, target: &Target) -> Result<(), StoreError> {
    tx.execute("UPDATE kairos_bucket SET count_since_last = 0 WHERE count_since_last <> 0", [])?;
    let mut statement = tx.prepare_cached(
        "INSERT INTO kairos_bucket (name, priority, count_at_last, announced_checksum) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE
         SET count_at_last = excluded.count_at_last, announced_checksum = excluded.announced_checksum",
    )?;
    for aim in target.buckets.values() {
        let announced = Announced { count: aim.count, checksum: aim.checksum };
        if buckets.get(&aim.bucket).and_then(|bucket| bucket.announced) != Some(announced) {
            statement.execute(params![aim.bucket, aim.priority, sql_id(aim.count), aim.checksum.bits()])?;
        }
    }
    Ok(())
}

fn mark_applied(tx: &Connection, scope: Scope) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE kairos_bucket SET last_applied_op_id = last_op_id, has_unstaged = 0
         WHERE priority <= ?1 AND last_applied_op_id <> last_op_id",
    )?
    .execute([largest_priority(scope)])?;
    Ok(())
}

fn publish_new_rows(tx: &Connection, scope: Scope, tables: &mut Tables<'_>) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(NEW_ROWS)?;
    let is_part = scope != Scope::Full;
    let mut rows = statement.query(params![largest_priority(scope), scope.ignores_local_writes(), is_part])?;
    while let Some(row) = rows.next()? {
        let row_type = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        tables.put(row_type, row.get_ref(1)?, row.get_ref(2)?)?;
    }
    Ok(())
}

fn publish_touched_rows(tx: &Connection, tables: &mut Tables<'_>) -> Result<(), StoreError> {
    let mut statement = tx.prepare_cached(TOUCHED_ROWS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let row_type = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        match row.get_ref(2)? {
            ValueRef::Null => tables.delete(row_type, row.get_ref(1)?)?,
            data => tables.put(row_type, row.get_ref(1)?, data)?,
        }
    }
    tx.execute("DELETE FROM kairos_touched_row", [])?;
    Ok(())
}

fn note_first_sync(tx: &Connection, scope: Scope) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO kairos_kv (key, value) VALUES ('first_synced_priority', ?1)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE value < excluded.value",
    )?
    .execute([largest_priority(scope)])?;
    Ok(())
}

const fn largest_priority(scope: Scope) -> u8 {
    match scope {
        Scope::Full => u8::MAX,
        Scope::UpTo(priority) => priority,
    }
}

/// Writes rows of the app's tables; passes over tables that are not declared, unless tables are learned.
struct Tables<'tx> {
    tx: &'tx Connection,
    schema: &'tx Schema,
    by_name: HashMap<String, Option<Table<'tx>>>,
}

struct Table<'tx> {
    rows: Rows<'tx>,
    changes: RowChanges,
    /// Only where tables are learned.
    columns: Option<Columns>,
    /// Only where rows are staged.
    staged: Option<Staged<'tx>>,
}

/// Rows that are in the table, but not visible.
struct Staged<'tx> {
    take_out: Statement<'tx>,
    taken_count: u64,
}

impl Table<'_> {
    /// What the row is was decided just now, whether it is staged or not.
    fn take_out(&mut self, id: ValueRef<'_>) -> Result<(), StoreError> {
        if let Some(staged) = &mut self.staged {
            staged.taken_count += staged.take_out.execute([ToSqlOutput::Borrowed(id)])? as u64;
        }
        Ok(())
    }
}

/// What writes the rows of a table.
enum Rows<'tx> {
    Json { put: Statement<'tx>, delete: Statement<'tx> },
    Raw(raw::Rows<'tx>),
}

impl Rows<'_> {
    fn put(&mut self, id: ValueRef<'_>, data: ValueRef<'_>) -> Result<usize, StoreError> {
        match self {
            Self::Json { put, .. } => Ok(put.execute(params![ToSqlOutput::Borrowed(id), ToSqlOutput::Borrowed(data)])?),
            Self::Raw(rows) => rows.put(id, data),
        }
    }

    fn delete(&mut self, id: ValueRef<'_>) -> Result<usize, StoreError> {
        match self {
            Self::Json { delete, .. } => Ok(delete.execute([ToSqlOutput::Borrowed(id)])?),
            Self::Raw(rows) => rows.delete(id),
        }
    }
}

impl<'tx> Tables<'tx> {
    fn new(tx: &'tx Connection, schema: &'tx Schema) -> Self {
        Self { tx, schema, by_name: HashMap::new() }
    }

    fn put(&mut self, name: &str, id: ValueRef<'_>, data: ValueRef<'_>) -> Result<(), StoreError> {
        let Some(table) = self.table(name)? else { return Ok(()) };
        if let Some(columns) = &mut table.columns {
            columns.see(data.as_str().map_err(rusqlite::Error::from)?);
        }
        table.take_out(id)?;
        table.changes.written += table.rows.put(id, data)? as u64;
        Ok(())
    }

    fn delete(&mut self, name: &str, id: ValueRef<'_>) -> Result<(), StoreError> {
        let Some(table) = self.table(name)? else { return Ok(()) };
        table.take_out(id)?;
        table.changes.deleted += table.rows.delete(id)? as u64;
        Ok(())
    }

    /// Shows what was staged.
    fn show_staged(&mut self) -> Result<(), StoreError> {
        self.note_taken()?;
        for (name, row_count) in staging::show(self.tx, self.schema)? {
            if let Some(table) = self.table(&name)? {
                table.staged = None;
                table.changes.written += row_count;
            }
        }
        Ok(())
    }

    fn note_taken(&mut self) -> Result<(), StoreError> {
        for (name, table) in &mut self.by_name {
            if let Some(staged) = table.as_mut().and_then(|table| table.staged.as_mut()) {
                staging::note_taken(self.tx, name, std::mem::take(&mut staged.taken_count))?;
            }
        }
        Ok(())
    }

    /// Shows what was learned; says what changed.
    fn finish(mut self) -> Result<BTreeMap<String, RowChanges>, StoreError> {
        self.note_taken()?;
        let mut changes = BTreeMap::new();
        for (name, table) in self.by_name.into_iter().filter_map(|(name, table)| Some((name, table?))) {
            if let Some(columns) = &table.columns {
                columns.save(self.tx, &name)?;
            }
            if table.changes != RowChanges::default() {
                changes.insert(name, table.changes);
            }
        }
        Ok(changes)
    }

    fn table(&mut self, name: &str) -> Result<Option<&mut Table<'tx>>, StoreError> {
        if !self.by_name.contains_key(name) {
            let is_there =
                views::is_synced(self.tx, name)? || (self.schema.is_learned && learn::register(self.tx, name)?);
            let table = if is_there { Some(self.prepare(name)?) } else { None };
            self.by_name.insert(name.to_owned(), table);
        }
        Ok(self.by_name.get_mut(name).and_then(Option::as_mut))
    }

    fn prepare(&self, name: &str) -> Result<Table<'tx>, StoreError> {
        if let Some((table, raw)) = raw::declared(self.schema, name) {
            let rows = Rows::Raw(raw::Rows::prepare(self.tx, table, raw)?);
            return Ok(Table { rows, changes: RowChanges::default(), columns: None, staged: None });
        }
        let data = views::data_table(name);
        let put = format!(
            "INSERT INTO {data} (id, data) VALUES (?1, ?2)
             ON CONFLICT (id) DO UPDATE SET data = excluded.data WHERE data IS NOT excluded.data"
        );
        let delete = format!("DELETE FROM {data} WHERE id = ?1");
        let columns = if self.schema.is_learned { Some(Columns::load(self.tx, name)?) } else { None };
        let rows = Rows::Json { put: self.tx.prepare(&put)?, delete: self.tx.prepare(&delete)? };
        let staged = if staging::is_staged(self.tx, name)? {
            Some(Staged { take_out: self.tx.prepare(&staging::take_out_sql(name))?, taken_count: 0 })
        } else {
            None
        };
        Ok(Table { rows, changes: RowChanges::default(), columns, staged })
    }
}
