//! The sections of the configuration.

use std::{
    fmt::Write,
    fs,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Config, DEFAULT_DATA_DIR, DEFAULT_PORT, Limits, RulesOrigin, RulesText, StorageRates, WriteConfig, auth, check,
    environment::Environment,
    error::{ConfigError, Place, Problem},
    section::{Section, missing},
    traces,
    yaml::{self, Node},
};
use crate::{
    auth::address::AddressRange,
    postgres::{Failover, PgError, SourceConfig, TlsMode},
    rate_limit::{RateLimits, Rates},
    secret::Secret,
    traces::ARE_BUILT_IN,
    write::TransactionPolicy,
};

/// What is served before anything is deployed over HTTP.
const NO_RULES: &str = "bucket_definitions: {}";

/// What the sections are read with.
pub(super) struct Context<'a> {
    path: &'a Path,
    /// The file as a whole.
    pub(super) whole: Place,
    pub(super) warnings: Vec<String>,
}

pub(super) fn read_file(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| {
        let place = Place { file: path.display().to_string().into(), line: 0, column: 0 };
        ConfigError { place, problem: Problem::Unreadable(error.to_string()) }
    })
}

pub(super) fn config(text: &str, path: &Path, environment: &dyn Environment) -> Result<Config, ConfigError> {
    let file: Arc<str> = path.display().to_string().into();
    let whole = Place { file: Arc::clone(&file), line: 0, column: 0 };
    let mut warnings = Vec::new();
    let settings = check::settings(yaml::parse(text, &file, environment)?, environment, &mut warnings)?;
    let mut root = settings.into_section()?;
    let mut context = Context { path, whole, warnings };
    let source = context.source(&mut root)?;
    let (auth, auth_settings) = auth::auth(&mut context, &mut root, &source)?;
    let config = Config {
        rules: context.rules(&mut root)?,
        port: root.number("port")?.map_or(DEFAULT_PORT, as_port),
        base_path: base_path(&mut root)?,
        serves_mirror: root.flag("mirror")?.unwrap_or(false),
        trusted_proxies: trusted_proxies(&mut root)?,
        drain: Duration::from_secs(root.number("drain_seconds")?.unwrap_or_default()),
        data_dir: context.data_dir(&mut root)?,
        storage: storage(&mut root)?,
        auth,
        auth_settings,
        write: write(&mut root, &source)?,
        limits: limits(&mut root)?,
        admin_tokens: admin_tokens(&mut root)?,
        traces: traces::traces(&mut root, ARE_BUILT_IN)?,
        source,
        warnings: Vec::new(),
    };
    Ok(Config { warnings: context.warnings, ..config })
}

impl Context<'_> {
    fn source(&mut self, root: &mut Section) -> Result<SourceConfig, ConfigError> {
        let connections = root.section("replication")?.take("connections");
        let connections = connections.ok_or_else(|| {
            missing(self.whole.clone(), "replication.connections", "add one with `uri`, or set DATABASE_URL")
        })?;
        let place = connections.place.clone();
        let Some(connection) = connections.into_list()?.pop() else {
            return Err(missing(place, "replication.connections", "add one with `uri`"));
        };
        connection_of(connection.into_section()?, &place)
    }

    fn rules(&mut self, root: &mut Section) -> Result<RulesText, ConfigError> {
        let missing = |place| missing(place, "sync_config", "add `path` (or `content`) with the rules below it");
        let node = root.take("sync_config").ok_or_else(|| missing(self.whole.clone()))?;
        let place = node.place.clone();
        let mut section = node.into_section()?;
        let path = section.take("path");
        let content = section.text("content")?;
        let by_api = section.take("by_api");
        if let Some(by_api) = by_api {
            let setting = by_api.setting();
            if by_api.into_flag()? {
                if path.is_some() || content.is_some() {
                    return Err(setting.invalid("stands beside `path` or `content`: keep one of them"));
                }
                let (file, text) = ("the rules deployed over HTTP".to_owned(), NO_RULES.to_owned());
                return Ok(RulesText { file, text, origin: RulesOrigin::Api });
            }
        }
        match (path, content) {
            (Some(path), _) => {
                let place = path.place.clone();
                let file = self.path_of(path)?;
                let text = read_file(&file).map_err(|error| ConfigError {
                    place,
                    problem: Problem::Unreadable(format!("{}: {}", file.display(), error.problem)),
                })?;
                Ok(RulesText { file: file.display().to_string(), text, origin: RulesOrigin::File(file) })
            }
            (None, Some(text)) => Ok(RulesText {
                file: format!("{}: sync_config.content", self.whole),
                text,
                origin: RulesOrigin::Config,
            }),
            (None, None) => Err(missing(place)),
        }
    }

    /// A path in a file is beside that.
    fn path_of(&self, node: Node) -> Result<PathBuf, ConfigError> {
        let is_in_file = *node.place.file != *check::ENVIRONMENT;
        let path = node.into_text()?;
        let folder = self.path.parent().filter(|_| is_in_file);
        Ok(folder.unwrap_or(Path::new("")).join(path))
    }

    fn data_dir(&self, root: &mut Section) -> Result<PathBuf, ConfigError> {
        root.take("data_dir").map_or_else(|| Ok(PathBuf::from(DEFAULT_DATA_DIR)), |node| self.path_of(node))
    }
}

