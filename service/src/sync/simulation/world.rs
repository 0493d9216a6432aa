//! The replication of a source into a store, of which each transaction is a version, and clients of a service on it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bson::Bson;
use kairos_sync_protocol::{BucketName, Checksum, WriteCheckpointId};
use kairos_sync_rules::{LookupKey, LookupValue, SyncPlan};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::{
    client::{Completed, Device},
    source::{Change, Members, Operation, RULES, USERS, Version},
};
use crate::{
    deployment::{Deployments, Rules},
    fuzz::Random,
    lsn::Lsn,
    metrics::Metrics,
    storage::{
        Batch, BucketStore, Commit, CompactionOptions, MemoryStore, NewOperation, RowKey, RowOutput, SqliteOptions,
        SqliteStore, StraightLimits, TableId, WriteCheckpoint, WriteCheckpointKey,
    },
    sync::{
        ClientRequest, Compression, DeviceInfo, Hub, Line, LineForm, Packaging, Session, Step, SyncContext, SyncLimits,
        compression::SegmentStream, test_lookups::lookups_of,
    },
};

/// Positions of the source between two versions.
const LSN_STEP: u64 = 10;

struct Client {
    user: &'static str,
    name: String,
    device: Device,
    session: Option<Session>,
    packaging: Packaging,
    /// The last version it may have had of each priority, and of everything.
    floors: [usize; 5],
    last: Option<Completed>,
}

pub(super) struct World {
    store: Arc<dyn BucketStore>,
    hub: Arc<Hub>,
    context: Arc<SyncContext>,
    plan: Arc<SyncPlan>,
    /// All there ever was; the first one is empty.
    versions: Vec<Version>,
    /// Not yet in the store.
    changes: VecDeque<Change>,
    /// The version that the store has, and the last one that clients may see.
    stored: usize,
    visible: usize,
    /// Committed, and not yet told.
    unpublished: VecDeque<Commit>,
    /// Recorded, and not yet told.
    untold: Vec<(WriteCheckpointKey, WriteCheckpoint)>,
    /// Whether the source says write checkpoints.
    are_custom: bool,
    /// Whether operations are made fewer meanwhile.
    compacts: bool,
    /// The version in which each write checkpoint is reached.
    needs: BTreeMap<(String, u64), usize>,
    clients: Vec<Client>,
    checked: usize,
    next_data: usize,
    _shutdown: watch::Sender<bool>,
    _folder: Option<TempDir>,
}

impl World {
    pub(super) fn new(random: &mut Random) -> Self {
        let (store, folder) = store(random);
        let rules = Rules::compile("rules", RULES).expect("valid rules");
        let plan = Arc::new(rules.plan.clone());
        let deployments = Arc::new(Deployments::new(rules));
        let hub = Hub::new(None);
        let (shutdown, stopping) = watch::channel(false);
        let limits = SyncLimits {
            bucket_count_max: 100,
            fetch_concurrency_max: 1 + random.below(4),
            shared_bytes_max: *random.pick(&[0, 2_000, 1 << 20]),
            checkpoint_interval_min: Duration::ZERO,
        };
        let metrics = Arc::new(Metrics::new());
        let context = SyncContext::new(Arc::clone(&store), deployments, Arc::clone(&hub), metrics, limits, stopping);
        let compacts = random.chance(70);
        let clients = (0..2 + random.below(4)).map(|number| client(number, compacts, random)).collect();
        let mut world = Self {
            store,
            hub,
            context: Arc::new(context),
            plan,
            versions: vec![Version::default()],
            changes: VecDeque::new(),
            stored: 0,
            visible: 0,
            unpublished: VecDeque::new(),
            untold: Vec::new(),
            are_custom: random.chance(30),
            compacts,
            needs: BTreeMap::new(),
            clients,
            checked: 0,
            next_data: 0,
            _shutdown: shutdown,
            _folder: folder,
        };
        if random.chance(10) {
            // More than one line holds, and more than a checkpoint may have sent before it gives way.
            let count = 1_000 + random.below(1_500);
            world.change(random, count);
        }
        world
    }

