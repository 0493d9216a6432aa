//! How far copies of tables are, as an operator sees it: in `/status`, in `kairos-sync status`, in metrics, and as bars
//! on a terminal.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use kairos_sync::{
    demo::{
        cluster::{PgCluster, free_port},
        process::ServiceProcess,
    },
    replication::{CopyStage, StatusSnapshot},
};
use kairos_tests::service::{ADMIN_TOKEN, PATIENCE, connect, eventually, service_binary};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    liveness::{Frozen, signal, walsenders},
    replica::{Replica, slow, source},
};

pub(crate) const RULES: &str = "bucket_definitions: {everything: {data: [SELECT * FROM items, SELECT * FROM notes]}}";
/// Other rules, which do not read the large table.
pub(crate) const NOTES_ONLY: &str = "bucket_definitions: {everything: {data: [SELECT * FROM notes]}}";
const TABLES: &str = "
    CREATE TABLE items (id text PRIMARY KEY, title text);
    CREATE TABLE notes (id text PRIMARY KEY);
    INSERT INTO items SELECT n, repeat('x', 200) FROM generate_series(1, 30000) n;
    INSERT INTO notes SELECT n FROM generate_series(1, 3000) n;
    ANALYZE;
    CREATE PUBLICATION kairos_sync FOR TABLE items, notes;";
/// So that the copy takes some seconds.
const BYTES_PER_SECOND: u32 = 1_000_000;

/// A source to be copied slowly, and a configuration for it.
pub(crate) struct Site {
    pub(crate) cluster: PgCluster,
    pub(crate) folder: TempDir,
    pub(crate) url: String,
}

impl Site {
    async fn open() -> Self {
        Self::open_with(RULES, BYTES_PER_SECOND).await
    }

    /// With these rules, copying at this speed.
    pub(crate) async fn open_with(rules: &str, bytes_per_second: u32) -> Self {
        // A second call would find the provider installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = PgCluster::start(None).expect("a server");
        let uri = cluster.uri("postgres", "postgres");
        connect(&uri).await.batch_execute(TABLES).await.expect("fills");
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port().expect("a free port"));
        let config = format!(
            "replication: {{ connections: [{{ uri: '{uri}', snapshot_bytes_per_second: {bytes_per_second} }}] }}\n\
             sync_config: {{ path: rules.yaml }}\nclient_auth: {{ audience: app }}\ndata_dir: data\nport: {port}\n\
             api: {{ tokens: [{ADMIN_TOKEN}] }}\n"
        );
        fs::write(folder.path().join("kairos.yaml"), config).expect("writes the configuration");
        fs::write(folder.path().join("rules.yaml"), rules).expect("writes the rules");
        Self { cluster, folder, url: format!("http://127.0.0.1:{port}") }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_remove("PS_LOG_LEVEL").env_remove("RUST_LOG").kill_on_drop(true);
        command
    }

    /// Runs the service with a terminal, whose content goes into a file of the folder.
    fn serve_on_terminal(&self, file: &str) -> OnTerminal {
        let serve = format!("echo $$ > process; exec '{}' serve --config kairos.yaml", service_binary().display());
        let mut command = self.command(Path::new("script"));
        command.args(["--quiet", "--flush", "--command", &serve, file]).env("TERM", "xterm");
        let script = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("util-linux has `script`");
        OnTerminal { process: self.folder.path().join("process"), _script: script }
    }

    /// Watches the status until everything is copied, with what is printed in a file of the folder.
    fn watch_into(&self, file: &str) -> Child {
        let out = fs::File::create(self.folder.path().join(file)).expect("a file");
        self.command(&service_binary())
            .args(["status", "--watch", "--url", &self.url])
            .stdout(out)
            .spawn()
            .expect("starts")
    }

    /// Runs the service with its log in a file of the folder.
    pub(crate) fn serve_into(&self, file: &str) -> Child {
        let log = fs::File::create(self.folder.path().join(file)).expect("a file");
        self.command(&service_binary()).args(["serve", "-c", "kairos.yaml"]).stderr(log).spawn().expect("starts")
    }

    fn read(&self, file: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join(file)).expect("it was written")).into_owned()
    }

    async fn status(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(&service_binary());
        let run = command.arg("status").args(arguments).output();
        timeout(PATIENCE, run).await.expect("in time").expect("it runs")
    }

    /// The answer of the service once this holds.
    pub(crate) async fn answer(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let printed = self.status(&["--json", "--url", &self.url]).await;
            let answer = serde_json::from_slice(&printed.stdout).unwrap_or_default();
            if holds(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{answer:#}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A service with a terminal. It outlives its terminal, whose end is a request to read the rules again (SIGHUP).
struct OnTerminal {
    /// The file that names its process.
    process: PathBuf,
    _script: Child,
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        if let Ok(process) = fs::read_to_string(&self.process) {
            signal("-TERM", process.trim());
        }
    }
}

fn copy<'a>(answer: &'a Value, table: &str) -> Option<&'a Value> {
    answer["replication"]["copies"].as_array()?.iter().find(|copy| copy["table"] == table)
}

