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
    Config, DEFAULT_DATA_DIR, DEFAULT_PORT, Limits, RulesOrigin, RulesText, WriteConfig, auth,
    environment::Environment,
    error::{ConfigError, Place, Problem},
    section::{Section, missing},
    yaml::{self, Node, Value},
};
use crate::{
    auth::address::AddressRange,
    postgres::{Failover, PgError, SourceConfig, TlsMode},
    rate_limit::{RateLimits, Rates},
    secret::Secret,
    write::TransactionPolicy,
};

/// What is served before anything is deployed over HTTP.
const NO_RULES: &str = "bucket_definitions: {}";

/// What the sections are read with.
pub(super) struct Context<'a> {
    pub(super) environment: &'a dyn Environment,
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
    let mut root = yaml::parse(text, &file, environment)?.into_section()?;
    let mut context = Context { environment, path, whole, warnings: Vec::new() };
    let source = context.source(&mut root)?;
    let (auth, auth_settings) = auth::auth(&mut context, &mut root, &source)?;
    let config = Config {
        rules: context.rules(&mut root)?,
        port: context.port(&mut root)?,
        base_path: context.base_path(&mut root)?,
        trusted_proxies: trusted_proxies(&mut root)?,
        data_dir: context.data_dir(&mut root)?,
        auth,
        auth_settings,
        write: write(&mut root, &source)?,
        limits: limits(&mut root)?,
        admin_tokens: context.api(&mut root)?,
        source,
        warnings: Vec::new(),
    };
    context.unneeded(&mut root);
    root.finish()?;
    Ok(Config { warnings: context.warnings, ..config })
}

