//! What is left to be done for lookups that changed: the rows that asked them are to be evaluated again. Pure.
//!
//! A lookup may have any number of rows that asked it, and these may feed lookups in turn. So the work is done in parts,
//! each a store commit, and what is left is stored with each part. Clients see nothing before all is done. A row that is
//! evaluated twice is the same again, so neither order nor repetition matters.
//!
//! Lookups that changed together make a round. What a round changes makes the next, which comes before the rest of it,
//! so that no more is waiting than some parts have changed: as many as rules nest subqueries.

use kairos_sync_rules::LookupKey;
use serde::{Deserialize, Serialize};

use crate::storage::{RowKey, TableId};

/// A change may pass through as many lookups as rules nest subqueries; more rounds mean a circle.
const ROUNDS_MAX: usize = 64;

/// The rounds that are not over; the last is the one to go on with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Unsettled(Vec<Round>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Round {
    /// How many changes led to it, one from the other.
    number: usize,
    /// The last is the one to go on with.
    lookups: Vec<String>,
    /// The last row of that one that was evaluated: its table and its identity.
    after: Option<(u32, Vec<u8>)>,
}

/// Changes led from lookup to lookup without end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endless;

impl Unsettled {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lookup whose rows are to be evaluated, and the last of them that was. `None` when the round is over.
    pub(super) fn next(&self) -> Option<(LookupKey, Option<RowKey>)> {
        let round = self.0.last()?;
        let lookup = LookupKey(round.lookups.last()?.as_str().into());
        let after = round.after.as_ref();
        let row = |(table, identity): &(u32, Vec<u8>)| RowKey {
            table: TableId(*table),
            identity: identity.as_slice().into(),
        };
        Some((lookup, after.map(row)))
    }

    /// Rows of the lookup up to this one were evaluated; `None`: all of them.
    pub(super) fn advance(&mut self, last: Option<&RowKey>) {
        let Some(round) = self.0.last_mut() else { return };
        round.after = last.map(|row| (row.table.0, row.identity.to_vec()));
        if last.is_none() {
            round.lookups.pop();
        }
    }

    /// Takes in which lookups have changed since the last call, which is once a round is over, or a part full.
    pub(super) fn add(&mut self, changed: impl IntoIterator<Item = LookupKey>) -> Result<(), Endless> {
        let mut number = self.0.last().map_or(0, |round| round.number);
        // What remains of a round waits under those it brought about.
        self.0.pop_if(|round| round.lookups.is_empty());
        let lookups: Vec<_> = changed.into_iter().map(|lookup| lookup.0.to_string()).collect();
        if lookups.is_empty() {
            return Ok(());
        }
        number += 1;
        if number > ROUNDS_MAX {
            return Err(Endless);
        }
        self.0.push(Round { number, lookups, after: None });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookups(names: &[&str]) -> Vec<LookupKey> {
        names.iter().map(|name| LookupKey((*name).into())).collect()
    }

    fn next(unsettled: &Unsettled) -> Option<String> {
        unsettled.next().map(|(lookup, _)| lookup.0.to_string())
    }

    #[test]
    fn what_a_round_changes_comes_before_the_rest_of_it() {
        let row = RowKey { table: TableId(7), identity: [1, 2].into() };
        let mut unsettled = Unsettled::default();
        unsettled.add(lookups(&["a", "b"])).expect("two rounds at most");
        unsettled.advance(Some(&row));
        unsettled.add(lookups(&["c"])).expect("two rounds at most");
        assert_eq!(next(&unsettled).as_deref(), Some("c"));
        unsettled.advance(None);
        assert_eq!(next(&unsettled), None, "the round is over");
        unsettled.add([]).expect("two rounds at most");
        assert_eq!(unsettled.next(), Some((LookupKey("b".into()), Some(row))));
        unsettled.advance(None);
        assert_eq!(next(&unsettled).as_deref(), Some("a"));
        unsettled.advance(None);
        unsettled.add([]).expect("two rounds at most");
        assert!(unsettled.is_empty());
    }

    #[test]
    fn a_circle_has_an_end() {
        let mut unsettled = Unsettled::default();
        let outcome = (0..=ROUNDS_MAX).try_for_each(|_| {
            unsettled.add(lookups(&["a"]))?;
            unsettled.advance(None);
            Ok(())
        });
        assert_eq!(outcome, Err(Endless));
    }
}
