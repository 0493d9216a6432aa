//! The configuration: one file, the environment, one typed [`Config`].
//!
//! Text becomes a tree in which every value knows its line ([`yaml`]), with `!env` tags replaced; it is compared with the
//! table of all [`settings`] ([`check`]), where the environment fills in what it does not say; then its sections are
//! taken apart ([`section`]). A file written for the PowerSync service works as it is: settings which are not needed
//! here give a warning. The table is also what editors and the page of settings get ([`describe`]).
//!
//! **Invariants**
//!
//! - A configuration with a mistake is refused, with file, line, column and what to write instead.
//! - Every bound has a default, named here; every secret is a [`Secret`](crate::secret::Secret).
//! - Nothing else in the service reads the environment; the exporter of traces has its standard variables.
//!
//! Start reading at [`Config::load`].

mod auth;
mod check;
mod describe;
mod environment;
mod error;
mod introspection;
mod parse;
mod section;
mod settings;
mod traces;
mod yaml;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use describe::{reference, schema};
pub use environment::{Environment, ProcessEnvironment};
pub use error::{ConfigError, Place, Problem};

use crate::{
    auth::{AuthConfig, address::AddressRange},
    postgres::SourceConfig,
    rate_limit::RateLimits,
    secret::Secret,
    storage::SqliteOptions,
    traces::TracesConfig,
    write::TransactionPolicy,
};

/// Port of the service where none is configured.
pub const DEFAULT_PORT: u16 = 8080;
/// Where the bucket store goes where nothing is configured.
pub const DEFAULT_DATA_DIR: &str = "./kairos-data";

/// As what the service appears in traces where nothing is configured.
pub const DEFAULT_SERVICE_NAME: &str = "kairos-sync";

/// A whole file as base64.
const CONFIG_B64: &str = "POWERSYNC_CONFIG_B64";

/// Everything the service must be told.
#[derive(Clone)]
pub struct Config {
    /// The source database.
    pub source: SourceConfig,
    /// The sync rules.
    pub rules: RulesText,
    /// Port of the HTTP server.
    pub port: u16,
    /// Under which everything is served as well: `/sync-api` behind a proxy that keeps it. Begins with a slash and does
    /// not end with one.
    pub base_path: Option<String>,
    /// Whether the mirror is served, a page for the sample app's habits.
    pub serves_mirror: bool,
    /// Proxies whose `X-Forwarded-For` says where requests come from.
    pub trusted_proxies: Vec<AddressRange>,
    /// How long everything is still served once the service is asked to stop.
    pub drain: Duration,
    /// Folder of the embedded bucket store.
    pub data_dir: PathBuf,
    /// How fast that looks after itself.
    pub storage: StorageRates,
    /// Whose tokens are accepted.
    pub auth: AuthConfig,
    /// Where that is said.
    pub auth_settings: AuthSettings,
    /// How uploads are written.
    pub write: WriteConfig,
    /// Bounds.
    pub limits: Limits,
    /// Tokens for administration; without one nobody may.
    pub admin_tokens: Vec<Secret>,
    /// Where traces go; `None`: nowhere.
    pub traces: Option<TracesConfig>,
    /// What was read but changes nothing, with its place. To be logged once.
    pub warnings: Vec<String>,
}

/// A setting and where it stands, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key with the path to it, or the environment variable.
    pub key: String,
    /// Where it stands, or should stand.
    pub place: Place,
}

/// Where it is said whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSettings {
    /// The whole section.
    pub whole: Setting,
    /// For each source of keys, in their order.
    pub sources: Vec<SourceSettings>,
    /// For each issuer that is asked about tokens, in their order.
    pub introspections: Vec<Setting>,
}

/// Where a source of keys is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    /// The keys, or where they are.
    pub keys: Setting,
    /// Which audience their tokens must have.
    pub audience: Setting,
    /// Which issuer their tokens must have.
    pub issuer: Setting,
}

