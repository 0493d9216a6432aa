//! The download loop: opens streams, feeds the machine, performs what it says.
//!
//! A reader task receives and parses lines while SQLite applies earlier ones; a bounded channel between them passes
//! SQLite's pace on to the socket, and with it to the service.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kairos_sync_protocol::{
    line::{SubscriptionReason, SyncLine},
    request::StreamSubscription,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    connector::Credentials,
    core::{CloseReason, Completion, Event, Instruction, Scope, StoreStep, SyncMachine, Target},
    engine::{self, Counters, Engine, StreamEnd, SyncError},
    events::SyncEvent,
    network::NetworkKind,
    observer::PublishedCheckpoint,
    status::{Link, Problem},
    store::{Outcome, RowChanges, subscriptions},
    token::TokenClaims,
    transport::{LineStream, TransportError},
};

/// Lines received ahead of SQLite. Services send up to 1 MiB per line, so this also bounds memory.
const LINES_AHEAD: usize = 4;
/// Lines that share one SQLite transaction.
const LINES_PER_TRANSACTION: usize = 4;
/// A stream that lived this long ends the growth of the waits.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

type Received = Result<(SyncLine, usize), TransportError>;

/// Syncs until the task is aborted. Aborting is safe at any moment: all changes are whole transactions.
pub(crate) async fn run(engine: Arc<Engine>) {
    let mut backoff = engine.backoff();
    loop {
        wait_for_network(&engine).await;
        // Whoever has called for a stream until now gets this one, and not another after it.
        tokio::select! {
            biased;
            () = engine.signals.retry.notified() => {}
            () = std::future::ready(()) => {}
        }
        let started = Instant::now();
        let result = stream(&engine).await;
        if started.elapsed() >= HEALTHY_AFTER {
            backoff.reset();
        }
        note_end(&engine, &result);
        if let (Err(error), Some(observer)) = (&result, &engine.options.observer) {
            observer.failed(error).await;
        }
        // Nobody hurries a service that asks for time.
        if let Some(pause) = result.as_ref().err().and_then(SyncError::retry_after) {
            sleep(pause).await;
        }
        let wait = match result {
            Ok(StreamEnd::Deferred) => engine.options.metered_interval,
            _ => backoff.fail(rand::random()),
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = engine.signals.retry.notified() => {}
        }
    }
}

async fn wait_for_network(engine: &Engine) {
    if *engine.network.borrow() == NetworkKind::None {
        engine.board.note(|facts| (facts.link, facts.stream_problem) = (Link::Down, Some(Problem::Unreachable)));
        engine.has_network().await;
    }
}

/// A stream that ended without an error is opened again at once; until that fails, the status shows no gap.
fn note_end(engine: &Engine, result: &Result<StreamEnd, SyncError>) {
    if let Err(error) = result {
        tracing::info!(code = error.code(), error = error as &dyn std::error::Error, "sync stream ended");
        engine.events.send(SyncEvent::SyncError { code: error.code(), problem: error.problem() });
    }
    engine.board.note(|facts| {
        facts.current = false;
        match result {
            Ok(StreamEnd::Ended) => {}
            Ok(StreamEnd::Deferred) => facts.link = Link::Deferred,
            Err(error) => {
                facts.link = Link::Down;
                facts.stream_problem = error.problem();
                facts.configured = !matches!(error, SyncError::NotConfigured);
            }
        }
    });
}

/// One stream, from its request to its end.
async fn stream(engine: &Arc<Engine>) -> Result<StreamEnd, SyncError> {
    let mut template = engine.template.clone();
    template.streams.subscriptions.extend(engine.store.write(|tx| subscriptions::wanted(tx)).await?);
    let unsynced = template.streams.subscriptions.iter().cloned().map(Some).collect();
    let mut network = engine.network.subscribe();
    let mut machine = SyncMachine::new(template);
    if let (NetworkKind::Metered, Some(priority)) = (*network.borrow_and_update(), engine.options.metered_priority_max)
    {
        machine.defer_above(priority);
    }
    let mut host = Host {
        engine,
        machine,
        subscriptions: unsynced,
        network,
        steps: Vec::new(),
        lines: None,
        tasks: JoinSet::new(),
        renewals: mpsc::channel(1),
        token_ages_at: None,
    };
    let result = host.run().await;
    host.flush().await?; // what arrived before an error is not downloaded again
    result
}

