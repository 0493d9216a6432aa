//! How commits and the background thread wait for each other.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Wakes the background thread, and those who wait for room in the tail.
#[derive(Debug, Default)]
pub(super) struct Signal {
    closing: Mutex<bool>,
    work: Condvar,
    room: Condvar,
}

impl Signal {
    fn closing(&self) -> MutexGuard<'_, bool> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be work.
    pub(super) fn wake(&self) {
        // Taken so that a thread between its look and its wait is not missed.
        let _closing = self.closing();
        self.work.notify_one();
    }

    /// The tail became smaller.
    pub(super) fn made_room(&self) {
        let _closing = self.closing();
        self.room.notify_all();
    }

    /// Ends the background thread after its current slice.
    pub(super) fn close(&self) {
        *self.closing() = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.closing()
    }

    /// Waits until there is work, `time` at most; `false` when closing.
    pub(super) fn wait_for_work(&self, time: Duration, has_work: impl Fn() -> bool) -> bool {
        drop(self.work.wait_timeout_while(self.closing(), time, |closing| !*closing && !has_work()));
        !self.is_closing()
    }

    /// Waits, but not longer than until closing.
    pub(super) fn rest(&self, time: Duration) {
        drop(self.work.wait_timeout_while(self.closing(), time, |closing| !*closing));
    }

    /// Waits for room in the tail, `time` at most; whether there is room.
    pub(super) fn wait_for_room(&self, time: Duration, has_room: impl Fn() -> bool) -> bool {
        drop(self.room.wait_timeout_while(self.closing(), time, |closing| !*closing && !has_room()));
        has_room()
    }
}
