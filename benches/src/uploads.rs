//! Uploads: devices that send batches, beside `pgbench` with the same writes in transactions of the same size.
//!
//! Between the two are the writer of the service by itself, without HTTP and write checkpoints, once as it is and once
//! with each operation waiting for the one before, and `pgbench` with all that is promised about a write.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use deadpool_postgres::{Manager, Pool, Runtime};
use futures_util::{FutureExt, future::BoxFuture};
use kairos_sync::{
    auth::Principal,
    demo::process::ServiceProcess,
    metrics::Metrics,
    write::{WriteCheckpointSource, WriteOptions, Writer},
};
use kairos_sync_protocol::{
    WriteCheckpointId,
    upload::{Outcome, UploadBatch, UploadResponse},
};
use kairos_sync_rules::compile;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};
use tokio_postgres::NoTls;

use crate::{
    bench_source::BenchSource,
    paths::{per_second, wait_until_ready},
};

/// How long each side writes, unless the argument says otherwise.
pub(crate) const SECONDS: u64 = 3;
const DEVICE_COUNTS: [u64; 2] = [1, 8];
const BATCH_SIZES: [u64; 3] = [1, 10, 100];
/// Rows of each device, for batches that change rows.
const ROWS_OF_DEVICE: u64 = 10_000;
/// Ids of new rows: too many for one to come twice.
const NEW_IDS: u64 = 1 << 52;
const TOKEN_LIFE: Duration = Duration::from_hours(1);
/// No row read for so long: nothing is left to read.
const QUIET: Duration = Duration::from_millis(300);

const RULES: &str = "\
bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS owner
    data: ['SELECT * FROM notes WHERE owner = bucket.owner']
write_rules:
  notes:
    allow: [put, patch]
    check: row.owner = auth.user_id()
";

const SCHEMA: &str = "\
CREATE TABLE notes (id bigint PRIMARY KEY, owner text NOT NULL, title text NOT NULL, note text NOT NULL,
    done boolean NOT NULL DEFAULT false);
SELECT kairos.publish_table('notes', 'INSERT, UPDATE');";

/// What the operations of a batch do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// New rows.
    Put,
    /// Other values in rows that are there.
    Patch,
}

/// Batches of one kind and size, from so many devices at once.
#[derive(Debug, Clone, Copy)]
struct Workload {
    kind: Kind,
    device_count: u64,
    batch_size: u64,
    span: Duration,
}

/// What `pgbench` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    /// The writes, and nothing else.
    Writes,
    /// Each write under a savepoint and after a locked read, and an answer remembered for each.
    Promises,
}

/// Measures and prints, workload by workload.
pub(crate) async fn measure(seconds: u64) -> Result<(), Box<dyn Error>> {
    let source = BenchSource::for_writing(SCHEMA, RULES).await?;
    let service = source.start_service().await?;
    wait_until_ready(&service).await?;
    let apart = WriteOptions { group_size_max: 1, ..WriteOptions::default() };
    let [together, apart] = [WriteOptions::default(), apart].map(|options| writer(&source, options));
    let (together, apart) = (together?, apart?);
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{:<28} {:>9} {:>9} {:>11} {:>9} {:>9} {:>13} {:>9}",
        "uploads, operations/s", "service", "writer", "one by one", "promises", "pgbench", "time/pgbench", "promises"
    )?;
    for kind in [Kind::Put, Kind::Patch] {
        for (device_count, batch_size) in
            DEVICE_COUNTS.into_iter().flat_map(|count| BATCH_SIZES.map(|size| (count, size)))
        {
            let workload = Workload { kind, device_count, batch_size, span: Duration::from_secs(seconds) };
            reset(&source, device_count).await?;
            settle(&service).await?;
            let served = upload(workload, |device| Taker::Service {
                url: format!("{}/api/sync/data", service.endpoint()),
                token: source.mint.mint(&user(device), TOKEN_LIFE),
                http: reqwest::Client::new(),
            });
            let served = served.await?;
            settle(&service).await?;
            let together = upload(workload, |device| Taker::Writer(Arc::clone(&together), principal(device))).await?;
            settle(&service).await?;
            let apart = upload(workload, |device| Taker::Writer(Arc::clone(&apart), principal(device))).await?;
            settle(&service).await?;
            let promises = pgbench(&source, workload, Script::Promises)?;
            settle(&service).await?;
            let plain = pgbench(&source, workload, Script::Writes)?;
            writeln!(
                out,
                "{:<28} {served:>9.0} {together:>9.0} {apart:>11.0} {promises:>9.0} {plain:>9.0} {:>13.2} {:>9.2}",
                workload.name(),
                plain / served,
                promises / served
            )?;
        }
    }
    Ok(())
}