/// Performs a machine's instructions.
struct Host<'engine> {
    engine: &'engine Arc<Engine>,
    machine: SyncMachine,
    /// Those of the request, in its order, until their rows are visible.
    subscriptions: Vec<Option<StreamSubscription>>,
    network: watch::Receiver<NetworkKind>,
    /// For the next transaction.
    steps: Vec<StoreStep>,
    lines: Option<(Credentials, mpsc::Receiver<Received>)>,
    /// The reader and a renewal of credentials; aborted when the stream ends.
    tasks: JoinSet<()>,
    renewals: (mpsc::Sender<()>, mpsc::Receiver<()>),
    token_ages_at: Option<Instant>,
}

impl Host<'_> {
    async fn run(&mut self) -> Result<StreamEnd, SyncError> {
        let mut event = Event::Start(self.engine.store.bucket_states().await?);
        loop {
            if let Some(reason) = self.handle(event).await? {
                return engine::outcome(reason);
            }
            let Some(next) = self.next_event().await? else { return Ok(StreamEnd::Ended) };
            event = next;
        }
    }

    /// The next thing that happens; writes to the store what was gathered, before it waits or grows too much.
    async fn next_event(&mut self) -> Result<Option<Event>, SyncError> {
        let Some((_, lines)) = &mut self.lines else { return Ok(None) };
        if self.steps.len() < LINES_PER_TRANSACTION
            && let Ok(received) = lines.try_recv()
        {
            return self.received(received).map(Some);
        }
        self.flush().await?;
        let Some((_, lines)) = &mut self.lines else { return Ok(None) };
        tokio::select! {
            received = lines.recv() => received.map(|received| self.received(received)).transpose(),
            () = self.engine.signals.drained.notified() => Ok(Some(Event::UploadsDrained)),
            Some(()) = self.renewals.1.recv() => Ok(Some(Event::TokenRefreshed)),
            () = moment(self.token_ages_at) => {
                self.token_ages_at = None;
                Ok(Some(Event::TokenAging))
            }
            () = self.engine.signals.resubscribe.notified() => {
                self.engine.signals.retry.notify_one();
                Ok(None)
            }
            Ok(()) = self.network.changed() => Ok(None), // whoever changed it has called for the next stream
        }
    }

    fn received(&self, received: Received) -> Result<Event, SyncError> {
        let (line, bytes) = received?;
        Counters::add(&self.engine.statistics.bytes_received, bytes);
        Ok(Event::Line(line))
    }

    /// Takes an event and performs what follows from it. A reason means that the stream is to be closed.
    async fn handle(&mut self, event: Event) -> Result<Option<CloseReason>, SyncError> {
        let mut event = Some(event);
        while let Some(next) = event.take() {
            for instruction in self.step(next) {
                match instruction {
                    Instruction::CloseStream(reason) => return Ok(Some(reason)),
                    // Always the last of its list: what follows depends on what becomes of it.
                    Instruction::Store(step @ StoreStep::Complete(_)) => {
                        self.steps.push(step);
                        event = self.flush().await?;
                    }
                    instruction => self.perform(instruction).await?,
                }
            }
        }
        self.note_progress();
        Ok(None)
    }

    fn step(&mut self, event: Event) -> Vec<Instruction> {
        let Some(observer) = &self.engine.options.observer else { return self.machine.step(event) };
        observer.told(&event);
        let instructions = self.machine.step(event);
        observer.decided(&instructions);
        instructions
    }

    async fn perform(&mut self, instruction: Instruction) -> Result<(), SyncError> {
        match instruction {
            Instruction::OpenStream(request) => {
                let engine = self.engine;
                let request = &request;
                let (credentials, stream) = engine
                    .authorized(|credentials| async move {
                        let stream = engine.transport.open(&credentials, request).await?;
                        Ok((credentials, stream))
                    })
                    .await?;
                Counters::add(&engine.statistics.streams, 1);
                let (sender, receiver) = mpsc::channel(LINES_AHEAD);
                self.tasks.spawn(read_lines(stream, sender));
                let ages_in = TokenClaims::read(&credentials.token).replace_in(SystemTime::now());
                self.token_ages_at = ages_in.and_then(|wait| Instant::now().checked_add(wait));
                self.lines = Some((credentials, receiver));
            }
            Instruction::Upload => {
                self.engine.board.note(|facts| {
                    (facts.configured, facts.link, facts.stream_problem) = (true, Link::Up, None);
                });
                self.engine.signals.online.notify_one();
            }
            Instruction::PrefetchCredentials => {
                self.tasks.spawn(renew_credentials(Arc::clone(self.engine), self.renewals.0.clone()));
            }
            Instruction::DropCredentials => {
                if let Some((credentials, _)) = &self.lines {
                    self.engine.session.expire(credentials).await;
                }
            }
            Instruction::Store(step) => {
                if let StoreStep::ApplyData(data) = &step {
                    Counters::add(&self.engine.statistics.operations, data.data.len());
                }
                self.steps.push(step);
            }
            Instruction::CloseStream(_) => {} // `handle` has returned it
        }
        Ok(())
    }

    /// Writes the gathered steps in one transaction; the outcome of a completion is the next event.
    async fn flush(&mut self) -> Result<Option<Event>, SyncError> {
        if self.steps.is_empty() {
            return Ok(None);
        }
        let steps = std::mem::take(&mut self.steps);
        let completion = match steps.last() {
            Some(StoreStep::Complete(completion)) => Some(completion.clone()),
            _ => None,
        };
        let Some(outcome) = self.engine.store.perform(steps).await? else { return Ok(None) };
        self.engine.note_local_state();
        Ok(Some(match outcome {
            Outcome::Published(rows) => {
                if let Some(completion) = completion {
                    self.note_first_syncs(&completion).await?;
                    self.note_published(completion, rows).await;
                }
                Event::Published
            }
            Outcome::Withheld => Event::Withheld,
            Outcome::Damaged(buckets) => Event::Damaged(buckets),
        }))
    }

    /// Of the subscriptions whose rows are all visible now.
    async fn note_first_syncs(&mut self, completion: &Completion) -> Result<(), SyncError> {
        if self.subscriptions.iter().all(Option::is_none) {
            return Ok(());
        }
        let last = last_priorities(&completion.target);
        let is_shown = |index| match completion.scope {
            Scope::Full => true,
            // One without buckets waits for the whole: until then, the service may name some.
            scope @ Scope::UpTo(_) => last.get(&index).is_some_and(|priority| scope.includes(*priority)),
        };
        let synced: Vec<_> = self
            .subscriptions
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| is_shown(*index))
            .filter_map(|(_, subscription)| subscription.take())
            .collect();
        if !synced.is_empty() && self.engine.store.write(move |tx| subscriptions::note_synced(tx, &synced)).await? {
            self.engine.first_syncs.send_replace(());
        }
        Ok(())
    }

    async fn note_published(&self, completion: Completion, rows: BTreeMap<String, RowChanges>) {
        let Completion { target, scope } = completion;
        if !rows.is_empty() {
            self.engine.events.send(SyncEvent::EntitiesUpdated { tables: rows.keys().cloned().collect() });
        }
        if scope == Scope::Full {
            Counters::add(&self.engine.statistics.checkpoints, 1);
            self.engine.events.send(SyncEvent::SyncCompleted);
        }
        if let Some(observer) = &self.engine.options.observer {
            let statistics = self.engine.statistics.totals();
            observer.published(PublishedCheckpoint { target, scope, rows, statistics }).await;
        }
    }

    fn note_progress(&self) {
        let (download, current) = (self.machine.download(), self.machine.is_current());
        self.engine.board.note(|facts| (facts.download, facts.current) = (download, current));
    }
}

/// For each of the request's subscriptions that has buckets: the largest priority number among them.
fn last_priorities(target: &Target) -> BTreeMap<usize, u8> {
    let mut last = BTreeMap::new();
    for bucket in target.buckets.values() {
        for reason in &bucket.subscriptions {
            if let SubscriptionReason::Sub(index) = reason {
                let priority = last.entry(*index).or_insert(bucket.priority);
                *priority = bucket.priority.max(*priority);
            }
        }
    }
    last
}

async fn moment(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn read_lines(mut stream: Box<dyn LineStream>, sender: mpsc::Sender<Received>) {
    while let Some(received) = stream.next().await.transpose() {
        let is_last = received.is_err();
        if sender.send(received).await.is_err() || is_last {
            return;
        }
    }
}

/// A failure is not an event: the stream goes on until the old token ends, and then says so.
async fn renew_credentials(engine: Arc<Engine>, renewed: mpsc::Sender<()>) {
    match engine.session.renew().await {
        Ok(true) => drop(renewed.send(()).await),
        Ok(false) => {}
        Err(error) => tracing::info!(code = error.code(), "new credentials are not available yet"),
    }
}
