//! How many streams may be open, whatever carries them.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::OwnedSemaphorePermit;

use super::ApiState;

/// A place among the open streams, counted until it is dropped.
pub(super) struct Place {
    gauge: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// `None` while there are as many streams as there may be.
    pub(super) fn take(state: &ApiState) -> Option<Self> {
        let permit = Arc::clone(&state.streams).try_acquire_owned().ok()?;
        let gauge = state.parts.metrics.connections.clone();
        gauge.inc();
        Some(Self { gauge, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
