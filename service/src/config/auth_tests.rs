use std::{collections::HashMap, path::Path, time::Duration};

use super::{super::Config, *};
use crate::auth::test_keys;

/// A configuration with this section.
fn parse(section: &str) -> Result<Config, ConfigError> {
    parse_at("db", section)
}

fn parse_at(host: &str, section: &str) -> Result<Config, ConfigError> {
    let text = format!(
        "replication: {{connections: [{{uri: postgresql://role:secret@{host}/app}}]}}\n\
         sync_config: {{content: 'bucket_definitions: {{}}'}}\nclient_auth:\n{section}"
    );
    let environment: HashMap<&str, &str> = HashMap::new();
    Config::parse(&text, Path::new("kairos.yaml"), &environment)
}

fn error(section: &str) -> (String, &'static str) {
    let error = parse(section).err().expect("a mistake");
    (error.to_string(), error.code())
}

/// The only source: where its keys are fetched, issuers, audiences, and how long its tokens may live.
fn only(config: &Config) -> (String, Vec<String>, Vec<String>, Duration) {
    let [source] = &config.auth.sources[..] else { panic!("one source of keys") };
    let KeyOrigin::Fetched(uri) = &source.keys else { panic!("fetched keys") };
    let TokenRules { audience, issuer, lifetime_max } = source.rules.clone();
    (uri.clone(), issuer, audience, lifetime_max)
}

fn facts(section: &str, (uri, issuer, audience, lifetime_max): (&str, &[&str], &[&str], Duration)) {
    let config = parse(section).unwrap();
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(only(&config), (uri.to_owned(), texts(issuer), texts(audience), lifetime_max), "{section}");
    assert_eq!(config.warnings, [""; 0], "{section}");
}

const SUPABASE_WEEK: Duration = Duration::from_mins(10_100);

#[test]
fn each_preset_knows_keys_issuer_and_audience() {
    facts(
        "  preset: { keycloak: { url: https://id.example/auth/, realm: home, audience: kairos } }\n",
        (
            "https://id.example/auth/realms/home/protocol/openid-connect/certs",
            &["https://id.example/auth/realms/home"],
            &["kairos"],
            LIFETIME_MAX,
        ),
    );
    facts(
        "  audience: ignored here\n  preset: { firebase: { project_id: my-app-1 } }\n",
        (
            "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com",
            &["https://securetoken.google.com/my-app-1"],
            &["my-app-1"],
            LIFETIME_MAX,
        ),
    );
    facts(
        "  audience: [https://sync.example]\n  preset: { auth0: { domain: app.eu.auth0.com } }\n",
        (
            "https://app.eu.auth0.com/.well-known/jwks.json",
            &["https://app.eu.auth0.com/"],
            &["https://sync.example"],
            LIFETIME_MAX,
        ),
    );
    facts(
        "  preset: { supabase: { url: https://abc.supabase.co } }\n",
        (
            "https://abc.supabase.co/auth/v1/.well-known/jwks.json",
            &["https://abc.supabase.co/auth/v1"],
            &["authenticated"],
            SUPABASE_WEEK,
        ),
    );
}

#[test]
fn supabase_is_found_by_the_name_of_its_database() {
    let config = parse_at("db.abc.supabase.co", "  supabase: true\n").unwrap();
    let (uri, issuer, audience, lifetime_max) = only(&config);
    assert_eq!(uri, "https://abc.supabase.co/auth/v1/.well-known/jwks.json");
    assert_eq!((issuer, audience, lifetime_max), (vec![], vec!["authenticated".to_owned()], SUPABASE_WEEK));
    let config = parse_at("aws-0-eu-central-1.pooler.supabase.com", "  supabase: true\n").unwrap();
    assert!(config.auth.sources.is_empty());
    let warning = &config.warnings[0];
    assert!(warning.starts_with("kairos.yaml:4:3: `client_auth.supabase` finds no project"), "{warning}");
    assert!(warning.contains("preset: { supabase: { url:"), "{warning}");
}

#[test]
fn supabases_secret_is_text_and_needs_the_flag() {
    let secret = "super-secret-jwt-token-with-at-least-32-characters";
    let with = |rest: &str| parse(&format!("  supabase_jwt_secret: {secret}\n{rest}")).unwrap();
    let config = with("  supabase: true\n");
    let [source] = &config.auth.sources[..] else { panic!("one source of keys") };
    assert!(matches!(&source.keys, KeyOrigin::Given(keys) if keys[0].kid.is_none()));
    assert_eq!(
        (&source.rules.audience[..], source.rules.lifetime_max),
        (&["authenticated".to_owned()][..], SUPABASE_WEEK)
    );
    assert_eq!(config.warnings, [""; 0]);
    let config = with("");
    assert!(config.auth.sources.is_empty());
    assert!(config.warnings[0].contains("`client_auth.supabase_jwt_secret` is ignored"), "{:?}", config.warnings);
    let (message, code) = error("  supabase: true\n  supabase_jwt_secret: too-short-by-far\n");
    assert!(message.starts_with("kairos.yaml:5:3: `client_auth.supabase_jwt_secret`"), "{message}");
    assert!(message.contains("has 16 bytes") && !message.contains("too-short"), "{message}");
    assert_eq!(code, "CONF-0107");
}

#[test]
fn a_weak_shared_secret_stops_the_start() {
    let (message, code) = error("  jwks: {keys: [{kty: oct, alg: HS256, kid: weak, k: c2hvcnQ}]}\n");
    assert!(message.contains("`client_auth.jwks.keys[0]`: key `weak`: the shared secret has 5 bytes"), "{message}");
    assert_eq!(code, "CONF-0107");
}