#[tokio::test]
async fn copies_are_shown_wherever_an_operator_looks() {
    let site = Site::open().await;
    let service = site.serve_on_terminal("terminal");
    let done = |answer: &Value| copy(answer, "public.items").and_then(|copy| copy["bytes_done"].as_u64());
    let begun = site.answer(|answer| done(answer) > Some(0)).await;
    // The last copy does not end while the stream stands still, however slow this machine is.
    let client = connect(&site.cluster.uri("postgres", "postgres")).await;
    eventually(1, async || walsenders(&client).await.len()).await;
    let frozen: Vec<_> = walsenders(&client).await.iter().map(|process| Frozen::new(&process.to_string())).collect();
    let items = copy(&begun, "public.items").expect("it is copied");
    assert_eq!((&begun["ready"], &items["rows_estimated"]), (&Value::Bool(false), &30_000.into()), "{begun:#}");
    assert!(items["seconds_left"].is_u64() && begun["replication"]["copy_seconds_left"].is_u64(), "{begun:#}");
    assert!(items["bytes_total"].as_u64() > done(&begun), "{begun:#}");
    let notes = copy(&begun, "public.notes").expect("it is to be copied");
    assert_eq!((&notes["stage"], &notes["bytes_done"]), (&"waiting".into(), &0.into()));
    assert!(notes["bytes_total"].as_u64() > Some(0), "its size is known before");
    site.answer(|answer| done(answer) > done(&begun)).await;

    let metrics = reqwest::get(format!("{}/metrics", site.url)).await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains("kairos_copy_bytes_left{table=\"public.notes\"}"), "{metrics}");
    let printed = site.status(&["--config", "kairos.yaml"]).await;
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert_eq!(printed.status.code(), Some(0), "{text}");
    assert!(text.contains("not ready, copying\n") && text.contains("of about 30,000 rows"), "{text}");

    let mut watching = site.watch_into("watched");
    let deadline = Instant::now() + PATIENCE;
    while site.read("watched").matches("\n  public.").count() < 2 {
        assert!(Instant::now() < deadline, "{}\n{}", site.read("watched"), site.read("terminal"));
        sleep(Duration::from_millis(50)).await;
    }
    drop(frozen);
    let status = watching.wait().await.expect("it ends");
    let text = site.read("watched");
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(
        text.lines().rev().find(|line| line.starts_with("kairos-sync")).is_some_and(|line| line.ends_with("streaming"))
    );
    assert_eq!(site.answer(|_| true).await["replication"]["copies"], serde_json::json!([]));
    let metrics = reqwest::get(format!("{}/metrics", site.url)).await.expect("an answer").text().await.expect("text");
    assert!(!metrics.contains("kairos_copy_bytes_left{"), "nothing is left of a copy that is over");
    assert_eq!(site.status(&["--config", "kairos.yaml", "--ready"]).await.status.code(), Some(0));

    drop(service);
    let terminal = site.read("terminal");
    assert!(terminal.contains("%  public.items: ") && terminal.contains("%  2 tables, "), "{terminal}");
    assert!(terminal.contains("copying a table"), "the log is there, too: {terminal}");
}

