//! Ordinary SQL sessions on the source.

use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls, config::SslMode};

use crate::postgres::{
    dial::dial, error::PgError, frame::Framed, handover::Handover, source::SourceConfig, startup::start_session,
};

/// How sessions name themselves in `pg_stat_activity`; also how a walsender is recognised as ours.
pub const APPLICATION_NAME: &str = concat!("kairos-sync/", env!("CARGO_PKG_VERSION"));

/// What decides how values are printed. Set on every connection: a role or database may have other defaults, and then
/// snapshot and stream would print the same row differently.
pub(super) const SESSION_SETTINGS: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("TimeZone", "UTC"),
    ("statement_timeout", "0"),
];

impl SourceConfig {
    /// Opens an SQL session with settings that print values in one defined form. The connection is served by a task of
    /// its own, which ends with the client.
    ///
    /// # Errors
    /// [`PgError`].
    pub async fn connect(&self) -> Result<Client, PgError> {
        let deadline = self.connect_timeout;
        timeout(deadline, self.open_session())
            .await
            .map_err(|_| PgError::Timeout { doing: "connecting", after: deadline })?
    }

    async fn open_session(&self) -> Result<Client, PgError> {
        let mut framed = Framed::new(dial(self).await?);
        let said = start_session(&mut framed, self, &[("client_encoding", "UTF8")]).await?;
        let (client, connection) = begun_as(&self.user).connect_raw(Handover::new(framed, &said), NoTls).await?;
        // The connection's end shows in the client's next call, with its reason.
        tokio::spawn(connection);
        let settings: Vec<_> = SESSION_SETTINGS.iter().map(|(name, value)| format!("SET {name} = '{value}'")).collect();
        client.batch_execute(&settings.join("; ")).await?;
        Ok(client)
    }

    /// Where the server is, for messages.
    pub fn address(&self) -> String {
        match &self.socket_dir {
            Some(folder) => folder.join(format!(".s.PGSQL.{}", self.port)).display().to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }
}

/// A session that has begun: there is nothing to negotiate any more.
fn begun_as(user: &str) -> Config {
    let mut config = Config::new();
    config.user(user).ssl_mode(SslMode::Disable);
    config
}
