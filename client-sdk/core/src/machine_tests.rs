//! Whole syncs as lists of events.

use std::sync::Arc;

use kairos_sync_protocol::{
    WriteCheckpointId,
    line::SyncLine,
    request::{StreamSubscription, StreamSubscriptions, SyncRequest},
};

use super::{
    super::{Progress, event::*, line},
    SyncMachine,
};

const CHECKPOINT: &str = r#"{"checkpoint":{"last_op_id":"4","buckets":[
    {"bucket":"a","checksum":10,"count":2,"priority":1},{"bucket":"b","checksum":20,"count":2}]}}"#;
const DATA_A: &str = r#"{"data":{"bucket":"a","after":"0","has_more":false,"next_after":"2","data":[
    {"op_id":"1","op":"PUT","object_type":"t","object_id":"1","checksum":5,"data":"{}"},
    {"op_id":"2","op":"MOVE","checksum":5}]}}"#;
const PARTIAL: &str = r#"{"partial_checkpoint_complete":{"last_op_id":"4","priority":1}}"#;
const COMPLETE: &str = r#"{"checkpoint_complete":{"last_op_id":"4"}}"#;
const DIFF: &str = r#"{"checkpoint_diff":{"last_op_id":"6","write_checkpoint":"7",
    "updated_buckets":[{"bucket":"c","checksum":1,"count":1}],"removed_buckets":["b"]}}"#;

fn read(text: &str) -> SyncLine {
    line::parse(text).unwrap().unwrap()
}

/// A short name per instruction, so that a trace reads as a story.
fn names(instructions: &[Instruction]) -> Vec<String> {
    let name = |instruction: &Instruction| match instruction {
        Instruction::OpenStream(_) => "open".into(),
        Instruction::Store(StoreStep::DeleteBuckets(buckets)) => format!("delete {}", buckets.join(",")),
        Instruction::Store(StoreStep::ApplyData(data)) => format!("apply {}", data.bucket),
        Instruction::Store(StoreStep::Complete(completion)) => match completion.scope {
            Scope::Full => format!("complete {}", completion.target.last_op_id),
            Scope::UpTo(priority) => format!("complete {} up to {priority}", completion.target.last_op_id),
        },
        Instruction::Upload => "upload".into(),
        Instruction::PrefetchCredentials => "prefetch".into(),
        Instruction::DropCredentials => "drop credentials".into(),
        Instruction::CloseStream(reason) => format!("close {reason:?}"),
    };
    instructions.iter().map(name).collect()
}

struct Trace(SyncMachine);

impl Trace {
    /// A stream over these buckets, its first line behind it.
    fn started(buckets: &[&str]) -> Self {
        let mut machine = SyncMachine::new(SyncRequest::default());
        let state = |name: &&str| BucketState { name: (*name).into(), ..BucketState::default() };
        machine.step(Event::Start(buckets.iter().map(state).collect()));
        machine.step(Event::Line(SyncLine::TokenExpiresIn(300)));
        Self(machine)
    }

    fn line(&mut self, text: &str, expected: &[&str]) -> &mut Self {
        self.event(Event::Line(read(text)), expected)
    }

    fn event(&mut self, event: Event, expected: &[&str]) -> &mut Self {
        let name = format!("{event:?}");
        assert_eq!(names(&self.0.step(event)), expected, "{name}");
        self
    }
}

#[test]
fn a_request_names_the_position_in_every_bucket() {
    let mut machine = SyncMachine::new(SyncRequest { client_id: Some("c1".into()), ..SyncRequest::default() });
    let last_op_id = "1207".parse().unwrap();
    let state = BucketState { name: "a".into(), last_op_id, count_at_last: 3, count_since_last: 1 };
    let instructions = machine.step(Event::Start(vec![state]));
    let [Instruction::OpenStream(request)] = instructions.as_slice() else { panic!("{instructions:?}") };
    assert_eq!(request.client_id.as_deref(), Some("c1"));
    assert_eq!((request.buckets[0].name.as_str(), request.buckets[0].after), ("a", last_op_id));
}

#[test]
fn the_first_line_of_a_stream_starts_an_upload() {
    let mut machine = SyncMachine::new(SyncRequest::default());
    machine.step(Event::Start(vec![]));
    assert_eq!(names(&machine.step(Event::Line(read(CHECKPOINT)))), ["upload"]);
    assert_eq!(names(&machine.step(Event::Line(read(COMPLETE)))), ["complete 4"]);
}

