use kairos_sync_protocol::Checksum;
use proptest::prelude::*;

use super::*;

fn op_id(id: u64) -> OpId {
    OpId::new(id).unwrap()
}

fn bucket(name: &str, priority: u8, last_op_id: u64) -> ObservedBucket {
    let checksum = Checksum::from_bits(u32::try_from(last_op_id).unwrap());
    ObservedBucket {
        name: BucketName::new(name),
        totals: Some(BucketTotals { count: last_op_id, checksum, last_op_id: op_id(last_op_id) }),
        priority,
        reasons: vec![SubscriptionReason::Default(0)],
    }
}

fn all(at: u64, buckets: Vec<ObservedBucket>) -> Observation {
    Observation { op_id: op_id(at), write_checkpoint: None, buckets: ObservedBuckets::All(buckets, vec![]) }
}

fn growth(name: &str, first: u64, last: u64) -> BucketGrowth {
    let checksum = (first..=last).map(checksum_of).sum();
    let added = BucketTotals { count: last + 1 - first, checksum, last_op_id: op_id(last) };
    BucketGrowth { bucket: BucketName::new(name), first_op_id: op_id(first), added }
}

fn grown(at: u64, growths: Vec<BucketGrowth>) -> Observation {
    Observation { op_id: op_id(at), write_checkpoint: None, buckets: ObservedBuckets::Grown(growths) }
}

/// Sends all that is pending, one fetch per bucket; the kinds of lines and names of buckets in order.
fn drain(state: &mut CheckpointState) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some(step) = state.next_step() {
        steps.push(match step {
            NextStep::Fetch(BucketRange { bucket, after, upto }) => {
                state.sent(&bucket, upto, false, OpId::ZERO);
                format!("{bucket} {after}..{upto}")
            }
            NextStep::Line(SyncLine::PartialCheckpointComplete(line)) => format!("partial {}", line.priority),
            NextStep::Line(SyncLine::CheckpointComplete(line)) => format!("complete {}", line.last_op_id),
            NextStep::Line(line) => panic!("unexpected {line:?}"),
        });
    }
    steps
}

#[test]
fn data_comes_by_priority_and_the_last_group_completes_the_checkpoint() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(9, vec![bucket("a", 3, 9), bucket("b", 0, 8), bucket("c", 1, 7), bucket("d", 2, 0)]));
    assert_eq!(drain(&mut state), ["b 0..8", "partial 0", "c 0..7", "partial 1", "a 0..9", "complete 9"]);
}

#[test]
fn priority_zero_is_partially_complete_even_where_nothing_follows() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(9, vec![bucket("a", 0, 9), bucket("b", 0, 8), bucket("c", 1, 0)]));
    assert_eq!(drain(&mut state), ["a 0..9", "b 0..8", "partial 0", "complete 9"]);
    state.advance(grown(10, vec![growth("b", 10, 10)]));
    assert_eq!(drain(&mut state), ["b 8..10", "partial 0", "complete 10"]);
}

#[test]
fn a_client_that_has_everything_gets_no_data() {
    let mut state = CheckpointState::new(HashMap::from([(BucketName::new("a"), op_id(9))]));
    assert!(matches!(state.advance(all(9, vec![bucket("a", 3, 9)])), Some(SyncLine::Checkpoint(_))));
    assert_eq!(drain(&mut state), ["complete 9"]);
}

#[test]
fn nothing_is_said_when_nothing_changed_though_the_store_moved_on() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(9, vec![bucket("a", 3, 9)]));
    drain(&mut state);
    assert_eq!(state.advance(all(12, vec![bucket("a", 3, 9)])), None);
    assert_eq!(drain(&mut state), [""; 0]);
}

#[test]
fn every_diff_repeats_the_write_checkpoint() {
    let mut state = CheckpointState::new(HashMap::new());
    let write_checkpoint = WriteCheckpointId::new(4).ok();
    state.advance(Observation { write_checkpoint, ..all(1, vec![bucket("a", 3, 1)]) });
    let later = Observation { write_checkpoint, ..all(2, vec![bucket("a", 3, 2)]) };
    let Some(SyncLine::CheckpointDiff(diff)) = state.advance(later) else { panic!("no diff") };
    assert_eq!(diff.write_checkpoint, write_checkpoint);
}

