//! The end of the source's WAL, for write checkpoints.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::{
    lsn::Lsn,
    postgres::{PgError, SourceConfig},
    sync::{HeadUnavailable, SourceHead},
};

/// Reads the end of the source's WAL, and moves it. Connects when first needed, and again after a lost connection.
pub(super) struct WriteHead {
    source: SourceConfig,
    // Held while connecting only; requests share the connection and are pipelined on it.
    client: Mutex<Option<Arc<Client>>>,
}

impl WriteHead {
    /// Of this source, which must be the primary.
    pub(super) fn new(source: SourceConfig) -> Self {
        Self { source, client: Mutex::new(None) }
    }

    /// The insert position, not the written one: it also lies behind commits that did not wait for the disk
    /// (`synchronous_commit = off`).
    async fn read_position(&self) -> Result<Lsn, PgError> {
        let row = self.client().await?.query_typed_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
        let text: String = row.try_get(0)?;
        text.parse().map_err(|_| PgError::Protocol("pg_current_wal_insert_lsn"))
    }

    /// The prefix is ours: replication knows it. The message is transactional, since a commit reaches the disk, and with
    /// it replication, at once; any other message waits for `wal_writer_delay`.
    async fn write_message(&self) -> Result<(), PgError> {
        let statement = "SELECT pg_logical_emit_message(true, 'kairos', 'ping')";
        self.client().await?.execute_typed(statement, &[]).await?;
        Ok(())
    }

    async fn client(&self) -> Result<Arc<Client>, PgError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.source.connect().await?);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }
}

impl SourceHead for WriteHead {
    fn head(&self) -> BoxFuture<'_, Result<Lsn, HeadUnavailable>> {
        Box::pin(async { self.read_position().await.map_err(HeadUnavailable::new) })
    }

    fn nudge(&self) -> BoxFuture<'_, Result<(), HeadUnavailable>> {
        Box::pin(async { self.write_message().await.map_err(HeadUnavailable::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cluster::PgCluster;

    #[tokio::test]
    async fn the_head_lies_behind_what_was_committed_and_survives_a_restart_of_the_server() {
        let cluster = PgCluster::start(None).unwrap();
        let head = WriteHead::new(SourceConfig::from_uri(&cluster.uri("postgres", "postgres")).unwrap());
        let before = head.head().await.unwrap();
        head.nudge().await.unwrap();
        let after = head.head().await.unwrap();
        assert!(before < after, "the message moved it");
        cluster.stop("fast").unwrap();
        assert!(head.head().await.is_err(), "nobody answers");
        cluster.start_server().unwrap();
        assert!(head.head().await.unwrap() >= after);
    }
}
