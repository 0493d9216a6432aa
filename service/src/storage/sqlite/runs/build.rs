//! Writing a run.

use std::sync::Arc;

use rusqlite::Connection;

use super::{
    super::{
        super::{RowKey, StorageError, TableId},
        block::pack,
        head::Head,
        sum::Sum,
        writer::Change,
    },
    BlockId, RunId,
    block::put_entry,
    filter::{KeyFilter, KeyHash},
    list::Run,
};

/// What a block should have as it is stored: two of them, and what SQLite keeps beside them, fill a page of 4 KiB. Larger
/// ones compress a little better, but the whole block is decompressed for one row.
const PACKED_BYTES: usize = 1_900;
/// Bytes of entries after which a block ends however well they compress.
const CONTENT_BYTES_MAX: usize = 16 << 10;
/// Bytes of entries in the first block of a run, before it is known how well they compress.
const CONTENT_BYTES_AT_FIRST: usize = 5 << 10;
/// How many blocks it takes, about, until entries that compress otherwise are known to.
const RATIO_BLOCKS: usize = 4;

/// A block that is ready to be stored.
#[derive(Debug)]
pub(in super::super) struct PackedBlock {
    last: RowKey,
    entry_count: u64,
    block: Vec<u8>,
}

impl PackedBlock {
    pub(in super::super) fn byte_count(&self) -> u64 {
        self.block.len() as u64
    }
}

/// Packs entries, which come in the order of their keys, into blocks.
#[derive(Debug)]
pub(in super::super) struct Packer {
    content: Vec<u8>,
    /// Bytes of entries after which the block ends: as many as are likely to become [`PACKED_BYTES`].
    content_bytes: usize,
    /// The last entry's table.
    table: u32,
    /// The last entry's identity.
    identity: Vec<u8>,
    entry_count: u64,
    packed: Vec<PackedBlock>,
    packed_bytes: usize,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            content: Vec::new(),
            content_bytes: CONTENT_BYTES_AT_FIRST,
            table: 0,
            identity: Vec::new(),
            entry_count: 0,
            packed: Vec::new(),
            packed_bytes: 0,
        }
    }
}

impl Packer {
    pub(in super::super) fn push(
        &mut self,
        table: TableId,
        identity: &[u8],
        state: Option<&[u8]>,
    ) -> Result<(), StorageError> {
        put_entry(&mut self.content, table, identity, state);
        self.table = table.0;
        self.identity.clear();
        self.identity.extend_from_slice(identity);
        self.entry_count += 1;
        if self.content.len() >= self.content_bytes { self.close() } else { Ok(()) }
    }

    /// Adds all entries of a block, and ends there, so that the next block begins where the next one of theirs does.
    pub(in super::super) fn push_block(&mut self, place: &BlockPlace, entries: &[u8]) -> Result<(), StorageError> {
        self.content.extend_from_slice(entries);
        self.table = place.last.table.0;
        place.last.identity.as_ref().clone_into(&mut self.identity);
        self.entry_count += place.entry_count;
        self.close()
    }

    /// Ends the block.
    pub(in super::super) fn close(&mut self) -> Result<(), StorageError> {
        if self.content.is_empty() {
            return Ok(());
        }
        let block = pack(&self.content)?;
        self.learn(block.len());
        self.content.clear();
        self.packed_bytes += block.len();
        let last = RowKey { table: TableId(self.table), identity: self.identity.as_slice().into() };
        self.packed.push(PackedBlock { last, entry_count: std::mem::take(&mut self.entry_count), block });
        Ok(())
    }

    /// Takes into account how small the content became.
    fn learn(&mut self, packed_bytes: usize) {
        let would_fill = self.content.len() * PACKED_BYTES / packed_bytes.max(1);
        let average = (self.content_bytes * (RATIO_BLOCKS - 1) + would_fill) / RATIO_BLOCKS;
        self.content_bytes = average.clamp(PACKED_BYTES / 2, CONTENT_BYTES_MAX);
    }

    /// Whether a block that ends here would be so small that it should rather go on.
    pub(in super::super) fn is_at_small_block(&self) -> bool {
        (1..self.content_bytes / 2).contains(&self.content.len())
    }

    /// Bytes of blocks that are complete.
    pub(in super::super) fn packed_bytes(&self) -> usize {
        self.packed_bytes
    }

    /// Blocks that are complete.
    pub(in super::super) fn take(&mut self) -> Vec<PackedBlock> {
        self.packed_bytes = 0;
        std::mem::take(&mut self.packed)
    }
}

/// Collects the rows of a new run.
#[derive(Debug)]
pub(in super::super) struct RunBuilder {
    packer: Packer,
    filter: Arc<KeyFilter>,
    first: Option<RowKey>,
    /// Once some of its blocks are stored.
    run: Option<Run>,
}

impl RunBuilder {
    /// For at most so many rows.
    pub(in super::super) fn new(row_count: usize) -> Self {
        Self { packer: Packer::default(), filter: Arc::new(KeyFilter::new(row_count as u64)), first: None, run: None }
    }

    /// Adds a row, after all with smaller keys; without a state it is gone.
    pub(in super::super) fn push(&mut self, key: &RowKey, state: Option<&[u8]>) -> Result<(), StorageError> {
        self.filter.insert(KeyHash::of_key(key));
        if self.first.is_none() {
            self.first = Some(key.clone());
        }
        self.packer.push(key.table, &key.identity, state)
    }

