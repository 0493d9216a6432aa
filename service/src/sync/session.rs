//! One client's stream, as lines that are made when the socket asks for them.
//!
//! There is no task and no queue per client: a session that nobody polls does nothing but finish what is read ahead, so a
//! slow client costs three lines at most, and what changed meanwhile is a sum of marks in the hub.

use std::{
    mem,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use kairos_sync_protocol::{
    BucketName, WriteCheckpointId,
    line::SyncLine,
    request::{StreamSubscription, SyncRequest},
};
use kairos_sync_rules::{RequestContext, Subscription, SyncPlan};
use serde_json::{Map, Value};
use tokio::{
    sync::watch,
    task,
    time::{Instant, sleep_until},
};
use tracing::{Span, field};

use super::{
    Hub, SyncError,
    checkpoint_state::{BucketRange, CheckpointState, NextStep, Observation, ObservedBuckets},
    connections::{Connection, Connections, DeviceInfo, Entry},
    hub::Changes,
    line::write_line,
    observe::{Evaluated, Observed, Observer},
    ranges::{DataLine, Line, LinesAhead, Packaging, Ranges},
    revocation::Revocation,
    token_clock::TokenClock,
};
use crate::{
    deployment::Deployments,
    fault_point::fault_point,
    metrics::Metrics,
    storage::{BucketStore, Checkpoint, StoreView, WriteCheckpointKey},
    traces::{number, trace_span},
};

/// A checkpoint of which this many operations were sent may be superseded by a newer one before it is complete.
const OPS_BEFORE_SUPERSESSION: usize = 1000;

/// Bounds of serving.
#[derive(Debug, Clone, Copy)]
pub struct SyncLimits {
    /// Buckets one client may have.
    pub bucket_count_max: usize,
    /// Reads of the store under way at once, over all clients.
    pub fetch_concurrency_max: usize,
    /// Bytes of lines that are kept in case another client needs them, too.
    pub shared_bytes_max: usize,
    /// Least time between two checkpoints of one client. A client applies each as a transaction: without it, one that is
    /// slower than commits come falls behind unnoticed, since what it has not read yet waits in the network.
    pub checkpoint_interval_min: Duration,
}

/// What all sessions share.
pub struct SyncContext {
    store: Arc<dyn BucketStore>,
    deployments: Arc<Deployments>,
    hub: Arc<Hub>,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    limits: SyncLimits,
    ranges: Arc<Ranges>,
    shutdown: watch::Receiver<bool>,
}

/// What a client proved and asked for.
pub struct ClientRequest {
    /// Who it is.
    pub user_id: String,
    /// Payload of its token.
    pub claims: Map<String, Value>,
    /// When its token expires.
    pub expires_at: SystemTime,
    /// Comes when its token is no longer good, though it has not expired.
    pub revoked: BoxFuture<'static, ()>,
    /// What it asked for.
    pub sync: SyncRequest,
    /// What it says of itself.
    pub device: DeviceInfo,
}

impl SyncContext {
    /// Sessions end when `shutdown` becomes true.
    pub fn new(
        store: Arc<dyn BucketStore>,
        deployments: Arc<Deployments>,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        limits: SyncLimits,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let ranges = Arc::new(Ranges::new(
            Arc::clone(&store),
            Arc::clone(&metrics),
            limits.fetch_concurrency_max,
            limits.shared_bytes_max,
        ));
        let connections = Arc::default();
        Self { store, deployments, hub, connections, metrics, limits, ranges, shutdown }
    }

    /// The rules that are in force.
    pub fn deployments(&self) -> &Arc<Deployments> {
        &self.deployments
    }

    /// Who cares about commits.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Who is connected.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Bounds of serving.
    pub fn limits(&self) -> &SyncLimits {
        &self.limits
    }

    /// Reads the store when it is this reader's turn among all those of clients. Keep it short: others wait.
    ///
    /// # Errors
    /// Those of `work`; [`SyncError::Stopping`] when the service ends.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn BucketStore) -> Result<T, SyncError> + Send + 'static,
    ) -> Result<T, SyncError> {
        let _turn = self.ranges.turn().await?;
        let store = Arc::clone(&self.store);
        blocking(move || work(&*store)).await
    }

    /// As [`Self::read`], of one state and with the rules that clients are served by in it.
    ///
    /// # Errors
    /// As [`Self::read`]; [`SyncError::UnknownRules`] where nobody is served.
    pub async fn view<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn StoreView, &Arc<SyncPlan>) -> Result<T, SyncError> + Send + 'static,
    ) -> Result<T, SyncError> {
        let deployments = Arc::clone(&self.deployments);
        self.read(move |store| {
            let view = store.view()?;
            let plan = deployments.plan(view.serving()).ok_or(SyncError::UnknownRules)?;
            work(&*view, &plan)
        })
        .await
    }
}

/// What a session does next.
#[derive(Debug)]
pub enum Step {
    /// It sends this.
    Line(Line),
    /// It has nothing to send until [`Session::wait`] returns.
    Idle,
    /// The stream is over.
    End,
}

