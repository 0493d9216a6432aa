//! `kairos-sync client` against a real service on real Postgres: what it syncs is compared with SQL run there.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, SystemTime},
};

use kairos_client::rusqlite::Connection;
use kairos_sync::demo::token::{AUDIENCE, KEY_ID};
use kairos_tests::service::{PATIENCE, TestService, eventually, service_binary};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

const SCHEMA: &str = "
    CREATE TABLE lists (id text PRIMARY KEY, owner text NOT NULL, name text NOT NULL);
    CREATE TABLE todos (id text PRIMARY KEY, list_id text NOT NULL, title text, done boolean, weight float8, size int8);
    SELECT kairos.publish_table('lists');
    SELECT kairos.publish_table('todos');
    INSERT INTO lists SELECT 'list-' || n, CASE n % 2 WHEN 0 THEN 'ann' ELSE 'bob' END, 'List ' || n FROM generate_series(1, 6) n;
    INSERT INTO todos SELECT 'todo-' || n, 'list-' || n % 6 + 1, 'Todo ' || n, n % 3 = 0, n / 4.0, 9007199254740993 + n
      FROM generate_series(1, 120) n;
";

const RULES: &str = r"
config: { edition: 3 }
streams:
  lists:
    auto_subscribe: true
    priority: 1
    query: SELECT * FROM lists WHERE owner = auth.user_id()
  todos:
    auto_subscribe: true
    query: SELECT * FROM todos WHERE list_id IN (SELECT id FROM lists WHERE owner = auth.user_id())
  one_list:
    query: SELECT * FROM lists WHERE id = subscription.parameter('list')
";

/// What ann's device must have, one text per row; times and formats as both sides print them.
const ON_POSTGRES: &str = "
    SELECT l.name || '|' || t.id || '|' || t.title || '|' || t.done::int || '|' || t.weight::numeric(9, 2) || '|' || t.size
    FROM todos t JOIN lists l ON l.id = t.list_id WHERE l.owner = $1 ORDER BY t.id COLLATE \"C\"";
const ON_DEVICE: &str = "
    SELECT l.name || '|' || t.id || '|' || t.title || '|' || t.done || '|' || printf('%.2f', t.weight) || '|' || t.size AS line
    FROM todos t JOIN lists l ON l.id = t.list_id ORDER BY t.id";

fn db(service: &TestService, name: &str) -> PathBuf {
    service.folder.path().join(name)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(service_binary());
    command.arg("client").args(arguments).kill_on_drop(true);
    command.env_remove("KAIROS_CLIENT_TOKEN").env_remove("KAIROS_CLIENT_SECRET").env_remove("RUST_LOG");
    command
}

async fn run(command: &mut Command) -> Output {
    timeout(PATIENCE, command.output()).await.expect("in time").expect("it runs")
}

/// Who syncs where, into which file.
struct Device<'service> {
    service: &'service TestService,
    user: &'static str,
    db: PathBuf,
}

impl<'service> Device<'service> {
    fn new(service: &'service TestService, user: &'static str, file: &str) -> Self {
        Self { service, user, db: db(service, file) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&["--url", self.service.process.endpoint()]);
        command.arg("--db").arg(&self.db).env("KAIROS_CLIENT_TOKEN", self.service.token(self.user)).args(arguments);
        command
    }

    /// The objects a run prints that ends well.
    async fn events(&self, arguments: &[&str]) -> Vec<Value> {
        let output = run(self.command(&["--json"]).args(arguments)).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        objects(&output.stdout)
    }

    /// What `--once` says of its checkpoint.
    async fn once(&self) -> Value {
        event(&self.events(&["--once"]).await, "checkpoint")
    }

    /// The rows of [`ON_DEVICE`], synced now.
    async fn lines(&self) -> Vec<String> {
        let events = self.events(&["--sql", ON_DEVICE]).await;
        let rows = events.iter().filter(|event| event["event"] == "row");
        rows.map(|event| event["row"]["line"].as_str().expect("a text").to_owned()).collect()
    }

