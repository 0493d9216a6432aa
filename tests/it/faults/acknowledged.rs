//! The source may forget only what is durable in the store.

use kairos_sync::{lsn::Lsn, storage::BucketStore};
use serde_json::Value;

/// How far the store has read the source, as it wrote down; nothing before that may be asked for again.
pub(super) fn stored_position(store: &dyn BucketStore) -> Lsn {
    store.replication_state().expect("readable").map_or(Lsn::ZERO, |state| position_in(&state))
}

/// The position in what replication stored about itself.
fn position_in(state: &[u8]) -> Lsn {
    let state: Value = serde_json::from_slice(state).expect("JSON");
    state["resume"].as_str().expect("a text").parse().expect("a position")
}
