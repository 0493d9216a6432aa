//! Reads what is to be copied: one table after the other, several chunks of it at once.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::try_join_all};
use tokio::{
    sync::{Mutex, oneshot},
    time::{sleep, timeout},
};
use tokio_postgres::{Client, Row};

use super::{
    super::{
        error::ReplicationError,
        replicator::{Replicator, within_deadline},
        state::{ColumnState, columns_of},
        status::Phase,
        stream::MESSAGE_PREFIX,
    },
    Begun, ChunkEnd, CopyMessage, CopyOrder, ReaderChannels, What,
    pages::{self, Chunk, Plan},
    progress::Progress,
};
use crate::{
    lsn::Lsn,
    postgres::{
        PgError,
        catalog::{Table, published_tables},
        copy::{copy_lines, copy_statement},
        preflight::server_version,
    },
};

const BATCH_ROWS_MAX: usize = 5_000;
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A copy that brings no row for so long is dead; a filter on a large table may be silent for a while.
const ROW_DEADLINE: Duration = Duration::from_mins(5);
/// A transaction becomes visible a moment after it was streamed.
const VISIBLE_POLL: Duration = Duration::from_millis(5);
/// Rows wait for the worker in an open transaction, which a server may be told to end.
const SESSION_SETTINGS: &str = "SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0";

/// Copies what the worker orders, for as long as the worker runs. Returns only when something went wrong.
pub(in super::super) async fn run(
    replicator: &Replicator,
    client: &Client,
    publications: &[String],
    mut channels: ReaderChannels,
) -> ReplicationError {
    loop {
        let orders = channels.orders.borrow_and_update().clone();
        let Some(order) = orders.iter().find(|order| !order.is_for_later()).cloned() else {
            if orders.is_empty() {
                replicator.progress.set_phase(Phase::Streaming);
            }
            if channels.orders.changed().await.is_err() {
                return worker_ended().await;
            }
            continue;
        };
        if let Err(error) = copy_table(replicator, client, publications, &channels, &order).await {
            return error;
        }
        let is_another = |orders: &Vec<CopyOrder>| {
            orders.iter().find(|next| !next.is_for_later()).is_none_or(|next| !next.is_same_work(&order))
        };
        if channels.orders.wait_for(is_another).await.is_err() {
            return worker_ended().await;
        }
    }
}

/// The worker's end says why it ended.
async fn worker_ended() -> ReplicationError {
    std::future::pending().await
}

/// A table that is read by several sessions.
struct TableReader<'r> {
    replicator: &'r Replicator,
    client: &'r Client,
    channels: &'r ReaderChannels,
    order: &'r CopyOrder,
    table: Table,
    columns: Vec<ColumnState>,
    progress: Progress<'r>,
    chunks: Mutex<VecDeque<Chunk>>,
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// It counts.
    Done,
    /// It must be read again.
    Again,
    /// The pages lie in another file now: a new plan is needed.
    Rewritten,
    /// The copy was begun anew, or the worker has ended.
    Abandoned,
}

async fn copy_table(
    replicator: &Replicator,
    client: &Client,
    publications: &[String],
    channels: &ReaderChannels,
    order: &CopyOrder,
) -> Result<(), ReplicationError> {
    let mut what = order.what.clone();
    loop {
        let is_wanted = |schema: &str, name: &str| (schema, name) == (&*order.schema, &*order.name);
        let look = async { published_tables(client, publications, server_version(client).await?, is_wanted).await };
        let Some(table) = within_deadline(look).await?.tables.into_iter().next() else {
            // Whoever compares the catalog will find that it is gone.
            return Ok(());
        };
        let Plan { chunks, byte_count, bytes_left } = match &what {
            What::Pages { read } => within_deadline(pages::plan(client, &table, read)).await?,
            What::Rows { identities, .. } => pages::plan_of_rows(&table, identities.clone()),
            What::Later => return Ok(()),
        };
        let progress = Progress::new(replicator, &table, byte_count, bytes_left, channels.orders.borrow().len());
        let columns = columns_of(&table);
        let chunks = Mutex::new(chunks.into());
        let reader = TableReader { replicator, client, channels, order, table, columns, progress, chunks };
        match reader.read_all().await? {
            Read::Done => {
                // A worker that has ended says so itself.
                let _ = channels.worker.send(CopyMessage::Read { key: order.key }).await;
                return Ok(());
            }
            Read::Abandoned => return Ok(()),
            Read::Again | Read::Rewritten => {
                if let What::Pages { read } = &mut what {
                    read.clear();
                }
            }
        }
    }
}