impl Workload {
    fn name(&self) -> String {
        let Self { kind, device_count, batch_size, .. } = self;
        format!("{kind:?} x {batch_size}, {device_count} device(s)").to_lowercase()
    }
}

/// The same rows for each workload: 10,000 of each device.
async fn reset(source: &BenchSource, device_count: u64) -> Result<(), Box<dyn Error>> {
    let sql = format!(
        "TRUNCATE notes, kairos.write_ledger;
         INSERT INTO notes SELECT device * {ROWS_OF_DEVICE} + n, 'user' || device, 'item', repeat(md5(n::text), 3)
             FROM generate_series(0, {device_count} - 1) device, generate_series(0, {ROWS_OF_DEVICE} - 1) n;"
    );
    source.sql.batch_execute(&sql).await?;
    source.sql.batch_execute("VACUUM ANALYZE notes").await?;
    source.sql.batch_execute("CHECKPOINT").await?;
    Ok(())
}

/// Waits until the service, which reads all that is written, is done with what was measured before.
async fn settle(service: &ServiceProcess) -> Result<(), Box<dyn Error>> {
    let mut known = None;
    loop {
        let count = service.rows_replicated().await?;
        if known.replace(count) == Some(count) {
            return Ok(());
        }
        tokio::time::sleep(QUIET).await;
    }
}

/// Who takes the batches of a device.
enum Taker {
    Service { url: String, token: String, http: reqwest::Client },
    Writer(Arc<Writer>, Principal),
}

impl Taker {
    async fn take(&self, batch: Value) -> Result<UploadResponse, Box<dyn Error>> {
        match self {
            Self::Service { url, token, http } => {
                let request = http.post(url).header("authorization", format!("Token {token}"));
                let mut answer: Value = request.json(&batch).send().await?.error_for_status()?.json().await?;
                Ok(serde_json::from_value(answer["data"].take())?)
            }
            Self::Writer(writer, principal) => {
                let batch: UploadBatch = serde_json::from_value(batch)?;
                Ok(writer.upload(principal, batch).await?)
            }
        }
    }
}

fn user(device: u64) -> String {
    format!("user{device}")
}

fn principal(device: u64) -> Principal {
    let user_id = user(device);
    let claims = [("sub".to_owned(), Value::from(user_id.as_str()))].into_iter().collect();
    Principal { user_id, claims, expires_at: SystemTime::now() + TOKEN_LIFE, confirmation: None }
}

/// The writer of the service, with as many connections, and nobody who makes write checkpoints.
fn writer(source: &BenchSource, options: WriteOptions) -> Result<Arc<Writer>, Box<dyn Error>> {
    let uri = source.cluster.uri("kairos_service", "postgres");
    let pool = Pool::builder(Manager::new(uri.parse()?, NoTls)).max_size(8).runtime(Runtime::Tokio1).build()?;
    let plan = compile(RULES, "public").plan.ok_or("the rules are wrong")?;
    let options = WriteOptions { role: Some("kairos_write".to_owned()), ..options };
    let plan = watch::channel(Arc::new(plan)).1;
    Ok(Arc::new(Writer::new(pool, plan, options, Arc::new(NoCheckpoints), Arc::new(Metrics::new()))))
}

struct NoCheckpoints;

impl WriteCheckpointSource for NoCheckpoints {
    fn create<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> BoxFuture<'a, Option<WriteCheckpointId>> {
        std::future::ready(None).boxed()
    }
}

/// Operations per second that were taken.
async fn upload(workload: Workload, taker: impl Fn(u64) -> Taker) -> Result<f64, Box<dyn Error>> {
    let mut devices = JoinSet::new();
    let started = Instant::now();
    for device in 0..workload.device_count {
        let taker = taker(device);
        devices.spawn(async move { run_device(device, workload, &taker).await.map_err(|error| error.to_string()) });
    }
    let mut count = 0;
    while let Some(ended) = devices.join_next().await {
        count += ended??;
    }
    Ok(per_second(count, started.elapsed()))
}

