//! Who is asking.

use std::time::SystemTime;

use serde_json::{Map, Value};

/// Somebody whose proof was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// The token's `sub`.
    pub user_id: String,
    /// The token's whole payload.
    pub claims: Map<String, Value>,
    /// When the proof ends.
    pub expires_at: SystemTime,
}
