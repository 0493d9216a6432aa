//! What the pages of `docs/` say is done as it stands there: the tutorial as a whole, commands by their options, and
//! pieces of configuration, rules and JSON by what reads them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{LazyLock, Mutex},
    time::Duration,
};

use kairos_sync::demo::cluster::{PgCluster, free_port};
use kairos_tests::{
    driver::node,
    service::{TestService, service_binary},
};
use serde_json::{Value, json};
use tokio::time::timeout;

/// A block of a page, with what stands behind its fence.
struct Block {
    page: String,
    line: usize,
    kind: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn pages() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("docs")).expect("docs").map(|file| file.expect("a file").path());
    let mut pages: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).expect("readable");
    let name = page.file_name().expect("a name").to_string_lossy().into_owned();
    let (mut blocks, mut open) = (Vec::new(), None::<(Block, usize)>);
    for (index, line) in text.lines().enumerate() {
        let bare = line.trim_start();
        match (&mut open, bare.strip_prefix("```")) {
            (None, Some(kind)) => {
                let block = Block { page: name.clone(), line: index + 1, kind: kind.to_owned(), text: String::new() };
                open = Some((block, line.len() - bare.len()));
            }
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(block, _)| block)),
            (Some((block, indent)), None) => {
                block.text.push_str(line.get(*indent..).unwrap_or(bare));
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{name} has a block without an end");
    blocks
}

fn all_blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| blocks(page)).collect()
}

#[tokio::test]
async fn the_tutorial_does_what_it_says() {
    let cluster = PgCluster::start(None).expect("a server");
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port().expect("a free port").to_string();
    let (mut script, mut expected) = (String::from("set -eum\n"), Vec::new());
    for block in blocks(&root().join("docs/tutorial.md")) {
        match block.kind.as_str() {
            "sh" => script.push_str(&block.text),
            "text" => expected.extend(block.text.lines().map(str::to_owned)),
            kind => assert_eq!(kind, "sh once", "line {}", block.line),
        }
    }
    assert!(expected.len() > 8, "{expected:?}");
    let script = script.replace("5499", &cluster.port().to_string()).replace("8080", &port);
    let folder_of = |program: &Path| program.parent().expect("a folder").to_path_buf();
    let programs =
        [folder_of(&service_binary()), folder_of(&cluster.program("psql")), "/usr/bin".into(), "/bin".into()];
    let path = std::env::join_paths(programs).expect("a path");
    let mut bash = tokio::process::Command::new("bash");
    bash.current_dir(folder.path()).args(["-c", &script]).env_clear().env("PATH", path).kill_on_drop(true);
    bash.env("ADMIN", cluster.uri("postgres", "postgres")).env("KAIROS_PORT", &port).stdin(Stdio::null());
    let done = timeout(Duration::from_mins(2), bash.output()).await.expect("in time").expect("bash runs");
    let (printed, log) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{printed}\n{log}\n{script}");
    let mut rest = &*printed;
    for line in expected {
        let at = rest.find(&line).unwrap_or_else(|| panic!("`{line}` does not come (here) in:\n{printed}\n{log}"));
        rest = &rest[at + line.len()..];
    }
}

