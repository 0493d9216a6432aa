//! How many streams may be open, whatever carries them.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::OwnedSemaphorePermit;

use super::ApiState;
use crate::sync::Carrier;

/// A place among the open streams, counted until it is dropped.
pub(super) struct Place {
    /// All streams, and those with the same carrier.
    gauges: [IntGauge; 2],
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// `None` while there are as many streams as there may be.
    pub(super) fn take(state: &ApiState, carrier: Carrier) -> Option<Self> {
        let permit = Arc::clone(&state.streams).try_acquire_owned().ok()?;
        let metrics = &state.parts.metrics;
        let gauges = [metrics.connections.clone(), metrics.connections_by_carrier.with_label_values(&[carrier.name()])];
        gauges.iter().for_each(IntGauge::inc);
        Some(Self { gauges, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauges.iter().for_each(IntGauge::dec);
    }
}
