//! Which description of a table the source goes by, while transactions are put together.
//!
//! The source describes a table once and then relies on it. It also describes tables inside parts of transactions, which
//! are applied much later than they were sent; by then another description may have come and be the one in force. So
//! descriptions are remembered in the order they were received, and put right after each streamed transaction.
//!
//! Pure.

use std::collections::HashMap;

use crate::postgres::pgoutput::Relation;

/// Descriptions received while some streamed transaction is open.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    received: HashMap<Place, (u64, Relation)>,
    clock: u64,
}

/// Whose description of which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    oid: u32,
    /// The open transaction; `None` for what is in force.
    transaction: Option<u32>,
}

impl Descriptions {
    /// Outside of streamed transactions: it is in force.
    pub(super) fn received(&mut self, relation: Relation) {
        self.put(None, relation);
    }

    /// Inside of one: it is in force if the transaction commits and nothing newer is.
    pub(super) fn received_in(&mut self, transaction: u32, relation: Relation) {
        self.put(Some(transaction), relation);
    }

    fn put(&mut self, transaction: Option<u32>, relation: Relation) {
        self.clock += 1;
        self.received.insert(Place { oid: relation.oid, transaction }, (self.clock, relation));
    }

    /// A streamed transaction has committed: descriptions that are in force again once it has been applied.
    pub(super) fn commit(&mut self, transaction: u32) -> Vec<Relation> {
        let mut again = Vec::new();
        for (oid, description) in self.take(transaction) {
            let in_force = Place { oid, transaction: None };
            match self.received.get(&in_force) {
                Some((at, newer)) if *at > description.0 => again.push(newer.clone()),
                _ => drop(self.received.insert(in_force, description)),
            }
        }
        again
    }

    /// A streamed transaction was rolled back.
    pub(super) fn abort(&mut self, transaction: u32) {
        self.take(transaction);
    }

    /// No streamed transaction is open.
    pub(super) fn clear(&mut self) {
        self.received.clear();
    }

    fn take(&mut self, transaction: u32) -> Vec<(u32, (u64, Relation))> {
        let places: Vec<_> =
            self.received.keys().filter(|place| place.transaction == Some(transaction)).copied().collect();
        places.into_iter().filter_map(|place| Some((place.oid, self.received.remove(&place)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::pgoutput::IdentitySetting;

    fn relation(oid: u32, name: &str) -> Relation {
        let (schema, name) = ("public".to_owned(), name.to_owned());
        Relation { oid, schema, name, identity: IdentitySetting::Default, columns: vec![] }
    }

    #[test]
    fn what_was_received_last_is_in_force() {
        let mut descriptions = Descriptions::default();
        descriptions.received_in(1, relation(5, "old"));
        descriptions.received_in(1, relation(6, "only"));
        descriptions.received(relation(5, "new"));
        descriptions.received_in(2, relation(5, "newest"));
        descriptions.received_in(3, relation(5, "never"));
        descriptions.abort(3);
        assert_eq!(descriptions.commit(2), [], "it is the newest itself");
        assert_eq!(descriptions.commit(1), [relation(5, "newest")], "the other table was described by nobody else");
    }
}
