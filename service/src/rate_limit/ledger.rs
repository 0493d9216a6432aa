//! Accounts that fill steadily (GCRA): per account the time at which it is full again, and nothing else. Pure.

use std::{collections::HashMap, num::NonZeroU32, time::Duration};

/// What an account holds is for so long.
const PERIOD: Duration = Duration::from_mins(1);
/// Accounts that are not full, at most: as many as fit into a table of 1.6 MB.
const ACCOUNT_COUNT_MAX: usize = 57_344;
/// Least time between two searches for accounts that are full again, each of which looks at all.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// The account that all share for whom there is no place.
const SHARED: u64 = 0;

/// Accounts by number. Times are since some beginning.
pub(super) struct Ledger {
    full_at: HashMap<u64, Duration>,
    next_search: Duration,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { full_at: HashMap::new(), next_search: Duration::ZERO }
    }

    /// Takes `count` from an account, which may overdraw it.
    ///
    /// # Errors
    /// How long until there is one in it, if there is none now.
    pub(super) fn take(
        &mut self,
        account: u64,
        per_minute: NonZeroU32,
        count: u32,
        now: Duration,
    ) -> Result<(), Duration> {
        let account = self.place(account, now);
        let one = PERIOD / per_minute.get();
        let missing = self.full_at.get(&account).map_or(Duration::ZERO, |full_at| full_at.saturating_sub(now));
        let missing_max = PERIOD.saturating_sub(one);
        let wait = missing.saturating_sub(missing_max);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        if count > 0 {
            self.full_at.insert(account, now + missing + one.saturating_mul(count));
        }
        Ok(())
    }

    /// The account itself where there is a place for it.
    fn place(&mut self, account: u64, now: Duration) -> u64 {
        let has_place = |full_at: &HashMap<u64, Duration>| full_at.len() < ACCOUNT_COUNT_MAX;
        if has_place(&self.full_at) || self.full_at.contains_key(&account) {
            return account;
        }
        if now >= self.next_search {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.next_search = now + SEARCH_INTERVAL;
        }
        if has_place(&self.full_at) { account } else { SHARED }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_minutes_worth_at_once_and_then_steadily() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.take(7, TWO, 1, at(0)), Ok(()));
        assert_eq!(ledger.take(7, TWO, 1, at(0)), Ok(()));
        assert_eq!(ledger.take(7, TWO, 1, at(10)), Err(at(20)));
        assert_eq!(ledger.take(7, TWO, 1, at(30)), Ok(()));
        assert_eq!(ledger.take(7, TWO, 1, at(31)), Err(at(29)));
        assert_eq!(ledger.take(8, TWO, 1, at(31)), Ok(()), "another account");
        assert_eq!(ledger.take(7, TWO, 2, at(1000)), Ok(()), "it never holds more than a minute's worth");
        assert_eq!(ledger.take(7, TWO, 1, at(1000)), Err(at(30)));
    }

    #[test]
    fn what_is_larger_than_the_account_is_let_through_once_and_made_up_for() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.take(7, TWO, 10, at(0)), Ok(()));
        assert_eq!(ledger.take(7, TWO, 0, at(100)), Err(at(170)));
        assert_eq!(ledger.take(7, TWO, 10, at(270)), Ok(()));
    }

    #[test]
    fn a_look_takes_nothing() {
        let mut ledger = Ledger::new();
        for _ in 0..10 {
            assert_eq!(ledger.take(7, TWO, 0, at(0)), Ok(()));
        }
        assert!(ledger.full_at.is_empty());
    }

    #[test]
    fn accounts_are_bounded_and_those_that_are_full_make_place() {
        let mut ledger = Ledger::new();
        let max = ACCOUNT_COUNT_MAX as u64;
        for account in 1..=max {
            assert_eq!(ledger.take(account, TWO, 1, at(0)), Ok(()));
        }
        // Two more for all others together.
        assert_eq!(ledger.take(max + 1, TWO, 1, at(1)), Ok(()));
        assert_eq!(ledger.take(max + 2, TWO, 1, at(1)), Ok(()));
        assert_eq!(ledger.take(max + 3, TWO, 1, at(1)), Err(at(30)));
        assert_eq!(ledger.take(1, TWO, 1, at(1)), Ok(()), "who has an account keeps it");
        assert_eq!(ledger.full_at.len(), ACCOUNT_COUNT_MAX + 1);
        assert_eq!(ledger.take(max + 3, TWO, 1, at(31)), Ok(()));
        assert_eq!(ledger.full_at.len(), 3, "those that are not full, and the new one");
    }

    proptest! {
        /// Counted another way: in each span of time no more is let through than a minute's worth and what fills meanwhile.
        #[test]
        fn no_span_of_time_lets_through_more(per_minute in 1_u32..200, pauses in prop::collection::vec(0_u64..3_000, 1..300)) {
            let mut ledger = Ledger::new();
            let (mut now, mut passed) = (0, Vec::new());
            for pause in pauses {
                now += pause;
                let rate = NonZeroU32::new(per_minute).unwrap();
                if ledger.take(1, rate, 1, Duration::from_millis(now)).is_ok() {
                    passed.push(now);
                }
            }
            for (first, begin) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let most = u64::from(per_minute) * (60_000 + end - begin) / 60_000;
                    // What a minute is divided into is cut to whole nanoseconds.
                    prop_assert!((last - first) as u64 <= most, "{} from {begin} to {end}", last - first + 1);
                }
            }
        }
    }
}
