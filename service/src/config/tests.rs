use std::{collections::HashMap, path::PathBuf};

use super::*;
use crate::{
    auth::KeyOrigin,
    postgres::{Failover, TlsMode},
    rate_limit::Rates,
};

const MINIMAL: &str = "replication: {connections: [{uri: postgresql://role:secret@db/app}]}
sync_config: {content: 'bucket_definitions: {}'}
client_auth: {audience: [app], jwks_uri: https://app.example/keys}
";

fn parse(text: &str) -> Result<Config, ConfigError> {
    parse_with(text, &[])
}

fn parse_with(text: &str, environment: &[(&'static str, &'static str)]) -> Result<Config, ConfigError> {
    let environment: HashMap<&str, &str> = environment.iter().copied().collect();
    Config::parse(text, Path::new("kairos.yaml"), &environment)
}

fn error(text: &str) -> (String, &'static str) {
    let error = parse(text).err().expect("a mistake");
    (error.to_string(), error.code())
}

#[test]
fn defaults_hold_where_nothing_is_said() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.port, DEFAULT_PORT);
    assert_eq!(config.data_dir, PathBuf::from(DEFAULT_DATA_DIR));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.rules.text, "bucket_definitions: {}");
    assert_eq!((config.write.role, config.write.source.user), (None, "role".to_owned()));
    assert_eq!(config.write.transaction, TransactionPolicy::Batch);
    assert_eq!(config.warnings, [""; 0]);
}

/// As in the documentation of the PowerSync service.
#[test]
fn a_powersync_configuration_works_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sync-config.yaml"), "bucket_definitions: {}").unwrap();
    let text = "
replication:
  connections:
    - type: postgresql
      uri: !env PS_DATABASE_URI
      sslmode: disable
storage:
  type: postgresql
  uri: !env PS_STORAGE_URI
  sslmode: disable
port: !env PS_PORT::number
sync_config:
  path: sync-config.yaml
client_auth:
  audience: [powersync]
  jwks_uri: https://app.example/keys
api:
  tokens: [!env PS_ADMIN_TOKEN]
telemetry:
  disable_telemetry_sharing: !env PS_NO_TELEMETRY::boolean
";
    let environment = HashMap::from([
        ("PS_DATABASE_URI", "postgresql://role:p%40ss@db:5433/app"),
        ("PS_STORAGE_URI", "postgresql://storage@db/storage"),
        ("PS_PORT", "9090"),
        ("PS_ADMIN_TOKEN", "let-me-in"),
        ("PS_NO_TELEMETRY", "True"),
    ]);
    let config = Config::parse(text, &folder.path().join("powersync.yaml"), &environment).unwrap();
    assert_eq!((config.source.host.as_str(), config.source.port, config.source.tls), ("db", 5433, TlsMode::Disable));
    assert_eq!(config.source.password.unwrap().reveal(), "p@ss");
    assert_eq!(config.port, 9090);
    assert_eq!(config.rules.text, "bucket_definitions: {}");
    let [source] = &config.auth.sources[..] else { panic!("one source of keys") };
    assert_eq!((&source.rules.audience[..], source.rules.issuer.len()), (&["powersync".to_owned()][..], 0));
    assert!(matches!(&source.keys, KeyOrigin::Fetched(uri) if uri == "https://app.example/keys"));
    assert_eq!(config.admin_tokens[0].reveal(), "let-me-in");
    assert_eq!(config.warnings.len(), 4, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("powersync.yaml:8:3: `storage.type` is ignored"), "{:?}", config.warnings);
}

#[test]
fn the_example_in_deploy_is_a_valid_configuration() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kairos.example.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let environment = HashMap::from([
        ("DATABASE_URL", "postgresql://kairos_replication@db/app"),
        ("KAIROS_WRITE_URL", "postgresql://kairos_service@db/app"),
    ]);
    let config = Config::parse(&text, &path, &environment).unwrap();
    assert_eq!(config.write.role.as_deref(), Some("kairos_write"));
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn what_uploads_commit_at_once_is_read() {
    let config = |transaction: &str| parse(&format!("{MINIMAL}write: {{transaction: {transaction}}}\n"));
    assert_eq!(config("tx_id").unwrap().write.transaction, TransactionPolicy::TxId);
    assert_eq!(config("batch").unwrap().write.transaction, TransactionPolicy::Batch);
    let error = config("operation").err().unwrap().to_string();
    assert!(error.contains("`write.transaction`") && error.contains("must be batch or tx_id"), "{error}");
}

