//! How fast a first sync is, beside plain SQLite inserting the same rows in one transaction.
//!
//! `cargo run --release -p kairos-client --example apply_speed -- [rows]`
//!
//! The lines come from memory, as text and as BSON: parsing, checksums, storing and publishing are measured, the network
//! is not. How many bytes they are, compressed and not, says what a network adds.

use std::{error::Error, io::Write, path::Path, sync::Arc, time::Instant};

use async_trait::async_trait;
use kairos_client::{
    Client, ClientOptions, Credentials, Schema, StaticConnector, Table, Transport, TransportError,
    core::line,
    protocol::{
        Checksum, WriteCheckpointId, bson,
        line::SyncLine,
        request::SyncRequest,
        upload::{UploadBatch, UploadResponse},
    },
    transport::LineStream,
};
use serde_json::json;

const OPERATIONS_PER_LINE: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rows = std::env::args().nth(1).map_or(Ok(100_000), |rows| rows.parse())?;
    let data: Vec<(String, String)> = (0..rows).map(row).collect();
    let folder = tempfile::tempdir()?;

    let started = Instant::now();
    let mut plain = kairos_client::rusqlite::Connection::open(folder.path().join("plain.db"))?;
    plain.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE habits (id TEXT PRIMARY KEY NOT NULL, data TEXT)")?;
    let tx = plain.transaction()?;
    {
        let mut insert = tx.prepare("INSERT INTO habits (id, data) VALUES (?1, ?2)")?;
        for row in &data {
            insert.execute((&row.0, &row.1))?;
        }
    }
    tx.commit()?;
    let plain_seconds = started.elapsed().as_secs_f64();

    let lines = lines(&data);
    println!("{rows} rows: plain SQLite {plain_seconds:.2} s");
    for is_bson in [false, true] {
        let lines: Arc<Vec<Vec<u8>>> = Arc::new(lines.iter().map(|text| encode(text, is_bson)).collect());
        let started = Instant::now();
        for line in lines.iter() {
            parse(line, is_bson)?;
        }
        let parse_seconds = started.elapsed().as_secs_f64();
        let name = if is_bson { "bson" } else { "ndjson" };
        let sync_seconds = first_sync(&folder.path().join(name), Memory { lines: Arc::clone(&lines), is_bson }).await?;
        let (bytes, zstd) = sizes(&lines)?;
        println!(
            "{name}: first sync {sync_seconds:.2} s, ratio {:.2}, of it parsing {parse_seconds:.2} s; {bytes} MB, with zstd {zstd} MB",
            sync_seconds / plain_seconds
        );
    }
    Ok(())
}

async fn first_sync(database: &Path, memory: Memory) -> Result<f64, Box<dyn Error>> {
    let rows = memory.lines.len().saturating_sub(2) * OPERATIONS_PER_LINE;
    let transport: Arc<dyn Transport> = Arc::new(memory);
    let schema = Schema::new([Table::new("habits").text("name").text("note").integer("done")]);
    let options = ClientOptions { transport: Some(transport), ..ClientOptions::default() };
    let connector = StaticConnector::new("memory", "token");
    let client = Client::open_with(database, schema, connector, options).await?;
    let started = Instant::now();
    client.connect();
    client.wait_for_first_sync().await;
    let seconds = started.elapsed().as_secs_f64();
    let visible = client.query("SELECT count(*) FROM habits", [], |row| row.get::<_, i64>(0)).await?;
    assert!(usize::try_from(visible[0])? > rows.saturating_sub(OPERATIONS_PER_LINE), "all rows are visible");
    Ok(seconds)
}

/// Megabytes as they are and compressed as the service does it.
fn sizes(lines: &[Vec<u8>]) -> Result<(usize, usize), Box<dyn Error>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 2)?;
    for line in lines {
        encoder.write_all(line)?;
        encoder.flush()?;
    }
    let compressed = encoder.finish()?.len();
    Ok((lines.iter().map(Vec::len).sum::<usize>() / 1_000_000, compressed / 1_000_000))
}

fn encode(text: &str, is_bson: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    match serde_json::from_str::<SyncLine>(text) {
        Ok(line) if is_bson => bson::write_line(&line, &mut bytes),
        _ => bytes.extend_from_slice(text.as_bytes()),
    }
    bytes
}

fn parse(line: &[u8], is_bson: bool) -> Result<Option<SyncLine>, TransportError> {
    Ok(if is_bson { line::parse_bson(line)? } else { line::parse_bytes(line)? })
}

fn row(number: usize) -> (String, String) {
    let id = uuid::Uuid::from_u64_pair(
        number as u64 ^ 0x5DEE_CE66_D1CE_4E5B,
        (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
    );
    let id = id.hyphenated().to_string();
    let data = json!({ "id": id, "name": format!("Habit {number}"), "note": "x".repeat(120), "done": number % 2 });
    (id, data.to_string())
}

fn lines(rows: &[(String, String)]) -> Vec<String> {
    let mut sum = Checksum::ZERO;
    let mut lines = Vec::new();
    for (index, chunk) in rows.chunks(OPERATIONS_PER_LINE).enumerate() {
        let operation = |(offset, (id, data)): (usize, &(String, String))| {
            let checksum = Checksum::of_put("habits", id, data);
            sum += checksum;
            let op_id = (index * OPERATIONS_PER_LINE + offset + 1).to_string();
            json!({ "op_id": op_id, "op": "PUT", "object_type": "habits", "object_id": id, "checksum": checksum,
                "subkey": id, "data": data })
        };
        let operations: Vec<_> = chunk.iter().enumerate().map(operation).collect();
        lines.push(json!({ "data": { "bucket": "all", "data": operations } }).to_string());
    }
    let last_op_id = rows.len().to_string();
    let buckets = json!([{ "bucket": "all", "checksum": sum, "count": rows.len() }]);
    lines.insert(0, json!({ "checkpoint": { "last_op_id": last_op_id, "buckets": buckets } }).to_string());
    lines.push(json!({ "checkpoint_complete": { "last_op_id": last_op_id } }).to_string());
    lines
}

/// Replays the lines on every stream.
struct Memory {
    lines: Arc<Vec<Vec<u8>>>,
    is_bson: bool,
}

struct Replay {
    lines: Arc<Vec<Vec<u8>>>,
    is_bson: bool,
    next: usize,
}

#[async_trait]
impl Transport for Memory {
    async fn open(&self, _: &Credentials, _: &SyncRequest) -> Result<Box<dyn LineStream>, TransportError> {
        Ok(Box::new(Replay { lines: Arc::clone(&self.lines), is_bson: self.is_bson, next: 0 }))
    }

    async fn upload(&self, _: &Credentials, _: &UploadBatch) -> Result<UploadResponse, TransportError> {
        Ok(UploadResponse { write_checkpoint: None, results: Vec::new() })
    }

    async fn write_checkpoint(&self, _: &Credentials, _: &str) -> Result<WriteCheckpointId, TransportError> {
        Ok(WriteCheckpointId::ZERO)
    }
}

#[async_trait]
impl LineStream for Replay {
    async fn next(&mut self) -> Result<Option<(SyncLine, usize)>, TransportError> {
        let Some(bytes) = self.lines.get(self.next) else { return std::future::pending().await };
        self.next += 1;
        Ok(parse(bytes, self.is_bson)?.map(|line| (line, bytes.len())))
    }
}
