//! Users of a genuine PocketBase, which alone can check its tokens.

use std::{
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use kairos_sync::demo::cluster::free_port;
use kairos_tests::service::{PATIENCE, TestService, eventually, service_binary};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How long the service believes a yes here.
const CACHE: Duration = Duration::from_secs(3);

const SCHEMA: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, owner text NOT NULL, body text);
    GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO kairos_write;
    SELECT kairos.publish_table('notes');
";

const RULES: &str = r"
config: { edition: 3 }
streams:
  notes:
    auto_subscribe: true
    query: SELECT * FROM notes WHERE owner = auth.user_id()
write_rules:
  notes: { allow: [put], check: row.owner = auth.user_id() }
";

/// A PocketBase with an empty collection `users`, ended when dropped.
pub(crate) struct PocketBase {
    binary: PathBuf,
    folder: TempDir,
    port: u16,
    child: Child,
    http: reqwest::Client,
}

impl Drop for PocketBase {
    fn drop(&mut self) {
        self.stop();
    }
}

impl PocketBase {
    pub(crate) async fn start() -> Self {
        // A second call would find the provider installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let service = service_binary();
        let target = service.parent().and_then(|profile| profile.parent()).expect("target/<profile>/kairos-sync");
        let binary = target.join("pocketbase/bin/pocketbase");
        assert!(binary.is_file(), "PocketBase is not installed: run `./kairos test`");
        let (folder, port) = (TempDir::new().expect("a folder"), free_port().expect("a port"));
        let mut setup = Command::new(&binary);
        setup.args(["superuser", "create", "root@example.com", "root-secret-1"]).arg("--dir").arg(folder.path());
        assert!(setup.stdout(Stdio::null()).status().expect("runs").success(), "makes a superuser");
        let child = serve(&binary, &folder, port);
        let pocketbase = Self { binary, folder, port, child, http: reqwest::Client::new() };
        pocketbase.wait_until_alive().await;
        pocketbase
    }

    fn stop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    async fn restart(&mut self) {
        self.child = serve(&self.binary, &self.folder, self.port);
        self.wait_until_alive().await;
    }