    /// How many checkpoints were compared.
    pub(super) fn checked(&self) -> usize {
        self.checked
    }

    pub(super) async fn step(&mut self, random: &mut Random) {
        let client = random.below(self.clients.len());
        match random.below(100) {
            0..20 => {
                let count = 1 + random.below(6);
                self.change(random, count);
            }
            20..45 => self.replicate(random),
            60..65 if self.compacts => self.compact(random),
            45..65 => self.publish(),
            65..88 => {
                let lines = 1 + random.below(12);
                self.read(client, lines).await;
            }
            88..93 => self.clients[client].session = None,
            93..98 if !self.are_custom => self.request_write_checkpoint(client, random),
            98 => self.begin_anew(),
            _ => {}
        }
    }

    /// Lets everything arrive, and compares.
    pub(super) async fn settle(&mut self, random: &mut Random) {
        while self.visible + 1 < self.versions.len() || self.visible < self.stored {
            if self.changes.is_empty() {
                self.change(random, 1);
            }
            self.replicate(random);
        }
        while !self.unpublished.is_empty() || !self.untold.is_empty() {
            self.publish();
        }
        for number in 0..self.clients.len() {
            // A stream of an older generation ends, a new one does not.
            for _ in 0..3 {
                self.read(number, usize::MAX).await;
            }
            let Client { user, name, last, .. } = &self.clients[number];
            let Some(last) = last else {
                assert_eq!(self.visible, 0, "{user} got nothing");
                continue;
            };
            let newest = self.versions.last().expect("there is a first one");
            assert!(newest.shows(user, None, &last.rows), "{user} does not have the last version");
            let key = WriteCheckpointKey::of(user, Some(name)).0;
            let newest = self.needs.range((key.clone(), 0)..=(key, u64::MAX)).next_back().map(|((_, id), _)| *id);
            assert_eq!(last.write_checkpoint, newest, "the newest write checkpoint of {user}");
        }
    }

    /// A transaction on the source.
    fn change(&mut self, random: &mut Random, count: usize) {
        let last = self.versions.last().expect("there is a first one");
        let (version, mut change) = last.next(random, count, &mut self.next_data);
        if self.are_custom && random.chance(30) {
            let client = &self.clients[random.below(self.clients.len())];
            let key = WriteCheckpointKey::of(client.user, Some(&client.name));
            let id = u64::try_from(self.versions.len()).expect("few versions");
            self.needs.insert((key.0.clone(), id), self.versions.len());
            change.write_checkpoints.push((key, WriteCheckpointId::new(id).expect("small")));
        }
        self.versions.push(version);
        self.changes.push_back(change);
    }

    /// Brings a transaction, or several, into the store.
    fn replicate(&mut self, random: &mut Random) {
        let mut batch = Batch::default();
        let before = self.versions[self.stored].members.clone();
        for _ in 0..=random.below(3) {
            let Some(change) = self.changes.pop_front() else { break };
            self.stored += 1;
            let operation = |operation| self.operation(operation);
            batch.operations.extend(change.operations.into_iter().map(operation));
            batch.write_checkpoints.extend(change.write_checkpoints);
            if self.changes.is_empty() || random.chance(50) {
                batch.lookups = self.memberships(&before, &change.members);
                break;
            }
            batch.lookups = self.memberships(&before, &change.members);
        }
        let is_last = self.changes.is_empty();
        if is_last || random.chance(95) {
            batch.visible_at = Some(Lsn::new(self.stored as u64 * LSN_STEP));
            self.visible = self.stored;
        }
        self.commit(batch);
    }

    fn commit(&mut self, batch: Batch) {
        let commit = self.store.commit(batch).expect("the store works");
        self.unpublished.push_back(commit);
    }