#[test]
fn rates_and_trusted_proxies_are_read() {
    let text = format!(
        "{MINIMAL}trusted_proxies: [10.0.0.0/8, '::1']
limits: {{rate: {{user: {{uploads_per_minute: 7}}, address: {{streams_per_minute: 9}}, refused_tokens_per_minute: 0}}}}
"
    );
    let config = parse(&text).unwrap();
    let defaults = RateLimits::default();
    let user = Rates { uploads_per_minute: 7, ..defaults.user };
    let address = Rates { streams_per_minute: 9, ..defaults.address };
    assert_eq!(config.limits.rate, RateLimits { user, address, refused_tokens_per_minute: 0, ..defaults });
    let expected = ["10.0.0.0/8", "::1"].map(|range| range.parse().unwrap());
    assert_eq!(config.trusted_proxies, expected);
    let (message, code) = error(&format!("{MINIMAL}trusted_proxies: [proxy.example]\n"));
    assert!(message.contains("`trusted_proxies` must hold ranges like 10.0.0.0/8"), "{message}");
    assert_eq!(code, "CONF-0105");
    let (message, _) = error(&format!("{MINIMAL}limits: {{rate: {{user: {{upload_per_minute: 7}}}}}}\n"));
    assert!(message.contains("limits.rate.user.upload_per_minute"), "{message}");
}

#[test]
fn the_environment_alone_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, "bucket_definitions: {}").unwrap();
    let environment = HashMap::from([
        ("POWERSYNC_DATABASE_URL", "postgresql://role@db/app"),
        ("POWERSYNC_JWKS_URI", "https://app.example/keys"),
        ("POWERSYNC_JWKS_AUDIENCE", "app"),
        ("PS_PORT", "8081"),
        ("KAIROS_DATA_DIR", "/data"),
        ("KAIROS_BASE_PATH", "/sync-api/"),
        ("KAIROS_SYNC_RULES", rules.to_str().unwrap()),
        ("KAIROS_ADMIN_TOKEN", "let-me-in"),
    ]);
    let config = Config::parse("{}", Path::new("environment"), &environment).unwrap();
    assert_eq!(config.admin_tokens, [Secret::new("let-me-in")]);
    assert_eq!((config.port, config.data_dir), (8081, PathBuf::from("/data")));
    assert_eq!(config.base_path.as_deref(), Some("/sync-api"), "a slash at its end does not matter");
    let [source] = &config.auth.sources[..] else { panic!("one source of keys") };
    assert!(matches!(&source.keys, KeyOrigin::Fetched(uri) if uri == "https://app.example/keys"));
    assert_eq!(source.rules.audience, ["app"]);
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
    let text = format!("{MINIMAL}limits:\n  connection_max: 5\n");
    assert_eq!(
        error(&text),
        (
            "kairos.yaml:5:3: `limits.connection_max` is not a setting: did you mean `connections_max`?".to_owned(),
            "CONF-0103"
        )
    );
    assert_eq!(error(&format!("{MINIMAL}xyzzy: 1\n")).0, "kairos.yaml:4:1: `xyzzy` is not a setting: remove it");
}

