//! Who cares about a commit.
//!
//! Connections register the buckets and lookups their state depends on, and the position of the write checkpoint they
//! wait for. [`Hub::publish`] marks what changed for those concerned and wakes them.
//!
//! **Invariants**
//!
//! - Publishing costs O(what changed × who holds it), whatever the number of connections.
//! - Marks are sums, not queues: any number of commits that meet a busy connection leave one growth per bucket it holds.
//! - [`Registration::take`] says as of which published state the marks are complete: who knew the state before knows
//!   this one without reading the store, unless it must resolve again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, btree_map::Entry},
    hash::Hash,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use kairos_sync_protocol::{BucketName, WriteCheckpointId};
use kairos_sync_rules::LookupKey;
use tokio::sync::Notify;

use super::holders::HolderIndex;
use crate::{
    lsn::Lsn,
    storage::{BucketGrowth, Checkpoint, Commit, DeploymentNumber, WriteCheckpoint, WriteCheckpointKey},
};

/// The registry of connections.
#[derive(Debug)]
pub struct Hub {
    // Held for map operations only, never across a store read or an await.
    state: Mutex<State>,
}

/// Number of a connection; later ones have larger ones.
pub type ConnectionId = u64;

#[derive(Debug, Default)]
struct State {
    published: Option<Checkpoint>,
    /// The rules as of which this is so.
    serving: DeploymentNumber,
    last_id: ConnectionId,
    /// Boxed: a map has room for more than it holds.
    connections: HashMap<ConnectionId, Box<Connection>>,
    by_bucket: HolderIndex<BucketName>,
    by_lookup: HolderIndex<LookupKey>,
    by_write_key: HolderIndex<WriteCheckpointKey>,
    /// Connections which do not know yet what they depend on.
    watching_all: HashSet<ConnectionId>,
    /// Who waits for the source to pass a position, nearest first.
    awaiting: BTreeSet<(Lsn, ConnectionId)>,
}

#[derive(Debug)]
struct Connection {
    write_key: WriteCheckpointKey,
    /// In order, as are lookups.
    buckets: Box<[BucketName]>,
    lookups: Box<[LookupKey]>,
    /// Its newest write checkpoint, while the source has not passed it.
    awaiting: Option<WriteCheckpoint>,
    changes: Changes,
    /// When the first of these changes was published.
    changed_at: Option<Instant>,
    wake: Arc<Notify>,
}

/// What changed for a connection since it last looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Nothing that was known can be built upon: read everything.
    pub everything: bool,
    /// Which buckets the client gets may have changed: resolve again.
    pub resolve: bool,
    /// This write checkpoint was reached.
    pub write_checkpoint: Option<WriteCheckpointId>,
    /// These buckets got operations. In the order of their names, in which they are told.
    pub buckets: BTreeMap<BucketName, BucketGrowth>,
}

impl Changes {
    /// Read everything.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        !self.everything && !self.resolve && self.write_checkpoint.is_none() && self.buckets.is_empty()
    }

    /// Adds what `later` says.
    pub fn merge(&mut self, later: &Self) {
        self.everything |= later.everything;
        self.resolve |= later.resolve;
        self.write_checkpoint = self.write_checkpoint.max(later.write_checkpoint);
        later.buckets.values().for_each(|growth| self.grow(growth));
    }

    fn grow(&mut self, growth: &BucketGrowth) {
        match self.buckets.entry(growth.bucket.clone()) {
            Entry::Occupied(mut known) => known.get_mut().extend(&growth.added),
            Entry::Vacant(place) => {
                place.insert(growth.clone());
            }
        }
    }
}

