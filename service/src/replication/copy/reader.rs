//! Reads what is to be copied: one table after the other, several chunks of it at once.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, future::try_join_all};
use tokio::{
    sync::{Mutex, oneshot},
    task::spawn_blocking,
    time::timeout,
};
use tokio_postgres::Client;

use super::{
    super::{
        error::ReplicationError,
        plans::Plans,
        replicator::{Replicator, within_deadline},
        state::{ColumnState, columns_of},
        status::Phase,
        stream::MESSAGE_PREFIX,
    },
    Begun, ChunkEnd, CopyMessage, CopyOrder, ReaderChannels, What,
    copied::read_rows,
    pages::{self, Chunk},
    progress::Progress,
    snapshot::{self, Snapshot},
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

/// Rows of one commit: mostly a whole chunk, so that what goes to one place in the store goes there at once.
const BATCH_ROWS_MAX: usize = 10_000;
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Lines that are taken at once, if so many are there: waiting for each by itself costs more than reading it.
const LINES_AT_ONCE: usize = 256;
/// A copy that brings no row for so long is dead; a filter on a large table may be silent for a while.
const ROW_DEADLINE: Duration = Duration::from_mins(5);
/// Rows wait for the worker in an open transaction, which a server may be told to end.
const SESSION_SETTINGS: &str = "SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0";

/// Copies what the worker orders, for as long as the worker runs. Returns only when something went wrong.
pub(in super::super) async fn run(
    replicator: &Replicator,
    client: &Client,
    publications: &[String],
    plans: &Plans,
    mut channels: ReaderChannels,
) -> ReplicationError {
    loop {
        let orders = channels.orders.borrow_and_update().clone();
        let Some(order) = next_order(plans, &orders).cloned() else {
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
        let is_another =
            |orders: &Vec<CopyOrder>| next_order(plans, orders).is_none_or(|next| !next.is_same_work(&order));
        if channels.orders.wait_for(is_another).await.is_err() {
            return worker_ended().await;
        }
    }
}

/// What can begin now. Tables whose rows others join come first: a row that finds its answers is evaluated once.
fn next_order<'o>(plans: &Plans, orders: &'o [CopyOrder]) -> Option<&'o CopyOrder> {
    let now = orders.iter().filter(|order| !order.is_for_later());
    now.min_by_key(|order| plans.join_depth(&order.source_table()))
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
        let (chunks, progress) = match &what {
            What::Pages { read } => {
                let plan = within_deadline(pages::plan(client, &table, read)).await?;
                (plan.chunks, Progress::of_pages(replicator, &table, plan.byte_count, plan.bytes_left))
            }
            What::Rows { identities, .. } => {
                let chunk = pages::chunk_of_rows(&table, identities.clone());
                (vec![chunk], Progress::of_rows(replicator, &table))
            }
            What::Later => return Ok(()),
        };
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

    /// Reads chunks until there are none left, several in each snapshot.
    async fn run_session(&self) -> Result<Read, ReplicationError> {
        let session = self.replicator.source.connect().await?;
        within_deadline(async { Ok(session.batch_execute(SESSION_SETTINGS).await?) }).await?;
        let mut current = None;
        let read = loop {
            let Some(chunk) = self.chunks.lock().await.pop_front() else {
                break Read::Done;
            };
            let read = self.read_chunk(&session, &mut current, &chunk).await?;
            if read != Read::Done {
                self.chunks.lock().await.clear();
                break read;
            }
            self.progress.chunk_done(chunk.byte_count);
        };
        self.end_snapshot(&session, current).await?;
        Ok(read)
    }

    /// Reads a chunk in the session's current snapshot, or a new one; again, if it does not count.
    async fn read_chunk(
        &self,
        session: &Client,
        current: &mut Option<Snapshot>,
        chunk: &Chunk,
    ) -> Result<Read, ReplicationError> {
        loop {
            if current.as_ref().is_some_and(Snapshot::has_served) {
                self.end_snapshot(session, current.take()).await?;
            }
            if current.is_none() {
                *current = self.begin_snapshot(session).await?;
            }
            let Some(snapshot) = &*current else { return Ok(Read::Abandoned) };
            self.progress.reads();
            let read = self.copy(session, chunk, snapshot).await?;
            self.progress.pauses();
            match read {
                Read::Again => tracing::debug!(table = self.order.name, "a chunk is read again"),
                read => return Ok(read),
            }
            self.end_snapshot(session, current.take()).await?;
        }
    }

    /// `None` when there is nothing more to be copied, or the worker has ended.
    async fn begin_snapshot(&self, session: &Client) -> Result<Option<Snapshot>, ReplicationError> {
        let (begun, announced) = oneshot::channel();
        let message = CopyMessage::Begin { key: self.order.key, columns: self.columns.clone(), begun };
        if self.channels.worker.send(message).await.is_err() {
            return Ok(None);
        }
        let Ok(Begun { snapshot, layout, recent }) = announced.await else { return Ok(None) };
        let end = snapshot::take(session, &recent).await?;
        // Says how far the stream is behind, if it is.
        self.replicator.progress.saw_head(end);
        let asked = Instant::now();
        if !self.wait_for_stream(end).await? {
            return Ok(None);
        }
        Ok(Some(Snapshot::new(snapshot, layout, asked.elapsed())))
    }

    async fn end_snapshot(&self, session: &Client, snapshot: Option<Snapshot>) -> Result<(), ReplicationError> {
        if let Some(Snapshot { id, .. }) = snapshot {
            within_deadline(snapshot::end(session)).await?;
            // A worker that has ended says so itself.
            let _ = self.channels.worker.send(CopyMessage::End { key: self.order.key, snapshot: id }).await;
        }
        Ok(())
    }

    /// Waits until everything the snapshot may have seen is applied. `false` when the worker has ended.
    async fn wait_for_stream(&self, position: Lsn) -> Result<bool, PgError> {
        // The stream passes a position when something is committed behind it.
        let nudge = format!("SELECT pg_logical_emit_message(true, '{MESSAGE_PREFIX}', 'copy')");
        within_deadline(async { Ok(self.client.batch_execute(&nudge).await?) }).await?;
        if *self.channels.passed.borrow() >= position {
            return Ok(true);
        }
        self.progress.waits();
        let has_passed = self.channels.passed.clone().wait_for(|passed| *passed >= position).await.is_ok();
        self.progress.has_passed();
        Ok(has_passed)
    }

    async fn copy(&self, session: &Client, chunk: &Chunk, snapshot: &Snapshot) -> Result<Read, ReplicationError> {
        let Chunk { heap, pages, identities, .. } = chunk;
        let statement = copy_statement(&self.table, heap, pages.first, pages.end, identities);
        // A lock on the table holds the first answer up.
        let lines = timeout(ROW_DEADLINE, copy_lines(session, &statement)).await.map_err(|_| silent())??;
        let mut lines = std::pin::pin!(lines.ready_chunks(LINES_AT_ONCE));
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(lines) = timeout(ROW_DEADLINE, lines.next()).await.map_err(|_| silent())? {
            for line in lines {
                let line = line?;
                if batch.len() >= BATCH_ROWS_MAX || bytes + line.len() > BATCH_BYTES_MAX && !batch.is_empty() {
                    self.progress.rows(batch.len(), bytes).await;
                    if !self.send(snapshot, std::mem::take(&mut batch), None).await? {
                        return Ok(Read::Abandoned);
                    }
                    bytes = 0;
                }
                bytes += line.len();
                batch.push(line);
            }
        }
        if within_deadline(snapshot::file_read(session, chunk.oid)).await? != chunk.filenode && chunk.filenode != 0 {
            return Ok(Read::Rewritten);
        }
        self.progress.rows(batch.len(), bytes).await;
        let (counts, counted) = oneshot::channel();
        let end = ChunkEnd { oid: chunk.oid, filenode: chunk.filenode, pages: chunk.pages, counts };
        if !self.send(snapshot, batch, Some(end)).await? {
            return Ok(Read::Abandoned);
        }
        Ok(match counted.await {
            Ok(true) => Read::Done,
            Ok(false) => Read::Again,
            Err(_) => Read::Abandoned,
        })
    }

    /// Evaluates rows and hands them over. `false` when the worker has ended.
    async fn send(
        &self,
        snapshot: &Snapshot,
        lines: Vec<Bytes>,
        end: Option<ChunkEnd>,
    ) -> Result<bool, ReplicationError> {
        let layout = Arc::clone(&snapshot.layout);
        let rows = spawn_blocking(move || read_rows(&layout, lines)).await.map_err(|_| ReplicationError::Worker)??;
        let message = CopyMessage::Rows { key: self.order.key, snapshot: snapshot.id, rows, end };
        Ok(self.channels.worker.send(message).await.is_ok())
    }
}

fn silent() -> PgError {
    PgError::Timeout { doing: "copying a table", after: ROW_DEADLINE }
}
