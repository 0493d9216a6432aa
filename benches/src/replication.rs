//! Snapshot and stream, stage by stage: the raw tool, then reading and decoding alone, then everything but the store,
//! then everything.

use std::{
    error::Error,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use kairos_sync::{
    lsn::Lsn,
    postgres::{
        SourceConfig,
        catalog::Table,
        copy::{Heap, copy_lines, copy_statement, fields},
        pgoutput::Message,
        preflight::inspect,
        wal_stream::{StreamEvent, StreamLimits},
        walsender::WalSender,
    },
    storage::{BucketStore, SqliteOptions, SqliteStore},
};

use crate::{
    bench_source::{BenchSource, JOINED_RULES, RULES},
    null_store::NullStore,
    replica::Replica,
};

/// Slots of the raw tool, and of reading alone.
const RAW_SLOT: &str = "bench_raw";
const READ_SLOT: &str = "bench_read";

/// One way through a workload, or part of the way.
pub(crate) struct Stage {
    pub(crate) workload: String,
    pub(crate) name: &'static str,
    /// Rows, changes or transactions.
    pub(crate) count: u64,
    pub(crate) took: Duration,
    /// Processor time of this process meanwhile, where the system says so; Postgres comes on top.
    pub(crate) cpu: Option<Duration>,
}

/// Changes to be streamed.
#[derive(Clone)]
struct Workload {
    name: String,
    sql: String,
    /// What is counted.
    count: u64,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The snapshot alone.
    Snapshot,
    /// All workloads.
    All,
}

/// Measures on one server and the same rows.
pub(crate) async fn measure(source: &BenchSource, scope: Scope) -> Result<Vec<Stage>, Box<dyn Error>> {
    let mut stages = vec![raw_copy(source).await?, read_copy(source).await?];
    let stores: [(&'static str, &str, Arc<dyn BucketStore>); 2] = [
        ("null store", "null", Arc::new(NullStore::default())),
        ("embedded store", "sqlite", Arc::new(SqliteStore::open(&source.scratch("store"), SqliteOptions::default())?)),
    ];
    for (stage, name, store) in &stores {
        let clock = StageClock::start();
        let replica = Replica::start(&source.uri(), name, RULES, Arc::clone(store))?;
        replica.wait_until_copied().await?;
        stages.push(clock.stop("snapshot, rows/s", stage, source.row_count));
        replica.stop().await?;
    }
    stages.push(copy_joined(source).await?);
    let workloads = if scope == Scope::All { workloads(source.row_count).to_vec() } else { Vec::new() };
    for workload in workloads {
        let end = prepare(source, &workload.sql).await?;
        let mut stop = |clock: StageClock, stage| stages.push(clock.stop(&workload.name, stage, workload.count));
        let clock = StageClock::start();
        receive_raw(source, end)?;
        stop(clock, "pg_recvlogical");
        let clock = StageClock::start();
        read_stream(source, end).await?;
        stop(clock, "read and decode");
        for (stage, name, store) in &stores {
            let clock = StageClock::start();
            let replica = Replica::start(&source.uri(), name, RULES, Arc::clone(store))?;
            replica.wait_until_passed(end).await?;
            stop(clock, stage);
            replica.stop().await?;
        }
        source.drop_slots("bench_%").await?;
    }
    source.drop_slots("kairos_stage_%").await?;
    Ok(stages)
}

fn workloads(row_count: u64) -> [Workload; 3] {
    let single = (row_count / 20).max(1);
    let transactions = (row_count / 200).max(1);
    let large = (row_count / 2).max(1);
    let each = |count: u64, range: &str| {
        format!(
            "DO $$ BEGIN FOR n IN 0..{} LOOP UPDATE items SET amount = amount + 1 WHERE {range}; COMMIT; END LOOP; END $$",
            count - 1
        )
    };
    [
        Workload {
            name: format!("{transactions} transactions of 100, changes/s"),
            sql: each(transactions, "id > n * 100 AND id <= n * 100 + 100"),
            count: transactions * 100,
        },
        Workload {
            name: format!("1 transaction of {large}, changes/s"),
            sql: format!("UPDATE items SET amount = amount + 1 WHERE id <= {large}"),
            count: large,
        },
        Workload {
            name: format!("{single} transactions of 1, transactions/s"),
            sql: each(single, "id = n + 1"),
            count: single,
        },
    ]
}

/// Makes the changes, and the slots that are to read them. Returns where they end.
async fn prepare(source: &BenchSource, sql: &str) -> Result<Lsn, Box<dyn Error>> {
    for slot in [RAW_SLOT, READ_SLOT] {
        let create = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
        source.sql.batch_execute(&create).await?;
    }
    source.sql.batch_execute("SET synchronous_commit = off").await?;
    source.sql.batch_execute(sql).await?;
    source.sql.batch_execute("RESET synchronous_commit").await?;
    let end: String = source.sql.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?.get(0);
    // One more, so that there is something behind the end to be received. It is synced, and all before with it.
    source.sql.batch_execute("UPDATE items SET done = NOT done WHERE id = 1").await?;
    Ok(end.parse()?)
}

/// The snapshot with rules that join, into a store of its own.
async fn copy_joined(source: &BenchSource) -> Result<Stage, Box<dyn Error>> {
    let store = Arc::new(SqliteStore::open(&source.scratch("joined"), SqliteOptions::default())?);
    let clock = StageClock::start();
    let replica = Replica::start(&source.uri(), "joined", JOINED_RULES, store)?;
    replica.wait_until_copied().await?;
    let stage = clock.stop("snapshot, rows/s", "embedded store, joined", source.row_count);
    replica.stop().await?;
    source.drop_slots("kairos_stage_joined_%").await?;
    Ok(stage)
}

async fn raw_copy(source: &BenchSource) -> Result<Stage, Box<dyn Error>> {
    let clock = StageClock::start();
    let chunks = source.sql.copy_out("COPY items TO STDOUT").await?;
    let mut chunks = std::pin::pin!(chunks);
    while let Some(chunk) = chunks.next().await {
        chunk?;
    }
    Ok(clock.stop("snapshot, rows/s", "COPY TO STDOUT", source.row_count))
}

async fn read_copy(source: &BenchSource) -> Result<Stage, Box<dyn Error>> {
    let table = table(source).await?;
    let clock = StageClock::start();
    let lines = copy_lines(&source.sql, &copy_statement(&table, &Heap::Whole, 0, u32::MAX, &[])).await?;
    let mut lines = std::pin::pin!(lines);
    let mut values = 0;
    while let Some(line) = lines.next().await {
        values += fields(&line?).flatten().count();
    }
    std::hint::black_box(values);
    Ok(clock.stop("snapshot, rows/s", "read and split", source.row_count))
}

async fn table(source: &BenchSource) -> Result<Table, Box<dyn Error>> {
    let plan = kairos_sync_rules::compile(RULES, "public").plan.ok_or("wrong rules")?;
    let config = SourceConfig::from_uri(&source.uri())?;
    let inspection = inspect(&source.sql, &config, &plan.source_tables(), None).await?;
    Ok(inspection.tables.into_iter().next().ok_or("no table")?)
}

/// Into nowhere, so that no disk is measured.
fn receive_raw(source: &BenchSource, end: Lsn) -> Result<(), Box<dyn Error>> {
    let status = Command::new(source.cluster.program("pg_recvlogical"))
        .args(["-d", &source.uri(), "--slot", RAW_SLOT, "--start", "--endpos", &end.to_string()])
        .args(["-o", "proto_version=1", "-o", "publication_names=kairos_sync", "-f", "/dev/null"])
        .stderr(Stdio::inherit())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("pg_recvlogical failed: {status}").into()) }
}

