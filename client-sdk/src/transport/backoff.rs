//! How long to wait before another attempt.

use std::time::Duration;

/// Exponential with full jitter: a random part of a limit that doubles with each failure. A thousand clients that lost
/// their server at once do not come back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits up to `base` after the first failure and never more than `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// Counts a failure and returns the wait. `random` is between 0 and 1; the caller owns the randomness.
    pub fn fail(&mut self, random: f64) -> Duration {
        let limit = self.base.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        limit.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Something worked.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_doubles_up_to_the_cap_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        let waits: Vec<u64> = (0..8).map(|_| backoff.fail(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.fail(0.5).as_secs(), 30);
        for _ in 0..100 {
            assert!(backoff.fail(1.0) <= Duration::from_mins(1));
        }
        backoff.reset();
        assert_eq!(backoff.fail(1.0).as_secs(), 1);
    }
}
