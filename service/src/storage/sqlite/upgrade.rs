//! Stores of former formats, brought to the present one when they are opened: in one transaction, so that an end amid it
//! leaves the store as it was. Meanwhile the file and its log together take up to three times the room.

use std::time::Instant;

use kairos_sync_protocol::{BucketName, Checksum, WriteCheckpointId};
use rusqlite::{Connection, Row};

use super::{
    super::{
        BucketTotals, Checkpoint, CompactionOptions, DeploymentNumber, RowKey, StorageError, TableId, WriteCheckpoint,
        WriteCheckpointKey,
    },
    BucketId,
    block::{self, BlockBuilder},
    bucket::Bucket,
    chunk::{Links, NewChunks},
    chunk_block::ChunkBlockBuilder,
    head::{Head, number, op_id},
    index,
    rows::{self, RowsBuilder},
    runs::build::RunBuilder,
    schema::{FORMAT, GENERATION, HEAD, RUNS},
    sum::Sum,
    write_checkpoint,
};
use crate::lsn::Lsn;

/// The oldest format that is upgraded.
pub(super) const FORMAT_MIN: u32 = 2;

/// From format 2: rules in the store, buckets that are forgotten.
const TO_3: &str = "
    ALTER TABLE head ADD COLUMN serving INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE rules (id INTEGER PRIMARY KEY CHECK (id = 1), state BLOB NOT NULL);
    CREATE TABLE forgotten_bucket (id INTEGER PRIMARY KEY);";

/// From format 4: buckets that are being mended.
const TO_5: &str = "
    ALTER TABLE bucket ADD COLUMN mending INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX bucket_mending ON bucket (id) WHERE mending = 1;";

/// From format 6: rows in runs instead of a table.
const TO_7: &str = "
    ALTER TABLE head ADD COLUMN last_run_id INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE head ADD COLUMN last_row_block_id INTEGER NOT NULL DEFAULT 0;";

/// Compressed bytes of rows that are held in memory.
const ROW_BYTES_HELD: usize = 2 << 20;

/// What format 3 had.
const TABLES_OF_3: [&str; 12] = [
    "head",
    "write_checkpoint",
    "replication",
    "rules",
    "bucket",
    "forgotten_bucket",
    "tail",
    "chunk",
    "row_tail",
    "row",
    "lookup",
    "dependent",
];

/// Brings a store of an earlier format to this one.
pub(super) fn upgrade(conn: &Connection, from: u32) -> Result<(), StorageError> {
    let started = Instant::now();
    tracing::info!(
        from,
        to = FORMAT,
        "store: of an earlier release; nothing is served before it has the format of this one"
    );
    let tx = conn.unchecked_transaction()?;
    if from < 3 {
        tx.execute_batch(TO_3)?;
    }
    if from < 4 {
        write_again(&tx)?;
    } else {
        if from < 5 {
            tx.execute_batch(TO_5)?;
        }
        if from < 6 {
            pack_chunks_again(&tx)?;
        }
        keep_rows_in_runs(&tx)?;
    }
    tx.pragma_update(None, "user_version", FORMAT)?;
    tx.commit()?;
    tracing::info!(elapsed = ?started.elapsed(), "store: has the format of this release");
    Ok(())
}

/// From format 3, which had neither sums over records nor links between blocks: every record is written again.
fn write_again(conn: &Connection) -> Result<(), StorageError> {
    conn.execute_batch("DROP INDEX chunk_position")?;
    for table in TABLES_OF_3 {
        conn.execute_batch(&format!("ALTER TABLE {table} RENAME TO former_{table}"))?;
    }
    conn.execute_batch(HEAD)?;
    conn.execute_batch(GENERATION)?;
    conn.execute_batch(RUNS)?;
    let mut head = former_head(conn)?;
    copy_buckets(conn)?;
    copy_chunks(conn)?;
    copy_tail(conn, &mut head)?;
    copy_rows(conn, &mut head)?;
    copy_indexes(conn, &mut head)?;
    copy_states(conn, &mut head)?;
    head.insert(conn)?;
    for table in TABLES_OF_3 {
        conn.execute_batch(&format!("DROP TABLE former_{table}"))?;
    }
    Ok(())
}

/// Passes on the rows of a query.
fn each(
    conn: &Connection,
    sql: &str,
    mut visit: impl FnMut(&Row) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(row)?;
    }
    Ok(())
}

