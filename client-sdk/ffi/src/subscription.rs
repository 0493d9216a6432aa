//! Streams that a part of an app asks for while it needs them.

use std::{sync::Arc, time::Duration};

use kairos_client::{Subscription, SubscriptionOptions};

use crate::{error::KairosError, runtime::on_runtime, status::KairosProgress};

/// A stream that is wanted. When it is dropped, its time runs.
#[derive(uniffi::Object)]
pub struct KairosSubscription(Arc<Subscription>);

impl KairosSubscription {
    pub(crate) fn new(subscription: Subscription) -> Arc<Self> {
        Arc::new(Self(Arc::new(subscription)))
    }
}

#[uniffi::export]
impl KairosSubscription {
    /// Waits until its rows are visible, but not longer than that. True when they are.
    pub async fn wait_for_first_sync(&self, timeout_seconds: u32) -> Result<bool, KairosError> {
        let subscription = Arc::clone(&self.0);
        on_runtime(async move {
            let patience = Duration::from_secs(timeout_seconds.into());
            match tokio::time::timeout(patience, subscription.wait_for_first_sync()).await {
                Ok(waited) => waited.map(|()| true).map_err(KairosError::from),
                Err(_) => Ok(false),
            }
        })
        .await
    }

    /// How much of it has arrived. Nothing while there is nothing to download.
    pub fn progress(&self) -> Option<KairosProgress> {
        self.0.progress().map(KairosProgress::from)
    }
}

pub(crate) fn options(ttl_seconds: Option<u64>, priority: Option<u8>) -> SubscriptionOptions {
    let ttl = ttl_seconds.map_or(SubscriptionOptions::default().ttl, Duration::from_secs);
    SubscriptionOptions { ttl, override_priority: priority }
}