    async fn expected(&self) -> Vec<String> {
        let rows = self.service.sql.query(ON_POSTGRES, &[&self.user]).await.expect("valid SQL");
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn objects(output: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(output).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

fn event(events: &[Value], kind: &str) -> Value {
    events.iter().find(|event| event["event"] == kind).unwrap_or_else(|| panic!("no {kind}: {events:#?}")).clone()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn service() -> TestService {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    service
}

#[tokio::test]
async fn once_gets_what_sql_says_and_the_next_run_only_what_is_new() {
    let service = service().await;
    let ann = Device::new(&service, "ann", "ann.db");
    let first = ann.once().await;
    assert_eq!((&first["buckets"], &first["operations"]), (&json!(4), &json!(63)), "{first}");
    assert_eq!(first["tables"], json!({ "lists": 3, "todos": 60 }));
    assert_eq!(first["changes"]["todos"], json!({ "written": 60, "deleted": 0 }));
    let again = ann.once().await;
    assert_eq!((&again["operations"], &again["changes"]), (&json!(0), &json!({})), "{again}");
    assert_eq!(again["tables"], first["tables"]);

    let sql = "INSERT INTO todos VALUES ('new', 'list-2', 'New', true, 0.5, -1)";
    service.sql.batch_execute(sql).await.expect("valid SQL");
    eventually(true, async || ann.once().await["tables"]["todos"] == json!(61)).await;
    assert_eq!(ann.lines().await, ann.expected().await);

    // Any program that reads SQLite sees the same.
    let file = Connection::open(&ann.db).expect("a SQLite file");
    let row = file.query_row("SELECT * FROM todos WHERE id = 'new'", [], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, i64>("done")?,
            row.get::<_, f64>("weight")?,
            row.get::<_, i64>("size")?,
        ))
    });
    assert_eq!(row, Ok(("new".to_owned(), 1, 0.5, -1)));
    drop(file);

    let output = run(&mut ann.command(&["--once"])).await;
    let printed = text(&output.stdout);
    assert!(printed.starts_with("checkpoint ") && printed.contains(": 4 buckets; 0 operations and "), "{printed}");
    assert!(printed.ends_with("\n  lists: 3 rows\n  todos: 61 rows\n"), "{printed}");
    let left: Vec<_> = std::fs::read_dir(service.folder.path()).expect("a folder").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("ann.db-")), "{left:?}");
}

#[tokio::test]
async fn queries_join_and_print_a_table_and_only_read() {
    let service = service().await;
    let ann = Device::new(&service, "ann", "ann.db");
    let join = "SELECT l.id, l.name, count(*) AS todos FROM lists l JOIN todos t ON t.list_id = l.id GROUP BY l.id";
    let output = run(&mut ann.command(&["--sql", join, "--sql", "SELECT 1 AS one"])).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        text(&output.stdout),
        "id      name    todos\n------  ------  -----\nlist-2  List 2  20\nlist-4  List 4  20\nlist-6  List 6  20\n\
         one\n---\n1\n"
    );
    assert!(text(&output.stderr).contains("  todos: 60 rows"), "the summary is not among the rows");

    let offline = |sql: &'static str| {
        let db = ann.db.to_str().expect("a plain name").to_owned();
        async move { run(&mut command(&["--offline", "--db", &db, "--json", "--sql", sql])).await }
    };
    let output = offline("SELECT id, done, weight, size, NULL AS n FROM todos ORDER BY id LIMIT 1").await;
    assert_eq!(
        objects(&output.stdout),
        [
            json!({ "event": "row", "query": 1,
                "row": { "id": "todo-1", "done": 0, "weight": 0.25, "size": 9_007_199_254_740_994_i64, "n": null } }),
            json!({ "event": "rows", "query": 1, "columns": ["id", "done", "weight", "size", "n"], "count": 1 }),
        ]
    );
    let output = offline("SELECT * FROM tasks").await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "error CLIENT-0409: query 1 names the table `tasks`, which nobody has synced into this file; there are: lists, \
         todos\n"
    );
    assert_eq!(event(&objects(&output.stdout), "error")["code"], "CLIENT-0409");
    for sql in ["DELETE FROM todos", "DROP VIEW todos", "SELEC 1", "SELECT 1; SELECT 2", "PRAGMA journal_mode = delete"]
    {
        let output = offline(sql).await;
        assert!(text(&output.stderr).starts_with("error CLIENT-0408: query 1 cannot be run"), "{sql}: {output:?}");
        assert_eq!(output.status.code(), Some(2));
    }
    let content = run(&mut command(&["--offline", "--db", ann.db.to_str().expect("a plain name")])).await;
    assert_eq!(text(&content.stdout), "4 buckets\n  lists: 3 rows\n  todos: 60 rows\n");
    let nowhere = run(&mut command(&["--offline", "--db", "/nowhere/at/all.db"])).await;
    assert!(text(&nowhere.stderr).starts_with("error CLIENT-0406: "), "{nowhere:?}");
}

