//! The exact bytes that clients get for a small history with every kind of line the stores make.
//!
//! `GOLDEN_RENEW=1` writes the files anew; what changed is then to be read in the diff, as a client would read it.

use std::{fs, path::PathBuf};

use super::{rsocket::Socket, *};
use crate::{
    storage::{RowKey, TableId},
    sync::test_lookups::lookups_of,
};

const RULES: &str = "bucket_definitions:
  mine:
    priority: 0
    parameters: SELECT request.user_id() AS user_id
    data: ['SELECT * FROM lists WHERE owner_id = bucket.user_id']
  team:
    parameters: SELECT team_id FROM members WHERE user_id = request.user_id()
    data: ['SELECT * FROM tasks WHERE team_id = bucket.team_id']
";
const BSON: &str = "application/vnd.powersync.bson-stream";
/// Stands for the random name of the store, which has as many characters.
const STORE: &str = "goldenname";
/// The position at which [`FixedHead`] stands.
const HEAD: u64 = 100;

/// What one commit does: rows of buckets (`None` removes one), and whether `anna` is in the team.
type Step = (u64, &'static [(&'static str, &'static str, Option<&'static str>)], Option<bool>);

/// Before the client comes, and while it is there.
const HISTORY: [Step; 5] = [
    (
        10,
        &[
            (r#"mine["anna"]"#, "l1", Some(r#"{"id":"l1","text":"say \"hi\", \\ and ü\n🦀","n":9007199254740993}"#)),
            (r#"team["blue"]"#, "t1", Some(r#"{"id":"t1","done":0,"rate":0.5,"none":null}"#)),
            (r#"mine["ben"]"#, "l2", Some(r#"{"id":"l2"}"#)),
        ],
        Some(true),
    ),
    (
        20,
        &[
            (r#"mine["anna"]"#, "l1", None),
            (r#"team["blue"]"#, "t2", Some(r#"{"id":"t2"}"#)),
            (r#"mine["anna"]"#, "l3", Some(r#"{"id":"l3"}"#)),
        ],
        None,
    ),
    (30, &[], Some(false)),
    (HEAD, &[], None),
    (HEAD + 1, &[(r#"mine["anna"]"#, "l3", Some(r#"{"id":"l3","text":""}"#))], Some(true)),
];

impl TestService {
    fn play(&self, (lsn, rows, is_member): Step) {
        let prefix = self.store.bucket_prefix().unwrap();
        let operation = |(bucket, id, data): &(&str, &str, Option<&str>)| NewOperation {
            output: RowOutput {
                bucket: BucketName::new(format!("{prefix}{bucket}")),
                object_type: if bucket.starts_with("mine") { "lists" } else { "tasks" }.into(),
                object_id: (*id).into(),
            },
            subkey: format!("key of {id}").into(),
            checksum: data.map_or(Checksum::of_remove(id), |data| Checksum::of_put("rows", id, data)),
            data: data.map(Into::into),
        };
        let plan = kairos_sync_rules::compile(RULES, "public").plan.unwrap();
        let (lookup, value) = lookups_of(&plan, "members", &[("user_id", "anna"), ("team_id", "blue")]).remove(0);
        let row = RowKey { table: TableId(1), identity: (*b"m1").into() };
        let values = |is_member: bool| (lookup, row, is_member.then_some(value).into_iter().collect());
        let batch = Batch {
            operations: rows.iter().map(operation).collect(),
            lookups: is_member.map(values).into_iter().collect(),
            visible_at: Some(Lsn::new(lsn)),
            ..Batch::default()
        };
        self.hub.publish(&self.store.commit(batch).unwrap());
    }

    async fn ask_for_a_write_checkpoint(&self) {
        let request = self.client.get(self.url("/write-checkpoint2.json?client_id=phone"));
        let request = request.header("authorization", format!("Token {}", token("anna")));
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }

    /// Puts the name that stands for the store's in place of the store's.
    fn with_fixed_name(&self, bytes: &[u8]) -> Vec<u8> {
        let prefix = self.store.bucket_prefix().unwrap();
        let name = &prefix.as_bytes()[..STORE.len()];
        let mut bytes = bytes.to_vec();
        while let Some(at) = bytes.windows(name.len()).position(|window| window == name) {
            bytes[at..at + name.len()].copy_from_slice(STORE.as_bytes());
        }
        bytes
    }
}

/// The whole lines at the beginning of a stream.
fn lines(mut bytes: &[u8], is_bson: bool) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    loop {
        let length = if is_bson {
            bytes.first_chunk().map(|length| usize::try_from(i32::from_le_bytes(*length)).unwrap())
        } else {
            bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1)
        };
        let Some((line, rest)) = length.and_then(|length| bytes.split_at_checked(length)) else { return lines };
        lines.push(line);
        bytes = rest;
    }
}

/// How many checkpoints are complete.
fn completions(lines: &[&[u8]]) -> usize {
    let ends =
        |line: &&&[u8]| line[2..].starts_with(b"checkpoint_complete") || line[5..].starts_with(b"checkpoint_complete");
    lines.iter().filter(ends).count()
}

/// What a client gets over HTTP, and what the one gets whose token is over.
async fn over_http(accept: &str, raw_data: bool) -> Vec<u8> {
    let is_bson = accept == BSON;
    let service = start_with_rules(RULES).await;
    service.play(HISTORY[0]);
    let open = |token: String| {
        let body = json!({"raw_data": raw_data, "client_id": "phone"});
        let request = service.client.post(service.url("/sync/stream")).timeout(DEADLINE).json(&body);
        // Compressed, lines may begin with spaces.
        let request = request.header("accept-encoding", "identity");
        request.header("authorization", format!("Token {token}")).header("accept", accept).send()
    };
    let mut response = open(token("anna")).await.unwrap();
    let mut bytes = Vec::new();
    for done in 1..=HISTORY.len() {
        while completions(&lines(&bytes, is_bson)) < done {
            bytes.extend_from_slice(&response.chunk().await.unwrap().expect("the stream goes on"));
        }
        if done == 2 {
            service.ask_for_a_write_checkpoint().await;
        }
        if let Some(step) = HISTORY.get(done) {
            service.play(*step);
        }
    }
    let short = open(token_of_a_second("ben")).await.unwrap().bytes().await.unwrap();
    bytes.extend_from_slice(lines(&short, is_bson).last().unwrap());
    service.with_fixed_name(&bytes)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/api/tests/golden").join(name)
}

#[track_caller]
fn compare(name: &str, bytes: &[u8]) {
    if std::env::var_os("GOLDEN_RENEW").is_some() {
        fs::write(path(name), bytes).unwrap();
    }
    let golden = fs::read(path(name)).expect("GOLDEN_RENEW=1 makes the file");
    let differs =
        bytes.iter().zip(&golden).position(|(one, other)| one != other).unwrap_or(bytes.len().min(golden.len()));
    let around = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[differs.saturating_sub(80)..bytes.len().min(differs + 80)]).into_owned()
    };
    assert!(bytes == golden, "{name} differs at byte {differs}:\n{}\ninstead of\n{}", around(bytes), around(&golden));
}

#[tokio::test]
async fn lines_of_json_are_as_ever() {
    compare("history.ndjson", &over_http("application/x-ndjson", true).await);
}

#[tokio::test]
async fn lines_of_json_with_nested_data_are_as_ever() {
    compare("history.nested.ndjson", &over_http("application/x-ndjson", false).await);
}

#[tokio::test]
async fn lines_of_bson_are_as_ever() {
    compare("history.bson", &over_http(BSON, true).await);
}

#[tokio::test]
async fn frames_over_a_websocket_are_as_ever() {
    let service = start_with_rules(RULES).await;
    service.play(HISTORY[0]);
    let mut anna = Socket::set_up(&service, "anna").await;
    anna.open(1, 1000).await;
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for done in 1..=HISTORY.len() {
        while completions(&frames.iter().map(|frame| &frame[6..]).collect::<Vec<_>>()) < done {
            frames.push(anna.message().await.expect("the stream goes on").to_vec());
        }
        if done == 2 {
            service.ask_for_a_write_checkpoint().await;
        }
        if let Some(step) = HISTORY.get(done) {
            service.play(*step);
        }
    }
    compare("history.rsocket", &service.with_fixed_name(&frames.concat()));
}

/// So that the files do not lose a kind unnoticed.
#[test]
fn the_history_has_every_kind_of_line() {
    let text = fs::read_to_string(path("history.ndjson")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |pointer: &str| lines.iter().any(|line| line.pointer(pointer).is_some());
    for pointer in [
        "/checkpoint/buckets/1",
        "/checkpoint_diff/updated_buckets/0",
        "/checkpoint_diff/removed_buckets/0",
        "/checkpoint_diff/write_checkpoint",
        "/data/data/0/data",
        "/partial_checkpoint_complete",
        "/checkpoint_complete",
        "/token_expires_in",
    ] {
        assert!(has(pointer), "{pointer}");
    }
    assert!(text.contains(r#""op":"PUT""#) && text.contains(r#""op":"REMOVE""#));
}