#[test]
fn keys_are_read_from_the_file_and_several_sources_keep_their_order_and_places() {
    let section = format!(
        "  audience: app\n  issuer: [one, two]\n  jwks_uri: [https://a.example/keys, https://b.example/keys]\n  jwks: {{keys: \
         [{}, {}]}}\n  preset:\n    firebase: {{ project_id: app }}\n",
        test_keys::secret_jwk(),
        test_keys::rsa_jwk()
    );
    let config = parse(&section).unwrap();
    let keys = |source: &KeySource| match &source.keys {
        KeyOrigin::Given(keys) => format!("{} keys", keys.len()),
        KeyOrigin::Fetched(uri) => uri.chars().take(17).collect(),
    };
    let found: Vec<_> = config.auth.sources.iter().map(keys).collect();
    assert_eq!(found, ["2 keys", "https://a.example", "https://b.example", "https://www.googl"]);
    assert_eq!(config.auth.sources[0].rules.issuer, ["one", "two"]);
    let place = |setting: &Setting| format!("{} {}", setting.place.line, setting.key);
    let settings = &config.auth_settings.sources;
    assert_eq!(
        settings.iter().map(|source| place(&source.keys)).collect::<Vec<_>>(),
        ["7 client_auth.jwks", "6 client_auth.jwks_uri", "6 client_auth.jwks_uri", "9 client_auth.preset.firebase",]
    );
    assert_eq!(place(&settings[0].audience), "4 client_auth.audience");
    assert_eq!(place(&settings[0].issuer), "5 client_auth.issuer");
    assert_eq!(place(&settings[3].audience), "9 client_auth.preset.firebase");
}

#[test]
fn addresses_are_ranges_single_ones_or_local() {
    let rules = |section: &str| parse(&format!("{section}  audience: a\n")).unwrap().auth.addresses;
    assert!(rules("").is_empty());
    let both = rules("  jwks_reject_ip_ranges: [10.0.0.0/8, local, '::1']\n");
    assert_eq!((both.ranges.len(), both.local, both.ipv6), (2, true, false));
    let blocked = rules("  block_local_jwks: true\n");
    assert_eq!((blocked.ranges.len(), blocked.local, blocked.ipv6), (0, true, true));
    assert!(rules("  block_local_jwks: 'false'\n").is_empty());
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (section, message, code) in [
        ("  jwks_uri: ftp://a\n", "kairos.yaml:4:3: `client_auth.jwks_uri` must begin with https://", "CONF-0105"),
        ("  jwks_uri: 'https://'\n", "must be an address like", "CONF-0105"),
        ("  jwks_uri: https://u:hunter2@a.example/\n", "must not hold a user name", "CONF-0105"),
        ("  issuer: ''\n", "`client_auth.issuer` must not hold empty names", "CONF-0105"),
        ("  audience: [a, '']\n", "`client_auth.audience` must not hold empty names", "CONF-0105"),
        ("  supabase: perhaps\n", "`client_auth.supabase` must be true or false", "CONF-0105"),
        ("  jwks_reject_ip_ranges: [10.0.0.0/99]\n", "must hold ranges like", "CONF-0105"),
        ("  jwks: {keys: [{kty: 7}]}\n", "is not a JSON Web Key", "CONF-0105"),
        (
            "  preset: { auth0: { domain: 'https://a' } }\n",
            "`client_auth.preset.auth0.domain` must be one word",
            "CONF-0105",
        ),
        (
            "  preset: { auth0: { domain: a.auth0.com } }\n",
            "`client_auth.preset.auth0.audience` is missing: write the",
            "CONF-0106",
        ),
        (
            "  preset: { keycloak: { url: https://a, realm: b } }\n",
            "is missing: write what an audience mapper",
            "CONF-0106",
        ),
        ("  preset: { keycloak: { realm: b } }\n", "`client_auth.preset.keycloak` needs `url`", "CONF-0105"),
        ("  preset: { keycloak: { url: 'https://a?b', realm: b } }\n", "nothing behind the path", "CONF-0105"),
        ("  preset: { firebase: {} }\n", "`client_auth.preset.firebase` needs `project_id`", "CONF-0105"),
        ("  preset: { firbase: { project_id: a } }\n", "did you mean `firebase`?", "CONF-0103"),
        ("  preset: { firebase: { project_id: a, realm: b } }\n", "is not a setting", "CONF-0103"),
        ("  isuer: a\n", "did you mean `issuer`?", "CONF-0103"),
    ] {
        let found = error(section);
        assert!(found.0.contains(message) && found.1 == code, "{section}: {found:?} instead of {message} {code}");
        assert!(!found.0.contains("hunter2"), "{found:?}");
    }
}

#[test]
fn what_lets_nobody_in_or_too_many_gives_a_warning() {
    let warnings = |section: &str| parse(section).unwrap().warnings.join("\n");
    assert!(warnings("  audience: a\n").contains("client_auth has no keys"));
    assert!(warnings("  jwks_uri: https://a.example/keys\n").contains("client_auth.audience is empty"));
    let without_tls =
        warnings("  audience: a\n  jwks_uri: [http://id.example/keys, http://localhost:1/, http://127.0.0.1/]\n");
    assert_eq!(without_tls.matches("has no TLS").count(), 1, "{without_tls}");
    assert!(without_tls.starts_with("http://id.example/keys has no TLS"), "{without_tls}");
}