#[test]
fn a_new_write_checkpoint_alone_makes_a_diff_that_completes_at_once() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(1, vec![]));
    drain(&mut state);
    let observation = Observation {
        op_id: op_id(1),
        write_checkpoint: WriteCheckpointId::new(1).ok(),
        buckets: ObservedBuckets::Grown(vec![]),
    };
    assert!(matches!(state.advance(observation), Some(SyncLine::CheckpointDiff(_))));
    assert_eq!(drain(&mut state), ["complete 1"]);
}

#[test]
fn a_superseded_checkpoint_continues_where_it_stopped() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(9, vec![bucket("a", 3, 9), bucket("b", 3, 5)]));
    let step = state.next_step();
    assert_eq!(
        step,
        Some(NextStep::Fetch(BucketRange { bucket: BucketName::new("a"), after: op_id(0), upto: op_id(9) }))
    );
    state.sent(&BucketName::new("a"), op_id(4), true, OpId::ZERO);
    state.advance(grown(12, vec![growth("b", 10, 12)]));
    assert_eq!(drain(&mut state), ["a 4..9", "b 0..12", "complete 12"]);
}

#[test]
fn what_later_operations_replaced_is_complete_only_with_them() {
    let mut state = CheckpointState::new(HashMap::new());
    let a = BucketName::new("a");
    state.advance(all(9, vec![bucket("a", 1, 9), bucket("b", 3, 5)]));
    state.next_step();
    state.sent(&a, op_id(4), true, op_id(9));
    assert!(!state.is_outdated(), "the state has what came in place");
    state.sent(&a, op_id(9), false, op_id(12));
    assert_eq!((state.is_outdated(), state.next_step()), (true, None), "not even partially");
    state.advance(grown(11, vec![growth("a", 10, 11)]));
    assert_eq!(state.next_step(), None, "still a state without it");
    state.advance(grown(12, vec![growth("a", 12, 12)]));
    assert_eq!(drain(&mut state), ["a 9..12", "partial 1", "b 0..5", "complete 12"]);
}

#[test]
fn a_range_that_is_gone_is_sent_again_as_what_replaced_it() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(9, vec![bucket("a", 3, 9)]));
    state.next_step();
    state.sent(&BucketName::new("a"), op_id(4), true, OpId::ZERO);
    state.sent(&BucketName::new("a"), op_id(0), false, op_id(12));
    state.advance(grown(12, vec![growth("a", 10, 12)]));
    assert_eq!(drain(&mut state), ["a 4..12", "complete 12"]);
}

#[test]
fn a_bucket_that_leaves_no_longer_keeps_a_state_from_being_complete() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(9, vec![bucket("a", 3, 9), bucket("b", 3, 5)]));
    state.next_step();
    state.sent(&BucketName::new("a"), op_id(9), false, op_id(12));
    state.advance(all(10, vec![bucket("b", 3, 5)]));
    assert_eq!(drain(&mut state), ["b 0..5", "complete 10"]);
}

#[test]
fn fewer_operations_with_the_same_sum_are_not_told() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(9, vec![bucket("a", 3, 9)]));
    drain(&mut state);
    let mut compacted = bucket("a", 3, 9);
    compacted.totals.as_mut().unwrap().count = 2;
    assert_eq!(state.advance(all(9, vec![compacted])), None);
    let Some(SyncLine::CheckpointDiff(diff)) = state.advance(grown(10, vec![growth("a", 10, 10)])) else {
        panic!("it has grown")
    };
    assert_eq!(diff.updated_buckets[0].count, 3, "told with the next change");
}

#[test]
fn a_growth_that_was_partly_seen_does_not_continue() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(9, vec![bucket("a", 3, 9)]));
    drain(&mut state);
    assert!(state.continues(&growth("a", 10, 12)) && state.continues(&growth("a", 8, 9)));
    assert!(!state.continues(&growth("a", 9, 10)));
    assert!(state.continues(&growth("unknown", 1, 9)), "it is nothing to this client");
    assert_eq!(state.advance(grown(9, vec![growth("a", 8, 9), growth("unknown", 1, 9)])), None, "all seen");
}