fn base_path(root: &mut Section) -> Result<Option<String>, ConfigError> {
    let Some(node) = root.take("base_path") else { return Ok(None) };
    let invalid = node.invalid("must be a path such as /sync-api: letters, digits and -._~ between slashes");
    let path = node.into_text()?;
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Ok(None);
    }
    let is_plain = |segment: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        !segment.is_empty() && segment.chars().all(plain)
    };
    if !path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain)) {
        return Err(invalid);
    }
    Ok(Some(path.to_owned()))
}

/// Tokens for administration. Limits written for the PowerSync service are not taken over: its defaults are those of
/// another design.
fn admin_tokens(root: &mut Section) -> Result<Vec<Secret>, ConfigError> {
    let Some(node) = root.section("api")?.take("tokens") else { return Ok(Vec::new()) };
    let invalid = node.invalid("must be text without blanks: others cannot stand in a header");
    let tokens = node.into_texts()?;
    if tokens.iter().any(|token| token.is_empty() || token.contains(char::is_whitespace)) {
        return Err(invalid);
    }
    Ok(tokens.into_iter().map(Secret::new).collect())
}

fn connection_of(mut section: Section, place: &Place) -> Result<SourceConfig, ConfigError> {
    let uri = match section.take("uri") {
        Some(uri) => Some((uri.place.clone(), uri.into_text()?)),
        None => None,
    };
    let (host, user, database) = (section.text("hostname")?, section.text("username")?, section.text("database")?);
    let port = section.number("port")?.map(as_port);
    let (uri_place, uri) = match uri {
        Some(uri) => uri,
        None => (place.clone(), uri_of(host.as_deref(), user.as_deref(), database.as_deref(), place)?),
    };
    let mut source = SourceConfig::from_uri(&uri).map_err(|error| source_error(&uri_place, error))?;
    source.host = host.unwrap_or(source.host);
    source.user = user.unwrap_or(source.user);
    source.database = database.unwrap_or(source.database);
    source.port = port.unwrap_or(source.port);
    connection_details(&mut section, &mut source)?;
    Ok(source)
}

fn connection_details(section: &mut Section, source: &mut SourceConfig) -> Result<(), ConfigError> {
    if let Some(password) = section.text("password")? {
        source.password = Some(Secret::new(password));
    }
    if let Some(mode) = section.text("sslmode")? {
        source.tls = match mode.as_str() {
            "disable" => TlsMode::Disable,
            "verify-ca" => TlsMode::VerifyCa,
            _ => TlsMode::VerifyFull,
        };
    }
    source.ca_certificate = section.text("cacert")?;
    source.tls_server_name = section.text("tls_servername")?;
    if let Some(names) = section.take("publication") {
        source.publications = publications(&names)?;
    }
    if let Some(prefix) = section.take("slot_name_prefix") {
        source.slot_prefix = slot_prefix(&prefix)?;
    }
    if let Some(seconds) = section.number("connect_timeout")? {
        source.connect_timeout = Duration::from_secs(seconds);
    }
    if let Some(count) = section.number("snapshot_connections")? {
        source.snapshot.connections = usize::try_from(count).unwrap_or(1);
    }
    if let Some(speed) = section.number("snapshot_bytes_per_second")? {
        source.snapshot.bytes_per_second = NonZeroU64::new(speed);
    }
    if let Some(failover) = section.text("failover")? {
        source.failover = match failover.as_str() {
            "true" => Failover::On,
            "false" => Failover::Off,
            _ => Failover::Auto,
        };
    }
    if let Some(bytes) = section.number("slot_wal_budget_bytes")? {
        source.slot_wal_budget = NonZeroU64::new(bytes);
    }
    if let Some(seconds) = section.number("heartbeat_interval_seconds")? {
        source.heartbeat = Some(Duration::from_secs(seconds));
    }
    Ok(())
}

fn write(root: &mut Section, source: &SourceConfig) -> Result<WriteConfig, ConfigError> {
    let mut section = root.section("write")?;
    let uri = section.take("uri");
    let role = section.text("role")?;
    let mut days = |key, default| -> Result<Duration, ConfigError> {
        Ok(Duration::from_hours(section.number(key)?.unwrap_or(default) * 24))
    };
    let remember_for = days("remember_days", 7)?;
    let keep_conflicts_for = days("conflict_history_days", 90)?;
    let transaction = match section.text("transaction")?.as_deref() {
        Some("tx_id") => TransactionPolicy::TxId,
        _ => TransactionPolicy::Batch,
    };
    let config = WriteConfig { source: source.clone(), role, transaction, remember_for, keep_conflicts_for };
    let Some(uri) = uri else { return Ok(config) };
    let place = uri.place.clone();
    let write = SourceConfig::from_uri(&uri.into_text()?).map_err(|error| source_error(&place, error))?;
    // The same server, as another role: how it is reached is said once.
    Ok(WriteConfig { source: write.reached_like(source), ..config })
}

