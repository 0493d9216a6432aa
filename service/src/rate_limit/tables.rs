//! How much a user may write to a table in a minute, where the table's write rule says so.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::ledger::Ledger;

/// Minutes' worth that one upload takes at most, and so the longest anybody waits: a device that brings what it did in
/// a year must not be kept from writing for as long.
const MINUTES_MAX: u32 = 10;

/// Writes of one upload to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableWrites<'a> {
    /// As its write rule is called.
    pub table: &'a str,
    /// How many a user may make.
    pub per_minute: NonZeroU32,
    /// How many there are.
    pub count: u32,
}

/// A table that takes no more of a user's writes for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLimited {
    /// As its write rule is called.
    pub table: String,
    /// For how long.
    pub wait: Duration,
}

/// Accounts of users with tables.
pub struct TableRates {
    accounts: Mutex<Ledger>,
    /// Keyed by chance, so that nobody can choose who else has the same number.
    numbers: RandomState,
    start: Instant,
}

impl TableRates {
    /// Full accounts for everybody.
    pub fn new() -> Self {
        Self { accounts: Mutex::new(Ledger::new()), numbers: RandomState::new(), start: Instant::now() }
    }

    /// Takes the writes of an upload from the user's accounts, which may overdraw them.
    ///
    /// # Errors
    /// The table with the longest wait, if there is nothing left for one of them. Then nothing is taken.
    pub fn take(&self, user_id: &str, writes: &[TableWrites<'_>]) -> Result<(), TableLimited> {
        self.take_at(user_id, writes, self.start.elapsed())
    }

    fn take_at(&self, user_id: &str, writes: &[TableWrites<'_>], now: Duration) -> Result<(), TableLimited> {
        // What a thread that panicked left behind is a ledger all the same.
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = |writes: &TableWrites<'_>| self.numbers.hash_one((user_id, writes.table));
        let waits = writes.iter().filter_map(|writes| {
            let wait = accounts.take(account(writes), writes.per_minute, 0, now).err()?;
            Some(TableLimited { table: writes.table.to_owned(), wait })
        });
        if let Some(limited) = waits.max_by_key(|limited| limited.wait) {
            return Err(limited);
        }
        for writes in writes {
            let count = writes.count.min(writes.per_minute.get().saturating_mul(MINUTES_MAX));
            // Looked at just now, under the same lock; two tables may share the account for want of places.
            let _ = accounts.take(account(writes), writes.per_minute, count, now);
        }
        Ok(())
    }
}

impl Default for TableRates {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(table: &str, per_minute: u32, count: u32) -> TableWrites<'_> {
        TableWrites { table, per_minute: NonZeroU32::new(per_minute).unwrap(), count }
    }

    #[test]
    fn all_tables_take_an_upload_or_none_does() {
        let rates = TableRates::new();
        let both = [writes("a", 60, 1), writes("b", 60, 60)];
        let at = Duration::from_secs;
        assert_eq!(rates.take_at("ann", &both, at(0)), Ok(()));
        for _ in 0..100 {
            let limited = rates.take_at("ann", &both, at(0)).unwrap_err();
            assert_eq!(limited, TableLimited { table: "b".to_owned(), wait: at(1) });
        }
        assert_eq!(rates.take_at("ann", &[writes("a", 60, 59)], at(0)), Ok(()), "nothing of it was taken");
        assert_eq!(rates.take_at("ben", &both, at(0)), Ok(()), "another user");
        assert_eq!(rates.take_at("ann", &both, at(1)), Ok(()));
    }

    #[test]
    fn nobody_waits_longer_than_ten_minutes() {
        let rates = TableRates::new();
        assert_eq!(rates.take_at("ann", &[writes("a", 2, u32::MAX)], Duration::ZERO), Ok(()));
        let limited = rates.take_at("ann", &[writes("a", 2, 1)], Duration::ZERO).unwrap_err();
        assert!(limited.wait > Duration::from_mins(9) && limited.wait <= Duration::from_mins(10), "{limited:?}");
        assert_eq!(rates.take_at("ann", &[writes("a", 2, 1)], Duration::from_mins(10)), Ok(()));
    }
}