/// One client's stream.
pub struct Session {
    context: Arc<SyncContext>,
    observer: Arc<Observer>,
    entry: Entry,
    state: CheckpointState,
    clock: TokenClock,
    revocation: Revocation,
    packaging: Packaging,
    shutdown: watch::Receiver<bool>,
    write_checkpoint: Option<WriteCheckpointId>,
    /// Operations sent for the checkpoint that is being sent.
    sent_count: usize,
    /// Since when the client does not have all that it is to have; not known while it gets its first state.
    behind_since: Option<std::time::Instant>,
    /// When the state may be looked at again.
    next_refresh: Instant,
    ended: bool,
    /// What is probably sent next.
    ahead: LinesAhead,
    /// What the first state gave, until it is asked for.
    first: Option<Line>,
    /// Of traces: the checkpoint that is being sent.
    span: Span,
}

impl Session {
    /// Registers the client and reads its first state, so that what forbids serving it is an error, not a cut stream.
    ///
    /// # Errors
    /// When the rules fail for the client, it would get too many buckets, or the store cannot be read.
    pub async fn open(
        context: Arc<SyncContext>,
        request: ClientRequest,
        packaging: Packaging,
    ) -> Result<Self, SyncError> {
        let ClientRequest { user_id, claims, expires_at, revoked, mut sync, device } = request;
        let write_key = WriteCheckpointKey::of(&user_id, sync.client_id.as_deref());
        let registration = context.hub.register(write_key.clone());
        let positions = mem::take(&mut sync.buckets).into_iter();
        let positions = positions.map(|position| (BucketName::new(position.name.as_str()), position.after));
        let state = CheckpointState::new(positions.collect());
        let client_id = sync.client_id.take();
        let request = Arc::new(rules_request(claims, sync));
        let entry = context.connections.enter(registration.id(), user_id, client_id, device, Arc::clone(&request));
        let lifetime = expires_at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        let turn = context.ranges.turn().await?;
        let (store, deployments) = (Arc::clone(&context.store), Arc::clone(&context.deployments));
        let bucket_count_max = context.limits.bucket_count_max;
        let observer = blocking(move || {
            let evaluated = Evaluated::of(&request, &*store.view()?, &deployments)?;
            let evaluated = Mutex::new(evaluated);
            Ok(Observer { store, deployments, registration, request, evaluated, write_key, bucket_count_max })
        })
        .await?;
        drop(turn);
        let now = Instant::now();
        let mut session = Self {
            shutdown: context.shutdown.clone(),
            context,
            observer: Arc::new(observer),
            entry,
            state,
            clock: TokenClock::new(now, lifetime, rand::random()),
            revocation: Revocation::new(revoked),
            packaging,
            write_checkpoint: None,
            sent_count: 0,
            behind_since: None,
            next_refresh: now,
            ended: false,
            ahead: LinesAhead::default(),
            first: None,
            span: Span::none(),
        };
        fault_point("session.before-checkpoint");
        session.first = session.refresh().await?;
        fault_point("session.after-checkpoint");
        Ok(session)
    }

    /// The next line, if there is one now.
    ///
    /// # Errors
    /// When the store fails or the client's rules no longer can be evaluated. The stream is to be cut then.
    pub async fn step(&mut self) -> Result<Step, SyncError> {
        if let Some(first) = self.first.take() {
            return Ok(Step::Line(first));
        }
        loop {
            if self.is_ended() {
                return Ok(Step::End);
            }
            let line = if let Some(line) = self.lifetime_line() {
                Some(line)
            } else if self.may_refresh() && Instant::now() >= self.next_refresh && self.has_changes() {
                self.next_refresh = Instant::now() + self.context.limits.checkpoint_interval_min;
                self.refresh().await?
            } else if let Some(step) = self.state.next_step() {
                self.perform(step).await?
            } else {
                return Ok(Step::Idle);
            };
            if let Some(line) = line {
                return Ok(Step::Line(line));
            }
        }
    }

    /// What operators see of it.
    pub fn connection(&self) -> &Connection {
        &self.entry.connection
    }

    fn has_changes(&self) -> bool {
        self.observer.registration.has_changes()
    }

    /// Until something changed and may be told, a line is due, or the service stops.
    pub async fn wait(&mut self) {
        let has_changes = self.has_changes();
        let due = self.clock.next_due();
        // One timer for both: each takes room in every silent stream.
        let until = if has_changes { due.min(self.next_refresh) } else { due };
        tokio::select! {
            () = self.observer.registration.changed(), if !has_changes => {}
            () = sleep_until(until) => {}
            () = self.revocation.come() => {}
            // The sender being gone means the same: the service is over.
            _ = self.shutdown.wait_for(|stopping| *stopping) => self.ended = true,
        }
    }

    fn is_ended(&mut self) -> bool {
        self.ended |= *self.shutdown.borrow();
        self.ended
    }

    fn line(&self, line: &SyncLine) -> Line {
        self.entry.connection.tell(line);
        Line::Plain(write_line(line, self.packaging.form).into())
    }

    /// Says how long the token lives, when that is due. With none of it left the stream ends.
    fn lifetime_line(&mut self) -> Option<Line> {
        let seconds = if self.revocation.has_come() { 0 } else { self.clock.due(Instant::now(), rand::random())? };
        self.ended |= seconds == 0;
        Some(self.line(&SyncLine::TokenExpiresIn(seconds)))
    }