fn storage(root: &mut Section) -> Result<StorageRates, ConfigError> {
    let defaults = StorageRates::default();
    let mut section = root.section("storage")?;
    let mut rate = |name, default| Ok::<u64, ConfigError>(section.number(name)?.unwrap_or(default));
    Ok(StorageRates {
        compaction_bytes_per_second: rate("compaction_bytes_per_second", defaults.compaction_bytes_per_second)?,
        scrub_bytes_per_second: rate("scrub_bytes_per_second", defaults.scrub_bytes_per_second)?,
    })
}

fn limits(root: &mut Section) -> Result<Limits, ConfigError> {
    let defaults = Limits::default();
    let mut section = root.section("limits")?;
    let mut limit = |key, default: usize| {
        let number = section.number(key)?;
        Ok(number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default))
    };
    let limits = Limits {
        connection_count_max: limit("connections_max", defaults.connection_count_max)?,
        bucket_count_max: limit("buckets_per_connection_max", defaults.bucket_count_max)?,
        fetch_concurrency_max: limit("fetch_concurrency_max", defaults.fetch_concurrency_max)?,
        shared_bytes_max: limit("shared_bytes_max", defaults.shared_bytes_max)?,
        body_bytes_max: limit("body_bytes_max", defaults.body_bytes_max)?,
        checkpoint_interval_min: section
            .number("checkpoint_interval_ms")?
            .map_or(defaults.checkpoint_interval_min, Duration::from_millis),
        rate: rate_limits(section.section("rate")?)?,
    };
    Ok(limits)
}

fn rate_limits(mut section: Section) -> Result<RateLimits, ConfigError> {
    let defaults = RateLimits::default();
    let limits = RateLimits {
        device: rates(section.section("device")?, &defaults.device)?,
        user: rates(section.section("user")?, &defaults.user)?,
        address: rates(section.section("address")?, &defaults.address)?,
        refused_tokens_per_minute: rate(&mut section, "refused_tokens_per_minute", defaults.refused_tokens_per_minute)?,
    };
    Ok(limits)
}

fn rates(mut section: Section, defaults: &Rates) -> Result<Rates, ConfigError> {
    let mut rate = |key, default| rate(&mut section, key, default);
    let rates = Rates {
        uploads_per_minute: rate("uploads_per_minute", defaults.uploads_per_minute)?,
        operations_per_minute: rate("operations_per_minute", defaults.operations_per_minute)?,
        streams_per_minute: rate("streams_per_minute", defaults.streams_per_minute)?,
        write_checkpoints_per_minute: rate("write_checkpoints_per_minute", defaults.write_checkpoints_per_minute)?,
    };
    Ok(rates)
}

/// 0: no bound.
fn rate(section: &mut Section, key: &'static str, default: u32) -> Result<u32, ConfigError> {
    let number = section.number(key)?;
    Ok(number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default))
}

fn trusted_proxies(root: &mut Section) -> Result<Vec<AddressRange>, ConfigError> {
    let Some(node) = root.take("trusted_proxies") else { return Ok(Vec::new()) };
    let invalid = |()| node.invalid("must hold ranges like 10.0.0.0/8, or single addresses");
    node.clone().into_texts()?.iter().map(|text| text.parse().map_err(invalid)).collect()
}

fn source_error(place: &Place, error: PgError) -> ConfigError {
    ConfigError { place: place.clone(), problem: error.into() }
}

fn as_port(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn publications(node: &Node) -> Result<Vec<String>, ConfigError> {
    let names = node.clone().into_texts()?;
    if names.is_empty() || names.iter().any(String::is_empty) {
        return Err(node.invalid("must be the name of a publication, or a list of names"));
    }
    Ok(names)
}

/// Slot names have lower-case letters, digits and underscores, and at most 63 of them with what we append.
fn slot_prefix(node: &Node) -> Result<String, ConfigError> {
    let text = node.clone().into_text()?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=40).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text);
    }
    Err(node.invalid("must be 1 to 40 lower-case letters, digits and underscores"))
}

/// The URI of a connection that is given by its parts.
fn uri_of(
    host: Option<&str>,
    user: Option<&str>,
    database: Option<&str>,
    place: &Place,
) -> Result<String, ConfigError> {
    match (host, user, database) {
        (Some(host), Some(user), Some(database)) => {
            Ok(format!("postgresql://{}@{host}/{}", percent_encoded(user), percent_encoded(database)))
        }
        _ => Err(missing(
            place.clone(),
            "replication.connections[0].uri",
            "write it, or hostname, database, username and password",
        )),
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes all");
        }
        encoded
    })
}
