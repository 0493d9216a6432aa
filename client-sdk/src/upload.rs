//! The upload loop: empties the queue of local writes, oldest first.

use std::sync::Arc;

use tokio::time::sleep;

use crate::{
    engine::{Counters, Engine, SyncError},
    events::SyncEvent,
    store::crud::{self, UploadSlice},
};

/// What the loop knows of the write checkpoint it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The app wrote something.
    Written,
    /// A stream was opened. The service may have lost its write checkpoints meanwhile, since its store is disposable, so
    /// one that did not come back yet is asked for again: the new one is as good.
    Online,
}

/// Uploads until the task is aborted. Aborting is safe at any moment: the service knows repeated writes by their ids.
pub(crate) async fn run(engine: Arc<Engine>) {
    let mut backoff = engine.backoff();
    let mut reason = Reason::Online;
    loop {
        engine.has_network().await;
        let result = drain(&engine, reason).await;
        let problem = result.as_ref().err().and_then(SyncError::problem);
        engine.board.note(|facts| facts.upload_problem = problem);
        match result {
            Ok(()) => {
                backoff.reset();
                tokio::select! {
                    () = engine.signals.online.notified() => reason = Reason::Online,
                    () = engine.signals.written.notified() => reason = Reason::Written,
                }
            }
            Err(error) => {
                tracing::info!(code = error.code(), error = &error as &dyn std::error::Error, "upload failed");
                // Nobody hurries a service that asks for time.
                if let Some(pause) = error.retry_after() {
                    sleep(pause).await;
                }
                // Not woken by further local writes: they cannot be sent before this one.
                tokio::select! {
                    () = engine.signals.online.notified() => {}
                    () = sleep(backoff.fail(rand::random())) => {}
                }
            }
        }
    }
}

async fn drain(engine: &Engine, reason: Reason) -> Result<(), SyncError> {
    while let Some(slice) = engine.store.read(crud::next_upload).await? {
        upload(engine, slice).await?;
    }
    let awaits = match reason {
        Reason::Online => engine.store.local_state().awaiting,
        Reason::Written => engine.store.read(crud::lacks_write_checkpoint).await?,
    };
    if awaits {
        let client_id = engine.template.client_id.as_deref().unwrap_or_default();
        let id = engine
            .authorized(|credentials| async move { engine.transport.write_checkpoint(&credentials, client_id).await })
            .await?;
        engine.store.write(move |tx| crud::await_write_checkpoint(tx, id)).await?;
    }
    engine.note_local_state();
    engine.signals.drained.notify_one();
    Ok(())
}

async fn upload(engine: &Engine, slice: UploadSlice) -> Result<(), SyncError> {
    let UploadSlice { batch, last_id } = slice;
    let writes = batch.batch.len();
    let batch = &batch;
    let response = engine
        .authorized(|credentials| async move {
            engine.session.connector().upload(engine.transport.as_ref(), &credentials, batch).await
        })
        .await?;
    let rejected = response.results.iter().filter(|result| result.outcome.needs_attention()).count();
    engine.store.write(move |tx| crud::acknowledge(tx, last_id, &response.results, response.write_checkpoint)).await?;
    Counters::add(&engine.statistics.writes_uploaded, writes);
    if rejected > 0 {
        engine.events.send(SyncEvent::WritesRejected { count: rejected });
    }
    engine.note_local_state();
    Ok(())
}