#[tokio::test]
async fn where_there_is_no_terminal_there_are_no_bars() {
    let site = Site::open().await;
    let service = site.serve_into("log");
    site.answer(|answer| answer["replication"]["phase"] == "streaming").await;
    drop(service);
    let log = site.read("log");
    assert!(log.contains("copying a table") && !log.contains('\u{1b}') && !log.contains("%  public"), "{log}");
}

/// Answers one request as a service of another kind would.
async fn answer_not_found(listener: TcpListener) {
    let (mut socket, _) = listener.accept().await.expect("a request");
    let mut request = [0; 4];
    socket.read_exact(&mut request).await.expect("a request");
    socket.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.expect("answers");
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_no_good_news() {
    let site = Site::open().await;
    let silent = site.status(&["--url", &site.url]).await;
    let message = String::from_utf8_lossy(&silent.stderr).into_owned();
    assert_eq!((silent.status.code(), silent.stdout.len()), (Some(2), 0));
    assert!(message.starts_with("error CONF-0301: no status from http://127.0.0.1:"), "{message}");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let url = format!("http://me:secret@{address}");
    let arguments = ["--url", &*url];
    let (other, ()) = tokio::join!(site.status(&arguments), answer_not_found(listener));
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(message.starts_with("error CONF-0302: ") && !message.contains("secret"), "{message}");
    let none = site.status(&["--url", "nowhere"]).await;
    assert!(String::from_utf8_lossy(&none.stderr).starts_with("error CONF-0300: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_waits_for_the_stream_says_so() {
    let (cluster, client) = source().await;
    let fill = "INSERT INTO items SELECT 'i' || n, repeat('x', 200) FROM generate_series(1, 60000) n";
    client.batch_execute(fill).await.expect("fills");
    let mut source = slow(&cluster, 2_000_000);
    source.heartbeat = Some(Duration::from_millis(100));
    let replica = Replica::start_from(source);
    let stage = |status: &StatusSnapshot| status.current_copy().map(|copy| copy.stage);
    replica.wait_until(|replica| stage(&replica.status.snapshot()) == Some(CopyStage::Copying)).await;
    let senders = walsenders(&client).await;
    let frozen: Vec<_> = senders.iter().map(|process| Frozen::new(&process.to_string())).collect();
    assert_eq!(frozen.len(), 1, "who sends the stream");
    client.batch_execute("INSERT INTO completions VALUES ('1', 'h')").await.expect("writes");
    let waits = |status: &StatusSnapshot| stage(status) == Some(CopyStage::WaitingForStream) && status.lag_bytes() > 0;
    replica.wait_until(|replica| waits(&replica.status.snapshot())).await;
    drop(frozen);
    replica.catch_up(&client).await;
    replica.wait_for_stream().await;
    assert_eq!(replica.status.snapshot().copies, []);
    replica.stop().await;
}

#[tokio::test]
async fn a_service_without_its_source_is_not_ready_and_one_that_is_gone_does_not_answer() {
    // A second call would find the provider installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port().expect("a free port"));
    let config = folder.path().join("kairos.yaml");
    let text = format!(
        "replication: {{ connections: [{{ uri: 'postgresql://app@127.0.0.1:1/app' }}] }}\n\
         sync_config: {{ content: '{RULES}' }}\nclient_auth: {{ audience: app }}\ndata_dir: data\nport: {port}\n"
    );
    fs::write(&config, text).expect("writes the configuration");
    let process = ServiceProcess::start(&service_binary(), &config, port).await.expect("it starts");
    let ready = || Command::new(service_binary()).args(["status", "--ready", "--config"]).arg(&config).output();
    let answer = ready().await.expect("it runs");
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.stdout).contains("not ready"), "{answer:?}");
    drop(process);
    assert_eq!(ready().await.expect("it runs").status.code(), Some(2));
}