#[test]
fn the_announced_state_never_goes_back() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(12, vec![bucket("a", 3, 12)]));
    drain(&mut state);
    let observation = Observation { write_checkpoint: WriteCheckpointId::new(1).ok(), ..grown(9, vec![]) };
    assert!(state.advance(observation).is_some());
    assert_eq!(drain(&mut state), ["complete 12"]);
}

#[test]
fn a_bucket_that_returns_starts_anew() {
    let mut state = CheckpointState::new(HashMap::new());
    state.advance(all(9, vec![bucket("a", 3, 9)]));
    drain(&mut state);
    let Some(SyncLine::CheckpointDiff(diff)) = state.advance(all(9, vec![])) else { panic!("no diff") };
    assert_eq!(diff.removed_buckets, ["a"]);
    drain(&mut state);
    state.advance(all(9, vec![bucket("a", 3, 9)]));
    assert_eq!(drain(&mut state), ["a 0..9", "complete 9"]);
}

/// A store of nothing but op ids per bucket, and a client that knows only the lines.
#[derive(Debug, Default)]
struct Model {
    buckets: BTreeMap<&'static str, Vec<u64>>,
    visible: BTreeSet<&'static str>,
    op_id: u64,
    /// What the hub marked since the marks were taken.
    marks: BTreeMap<&'static str, BucketGrowth>,
    /// `visible` when it was last resolved.
    resolved: BTreeSet<&'static str>,
}

#[derive(Debug, Default)]
struct Client {
    announced: BTreeMap<String, (u64, u32)>,
    has: BTreeMap<String, Vec<u64>>,
    complete_at: Option<u64>,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Action {
    Append(usize),
    Toggle(usize),
    /// Reads the store, with marks of commits it shows still to come or not.
    Read {
        marks_follow: bool,
    },
    /// Builds upon what is known, where that can be done.
    Build,
    Send {
        limit: usize,
    },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..NAMES.len()).prop_map(Action::Append),
        1 => (0..NAMES.len()).prop_map(Action::Toggle),
        1 => any::<bool>().prop_map(|marks_follow| Action::Read { marks_follow }),
        2 => Just(Action::Build),
        4 => (1..4_usize).prop_map(|limit| Action::Send { limit }),
    ]
}

impl Model {
    fn totals(&self, name: &str) -> BucketTotals {
        let ops = self.buckets.get(name).cloned().unwrap_or_default();
        BucketTotals {
            count: ops.len() as u64,
            checksum: ops.iter().map(|id| checksum_of(*id)).sum(),
            last_op_id: op_id(ops.last().copied().unwrap_or(0)),
        }
    }

    fn append(&mut self, name: &'static str) {
        self.op_id += 1;
        self.buckets.entry(name).or_default().push(self.op_id);
        let added = growth(name, self.op_id, self.op_id);
        self.marks.entry(name).and_modify(|known| known.extend(&added.added)).or_insert(added);
    }

    /// Reads; totals of buckets that are held and not marked are taken as known where marks are complete.
    fn read(&mut self, state: &CheckpointState, marks_follow: bool) -> Observation {
        self.resolved.clone_from(&self.visible);
        let marks = if marks_follow { BTreeMap::new() } else { mem::take(&mut self.marks) };
        let is_known = |name: &str| !marks_follow && state.holds(&BucketName::new(name)) && !marks.contains_key(name);
        let buckets = self.visible.iter().map(|name| ObservedBucket {
            name: BucketName::new(*name),
            totals: (!is_known(name)).then(|| self.totals(name)),
            priority: u8::from(*name > "b"),
            reasons: vec![SubscriptionReason::Default(0)],
        });
        all(self.op_id, buckets.collect())
    }
}

