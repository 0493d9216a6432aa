//! The modules that apps use are generated; the one for Python is run against the service, on a real Postgres.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kairos_tests::{official::texts, service::TestService};

const SCHEMA: &str = "
    CREATE TABLE habits (id text PRIMARY KEY, owner text NOT NULL, name text, done boolean NOT NULL DEFAULT false);
    CREATE TABLE notes (id text PRIMARY KEY, book text NOT NULL, body text);
    SELECT kairos.publish_table('habits', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('notes');
    INSERT INTO habits VALUES ('h0', 'ann', 'From elsewhere');
    INSERT INTO notes VALUES ('n1', 'book-1', 'One'), ('n2', 'book-2', 'Two');
";

const RULES: &str = r"
config: { edition: 3 }
streams:
  habits:
    auto_subscribe: true
    query: SELECT * FROM habits WHERE owner = auth.user_id()
  notes:
    query: SELECT * FROM notes WHERE book = subscription.parameter('book') AND auth.user_id() = 'ann'
write_rules:
  habits:
    allow: [put, patch, delete]
    check: row.owner = auth.user_id()
";

/// The library that this test's build made.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let library = test.with_file_name(format!("{DLL_PREFIX}kairos_client_ffi{DLL_SUFFIX}"));
    assert!(library.is_file(), "cargo builds it beside the tests");
    library
}

fn generate(language: &str, folder: &Path) {
    let status = Command::new(env!("CARGO_BIN_EXE_kairos-bindgen"))
        .args(["generate", "--no-format", "--language", language, "--out-dir"])
        .args([folder, &library()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.expect("it starts").success(), "{language} was not generated");
}

fn generated(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("it was made") {
        let path = entry.expect("readable").path();
        text += &if path.is_dir() { generated(&path) } else { fs::read_to_string(path).unwrap_or_default() };
    }
    text
}

#[test]
fn kotlin_and_swift_get_the_client() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (language, calls) in [
        ("kotlin", ["class KairosClient", "suspend fun `execute`", "interface TokenProvider"]),
        (
            "swift",
            [
                "class KairosClient",
                "func execute(sql: String, parameters: String)async throws",
                "protocol TokenProvider",
            ],
        ),
    ] {
        let out = folder.path().join(language);
        generate(language, &out);
        let text = generated(&out);
        for call in calls {
            assert!(text.contains(call), "{language} lacks `{call}`");
        }
    }
}

#[tokio::test]
async fn an_app_in_python_writes_and_reads_on_two_devices() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let module = service.folder.path().join("module");
    generate("python", &module);
    let library = library();
    fs::copy(&library, module.join(library.file_name().expect("a file"))).expect("writable");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/two_devices.py");
    let run = tokio::process::Command::new("python3")
        .arg(script)
        .args([service.process.endpoint(), &service.token("ann")])
        .arg(service.folder.path())
        .env("PYTHONPATH", &module)
        .output();
    let output = run.await.expect("Python is installed");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&said), service.process.log_tail());
    let rows = texts(&service.sql, "SELECT id || ' ' || owner || ' ' || name || ' ' || done FROM habits", &[]).await;
    let expected = ["h0 ann From elsewhere false", "h1 ann Read true", "h2 ann Swim false"];
    assert_eq!(rows, expected.map(str::to_owned).into());
}
