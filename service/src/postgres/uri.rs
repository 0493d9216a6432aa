//! Connection URIs: `postgresql://role:password@host:port/database?parameter=value`.

use std::{path::PathBuf, time::Duration};

use crate::{
    postgres::{
        error::PgError,
        source::{Failover, SnapshotOptions, SourceConfig, TlsMode},
    },
    secret::Secret,
};

const DEFAULT_PORT: u16 = 5432;
/// Long enough for a server that wakes up from a pause, short enough to notice a wrong address.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const DEFAULT_SLOT_PREFIX: &str = "kairos_";
/// So that an idle source's slot does not keep WAL, and a stuck stream is noticed.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);

/// Parameters which other clients understand and which change nothing here.
const IGNORED_PARAMETERS: &[&str] = &[
    "application_name",
    "channel_binding",
    "options",
    "pgbouncer",
    "pool_timeout",
    "connection_limit",
    "schema",
    "target_session_attrs",
    "keepalives",
    "keepalives_idle",
    "sslrootcert",
    "gssencmode",
];

impl SourceConfig {
    /// Reads a connection URI; everything a URI does not say has its default.
    ///
    /// TLS defaults to [`TlsMode::VerifyFull`], and to [`TlsMode::Disable`] on the same host. Modes which other clients
    /// know but which protect nothing (`require`, `prefer`, `allow`) are read as `verify-full`.
    ///
    /// # Errors
    /// [`PgError::Uri`], which quotes nothing of the URI.
    pub fn from_uri(uri: &str) -> Result<Self, PgError> {
        let rest = uri
            .strip_prefix("postgresql://")
            .or_else(|| uri.strip_prefix("postgres://"))
            .ok_or_else(|| refused("it must begin with postgresql://"))?;
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = address.split_once('/').unwrap_or((address, ""));
        // A password may hold an unescaped `@`; a host cannot.
        let (credentials, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (host, port) = split_port(host)?;
        let user = decode(user)?;
        if user.is_empty() {
            return Err(refused("it names no role"));
        }
        let database = decode(database)?;
        let mut config = Self {
            host: decode(host)?,
            port,
            socket_dir: None,
            database: if database.is_empty() { user.clone() } else { database },
            user,
            password: Some(decode(password)?).filter(|text| !text.is_empty()).map(Secret::new),
            tls: TlsMode::VerifyFull,
            ca_certificate: None,
            tls_server_name: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            publications: Vec::new(),
            slot_prefix: DEFAULT_SLOT_PREFIX.to_owned(),
            heartbeat: Some(DEFAULT_HEARTBEAT),
            failover: Failover::default(),
            slot_wal_budget: None,
            snapshot: SnapshotOptions::default(),
        };
        let mut tls = None;
        for parameter in query.split('&').filter(|text| !text.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            config.set_parameter(&decode(name)?, decode(value)?, &mut tls)?;
        }
        config.settle_host(tls)?;
        Ok(config)
    }

    fn set_parameter(&mut self, name: &str, value: String, tls: &mut Option<TlsMode>) -> Result<(), PgError> {
        match name {
            "host" => self.host = value,
            "port" => self.port = parse_port(&value)?,
            "user" => self.user = value,
            "dbname" => self.database = value,
            "password" => self.password = Some(Secret::new(value)),
            "sslmode" => *tls = Some(tls_mode(&value)?),
            "connect_timeout" => {
                let seconds = value.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
                let seconds = seconds.ok_or_else(|| refused("connect_timeout must be 1 to 3600 seconds"))?;
                self.connect_timeout = Duration::from_secs(seconds);
            }
            _ if IGNORED_PARAMETERS.contains(&name) => {}
            _ => return Err(refused("it has a parameter which is not known here")),
        }
        Ok(())
    }

    /// A host that is a path is the folder of a unix socket; TLS depends on where the host is.
    fn settle_host(&mut self, tls: Option<TlsMode>) -> Result<(), PgError> {
        if self.host.is_empty() {
            return Err(refused("it names no host"));
        }
        if self.host.contains(',') {
            return Err(refused("it names several hosts; replication needs one, the primary"));
        }
        if self.host.starts_with('/') {
            self.socket_dir = Some(PathBuf::from(&self.host));
            "localhost".clone_into(&mut self.host);
        }
        let same_host = self.socket_dir.is_some() || matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        self.tls = tls.unwrap_or(if same_host { TlsMode::Disable } else { TlsMode::VerifyFull });
        Ok(())
    }
}

fn refused(problem: &str) -> PgError {
    PgError::Uri(problem.to_owned())
}

fn tls_mode(text: &str) -> Result<TlsMode, PgError> {
    match text {
        "disable" => Ok(TlsMode::Disable),
        "verify-ca" => Ok(TlsMode::VerifyCa),
        "verify-full" | "require" | "prefer" | "allow" => Ok(TlsMode::VerifyFull),
        _ => Err(refused("sslmode must be disable, verify-ca or verify-full")),
    }
}

fn split_port(host: &str) -> Result<(&str, u16), PgError> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or_else(|| refused("its IPv6 address has no closing ]"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((address, parse_port(port)?)),
            None if after.is_empty() => Ok((address, DEFAULT_PORT)),
            None => Err(refused("its port is not a number")),
        };
    }
    match host.split_once(':') {
        Some((host, port)) => Ok((host, parse_port(port)?)),
        None => Ok((host, DEFAULT_PORT)),
    }
}

