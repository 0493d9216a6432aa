//! Why `kairos-sync client` ends without what it was asked for.

use std::{io, path::PathBuf, time::Duration};

use kairos_client::{ClientError, Problem, StoreError, SyncError, TransportError, rusqlite};

use crate::server::chain;

/// Why there is no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientCommandError {
    /// No proof of who syncs, or several.
    #[error(
        "say who syncs with one of: --token (or KAIROS_CLIENT_TOKEN), --token-file, or --sub with the service's secret"
    )]
    Who,
    /// A user, but nothing to sign tokens with.
    #[error("--sub needs the secret that signs tokens: --secret-file, KAIROS_CLIENT_SECRET or --secret")]
    NoSecret,
    /// Not as in a JWK.
    #[error("the secret is not base64url: give `k` of a key in `client_auth.jwks`, with `-` and `_`, not `+` and `/`")]
    Secret,
    /// No address.
    #[error("--url must be like http://127.0.0.1:8080, without user and password")]
    Url,
    /// A file with a token or secret.
    #[error("{} cannot be used as a token or secret", file.display())]
    File {
        /// Its path.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The service sends nothing that helps.
    #[error(
        "no complete checkpoint, and no progress for {} seconds: the service may have none yet, which \
         `kairos-sync status` tells; --timeout gives it longer",
        waited.as_secs()
    )]
    Timeout {
        /// How long nothing came.
        waited: Duration,
    },
    /// Nothing to look at offline.
    #[error("there is no file {}: sync first, without --offline", file.display())]
    NoDatabase {
        /// Its path.
        file: PathBuf,
    },
    /// Two that sync one file would undo each other's work.
    #[error("another process syncs {}: end it, use another file, or look at this one with --offline", file.display())]
    InUse {
        /// Its path.
        file: PathBuf,
    },
    /// The file cannot be made or locked.
    #[error("{} cannot be made", file.display())]
    Lock {
        /// Its path.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQL that cannot be run.
    #[error("query {number} cannot be run; queries only read")]
    Query {
        /// Which of them, from 1.
        number: usize,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// SQL with a table that never came.
    #[error("query {number} names the table `{table}`, which nobody has synced into this file; {}", known(tables))]
    UnknownTable {
        /// Which query, from 1.
        number: usize,
        /// The name.
        table: String,
        /// Those there are.
        tables: Vec<String>,
    },
    /// Ctrl-C, before there was an answer.
    #[error("interrupted; the next run goes on from what has arrived")]
    Interrupted,
    /// The local database.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The local database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sync does not work.
    #[error("{0}")]
    Sync(Failure),
}

impl ClientCommandError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Who => "CLIENT-0401",
            Self::NoSecret | Self::Secret => "CLIENT-0402",
            Self::Url => "CLIENT-0403",
            Self::File { .. } => "CLIENT-0404",
            Self::Timeout { .. } => "CLIENT-0405",
            Self::NoDatabase { .. } | Self::Lock { .. } => "CLIENT-0406",
            Self::InUse { .. } => "CLIENT-0407",
            Self::Query { .. } => "CLIENT-0408",
            Self::UnknownTable { .. } => "CLIENT-0409",
            Self::Interrupted => "CLIENT-0410",
            Self::Client(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Sync(failure) => failure.code,
        }
    }

    /// The service has decided; otherwise it could not be found out.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Sync(Failure { kind: FailureKind::Refused | FailureKind::Damaged, .. }))
    }
}

fn known(tables: &[String]) -> String {
    if tables.is_empty() { "there are none".to_owned() } else { format!("there are: {}", tables.join(", ")) }
}

/// A failure of the sync, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) kind: FailureKind,
}

/// What a failure means for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// It will be so the next time, too.
    Refused,
    /// No service answers at this address.
    NotFound,
    /// Buckets did not add up; what is wrong is downloaded again.
    Damaged,
    /// It may work the next time.
    Passing,
}

impl From<&SyncError> for Failure {
    fn from(error: &SyncError) -> Self {
        let advice = match error {
            SyncError::Transport(TransportError::Unauthorized(_)) => "; `kairos-sync auth check` explains why",
            SyncError::Transport(TransportError::Unreachable(_)) => "; is the service running there?",
            SyncError::Transport(TransportError::Refused { status: 429, .. }) => {
                "; it has as many clients as it takes: try again later, or raise `limits.connections_max`"
            }
            SyncError::Transport(TransportError::Refused { status: 500.., .. }) => "; its log says more",
            _ => "",
        };
        Self { code: error.code(), message: chain(error) + advice, kind: kind(error) }
    }
}

fn kind(error: &SyncError) -> FailureKind {
    match error {
        SyncError::Damaged(_) => FailureKind::Damaged,
        // What a proxy says of a service that is away, and a service that is busy or stopping.
        SyncError::Transport(TransportError::Refused { status: 429 | 502..=504, .. }) => FailureKind::Passing,
        SyncError::Transport(TransportError::Refused { .. }) => FailureKind::Refused,
        _ => match error.problem() {
            Some(Problem::SignInAgain) => FailureKind::Refused,
            Some(Problem::ServerNotFound) => FailureKind::NotFound,
            _ => FailureKind::Passing,
        },
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use kairos_client::Refusal;

    use super::*;

    fn refused(status: u16) -> Failure {
        let refusal = Refusal::new("PSYNC_S2305", "Too many buckets");
        Failure::from(&SyncError::Transport(TransportError::Refused { status, refusal }))
    }

    #[test]
    fn a_failure_says_what_the_service_said_and_what_helps() {
        let failure = refused(500);
        assert_eq!((failure.code, failure.kind), ("CLIENT-0204", FailureKind::Refused));
        assert_eq!(
            failure.message,
            "the server refused the request with status 500 (PSYNC_S2305: Too many buckets); its log says more"
        );
        let unauthorized = SyncError::Transport(TransportError::Unauthorized(Refusal::default()));
        assert!(Failure::from(&unauthorized).message.ends_with("`kairos-sync auth check` explains why"));
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        assert_eq!([429, 502, 503, 504].map(|status| refused(status).kind), [FailureKind::Passing; 4]);
        assert_eq!([400, 413, 500].map(|status| refused(status).kind), [FailureKind::Refused; 3]);
        let nowhere = SyncError::Transport(TransportError::NotFound { endpoint: "http://home".to_owned() });
        assert_eq!(Failure::from(&nowhere).kind, FailureKind::NotFound);
        assert!(!ClientCommandError::Sync(Failure::from(&nowhere)).is_refusal());
        assert!(ClientCommandError::Sync(refused(500)).is_refusal());
    }
}
