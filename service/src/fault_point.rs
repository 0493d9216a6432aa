//! Named places at which tests end the process, as a crash would. Only in binaries built with the feature
//! `fault-points`; elsewhere passing one is nothing.
//!
//! `KAIROS_FAULT_POINT=store.before-sync:3` ends the process when it passes that point for the third time.

/// Passes a point. Names are `part.moment`, unique, and found by a test in the source.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub(crate) fn fault_point(_name: &'static str) {}

/// Passes a point. Names are `part.moment`, unique, and found by a test in the source.
#[cfg(feature = "fault-points")]
pub(crate) fn fault_point(name: &'static str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    };
    static ORDERED: OnceLock<Option<(String, usize)>> = OnceLock::new();
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let ordered = ORDERED.get_or_init(|| {
        let order = std::env::var("KAIROS_FAULT_POINT").ok()?;
        let (name, count) = order.split_once(':').expect("KAIROS_FAULT_POINT=name:count");
        Some((name.to_owned(), count.parse().expect("KAIROS_FAULT_POINT=name:count")))
    });
    let is_last = |count: usize| PASSED.fetch_add(1, Ordering::SeqCst) + 1 == count;
    if ordered.as_ref().is_some_and(|(ordered, count)| ordered == name && is_last(*count)) {
        std::process::abort();
    }
}