/// One batch after the other, the next when the one before is answered. Each operation must be applied.
async fn run_device(device: u64, workload: Workload, taker: &Taker) -> Result<u64, Box<dyn Error>> {
    let client_id = format!("{:x}", rand::random::<u64>());
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < workload.span {
        let first = rand::random_range(0..ROWS_OF_DEVICE - workload.batch_size);
        let entries: Vec<Value> =
            (0..workload.batch_size).map(|n| entry(workload.kind, device, first + n, count + n)).collect();
        let results = taker.take(json!({ "client_id": client_id, "batch": entries })).await?.results;
        let applied = results.iter().filter(|result| result.outcome == Outcome::Applied).count();
        count += workload.batch_size;
        if applied as u64 != workload.batch_size {
            return Err(format!("{applied} of {} operations were applied", workload.batch_size).into());
        }
    }
    Ok(count)
}

fn entry(kind: Kind, device: u64, row: u64, op_id: u64) -> Value {
    let note = "a note of about a hundred bytes, which a person wrote on a train and which nobody is going to read";
    match kind {
        Kind::Put => {
            let data = json!({ "owner": user(device), "title": "item", "note": note });
            json!({ "op": "PUT", "table": "notes", "id": rand::random_range(0..NEW_IDS).to_string(), "op_id": op_id, "data": data })
        }
        Kind::Patch => {
            let id = (device * ROWS_OF_DEVICE + row).to_string();
            json!({ "op": "PATCH", "table": "notes", "id": id, "op_id": op_id, "data": { "title": format!("item {op_id}"), "note": note } })
        }
    }
}

/// Operations per second of `pgbench`, over as many sessions as there are devices.
fn pgbench(source: &BenchSource, workload: Workload, script: Script) -> Result<f64, Box<dyn Error>> {
    let file = source.scratch("uploads.sql");
    fs::write(&file, transaction(workload, script))?;
    let sessions = workload.device_count.to_string();
    let output = Command::new(source.cluster.program("pgbench"))
        .args(["-n", "-M", "prepared", "-c", &sessions, "-j", &workload.device_count.min(2).to_string()])
        .args(["-T", &workload.span.as_secs().max(1).to_string(), "-f"])
        .arg(&file)
        .arg(source.uri())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
    let rate = rate.filter(|_| output.status.success()).ok_or_else(|| format!("pgbench failed:\n{text}"))?;
    Ok(rate * per_second(workload.batch_size, Duration::from_secs(1)))
}

/// A transaction as a script. Values other than ids are constants, so `pgbench` sends less than a device does.
fn transaction(workload: Workload, script: Script) -> String {
    let mut text = format!("\\set first random(0, {})\nBEGIN;\n", ROWS_OF_DEVICE - workload.batch_size - 1);
    for n in 0..workload.batch_size {
        let (id, write) = match workload.kind {
            Kind::Put => (
                format!("random(0, {NEW_IDS})"),
                "INSERT INTO notes (id, owner, title, note) VALUES (:id, 'user', 'item', repeat('note', 24))",
            ),
            Kind::Patch => (
                format!(":client_id * {ROWS_OF_DEVICE} + :first + {n}"),
                "UPDATE notes SET title = 'item', note = repeat('note', 24) WHERE id = :id",
            ),
        };
        writeln!(text, "\\set id {id}").expect("a string takes all");
        if script == Script::Promises {
            text.push_str("SAVEPOINT operation;\nSELECT id::text, owner::text, title::text, note::text, done::text FROM notes WHERE id = :id FOR UPDATE;\n");
        }
        text.push_str(write);
        if script == Script::Promises {
            text.push_str(
                " RETURNING id::text, owner::text, title::text, note::text, done::text;\nRELEASE SAVEPOINT operation",
            );
        }
        text.push_str(";\n");
    }
    if script == Script::Promises {
        let count = workload.batch_size;
        writeln!(
            text,
            "INSERT INTO kairos.write_ledger (key, outcome) SELECT sha256((random()::text || n)::bytea), 'applied' FROM generate_series(1, {count}) n;"
        )
        .expect("a string takes all");
    }
    text.push_str("END;\n");
    text
}
