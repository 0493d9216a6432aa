//! When a stream must say how long the token still lives. Pure: the caller brings the time.
//!
//! - A line every 18 to 22 seconds, so that proxies and clients see a live connection; jittered, so that thousands of
//!   clients that reconnected together do not stay together. Also where the carrier has keepalives of its own: the
//!   official sync client in JavaScript forgets to upload what is written while it asks for a write checkpoint, until
//!   such a line reminds it.
//! - One line when 20 seconds remain, upon which clients fetch a new token in the background.
//! - Zero at expiry, after which the stream ends.

use std::time::Duration;

use tokio::time::Instant;

/// When the client is warned that its token expires.
const WARNING: Duration = Duration::from_secs(20);
/// The shortest time between two keepalives, and how much longer it may be.
const KEEPALIVE_MIN: Duration = Duration::from_secs(18);
const KEEPALIVE_SPREAD: Duration = Duration::from_secs(4);

/// Says when the next `token_expires_in` line is due.
#[derive(Debug)]
pub(super) struct TokenClock {
    expiry: Instant,
    keepalive: Instant,
    warning: Option<Instant>,
}

impl TokenClock {
    /// `jitter` is between 0 and 1.
    pub(super) fn new(now: Instant, lifetime: Duration, jitter: f64) -> Self {
        let warning = lifetime.checked_sub(WARNING).map(|until_warning| now + until_warning);
        Self { expiry: now + lifetime, keepalive: next_keepalive(now, jitter), warning }
    }

    /// When to ask again.
    pub(super) fn next_due(&self) -> Instant {
        self.warning.into_iter().fold(self.expiry.min(self.keepalive), Instant::min)
    }

    /// Seconds to tell the client, if a line is due. Zero is the end of the stream.
    pub(super) fn due(&mut self, now: Instant, jitter: f64) -> Option<i32> {
        if now < self.next_due() {
            return None;
        }
        self.keepalive = next_keepalive(now, jitter);
        self.warning = self.warning.filter(|warning| *warning > now);
        let remaining = self.expiry.saturating_duration_since(now);
        let seconds = remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0);
        Some(i32::try_from(seconds).unwrap_or(i32::MAX))
    }
}

fn next_keepalive(now: Instant, jitter: f64) -> Instant {
    now + KEEPALIVE_MIN + KEEPALIVE_SPREAD.mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_keepalive_comes_between_18_and_22_seconds_after_the_last_line() {
        let start = Instant::now();
        let mut clock = TokenClock::new(start, seconds(3600), 0.0);
        assert_eq!(clock.due(start + seconds(17), 0.5), None);
        assert_eq!(clock.due(start + seconds(18), 1.0), Some(3582));
        assert_eq!(clock.next_due(), start + seconds(18 + 22));
    }

    #[test]
    fn the_client_is_warned_20_seconds_before_and_told_zero_at_the_end() {
        let start = Instant::now();
        let mut clock = TokenClock::new(start, seconds(30), 1.0);
        assert_eq!(clock.next_due(), start + seconds(10));
        assert_eq!(clock.due(start + seconds(10), 1.0), Some(20));
        assert_eq!(clock.next_due(), start + seconds(30));
        assert_eq!(clock.due(start + Duration::from_millis(29_500), 1.0), None);
        assert_eq!(clock.due(start + seconds(30), 1.0), Some(0));
    }

    #[test]
    fn an_expired_token_is_told_so_at_once() {
        let start = Instant::now();
        assert_eq!(TokenClock::new(start, Duration::ZERO, 0.5).due(start, 0.5), Some(0));
    }
}
