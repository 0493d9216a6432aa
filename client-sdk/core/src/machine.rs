//! The machine itself.

use std::sync::Arc;

use kairos_sync_protocol::{
    line::{BucketData, Checkpoint, CheckpointDiff, SyncLine},
    operation::{OpKind, Operation},
    request::{BucketPosition, StreamSubscription, SyncRequest},
};

use crate::{
    event::{BucketState, CloseReason, Completion, Event, Instruction, ProtocolError, Scope, StoreStep, Target},
    progress::{Counters, Download},
};

/// From this many seconds before its end on, a token is replaced.
const TOKEN_PREFETCH_SECONDS: i32 = 30;

/// One client's side of the sync protocol. See the [module](super).
#[derive(Debug)]
pub struct SyncMachine {
    /// What every request of this client has in common.
    template: SyncRequest,
    /// Data of later priorities ends a stream.
    priority_max: u8,
    stream: Option<Stream>,
}

/// What is known of the open stream.
#[derive(Debug)]
struct Stream {
    /// What the request subscribed to: buckets name these by their position.
    subscriptions: Vec<StreamSubscription>,
    priority_max: u8,
    counters: Counters,
    target: Option<Arc<Target>>,
    phase: Phase,
    first_line: bool,
    prefetching: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Data of the target is arriving.
    Receiving,
    /// The store is asked to publish the target.
    Completing(Scope),
    /// Valid, but local writes hold it back.
    Withheld,
    /// The app sees it.
    Published,
}

impl SyncMachine {
    /// A machine whose requests carry the client id, parameters and subscriptions of `template`.
    pub fn new(template: SyncRequest) -> Self {
        Self { template, priority_max: u8::MAX, stream: None }
    }

    /// From the next stream on, the first data of a priority after this one ends the stream: where data costs, the rest
    /// may wait. Services send a priority once those before it are complete, so all of those are visible then, unless
    /// local writes hold them back.
    pub const fn defer_above(&mut self, priority: u8) {
        self.priority_max = priority;
    }

    /// Takes one event; returns what is to be done because of it, in order.
    pub fn step(&mut self, event: Event) -> Vec<Instruction> {
        match event {
            Event::Start(buckets) => self.start(&buckets),
            event => {
                let Some(stream) = &mut self.stream else { return Vec::new() };
                let instructions = stream.step(event);
                if instructions.iter().any(|instruction| matches!(instruction, Instruction::CloseStream(_))) {
                    self.stream = None;
                }
                instructions
            }
        }
    }

    /// How far the download of the current checkpoint is.
    pub fn download(&self) -> Download {
        self.stream.as_ref().map(|stream| stream.counters.download()).unwrap_or_default()
    }

    /// The app sees the latest state the service announced on this stream.
    pub fn is_current(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.phase == Phase::Published)
    }

    fn start(&mut self, buckets: &[BucketState]) -> Vec<Instruction> {
        self.stream = Some(Stream {
            priority_max: self.priority_max,
            subscriptions: self.template.streams.subscriptions.clone(),
            counters: Counters::new(buckets),
            target: None,
            phase: Phase::Receiving,
            first_line: true,
            prefetching: false,
        });
        let position = |state: &BucketState| BucketPosition { name: state.name.clone(), after: state.last_op_id };
        let request = SyncRequest { buckets: buckets.iter().map(position).collect(), ..self.template.clone() };
        vec![Instruction::OpenStream(Box::new(request))]
    }
}

impl Stream {
    fn step(&mut self, event: Event) -> Vec<Instruction> {
        match event {
            Event::Line(line) => {
                let mut instructions = Vec::new();
                if std::mem::take(&mut self.first_line) {
                    instructions.push(Instruction::Upload);
                }
                match self.receive(line) {
                    Ok(more) => instructions.extend(more),
                    Err(error) => instructions.push(Instruction::CloseStream(CloseReason::Protocol(error))),
                }
                instructions
            }
            Event::UploadsDrained if self.phase == Phase::Withheld => self.complete(Scope::Full),
            Event::Start(_) | Event::UploadsDrained => Vec::new(),
            Event::TokenAging => self.prefetch(),
            Event::TokenRefreshed => vec![Instruction::CloseStream(CloseReason::TokenRefreshed)],
            Event::Published => {
                self.published();
                Vec::new()
            }
            Event::Withheld => {
                self.phase =
                    if self.phase == Phase::Completing(Scope::Full) { Phase::Withheld } else { Phase::Receiving };
                Vec::new()
            }
            Event::Damaged(buckets) => vec![Instruction::CloseStream(CloseReason::Damaged(buckets))],
        }
    }

