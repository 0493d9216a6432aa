//! What is kept of fetched keys, and when to fetch again. Pure: the time comes from the caller.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{http::FetchError, source::KeySet};

/// Keys this old are fetched again in the background.
const REFRESH_AFTER: Duration = Duration::from_mins(5);
/// Keys this old are no longer trusted.
const KEEP_FOR: Duration = Duration::from_hours(1);
/// How often an unknown key id may cause a fetch.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(30);
/// The pause after the first failed fetch while there are no keys; doubled with each further one,
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// up to this.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Why keys are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// There are none.
    Any,
    /// There are some, and they grow old.
    Fresh,
    /// A token names one that is not among them.
    Unknown,
}

/// The keys of one address.
#[derive(Default)]
pub(super) struct KeyCache {
    fetched: Option<(Arc<KeySet>, Instant)>,
    attempted: Option<Instant>,
    failures: u32,
    failure: Option<FetchError>,
}

impl KeyCache {
    /// The keys, while they are trusted.
    pub(super) fn keys(&self, now: Instant) -> Option<Arc<KeySet>> {
        let fetched = self.fetched.as_ref().filter(|(_, at)| now.duration_since(*at) < KEEP_FOR);
        fetched.map(|(keys, _)| Arc::clone(keys))
    }

    /// Whether keys are to be fetched now.
    pub(super) fn is_due(&self, wanted: Wanted, now: Instant) -> bool {
        if wanted == Wanted::Any && self.keys(now).is_some() {
            return false;
        }
        let pause = match wanted {
            Wanted::Any => self.retry_pause(),
            Wanted::Fresh => REFRESH_AFTER,
            Wanted::Unknown => UNKNOWN_KEY_INTERVAL,
        };
        self.attempted.is_none_or(|attempted| now.duration_since(attempted) >= pause)
    }

    fn retry_pause(&self) -> Duration {
        // Without a failure the keys were discarded for their age, which is as good as none.
        let Some(doublings) = self.failures.checked_sub(1) else { return Duration::ZERO };
        RETRY_FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(RETRY_MAX)
    }

    /// Why the last fetch failed, if it did.
    pub(super) fn failure(&self) -> Option<&FetchError> {
        self.failure.as_ref()
    }

    /// Remembers how a fetch ended.
    pub(super) fn record(&mut self, result: Result<Arc<KeySet>, FetchError>, now: Instant) {
        self.attempted = Some(now);
        match result {
            Ok(keys) => *self = Self { fetched: Some((keys, now)), attempted: Some(now), failures: 0, failure: None },
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.failure = Some(failure);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn filled(now: Instant) -> KeyCache {
        let mut cache = KeyCache::default();
        assert!(cache.is_due(Wanted::Any, now) && cache.keys(now).is_none());
        cache.record(Ok(Arc::default()), now);
        assert!(!cache.is_due(Wanted::Any, now), "who waited for the fetch needs no other");
        cache
    }

    #[test]
    fn keys_are_refreshed_after_five_minutes_and_discarded_after_an_hour_without_success() {
        let start = Instant::now();
        let mut cache = filled(start);
        assert!(!cache.is_due(Wanted::Fresh, start + 5 * MINUTE - Duration::from_secs(1)));
        assert!(cache.is_due(Wanted::Fresh, start + 5 * MINUTE));
        for minute in (5..60).step_by(5) {
            cache.record(Err(FetchError::Status(503)), start + minute * MINUTE);
            assert!(cache.keys(start + minute * MINUTE).is_some(), "kept while the endpoint is down");
            assert!(!cache.is_due(Wanted::Fresh, start + (minute + 4) * MINUTE), "no more often than when it is up");
        }
        assert!(cache.keys(start + 60 * MINUTE - Duration::from_secs(1)).is_some());
        assert!(cache.keys(start + 60 * MINUTE).is_none());
        assert_eq!(cache.failure(), Some(&FetchError::Status(503)));
        cache.record(Ok(Arc::default()), start + 61 * MINUTE);
        assert!(cache.keys(start + 62 * MINUTE).is_some() && cache.failure().is_none());
    }

    #[test]
    fn keys_that_grew_too_old_unused_are_fetched_at_once() {
        let start = Instant::now();
        let cache = filled(start);
        assert!(cache.keys(start + 120 * MINUTE).is_none());
        assert!(cache.is_due(Wanted::Any, start + 120 * MINUTE));
    }

    #[test]
    fn unknown_keys_cause_a_fetch_every_half_minute_at_most() {
        let start = Instant::now();
        let mut cache = filled(start);
        let mut fetches = 0;
        for second in 1..=600 {
            let now = start + Duration::from_secs(second);
            if cache.is_due(Wanted::Unknown, now) {
                fetches += 1;
                cache.record(if fetches % 2 == 0 { Ok(Arc::default()) } else { Err(FetchError::Status(500)) }, now);
            }
        }
        assert_eq!(fetches, 20);
    }

    #[test]
    fn an_endpoint_that_was_never_up_is_asked_less_and_less_often() {
        let start = Instant::now();
        let (mut cache, mut fetches) = (KeyCache::default(), Vec::new());
        for second in 0..180 {
            let now = start + Duration::from_secs(second);
            if cache.is_due(Wanted::Any, now) {
                fetches.push(second);
                cache.record(Err(FetchError::Status(500)), now);
            }
        }
        assert_eq!(fetches, [0, 1, 3, 7, 15, 31, 61, 91, 121, 151]);
    }
}