/// What an app of the official SDK needs, as the page has it, with a run of it.
#[tokio::test]
async fn the_connector_of_the_page_syncs_and_uploads() {
    let schema = "CREATE TABLE habits (id text PRIMARY KEY, user_id text, name text, done_on text);
                  INSERT INTO habits VALUES ('h1', 'anna', 'Read', NULL), ('h2', 'ben', 'Run', NULL);
                  SELECT kairos.publish_table('habits', 'INSERT, UPDATE, DELETE');";
    let rules = "bucket_definitions:
  mine: { parameters: SELECT request.user_id() AS user_id, data: [SELECT * FROM habits WHERE user_id = bucket.user_id] }
write_rules:
  habits: { allow: [put, patch, delete], check: row.user_id = auth.user_id() }
";
    let service = TestService::start(schema, rules).await;
    service.wait_until_ready().await;
    let blocks = blocks(&root().join("docs/official-sdks.md"));
    let [connector] = &blocks.iter().filter(|block| block.kind == "js").collect::<Vec<_>>()[..] else { panic!("one") };
    // Where the SDK is found.
    let folder = tempfile::tempdir_in(root().join("tests/sdk/node_modules")).expect("`npm ci` in tests/sdk made it");
    fs::write(folder.path().join("connector.mjs"), &connector.text).expect("writes");
    fs::write(folder.path().join("app.mjs"), APP).expect("writes");
    let mut node = tokio::process::Command::new(node());
    node.arg(folder.path().join("app.mjs")).args([service.process.endpoint(), &service.token("anna")]);
    node.arg(service.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let done = timeout(Duration::from_mins(1), node.output()).await.expect("in time").expect("Node.js runs");
    let (printed, log) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(printed.trim(), r#"["Read"] ["New","Read"]"#, "{log}");
    assert!(log.contains("habits x: refused, WRITE_CHECK"), "{log}");
    let sql = "SELECT string_agg(concat_ws(' ', id, user_id, name), ', ' ORDER BY id) FROM habits";
    let rows: String = service.sql.query_one(sql, &[]).await.expect("answers").get(0);
    assert_eq!(rows, "h1 anna Read, h2 ben Run, n anna New");
}

/// Prints what is there at first, and once all writes have their outcome.
const APP: &str = "
import { PowerSyncDatabase } from '@powersync/node';
import { KairosConnector, schema } from './connector.mjs';
const [endpoint, token, dbLocation] = process.argv.slice(2);
console.log = console.info = console.debug = console.error;
const print = (text) => process.stdout.write(text + ' ');
const database = new PowerSyncDatabase({
  schema, database: { dbFilename: 'app.db', dbLocation, implementation: { type: 'node:sqlite' } },
});
await database.connect(new KairosConnector(endpoint, async () => token));
await database.waitForFirstSync();
const names = async () => JSON.stringify((await database.getAll('SELECT name FROM habits ORDER BY name')).map((row) => row.name));
print(await names());
await database.writeTransaction(async (tx) => {
  await tx.execute(\"INSERT INTO habits (id, user_id, name) VALUES ('n', 'anna', 'New')\");
  await tx.execute(\"INSERT INTO habits (id, user_id, name) VALUES ('x', 'ben', 'not mine')\");
});
while ((await database.getUploadQueueStats()).count > 0 || (await names()).includes('not mine')) {
  await new Promise((resolve) => setTimeout(resolve, 20));
}
print(await names());
await database.close();
process.exit(0);
";

/// The help of a command, by its words.
fn help(words: &[String]) -> Option<String> {
    static HELP: LazyLock<Mutex<HashMap<Vec<String>, Option<String>>>> = LazyLock::new(Mutex::default);
    let mut known = HELP.lock().expect("no panic before");
    let run = || {
        let printed = Command::new(service_binary()).args(words).arg("--help").output().expect("it runs");
        printed.status.success().then(|| String::from_utf8_lossy(&printed.stdout).into_owned())
    };
    known.entry(words.to_vec()).or_insert_with(run).clone()
}

/// The words of each call of our program in a shell script.
fn calls(script: &str) -> Vec<Vec<String>> {
    let script = script.replace("\\\n", " ");
    let mut calls = Vec::new();
    for line in script.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_program = |word: &&str| {
            word.trim_start_matches("$(").trim_start_matches("./").trim_matches('`').ends_with("kairos-sync")
        };
        for (index, _) in words.iter().enumerate().filter(|(_, word)| is_program(word)) {
            let call = words[index + 1..]
                .iter()
                .take_while(|word| !matches!(**word, "|" | "&&" | ";" | "#" | ">" | "&" | "2>&1"));
            calls.push(call.map(|word| word.trim_matches([')', '`', ',', '.', ';', '"']).to_owned()).collect());
        }
    }
    calls
}

#[test]
fn every_command_in_the_docs_exists_with_its_options() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for Block { page, line, kind, text } in all_blocks() {
        if !(kind.starts_with("sh") || kind == "console") {
            continue;
        }
        // The name of a container, as in `docker compose exec kairos-sync kairos-sync status`: the call comes after it.
        for call in calls(&text).into_iter().filter(|call| call.first().is_none_or(|word| word != "kairos-sync")) {
            let is_name = |word: &&String| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
            let mut command: Vec<String> = call.iter().take_while(is_name).take(2).cloned().collect();
            let known = |command: &[String]| help(command).filter(|_| !command.is_empty());
            let text = known(&command).or_else(|| {
                command.pop();
                known(&command)
            });
            let Some(text) = text else {
                // A mention of the program's name, as in `systemctl restart kairos-sync`.
                if !call.is_empty() && command.is_empty() && call[0].starts_with(char::is_alphabetic) {
                    wrong.push(format!("{page}:{line}: {call:?} is no command"));
                }
                continue;
            };
            for option in call.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                let option = option.split('=').next().unwrap_or_default();
                checked += 1;
                if !text.contains(option) {
                    wrong.push(format!("{page}:{line}: {command:?} has no {option}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 30, "{checked} options");
}

#[test]
fn every_piece_of_yaml_in_the_docs_is_good() {
    let schemas = [kairos_sync::config::schema(), kairos_sync_rules::json_schema()];
    let schemas = schemas.map(|schema| jsonschema::validator_for(&schema).expect("a schema"));
    let mut wrong = Vec::new();
    let mut kinds = [0, 0];
    for Block { page, line, text, .. } in all_blocks().into_iter().filter(|block| block.kind == "yaml") {
        let value: Value = match serde_saphyr::from_str(&text) {
            Ok(value) => value,
            Err(error) => {
                wrong.push(format!("{page}:{line}: {error}"));
                continue;
            }
        };
        let has = |keys: &[&str]| keys.iter().any(|key| value.get(key).is_some());
        let is_rules = has(&["bucket_definitions", "streams", "write_rules", "event_definitions", "columns"]);
        kinds[usize::from(is_rules)] += 1;
        let value = if is_rules {
            // A piece of a write rule, or of a file.
            let text = match &value {
                piece if has(&["columns"]) => {
                    let mut rule = piece.clone();
                    (rule["allow"], rule["check"]) = (json!(["put"]), json!(true));
                    json!({ "bucket_definitions": {}, "write_rules": { "notes": rule } }).to_string()
                }
                _ if has(&["bucket_definitions", "streams"]) => text,
                _ => format!("bucket_definitions: {{}}\n{text}"),
            };
            let compiled = kairos_sync_rules::compile(&text, "public");
            if compiled.plan.is_none() {
                wrong.push(format!("{page}:{line}: {:?}", compiled.diagnostics));
            }
            serde_saphyr::from_str(&text).expect("as before")
        } else {
            value
        };
        wrong.extend(schemas[usize::from(is_rules)].iter_errors(&value).map(|error| format!("{page}:{line}: {error}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
}

#[test]
fn every_piece_of_json_in_the_docs_is_json() {
    for Block { page, line, text, .. } in all_blocks().into_iter().filter(|block| block.kind == "json") {
        let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>().collect::<Result<Vec<_>, _>>();
        assert!(values.is_ok_and(|values| !values.is_empty()), "{page}:{line}");
    }
}

/// Links between pages lead to pages and headings that are there.
#[test]
fn links_between_pages_lead_somewhere() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("readable");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let path = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            checked += 1;
            if !path.exists() || (!heading.is_empty() && !headings(&path).contains(&heading.to_owned())) {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 50, "{checked} links");
}

/// Headings as anchors, the way forges make them.
fn headings(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_default();
    let heading = |line: &str| {
        let title = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
    };
    text.lines().filter_map(heading).collect()
}
