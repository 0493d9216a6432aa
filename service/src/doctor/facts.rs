//! Everything the checks judge, as it was found.

use std::{path::PathBuf, time::Duration};

use kairos_sync_rules::Diagnostic;

use crate::postgres::{TlsMode, preflight::Inspection};

/// All that was found.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) connection: Connection,
    pub(super) server: Server,
    pub(super) clock: Clock,
    /// Slots of this database with our prefix.
    pub(super) slots: Vec<Slot>,
    pub(super) source: Source,
    /// What uploads need, where the configuration is known.
    pub(super) write: Option<Write>,
    /// The store's folder, where the configuration is known.
    pub(super) store: Option<Store>,
    /// `base_path`, which is for proxies, where no `trusted_proxies` go with it.
    pub(super) unknown_proxy: Option<String>,
}

/// How the server is reached.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) tls: TlsMode,
    /// Whether the server is on this host, or behind a socket.
    pub(super) is_local: bool,
    /// Whether the server says that this session is encrypted.
    pub(super) is_encrypted: bool,
    /// What answered `SHOW VERSION`, which Postgres does not.
    pub(super) pooler: Option<String>,
    /// Why no connection in replication mode was made.
    pub(super) replication: Option<Refusal>,
}

/// An error, kept.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// The server and its settings.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) version: String,
    pub(super) is_standby: bool,
    pub(super) wal_senders: Quota,
    pub(super) slots: Quota,
    /// `max_slot_wal_keep_size`; `None`: unlimited.
    pub(super) slot_wal_bytes_max: Option<u64>,
    pub(super) wal_bytes_per_second: u64,
    pub(super) wal_sender_timeout: Duration,
    /// `None`: the server has no such setting.
    pub(super) idle_slot_timeout: Option<Duration>,
}

/// How many there may be, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    pub(super) allowed: u64,
    pub(super) taken: u64,
}

impl Quota {
    pub(super) fn free(self) -> u64 {
        self.allowed.saturating_sub(self.taken)
    }
}

/// The server's clock beside this host's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) apart: Duration,
    /// Half of the time the question took: the clocks are apart by no less and no more than this beside `apart`.
    pub(super) uncertainty: Duration,
    /// Whether this host is the one that is late.
    pub(super) server_is_ahead: bool,
}

/// A replication slot.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) is_active: bool,
    /// Whether its WAL is gone.
    pub(super) is_lost: bool,
    pub(super) retained_bytes: u64,
}

/// What the rules' own check of the source found.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The role, as Postgres calls it.
    pub(super) role: String,
    pub(super) inspection: Inspection,
    /// Tables which the rules name one by one and which could be published, quoted for SQL.
    pub(super) publishable: Vec<String>,
    /// Whether the rules name tables by the beginning of their names, so that any could be meant.
    pub(super) has_wildcards: bool,
    /// Findings about the database, and about names in the rules that it does not have.
    pub(super) found: Vec<Diagnostic>,
    /// The rules file and how many errors it has; `None`: it was not given, and all published tables are meant.
    pub(super) rules: Option<Rules>,
}

/// The rules.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) file: String,
    pub(super) error_count: usize,
}

/// What uploads need.
#[derive(Debug, Clone)]
pub(super) struct Write {
    /// Who the service logs in as for uploads.
    pub(super) login: String,
    /// Why it cannot log in.
    pub(super) refusal: Option<Refusal>,
    pub(super) ledger: Ledger,
    /// `write.role`.
    pub(super) role: Option<WriteRole>,
    /// Whether the rules let devices write at all.
    pub(super) has_rules: bool,
}

/// Where answers to uploads and conflicts are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ledger {
    Missing,
    /// The login may not use it.
    Closed,
    Open,
}

/// The role uploads run as.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteRole {
    pub(super) name: String,
    pub(super) exists: bool,
    /// Whether the login may become it.
    pub(super) is_granted: bool,
    /// Superuser, or BYPASSRLS.
    pub(super) is_above_rls: bool,
    /// Tables that devices write to and that it owns, quoted for SQL: row-level security does not bind an owner.
    pub(super) owned: Vec<String>,
}

/// The folder of the store.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) folder: PathBuf,
    /// Why no file can be made there.
    pub(super) refusal: Option<String>,
    /// On its file system; `None`: unknown.
    pub(super) free_bytes: Option<u64>,
}
