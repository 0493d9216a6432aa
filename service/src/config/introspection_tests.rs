use std::{collections::HashMap, path::Path};

use super::{super::Config, *};

fn parse(section: &str) -> Result<Config, ConfigError> {
    let text = format!(
        "replication: {{connections: [{{uri: postgresql://role:secret@db/app}}]}}\n\
         sync_config: {{content: 'bucket_definitions: {{}}'}}\nclient_auth:\n{section}"
    );
    let environment: HashMap<&str, &str> = HashMap::new();
    Config::parse(&text, Path::new("kairos.yaml"), &environment)
}

fn only(section: &str) -> Introspection {
    let config = parse(section).unwrap();
    assert_eq!(config.warnings, [""; 0], "{section}");
    let [introspection] = &config.auth.introspections[..] else { panic!("one issuer to ask") };
    assert_eq!(config.auth_settings.introspections.len(), 1);
    introspection.clone()
}

fn error(settings: &str) -> String {
    parse(&format!("  introspection: {settings}\n")).err().expect("a mistake").to_string()
}

#[test]
fn pocketbase_is_asked_with_the_bare_token() {
    let found = only("  preset: { pocketbase: { url: https://pb.example/, collection: users, cache_seconds: 10 } }\n");
    let url = found.url.text();
    assert!(url.starts_with("https://pb.example/api/collections/users/auth-refresh?fields=record.id,"), "{url}");
    assert_eq!(found.method, Method::POST);
    assert_eq!(found.header, Some(("Authorization".to_owned(), Template::new("{token}"))));
    assert_eq!((found.answer.subject.as_str(), found.keep_for), ("/record/id", Duration::from_secs(10)));
    let names: Vec<&str> = found.answer.claims.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["email", "username", "verified"]);
    let config = parse("  preset: { pocketbase: { url: 'http://pb:8090', collection: users } }\n").unwrap();
    assert!(config.warnings[0].contains("whoever is on the way sees tokens"), "{:?}", config.warnings);
    let error = parse("  preset: { pocketbase: { url: 'https://pb' } }\n").err().expect("a mistake").to_string();
    assert!(error.contains("needs `collection`"), "{error}");
}

#[test]
fn the_token_goes_into_a_header_where_nothing_else_is_said() {
    let found = only("  introspection: { url: https://id.example/me }\n");
    assert_eq!(found.header, Some(("Authorization".to_owned(), Template::new("Bearer {token}"))));
    assert_eq!((found.method, found.keep_for, found.timeout), (Method::GET, CACHE_DEFAULT, TIMEOUT_DEFAULT));
    assert_eq!(found.answer, AnswerRules { subject: "/sub".to_owned(), active: None, claims: Vec::new() });
}

#[test]
fn rfc_7662_is_a_body_and_a_header_of_ones_own() {
    let found = only(
        "  introspection:\n    url: https://id.example/introspect\n    header: 'Authorization: Basic aWQ6c2VjcmV0'\n    \
         body: token={token}\n    active: /active\n    claims: { scope: /scope }\n    timeout_seconds: 3\n",
    );
    assert_eq!(found.method, Method::POST);
    assert_eq!(found.header, Some(("Authorization".to_owned(), Template::new("Basic aWQ6c2VjcmV0"))));
    assert_eq!(found.body, Some(Template::new("token={token}")));
    assert_eq!(found.answer.active.as_deref(), Some("/active"));
    assert_eq!(found.answer.claims, [("scope".to_owned(), "/scope".to_owned())]);
    assert_eq!(found.timeout, Duration::from_secs(3));
    let found = only("  introspection: { url: 'https://id.example/{token}' }\n");
    assert_eq!(found.header, None, "it is sent already");
}

#[test]
fn mistakes_are_told_with_what_to_write() {
    for (settings, message) in [
        ("{}", "needs `url`"),
        ("{ url: id.example }", "must begin with https://"),
        ("{ url: 'https://me:secret@id.example' }", "user name or password"),
        ("{ url: 'https://{token}.example/' }", "path or query only"),
        ("{ url: 'https://id.example:80{token}/' }", "must be an address"),
        ("{ url: 'https://id.example', header: 'X-Key: abc' }", "must have {token} in"),
        ("{ url: 'https://id.example', header: '{token}' }", "must be like `Authorization"),
        ("{ url: 'https://id.example', body: 'x={token}', method: GET }", "must be POST"),
        ("{ url: 'https://id.example', method: PUT }", "must be GET or POST"),
        ("{ url: 'https://id.example', subject: record.id }", "must be a JSON pointer"),
        ("{ url: 'https://id.example', claims: { sub: /x } }", "is what `subject` says"),
        ("{ url: 'https://id.example', claims: [email] }", "must have names of claims"),
        ("{ url: 'https://id.example', cache_seconds: 0 }", "from 1 to 3600"),
        ("{ url: 'https://id.example', timeout_seconds: 31 }", "from 1 to 30"),
        ("{ url: 'https://id.example', cache: 5 }", "cache"),
    ] {
        let error = error(settings);
        assert!(error.contains(message), "{settings}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
