//! Ordinary SQL sessions on the source.

use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls, config::SslMode};

use crate::postgres::{
    dial::dial,
    error::{PgError, ServerError},
    source::SourceConfig,
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
        let transport = dial(self).await?;
        let mut config = Config::new();
        config.user(&self.user).dbname(&self.database).application_name(APPLICATION_NAME);
        // TLS, where wanted, is already on the transport.
        config.ssl_mode(SslMode::Disable);
        if let Some(password) = &self.password {
            config.password(password.reveal());
        }
        let (client, connection) = config.connect_raw(transport, NoTls).await.map_err(|error| self.refusal(error))?;
        // The connection's end shows in the client's next call, with its reason.
        tokio::spawn(connection);
        let settings: Vec<_> = SESSION_SETTINGS.iter().map(|(name, value)| format!("SET {name} = '{value}'")).collect();
        client.batch_execute(&settings.join("; ")).await?;
        Ok(client)
    }

    fn refusal(&self, error: tokio_postgres::Error) -> PgError {
        match error.as_db_error() {
            Some(server) => {
                let error =
                    ServerError { sqlstate: server.code().code().to_owned(), message: server.message().to_owned() };
                PgError::while_connecting(error, self)
            }
            None => error.into(),
        }
    }

    /// Where the server is, for messages.
    pub fn address(&self) -> String {
        match &self.socket_dir {
            Some(folder) => folder.join(format!(".s.PGSQL.{}", self.port)).display().to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }
}
