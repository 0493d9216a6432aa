//! Who is asking.

use std::time::SystemTime;

use futures_util::{
    FutureExt,
    future::{BoxFuture, pending},
};
use serde_json::{Map, Value};

use super::introspection::Confirmation;

/// Somebody whose proof was accepted.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The token's `sub`, or what its issuer says instead.
    pub user_id: String,
    /// The token's whole payload, or the named parts of what its issuer says.
    pub claims: Map<String, Value>,
    /// When the proof ends.
    pub expires_at: SystemTime,
    /// The issuer's yes, where it had to be asked; it may take it back.
    pub confirmation: Option<Confirmation>,
}

impl Principal {
    /// Whether the proof was not taken back meanwhile.
    pub async fn is_confirmed(&self) -> bool {
        match self.confirmation.clone() {
            Some(mut confirmation) => confirmation.holds().await,
            None => true,
        }
    }

    /// Comes when the proof is taken back, or is not confirmed again.
    pub fn revoked(&self) -> BoxFuture<'static, ()> {
        match self.confirmation.clone() {
            Some(confirmation) => confirmation.ended().boxed(),
            None => pending().boxed(),
        }
    }
}
