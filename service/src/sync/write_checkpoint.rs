//! Write checkpoints: how a client learns that its own upload has come back.
//!
//! A request reads the head of the source, stores it under the client's key, and is answered. Then a message is written
//! to the source, so that replication passes the head even where nobody else writes; it is tried again until it is.
//! Requests that come together share one reading, one commit and one message: a batch reads the head only after all its
//! requests have arrived, hence after their uploads were committed.

use std::{
    error::Error,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use kairos_sync_protocol::WriteCheckpointId;
use tokio::{
    sync::{Semaphore, oneshot},
    task,
};

use super::{Hub, SyncError};
use crate::{
    lsn::Lsn,
    storage::{BucketStore, StorageError, WriteCheckpoint, WriteCheckpointKey},
};

/// How long the source may take to tell its position, or to take a message.
const SOURCE_DEADLINE: Duration = Duration::from_secs(5);
/// Before the source is told again to pass its position.
const NUDGE_PAUSE: Duration = Duration::from_secs(1);
/// Batches under way at once; more would only cost connections to the source.
const BATCHES_MAX: usize = 3;
/// Requests that may wait for their batch.
const WAITING_MAX: usize = 10_000;

/// The source could not be asked for its position, or not be told to pass it.
#[derive(Debug, thiserror::Error)]
#[error("the source database did not answer")]
pub struct HeadUnavailable(#[source] Arc<dyn Error + Send + Sync>);

impl HeadUnavailable {
    /// For this reason.
    pub fn new(cause: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(cause))
    }

    /// The same failure for another request of the batch.
    fn again(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The end of the source's WAL.
pub trait SourceHead: Send + Sync {
    /// The current position of the primary. Everything committed before the call lies before it.
    fn head(&self) -> BoxFuture<'_, Result<Lsn, HeadUnavailable>>;

    /// Writes something to the WAL, so that replication passes the current head.
    fn nudge(&self) -> BoxFuture<'_, Result<(), HeadUnavailable>>;
}

/// Makes write checkpoints. Cheap to clone.
#[derive(Clone)]
pub struct WriteCheckpoints {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn SourceHead>,
    store: Arc<dyn BucketStore>,
    hub: Arc<Hub>,
    /// They come from rows of the source, and none is made here.
    are_custom: Box<dyn Fn() -> bool + Send + Sync>,
    // Held to push or take the list only.
    waiting: Mutex<Vec<Request>>,
    batches: Semaphore,
}

struct Request {
    key: WriteCheckpointKey,
    requested: Option<WriteCheckpointId>,
    reply: oneshot::Sender<Result<WriteCheckpointId, SyncError>>,
}

impl WriteCheckpoints {
    /// Of this source, kept in this store, announced through this hub. While they `are_custom`, rows of the source say
    /// them, and every request is an error.
    pub fn new(
        source: Arc<dyn SourceHead>,
        store: Arc<dyn BucketStore>,
        hub: Arc<Hub>,
        are_custom: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let (batches, are_custom) = (Semaphore::new(BATCHES_MAX), Box::new(are_custom));
        Self { shared: Arc::new(Shared { source, store, hub, are_custom, waiting: Mutex::default(), batches }) }
    }

    /// Whether rows of the source say them.
    pub fn are_custom(&self) -> bool {
        (self.shared.are_custom)()
    }

    /// A write checkpoint that replication reaches once it has passed everything committed before this call.
    ///
    /// # Errors
    /// When the source or the store does not answer; nothing is promised to the client then, it may try again.
    pub async fn create(&self, user_id: &str, client_id: Option<&str>) -> Result<WriteCheckpointId, SyncError> {
        self.record(WriteCheckpointKey::of(user_id, client_id), None).await
    }

    /// The same with an id that the client chose. Where a larger one is recorded already, that is returned. The source
    /// is nudged in any case: the attempt before may have ended in between.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub async fn request(
        &self,
        user_id: &str,
        client_id: &str,
        requested: WriteCheckpointId,
    ) -> Result<WriteCheckpointId, SyncError> {
        self.record(WriteCheckpointKey::of(user_id, Some(client_id)), Some(requested)).await
    }

    async fn record(
        &self,
        key: WriteCheckpointKey,
        requested: Option<WriteCheckpointId>,
    ) -> Result<WriteCheckpointId, SyncError> {
        if self.are_custom() {
            return Err(SyncError::CustomWriteCheckpoints);
        }
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            if waiting.len() >= WAITING_MAX {
                return Err(SyncError::WriteCheckpointsBusy);
            }
            waiting.push(Request { key, requested, reply });
        }
        // A task of its own: the batch serves others too, also when this request is given up.
        tokio::spawn(Arc::clone(&self.shared).serve_waiting());
        answer.await.map_err(|_| SyncError::Stopping)?
    }
}

impl Shared {
    /// A poisoned lock is harmless: the list is pushed to or taken whole.
    fn waiting(&self) -> MutexGuard<'_, Vec<Request>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve_waiting(self: Arc<Self>) {
        let Ok(_turn) = self.batches.acquire().await else { return };
        let batch = mem::take(&mut *self.waiting());
        if batch.is_empty() {
            return; // an earlier batch took the request along
        }
        let (wanted, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|request| ((request.key, request.requested), request.reply)).unzip();
        let answers = match self.record_all(wanted).await {
            Ok(ids) => ids.into_iter().map(|id| id.map_err(SyncError::from)).collect(),
            Err(error) => replies.iter().map(|_| Err(SyncError::from(error.again()))).collect::<Vec<_>>(),
        };
        let is_any_stored = answers.iter().any(Result::is_ok);
        for (reply, answer) in replies.into_iter().zip(answers) {
            // Who gave up waiting needs no answer.
            let _ = reply.send(answer);
        }
        // Within its turn, so that requests gather meanwhile.
        if is_any_stored && let Err(error) = within_deadline(self.source.nudge()).await {
            tracing::warn!(error = &error as &dyn Error, "clients wait for the source to be written to; trying again");
            tokio::spawn(Arc::clone(&self).nudge_again());
        }
    }

    async fn nudge_again(self: Arc<Self>) {
        loop {
            tokio::time::sleep(NUDGE_PAUSE).await;
            if within_deadline(self.source.nudge()).await.is_ok() {
                return;
            }
        }
    }

    /// All are durable when this returns: whoever sees the message pass finds them.
    async fn record_all(
        self: &Arc<Self>,
        wanted: Vec<(WriteCheckpointKey, Option<WriteCheckpointId>)>,
    ) -> Result<Vec<Result<WriteCheckpointId, StorageError>>, HeadUnavailable> {
        let head = within_deadline(self.source.head()).await?;
        let shared = Arc::clone(self);
        let ids = task::spawn_blocking(move || match shared.store.put_write_checkpoints(&wanted, head) {
            Ok(stored) => {
                let created = |((key, _), stored): (&(_, _), WriteCheckpoint)| {
                    shared.hub.write_checkpoint_created(key, stored);
                    Ok(stored.id)
                };
                wanted.iter().zip(stored).map(created).collect()
            }
            Err(error) => wanted.iter().map(|_| Err(StorageError::Engine(error.to_string()))).collect(),
        });
        ids.await.map_err(HeadUnavailable::new)
    }
}