/// Reads and decodes what [`receive_raw`] reads, and drops it.
async fn read_stream(source: &BenchSource, end: Lsn) -> Result<(), Box<dyn Error>> {
    let limits = StreamLimits { messages: 8_192, bytes: 8 * 1024 * 1024 };
    let walsender = WalSender::connect(&SourceConfig::from_uri(&source.uri())?).await?;
    let (mut wal, handle) = walsender.start(READ_SLOT, Lsn::ZERO, &["kairos_sync".to_owned()], limits).await?;
    while let Some(event) = wal.events.recv().await {
        match event? {
            StreamEvent::Message { message: Message::Commit(commit), .. } if commit.end_lsn >= end => break,
            event => drop(std::hint::black_box(event)),
        }
    }
    drop(wal);
    handle.close().await;
    Ok(())
}

/// Wall and processor time of a stage.
struct StageClock {
    started: Instant,
    cpu: Option<Duration>,
}

impl StageClock {
    fn start() -> Self {
        Self { started: Instant::now(), cpu: processor_time() }
    }

    fn stop(&self, workload: &str, name: &'static str, count: u64) -> Stage {
        let took = self.started.elapsed();
        let cpu = processor_time().zip(self.cpu).map(|(now, before)| now.saturating_sub(before));
        Stage { workload: workload.to_owned(), name, count, took, cpu }
    }
}

/// What this process has used so far, in Linux's ticks of 10 ms.
pub(crate) fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may contain spaces; user and system time are the 12th and 13th fields after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

/// The table of stages as Markdown.
pub(crate) fn table_of(stages: &[Stage]) -> String {
    use std::fmt::Write;
    let mut text = String::from("| Workload | Stage | Per second | Of the raw tool | Own processor time for each |\n");
    text.push_str("| --- | --- | --- | --- | --- |\n");
    let mut raw = ("", 1.0);
    for Stage { workload, name, count, took, cpu } in stages {
        #[expect(clippy::cast_precision_loss, reason = "figures are for people")]
        let count = *count as f64;
        let rate = count / took.as_secs_f64();
        if raw.0 != workload {
            raw = (workload, rate);
        }
        let cpu = cpu.map_or_else(String::new, |cpu| format!("{:.1} µs", cpu.as_secs_f64() * 1e6 / count));
        let _ = writeln!(text, "| {workload} | {name} | {rate:.0} | {:.2} | {cpu} |", rate / raw.1);
    }
    text
}