    fn receive(&mut self, line: SyncLine) -> Result<Vec<Instruction>, ProtocolError> {
        match line {
            SyncLine::Checkpoint(checkpoint) => Ok(self.checkpoint(checkpoint)),
            SyncLine::CheckpointDiff(diff) => self.checkpoint_diff(diff),
            SyncLine::Data(data) => self.data(data),
            SyncLine::CheckpointComplete(_) => {
                self.target("checkpoint_complete")?;
                Ok(self.complete(Scope::Full))
            }
            SyncLine::PartialCheckpointComplete(partial) => {
                self.target("partial_checkpoint_complete")?;
                Ok(self.complete(Scope::UpTo(partial.priority)))
            }
            SyncLine::TokenExpiresIn(seconds) => Ok(self.token_expires_in(seconds)),
        }
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) -> Vec<Instruction> {
        let target = Target {
            last_op_id: checkpoint.last_op_id,
            write_checkpoint: checkpoint.write_checkpoint,
            buckets: checkpoint.buckets.into_iter().map(|bucket| (bucket.bucket.clone(), bucket)).collect(),
            streams: checkpoint.streams,
        };
        let mut gone: Vec<String> =
            self.counters.names().filter(|name| !target.buckets.contains_key(*name)).cloned().collect();
        gone.sort_unstable();
        self.aim_at(Arc::new(target), gone)
    }

    fn checkpoint_diff(&mut self, diff: CheckpointDiff) -> Result<Vec<Instruction>, ProtocolError> {
        let mut target = Arc::clone(self.target("checkpoint_diff")?);
        self.target = None; // so that the map is changed in place, not copied
        let changed = Arc::make_mut(&mut target);
        changed.last_op_id = diff.last_op_id;
        changed.write_checkpoint = diff.write_checkpoint;
        for bucket in &diff.removed_buckets {
            changed.buckets.remove(bucket);
        }
        changed.buckets.extend(diff.updated_buckets.into_iter().map(|bucket| (bucket.bucket.clone(), bucket)));
        let gone = diff.removed_buckets.into_iter().filter(|bucket| self.counters.contains(bucket)).collect();
        Ok(self.aim_at(target, gone))
    }

    fn aim_at(&mut self, target: Arc<Target>, gone: Vec<String>) -> Vec<Instruction> {
        for bucket in &gone {
            self.counters.remove(bucket);
        }
        self.counters.aim_at(&target, &self.subscriptions);
        self.target = Some(target);
        self.phase = Phase::Receiving;
        if gone.is_empty() { Vec::new() } else { vec![Instruction::Store(StoreStep::DeleteBuckets(gone))] }
    }

    fn data(&mut self, data: BucketData) -> Result<Vec<Instruction>, ProtocolError> {
        let target = Arc::clone(self.target("data")?);
        let Some(bucket) = target.buckets.get(&data.bucket) else {
            return Err(ProtocolError::UnknownBucket { bucket: data.bucket });
        };
        if let Some(operation) = data.data.iter().find(|operation| !is_whole(operation)) {
            return Err(ProtocolError::IncompleteOperation { op_id: operation.op_id, bucket: data.bucket });
        }
        self.counters.receive(&data, bucket);
        let mut instructions = vec![Instruction::Store(StoreStep::ApplyData(data))];
        if bucket.priority > self.priority_max {
            instructions.push(Instruction::CloseStream(CloseReason::Deferred));
        }
        Ok(instructions)
    }

    fn complete(&mut self, scope: Scope) -> Vec<Instruction> {
        let Some(target) = &self.target else { return Vec::new() };
        self.phase = Phase::Completing(scope);
        vec![Instruction::Store(StoreStep::Complete(Completion { target: Arc::clone(target), scope }))]
    }

    fn published(&mut self) {
        if self.phase != Phase::Completing(Scope::Full) {
            self.phase = Phase::Receiving;
            return;
        }
        self.phase = Phase::Published;
        if let Some(target) = &self.target {
            self.counters.publish(target);
        }
    }

    fn token_expires_in(&mut self, seconds: i32) -> Vec<Instruction> {
        if seconds <= 0 {
            return vec![Instruction::DropCredentials, Instruction::CloseStream(CloseReason::TokenExpired)];
        }
        if seconds <= TOKEN_PREFETCH_SECONDS { self.prefetch() } else { Vec::new() }
    }

    /// Once for a stream.
    fn prefetch(&mut self) -> Vec<Instruction> {
        if std::mem::replace(&mut self.prefetching, true) { Vec::new() } else { vec![Instruction::PrefetchCredentials] }
    }

    fn target(&self, line: &'static str) -> Result<&Arc<Target>, ProtocolError> {
        self.target.as_ref().ok_or(ProtocolError::BeforeCheckpoint { line })
    }
}

fn is_whole(operation: &Operation) -> bool {
    let named = operation.object_type.is_some() && operation.object_id.is_some();
    match operation.op {
        OpKind::Put => named && operation.data.is_some(),
        OpKind::Remove => named,
        OpKind::Move | OpKind::Clear => true,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