impl Context<'_> {
    fn source(&mut self, root: &mut Section) -> Result<SourceConfig, ConfigError> {
        let mut replication = root.section("replication")?;
        let connections = replication.take("connections");
        replication.finish()?;
        let Some(connections) = connections else { return self.source_of_environment() };
        let place = connections.place.clone();
        let mut list = connections.clone().into_list()?;
        let (Some(connection), true) = (list.pop(), list.is_empty()) else {
            return Err(connections.invalid("must hold exactly one connection"));
        };
        self.connection(connection.into_section()?, &place)
    }

    fn source_of_environment(&self) -> Result<SourceConfig, ConfigError> {
        let uri = ["POWERSYNC_DATABASE_URL", "DATABASE_URL"].iter().find_map(|name| self.environment.variable(name));
        let uri = uri.ok_or_else(|| {
            missing(self.whole.clone(), "replication.connections", "add one with `uri`, or set DATABASE_URL")
        })?;
        SourceConfig::from_uri(&uri).map_err(|error| source_error(&self.whole, error))
    }

    fn connection(&mut self, mut section: Section, place: &Place) -> Result<SourceConfig, ConfigError> {
        if let Some(kind) = section.take("type")
            && kind.clone().into_text()? != "postgresql"
        {
            return Err(kind.invalid("must be postgresql: other databases are not supported"));
        }
        let uri = match section.take("uri") {
            Some(uri) => Some((uri.place.clone(), uri.into_text()?)),
            None => None,
        };
        let (host, user, database) = (section.text("hostname")?, section.text("username")?, section.text("database")?);
        let port = section.number("port", 1, u64::from(u16::MAX))?.map(as_port);
        let (uri_place, uri) = match uri {
            Some(uri) => uri,
            None => (place.clone(), uri_of(host.as_deref(), user.as_deref(), database.as_deref(), place)?),
        };
        let mut source = SourceConfig::from_uri(&uri).map_err(|error| source_error(&uri_place, error))?;
        source.host = host.unwrap_or(source.host);
        source.user = user.unwrap_or(source.user);
        source.database = database.unwrap_or(source.database);
        source.port = port.unwrap_or(source.port);
        self.connection_details(&mut section, &mut source)?;
        section.finish()?;
        Ok(source)
    }

    fn connection_details(&mut self, section: &mut Section, source: &mut SourceConfig) -> Result<(), ConfigError> {
        if let Some(password) = section.text("password")? {
            source.password = Some(Secret::new(password));
        }
        if let Some(mode) = section.take("sslmode") {
            source.tls = match mode.clone().into_text()?.as_str() {
                "disable" => TlsMode::Disable,
                "verify-ca" => TlsMode::VerifyCa,
                "verify-full" => TlsMode::VerifyFull,
                _ => return Err(mode.invalid("must be disable, verify-ca or verify-full")),
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
        if let Some(seconds) = section.number("connect_timeout", 1, 3600)? {
            source.connect_timeout = Duration::from_secs(seconds);
        }
        if let Some(count) = section.number("snapshot_connections", 1, 16)? {
            source.snapshot.connections = usize::try_from(count).unwrap_or(1);
        }
        if let Some(speed) = section.number("snapshot_bytes_per_second", 10_000, u64::MAX >> 1)? {
            source.snapshot.bytes_per_second = NonZeroU64::new(speed);
        }
        if let Some(failover) = section.take("failover") {
            source.failover = as_failover(&failover)?;
        }
        if let Some(bytes) = section.number("slot_wal_budget_bytes", 1 << 20, u64::MAX >> 1)? {
            source.slot_wal_budget = NonZeroU64::new(bytes);
        }
        if let Some(seconds) = section.number("heartbeat_interval_seconds", 5, 60)? {
            source.heartbeat = Some(Duration::from_secs(seconds));
        }
        for (key, why) in [
            ("id", "there is one connection"),
            ("tag", "there is one connection"),
            ("max_pool_size", "pools are sized by the service"),
            ("snapshot_socket_timeout", "deadlines are set by the service"),
            ("debug_api", "there is no SQL endpoint"),
            ("client_certificate", "client certificates are not supported yet"),
            ("client_private_key", "client certificates are not supported yet"),
            ("reject_ip_ranges", "address ranges are not checked yet"),
        ] {
            section.unneeded(key, why, &mut self.warnings);
        }
        Ok(())
    }

    fn rules(&mut self, root: &mut Section) -> Result<RulesText, ConfigError> {
        let newer = root.take("sync_config");
        let older = root.take("sync_rules");
        let node = match (newer, older) {
            (Some(_), Some(older)) => return Err(older.invalid("stands beside sync_config: keep one of them")),
            (node, other) => node.or(other),
        };
        let missing = |place| missing(place, "sync_config", "add `path` (or `content`) with the rules below it");
        let Some(node) = node else {
            let path = self.environment.variable("KAIROS_SYNC_RULES").ok_or_else(|| missing(self.whole.clone()))?;
            let origin = RulesOrigin::File(PathBuf::from(&path));
            return Ok(RulesText { text: read_file(Path::new(&path))?, file: path, origin });
        };
        let place = node.place.clone();
        let mut section = node.into_section()?;
        let path = section.take("path");
        let content = section.text("content")?;
        let by_api = section.take("by_api");
        section.unneeded("exit_on_error", "rules with a mistake always stop the start", &mut self.warnings);
        section.finish()?;
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
                let file = self.beside_config(&path.into_text()?);
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

    fn beside_config(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn port(&self, root: &mut Section) -> Result<u16, ConfigError> {
        if let Some(port) = root.number("port", 1, u64::from(u16::MAX))? {
            return Ok(as_port(port));
        }
        let Some(text) = self.environment.variable("PS_PORT") else { return Ok(DEFAULT_PORT) };
        text.parse().ok().filter(|port| *port > 0).ok_or_else(|| ConfigError {
            place: self.whole.clone(),
            problem: Problem::InvalidValue { key: "PS_PORT".to_owned(), expected: "must be a port".to_owned() },
        })
    }

    fn base_path(&self, root: &mut Section) -> Result<Option<String>, ConfigError> {
        let expected = "must be a path such as /sync-api: letters, digits and -._~ between slashes";
        let (path, invalid) = if let Some(node) = root.take("base_path") {
            let invalid = node.invalid(expected);
            (node.into_text()?, invalid)
        } else {
            let problem = Problem::InvalidValue { key: "KAIROS_BASE_PATH".to_owned(), expected: expected.to_owned() };
            let path = self.environment.variable("KAIROS_BASE_PATH").unwrap_or_default();
            (path, ConfigError { place: self.whole.clone(), problem })
        };
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

    fn data_dir(&self, root: &mut Section) -> Result<PathBuf, ConfigError> {
        let configured = root.text("data_dir")?.map(|path| self.beside_config(&path));
        let from_environment = || self.environment.variable("KAIROS_DATA_DIR").map(PathBuf::from);
        Ok(configured.or_else(from_environment).unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)))
    }

    /// Tokens for administration. Limits written for the PowerSync service are not taken over: its defaults are those of
    /// another design.
    fn api(&mut self, root: &mut Section) -> Result<Vec<Secret>, ConfigError> {
        let mut section = root.section("api")?;
        let tokens = section.take("tokens");
        section.unneeded("parameters", "bounds are set in the section limits", &mut self.warnings);
        section.finish()?;
        let expected = "must be text without blanks: others cannot stand in a header";
        let (tokens, invalid) = if let Some(node) = tokens {
            let invalid = node.invalid(expected);
            (node.into_texts()?, invalid)
        } else {
            let problem = Problem::InvalidValue { key: "KAIROS_ADMIN_TOKEN".to_owned(), expected: expected.to_owned() };
            let token = self.environment.variable("KAIROS_ADMIN_TOKEN");
            (token.into_iter().collect(), ConfigError { place: self.whole.clone(), problem })
        };
        if tokens.iter().any(|token| token.is_empty() || token.contains(char::is_whitespace)) {
            return Err(invalid);
        }
        Ok(tokens.into_iter().map(Secret::new).collect())
    }

    fn unneeded(&mut self, root: &mut Section) {
        for (key, why) in [
            ("storage", "the embedded bucket store in data_dir needs no database"),
            ("telemetry", "nothing is ever sent; metrics are at /metrics of the service's port"),
            ("migrations", "the bucket store upgrades itself"),
            ("healthcheck", "the probes are always served over HTTP"),
            ("system", "set PS_LOG_LEVEL and PS_LOG_FORMAT"),
        ] {
            root.unneeded(key, why, &mut self.warnings);
        }
        // Free text for the operator's own use.
        for key in ["metadata", "parameters"] {
            root.take(key);
        }
    }
}

fn write(root: &mut Section, source: &SourceConfig) -> Result<WriteConfig, ConfigError> {
    let mut section = root.section("write")?;
    let uri = section.take("uri");
    let role = section.text("role")?;
    let mut days = |key, default| -> Result<Duration, ConfigError> {
        Ok(Duration::from_hours(section.number(key, 1, 3650)?.unwrap_or(default) * 24))
    };
    let remember_for = days("remember_days", 7)?;
    let keep_conflicts_for = days("conflict_history_days", 90)?;
    let transaction = section.take("transaction").as_ref().map_or(Ok(TransactionPolicy::default()), transaction)?;
    section.finish()?;
    let config = WriteConfig { source: source.clone(), role, transaction, remember_for, keep_conflicts_for };
    let Some(uri) = uri else { return Ok(config) };
    let place = uri.place.clone();
    let write = SourceConfig::from_uri(&uri.into_text()?).map_err(|error| source_error(&place, error))?;
    // The same server, as another role: how it is reached is said once.
    Ok(WriteConfig { source: write.reached_like(source), ..config })
}

fn transaction(node: &Node) -> Result<TransactionPolicy, ConfigError> {
    match &node.value {
        Value::Text(text) if text == "batch" => Ok(TransactionPolicy::Batch),
        Value::Text(text) if text == "tx_id" => Ok(TransactionPolicy::TxId),
        _ => Err(node.invalid("must be batch or tx_id")),
    }
}

fn limits(root: &mut Section) -> Result<Limits, ConfigError> {
    let defaults = Limits::default();
    let mut section = root.section("limits")?;
    let mut limit = |key, max: usize, default: usize| {
        let number = section.number(key, 1, max as u64)?;
        Ok(number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default))
    };
    let limits = Limits {
        connection_count_max: limit("connections_max", 1_000_000, defaults.connection_count_max)?,
        bucket_count_max: limit("buckets_per_connection_max", 1_000_000, defaults.bucket_count_max)?,
        fetch_concurrency_max: limit("fetch_concurrency_max", 1000, defaults.fetch_concurrency_max)?,
        shared_bytes_max: limit("shared_bytes_max", 1 << 34, defaults.shared_bytes_max)?,
        body_bytes_max: limit("body_bytes_max", 1 << 30, defaults.body_bytes_max)?,
        checkpoint_interval_min: section
            .number("checkpoint_interval_ms", 0, 60_000)?
            .map_or(defaults.checkpoint_interval_min, Duration::from_millis),
        rate: rate_limits(section.section("rate")?)?,
    };
    section.finish()?;
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
    section.finish()?;
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
    section.finish()?;
    Ok(rates)
}

/// 0: no bound.
fn rate(section: &mut Section, key: &'static str, default: u32) -> Result<u32, ConfigError> {
    let number = section.number(key, 0, u64::from(u32::MAX))?;
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

fn as_failover(node: &Node) -> Result<Failover, ConfigError> {
    match &node.value {
        Value::Bool(true) => Ok(Failover::On),
        Value::Bool(false) => Ok(Failover::Off),
        Value::Text(text) if text == "auto" => Ok(Failover::Auto),
        _ => Err(node.invalid("must be auto, true or false")),
    }
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