impl TableReader<'_> {
    async fn read_all(&self) -> Result<Read, ReplicationError> {
        let session_count = self.chunks.lock().await.len().min(self.replicator.source.snapshot.connections);
        let outcomes = try_join_all((0..session_count).map(|_| self.run_session())).await?;
        Ok(outcomes.into_iter().find(|outcome| *outcome != Read::Done).unwrap_or(Read::Done))
    }

    /// Reads chunks until there are none left.
    async fn run_session(&self) -> Result<Read, ReplicationError> {
        let session = self.replicator.source.connect().await?;
        within_deadline(async { Ok(session.batch_execute(SESSION_SETTINGS).await?) }).await?;
        loop {
            let Some(chunk) = self.chunks.lock().await.pop_front() else {
                return Ok(Read::Done);
            };
            let read = loop {
                match self.read_chunk(&session, &chunk).await? {
                    Read::Again => tracing::debug!(table = self.order.name, "a chunk is read again"),
                    read => break read,
                }
            };
            if read != Read::Done {
                self.chunks.lock().await.clear();
                return Ok(read);
            }
            self.progress.chunk_done(chunk.byte_count);
        }
    }

    async fn read_chunk(&self, session: &Client, chunk: &Chunk) -> Result<Read, ReplicationError> {
        let (begun, announced) = oneshot::channel();
        let message = CopyMessage::Begin { key: self.order.key, columns: self.columns.clone(), begun };
        if self.channels.worker.send(message).await.is_err() {
            return Ok(Read::Abandoned);
        }
        let Ok(begun) = announced.await else {
            return Ok(Read::Abandoned);
        };
        let snapshot = self.take_snapshot(session, &begun, chunk.oid).await?;
        if chunk.filenode != 0 && snapshot.filenode != chunk.filenode {
            within_deadline(end_transaction(session)).await?;
            return Ok(Read::Rewritten);
        }
        if !self.wait_for_stream(snapshot.end).await? {
            return Ok(Read::Abandoned);
        }
        self.copy(session, chunk, &begun).await
    }

    /// Begins a transaction whose snapshot sees all that the worker had applied when the chunk was announced.
    async fn take_snapshot(&self, session: &Client, begun: &Begun, oid: u32) -> Result<Snapshot, PgError> {
        let sql = "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text,
                          coalesce(pg_relation_filenode($1::oid::regclass), 0)::bigint";
        loop {
            let ask = async {
                session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                Snapshot::read(&session.query_one(sql, &[&oid]).await?)
            };
            let snapshot = within_deadline(ask).await?;
            if begun.recent.iter().all(|xid| snapshot.sees_end_of(*xid)) {
                return Ok(snapshot);
            }
            within_deadline(end_transaction(session)).await?;
            sleep(VISIBLE_POLL).await;
        }
    }

    /// Waits until everything the snapshot may have seen is applied. `false` when the worker has ended.
    async fn wait_for_stream(&self, position: Lsn) -> Result<bool, PgError> {
        // The stream passes a position when something is committed behind it.
        let nudge = format!("SELECT pg_logical_emit_message(true, '{MESSAGE_PREFIX}', 'copy')");
        within_deadline(async { Ok(self.client.batch_execute(&nudge).await?) }).await?;
        Ok(self.channels.passed.clone().wait_for(|passed| *passed >= position).await.is_ok())
    }

    async fn copy(&self, session: &Client, chunk: &Chunk, begun: &Begun) -> Result<Read, ReplicationError> {
        let Chunk { heap, pages, identities, .. } = chunk;
        let statement = copy_statement(&self.table, heap, pages.first, pages.end, identities);
        // A lock on the table holds the first answer up.
        let lines = timeout(ROW_DEADLINE, copy_lines(session, &statement)).await.map_err(|_| silent())??;
        let mut lines = std::pin::pin!(lines);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(line) = timeout(ROW_DEADLINE, lines.next()).await.map_err(|_| silent())? {
            let line = line?;
            if batch.len() >= BATCH_ROWS_MAX || bytes + line.len() > BATCH_BYTES_MAX && !batch.is_empty() {
                self.progress.rows(batch.len(), bytes).await;
                if !self.send(begun, std::mem::take(&mut batch), None).await {
                    return Ok(Read::Abandoned);
                }
                bytes = 0;
            }
            bytes += line.len();
            batch.push(line);
        }
        // The copy's lock is held until the transaction ends, so this is the file that was read.
        let sql = "SELECT coalesce(pg_relation_filenode($1::oid::regclass), 0)::bigint";
        let filenode = within_deadline(async { filenode(&session.query_one(sql, &[&chunk.oid]).await?, 0) }).await?;
        within_deadline(end_transaction(session)).await?;
        if chunk.filenode != 0 && filenode != chunk.filenode {
            return Ok(Read::Rewritten);
        }
        self.progress.rows(batch.len(), bytes).await;
        let (counts, counted) = oneshot::channel();
        let end = ChunkEnd { oid: chunk.oid, filenode: chunk.filenode, pages: chunk.pages, counts };
        if !self.send(begun, batch, Some(end)).await {
            return Ok(Read::Abandoned);
        }
        Ok(match counted.await {
            Ok(true) => Read::Done,
            Ok(false) => Read::Again,
            Err(_) => Read::Abandoned,
        })
    }

    /// `false` when the worker has ended.
    async fn send(&self, begun: &Begun, lines: Vec<Bytes>, end: Option<ChunkEnd>) -> bool {
        let message = CopyMessage::Rows { key: self.order.key, chunk: begun.chunk, lines, end };
        self.channels.worker.send(message).await.is_ok()
    }
}