#[test]
fn a_checkpoint_is_completed_after_its_data_in_parts_and_whole() {
    let mut trace = Trace::started(&[]);
    trace
        .line(CHECKPOINT, &[])
        .line(DATA_A, &["apply a"])
        .line(PARTIAL, &["complete 4 up to 1"])
        .event(Event::Published, &[]);
    assert!(!trace.0.is_current(), "a part is not the whole");
    trace.line(COMPLETE, &["complete 4"]).event(Event::Published, &[]);
    assert!(trace.0.is_current());
}

#[test]
fn buckets_missing_from_a_checkpoint_are_deleted() {
    Trace::started(&["z", "a", "y"]).line(CHECKPOINT, &["delete y,z"]);
}

#[test]
fn a_diff_adds_replaces_and_removes_buckets() {
    let mut trace = Trace::started(&["a", "b"]);
    trace.line(CHECKPOINT, &[]).line(COMPLETE, &["complete 4"]).event(Event::Published, &[]).line(DIFF, &["delete b"]);
    let instructions = trace.0.step(Event::Line(read(COMPLETE)));
    let [Instruction::Store(StoreStep::Complete(completion))] = instructions.as_slice() else {
        panic!("{instructions:?}")
    };
    assert_eq!(completion.target.buckets.keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(completion.target.write_checkpoint.map(WriteCheckpointId::get), Some(7));
    assert_eq!(Arc::strong_count(&completion.target), 2, "the map is shared, not copied");
}

#[test]
fn a_diff_without_write_checkpoint_forgets_the_earlier_one() {
    let mut trace = Trace::started(&[]);
    trace.line(CHECKPOINT, &[]).line(DIFF, &[]);
    let without = r#"{"checkpoint_diff":{"last_op_id":"7","updated_buckets":[],"removed_buckets":[]}}"#;
    trace.line(without, &[]);
    let instructions = trace.0.step(Event::Line(read(COMPLETE)));
    let [Instruction::Store(StoreStep::Complete(completion))] = instructions.as_slice() else {
        panic!("{instructions:?}")
    };
    assert_eq!(completion.target.write_checkpoint, None);
}

#[test]
fn a_withheld_checkpoint_is_offered_again_once_uploads_are_through() {
    let mut trace = Trace::started(&[]);
    trace
        .line(CHECKPOINT, &[])
        .event(Event::UploadsDrained, &[])
        .line(COMPLETE, &["complete 4"])
        .event(Event::Withheld, &[])
        .event(Event::UploadsDrained, &["complete 4"])
        .event(Event::Published, &[])
        .event(Event::UploadsDrained, &[]);
}

#[test]
fn a_withheld_checkpoint_is_not_offered_again_after_a_newer_one_began() {
    let mut trace = Trace::started(&[]);
    trace
        .line(CHECKPOINT, &[])
        .line(COMPLETE, &["complete 4"])
        .event(Event::Withheld, &[])
        .line(DIFF, &[])
        .event(Event::UploadsDrained, &[])
        .line(COMPLETE, &["complete 6"]);
}

#[test]
fn where_data_costs_a_stream_ends_with_the_first_line_that_may_wait() {
    let mut machine = SyncMachine::new(SyncRequest::default());
    machine.defer_above(1);
    machine.step(Event::Start(vec![]));
    let mut trace = Trace(machine);
    trace
        .line(CHECKPOINT, &["upload"])
        .line(DATA_A, &["apply a"])
        .line(PARTIAL, &["complete 4 up to 1"])
        .event(Event::Published, &[])
        .line(&DATA_A.replace("\"a\"", "\"b\""), &["apply b", "close Deferred"])
        .line(COMPLETE, &[]);
}

#[test]
fn damaged_buckets_close_the_stream() {
    let mut trace = Trace::started(&[]);
    trace
        .line(CHECKPOINT, &[])
        .line(COMPLETE, &["complete 4"])
        .event(Event::Damaged(vec!["b".into()]), &["close Damaged([\"b\"])"])
        .line(COMPLETE, &[]);
}

#[test]
fn only_a_checkpoint_may_come_first() {
    for (text, line) in [
        (DIFF, "checkpoint_diff"),
        (DATA_A, "data"),
        (COMPLETE, "checkpoint_complete"),
        (PARTIAL, "partial_checkpoint_complete"),
    ] {
        let expected = format!("close {:?}", CloseReason::Protocol(ProtocolError::BeforeCheckpoint { line }));
        Trace::started(&[]).line(text, &[&expected]);
    }
}

#[test]
fn data_that_nothing_would_verify_is_refused() {
    let mut trace = Trace::started(&[]);
    let instructions = trace.line(CHECKPOINT, &[]).0.step(Event::Line(read(&DATA_A.replace("\"a\"", "\"q\""))));
    let unknown = ProtocolError::UnknownBucket { bucket: "q".into() };
    assert_eq!(instructions, [Instruction::CloseStream(CloseReason::Protocol(unknown))]);

    let mut trace = Trace::started(&[]);
    let instructions =
        trace.line(CHECKPOINT, &[]).0.step(Event::Line(read(&DATA_A.replace(r#""object_type":"t","#, ""))));
    let incomplete = ProtocolError::IncompleteOperation { bucket: "a".into(), op_id: "1".parse().unwrap() };
    assert_eq!(instructions, [Instruction::CloseStream(CloseReason::Protocol(incomplete))]);
}

#[test]
fn a_token_is_replaced_before_it_ends_and_dropped_when_it_ended() {
    Trace::started(&[])
        .line(r#"{"token_expires_in":31}"#, &[])
        .line(r#"{"token_expires_in":30}"#, &["prefetch"])
        .line(r#"{"token_expires_in":20}"#, &[])
        .event(Event::TokenRefreshed, &["close TokenRefreshed"])
        .line(COMPLETE, &[]);
    Trace::started(&[]).line(r#"{"token_expires_in":0}"#, &["drop credentials", "close TokenExpired"]);
}

fn counts(progress: Progress) -> (u64, u64) {
    (progress.done, progress.total)
}

#[test]
fn progress_counts_operations_since_the_last_published_checkpoint() {
    let mut trace = Trace::started(&[]);
    trace.line(CHECKPOINT, &[]);
    assert_eq!(counts(trace.0.download().total()), (0, 4));
    trace.line(DATA_A, &["apply a"]);
    assert_eq!(counts(trace.0.download().total()), (2, 4));
    trace.line(COMPLETE, &["complete 4"]).event(Event::Published, &[]);
    assert_eq!(counts(trace.0.download().total()), (0, 0));
    trace.line(DIFF, &["delete b"]);
    assert_eq!(counts(trace.0.download().total()), (0, 1), "only what is new");
}

#[test]
fn progress_starts_again_when_the_service_compacted() {
    let mut machine = SyncMachine::new(SyncRequest::default());
    let counted = BucketState { name: "a".into(), count_at_last: 100, ..BucketState::default() };
    machine.step(Event::Start(vec![counted]));
    machine.step(Event::Line(read(CHECKPOINT)));
    assert_eq!(counts(machine.download().total()), (0, 4));
}

/// `a` is of the first priority and of a stream everybody gets; `b` of that and of a subscription.
#[test]
fn progress_is_told_by_priority_and_by_stream() {
    const CHECKPOINT: &str = r#"{"checkpoint":{"last_op_id":"4","buckets":[
        {"bucket":"a","checksum":10,"count":2,"priority":1,"subscriptions":[{"default":1}]},
        {"bucket":"b","checksum":20,"count":5,"priority":3,"subscriptions":[{"default":1},{"sub":0},{"sub":9}]}],
        "streams":[{"name":"unused","is_default":true},{"name":"all","is_default":true}]}}"#;
    let list = serde_json::json!({"list": "l1"}).as_object().cloned();
    let subscription = StreamSubscription { stream: "list".into(), parameters: list.clone(), override_priority: None };
    let streams = StreamSubscriptions { subscriptions: vec![subscription], ..StreamSubscriptions::default() };
    let mut machine = SyncMachine::new(SyncRequest { streams, ..SyncRequest::default() });
    let state = BucketState { name: "b".into(), count_at_last: 1, count_since_last: 1, ..BucketState::default() };
    machine.step(Event::Start(vec![state]));
    machine.step(Event::Line(read(CHECKPOINT)));
    machine.step(Event::Line(read(DATA_A)));
    let download = machine.download();
    let up_to = |priority| counts(download.up_to(priority));
    assert_eq!([up_to(0), up_to(1), up_to(2), up_to(3)], [(0, 0), (2, 2), (2, 2), (3, 6)]);
    assert_eq!(download.total(), download.up_to(3));
    assert_eq!(download.streams().len(), 2, "a reason that names nothing is passed over");
    assert_eq!(download.stream("all", None).map(counts), Some((3, 6)));
    assert_eq!(download.stream("list", list.as_ref()).map(counts), Some((1, 4)));
    assert_eq!(download.stream("list", None), None);
}
