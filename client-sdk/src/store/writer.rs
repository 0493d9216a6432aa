//! The connection that writes, and who goes first: the app, and whatever else is short, before the download.

use std::{
    sync::{Condvar, Mutex, MutexGuard},
    time::Duration,
};

use rusqlite::Connection;

use super::lock;

/// A download waits no longer than this for its next turn, however much the app writes.
const TURN_MAX: Duration = Duration::from_millis(50);

/// Mutexes, not channels: whoever waits is on a blocking thread anyway.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Mutex<Connection>,
    /// How many wait for it in front of the download.
    waiting: Mutex<usize>,
    nobody_waits: Condvar,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: Mutex::new(connection), waiting: Mutex::new(0), nobody_waits: Condvar::new() }
    }

    /// For what is short.
    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        *lock(&self.waiting) += 1;
        let connection = lock(&self.connection);
        *lock(&self.waiting) -= 1;
        self.nobody_waits.notify_all();
        connection
    }

    /// For a piece of a download, after those that wait.
    pub(super) fn lock_after_others(&self) -> MutexGuard<'_, Connection> {
        // Late or poisoned, it is this one's turn.
        let _ = self.nobody_waits.wait_timeout_while(lock(&self.waiting), TURN_MAX, |waiting| *waiting > 0);
        lock(&self.connection)
    }

    /// Somebody waits for the download to let go.
    pub(super) fn is_wanted(&self) -> bool {
        *lock(&self.waiting) > 0
    }
}
