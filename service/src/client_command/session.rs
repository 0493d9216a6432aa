//! One run that syncs: from the first stream to the end of what was asked for.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use kairos_client::{
    Client, ClientOptions, Observer, Progress, PublishedCheckpoint, RowChanges, Schema, Statistics, SyncError,
    core::{Scope, Target},
    protocol::{line::StreamErrorSubject, request::StreamSubscription},
};
use tokio::sync::mpsc;

use super::{
    ClientArguments, ClientCommandError,
    error::{Failure, FailureKind},
    identity::IdentityConnector,
    lock::SyncLock,
    report::{CheckpointLine, Report},
};
use crate::commands::wait_for_end_signal;

/// Steps told ahead of their being printed; the sync waits beyond.
const STEPS_AHEAD: usize = 16;
/// So many times in a row buckets may not add up before `--once` gives up.
const DAMAGED_MAX: u32 = 3;

enum Step {
    Published(PublishedCheckpoint),
    Failed(Failure),
}

/// Hands the steps of the sync on to who prints them.
struct Steps(mpsc::Sender<Step>);

#[async_trait]
impl Observer for Steps {
    async fn published(&self, checkpoint: PublishedCheckpoint) {
        // Nobody listens any more when the run is over.
        let _ = self.0.send(Step::Published(checkpoint)).await;
    }

    async fn failed(&self, error: &SyncError) {
        let _ = self.0.send(Step::Failed(error.into())).await;
    }
}

/// Syncs once, or until Ctrl-C.
pub(super) async fn run(arguments: &ClientArguments, report: &mut Report) -> Result<bool, ClientCommandError> {
    let connector = IdentityConnector { endpoint: arguments.endpoint()?, identity: arguments.identity()? };
    connector.identity.token()?; // what is wrong with a file is said at once
    let _lock = SyncLock::take(&arguments.db)?;
    let (sender, steps) = mpsc::channel(STEPS_AHEAD);
    let options = ClientOptions {
        parameters: arguments.parameters(),
        streams: arguments.streams(),
        observer: Some(Arc::new(Steps(sender))),
        ..ClientOptions::default()
    };
    let client = Client::open_with(&arguments.db, Schema::learned(), connector, options).await?;
    if arguments.look.repair {
        let found = client.repair().await?;
        report.verification(&found, "what differs is downloaded again now");
    }
    let mut session = Session { arguments, report, client, told: Told::default(), changes: BTreeMap::new() };
    session.client.connect();
    let result = session.run(steps).await;
    session.report.end_progress();
    session.client.disconnect().await;
    match result {
        // So a watch ends, and it has given its answers.
        Err(ClientCommandError::Interrupted) if !arguments.is_once() => Ok(true),
        result => result,
    }
}

struct Session<'run> {
    arguments: &'run ClientArguments,
    report: &'run mut Report,
    client: Client,
    told: Told,
    /// For the next line: the changes of parts that are visible are told with the whole.
    changes: BTreeMap<String, RowChanges>,
}

/// What was printed so far.
#[derive(Default)]
struct Told {
    checkpoints: u64,
    statistics: Statistics,
    /// Operations when the last failure was told.
    operations_at_failure: u64,
    damaged: u32,
}

/// Watches for the lack of progress.
struct Patience {
    seen: (u64, Progress),
    since: Instant,
}

