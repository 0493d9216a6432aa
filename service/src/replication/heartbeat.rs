//! Questions to the source beside the stream, and the message that keeps an idle one moving.

use std::{convert::Infallible, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Client;

use crate::{
    postgres::PgError,
    replication::{
        replicator::{Replicator, current_position, within_deadline},
        stream::MESSAGE_PREFIX,
        wal_budget::BudgetAlarm,
    },
};

/// How often the source is asked where no heartbeat is wanted.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

impl Replicator {
    /// Asks now and then for the source's head, which keeps the lag honest while nothing arrives, and for the WAL that is
    /// kept for the slot; and writes the heartbeat, so that the slot of an idle source moves. Returns what went wrong.
    pub(super) async fn watch_source(&self, client: &Client, slot: &str) -> PgError {
        match self.keep_asking(client, slot).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    async fn keep_asking(&self, client: &Client, slot: &str) -> Result<Infallible, PgError> {
        // In a transaction of its own, because only a commit is flushed at once.
        let greet = format!("SELECT pg_logical_emit_message(true, '{MESSAGE_PREFIX}', 'ping')");
        // What was copied becomes visible when the stream has passed the copies: give it something to pass with.
        within_deadline(async { Ok(client.batch_execute(&greet).await?) }).await?;
        let mut ticks = interval(self.source.heartbeat.unwrap_or(ASK_INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alarm = BudgetAlarm::default();
        loop {
            ticks.tick().await;
            self.progress.saw_head(within_deadline(current_position(client)).await?);
            self.set_lag();
            self.watch_budget(client, slot, &mut alarm).await?;
            if self.source.heartbeat.is_some() {
                within_deadline(async { Ok(client.batch_execute(&greet).await?) }).await?;
            }
        }
    }
}