    fn operation(&self, Operation { bucket, table, id, data }: Operation) -> NewOperation {
        let prefix = self.store.bucket_prefix().expect("the store works");
        // Any numbers will do, so that no checksum is right by chance.
        let mix = |sum: u64, byte: u8| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
        let seed = id.bytes().chain(data.iter().flat_map(|data| data.bytes())).fold(0, mix);
        NewOperation {
            output: RowOutput {
                bucket: BucketName::new(format!("{prefix}{bucket}")),
                object_type: table.into(),
                object_id: id.as_str().into(),
            },
            subkey: format!("{table}/{id}").into(),
            checksum: Checksum::from_bits(u32::try_from(Random::new(seed).next() >> 32).expect("32 bits")),
            data: data.map(Into::into),
        }
    }

    fn memberships(&self, before: &Members, after: &Members) -> Vec<(LookupKey, RowKey, Vec<LookupValue>)> {
        let changed = before.symmetric_difference(after);
        changed.flat_map(|member| self.membership(*member, after.contains(member))).collect()
    }

    /// What a row of `members` gives, as replication hands it to the store.
    fn membership(&self, (user, team): (&str, &str), is_member: bool) -> Vec<(LookupKey, RowKey, Vec<LookupValue>)> {
        let row = RowKey { table: TableId(1), identity: format!("{user}/{team}").into_bytes().into() };
        let entry = |(key, value)| (key, row.clone(), is_member.then_some(value).into_iter().collect());
        lookups_of(&self.plan, "members", &[("user_id", user), ("team", team)]).into_iter().map(entry).collect()
    }

    /// Everything is copied again under new names, as after a change of the rules.
    fn begin_anew(&mut self) {
        self.store.reset().expect("the store works");
        let version = self.versions[self.stored].clone();
        self.commit(Batch::default());
        let batch = Batch {
            operations: version.copied().into_iter().map(|operation| self.operation(operation)).collect(),
            lookups: self.memberships(&Members::new(), &version.members),
            visible_at: Some(Lsn::new(self.stored as u64 * LSN_STEP)),
            ..Batch::default()
        };
        self.visible = self.stored;
        self.commit(batch);
    }

    fn compact(&mut self, random: &mut Random) {
        for _ in 0..=random.below(6) {
            self.store.compact().expect("the store works");
        }
    }

    fn publish(&mut self) {
        if let Some(commit) = self.unpublished.pop_front() {
            self.hub.publish(&commit);
        }
        if let Some((key, stored)) = self.untold.pop() {
            self.hub.write_checkpoint_created(&key, stored);
        }
    }

    /// A client has uploaded, and asks when that has come back.
    fn request_write_checkpoint(&mut self, client: usize, random: &mut Random) {
        let Client { user, name, .. } = &self.clients[client];
        let key = WriteCheckpointKey::of(user, Some(name));
        let head = self.versions.len() - 1;
        let stored =
            self.store.put_write_checkpoint(&key, Lsn::new(head as u64 * LSN_STEP), None).expect("the store works");
        self.needs.insert((key.0.clone(), stored.id.get()), head);
        if random.chance(50) {
            self.hub.write_checkpoint_created(&key, stored);
        } else {
            // What was asked for later must not be told before.
            self.untold.insert(0, (key, stored));
        }
    }

    /// A client takes so many lines, if there are any.
    async fn read(&mut self, number: usize, lines: usize) {
        if self.clients[number].session.is_none() {
            self.connect(number).await;
        }
        for _ in 0..lines {
            let client = &mut self.clients[number];
            let Some(session) = &mut client.session else { return };
            match session.step().await.expect("the client can be served") {
                Step::Line(line) => {
                    let line = decode(&line, client.packaging);
                    if let Some(completed) = client.device.take(&line) {
                        self.check(number, completed);
                    }
                }
                Step::Idle => return,
                Step::End => client.session = None,
            }
        }
    }

    async fn connect(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let positions = client.device.connect();
        let position = |(name, after): (String, u64)| json!({"name": name, "after": after.to_string()});
        let positions: Vec<Value> = positions.into_iter().map(position).collect();
        let sync = json!({"client_id": client.name, "buckets": positions});
        let claims = json!({"sub": client.user});
        let request = ClientRequest {
            user_id: client.user.to_owned(),
            claims: claims.as_object().expect("an object").clone(),
            expires_at: SystemTime::now() + Duration::from_hours(1),
            revoked: Box::pin(std::future::pending()),
            sync: serde_json::from_value(sync).expect("a request"),
            device: DeviceInfo::default(),
        };
        let session = Session::open(Arc::clone(&self.context), request, client.packaging).await;
        client.session = Some(session.expect("the client can be served"));
    }