    /// A small checkpoint is finished first; a large one gives way to a newer state.
    fn may_refresh(&self) -> bool {
        self.state.is_complete() || self.state.is_outdated() || self.sent_count >= OPS_BEFORE_SUPERSESSION
    }

    /// Takes what changed, and announces the new state if that is another one for this client.
    async fn refresh(&mut self) -> Result<Option<Line>, SyncError> {
        let registration = &self.observer.registration;
        self.behind_since = self.behind_since.or_else(|| registration.changed_at());
        let (changes, published) = registration.take();
        let builds = self.state.is_announced()
            && !changes.everything
            && !changes.resolve
            && changes.buckets.values().all(|growth| self.state.continues(growth));
        let Some(published) = published.filter(|_| builds) else {
            return self.observe(changes, published).await;
        };
        self.write_checkpoint = self.write_checkpoint.max(changes.write_checkpoint);
        let line = self.state.advance(Observation {
            op_id: published.op_id,
            write_checkpoint: self.write_checkpoint,
            buckets: ObservedBuckets::Grown(changes.buckets.into_values().collect()),
        });
        Ok(line.map(|line| self.announce(&line)))
    }

    /// Reads the state from the store.
    async fn observe(&mut self, changes: Changes, published: Option<Checkpoint>) -> Result<Option<Line>, SyncError> {
        let context = Arc::clone(&self.context);
        let _turn = context.ranges.turn().await?;
        let observer = Arc::clone(&self.observer);
        let write_checkpoint = self.write_checkpoint;
        let mut state = mem::take(&mut self.state);
        // With the comparison of states, which takes long where there are many buckets.
        let (state, outcome) = blocking(move || {
            let outcome = match observer.observe(changes, published, &state, write_checkpoint)? {
                Observed::State { observation, by_other_rules } => {
                    let write_checkpoint = observation.write_checkpoint;
                    if by_other_rules {
                        state.begin_anew();
                    }
                    Ok((write_checkpoint, state.advance(observation)))
                }
                // Not all of something is stored yet. What was announced stays true meanwhile.
                Observed::Nothing => Err(false),
                Observed::OtherGeneration => Err(true),
            };
            Ok((state, outcome))
        })
        .await?;
        self.state = state;
        match outcome {
            Ok((write_checkpoint, line)) => {
                self.write_checkpoint = write_checkpoint;
                Ok(line.map(|line| self.announce(&line)))
            }
            Err(ended) => {
                self.ended |= ended;
                Ok(None)
            }
        }
    }

    fn announce(&mut self, line: &SyncLine) -> Line {
        self.sent_count = 0;
        self.span = trace_span!(
            parent: None,
            "sync.checkpoint",
            connection = number(self.entry.connection.id),
            operations = field::Empty,
            is_complete = field::Empty,
        );
        self.line(line)
    }

    /// The client has all that it was promised.
    fn completed(&mut self) {
        if let Some(since) = self.behind_since.take() {
            self.context.metrics.latencies.delivery.observe(since.elapsed().as_secs_f64());
        }
        let span = mem::replace(&mut self.span, Span::none());
        span.record("operations", number(self.sent_count));
        span.record("is_complete", true);
    }

    async fn perform(&mut self, step: NextStep) -> Result<Option<Line>, SyncError> {
        match step {
            NextStep::Line(line) => {
                if matches!(line, SyncLine::CheckpointComplete(_)) {
                    fault_point("session.before-complete");
                    self.completed();
                }
                Ok(Some(self.line(&line)))
            }
            NextStep::Fetch(range) => {
                let BucketRange { bucket, upto, .. } = range.clone();
                let data = self.fetch(range).await?;
                if !data.has_more && data.last_op_id < upto && data.valid_from <= upto {
                    // Everything is copied anew: what was announced is gone, and must not be called complete.
                    self.ended = true;
                    return Ok(None);
                }
                fault_point("session.between-lines");
                self.sent_count += data.count;
                self.context.metrics.operations_synced.inc_by(data.count as u64);
                self.state.sent(&bucket, data.last_op_id, data.has_more, data.valid_from);
                self.ahead.begin(self.state.next_range(), &self.context.ranges, self.packaging);
                Ok(data.line.clone())
            }
        }
    }

    async fn fetch(&mut self, range: BucketRange) -> Result<Arc<DataLine>, SyncError> {
        let ranges = &self.context.ranges;
        match self.ahead.take(&range, ranges, self.packaging).await {
            Some(line) => line,
            None => ranges.line(range, self.packaging).await,
        }
    }
}

/// Runs work that blocks on disk.
pub(super) async fn blocking<T: Send + 'static>(
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
    // Parsing leaves room for more.
    let mut claims = Map::with_capacity(token.len());
    claims.extend(token);
    RequestContext {
        token: claims,
        parameters: sync.parameters,
        include_defaults: sync.streams.include_defaults,
        subscriptions: sync.streams.subscriptions.into_iter().map(subscription).collect(),
    }
}