async fn end_transaction(session: &Client) -> Result<(), PgError> {
    Ok(session.batch_execute("COMMIT").await?)
}

fn silent() -> PgError {
    PgError::Timeout { doing: "copying a table", after: ROW_DEADLINE }
}

fn filenode(row: &Row, column: usize) -> Result<u32, PgError> {
    Ok(u32::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default())
}

/// What a transaction sees.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    /// Transactions from here on had not ended. The low half of the number, as the stream has it.
    next: u32,
    /// Earlier ones which had not ended either.
    running: Vec<u32>,
    /// All that is seen was committed before this position.
    end: Lsn,
    filenode: u32,
}

impl Snapshot {
    fn read(row: &Row) -> Result<Self, PgError> {
        let (text, end): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (next, running) = parse_snapshot(&text).ok_or(PgError::Protocol("a snapshot that is none"))?;
        let end = end.parse().map_err(|_| PgError::Protocol("a WAL position that is none"))?;
        Ok(Self { next, running, end, filenode: filenode(row, 2)? })
    }

    fn sees_end_of(&self, xid: u32) -> bool {
        // Numbers wrap around; what is compared lies close together.
        let is_later = xid.wrapping_sub(self.next) < u32::MAX / 2;
        !is_later && !self.running.contains(&xid)
    }
}

/// `xmin:xmax:xip,xip`, of numbers that do not wrap around.
fn parse_snapshot(text: &str) -> Option<(u32, Vec<u32>)> {
    let mut parts = text.split(':');
    let low = |number: &str| Some(u32::try_from(number.parse::<u64>().ok()? & 0xFFFF_FFFF).unwrap_or_default());
    let (_, next, running) = (parts.next()?, low(parts.next()?)?, parts.next()?);
    let running = running.split(',').filter(|xid| !xid.is_empty()).map(low).collect::<Option<_>>()?;
    Some((next, running))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_the_end_of_what_ended_before() {
        let (next, running) = parse_snapshot("4294967290:4294967300:4294967292,4294967298").expect("a snapshot");
        let snapshot = Snapshot { next, running, end: Lsn::ZERO, filenode: 0 };
        // 4294967300 is 4 in the stream, 4294967298 is 2.
        for (xid, seen) in
            [(u32::MAX - 4, true), (u32::MAX - 3, false), (1, true), (2, false), (3, true), (4, false), (5, false)]
        {
            assert_eq!(snapshot.sees_end_of(xid), seen, "{xid}");
        }
        assert!(snapshot.sees_end_of(u32::MAX), "one from before the numbers wrapped");
        assert_eq!(parse_snapshot("10:11:"), Some((11, vec![])));
        assert_eq!(parse_snapshot("10"), None);
    }
}