fn former_head(conn: &Connection) -> Result<Head, StorageError> {
    let mut head = Head::default();
    let sql = "SELECT creation_id, generation, version, last_op_id, last_bucket_id, bucket_count, operation_count, \
               row_count, serving, visible_op_id, visible_lsn FROM former_head";
    each(conn, sql, |row| {
        let visible = row.get::<_, Option<i64>>(9)?.zip(row.get::<_, Option<i64>>(10)?);
        let checkpoint = |(id, lsn): (i64, i64)| -> Result<_, StorageError> {
            Ok(Checkpoint { op_id: op_id(id)?, lsn: Lsn::new(lsn.cast_unsigned()) })
        };
        head = Head {
            creation_id: row.get(0)?,
            generation: number(row, 1)?,
            version: number(row, 2)?,
            last_op_id: op_id(row.get(3)?)?,
            last_bucket_id: number(row, 4)?,
            bucket_count: number(row, 5)?,
            operation_count: number(row, 6)?,
            row_count: number(row, 7)?,
            serving: DeploymentNumber(number(row, 8)?),
            checkpoint: visible.map(checkpoint).transpose()?,
            ..Head::default()
        };
        Ok(())
    })?;
    Ok(head)
}

fn copy_buckets(conn: &Connection) -> Result<(), StorageError> {
    let due_count = CompactionOptions::default().due_count(0);
    each(conn, "SELECT id, name, operation_count, checksum, last_op_id FROM former_bucket", |row| {
        let folded = BucketTotals {
            count: number(row, 2)?,
            checksum: Checksum::from_bits(row.get(3)?),
            last_op_id: op_id(row.get(4)?)?,
        };
        let name = BucketName::new(row.get::<_, String>(1)?);
        Bucket { id: BucketId::from_column(row.get(0)?)?, name, folded, due_count, is_mending: false }.insert(conn)
    })?;
    Ok(conn.execute_batch("INSERT INTO forgotten_bucket SELECT id FROM former_forgotten_bucket")?)
}

fn copy_chunks(conn: &Connection) -> Result<(), StorageError> {
    let mut block = conn.prepare("SELECT block FROM former_chunk WHERE id = ?1")?;
    let mut before = None;
    each(conn, "SELECT id, bucket_id, last_op_id FROM former_chunk ORDER BY bucket_id, last_op_id", |row| {
        let (id, bucket): (i64, _) = (row.get(0)?, BucketId::from_column(row.get(1)?)?);
        let previous = before.filter(|(of, _)| *of == bucket).map(|(_, last_op_id)| last_op_id).unwrap_or_default();
        before = Some((bucket, op_id(row.get(2)?)?));
        let block: Vec<u8> = block.query_row([id], |row| row.get(0))?;
        let operations = block::decode_content(block::unpack(&block)?)?.into_iter().map(|(_, operation)| operation);
        let mut chunks = NewChunks::of(bucket, 0, Links { previous, ..Links::default() }, operations)?;
        chunks.close()?;
        chunks.store(conn)
    })
}

/// From formats 4 and 5, whose chunks were blocks as the tail's, with the links at their end.
fn pack_chunks_again(conn: &Connection) -> Result<(), StorageError> {
    let mut select = conn.prepare("SELECT block FROM chunk WHERE id = ?1")?;
    let mut update = conn.prepare("UPDATE chunk SET block = ?2 WHERE id = ?1")?;
    // Not from the table that is written meanwhile.
    let mut ids = Vec::new();
    each(conn, "SELECT id FROM chunk", |row| {
        ids.push(row.get::<_, i64>(0)?);
        Ok(())
    })?;
    for id in ids {
        let former: Vec<u8> = select.query_row([id], |row| row.get(0))?;
        // What is damaged stays as it is: whoever reads it notices, and its bucket is built again.
        let Ok((operations, links)) = block::decode_with(&former) else { continue };
        let Some((bucket, _)) = operations.first() else { continue };
        let (bucket, mut block) = (*bucket, ChunkBlockBuilder::default());
        for (_, operation) in operations {
            block.push(operation.op_id, operation.checksum, |out| out.extend_from_slice(&operation.json));
        }
        update.execute((id, block.finish(bucket, Links::decode(links)?)?))?;
    }
    Ok(())
}