impl Hub {
    /// A hub without connections. `published` is the store's state now, before anything is committed to it.
    pub fn new(published: Option<Checkpoint>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { published, ..State::default() }) })
    }

    /// Maps are changed in full before the lock is let go; a poisoned one still holds whole entries.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection. Until it says what it depends on, every commit concerns it.
    pub fn register(self: &Arc<Self>, write_key: WriteCheckpointKey) -> Registration {
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        let wake = Arc::new(Notify::new());
        state.by_write_key.insert(write_key.clone(), id);
        state.watching_all.insert(id);
        let connection = Connection {
            write_key,
            buckets: Box::default(),
            lookups: Box::default(),
            awaiting: None,
            changes: Changes::everything(),
            changed_at: None,
            wake: Arc::clone(&wake),
        };
        state.connections.insert(id, Box::new(connection));
        drop(state);
        Registration { hub: Arc::clone(self), id, wake }
    }

    /// Tells those concerned of a commit. Call it after the commit returned, once per commit, in order.
    pub fn publish(&self, commit: &Commit) {
        let mut state = self.lock();
        let appeared_or_vanished = state.published.is_some() != commit.checkpoint.is_some();
        state.published = commit.checkpoint;
        if appeared_or_vanished {
            state.connections.values_mut().for_each(|connection| connection.mark_everything());
            return;
        }
        if mem::replace(&mut state.serving, commit.serving) != commit.serving {
            state.connections.values_mut().for_each(|connection| connection.mark_everything());
        }
        state.mark_holders(commit);
        for (key, stored) in &commit.write_checkpoints {
            state.await_write_checkpoint_of(key, *stored);
        }
        if let Some(checkpoint) = commit.checkpoint {
            state.mark_reached(checkpoint.lsn);
        }
    }

    /// Tells the connections of `key` that this write checkpoint was stored.
    pub fn write_checkpoint_created(&self, key: &WriteCheckpointKey, stored: WriteCheckpoint) {
        self.lock().await_write_checkpoint_of(key, stored);
    }

    /// Whether a connection depends on this bucket; not while it does not know yet.
    pub fn holds(&self, id: ConnectionId, bucket: &BucketName) -> bool {
        self.lock().connections.get(&id).is_some_and(|connection| connection.buckets.binary_search(bucket).is_ok())
    }

    /// How many buckets a connection depends on; none while it does not know yet, or when it is gone.
    pub fn bucket_count(&self, id: ConnectionId) -> usize {
        self.lock().connections.get(&id).map_or(0, |connection| connection.buckets.len())
    }

    /// The latest published state.
    pub fn published(&self) -> Option<Checkpoint> {
        self.lock().published
    }
}

impl State {
    fn mark_holders(&mut self, commit: &Commit) {
        let Self { connections, by_bucket, by_lookup, watching_all, .. } = self;
        for growth in &commit.buckets {
            for id in by_bucket.of(&growth.bucket) {
                mark(connections, id, |changes| changes.grow(growth));
            }
        }
        for id in commit.emptied.iter().flat_map(|bucket| by_bucket.of(bucket)) {
            mark(connections, id, |changes| changes.everything = true);
        }
        for id in commit.lookups.iter().flat_map(|lookup| by_lookup.of(lookup)) {
            mark(connections, id, |changes| changes.resolve = true);
        }
        for id in watching_all.iter() {
            mark(connections, *id, |changes| changes.everything = true);
        }
    }

    fn mark_reached(&mut self, lsn: Lsn) {
        while let Some((waiting_for, id)) = self.awaiting.first().copied()
            && waiting_for <= lsn
        {
            self.awaiting.pop_first();
            if let Some(connection) = self.connections.get_mut(&id)
                && let Some(reached) = connection.awaiting.take()
            {
                connection.mark(|changes| changes.write_checkpoint = changes.write_checkpoint.max(Some(reached.id)));
            }
        }
    }

    fn await_write_checkpoint_of(&mut self, key: &WriteCheckpointKey, stored: WriteCheckpoint) {
        let ids: Vec<_> = self.by_write_key.of(key).collect();
        for id in ids {
            self.await_write_checkpoint(id, stored);
        }
    }