/// The text of the sync rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesText {
    /// The file they are in, for messages.
    pub file: String,
    /// The text.
    pub text: String,
    /// Where other ones come from while the service runs.
    pub origin: RulesOrigin,
}

/// Where rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulesOrigin {
    /// A file of their own, which is read again when it changes.
    File(PathBuf),
    /// The configuration, which is read at start only.
    Config,
    /// Those who may deploy over HTTP. The store keeps what they deployed; before that there are none.
    Api,
}

/// How uploads are written.
#[derive(Clone)]
pub struct WriteConfig {
    /// The connection they are written through: that of the replication unless another one is configured.
    pub source: SourceConfig,
    /// The role they run as. `None`: that of the connection, and row-level security may not apply.
    pub role: Option<String>,
    /// How long answers are remembered, so that a repeated upload has one effect.
    pub remember_for: Duration,
    /// How long conflicts are kept that were decided.
    pub keep_conflicts_for: Duration,
    /// What of a batch is committed at once.
    pub transaction: TransactionPolicy,
}

/// How fast the bucket store works by itself, beside everything else; 0: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageRates {
    /// Bytes that compaction reads and writes in a second.
    pub compaction_bytes_per_second: u64,
    /// Bytes that are read in a second to find damage.
    pub scrub_bytes_per_second: u64,
}

impl Default for StorageRates {
    fn default() -> Self {
        let SqliteOptions { compaction, scrub_bytes_per_second, .. } = SqliteOptions::default();
        Self { compaction_bytes_per_second: compaction.bytes_per_second, scrub_bytes_per_second }
    }
}

/// Bounds of one service process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open sync streams.
    pub connection_count_max: usize,
    /// Buckets one client may have.
    pub bucket_count_max: usize,
    /// Reads of the store under way at once.
    pub fetch_concurrency_max: usize,
    /// Bytes of encoded operations that are kept in memory because several clients may need them.
    pub shared_bytes_max: usize,
    /// Least time between two checkpoints of one client.
    pub checkpoint_interval_min: Duration,
    /// Largest body of a request. A client with 10,000 buckets sends about one megabyte to open its stream.
    pub body_bytes_max: usize,
    /// What one client may ask for in a minute.
    pub rate: RateLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection_count_max: 10_000,
            bucket_count_max: 10_000,
            fetch_concurrency_max: 4,
            shared_bytes_max: 8 * 1024 * 1024,
            checkpoint_interval_min: Duration::from_millis(10),
            body_bytes_max: 16 * 1024 * 1024,
            rate: RateLimits::default(),
        }
    }
}

impl Config {
    /// Reads the configuration: `path`, else `POWERSYNC_CONFIG_B64`, else `POWERSYNC_CONFIG_PATH`, else `kairos.yaml` or
    /// `powersync.yaml` in the working directory, else what the environment alone says.
    ///
    /// # Errors
    /// [`ConfigError`] at the first mistake.
    pub fn load(path: Option<&Path>, environment: &dyn Environment) -> Result<Self, ConfigError> {
        if let Some(encoded) = environment.variable(CONFIG_B64).filter(|_| path.is_none()) {
            return Self::parse(&check::decoded(CONFIG_B64, &encoded)?, Path::new(CONFIG_B64), environment);
        }
        let given = path.map(Path::to_path_buf);
        let configured = given.or_else(|| environment.variable("POWERSYNC_CONFIG_PATH").map(PathBuf::from));
        let usual = || ["kairos.yaml", "powersync.yaml"].map(PathBuf::from).into_iter().find(|path| path.is_file());
        match configured.or_else(usual) {
            Some(path) => Self::parse(&parse::read_file(&path)?, &path, environment),
            None => Self::parse("{}", Path::new(check::ENVIRONMENT), environment),
        }
    }

    /// Reads configuration text. `path` names it in messages; paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigError`] at the first mistake.
    pub fn parse(text: &str, path: &Path, environment: &dyn Environment) -> Result<Self, ConfigError> {
        parse::config(text, path, environment)
    }
}

#[cfg(test)]
mod settings_tests;
#[cfg(test)]
mod tests;