fn parse_port(text: &str) -> Result<u16, PgError> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| refused("its port is not a number from 1 to 65535"))
}

fn decode(text: &str) -> Result<String, PgError> {
    let invalid = || refused("a % is not followed by two hexadecimal digits; write a literal % as %25");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(invalid);
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).map_err(|_| invalid())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| refused("a part of it is not text when decoded"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn parse(uri: &str) -> SourceConfig {
        SourceConfig::from_uri(uri).expect("a usable URI")
    }

    #[test]
    fn every_part_is_read_and_decoded() {
        let config = parse("postgres://ro%6Ce:p%40ss:w%2Fd@db.example.com:6000/my%20db?connect_timeout=5");
        assert_eq!((config.host.as_str(), config.port), ("db.example.com", 6000));
        assert_eq!((config.user.as_str(), config.database.as_str()), ("role", "my db"));
        assert_eq!(config.password, Some(Secret::new("p@ss:w/d")));
        assert_eq!((config.tls, config.connect_timeout), (TlsMode::VerifyFull, Duration::from_secs(5)));
    }

    #[test]
    fn what_a_uri_leaves_out_has_a_default() {
        let config = parse("postgresql://role@[::1]");
        assert_eq!((config.host.as_str(), config.port, config.database.as_str()), ("::1", 5432, "role"));
        assert_eq!((config.password, config.tls), (None, TlsMode::Disable));
    }

    #[test]
    fn a_host_that_is_a_path_is_a_socket_folder() {
        for uri in ["postgres://role@%2Frun%2Fpg/db", "postgres://role@/db?host=/run/pg"] {
            let config = parse(uri);
            assert_eq!(config.socket_dir.as_deref(), Some(Path::new("/run/pg")));
            assert_eq!(config.tls, TlsMode::Disable);
        }
    }

    #[test]
    fn a_mode_that_verifies_nothing_is_read_as_one_that_does() {
        for (mode, expected) in [
            ("disable", TlsMode::Disable),
            ("require", TlsMode::VerifyFull),
            ("prefer", TlsMode::VerifyFull),
            ("verify-ca", TlsMode::VerifyCa),
        ] {
            assert_eq!(parse(&format!("postgres://role@db/x?sslmode={mode}")).tls, expected, "{mode}");
        }
    }

    #[test]
    fn unusable_uris_are_refused_without_quoting_them() {
        for uri in [
            "mysql://role:hunter2@h/d",
            "postgres://:hunter2@h/d",
            "postgres://role:hunter2@/d",
            "postgres://role:hunter2@h:0/d",
            "postgres://role:hunter2@h:x/d",
            "postgres://role:hunter2%zz@h/d",
            "postgres://role:hunter2@h/d%00",
            "postgres://role:hunter2@a,b/d",
            "postgres://role:hunter2@[::1/d",
            "postgres://role:hunter2@h/d?sslmode=maybe",
            "postgres://role:hunter2@h/d?hunter2=1",
            "postgres://role:hunter2@h/d?connect_timeout=0",
        ] {
            let error = SourceConfig::from_uri(uri).expect_err(uri);
            assert_eq!(error.code(), "PG-0101");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(postgres://)?[ -~é]{0,60}") {
            let _ = SourceConfig::from_uri(&text);
        }
    }
}
