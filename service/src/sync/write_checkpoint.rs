//! Write checkpoints: how a client learns that its own upload has come back.
//!
//! A request reads the head of the source, stores it under the client's key, and is answered. Requests that come together
//! share one reading and one commit: a batch reads the head only after all its requests have arrived, hence after their
//! uploads were committed.
//! Replication passes the head with the upload itself where that is published, or with what others write. Where it has
//! not after a moment, a message is written to the source, for all that wait; it is tried again until it is there.

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
/// How long replication may take to pass a head by itself. A commit takes a few milliseconds to come back; each message
/// is one more for the source.
const NUDGE_AFTER: Duration = Duration::from_millis(10);
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
    // Held to look and to change it only.
    passing: Mutex<Passing>,
    batches: Semaphore,
}

/// What replication is to pass.
#[derive(Default)]
struct Passing {
    /// The newest head that was answered.
    head: Lsn,
    /// Somebody sees to it.
    is_seen_to: bool,
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
        let (waiting, passing) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { source, store, hub, are_custom, waiting, passing, batches }) }
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

    /// The same with an id that the client chose. Where a larger one is recorded already, that is returned. It is seen to
    /// that replication passes it in any case: the attempt before may have ended in between.
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
        let (head, answers) = match self.record_all(wanted).await {
            Ok((head, ids)) => (head, ids.into_iter().map(|id| id.map_err(SyncError::from)).collect()),
            Err(error) => {
                let refused = replies.iter().map(|_| Err(SyncError::from(error.again())));
                (Lsn::ZERO, refused.collect::<Vec<_>>())
            }
        };
        let is_any_stored = answers.iter().any(Result::is_ok);
        for (reply, answer) in replies.into_iter().zip(answers) {
            // Who gave up waiting needs no answer.
            let _ = reply.send(answer);
        }
        if is_any_stored {
            Arc::clone(&self).see_passed(head);
        }
    }

    /// Has replication pass this head, by itself or with a message.
    fn see_passed(self: Arc<Self>, head: Lsn) {
        {
            let mut passing = self.passing();
            passing.head = passing.head.max(head);
            if mem::replace(&mut passing.is_seen_to, true) {
                return;
            }
        }
        tokio::spawn(async move { while !self.passed_all().await {} });
    }

    /// Gives replication a moment, and writes the message if it needs one. Whether there is no newer head then.
    async fn passed_all(&self) -> bool {
        tokio::time::sleep(NUDGE_AFTER).await;
        let head = self.passing().head;
        let is_passed = self.hub.published().is_some_and(|published| published.lsn >= head);
        if !is_passed && let Err(error) = within_deadline(self.source.nudge()).await {
            tracing::warn!(error = &error as &dyn Error, "clients wait for the source to be written to; trying again");
            tokio::time::sleep(NUDGE_PAUSE).await;
            return false;
        }
        let mut passing = self.passing();
        passing.is_seen_to = passing.head > head;
        !passing.is_seen_to
    }

    /// A poisoned lock is harmless: it is two values that belong to no others.
    fn passing(&self) -> MutexGuard<'_, Passing> {
        self.passing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All are durable when this returns: whoever sees replication pass the head finds them.
    async fn record_all(
        self: &Arc<Self>,
        wanted: Vec<(WriteCheckpointKey, Option<WriteCheckpointId>)>,
    ) -> Result<(Lsn, Vec<Result<WriteCheckpointId, StorageError>>), HeadUnavailable> {
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
            Err(error) => wanted.iter().map(|_| Err(error.clone())).collect(),
        });
        Ok((head, ids.await.map_err(HeadUnavailable::new)?))
    }
}

async fn within_deadline<T>(work: BoxFuture<'_, Result<T, HeadUnavailable>>) -> Result<T, HeadUnavailable> {
    tokio::time::timeout(SOURCE_DEADLINE, work).await.map_err(HeadUnavailable::new)?
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use futures_util::future::join_all;
    use kairos_sync_protocol::OpId;

    use super::*;
    use crate::storage::{Checkpoint, MemoryStore};

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
            tokio::time::sleep(4 * NUDGE_AFTER).await;
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
        service_with(source, Hub::new(None))
    }

    fn service_with(source: &Arc<Source>, hub: Arc<Hub>) -> (WriteCheckpoints, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new());
        let source: Arc<dyn SourceHead> = Arc::clone(source) as _;
        (WriteCheckpoints::new(source, Arc::clone(&store) as _, hub, || false), store)
    }

    #[tokio::test]
    async fn what_replication_passes_by_itself_needs_no_message() {
        let source = Arc::new(Source::default());
        let passed = Checkpoint { op_id: OpId::ZERO, lsn: Lsn::new(5) };
        let (checkpoints, _store) = service_with(&source, Hub::new(Some(passed)));
        for _ in 0..5 {
            checkpoints.create("anna", None).await.unwrap();
        }
        source.nudged(0).await;
        checkpoints.create("anna", None).await.unwrap();
        source.nudged(1).await;
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
        source.nudged(1).await;
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
        source.nudged(1).await;
        // Also for what is known: the first one may have been lost.
        assert_eq!(request(3).await, 7);
        source.nudged(2).await;
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
