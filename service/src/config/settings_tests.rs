use std::{collections::HashMap, fs, path::Path};

use super::{check, describe, settings::*, *};

const MINIMAL: &str = "replication: {connections: [{uri: postgresql://role@db/app}]}
sync_config: {content: 'bucket_definitions: {}'}
";
const URI: (&str, &str) = ("DATABASE_URL", "postgresql://role@db/app");
const RULES: (&str, &str) = ("KAIROS_SYNC_CONFIG_CONTENT", "bucket_definitions: {}");

/// All settings with what they take, each with its path and its variable.
fn leaves() -> Vec<(String, String, &'static Key)> {
    let mut leaves = Vec::new();
    collect(ROOT, "", "KAIROS", &mut leaves);
    leaves
}

fn collect(keys: &'static [Key], path: &str, prefix: &str, leaves: &mut Vec<(String, String, &'static Key)>) {
    for key in keys {
        let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        let variable = check::variable(prefix, key);
        match key.takes {
            Takes::Section(keys) | Takes::Whole(keys) | Takes::One(keys) => collect(keys, &path, &variable, leaves),
            Takes::Nothing(_) | Takes::Anything | Takes::Renamed(_) => {}
            _ => leaves.push((path, variable, key)),
        }
    }
}

fn of_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment: HashMap<&str, &str> = variables.iter().copied().collect();
    Config::parse("{}", Path::new("environment"), &environment)
}

#[test]
fn every_setting_is_asked_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let readers = ["parse.rs", "auth.rs", "introspection.rs", "traces.rs"]
        .map(|file| fs::read_to_string(folder.join(file)).unwrap());
    for (path, _, key) in leaves() {
        // There is one kind of database.
        let is_read = readers.iter().any(|text| text.contains(&format!("\"{}\"", key.name)));
        assert!(is_read || path == "replication.connections.type", "{path}");
        assert!(key.about.ends_with('.'), "{path} is described");
    }
}

#[test]
fn every_setting_has_a_variable_of_its_own_that_is_read() {
    let mut seen = HashMap::new();
    for (path, variable, key) in leaves() {
        for name in std::iter::once(&*variable).chain(key.aliases.iter().copied()) {
            assert_eq!(seen.insert(name.to_owned(), path.clone()), None, "{name}");
            // What cannot be right is refused, so it was read.
            let wrong = match key.takes {
                Takes::Number(..) | Takes::Word(_) | Takes::Flag => "?",
                Takes::Document(..) => "7",
                Takes::Texts | Takes::Secrets => "[{}]",
                _ if name.ends_with("_B64") => "?",
                _ => continue,
            };
            let found = of_environment(&[URI, (name, wrong)]).err().unwrap().to_string();
            assert!(
                found.contains(&format!("environment: `{name}")) || found.contains(&format!("{name}:1:")),
                "{path}: {found}"
            );
        }
    }
}

#[test]
fn numbers_have_the_bounds_that_are_written_and_defaults_are_what_holds() {
    for (path, variable, key) in leaves() {
        // Those of a section that says all of it are not good alone.
        let stands_alone = !path.starts_with("client_auth.preset") && !path.starts_with("client_auth.introspection");
        let with = |value: &str| of_environment(&[URI, RULES, (&variable, value)]);
        if let (Takes::Number(min, max), true) = (&key.takes, stands_alone) {
            for good in [min, max] {
                assert!(with(&good.to_string()).is_ok(), "{path}: {good}");
            }
            for bad in [min.wrapping_sub(1), max + 1] {
                assert!(with(&bad.to_string()).is_err(), "{path}: {bad}");
            }
        }
        if !key.default.is_empty() && stands_alone && path != "sync_config.by_api" {
            let shown = |config: Config| {
                let write = (
                    config.write.role,
                    config.write.remember_for,
                    config.write.keep_conflicts_for,
                    config.write.transaction,
                );
                let Config { source, limits, port, data_dir, storage, drain, .. } = config;
                format!("{source:?} {write:?} {limits:?} {port} {data_dir:?} {storage:?} {drain:?}")
            };
            let without = of_environment(&[URI, RULES]).unwrap();
            assert_eq!(shown(with(key.default).unwrap()), shown(without), "{path}");
        }
    }
}

/// In a namespace with Services `kairos` and `kairos-replication`.
#[test]
fn what_kubernetes_says_of_a_service_is_not_for_us() {
    let links = [
        ("KAIROS_PORT", "tcp://10.96.0.7:80"),
        ("KAIROS_SERVICE_HOST", "10.96.0.7"),
        ("KAIROS_SERVICE_PORT", "80"),
        ("KAIROS_PORT_80_TCP", "tcp://10.96.0.7:80"),
        ("KAIROS_PORT_80_TCP_PORT", "80"),
        ("KAIROS_REPLICATION_PORT", "udp://[fd00::7]:80"),
    ];
    let variables: Vec<_> = links.into_iter().chain([URI, RULES]).collect();
    let config = of_environment(&variables).unwrap();
    assert_eq!((config.port, config.source.port), (DEFAULT_PORT, 5432));
    let warning = |name: &str| {
        format!(
            "environment: `{name}` is ignored: Kubernetes sets it for a Service of that name; `enableServiceLinks: false` \
             in the Pod's spec ends that"
        )
    };
    // Besides, nobody may come in.
    assert_eq!(config.warnings[..2], [warning("KAIROS_REPLICATION_PORT"), warning("KAIROS_PORT")]);
    // A port of ours beside it is read, and what is nobody's is refused.
    let both: Vec<_> = variables.iter().copied().chain([("PS_PORT", "9000")]).collect();
    assert_eq!(of_environment(&both).unwrap().port, 9000);
    let refused = of_environment(&[URI, RULES, ("KAIROS_PORT", "http://10.96.0.7:80")]).err().unwrap();
    assert_eq!(refused.code(), "CONF-0105");
}

