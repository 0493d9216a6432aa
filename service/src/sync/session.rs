//! One client's stream, as chunks of bytes that are made when the socket asks for them.
//!
//! There is no task and no queue per client: a session that nobody polls does nothing, so a slow client costs at most
//! one chunk, and what changed meanwhile is a set of marks in the hub.

use std::{
    mem,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use kairos_sync_protocol::{
    BucketName, OpId, WriteCheckpointId,
    line::SyncLine,
    request::{StreamSubscription, SyncRequest},
};
use kairos_sync_rules::{RequestContext, Subscription, SyncPlan};
use serde_json::{Map, Value};
use tokio::{
    sync::{Semaphore, watch},
    task,
    time::{Instant, sleep_until},
};

use super::{
    Hub, SyncError,
    checkpoint_state::{CheckpointState, NextStep},
    lines::{DataForm, write_data_line, write_line},
    observe::{Observed, Observer},
    token_clock::TokenClock,
    write_checkpoint::write_checkpoint_key,
};
use crate::{
    metrics::Metrics,
    storage::{BucketStore, OperationRange},
};

/// About how many bytes of operations one `data` line holds.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// A chunk is handed to the socket once it has this size; small lines travel together.
const CHUNK_BYTES: usize = 16 * 1024;
/// A checkpoint of which this many operations were sent may be superseded by a newer one before it is complete.
const OPS_BEFORE_SUPERSESSION: usize = 1000;

/// Bounds of serving.
#[derive(Debug, Clone, Copy)]
pub struct SyncLimits {
    /// Buckets one client may have.
    pub bucket_count_max: usize,
    /// Reads of the store under way at once, over all clients.
    pub fetch_concurrency_max: usize,
}

/// What all sessions share.
pub struct SyncContext {
    store: Arc<dyn BucketStore>,
    plan: Arc<SyncPlan>,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    limits: SyncLimits,
    // Bounds blocking threads and the memory of ranges; first come, first served, so that a bulk download takes turns
    // with small updates.
    fetches: Semaphore,
    shutdown: watch::Receiver<bool>,
}

/// What a client proved and asked for.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// Who it is.
    pub user_id: String,
    /// Payload of its token.
    pub claims: Map<String, Value>,
    /// When its token expires.
    pub expires_at: SystemTime,
    /// What it asked for.
    pub sync: SyncRequest,
}

impl SyncContext {
    /// Sessions end when `shutdown` becomes true.
    pub fn new(
        store: Arc<dyn BucketStore>,
        plan: Arc<SyncPlan>,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        limits: SyncLimits,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let fetches = Semaphore::new(limits.fetch_concurrency_max.max(1));
        Self { store, plan, hub, metrics, limits, fetches, shutdown }
    }
}

/// One client's stream.
pub struct Session {
    context: Arc<SyncContext>,
    observer: Arc<Observer>,
    state: CheckpointState,
    clock: TokenClock,
    form: DataForm,
    shutdown: watch::Receiver<bool>,
    write_checkpoint: Option<WriteCheckpointId>,
    /// Operations sent for the checkpoint that is being sent.
    sent_count: usize,
    ended: bool,
    /// What the first state gave, until it is asked for.
    first: Vec<u8>,
}

impl Session {
    /// Registers the client and reads its first state, so that what forbids serving it is an error, not a cut stream.
    ///
    /// # Errors
    /// When the rules fail for the client, it would get too many buckets, or the store cannot be read.
    pub async fn open(context: Arc<SyncContext>, request: ClientRequest) -> Result<Self, SyncError> {
        let ClientRequest { user_id, claims, expires_at, sync } = request;
        let write_key = write_checkpoint_key(&user_id, sync.client_id.as_deref());
        let registration = context.hub.register(write_key.clone());
        let positions = sync.buckets.iter().map(|position| (BucketName::new(position.name.as_str()), position.after));
        let state = CheckpointState::new(positions.collect());
        let form = if sync.raw_data { DataForm::Text } else { DataForm::Nested };
        let lifetime = expires_at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        let observer = blocking({
            let context = Arc::clone(&context);
            move || {
                let bucket_prefix = context.store.bucket_prefix()?;
                let querier = context.plan.querier(&rules_request(claims, sync), &bucket_prefix)?;
                let (store, bucket_count_max) = (Arc::clone(&context.store), context.limits.bucket_count_max);
                Ok(Observer { store, registration, querier, bucket_prefix, write_key, bucket_count_max })
            }
        })
        .await?;
        let mut session = Self {
            shutdown: context.shutdown.clone(),
            context,
            observer: Arc::new(observer),
            state,
            clock: TokenClock::new(Instant::now(), lifetime, rand::random()),
            form,
            write_checkpoint: None,
            sent_count: 0,
            ended: false,
            first: Vec::new(),
        };
        let mut first = Vec::new();
        session.refresh(&mut first).await?;
        session.first = first;
        Ok(session)
    }