    /// Bytes it has in memory, compressed.
    pub(in super::super) fn packed_bytes(&self) -> usize {
        self.packer.packed_bytes()
    }

    /// Stores what it has in memory. All of a run is stored in one transaction.
    pub(in super::super) fn store_some(&mut self, conn: &Connection, head: &mut Head) -> Result<(), StorageError> {
        let run = self.run.get_or_insert_with(|| newest_run(head, &self.filter));
        append_blocks(conn, head, run, self.packer.take())
    }

    pub(in super::super) fn finish(mut self) -> Result<NewRun, StorageError> {
        self.packer.close()?;
        Ok(NewRun { blocks: self.packer.take(), filter: self.filter, first: self.first, run: self.run })
    }
}

fn newest_run(head: &mut Head, filter: &Arc<KeyFilter>) -> Run {
    let id = head.next_run_id();
    Run::new(id, id.0, Arc::clone(filter))
}

/// A run that is ready to be stored.
#[derive(Debug)]
pub(in super::super) struct NewRun {
    blocks: Vec<PackedBlock>,
    filter: Arc<KeyFilter>,
    first: Option<RowKey>,
    run: Option<Run>,
}

impl NewRun {
    /// Stores it as the newest run.
    pub(in super::super) fn store(self, change: &mut Change) -> Result<(), StorageError> {
        if let Some(run) = self.store_in(change.tx, &mut change.head)? {
            change.runs_mut().put(run);
        }
        Ok(())
    }

    /// As [`Self::store`], for who puts it into lists. One without rows leaves nothing.
    pub(in super::super) fn store_in(self, conn: &Connection, head: &mut Head) -> Result<Option<Run>, StorageError> {
        if self.blocks.is_empty() && self.run.is_none() {
            return Ok(None);
        }
        let mut run = self.run.unwrap_or_else(|| newest_run(head, &self.filter));
        append_blocks(conn, head, &mut run, self.blocks)?;
        run.first = self.first;
        run.store(conn)?;
        run.store_filter(conn)?;
        Ok(Some(run))
    }
}

/// Stores blocks behind those that a run has.
pub(in super::super) fn append_blocks(
    conn: &Connection,
    head: &mut Head,
    run: &mut Run,
    blocks: Vec<PackedBlock>,
) -> Result<(), StorageError> {
    let mut insert = conn.prepare_cached("INSERT INTO row_block (id, block) VALUES (?1, ?2)")?;
    for PackedBlock { last, entry_count, block } in blocks {
        let id = head.next_row_block_id();
        insert.execute((id.column(), &block))?;
        let byte_count = block.len() as u64;
        append_place(conn, run, &BlockPlace { last, id, entry_count, byte_count })?;
    }
    Ok(())
}

/// Where a block is, and what it has.
#[derive(Debug, Clone)]
pub(in super::super) struct BlockPlace {
    /// Its last key.
    pub(in super::super) last: RowKey,
    pub(in super::super) id: BlockId,
    pub(in super::super) entry_count: u64,
    /// As it is stored.
    pub(in super::super) byte_count: u64,
}

impl BlockPlace {
    /// Whether a block of so many bytes of entries is large enough to be taken over as it is.
    pub(in super::super) fn is_worth_keeping(&self, content_bytes: usize) -> bool {
        self.byte_count >= PACKED_BYTES as u64 / 2 || content_bytes >= CONTENT_BYTES_MAX / 2
    }

    pub(in super::super) fn sum(&self, run: RunId) -> Sum {
        let Self { last, id, entry_count, byte_count } = self;
        let numbers = [run.0, last.table.0.into(), id.0, *entry_count, *byte_count];
        numbers.into_iter().fold(Sum::of("row_place"), Sum::number).bytes(&last.identity)
    }
}

/// Has a run end with a block that is stored.
pub(in super::super) fn append_place(conn: &Connection, run: &mut Run, place: &BlockPlace) -> Result<(), StorageError> {
    let sql = "INSERT INTO row_place (run_id, table_id, identity, block_id, entry_count, byte_count, sum) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    conn.prepare_cached(sql)?.execute((
        run.id.column(),
        place.last.table.0,
        &*place.last.identity,
        place.id.column(),
        place.entry_count.cast_signed(),
        place.byte_count.cast_signed(),
        place.sum(run.id).finish(),
    ))?;
    run.entry_count += place.entry_count;
    run.block_count += 1;
    run.byte_count += place.byte_count;
    run.last = run.last.take().max(Some(place.last.clone()));
    Ok(())
}

/// Takes a block out of a run.
pub(in super::super) fn remove_place(conn: &Connection, run: RunId, last: &RowKey) -> Result<(), StorageError> {
    let sql = "DELETE FROM row_place WHERE run_id = ?1 AND table_id = ?2 AND identity = ?3";
    conn.prepare_cached(sql)?.execute((run.column(), last.table.0, &*last.identity))?;
    Ok(())
}

/// Deletes a block that is in no run any more.
pub(in super::super) fn delete_block(conn: &Connection, id: BlockId) -> Result<(), StorageError> {
    conn.prepare_cached("DELETE FROM row_block WHERE id = ?1")?.execute([id.column()])?;
    Ok(())
}
