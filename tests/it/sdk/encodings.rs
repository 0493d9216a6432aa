//! Compressed streams through the decoders of Node.js, Chromium and curl: each line can be read before there is a next.

use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::{PATIENCE, TestService},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::joiner;

/// The first lines are long, so that decoders are given more than fits their buffers at once.
const SCHEMA: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, body text NOT NULL);
    SELECT kairos.publish_table('notes');
    INSERT INTO notes SELECT 'copied-' || n, repeat(md5(n::text), 40) FROM generate_series(1, 1500) n";

const COPIED: usize = 1500;

const RULES: &str = "bucket_definitions: {all: {data: [SELECT * FROM notes]}}";

/// What the service offers, by its name in HTTP.
const ENCODINGS: [&str; 3] = ["zstd", "gzip", "identity"];

/// Changes that are made one after the other, each once the lines of the one before were read.
const CHANGES: usize = 5;

async fn start() -> TestService {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    service
}

/// Reads all that is there, then makes changes one by one. `line` gives the next line, decoded.
async fn every_line_comes_at_once(service: &TestService, encoding: &str, mut line: impl AsyncFnMut() -> String) {
    let mut ids_to_checkpoint = async || {
        let mut ids = Vec::new();
        loop {
            let line = timeout(PATIENCE, line()).await.unwrap_or_else(|_| panic!("{encoding}: no line comes"));
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{encoding}: {error}: {line}"));
            if line.get("checkpoint_complete").is_some() {
                return ids;
            }
            let operations = line["data"]["data"].as_array().into_iter().flatten();
            ids.extend(operations.map(|operation| operation["object_id"].as_str().expect("an id").to_owned()));
        }
    };
    let earlier: i64 = service.sql.query_one("SELECT count(*) FROM notes", &[]).await.expect("a count").get(0);
    let first = ids_to_checkpoint().await;
    assert_eq!(i64::try_from(first.len()), Ok(earlier), "{encoding}");
    assert!(first.len() >= COPIED, "{encoding}");
    for n in 0..CHANGES {
        let id = format!("{encoding}-{n}");
        service.run(&format!("INSERT INTO notes VALUES ('{id}', 'new')")).await;
        assert_eq!(ids_to_checkpoint().await, [id]);
    }
}

async fn the_fetch_of(sdk: Sdk, service: &TestService, endpoint: &str) {
    let client = OfficialClient::open(sdk, service.folder.path(), "phone", &json!({})).await;
    for encoding in ENCODINGS {
        let token = service.token("ann");
        let follow = json!({"do": "follow", "endpoint": endpoint, "token": token, "encoding": encoding});
        let used = client.call(follow).await;
        assert_eq!(used.as_str().unwrap_or("identity"), encoding);
        let line = async || client.call(json!({"do": "line"})).await.as_str().expect("a line").to_owned();
        every_line_comes_at_once(service, encoding, line).await;
    }
    client.call(json!({"do": "close"})).await;
}

#[tokio::test]
async fn the_fetch_of_node_reads_every_line_as_it_comes() {
    let service = start().await;
    the_fetch_of(Sdk::HTTP, &service, service.process.endpoint()).await;
}

#[tokio::test]
async fn the_fetch_of_chromium_reads_every_line_as_it_comes() {
    let service = start().await;
    the_fetch_of(Sdk::WEB, &service, service.process.endpoint()).await;
}

#[tokio::test]
async fn the_fetch_of_node_reads_every_line_where_a_proxy_joins_pieces() {
    let service = start().await;
    let endpoint = joiner::start(service.process.endpoint()).await;
    the_fetch_of(Sdk::HTTP, &service, &endpoint).await;
}

/// A running curl, killed when dropped.
struct Curl {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Curl {
    /// Offers `encoding`, or what it offers by itself, and gives what was chosen.
    async fn follow(service: &TestService, encoding: Option<&str>) -> (Self, String) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--no-buffer", "--include", "--compressed", "--noproxy", "*"]);
        command.args(["--json", r#"{"raw_data":true}"#]);
        command.args(["--header", &format!("Authorization: Token {}", service.token("ann"))]);
        if let Some(encoding) = encoding {
            command.args(["--header", &format!("Accept-Encoding: {encoding}")]);
        }
        command.arg(format!("{}/sync/stream", service.process.endpoint()));
        let mut process = command
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("curl is installed: run `./kairos test`");
        let lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let mut curl = Self { _process: process, lines };
        let mut used = "identity".to_owned();
        loop {
            let line = curl.line().await;
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-encoding") => value.clone_into(&mut used),
                _ if line.is_empty() => return (curl, used),
                _ => {}
            }
        }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("no line comes");
        line.expect("text").expect("the stream goes on").trim_end().to_owned()
    }
}

#[tokio::test]
async fn curl_reads_every_line_as_it_comes() {
    let service = start().await;
    for encoding in ENCODINGS {
        let (mut curl, used) = Curl::follow(&service, Some(encoding)).await;
        assert_eq!(used, encoding);
        every_line_comes_at_once(&service, encoding, async || curl.line().await).await;
    }
    // What it offers by itself depends on how it was built, but is always something.
    let (_, used) = Curl::follow(&service, None).await;
    assert_ne!(used, "identity");
}