    /// The next bytes, as soon as there are some; `None` at the end of the stream.
    ///
    /// # Errors
    /// When the store fails or the client's rules no longer can be evaluated. The stream is to be cut then.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, SyncError> {
        let mut chunk = mem::take(&mut self.first);
        while chunk.len() < CHUNK_BYTES && !self.ended {
            if self.tell_lifetime(&mut chunk) || self.is_stopping() {
                break;
            }
            if self.may_refresh() && self.observer.registration.has_changes() {
                self.refresh(&mut chunk).await?;
            } else if let Some(step) = self.state.next_step() {
                self.perform(step, &mut chunk).await?;
            } else if chunk.is_empty() {
                self.wait().await;
            } else {
                break;
            }
        }
        self.context.metrics.bytes_synced.inc_by(chunk.len() as u64);
        Ok((!chunk.is_empty()).then(|| Bytes::from(chunk)))
    }

    /// Says how long the token lives, when that is due. True if it is over.
    fn tell_lifetime(&mut self, chunk: &mut Vec<u8>) -> bool {
        if let Some(seconds) = self.clock.due(Instant::now(), rand::random()) {
            write_line(&SyncLine::TokenExpiresIn(seconds), chunk);
            self.ended |= seconds == 0;
        }
        self.ended
    }

    fn is_stopping(&mut self) -> bool {
        self.ended |= *self.shutdown.borrow();
        self.ended
    }

    /// A small checkpoint is finished first; a large one gives way to a newer state.
    fn may_refresh(&self) -> bool {
        self.state.is_complete() || self.sent_count >= OPS_BEFORE_SUPERSESSION
    }

    async fn refresh(&mut self, chunk: &mut Vec<u8>) -> Result<(), SyncError> {
        let observer = Arc::clone(&self.observer);
        let write_checkpoint = self.write_checkpoint;
        let _turn = self.context.fetches.acquire().await.map_err(|_| SyncError::Stopping)?;
        match blocking(move || observer.observe(write_checkpoint)).await? {
            // What was visible is gone: the client must not keep waiting for a continuation.
            Observed::Nothing => self.ended |= self.state.is_announced(),
            Observed::OtherGeneration => self.ended = true,
            Observed::State(observation) => {
                self.write_checkpoint = observation.write_checkpoint;
                if let Some(line) = self.state.advance(observation) {
                    self.sent_count = 0;
                    write_line(&line, chunk);
                }
            }
        }
        Ok(())
    }

    async fn perform(&mut self, step: NextStep, chunk: &mut Vec<u8>) -> Result<(), SyncError> {
        match step {
            NextStep::Line(line) => write_line(&line, chunk),
            NextStep::Fetch { bucket, after, upto } => {
                let range = self.fetch(bucket.clone(), after, upto).await?;
                if range.count > 0 {
                    write_data_line(&bucket, after, &range, self.form, chunk)?;
                }
                self.sent_count += range.count;
                self.context.metrics.operations_synced.inc_by(range.count as u64);
                self.state.sent(&bucket, range.last_op_id, range.has_more && range.count > 0);
            }
        }
        Ok(())
    }

    async fn fetch(&self, bucket: BucketName, after: OpId, upto: OpId) -> Result<OperationRange, SyncError> {
        let _turn = self.context.fetches.acquire().await.map_err(|_| SyncError::Stopping)?;
        let store = Arc::clone(&self.context.store);
        blocking(move || Ok(store.operations(&bucket, after, upto, LINE_BYTES_MAX)?)).await
    }

    /// Until something changed, a line is due, or the service stops.
    async fn wait(&mut self) {
        tokio::select! {
            () = self.observer.registration.changed() => {}
            () = sleep_until(self.clock.next_due()) => {}
            // The sender being gone means the same: the service is over.
            _ = self.shutdown.wait_for(|stopping| *stopping) => self.ended = true,
        }
    }
}

/// Runs work that blocks on disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SyncError> + Send + 'static,
) -> Result<T, SyncError> {
    task::spawn_blocking(work).await.map_err(|_| SyncError::Stopping)?
}

fn rules_request(token: Map<String, Value>, sync: SyncRequest) -> RequestContext {
    let subscription = |subscription: StreamSubscription| Subscription {
        stream: subscription.stream,
        parameters: subscription.parameters,
        priority: subscription.override_priority,
    };
    RequestContext {
        token,
        parameters: sync.parameters,
        include_defaults: sync.streams.include_defaults,
        subscriptions: sync.streams.subscriptions.into_iter().map(subscription).collect(),
    }
}
