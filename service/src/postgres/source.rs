//! How to reach the source, and what to read from it.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use crate::secret::Secret;

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Plain. For a unix socket, the same host or a private container network.
    Disable,
    /// TLS; the server's certificate must lead to a trusted authority.
    VerifyCa,
    /// TLS; the certificate must also name the host.
    VerifyFull,
}

/// Whether the slot is to be kept on standbys as well, which Postgres can from 17 on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Failover {
    /// Wherever the server can. Without standbys that synchronise slots it changes nothing.
    #[default]
    Auto,
    /// Always; a server that cannot is refused.
    On,
    /// Never.
    Off,
}

impl Failover {
    /// The oldest server that can, as [`server_version`](crate::postgres::preflight::server_version) has it.
    pub const SERVER_VERSION_MIN: u32 = 170_000;

    /// Whether a slot on a server of this version is to have it.
    pub fn is_wanted(self, server_version: u32) -> bool {
        match self {
            Self::Auto => server_version >= Self::SERVER_VERSION_MIN,
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// The source Postgres, and what to read from it.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Folder of a unix socket, instead of host.
    pub socket_dir: Option<PathBuf>,
    /// Database.
    pub database: String,
    /// Role for replication and snapshot: REPLICATION, SELECT on the published tables, BYPASSRLS where they have RLS.
    pub user: String,
    /// Its password; `None` where the server asks for none.
    pub password: Option<Secret>,
    /// Transport protection.
    pub tls: TlsMode,
    /// Certificates of the authority to trust, PEM. `None`: the system's.
    pub ca_certificate: Option<String>,
    /// Name the certificate must have, where it is not `host`.
    pub tls_server_name: Option<String>,
    /// Deadline for connecting, TLS and authentication included.
    pub connect_timeout: Duration,
    /// The publications; none: `kairos_sync`, else an existing `powersync`.
    pub publications: Vec<String>,
    /// Prefix of the slot's name.
    pub slot_prefix: String,
    /// How often a message is written so that an idle source's slot moves; `None`: never.
    pub heartbeat: Option<Duration>,
    /// Whether the slot is kept on standbys as well.
    pub failover: Failover,
    /// WAL bytes that may be kept for the slot before a warning is due, where the server has no bound of its own.
    pub slot_wal_budget: Option<NonZeroU64>,
    /// How tables are copied.
    pub snapshot: SnapshotOptions,
}

impl SourceConfig {
    /// The same role and database, on a server that is reached as `other` says: it is the same one.
    #[must_use]
    pub fn reached_like(self, other: &Self) -> Self {
        Self {
            tls: other.tls,
            ca_certificate: other.ca_certificate.clone(),
            tls_server_name: other.tls_server_name.clone(),
            ..self
        }
    }
}

/// How tables are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// Sessions that read at once, from 1 to 16.
    pub connections: usize,
    /// Bytes per second read of one table at most, so that the source has time for others; `None`: as fast as it goes.
    pub bytes_per_second: Option<NonZeroU64>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { connections: 2, bytes_per_second: None }
    }
}