fn copy_tail(conn: &Connection, head: &mut Head) -> Result<(), StorageError> {
    let mut insert = conn.prepare("INSERT INTO tail (first_op_id, block) VALUES (?1, ?2)")?;
    each(conn, "SELECT block FROM former_tail ORDER BY first_op_id", |row| {
        let mut block = BlockBuilder::default();
        let content = block::unpack(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
        for (bucket, operation) in block::decode_content(content)? {
            block.push(bucket, operation.op_id, operation.checksum, |out| out.extend_from_slice(&operation.json));
        }
        let first_op_id = block.first_op_id();
        let block = block.finish_with(&head.tail_op_id.get().to_le_bytes())?;
        head.tail_op_id = first_op_id;
        insert.execute((first_op_id.get().cast_signed(), block))?;
        Ok(())
    })
}

fn copy_rows(conn: &Connection, head: &mut Head) -> Result<(), StorageError> {
    let mut insert = conn.prepare("INSERT INTO row_tail (version, block) VALUES (?1, ?2)")?;
    each(conn, "SELECT version, block FROM former_row_tail ORDER BY version", |row| {
        let version = number(row, 0)?;
        let mut builder = RowsBuilder::default();
        let content = block::unpack(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
        for (key, state) in rows::decode_content(&content)? {
            builder.push(key, state.map(|state| move |out: &mut Vec<u8>| out.extend_from_slice(&state)));
        }
        let (block, _) = builder.finish(version, head.row_tail_version)?;
        head.row_tail_version = version;
        insert.execute((version.cast_signed(), block))?;
        Ok(())
    })?;
    copy_row_table(conn, "former_row", head)
}

/// Writes all rows of a table into one run.
fn copy_row_table(conn: &Connection, table: &str, head: &mut Head) -> Result<(), StorageError> {
    let row_count: i64 = conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    let mut run = RunBuilder::new(usize::try_from(row_count).unwrap_or_default());
    let sql = format!("SELECT table_id, identity, state FROM {table} ORDER BY table_id, identity");
    each(conn, &sql, |row| {
        let key = RowKey { table: TableId(row.get(0)?), identity: blob(row, 1)?.into() };
        run.push(&key, Some(blob(row, 2)?))?;
        if run.packed_bytes() >= ROW_BYTES_HELD { run.store_some(conn, head) } else { Ok(()) }
    })?;
    run.finish()?.store_in(conn, head).map(|_| ())
}

/// From formats 4 to 6. What is damaged is an error: nothing could tell later that it was.
fn keep_rows_in_runs(conn: &Connection) -> Result<(), StorageError> {
    each(conn, "SELECT table_id, identity, state, sum FROM row", |row| {
        let sum = Sum::of("row").number(row.get::<_, u32>(0)?.into()).bytes(blob(row, 1)?).bytes(blob(row, 2)?);
        sum.check(row.get(3)?, "a row")
    })?;
    conn.execute_batch(TO_7)?;
    conn.execute_batch(RUNS)?;
    let mut head = Head::read_without_runs(conn)?;
    copy_row_table(conn, "row", &mut head)?;
    head.write(conn)?;
    Ok(conn.execute_batch("DROP TABLE row")?)
}

fn copy_indexes(conn: &Connection, head: &mut Head) -> Result<(), StorageError> {
    let mut insert =
        conn.prepare("INSERT INTO lookup (key, table_id, identity, value_list, sum) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    each(conn, "SELECT key, table_id, identity, value_list FROM former_lookup", |row| {
        let (key, table, identity, values): (String, u32, _, _) =
            (row.get(0)?, row.get(1)?, blob(row, 2)?, blob(row, 3)?);
        let sum = index::entry_sum(&key, table, identity, values).finish();
        insert.execute((key, table, identity, values, sum))?;
        head.lookup_count += 1;
        Ok(())
    })?;
    let mut insert = conn.prepare("INSERT INTO dependent (key, table_id, identity, sum) VALUES (?1, ?2, ?3, ?4)")?;
    each(conn, "SELECT key, table_id, identity FROM former_dependent", |row| {
        let (key, table, identity): (String, u32, _) = (row.get(0)?, row.get(1)?, blob(row, 2)?);
        let sum = index::dependent_sum(&key, table, identity).finish();
        insert.execute((key, table, identity, sum))?;
        head.dependent_count += 1;
        Ok(())
    })
}

fn copy_states(conn: &Connection, head: &mut Head) -> Result<(), StorageError> {
    for (table, sum) in [("replication", &mut head.replication_sum), ("rules", &mut head.rules_sum)] {
        conn.execute_batch(&format!("INSERT INTO {table} SELECT id, state FROM former_{table}"))?;
        each(conn, &format!("SELECT state FROM {table}"), |row| {
            *sum = Some(Sum::of(table).bytes(blob(row, 0)?).finish());
            Ok(())
        })?;
    }
    each(conn, "SELECT key, id, lsn FROM former_write_checkpoint", |row| {
        let damaged = |_| StorageError::Damaged { what: "a write checkpoint has no valid id".to_owned() };
        let id = WriteCheckpointId::new(number(row, 1)?).map_err(damaged)?;
        let lsn = Lsn::new(row.get::<_, i64>(2)?.cast_unsigned());
        write_checkpoint::store(conn, &WriteCheckpointKey(row.get(0)?), WriteCheckpoint { id, lsn })
    })
}

fn blob<'a>(row: &'a Row, column: usize) -> Result<&'a [u8], StorageError> {
    Ok(row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?)
}

#[cfg(test)]
mod tests;
