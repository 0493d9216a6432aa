//! Noticing that a client's token was revoked.

use futures_util::{FutureExt, future::BoxFuture};

/// Whether a token was revoked.
pub(super) struct Revocation(
    // `None`: it was. What has come must not be asked again.
    Option<BoxFuture<'static, ()>>,
);

impl Revocation {
    pub(super) fn new(revoked: BoxFuture<'static, ()>) -> Self {
        Self(Some(revoked))
    }

    /// Whether it has come, as far as is known without waiting.
    pub(super) fn has_come(&mut self) -> bool {
        if self.0.as_mut().is_some_and(|revoked| revoked.now_or_never().is_some()) {
            self.0 = None;
        }
        self.0.is_none()
    }

    /// Until it comes.
    pub(super) async fn come(&mut self) {
        if let Some(revoked) = &mut self.0 {
            revoked.await;
            self.0 = None;
        }
    }
}
