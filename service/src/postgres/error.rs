//! What can go wrong between here and Postgres.

use std::{io, time::Duration};

use crate::postgres::source::SourceConfig;

/// An error as the server reported it: SQLSTATE and the primary message, never its detail, which may quote values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// Five characters, listed in the Postgres manual.
    pub sqlstate: String,
    /// One sentence.
    pub message: String,
}

/// Why something asked of Postgres did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PgError {
    /// The connection URI cannot be used.
    #[error("connection URI: {0}")]
    Uri(String),
    /// Nobody answers there.
    #[error("cannot reach Postgres at {address}: check host, port, firewall and that the server runs")]
    Unreachable {
        /// Host and port, or socket.
        address: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The server accepts no TLS.
    #[error("Postgres at {address} offers no TLS: switch it on there (`ssl = on`), or set sslmode to `disable` here")]
    TlsRefused {
        /// Host and port.
        address: String,
    },
    /// TLS failed, most often because the certificate is not trusted or names another host.
    #[error("TLS with Postgres at {address} failed: {problem}")]
    Tls {
        /// Host and port.
        address: String,
        /// What is wrong, and what to do.
        problem: &'static str,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// The authority's certificate, or the system's, cannot be used.
    #[error("certificates: {0}")]
    Certificates(String),
    /// The server refuses the role or its password.
    #[error("Postgres refuses role \"{user}\": {reason} (SQLSTATE {sqlstate}); check role, password and pg_hba.conf")]
    Authentication {
        /// The role.
        user: String,
        /// The server's message.
        reason: String,
        /// 28P01 or 28000.
        sqlstate: String,
    },
    /// The server wants a way to authenticate which this client does not have.
    #[error("Postgres asks for {0}: use scram-sha-256 for this role in pg_hba.conf")]
    AuthenticationMethod(&'static str),
    /// There is no such database.
    #[error("database \"{database}\" does not exist")]
    Database {
        /// Its name.
        database: String,
    },
    /// Not the server answers, but a pooler that knows no replication.
    #[error(
        "a pooler such as PgBouncer answers at {address}, and replication does not pass it: give the address of Postgres itself"
    )]
    Pooler {
        /// Host and port.
        address: String,
    },
    /// The server answered with an error.
    #[error("Postgres: {} (SQLSTATE {})", .0.message, .0.sqlstate)]
    Server(ServerError),
    /// The connection broke.
    #[error("the connection to Postgres was lost")]
    Lost(#[source] io::Error),
    /// Nothing was received for so long that the connection must be dead.
    #[error("Postgres did not answer within {} ms while {doing}", .after.as_millis())]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// A message is not what the protocol allows here.
    #[error("unexpected message from Postgres: {0}")]
    Protocol(&'static str),
    /// A message is larger than the bound.
    #[error("Postgres sent a message of {size} bytes, the bound is {bound}")]
    MessageTooLarge {
        /// Its size.
        size: usize,
        /// The bound.
        bound: usize,
    },
}

impl PgError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Uri(_) => "PG-0101",
            Self::Unreachable { .. } => "PG-0102",
            Self::TlsRefused { .. } => "PG-0103",
            Self::Tls { .. } => "PG-0104",
            Self::Certificates(_) => "PG-0105",
            Self::Authentication { .. } => "PG-0106",
            Self::AuthenticationMethod(_) => "PG-0107",
            Self::Database { .. } => "PG-0108",
            Self::Server(_) => "PG-0109",
            Self::Lost(_) => "PG-0110",
            Self::Timeout { .. } => "PG-0111",
            Self::Protocol(_) => "PG-0112",
            Self::MessageTooLarge { .. } => "PG-0113",
            Self::Pooler { .. } => "PG-0114",
        }
    }

    /// The server's SQLSTATE, where it answered with an error.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.sqlstate),
            Self::Authentication { sqlstate, .. } => Some(sqlstate),
            _ => None,
        }
    }

    /// Whether a person must change something before it can work; trying again soon would only fill logs and, for a
    /// refused password, get this host banned.
    pub fn needs_a_person(&self) -> bool {
        matches!(
            self,
            Self::Uri(_)
                | Self::TlsRefused { .. }
                | Self::Tls { .. }
                | Self::Certificates(_)
                | Self::Authentication { .. }
                | Self::AuthenticationMethod(_)
                | Self::Database { .. }
                | Self::Pooler { .. }
        )
    }

    /// Gives the errors of connecting their own kinds.
    pub(super) fn while_connecting(error: ServerError, source: &SourceConfig) -> Self {
        match error.sqlstate.as_str() {
            "28P01" | "28000" => {
                Self::Authentication { user: source.user.clone(), reason: error.message, sqlstate: error.sqlstate }
            }
            "3D000" => Self::Database { database: source.database.clone() },
            // The words of PgBouncer before 1.23. Postgres itself knows every parameter that is sent.
            "08P01" if error.message.starts_with("unsupported startup parameter") => {
                Self::Pooler { address: source.address() }
            }
            _ => Self::Server(error),
        }
    }
}

impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(server) => Self::Server(ServerError {
                sqlstate: server.code().code().to_owned(),
                message: server.message().to_owned(),
            }),
            None => Self::Lost(io::Error::other(error)),
        }
    }
}