#[test]
fn mistakes_are_named_with_their_place() {
    let cases = [
        (
            format!("{MINIMAL}port: 70000\n"),
            "kairos.yaml:4:1: `port` must be a whole number from 1 to 65535",
            "CONF-0105",
        ),
        (format!("{MINIMAL}port: [1]\n"), "kairos.yaml:4:1: `port` must be a whole", "CONF-0105"),
        (
            format!("{MINIMAL}write: {{role: !env NOWHERE}}\n"),
            "kairos.yaml:4:20: environment variable `NOWHERE`",
            "CONF-0104",
        ),
        (MINIMAL.replace("uri: postgresql", "uri: mysql"), "kairos.yaml:1:30: connection URI:", "CONF-0108"),
        (MINIMAL.replace("{uri:", "{type: mysql, uri:"), "must be postgresql", "CONF-0105"),
        (MINIMAL.replace("{content: 'bucket_definitions: {}'}", "{path: nowhere.yaml}"), "nowhere.yaml", "CONF-0101"),
        (
            MINIMAL.replace("sync_config: {content: 'bucket_definitions: {}'}", ""),
            "`sync_config` is missing",
            "CONF-0106",
        ),
        (MINIMAL.replace("replication", "metadata"), "`replication.connections` is missing", "CONF-0106"),
        (MINIMAL.replace("https://", "ftp://"), "must begin with https://", "CONF-0105"),
        (
            format!("{MINIMAL}base_path: sync\n"),
            "kairos.yaml:4:1: `base_path` must be a path such as /sync-api",
            "CONF-0105",
        ),
        (format!("{MINIMAL}base_path: /a//b\n"), "`base_path` must be a path", "CONF-0105"),
        (format!("{MINIMAL}base_path: '/{{a}}'\n"), "`base_path` must be a path", "CONF-0105"),
        (
            format!("{MINIMAL}api: {{tokens: ['']}}\n"),
            "kairos.yaml:4:7: `api.tokens` must be text without",
            "CONF-0105",
        ),
        (format!("{MINIMAL}port: 1\nport: 2\n"), "kairos.yaml:5:1: not valid YAML", "CONF-0102"),
        ("a: [".to_owned(), "not valid YAML", "CONF-0102"),
        (String::new(), "must be a section", "CONF-0105"),
    ];
    for (text, message, code) in cases {
        let found = error(&text);
        assert!(found.0.contains(message) && found.1 == code, "{found:?} instead of {message} {code}");
    }
}

#[test]
fn no_secret_is_in_a_message() {
    for text in [
        MINIMAL.replace("postgresql:", "mysql:"),
        MINIMAL.replace("@db", "@"),
        MINIMAL.replace("app}]}", "app}"),
        format!("{MINIMAL}port: [\n"),
    ] {
        let (message, _) = error(&text);
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn a_connection_may_be_given_by_its_parts() {
    let parts = "{hostname: db, port: '5433', database: my app, username: r@le, password: 0, sslmode: verify-ca, \
                 publication: mine, slot_name_prefix: kairos_a_, heartbeat_interval_seconds: 10, \
                 snapshot_connections: 4, snapshot_bytes_per_second: 1000000, slot_wal_budget_bytes: 5000000000, failover: true}";
    let config = parse(&MINIMAL.replace("{uri: postgresql://role:secret@db/app}", parts)).unwrap();
    let source = config.source;
    assert_eq!((source.host.as_str(), source.port, source.tls), ("db", 5433, TlsMode::VerifyCa));
    assert_eq!((source.user.as_str(), source.database.as_str()), ("r@le", "my app"));
    assert_eq!(source.password.unwrap().reveal(), "0");
    assert_eq!((source.publications, source.slot_prefix.as_str()), (vec!["mine".to_owned()], "kairos_a_"));
    assert_eq!(source.heartbeat, Some(std::time::Duration::from_secs(10)));
    assert_eq!(source.slot_wal_budget.map(std::num::NonZero::get), Some(5_000_000_000));
    assert_eq!(source.failover, Failover::On);
    assert_eq!(source.snapshot.connections, 4);
    assert_eq!(source.snapshot.bytes_per_second.map(std::num::NonZero::get), Some(1_000_000));
}

#[test]
fn publications_are_one_name_or_a_list() {
    let with = |value: &str| {
        MINIMAL.replace(
            "{uri: postgresql://role:secret@db/app}",
            &format!("{{uri: 'postgresql://role:secret@db/app', publication: {value}}}"),
        )
    };
    for (value, names) in [("mine", vec!["mine"]), ("[mine, 'Other one']", vec!["mine", "Other one"])] {
        assert_eq!(parse(&with(value)).unwrap().source.publications, names);
    }
    for value in ["[]", "''", "[mine, '']", "{a: b}"] {
        assert_eq!(error(&with(value)).1, "CONF-0105", "{value}");
    }
}