    fn await_write_checkpoint(&mut self, id: ConnectionId, stored: WriteCheckpoint) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // They may be told in another order than they were recorded in.
        if connection.awaiting.is_some_and(|known| known.id > stored.id) {
            return;
        }
        if let Some(earlier) = connection.awaiting.replace(stored) {
            self.awaiting.remove(&(earlier.lsn, id));
        }
        self.awaiting.insert((stored.lsn, id));
        if let Some(checkpoint) = self.published {
            self.mark_reached(checkpoint.lsn);
        }
    }

    fn remove(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            connection.buckets.iter().for_each(|bucket| self.by_bucket.remove(bucket, id));
            connection.lookups.iter().for_each(|lookup| self.by_lookup.remove(lookup, id));
            self.by_write_key.remove(&connection.write_key, id);
            self.watching_all.remove(&id);
            if let Some(awaited) = connection.awaiting {
                self.awaiting.remove(&(awaited.lsn, id));
            }
        }
    }
}

impl Connection {
    fn mark(&mut self, change: impl FnOnce(&mut Changes)) {
        if self.changes.is_empty() {
            self.changed_at = Some(Instant::now());
        }
        change(&mut self.changes);
        self.wake.notify_one();
    }

    fn mark_everything(&mut self) {
        self.mark(|changes| changes.everything = true);
    }
}

fn mark(connections: &mut HashMap<ConnectionId, Box<Connection>>, id: ConnectionId, change: impl FnOnce(&mut Changes)) {
    if let Some(connection) = connections.get_mut(&id) {
        connection.mark(change);
    }
}

/// Replaces the keys under which a connection is found.
fn relink<K: Hash + Ord + Clone>(
    index: &mut HolderIndex<K>,
    held: &mut Box<[K]>,
    wanted: HashSet<K>,
    id: ConnectionId,
) {
    held.iter().filter(|key| !wanted.contains(*key)).for_each(|key| index.remove(key, id));
    for key in wanted.iter().filter(|key| held.binary_search(key).is_err()) {
        index.insert(key.clone(), id);
    }
    *held = wanted.into_iter().collect();
    held.sort_unstable();
}

/// A connection's place in the hub; it leaves when dropped.
#[derive(Debug)]
pub struct Registration {
    hub: Arc<Hub>,
    id: ConnectionId,
    wake: Arc<Notify>,
}

impl Registration {
    /// Its number.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Waits until there may be changes. Changes that are already there end the wait at once.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Whether there are changes to look at.
    pub fn has_changes(&self) -> bool {
        self.hub.lock().connections.get(&self.id).is_some_and(|connection| !connection.changes.is_empty())
    }

    /// When the first of the changes that are there now was published; not for those a new connection begins with.
    pub fn changed_at(&self) -> Option<Instant> {
        self.hub.lock().connections.get(&self.id)?.changed_at
    }

    /// Takes the changes, with the published state as of which they are complete.
    pub fn take(&self) -> (Changes, Option<Checkpoint>) {
        let mut state = self.hub.lock();
        let published = state.published;
        let changes = state.connections.get_mut(&self.id).map(|connection| {
            connection.changed_at = None;
            mem::take(&mut connection.changes)
        });
        (changes.unwrap_or_default(), published)
    }

    /// From now on only these concern the connection, which read them from the state `as_of`. A commit published since
    /// may have changed one of them unnoticed, so that the connection must look again.
    pub fn watch(&self, buckets: HashSet<BucketName>, lookups: HashSet<LookupKey>, as_of: Checkpoint) {
        let mut state = self.hub.lock();
        let State { connections, by_bucket, by_lookup, watching_all, published, .. } = &mut *state;
        if let Some(connection) = connections.get_mut(&self.id) {
            relink(by_bucket, &mut connection.buckets, buckets, self.id);
            relink(by_lookup, &mut connection.lookups, lookups, self.id);
            watching_all.remove(&self.id);
            if published.is_some_and(|published| published.op_id > as_of.op_id || published.lsn > as_of.lsn) {
                connection.mark_everything();
            }
        }
    }