async fn within_deadline<T>(work: BoxFuture<'_, Result<T, HeadUnavailable>>) -> Result<T, HeadUnavailable> {
    tokio::time::timeout(SOURCE_DEADLINE, work).await.map_err(HeadUnavailable::new)?
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use futures_util::future::join_all;

    use super::*;
    use crate::storage::MemoryStore;

    /// A source whose head moves with each reading.
    #[derive(Default)]
    struct Source {
        head: AtomicU64,
        nudges: AtomicU64,
        fails: bool,
        /// So many nudges fail first.
        lost_nudges: u64,
    }

    impl Source {
        /// Waits until there were so many, and a moment for more.
        async fn nudged(&self, count: u64) {
            while self.nudges.load(SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(self.nudges.load(SeqCst), count);
        }
    }

    impl SourceHead for Source {
        fn head(&self) -> BoxFuture<'_, Result<Lsn, HeadUnavailable>> {
            Box::pin(async {
                if self.fails {
                    return Err(HeadUnavailable::new(std::io::Error::other("down")));
                }
                task::yield_now().await;
                Ok(Lsn::new(self.head.fetch_add(1, SeqCst) + 1))
            })
        }

        fn nudge(&self) -> BoxFuture<'_, Result<(), HeadUnavailable>> {
            let is_lost = self.nudges.fetch_add(1, SeqCst) < self.lost_nudges;
            Box::pin(
                async move { if is_lost { Err(HeadUnavailable::new(std::io::Error::other("lost"))) } else { Ok(()) } },
            )
        }
    }

    fn service(source: &Arc<Source>) -> (WriteCheckpoints, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new());
        let source: Arc<dyn SourceHead> = Arc::clone(source) as _;
        (WriteCheckpoints::new(source, Arc::clone(&store) as _, Hub::new(None), || false), store)
    }

    #[tokio::test]
    async fn each_client_of_a_user_has_its_own_checkpoint() {
        let source = Arc::new(Source::default());
        let (checkpoints, store) = service(&source);
        assert_eq!(checkpoints.create("anna", Some("phone")).await.unwrap().get(), 1);
        assert_eq!(checkpoints.create("anna", Some("phone")).await.unwrap().get(), 2);
        assert_eq!(checkpoints.create("anna", Some("watch")).await.unwrap().get(), 1);
        let key = WriteCheckpointKey::of("anna", Some("phone"));
        let stored = store.write_checkpoint(&key).unwrap().unwrap();
        assert_eq!((stored.id.get(), stored.lsn), (2, Lsn::new(2)));
        source.nudged(3).await;
    }

    #[tokio::test]
    async fn requests_that_come_together_share_a_reading() {
        let source = Arc::new(Source::default());
        let (checkpoints, _store) = service(&source);
        let ids = join_all((0..100).map(|_| checkpoints.create("anna", None))).await;
        let mut ids: Vec<u64> = ids.into_iter().map(|id| id.unwrap().get()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=100).collect::<Vec<_>>(), "each request has an id of its own");
        assert!(source.head.load(SeqCst) < 100, "{} readings", source.head.load(SeqCst));
    }

    #[tokio::test]
    async fn a_client_may_choose_ids_that_grow() {
        let source = Arc::new(Source::default());
        let (checkpoints, store) = service(&source);
        let request = async |id| {
            let id = WriteCheckpointId::new(id).unwrap();
            checkpoints.request("anna", "phone", id).await.unwrap().get()
        };
        assert_eq!([request(7).await, request(7).await, request(3).await], [7, 7, 7]);
        let stored = store.write_checkpoint(&WriteCheckpointKey::of("anna", Some("phone"))).unwrap().unwrap();
        assert_eq!((stored.id.get(), stored.lsn), (7, Lsn::new(1)), "it keeps the position of the first request");
        // Also for what is known: the first nudge may have been lost.
        source.nudged(3).await;
    }

    #[tokio::test]
    async fn where_rows_of_the_source_say_them_none_is_made() {
        let store = Arc::new(MemoryStore::new());
        let checkpoints =
            WriteCheckpoints::new(Arc::new(Source::default()), Arc::clone(&store) as _, Hub::new(None), || true);
        let requested = checkpoints.request("anna", "phone", WriteCheckpointId::ZERO.next()).await;
        for refused in [checkpoints.create("anna", None).await, requested] {
            assert_eq!(refused.unwrap_err().code(), "PSYNC_S2001");
        }
        assert_eq!(store.write_checkpoint(&WriteCheckpointKey::of("anna", None)).unwrap(), None);
    }

    #[tokio::test]
    async fn a_source_that_is_down_fails_the_request_and_stores_nothing() {
        let source = Arc::new(Source { fails: true, ..Source::default() });
        let (checkpoints, store) = service(&source);
        let error = checkpoints.create("anna", None).await.unwrap_err();
        assert_eq!(error.code(), "SYNC-0201");
        assert_eq!(store.write_checkpoint(&WriteCheckpointKey::of("anna", None)).unwrap(), None);
    }

    #[tokio::test]
    async fn a_source_that_was_not_told_to_pass_is_told_again() {
        let source = Arc::new(Source { lost_nudges: 3, ..Source::default() });
        let (checkpoints, _store) = service(&source);
        assert_eq!(checkpoints.create("anna", None).await.unwrap().get(), 1, "it is durable, so it is answered");
        source.nudged(4).await;
    }
}