    async fn wait_until_alive(&self) {
        let alive = async || self.http.get(format!("{}/api/health", self.url())).send().await.is_ok();
        eventually(true, alive).await;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn call(&self, method: reqwest::Method, path: &str, token: &str, body: Value) -> Value {
        let url = format!("{}/api/collections/users/{path}", self.url());
        let request = self.http.request(method, url).header("authorization", token).json(&body);
        let response = request.send().await.expect("PocketBase answers");
        let (status, body) = (response.status(), response.json().await.expect("JSON"));
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    /// From now on tokens of users live so long.
    pub(crate) async fn shorten_tokens(&self, life: Duration) {
        let root = json!({ "identity": "root@example.com", "password": "root-secret-1" });
        let url = format!("{}/api/collections/_superusers/auth-with-password", self.url());
        let answer = self.http.post(url).json(&root).send().await.expect("PocketBase answers");
        let answer: Value = answer.json().await.expect("JSON");
        let change = json!({ "authToken": { "duration": life.as_secs() } });
        let request = self.http.patch(format!("{}/api/collections/users", self.url())).json(&change);
        let request = request.header("authorization", answer["token"].as_str().expect("a token"));
        let answer = request.send().await.expect("PocketBase answers");
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
    }

    /// Signs up, then in: id and token.
    pub(crate) async fn sign_up(&self, name: &str) -> (String, String) {
        let (email, password) = (format!("{name}@example.com"), password(name));
        let user = json!({ "email": email, "password": password, "passwordConfirm": password });
        let record = self.call(reqwest::Method::POST, "records", "", user).await;
        let id = record["id"].as_str().expect("an id").to_owned();
        (id, self.sign_in(name, &password).await)
    }

    async fn sign_in(&self, name: &str, password: &str) -> String {
        let who = json!({ "identity": format!("{name}@example.com"), "password": password });
        let answer = self.call(reqwest::Method::POST, "auth-with-password", "", who).await;
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// Makes all tokens of a user invalid.
    async fn change_password(&self, id: &str, token: &str, old: &str) {
        let change = json!({ "oldPassword": old, "password": "another-1", "passwordConfirm": "another-1" });
        self.call(reqwest::Method::PATCH, &format!("records/{id}"), token, change).await;
    }
}

fn serve(binary: &PathBuf, folder: &TempDir, port: u16) -> Child {
    let mut command = Command::new(binary);
    command.args(["serve", "--http", &format!("127.0.0.1:{port}")]).arg("--dir").arg(folder.path());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("PocketBase runs")
}

pub(crate) fn password(name: &str) -> String {
    format!("{name}-secret-1")
}

/// A service that takes tokens of this PocketBase besides its own.
async fn service(pocketbase: &PocketBase) -> TestService {
    let mut service = TestService::start(SCHEMA, RULES).await;
    take_tokens_of(&mut service, pocketbase).await;
    service
}

/// From now on the service takes tokens of this PocketBase besides its own.
pub(crate) async fn take_tokens_of(service: &mut TestService, pocketbase: &PocketBase) {
    let text = std::fs::read_to_string(&service.config).expect("readable");
    let preset = format!(
        "client_auth:\n  preset: {{ pocketbase: {{ url: '{}', collection: users, cache_seconds: {} }} }}\n",
        pocketbase.url(),
        CACHE.as_secs()
    );
    std::fs::write(&service.config, text.replace("client_auth:\n", &preset)).expect("writable");
    service.reconfigure("").await;
    service.wait_until_ready().await;
}

/// Uploads a note; the status, and the code where it is refused.
async fn upload(service: &TestService, token: &str, owner: &str, id: &str) -> (u16, Value) {
    let note = json!({ "op": "PUT", "table": "notes", "id": id, "data": { "owner": owner, "body": "from a device" } });
    let request = reqwest::Client::new().post(format!("{}/api/sync/data", service.process.endpoint()));
    let response = request.header("authorization", format!("Token {token}")).json(&json!({ "batch": [note] }));
    let response = response.timeout(PATIENCE).send().await.expect("answers");
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("JSON");
    let results = &body["data"]["results"][0]["outcome"];
    (status, if status == 200 { results.clone() } else { body["error"]["code"].clone() })
}

/// Opens a stream; the status with it.
async fn open(service: &TestService, token: &str) -> (u16, reqwest::Response) {
    let request = reqwest::Client::new().post(format!("{}/sync/stream", service.process.endpoint())).json(&json!({}));
    let response = request.header("authorization", format!("Token {token}")).send().await.expect("answers");
    (response.status().as_u16(), response)
}

/// Reads a stream to its end; the last line, and how long it took.
async fn end_of(mut stream: reqwest::Response) -> (Value, Duration) {
    let (began, mut text) = (Instant::now(), Vec::new());
    let read = async {
        while let Some(chunk) = stream.chunk().await.expect("an orderly end") {
            text.extend_from_slice(&chunk);
        }
    };
    timeout(PATIENCE, read).await.expect("the stream ends");
    let text = String::from_utf8(text).expect("lines of JSON");
    (serde_json::from_str(text.lines().last().expect("a line")).expect("JSON"), began.elapsed())
}

async fn run(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output().expect("runs"));
    timeout(PATIENCE, run).await.expect("ends").expect("runs")
}

/// What `auth check` says: its exit code, and its report.
async fn check(service: &TestService, token: &str) -> (Option<i32>, Value) {
    let mut command = Command::new(service_binary());
    command.args(["auth", "check", "--json", token, "-c"]).arg(&service.config);
    let output = run(command).await;
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")))
}

#[tokio::test]
async fn a_user_of_pocketbase_syncs_and_uploads_until_the_password_changes() {
    let pocketbase = PocketBase::start().await;
    let service = service(&pocketbase).await;
    let (ann, token) = pocketbase.sign_up("ann").await;
    let (eve, eves) = pocketbase.sign_up("eve").await;
    assert_eq!(upload(&service, &token, &ann, "one").await, (200, json!("applied")));
    assert_eq!(upload(&service, &eves, &ann, "two").await, (200, json!("refused")), "eve is not ann");
    assert_eq!(upload(&service, &eves, &eve, "three").await, (200, json!("applied")));
    let local = service.token(&ann);
    assert_eq!(upload(&service, &local, &ann, "four").await, (200, json!("applied")), "keys go on to work");

    let mut client = Command::new(service_binary());
    client.args(["client", "--url", service.process.endpoint(), "--json", "--sql", "SELECT id FROM notes ORDER BY id"]);
    client.arg("--db").arg(service.folder.path().join("ann.db")).env("KAIROS_CLIENT_TOKEN", &token);
    let output = run(client).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let rows: Vec<&Value> = rows.iter().filter(|row| row["event"] == "row").map(|row| &row["row"]["id"]).collect();
    assert_eq!(rows, ["four", "one"], "{output:?}");

    let (code, report) = check(&service, &token).await;
    assert_eq!((code, &report["user_id"]), (Some(0), &json!(ann)), "{report}");
    assert_eq!(report["claims"], json!({ "sub": ann, "email": "ann@example.com", "verified": false }));

    // A stream that is open, and others whose proof does not change.
    let (status, stream) = open(&service, &token).await;
    let (_, other) = open(&service, &eves).await;
    assert_eq!(status, 200);
    pocketbase.change_password(&ann, &token, &password("ann")).await;
    let changed = Instant::now();
    let (last, took) = end_of(stream).await;
    assert_eq!(last, json!({ "token_expires_in": 0 }));
    println!("the stream ended {took:?} after the password was changed");
    eventually((401, json!("PSYNC_S2101")), async || upload(&service, &token, &ann, "late").await).await;
    println!("uploads were refused {:?} after it", changed.elapsed());
    assert!(timeout(CACHE, end_of(other)).await.is_err(), "eve's stream goes on");
    assert_eq!(open(&service, &token).await.0, 401);
    let (code, report) = check(&service, &token).await;
    assert_eq!((code, &report["error"]["code"]), (Some(1), &json!("PSYNC_S2101")), "{report}");
    assert_eq!(report["remedy"]["setting"], "client_auth.preset.pocketbase");

    let fresh = pocketbase.sign_in("ann", "another-1").await;
    assert_eq!(upload(&service, &fresh, &ann, "five").await, (200, json!("applied")));
}

#[tokio::test]
async fn a_pocketbase_that_is_down_is_a_temporary_failure_and_no_refusal() {
    let mut pocketbase = PocketBase::start().await;
    let service = service(&pocketbase).await;
    let (ann, token) = pocketbase.sign_up("ann").await;
    let (bob, bobs) = pocketbase.sign_up("bob").await;
    for wrong in ["opaque", "a.b.c", &format!("{token}x")] {
        assert_eq!(upload(&service, wrong, &ann, "wrong").await, (401, json!("PSYNC_S2101")), "{wrong}");
    }
    assert_eq!(upload(&service, &token, &ann, "one").await, (200, json!("applied")));
    let known = Instant::now();
    let (_, stream) = open(&service, &token).await;
    pocketbase.stop();
    let answer = upload(&service, &token, &ann, "two").await;
    // On a machine that stood still meanwhile it may be over.
    if known.elapsed() < CACHE / 2 {
        assert_eq!(answer, (200, json!("applied")), "what was known goes on to hold");
    }
    assert_eq!(upload(&service, &bobs, &bob, "bobs").await, (503, json!("AUTH-0101")), "nothing is known of bob");
    let (last, _) = end_of(stream).await;
    assert_eq!(last, json!({ "token_expires_in": 0 }), "nobody confirms it");
    assert_eq!(upload(&service, &token, &ann, "three").await, (503, json!("AUTH-0101")));
    assert_eq!(upload(&service, &service.token(&ann), &ann, "four").await, (200, json!("applied")), "keys are at hand");
    let (code, report) = check(&service, &token).await;
    assert_eq!((code, &report["verdict"]), (Some(2), &json!("unknown")), "{report}");

    pocketbase.restart().await;
    eventually((200, json!("applied")), async || upload(&service, &token, &ann, "five").await).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(upload(&service, &bobs, &bob, "bobs").await, (200, json!("applied")));
}