impl Session<'_> {
    async fn run(&mut self, mut steps: mpsc::Receiver<Step>) -> Result<bool, ClientCommandError> {
        let started = Instant::now();
        let mut patience = Patience { seen: (0, Progress::default()), since: started };
        let mut ticks = tokio::time::interval(self.report.interval().min(Duration::from_secs(1)));
        // Of the download at hand; a short one is told by its checkpoint alone.
        let mut told_at = started;
        // One listener for the whole run, which misses nothing.
        let mut end = pin!(wait_for_end_signal());
        loop {
            tokio::select! {
                step = steps.recv() => match step {
                    Some(Step::Published(checkpoint)) => {
                        if let Some(answer) = self.published(checkpoint, started).await? {
                            return Ok(answer);
                        }
                        told_at = Instant::now();
                    }
                    Some(Step::Failed(failure)) => self.failed(failure)?,
                    None => return Err(ClientCommandError::Interrupted), // the client holds the sender
                },
                _ = ticks.tick() => {
                    let progress = self.client.status().progress.unwrap_or_default();
                    let statistics = self.client.statistics();
                    if progress.total == 0 {
                        told_at = Instant::now();
                    } else if told_at.elapsed() >= self.report.interval() {
                        told_at = Instant::now();
                        self.report.progress(progress, statistics.bytes_received);
                    }
                    if self.arguments.is_once() {
                        patience.check(statistics.operations, progress, self.arguments.timeout())?;
                    }
                },
                () = &mut end => return Err(ClientCommandError::Interrupted),
            }
        }
    }

    /// A checkpoint is visible. The answer, if the run is over.
    async fn published(
        &mut self,
        checkpoint: PublishedCheckpoint,
        started: Instant,
    ) -> Result<Option<bool>, ClientCommandError> {
        let PublishedCheckpoint { target, scope, rows, statistics } = checkpoint;
        add(&mut self.changes, rows);
        if scope != Scope::Full {
            return Ok(None);
        }
        self.told.damaged = 0;
        let line = self.next_line(&target, statistics);
        let is_first = self.told.checkpoints == 0;
        self.told.checkpoints += 1;
        self.report.end_progress();
        if is_first {
            for warning in stream_warnings(&target, &self.arguments.streams().subscriptions) {
                self.report.warning(&warning);
            }
        }
        if self.arguments.is_once() {
            // What follows is not part of the answer.
            self.client.disconnect().await;
            let took = started.elapsed();
            self.report.summary(&line, &super::tables(self.arguments).await?, took);
            return super::look(self.arguments, self.report).await.map(Some);
        }
        if is_first || line.operations > 0 || !line.changes.is_empty() {
            self.report.checkpoint(&line);
            if !super::look(self.arguments, self.report).await? {
                return Ok(Some(false));
            }
        }
        Ok(None)
    }

    fn next_line(&mut self, target: &Target, statistics: Statistics) -> CheckpointLine {
        let before = std::mem::replace(&mut self.told.statistics, statistics);
        CheckpointLine {
            last_op_id: target.last_op_id.get(),
            buckets: target.buckets.len(),
            operations: statistics.operations - before.operations,
            bytes: statistics.bytes_received - before.bytes_received,
            changes: std::mem::take(&mut self.changes),
        }
    }

    /// Tells of a failure that passes; others end the run. `--once` does not wait for a service that is not there, but
    /// goes on where a stream broke that had brought something.
    fn failed(&mut self, failure: Failure) -> Result<(), ClientCommandError> {
        let operations = self.client.statistics().operations;
        let has_brought = operations > std::mem::replace(&mut self.told.operations_at_failure, operations);
        let is_once = self.arguments.is_once();
        let ends = match failure.kind {
            FailureKind::Refused | FailureKind::NotFound => true,
            FailureKind::Damaged => {
                self.told.damaged += 1;
                is_once && self.told.damaged == DAMAGED_MAX
            }
            FailureKind::Passing => is_once && !has_brought,
        };
        if ends {
            return Err(ClientCommandError::Sync(failure));
        }
        self.report.failure(&failure);
        Ok(())
    }
}

impl Patience {
    /// Once everything has arrived, it is this machine that is waited for.
    fn check(&mut self, operations: u64, progress: Progress, waits: Duration) -> Result<(), ClientCommandError> {
        let seen = (operations, progress);
        let is_applying = progress.total > 0 && progress.done == progress.total;
        if seen != self.seen || is_applying {
            (self.seen, self.since) = (seen, Instant::now());
        }
        if self.since.elapsed() < waits { Ok(()) } else { Err(ClientCommandError::Timeout { waited: waits }) }
    }
}

fn add(sum: &mut BTreeMap<String, RowChanges>, rows: BTreeMap<String, RowChanges>) {
    for (table, changes) in rows {
        let sum = sum.entry(table).or_default();
        sum.written += changes.written;
        sum.deleted += changes.deleted;
    }
}

/// Streams that were asked for and are not there, and those that could not be evaluated.
fn stream_warnings(target: &Target, subscriptions: &[StreamSubscription]) -> Vec<String> {
    let is_missing =
        |subscription: &&StreamSubscription| target.streams.iter().all(|stream| stream.name != subscription.stream);
    let missing = subscriptions.iter().filter(is_missing);
    let mut warnings: Vec<_> =
        missing.map(|subscription| format!("the rules have no stream `{}`", subscription.stream)).collect();
    for stream in &target.streams {
        for error in &stream.errors {
            let which = match &error.subscription {
                StreamErrorSubject::Index(index) => format!(", subscription {}", index + 1),
                StreamErrorSubject::Default(_) => String::new(),
            };
            warnings.push(format!("stream `{}`{which}: {}", stream.name, error.message));
        }
    }
    warnings
}
