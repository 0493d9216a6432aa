//! A configuration that is looked at before it is used, and what shells and readers of manuals get.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use kairos_tests::service::service_binary;

const GOOD: &str = "replication: { connections: [{ uri: 'postgresql://role:hunter2@db/app' }] }
sync_config: { path: rules.yaml }
client_auth: { audience: app, jwks_uri: https://auth.example.com/keys }
storage: { type: mongodb }
";
const RULES: &str = "bucket_definitions: { everything: { data: [SELECT * FROM items] } }";

fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(service_binary());
    command.current_dir(folder).args(arguments).env_clear().envs(variables.iter().copied());
    command.output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |file: &str, content: &str| fs::write(folder.path().join(file), content).expect("writes");
    write("rules.yaml", RULES);
    write("kairos.yaml", GOOD);
    let good = run(folder.path(), &["config", "check"], &[]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let said = text(&good.stdout);
    assert!(said.contains("warning: kairos.yaml:4:12: `storage.type` is ignored"), "{said}");
    assert!(said.ends_with("good, with 1 definitions in rules.yaml\n"), "{said}");
    assert!(!said.contains("hunter2"));
    write("kairos.yaml", &GOOD.replace("audience", "audiance"));
    let mistaken = run(folder.path(), &["config", "check"], &[]);
    let said = text(&mistaken.stderr);
    assert_eq!((mistaken.status.code(), mistaken.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.starts_with("error CONF-0103: kairos.yaml:3:16: `client_auth.audiance`"), "{said}");
    write("kairos.yaml", GOOD);
    write("rules.yaml", "bucket_definitions: { everything: { data: [SELECT FROM] } }");
    let mistaken = run(folder.path(), &["config", "check", "--config", "kairos.yaml"], &[]);
    assert_eq!(mistaken.status.code(), Some(1));
    assert!(text(&mistaken.stderr).starts_with("error CONF-0201: "), "{mistaken:?}");
}

#[test]
fn the_environment_alone_is_checked_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let variables = [
        ("DATABASE_URL", "postgresql://role@db/app"),
        ("KAIROS_SYNC_CONFIG_CONTENT", RULES),
        ("KAIROS_CLIENT_AUTH_JWKS_URI", "https://auth.example.com/keys"),
        ("KAIROS_CLIENT_AUTH_AUDIENCE", "app"),
    ];
    let good = run(folder.path(), &["config", "check"], &variables);
    assert_eq!((good.status.code(), text(&good.stderr).as_str()), (Some(0), ""), "{good:?}");
    let port = [variables.as_slice(), &[("KAIROS_PORT", "http")]].concat();
    let mistaken = run(folder.path(), &["config", "check"], &port);
    let said = text(&mistaken.stderr);
    assert!(said.contains("CONF-0105: environment: `KAIROS_PORT` must be a whole number from 1 to 65535"), "{said}");
}

#[test]
fn editors_shells_and_manuals_know_the_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let schema = run(folder.path(), &["config", "schema"], &[]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("JSON");
    assert_eq!(schema["properties"]["port"]["maximum"], 65_535);
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(folder.path(), &["completions", shell], &[]).stdout);
        assert!(script.contains("no-progress") && script.contains("explain"), "{shell}");
    }
    // What bash makes of it.
    let script = run(folder.path(), &["completions", "bash"], &[]);
    fs::write(folder.path().join("completions"), script.stdout).expect("writes");
    let ask = ". ./completions; COMP_WORDS=(kairos-sync sto); COMP_CWORD=1; \
               $(complete -p kairos-sync | sed 's/.*-F \\([^ ]*\\) .*/\\1/') kairos-sync sto kairos-sync; \
               echo ${COMPREPLY[@]}";
    let completed = Command::new("bash").current_dir(folder.path()).args(["-c", ask]).output().expect("bash runs");
    assert_eq!(text(&completed.stdout).trim(), "store", "{completed:?}");
    let written = run(folder.path(), &["man", "."], &[]);
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    let page = fs::read_to_string(folder.path().join("kairos-sync-store-verify.1")).expect("a page for each command");
    assert!(page.contains(".TH") && page.contains("Read everything, and say what is damaged"), "{page}");
    let nowhere = run(folder.path(), &["man", "nowhere"], &[]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).starts_with("error CONF-0303: "), "{nowhere:?}");
}