/// A run that goes on, and its lines.
/// Like `812 of 4,000 operations, 1.20 MiB`.
fn is_progress(line: &str) -> bool {
    let words: Vec<_> = line.split(' ').collect();
    matches!(words[..], [done, "of", total, "operations,", _, _] if [done, total].iter().all(|count| count.starts_with(|first: char| first.is_ascii_digit())))
}

struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("in time").expect("readable");
        line.unwrap_or_else(|| panic!("it ended: {:?}", self.child.try_wait()))
    }

    /// Ctrl-C; the exit code, and what it said on standard error but for how far a download is, which a machine under
    /// load may have to tell.
    async fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args(["-INT", &pid]).status().expect("there is `kill`");
        assert!(sent.success());
        let (code, said) = self.end().await;
        (code, said.lines().filter(|line| !is_progress(line)).fold(String::new(), |all, line| all + line + "\n"))
    }

    async fn end(&mut self) -> (Option<i32>, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("in time").expect("it ends");
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).await.expect("UTF-8");
        (status.code(), said)
    }
}

#[tokio::test]
async fn watch_tells_of_each_change_until_it_is_interrupted() {
    let service = service().await;
    let ann = Device::new(&service, "ann", "ann.db");
    let mut watch = Watch::start(&mut ann.command(&["--watch"]));
    let first = watch.line().await;
    assert!(first.ends_with(": 4 buckets, 63 operations: lists 3 written; todos 60 written"), "{first}");
    let busy = run(&mut ann.command(&["--once"])).await;
    assert!(text(&busy.stderr).starts_with("error CLIENT-0407: another process syncs "), "{busy:?}");
    assert_eq!(busy.status.code(), Some(2));

    for (sql, expected) in [
        ("UPDATE todos SET title = 'Changed' WHERE id = 'todo-1'", "1 operation: todos 1 written"),
        ("DELETE FROM todos WHERE list_id = 'list-2'", "20 operations: todos 20 deleted"),
        // A list that is no longer ann's takes its rows along, and nothing has to be sent for that but the list's own.
        ("UPDATE lists SET owner = 'bob' WHERE id = 'list-4'", "1 operation: lists 1 deleted; todos 20 deleted"),
        ("UPDATE lists SET owner = 'ann' WHERE id = 'list-1'", "operations: lists 1 written; todos 20 written"),
    ] {
        service.sql.batch_execute(sql).await.expect("valid SQL");
        let line = watch.line().await;
        assert!(line.ends_with(expected), "{sql}: {line}");
    }
    let (code, said) = watch.interrupt().await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(ann.lines().await, ann.expected().await);

    service.sql.batch_execute("UPDATE lists SET owner = 'bob'").await.expect("valid SQL");
    let empty = async || event(&ann.events(&["--once"]).await, "checkpoint")["tables"].clone();
    eventually(json!({ "lists": 0, "todos": 0 }), empty).await;
    assert!(ann.lines().await.is_empty(), "the views are there still");
}

#[tokio::test]
async fn a_watch_asks_and_verifies_after_each_checkpoint() {
    let service = service().await;
    let ann = Device::new(&service, "ann", "ann.db");
    let mut watch =
        Watch::start(&mut ann.command(&["--watch", "--verify", "--sql", "SELECT count(*) AS n FROM todos"]));
    let next = async |watch: &mut Watch| [watch.line().await, watch.line().await, watch.line().await].join(" ");
    assert_eq!(next(&mut watch).await, "n -- 60");
    service.sql.batch_execute("DELETE FROM todos WHERE id = 'todo-1'").await.expect("valid SQL");
    assert_eq!(next(&mut watch).await, "n -- 59");

    let damage = "UPDATE kairos_data__todos SET data = '{}' WHERE id = 'todo-7'";
    assert_eq!(Connection::open(&ann.db).expect("a SQLite file").execute(damage, []), Ok(1));
    service.sql.batch_execute("DELETE FROM todos WHERE id = 'todo-13'").await.expect("valid SQL");
    assert_eq!(next(&mut watch).await, "n -- 58");
    let (code, said) = watch.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("DIFFERS  table todos: 1 row\n") && said.contains("--repair"), "{said}");
}

