//! The first copy of the tables.
//!
//! The slot exists before anything is read, so a change made during the copy is either in the copy, in the stream or in
//! both; the stream, which is applied afterwards, has the last word. What a table looked like in between is seen by
//! nobody: clients see nothing before the stream has passed the position read after the last copy.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};
use tokio_postgres::Client;

use crate::{
    lsn::Lsn,
    postgres::{
        PgError,
        catalog::Table,
        copy::{copy_lines, fields},
    },
    replication::{
        apply::Applier,
        error::ReplicationError,
        image::CompleteRow,
        relations::{Relations, SourceRelation},
        replicator::{Replicator, stopped, within_deadline},
        state::{ReplicationState, TableState},
        status::Phase,
    },
    storage::TableId,
};

const BATCH_ROWS_MAX: usize = 5_000;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Batches read ahead while one is applied.
const BATCHES_AHEAD: usize = 1;
/// A copy that brings no row for so long is dead; a filter on a large table may be silent for a while.
const ROW_DEADLINE: Duration = Duration::from_mins(5);

/// Copies the tables that have not been copied yet. `None` when told to stop.
pub(super) async fn copy_tables(
    replicator: &Arc<Replicator>,
    client: &Client,
    tables: &[Table],
    mut state: ReplicationState,
    shutdown: &mut watch::Receiver<bool>,
) -> Result<Option<ReplicationState>, ReplicationError> {
    let table_count = state.tables.len();
    for index in 0..table_count {
        let table_state = &state.tables[index];
        if table_state.is_copied {
            continue;
        }
        let Some(table) = tables.iter().find(|table| table.oid == table_state.oid) else {
            continue;
        };
        replicator.progress.set_phase(Phase::Snapshot {
            table: format!("{}.{}", table.schema, table.name),
            tables_done: index,
            table_count,
            rows_done: 0,
            rows_estimated: table.rows_estimated,
        });
        if !copy_table(replicator, client, table, &state.tables, table_state.id(), shutdown).await? {
            return Ok(None);
        }
        // Read after the copy: whatever the copy saw is before this position.
        state.consistent_from = state.consistent_from.max(within_deadline(current_position(client)).await?);
        state.tables[index].is_copied = true;
        let (replicator, stored) = (Arc::clone(replicator), state.clone());
        spawn_blocking(move || replicator.save(&stored)).await.map_err(|_| ReplicationError::Worker)??;
    }
    Ok(Some(state))
}

/// Where the source's WAL ends now.
pub(super) async fn current_position(client: &Client) -> Result<Lsn, PgError> {
    let text: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.try_get(0)?;
    text.parse().map_err(|_| PgError::Protocol("a WAL position that is none"))
}

/// Reads one table while a thread applies what has been read. `false` when told to stop.
async fn copy_table(
    replicator: &Arc<Replicator>,
    client: &Client,
    table: &Table,
    tables: &[TableState],
    id: TableId,
    shutdown: &mut watch::Receiver<bool>,
) -> Result<bool, ReplicationError> {
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let worker = {
        let (replicator, tables) = (Arc::clone(replicator), tables.to_vec());
        spawn_blocking(move || apply_batches(&replicator, &tables, id, batches))
    };
    let read = tokio::select! {
        read = read_batches(client, table, sender) => read.map(|()| true),
        () = stopped(shutdown) => Ok(false),
    };
    // Also after a failure: nobody else may write to the store before the worker has ended.
    worker.await.map_err(|_| ReplicationError::Worker)??;
    Ok(read?)
}

fn silent() -> PgError {
    PgError::Timeout { doing: "copying a table", after: ROW_DEADLINE }
}

async fn read_batches(client: &Client, table: &Table, sender: mpsc::Sender<Vec<Bytes>>) -> Result<(), PgError> {
    // A lock on the table holds the first answer up.
    let lines = timeout(ROW_DEADLINE, copy_lines(client, table)).await.map_err(|_| silent())??;
    let mut lines = std::pin::pin!(lines);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(line) = timeout(ROW_DEADLINE, lines.next()).await.map_err(|_| silent())? {
        let line = line?;
        bytes += line.len();
        batch.push(line);
        if batch.len() >= BATCH_ROWS_MAX || bytes >= BATCH_BYTES_MAX {
            bytes = 0;
            if sender.send(std::mem::take(&mut batch)).await.is_err() {
                // The worker has failed, and says why itself.
                return Ok(());
            }
        }
    }
    // The same holds here.
    let _ = sender.send(batch).await;
    Ok(())
}

fn apply_batches(
    replicator: &Replicator,
    tables: &[TableState],
    id: TableId,
    mut batches: mpsc::Receiver<Vec<Bytes>>,
) -> Result<(), ReplicationError> {
    let relations = Relations::new(&replicator.plan, replicator.store.bucket_prefix()?, tables);
    let Some(table) = relations.by_id(id) else {
        return Ok(());
    };
    let mut rows_done = 0;
    while let Some(lines) = batches.blocking_recv() {
        let mut applier = Applier::new(replicator.store.as_ref());
        for line in &lines {
            applier.copied(table, &read_row(table, line)?)?;
            replicator.metrics.bytes_replicated.inc_by(line.len() as u64);
        }
        applier.settle(&relations)?;
        replicator.report(&applier.take_errors());
        replicator.commit(applier.finish())?;
        rows_done += lines.len() as u64;
        replicator.metrics.rows_replicated.inc_by(lines.len() as u64);
        replicator.progress.set_rows_done(rows_done);
    }
    Ok(())
}

fn read_row(table: &SourceRelation, line: &Bytes) -> Result<CompleteRow, ReplicationError> {
    let own = |text: std::borrow::Cow<'_, [u8]>| match text {
        std::borrow::Cow::Borrowed(part) => line.slice_ref(part),
        std::borrow::Cow::Owned(text) => text.into(),
    };
    let row = CompleteRow(fields(line).map(|field| field.map(own)).collect());
    if row.0.len() == table.column_count() {
        Ok(row)
    } else {
        Err(ReplicationError::RowShape { table: table.full_name() })
    }
}