    /// What is complete is a state of the source, not older than what the client had, and has its uploads.
    fn check(&mut self, number: usize, completed: Completed) {
        let client = &mut self.clients[number];
        let group = completed.priority.map_or(4, |priority| usize::try_from(priority).expect("small"));
        let key = WriteCheckpointKey::of(client.user, Some(&client.name)).0;
        let needed = completed.write_checkpoint.map_or(0, |id| self.needs[&(key, id)]);
        let floor = client.floors[group].max(needed);
        let found = (floor..=self.visible)
            .find(|version| self.versions[*version].shows(client.user, completed.priority, &completed.rows));
        let Some(version) = found else {
            let older = (0..floor)
                .rfind(|version| self.versions[*version].shows(client.user, completed.priority, &completed.rows));
            panic!(
                "{} has no version from {floor} to {} at priority {:?}, but {older:?}; its uploads need {needed}",
                client.user, self.visible, completed.priority
            );
        };
        client.floors[..=group].iter_mut().for_each(|floor| *floor = version.max(*floor));
        self.checked += 1;
        if completed.priority.is_none() {
            client.last = Some(completed);
        }
    }
}

fn store(random: &mut Random) -> (Arc<dyn BucketStore>, Option<TempDir>) {
    if random.chance(70) {
        return (Arc::new(MemoryStore::new()), None);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = SqliteOptions {
        fold_operations: 20 + random.below(200),
        straight: StraightLimits { chunk_bytes: 100 + random.below(4_000), ..StraightLimits::default() },
        // When the simulation says so, which a seed repeats.
        compaction: CompactionOptions { growth_min: 5, growth_percent: 20, rewrite_percent: 50, bytes_per_second: 0 },
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(folder.path(), options).expect("a new store");
    (Arc::new(store), Some(folder))
}

fn client(number: usize, compacts: bool, random: &mut Random) -> Client {
    let form = *random.pick(&[LineForm::Json, LineForm::NestedJson, LineForm::Bson]);
    let compression = *random.pick(&[Compression::Identity, Compression::Zstd]);
    Client {
        user: random.text(&USERS),
        name: format!("device {number}"),
        device: Device::new(compacts),
        session: None,
        packaging: Packaging::new(form, compression),
        floors: [0; 5],
        last: None,
    }
}

/// A line as a client reads it, by other means than it was written.
fn decode(line: &Line, packaging: Packaging) -> Value {
    let bytes = match line {
        Line::Plain(bytes) => bytes.to_vec(),
        Line::Packed(segment) => {
            let mut stream = SegmentStream::new(packaging.compression);
            let bytes = [&stream.push(segment)[..], segment.bytes(), &stream.finish()].concat();
            if packaging.compression == Compression::Identity {
                bytes
            } else {
                zstd::decode_all(&bytes[..]).expect("a stream of zstd")
            }
        }
    };
    match packaging.form {
        LineForm::Bson => value(bson::deserialize_from_slice(&bytes).expect("a document")),
        _ => serde_json::from_slice(&bytes).expect("a line of JSON"),
    }
}

fn value(bson: Bson) -> Value {
    match bson {
        Bson::Document(members) => members.into_iter().map(|(key, member)| (key, value(member))).collect(),
        Bson::Array(elements) => elements.into_iter().map(value).collect(),
        Bson::Double(number) => format!("{number:.0}").parse::<u64>().expect("a whole number").into(),
        Bson::String(text) => text.into(),
        Bson::Boolean(truth) => truth.into(),
        Bson::Int32(number) => number.into(),
        Bson::Null => Value::Null,
        other => panic!("a type no client expects: {other:?}"),
    }
}