#[tokio::test]
async fn verify_finds_a_changed_byte_and_repair_downloads_it_again() {
    let service = service().await;
    let ann = Device::new(&service, "ann", "ann.db");
    let good = run(&mut ann.command(&["--verify"])).await;
    let printed = text(&good.stdout);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert_eq!(printed.matches("\nok       ").count(), 4, "{printed}");
    assert!(printed.ends_with("\nverified: 4 buckets\n"), "{printed}");

    let (bucket, id): (String, i64) = {
        let file = Connection::open(&ann.db).expect("a SQLite file");
        let change = "UPDATE kairos_oplog SET data = replace(data, 'Todo 1\"', 'Todo 7\"') WHERE row_id = 'todo-1' RETURNING bucket";
        let id: i64 = file.query_row(change, [], |row| row.get(0)).expect("a row was changed");
        let name = "SELECT name FROM kairos_bucket WHERE id = ?1";
        (file.query_row(name, [id], |row| row.get(0)).expect("its bucket"), id)
    };
    assert!(id > 0);
    let bad = run(&mut ann.command(&["--verify"])).await;
    let printed = text(&bad.stdout);
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    let named: Vec<_> = printed.lines().filter(|line| line.starts_with("DIFFERS  ")).collect();
    assert!(named[0].starts_with(&format!("DIFFERS  {bucket}: ")), "{printed}");
    assert_eq!(named[1..], ["DIFFERS  table todos: 1 row"]);
    assert!(text(&bad.stderr).contains("--repair"), "it says what helps");

    let offline = ["--offline", "--verify", "--json", "--db", ann.db.to_str().expect("a plain name")];
    let output = run(&mut command(&offline)).await;
    assert_eq!(output.status.code(), Some(1));
    let events = objects(&output.stdout);
    let differing: Vec<_> = events.iter().filter(|event| event["ok"] == false && event["bucket"].is_string()).collect();
    assert_eq!((differing.len(), &differing[0]["bucket"]), (1, &json!(bucket)));
    assert_eq!(event(&events, "verified"), json!({ "event": "verified", "ok": false }));

    let repaired = run(&mut ann.command(&["--repair", "--verify", "--json"])).await;
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    let events = objects(&repaired.stdout);
    let found: Vec<_> = events.iter().filter(|event| event["event"] == "verified").map(|event| &event["ok"]).collect();
    assert_eq!(found, [&json!(false), &json!(true)], "before and after");
    assert_eq!(event(&events, "checkpoint")["operations"], 20, "only that bucket is downloaded again");
    assert_eq!(ann.lines().await, ann.expected().await);
}

