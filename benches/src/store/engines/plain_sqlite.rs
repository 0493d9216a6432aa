//! SQLite as one would use it at first: operations by bucket and op id, rows by key, one synced transaction for a commit.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::{
    engine::{CACHE_BYTES, Engine, Outcome, Slices, place, read_place},
    workload::{Changes, bucket_of, image_of},
};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS operation (
        bucket INTEGER NOT NULL,
        op_id INTEGER NOT NULL,
        json BLOB NOT NULL,
        PRIMARY KEY (bucket, op_id)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS stored_row (id INTEGER PRIMARY KEY, state BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY CHECK (id = 1), numbers BLOB NOT NULL);";

pub(super) struct PlainSqlite {
    conn: Connection,
    last_op_id: u64,
}

impl PlainSqlite {
    pub(super) fn open(folder: &Path) -> Outcome<Self> {
        let conn = Connection::open(folder.join("plain.sqlite3"))?;
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "cache_size", -i64::try_from(CACHE_BYTES / 1024)?)?;
        conn.execute_batch(TABLES)?;
        let (_, last_op_id) = place_of(&conn)?;
        Ok(Self { conn, last_op_id })
    }
}

fn place_of(conn: &Connection) -> Outcome<(u64, u64)> {
    let numbers: Option<Vec<u8>> =
        conn.prepare_cached("SELECT numbers FROM place")?.query_row([], |row| row.get(0)).optional()?;
    numbers.map_or(Ok((0, 0)), |numbers| read_place(&numbers))
}

impl Engine for PlainSqlite {
    fn commit(&mut self, changes: &Changes) -> Outcome<()> {
        let mut op_id = self.last_op_id;
        let tx = self.conn.transaction()?;
        {
            let mut operation = tx.prepare_cached("INSERT INTO operation VALUES (?1, ?2, ?3)")?;
            let mut row = tx.prepare_cached("INSERT OR REPLACE INTO stored_row VALUES (?1, ?2)")?;
            for change in &changes.rows {
                row.execute((change.row, change.row_form()))?;
                if changes.has_operations {
                    op_id += 1;
                    operation.execute((bucket_of(change.row), op_id.cast_signed(), change.wire_form(op_id)?))?;
                }
            }
            let mut written = tx.prepare_cached("INSERT OR REPLACE INTO place VALUES (1, ?1)")?;
            written.execute([place(changes.position, op_id)])?;
        }
        tx.commit()?;
        self.last_op_id = op_id;
        Ok(())
    }

    fn position(&self) -> Outcome<u64> {
        Ok(place_of(&self.conn)?.0)
    }

    fn last_op_id(&self) -> Outcome<u64> {
        Ok(self.last_op_id)
    }

    fn row(&self, row: u32) -> Outcome<Option<Vec<u8>>> {
        let mut statement = self.conn.prepare_cached("SELECT state FROM stored_row WHERE id = ?1")?;
        Ok(statement.query_row([row], |row| Ok(image_of(row.get_ref(0)?.as_blob()?))).optional()?)
    }

    fn read(&self, bucket: u32, after: u64, take: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()> {
        let select = "SELECT json FROM operation WHERE bucket = ?1 AND op_id > ?2 ORDER BY op_id";
        let mut statement = self.conn.prepare_cached(select)?;
        let mut rows = statement.query((bucket, after.cast_signed()))?;
        let mut slices = Slices::new(take);
        while let Some(row) = rows.next()? {
            slices.push(row.get_ref(0)?.as_blob()?)?;
        }
        slices.finish()
    }
}
