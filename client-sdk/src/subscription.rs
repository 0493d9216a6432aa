//! Streams that a part of an app asks for while it needs them.

use std::{fmt, time::Duration};

use kairos_sync_protocol::request::StreamSubscription;

use crate::{
    client::{ClientError, WeakClient},
    core::Progress,
};

/// How a stream is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// How long it stays wanted after the [`Subscription`] is gone. Default a day: who comes back soon finds the rows
    /// there. Whole seconds count.
    pub ttl: Duration,
    /// Another priority than the stream's, 0 to 3.
    pub override_priority: Option<u8>,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_hours(24), override_priority: None }
    }
}

/// A stream that is wanted. When it is dropped, its time runs; rows go with the first stream that is opened after that.
pub struct Subscription {
    client: WeakClient,
    /// `None` once it was given up.
    wanted: Option<StreamSubscription>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Subscription {
    pub(crate) const fn new(client: WeakClient, wanted: StreamSubscription) -> Self {
        Self { client, wanted: Some(wanted) }
    }

    /// Waits until its rows are visible for the first time since it is wanted, also where there are none. Waits for ever
    /// without a server; callers with less patience use a timeout.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn wait_for_first_sync(&self) -> Result<(), ClientError> {
        match (&self.wanted, self.client.upgrade()) {
            (Some(wanted), Some(client)) => client.wait_for_first_sync_of(wanted).await,
            _ => Ok(()),
        }
    }

    /// How much of it has arrived of the checkpoint under way. `None` while there is nothing of it to download.
    pub fn progress(&self) -> Option<Progress> {
        let wanted = self.wanted.as_ref()?;
        self.client.upgrade()?.status().download?.stream(&wanted.stream, wanted.parameters.as_ref())
    }

    /// Gives the stream up, as dropping does, and waits until that is on disk.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn unsubscribe(mut self) -> Result<(), ClientError> {
        match (self.wanted.take(), self.client.upgrade()) {
            (Some(wanted), Some(client)) => client.release(wanted).await,
            _ => Ok(()),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (Some(wanted), Some(client)) = (self.wanted.take(), self.client.upgrade()) else { return };
        self.client.runtime().spawn(async move {
            if let Err(error) = client.release(wanted).await {
                tracing::info!(
                    code = error.code(),
                    "a stream could not be given up; it stays until the app starts again"
                );
            }
        });
    }
}