#[tokio::test]
async fn streams_and_parameters_decide_what_is_synced() {
    let service = service().await;
    let ann = Device::new(&service, "ann", "ann.db");
    let subscribe = ["--once", "--no-defaults", "--stream", r#"one_list={"list":"list-1"}"#];
    let only = event(&ann.events(&subscribe).await, "checkpoint");
    assert_eq!(only["tables"], json!({ "lists": 1 }));
    let both = ann.events(&["--once", "--stream", r#"one_list={"list":"list-1"}"#, "--stream", "lost"]).await;
    assert_eq!(event(&both, "checkpoint")["tables"], json!({ "lists": 4, "todos": 60 }));
    assert_eq!(event(&both, "warning")["message"], "the rules have no stream `lost`");
}

#[tokio::test]
async fn a_user_syncs_with_tokens_made_from_the_secret() {
    let service = service().await;
    let secret = service.mint.key();
    let path = db(&service, "ann.db");
    let mint = |seconds: &'static str| {
        let mut command = command(&["--url", service.process.endpoint(), "--sub", "ann", "--kid", KEY_ID]);
        command.args(["--aud", AUDIENCE, "--token-seconds", seconds]).arg("--db").arg(&path);
        command.env("KAIROS_CLIENT_SECRET", &secret);
        command
    };
    let once = run(mint("60").args(["--once", "--json"])).await;
    assert_eq!(event(&objects(&once.stdout), "checkpoint")["operations"], 63, "{once:?}");

    // Each token ends within the watch; changes go on arriving.
    let mut watch = Watch::start(mint("1").arg("--watch"));
    watch.line().await;
    for round in 0..3 {
        sleep(Duration::from_millis(1_500)).await;
        let sql = format!("INSERT INTO todos VALUES ('round-{round}', 'list-2', 'Round', true, 1, 1)");
        service.sql.batch_execute(&sql).await.expect("valid SQL");
        let line = watch.line().await;
        assert!(line.ends_with("1 operation: todos 1 written"), "{line}");
    }
    let (code, said) = watch.interrupt().await;
    assert_eq!((code, said.as_str()), (Some(0), ""));

    let file = db(&service, "secret");
    std::fs::write(&file, format!("{secret}\n")).expect("writable");
    let mut wrong = command(&["--url", service.process.endpoint(), "--sub", "ann", "--once"]);
    wrong.arg("--secret-file").arg(&file).arg("--db").arg(&path);
    let output = run(&mut wrong).await;
    assert_eq!(output.status.code(), Some(1), "the key has another kid: {output:?}");
    for output in [once, output] {
        let printed = text(&output.stdout) + &text(&output.stderr);
        assert!(!printed.contains(&secret) && !printed.contains("eyJ"), "{printed}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_ends_the_run_with_the_reason() {
    let service = service().await;
    let path = db(&service, "ann.db");
    let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
    let expired = service.mint.mint_at(an_hour_ago, "ann", Duration::from_mins(5));
    for (token, code) in [("nonsense", "PSYNC_S2101"), (&*expired, "PSYNC_S2103")] {
        for mode in ["--once", "--watch"] {
            let mut command = command(&["--url", service.process.endpoint(), mode, "--token", token]);
            let output = run(command.arg("--db").arg(&path)).await;
            let said = text(&output.stderr);
            assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
            assert!(said.starts_with("error CLIENT-0202: ") && said.contains(code), "{said}");
            assert!(said.contains("`kairos-sync auth check`") && !said.contains(token), "{said}");
        }
    }
}

/// Answers every request alike.
async fn answer(listener: TcpListener, answer: &'static str) {
    loop {
        let (mut socket, _) = listener.accept().await.expect("a request");
        let mut request = [0; 4096];
        let _ = socket.read(&mut request).await;
        let _ = socket.write_all(answer.as_bytes()).await;
        let _ = socket.shutdown().await;
    }
}

#[tokio::test]
async fn whatever_answers_instead_of_the_service_has_a_code_and_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ann.db");
    let once = async |url: &str| {
        let mut command = command(&["--url", url, "--once", "--token", "secret-token", "--timeout", "1"]);
        let output = run(command.arg("--db").arg(&path)).await;
        let said = text(&output.stderr);
        assert!(!said.contains("secret"), "{said}");
        (output.status.code(), said.split(": ").next().unwrap_or_default().to_owned(), said)
    };
    let expect = |(status, code, said): (Option<i32>, String, String), expected: (i32, &str), words: &str| {
        assert_eq!((status, code), (Some(expected.0), format!("error {}", expected.1)), "{said}");
        assert!(said.contains(words), "{said}");
    };
    for (head, expected, words) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", (2, "CLIENT-0203"), "check the address"),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n",
            (2, "CLIENT-0203"),
            "check the address",
        ),
        ("HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n", (2, "CLIENT-0204"), "connections_max"),
        ("HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n", (2, "CLIENT-0204"), "its log says more"),
        (
            "HTTP/1.1 500 Error\r\ncontent-length: 83\r\n\r\n{\"error\":{\"code\":\"PSYNC_S2305\",\"status\":500,\"description\":\"Too many buckets\"}}     ",
            (1, "CLIENT-0204"),
            "(PSYNC_S2305: Too many buckets)",
        ),
        // A stream that says nothing.
        ("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n", (2, "CLIENT-0405"), "--timeout"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(answer(listener, head));
        expect(once(&url).await, expected, words);
        // It speaks no TLS.
        let (status, code, said) = once(&url.replace("http", "https")).await;
        assert_eq!((status, code.as_str()), (Some(2), "error CLIENT-0207"), "{said}");
        server.abort();
        let _ = server.await;
        expect(once(&url).await, (2, "CLIENT-0201"), "is the service running there?");
    }
    expect(once("http://me:secret@127.0.0.1").await, (2, "CLIENT-0403"), "without user and password");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_named() {
    // A second call would find the provider installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key);
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config.expect("a usable key")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            let _ = acceptor.accept(socket).await;
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = command(&["--url", &format!("https://localhost:{port}"), "--once", "--token", "t"]);
    let output = run(command.arg("--db").arg(folder.path().join("x.db"))).await;
    server.abort();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error CLIENT-0207: no secure connection") && said.contains("certificate"), "{said}");
}

#[tokio::test]
async fn a_watch_outlives_a_service_that_is_restarted() {
    let mut service = service().await;
    let path = db(&service, "ann.db");
    let mut command = command(&["--url", service.process.endpoint(), "--watch"]);
    command.arg("--db").arg(&path).env("KAIROS_CLIENT_TOKEN", service.token("ann"));
    let mut watch = Watch::start(&mut command);
    watch.line().await;
    service.process.kill().expect("it runs");
    service.sql.batch_execute("DELETE FROM todos WHERE id = 'todo-1'").await.expect("valid SQL");
    service.process.restart().await.expect("it starts again");
    let line = watch.line().await;
    assert!(line.ends_with("1 operation: todos 1 deleted"), "{line}");
    let (code, said) = watch.interrupt().await;
    assert!(code == Some(0) && said.lines().all(|line| line.ends_with("; trying again")), "{said}");
    assert!(said.contains("CLIENT-0201: "), "{said}");
}

/// Operations in the file that no checkpoint shows yet.
fn received(path: &Path) -> i64 {
    let sum = |file: Connection| {
        file.query_row("SELECT coalesce(sum(count_since_last), 0) FROM kairos_bucket", [], |row| row.get(0))
    };
    Connection::open(path).and_then(sum).unwrap_or(0)
}

#[tokio::test]
async fn a_first_sync_that_is_killed_goes_on_where_it_was() {
    const ROWS: i64 = 60_000;
    let schema = "
        CREATE TABLE items (id text PRIMARY KEY, body text);
        SELECT kairos.publish_table('items');
        INSERT INTO items SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 60000) n;";
    let service = TestService::start(schema, "bucket_definitions: { all: { data: [SELECT * FROM items] } }").await;
    service.wait_until_ready().await;
    let ann = Device::new(&service, "ann", "ann.db");
    for round in 1..=2 {
        let mut child = ann.command(&["--once"]).stdout(Stdio::null()).spawn().expect("it runs");
        let killed = async {
            while received(&ann.db) < round * 10_000 {
                assert!(child.try_wait().expect("known").is_none(), "it ended before it could be killed");
                sleep(Duration::from_millis(2)).await;
            }
            child.kill().await.expect("it runs");
        };
        timeout(PATIENCE, killed).await.expect("in time");
    }
    let before = received(&ann.db);
    assert!((20_000..ROWS).contains(&before), "{before}");

    // On a terminal, which `script` makes, there is a bar.
    let client = format!(
        "exec '{}' client --url {} --db '{}' --once --verify",
        service_binary().display(),
        service.process.endpoint(),
        ann.db.display()
    );
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--flush", "--command", &client, "/dev/null"]).kill_on_drop(true);
    terminal.env("TERM", "xterm").env("KAIROS_CLIENT_TOKEN", service.token("ann")).stdin(Stdio::null());
    let output = run(&mut terminal).await;
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.contains(" of 60,000 operations, ") && printed.contains(" %  "), "{printed}");
    assert!(
        printed.contains("; 60,000 operations") == (before == 0) && printed.contains("verified: 1 bucket"),
        "{printed}"
    );

    let all = "SELECT count(*), md5(string_agg(id || body, '|' ORDER BY id COLLATE \"C\")) FROM items";
    let row = service.sql.query_one(all, &[]).await.expect("valid SQL");
    let (count, digest): (i64, String) = (row.get(0), row.get(1));
    let file = Connection::open(&ann.db).expect("a SQLite file");
    let mut statement = file.prepare("SELECT id || body FROM items ORDER BY id").expect("a view");
    let rows: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a text")).collect();
    assert_eq!(i64::try_from(rows.len()).expect("few"), count);
    let joined = service.sql.query_one("SELECT md5($1)", &[&rows.join("|")]).await.expect("valid SQL");
    assert_eq!(joined.get::<_, String>(0), digest);
    let ann = event(&ann.events(&["--once"]).await, "checkpoint");
    assert_eq!((&ann["operations"], &ann["tables"]), (&json!(0), &json!({ "items": ROWS })));
}