    /// Wakes the connection when the source has passed this write checkpoint, at once if it already has.
    pub fn await_write_checkpoint(&self, stored: WriteCheckpoint) {
        self.hub.lock().await_write_checkpoint(self.id, stored);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hub.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use kairos_sync_protocol::{Checksum, OpId};

    use super::*;
    use crate::storage::BucketTotals;

    fn growth(bucket: &str, first: u64, last: u64) -> BucketGrowth {
        let op_id = |id| OpId::new(id).unwrap();
        let checksum = (first..=last).map(|id| Checksum::from_bits(u32::try_from(id).unwrap())).sum();
        let added = BucketTotals { count: last + 1 - first, checksum, last_op_id: op_id(last) };
        BucketGrowth { bucket: BucketName::new(bucket), first_op_id: op_id(first), added }
    }

    fn commit(lsn: u64, buckets: &[&str], lookups: &[&str]) -> Commit {
        Commit {
            checkpoint: Some(Checkpoint { op_id: OpId::new(lsn).unwrap(), lsn: Lsn::new(lsn) }),
            buckets: buckets.iter().map(|name| growth(name, lsn, lsn)).collect(),
            emptied: vec![],
            lookups: lookups.iter().map(|name| LookupKey((*name).into())).collect(),
            write_checkpoints: vec![],
            serving: DeploymentNumber::default(),
        }
    }

    fn watching(hub: &Arc<Hub>, user: &str, buckets: &[&str], lookups: &[&str]) -> Registration {
        let registration = hub.register(WriteCheckpointKey(user.into()));
        registration.take();
        let Commit { checkpoint, buckets, lookups, .. } = commit(0, buckets, lookups);
        let buckets = buckets.into_iter().map(|growth| growth.bucket).collect();
        registration.watch(buckets, lookups.into_iter().collect(), checkpoint.unwrap());
        registration
    }

    fn hub() -> Arc<Hub> {
        Hub::new(commit(0, &[], &[]).checkpoint)
    }

    #[test]
    fn the_first_of_several_changes_says_since_when_a_connection_is_behind() {
        let hub = hub();
        let anna = watching(&hub, "anna", &["a"], &[]);
        assert_eq!(anna.changed_at(), None);
        hub.publish(&commit(1, &["a"], &[]));
        let first = anna.changed_at();
        assert!(first.is_some());
        hub.publish(&commit(2, &["a"], &[]));
        assert_eq!(anna.changed_at(), first);
        anna.take();
        assert_eq!(anna.changed_at(), None);
    }

    #[test]
    fn a_commit_concerns_only_those_who_hold_something_of_it() {
        let hub = hub();
        let anna = watching(&hub, "anna", &["a", "shared"], &["x"]);
        let ben = watching(&hub, "ben", &["b", "shared"], &["y"]);
        hub.publish(&commit(1, &["a"], &[]));
        assert_eq!(anna.take().0.buckets, BTreeMap::from([(BucketName::new("a"), growth("a", 1, 1))]));
        assert!(!ben.has_changes());
        hub.publish(&commit(2, &[], &["y"]));
        assert!(!anna.has_changes());
        assert!(ben.take().0.resolve);
        hub.publish(&commit(3, &["shared"], &[]));
        assert!(anna.has_changes() && ben.has_changes());
    }

    #[test]
    fn marks_are_complete_as_of_the_published_state() {
        let hub = hub();
        let anna = watching(&hub, "anna", &["a", "b"], &[]);
        hub.publish(&commit(1, &["a"], &[]));
        hub.publish(&commit(2, &["b", "a"], &[]));
        let (changes, published) = anna.take();
        let grown = [growth("a", 1, 2), growth("b", 2, 2)];
        assert_eq!(changes.buckets, grown.map(|growth| (growth.bucket.clone(), growth)).into(), "summed per bucket");
        assert_eq!(published.map(|checkpoint| checkpoint.lsn), Some(Lsn::new(2)));
        assert!(anna.take().0.is_empty());
    }

    #[test]
    fn before_it_knows_its_buckets_everything_concerns_a_connection() {
        let hub = hub();
        let anna = hub.register(WriteCheckpointKey("anna".into()));
        anna.take();
        hub.publish(&commit(1, &["unknown"], &[]));
        assert!(anna.take().0.everything);
        anna.watch(HashSet::new(), HashSet::new(), hub.published().unwrap());
        hub.publish(&commit(2, &["unknown"], &[]));
        assert!(!anna.has_changes());
    }

    #[test]
    fn a_commit_published_while_a_connection_learns_its_buckets_is_not_missed() {
        let hub = hub();
        let anna = watching(&hub, "anna", &["a"], &[]);
        let (_, as_of) = anna.take();
        hub.publish(&commit(1, &["new"], &[]));
        assert!(!anna.has_changes(), "it does not watch the bucket yet");
        anna.watch(HashSet::from([BucketName::new("new")]), HashSet::new(), as_of.unwrap());
        assert!(anna.take().0.everything);
    }

    #[test]
    fn a_write_checkpoint_wakes_its_client_when_the_source_has_passed_it() {
        let hub = hub();
        let anna = watching(&hub, "anna", &[], &[]);
        let ben = watching(&hub, "ben", &[], &[]);
        let stored = |id| WriteCheckpoint { id: WriteCheckpointId::new(id).unwrap(), lsn: Lsn::new(5) };
        hub.write_checkpoint_created(&WriteCheckpointKey("anna".into()), stored(1));
        hub.publish(&commit(4, &[], &[]));
        assert!(!anna.has_changes());
        hub.publish(&commit(5, &[], &[]));
        assert_eq!(anna.take().0.write_checkpoint, Some(stored(1).id));
        assert!(!ben.has_changes());
        anna.await_write_checkpoint(stored(2));
        assert_eq!(anna.take().0.write_checkpoint, Some(stored(2).id), "already passed");
    }

    #[test]
    fn a_write_checkpoint_that_is_told_late_does_not_hide_a_later_one() {
        let hub = hub();
        let anna = watching(&hub, "anna", &[], &[]);
        let key = WriteCheckpointKey("anna".into());
        let one = WriteCheckpointId::ZERO.next();
        let [early, late] = [(one, 5), (one.next(), 6)].map(|(id, lsn)| WriteCheckpoint { id, lsn: Lsn::new(lsn) });
        hub.write_checkpoint_created(&key, late);
        hub.write_checkpoint_created(&key, early);
        hub.publish(&commit(6, &[], &[]));
        hub.write_checkpoint_created(&key, early);
        assert_eq!(anna.take().0.write_checkpoint, Some(late.id));
    }

    #[test]
    fn a_write_checkpoint_of_a_commit_is_reached_with_it() {
        let hub = hub();
        let (anna, ben) = (watching(&hub, "anna", &[], &[]), watching(&hub, "ben", &[], &[]));
        let reached = WriteCheckpoint { id: WriteCheckpointId::ZERO.next(), lsn: Lsn::ZERO };
        let write_checkpoints = vec![(WriteCheckpointKey("anna".into()), reached)];
        hub.publish(&Commit { write_checkpoints, ..commit(5, &[], &[]) });
        assert_eq!(anna.take().0.write_checkpoint, Some(reached.id));
        assert!(!ben.has_changes());
    }

    #[test]
    fn a_vanished_state_concerns_everybody() {
        let hub = hub();
        let anna = watching(&hub, "anna", &[], &[]);
        let hidden = Commit { checkpoint: None, ..commit(1, &[], &[]) };
        hub.publish(&hidden);
        assert!(anna.take().0.everything);
        hub.publish(&hidden);
        assert!(!anna.has_changes(), "a snapshot's commits are not visible to anybody");
    }

    #[test]
    fn other_rules_concern_everybody() {
        let hub = hub();
        let anna = watching(&hub, "anna", &[], &[]);
        let deployed = |lsn| Commit { serving: DeploymentNumber(1), ..commit(lsn, &[], &[]) };
        hub.publish(&deployed(1));
        assert!(anna.take().0.everything);
        hub.publish(&deployed(2));
        assert!(!anna.has_changes());
    }

    #[test]
    fn who_left_leaves_nothing_behind() {
        let hub = hub();
        let anna = watching(&hub, "anna", &["a"], &["x"]);
        anna.await_write_checkpoint(WriteCheckpoint { id: WriteCheckpointId::ZERO.next(), lsn: Lsn::new(9) });
        drop(anna);
        let state = hub.lock();
        assert!(state.connections.is_empty() && state.by_bucket.is_empty() && state.by_lookup.is_empty());
        assert!(state.by_write_key.is_empty() && state.awaiting.is_empty() && state.watching_all.is_empty());
    }
}
