//! Which connections hold what.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::Hash,
};

use super::hub::ConnectionId;

/// The holders of each of many things.
#[derive(Debug)]
pub(super) struct HolderIndex<K>(HashMap<K, Holders>);

/// There are as many of most things as there are clients, so what one holds alone takes no set.
#[derive(Debug)]
enum Holders {
    One(ConnectionId),
    // Boxed, so that the others stay small.
    #[allow(clippy::box_collection)]
    Many(Box<HashSet<ConnectionId>>),
}

impl<K> Default for HolderIndex<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> HolderIndex<K> {
    /// Who holds this.
    pub(super) fn of(&self, key: &K) -> impl Iterator<Item = ConnectionId> {
        let (one, many) = match self.0.get(key) {
            Some(Holders::One(id)) => (Some(*id), None),
            Some(Holders::Many(ids)) => (None, Some(ids)),
            None => (None, None),
        };
        one.into_iter().chain(many.into_iter().flat_map(|ids| ids.iter().copied()))
    }

    /// The connection holds this from now on.
    pub(super) fn insert(&mut self, key: K, id: ConnectionId) {
        match self.0.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Holders::One(id));
            }
            Entry::Occupied(mut place) => match place.get_mut() {
                Holders::One(first) if *first == id => {}
                Holders::One(first) => *place.get_mut() = Holders::Many(Box::new(HashSet::from([*first, id]))),
                Holders::Many(ids) => {
                    ids.insert(id);
                }
            },
        }
    }

    /// The connection does not hold this any more. What nobody holds takes no memory.
    pub(super) fn remove(&mut self, key: &K, id: ConnectionId) {
        let is_left = match self.0.get_mut(key) {
            Some(Holders::One(held_by)) => *held_by == id,
            Some(Holders::Many(ids)) => {
                ids.remove(&id);
                ids.is_empty()
            }
            None => false,
        };
        if is_left {
            self.0.remove(key);
        }
    }
}

#[cfg(test)]
impl<K> HolderIndex<K> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holders_are_those_of_a_plain_map(steps in prop::collection::vec((any::<bool>(), 0..3_u8, 0..4_u64), 0..60)) {
            let (mut index, mut plain) = (HolderIndex::default(), BTreeMap::<u8, BTreeSet<u64>>::new());
            for (is_insert, key, id) in steps {
                if is_insert {
                    index.insert(key, id);
                    plain.entry(key).or_default().insert(id);
                } else {
                    index.remove(&key, id);
                    plain.entry(key).or_default().remove(&id);
                }
                plain.retain(|_, ids| !ids.is_empty());
                for key in 0..3 {
                    prop_assert_eq!(index.of(&key).collect::<BTreeSet<_>>(), plain.get(&key).cloned().unwrap_or_default());
                }
                prop_assert_eq!(index.0.len(), plain.len());
            }
        }
    }
}
