//! Which pages of which heaps are left to read, cut into chunks.

use bytes::Bytes;
use tokio_postgres::Client;

use super::super::state::{PageRange, PartCopy};
use crate::postgres::{PgError, catalog::Table, copy::Heap, walsender::quote_identifier};

/// Pages of one chunk: 2 MiB with Postgres' usual pages. What a crash makes be read again is at most one per session;
/// what a chunk costs beside its rows is a commit on the source and a few answers.
const CHUNK_PAGES: u32 = 256;

/// A piece of a table, read in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) heap: Heap,
    /// The table whose heap it is.
    pub(super) oid: u32,
    /// The heap's file when the plan was made; zero where there is none.
    pub(super) filenode: u32,
    pub(super) pages: PageRange,
    /// If given, only rows with these identifying values.
    pub(super) identities: Vec<Vec<Bytes>>,
    /// About how many bytes it has.
    pub(super) byte_count: u64,
}

/// All that is left to read of a table.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) chunks: Vec<Chunk>,
    /// Bytes of the heaps, read or not.
    pub(super) byte_count: u64,
    pub(super) bytes_left: u64,
}

/// A heap as the catalog shows it.
#[derive(Debug)]
struct Part {
    heap: Heap,
    oid: u32,
    filenode: u32,
    page_count: u32,
    page_bytes: u64,
}

/// Only rows with these identifying values, wherever they are.
pub(super) fn chunk_of_rows(table: &Table, identities: Vec<Vec<Bytes>>) -> Chunk {
    let pages = PageRange { first: 0, end: u32::MAX };
    let heap = if table.is_partitioned { Heap::Whole } else { Heap::Own(table.sql_name()) };
    Chunk { heap, oid: table.oid, filenode: 0, pages, identities, byte_count: 0 }
}

/// Looks at the table's heaps and leaves out what has been read.
pub(super) async fn plan(client: &Client, table: &Table, read: &[PartCopy]) -> Result<Plan, PgError> {
    let parts = parts(client, table).await?;
    let byte_count = parts.iter().map(|part| u64::from(part.page_count) * part.page_bytes).sum();
    let chunks: Vec<_> = parts
        .iter()
        .flat_map(|part| {
            let done = read.iter().find(|read| read.oid == part.oid && read.filenode == part.filenode);
            part.chunks(done.map_or(&[], |read| &read.done))
        })
        .collect();
    let bytes_left = chunks.iter().map(|chunk| chunk.byte_count).sum();
    Ok(Plan { chunks, byte_count, bytes_left })
}

async fn parts(client: &Client, table: &Table) -> Result<Vec<Part>, PgError> {
    // Only heaps have pages to speak of; a table of another kind, and partitions of which one cannot be read by itself,
    // are read at once.
    let sql = "
        SELECT c.oid, n.nspname::text, c.relname::text, coalesce(pg_relation_filenode(c.oid), 0)::bigint,
               coalesce(pg_relation_size(c.oid), 0), current_setting('block_size')::bigint,
               coalesce(m.amname = 'heap', false),
               has_table_privilege(c.oid, 'SELECT') OR c.oid = $1
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
         WHERE CASE WHEN $2 THEN c.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass) WHERE isleaf)
               ELSE c.oid = $1 END
         ORDER BY 1";
    let (mut parts, mut is_simple) = (Vec::new(), true);
    for row in client.query(sql, &[&table.oid, &table.is_partitioned]).await? {
        let (schema, name): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let page_bytes = row.try_get::<_, i64>(5)?.unsigned_abs().max(1);
        let pages = row.try_get::<_, i64>(4)?.unsigned_abs().div_ceil(page_bytes);
        is_simple &= row.try_get::<_, bool>(6)? && row.try_get::<_, bool>(7)?;
        parts.push(Part {
            heap: Heap::Own(format!("{}.{}", quote_identifier(&schema), quote_identifier(&name))),
            oid: row.try_get(0)?,
            filenode: u32::try_from(row.try_get::<_, i64>(3)?).unwrap_or_default(),
            page_count: u32::try_from(pages).unwrap_or(u32::MAX - 1),
            page_bytes,
        });
    }
    if is_simple {
        return Ok(parts);
    }
    let byte_count = parts.iter().map(|part| u64::from(part.page_count) * part.page_bytes).sum();
    Ok(vec![Part { heap: Heap::Whole, oid: table.oid, filenode: 0, page_count: 1, page_bytes: byte_count }])
}

impl Part {
    fn chunks(&self, done: &[PageRange]) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut next = 0;
        let end_of_heap = PageRange { first: u32::MAX, end: u32::MAX };
        for read in done.iter().chain([&end_of_heap]) {
            while next < read.first {
                let end = self.end_of_chunk(next).min(read.first);
                chunks.push(self.chunk(PageRange { first: next, end }));
                next = end;
            }
            next = next.max(read.end);
        }
        chunks
    }

    /// The last chunk also takes what the heap has grown by since.
    fn end_of_chunk(&self, first: u32) -> u32 {
        let end = first.saturating_add(CHUNK_PAGES);
        if self.heap == Heap::Whole || end >= self.page_count { u32::MAX } else { end }
    }

    fn chunk(&self, pages: PageRange) -> Chunk {
        let page_count = pages.end.min(self.page_count).saturating_sub(pages.first);
        Chunk {
            heap: self.heap.clone(),
            oid: self.oid,
            filenode: self.filenode,
            pages,
            identities: Vec::new(),
            byte_count: u64::from(page_count) * self.page_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(page_count: u32, done: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let heap = Heap::Own("public.items".to_owned());
        let part = Part { heap, oid: 1, filenode: 1, page_count, page_bytes: 8192 };
        let done: Vec<_> = done.iter().map(|(first, end)| PageRange { first: *first, end: *end }).collect();
        part.chunks(&done).iter().map(|chunk| (chunk.pages.first, chunk.pages.end)).collect()
    }

    #[test]
    fn chunks_cover_the_heap_and_what_it_grows_by() {
        assert_eq!(ranges(0, &[]), [(0, u32::MAX)]);
        assert_eq!(ranges(256, &[]), [(0, u32::MAX)]);
        assert_eq!(ranges(600, &[]), [(0, 256), (256, 512), (512, u32::MAX)]);
    }

    #[test]
    fn what_was_read_is_left_out() {
        assert_eq!(ranges(600, &[(0, 256), (512, u32::MAX)]), [(256, 512)]);
        assert_eq!(ranges(600, &[(256, 512)]), [(0, 256), (512, u32::MAX)]);
        assert_eq!(ranges(600, &[(0, u32::MAX)]), []);
        assert_eq!(ranges(2000, &[(0, 512)])[0], (512, 768));
    }
}