#[test]
fn the_environment_says_whatever_a_file_does_not() {
    let environment = HashMap::from([
        ("KAIROS_REPLICATION_HOSTNAME", "db"),
        ("KAIROS_REPLICATION_USERNAME", "role"),
        ("KAIROS_REPLICATION_DATABASE", "app"),
        ("KAIROS_REPLICATION_SLOT_NAME_PREFIX", "mine_"),
        ("POWERSYNC_SYNC_CONFIG_B64", "YnVja2V0X2RlZmluaXRpb25zOiB7fQ=="),
        (
            "KAIROS_CLIENT_AUTH_JWKS_KEYS",
            "[{ kty: oct, kid: a, alg: HS256, k: c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2gtZm9yLWhzMjU2 }]",
        ),
        ("KAIROS_CLIENT_AUTH_AUDIENCE", "[app, other]"),
        ("KAIROS_LIMITS_RATE_USER_UPLOADS_PER_MINUTE", "7"),
        ("KAIROS_PORT", "81"),
        ("KAIROS_DATA_DIR", "data"),
    ]);
    let config = Config::parse("{ port: 82 }", Path::new("folder/kairos.yaml"), &environment).unwrap();
    assert_eq!((config.source.host.as_str(), config.source.slot_prefix.as_str()), ("db", "mine_"));
    assert_eq!(config.rules.text, "bucket_definitions: {}");
    let [source] = &config.auth.sources[..] else { panic!("one source of keys") };
    assert_eq!(source.rules.audience, ["app", "other"]);
    assert_eq!(config.limits.rate.user.uploads_per_minute, 7);
    assert_eq!(config.port, 82, "the file has the last word");
    assert_eq!(config.data_dir, PathBuf::from("data"), "beside nothing");
    // A connection that a file has is not mixed with another.
    let environment =
        HashMap::from([("DATABASE_URL", "postgresql://other@elsewhere/app"), ("KAIROS_REPLICATION_PASSWORD", "p")]);
    let source = Config::parse(MINIMAL, Path::new("kairos.yaml"), &environment).unwrap().source;
    assert_eq!((source.host.as_str(), source.password), ("db", None));
    // A file may be in the environment as a whole; the one that is named comes first.
    let environment = HashMap::from([URI, RULES, ("POWERSYNC_CONFIG_B64", "cG9ydDogODM=")]);
    assert_eq!(Config::load(None, &environment).unwrap().port, 83);
    assert!(Config::load(Some(Path::new("nowhere.yaml")), &environment).is_err());
    let environment = HashMap::from([("POWERSYNC_CONFIG_B64", "port: 83")]);
    let error = Config::load(None, &environment).err().unwrap().to_string();
    assert_eq!(error, "environment: `POWERSYNC_CONFIG_B64` must be text encoded as base64");
}

#[test]
fn an_older_name_stands_for_the_newer_one_but_not_beside_it() {
    let older = MINIMAL.replace("sync_config", "sync_rules");
    let environment = HashMap::<&str, &str>::new();
    assert_eq!(Config::parse(&older, Path::new("f"), &environment).unwrap().rules.text, "bucket_definitions: {}");
    let both = format!("{MINIMAL}sync_rules: {{ content: x }}\n");
    let error = Config::parse(&both, Path::new("f"), &environment).err().unwrap().to_string();
    assert_eq!(error, "f:3:1: `sync_rules` stands beside sync_config: keep one of them");
}

/// `docs/configuration.md` is printed, not written: `kairos-sync config reference > docs/configuration.md`.
#[test]
fn the_page_of_settings_is_the_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    assert_eq!(fs::read_to_string(page).unwrap(), describe::reference());
}

#[test]
fn the_schema_takes_what_the_service_takes() {
    let schema = jsonschema::validator_for(&describe::schema()).expect("a schema");
    let read = |text: &str| -> serde_json::Value { serde_saphyr::from_str(text).expect("YAML") };
    for file in ["kairos.yaml", "kairos.example.yaml"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)).unwrap();
        let problems: Vec<String> = schema.iter_errors(&read(&text)).map(|error| error.to_string()).collect();
        assert_eq!(problems, [""; 0], "{file}");
    }
    for (text, is_good) in [
        (MINIMAL.to_owned(), true),
        (format!("{MINIMAL}port: 0\n"), false),
        (format!("{MINIMAL}prot: 1\n"), false),
        (format!("{MINIMAL}write: {{ transaction: [a] }}\n"), false),
        (MINIMAL.replace("{uri: postgresql://role@db/app}", "{failover: true}, {}"), false),
        (MINIMAL.replace("uri: postgresql://role@db/app", "failover: true"), true),
    ] {
        assert_eq!(schema.is_valid(&read(&text)), is_good, "{text}");
    }
}
