//! How soon tables are copied again because stored rows were damaged.

use std::time::{Duration, Instant};

/// Between two times. A disk that goes on changing what is on it must not keep the source busy for ever.
const EVERY: Duration = Duration::from_mins(10);

/// When damaged rows were last dropped.
#[derive(Debug, Default)]
pub(super) struct RowsDropped(Option<Instant>);

impl RowsDropped {
    pub(super) fn at(now: Instant) -> Self {
        Self(Some(now))
    }

    /// How long others have to wait until they are dropped; zero if they need not.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.0.map_or(Duration::ZERO, |at| EVERY.saturating_sub(now.saturating_duration_since(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_again_waits_until_ten_minutes_have_passed() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(RowsDropped::default().wait(start), Duration::ZERO, "nothing was dropped yet");
        let dropped = RowsDropped::at(after(5));
        assert_eq!(dropped.wait(start), Duration::from_mins(10), "never longer");
        assert_eq!(dropped.wait(after(5)), Duration::from_mins(10));
        assert_eq!(dropped.wait(after(604)), Duration::from_secs(1));
        assert_eq!(dropped.wait(after(605)), Duration::ZERO);
        assert_eq!(dropped.wait(after(6_000)), Duration::ZERO);
    }
}