impl Model {
    fn build(&mut self, state: &CheckpointState) -> Observation {
        let growths: Vec<_> = mem::take(&mut self.marks).into_values().collect();
        let builds = state.is_announced()
            && self.resolved == self.visible
            && growths.iter().all(|growth| state.continues(growth));
        if builds { grown(self.op_id, growths) } else { self.read(state, true) }
    }
}

fn checksum_of(id: u64) -> Checksum {
    Checksum::from_bits(u32::try_from(id).unwrap().wrapping_mul(2_654_435_761))
}

impl Client {
    fn receive(&mut self, line: SyncLine) {
        let (buckets, removed) = match line {
            SyncLine::Checkpoint(line) => {
                assert!(self.announced.is_empty() && self.complete_at.is_none(), "only the first line");
                (line.buckets, Vec::new())
            }
            SyncLine::CheckpointDiff(line) => (line.updated_buckets, line.removed_buckets),
            SyncLine::CheckpointComplete(line) => return self.complete(line.last_op_id.get()),
            SyncLine::PartialCheckpointComplete(_) => return,
            line => panic!("unexpected {line:?}"),
        };
        for name in removed {
            self.announced.remove(&name);
            self.has.remove(&name);
        }
        for bucket in buckets {
            self.announced.insert(bucket.bucket, (bucket.count, bucket.checksum.bits()));
        }
    }

    /// What a client checks before it shows anything.
    fn complete(&mut self, at: u64) {
        for (name, announced) in &self.announced {
            let ops = self.has.get(name).cloned().unwrap_or_default();
            let sum: Checksum = ops.iter().map(|id| checksum_of(*id)).sum();
            assert_eq!(*announced, (ops.len() as u64, sum.bits()), "bucket {name}");
        }
        self.complete_at = Some(at);
    }
}

/// One step of the connection, with chunks of at most `limit` operations.
fn send(model: &Model, state: &mut CheckpointState, client: &mut Client, limit: usize) -> bool {
    match state.next_step() {
        None => return false,
        Some(NextStep::Line(line)) => client.receive(line),
        Some(NextStep::Fetch(BucketRange { bucket, after, upto })) => {
            let ops = model.buckets.get(bucket.as_str()).cloned().unwrap_or_default();
            let ops: Vec<u64> = ops.into_iter().filter(|id| *id > after.get() && *id <= upto.get()).collect();
            let chunk = &ops[..ops.len().min(limit)];
            let has = client.has.entry(bucket.as_str().to_owned()).or_default();
            assert!(has.last() < chunk.first(), "an operation is sent twice, or out of order");
            has.extend(chunk);
            let last = op_id(*chunk.last().expect("pending buckets have operations"));
            state.sent(&bucket, last, ops.len() > limit, OpId::ZERO);
        }
    }
    true
}

proptest! {
    #[test]
    fn applying_the_lines_gives_the_store(actions in prop::collection::vec(action(), 0..80)) {
        let mut model = Model { visible: NAMES.into_iter().collect(), ..Model::default() };
        let mut state = CheckpointState::new(HashMap::new());
        let mut client = Client::default();
        for action in actions.into_iter().chain([Action::Build]) {
            match action {
                Action::Append(index) => model.append(NAMES[index]),
                Action::Toggle(index) => {
                    if !model.visible.remove(NAMES[index]) {
                        model.visible.insert(NAMES[index]);
                    }
                }
                Action::Read { marks_follow } => {
                    state.advance(model.read(&state, marks_follow)).into_iter().for_each(|line| client.receive(line));
                }
                Action::Build => {
                    state.advance(model.build(&state)).into_iter().for_each(|line| client.receive(line));
                }
                Action::Send { limit } => {
                    send(&model, &mut state, &mut client, limit);
                }
            }
        }
        while send(&model, &mut state, &mut client, 2) {}
        prop_assert!(client.complete_at.is_some());
        let held: Vec<&str> = client.announced.keys().map(String::as_str).collect();
        prop_assert_eq!(held, model.visible.iter().copied().collect::<Vec<_>>());
        for name in &model.visible {
            let has = client.has.get(*name).cloned().unwrap_or_default();
            prop_assert_eq!(has, model.buckets.get(name).cloned().unwrap_or_default());
        }
    }
}
