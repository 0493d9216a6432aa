//! The official Rust SDK in a process of its own, with as many of the commands of `tests/sdk/device.mjs` as the benchmark
//! of a first sync needs: one command per line on stdin, one answer per line on stdout.

use std::{
    error::Error,
    io::{BufRead, Write},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use futures_lite::StreamExt;
use powersync::{
    Authenticator, ConnectionPool, PowerSyncDatabase, SyncOptions,
    env::PowerSyncEnvironment,
    error::PowerSyncError,
    schema::{Column, Schema, Table},
};
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

struct Token(Arc<String>);

#[async_trait]
impl Authenticator for Token {
    async fn resolve_credentials(&self) -> Result<Arc<String>, PowerSyncError> {
        Ok(Arc::clone(&self.0))
    }
}

fn text<'a>(command: &'a Value, key: &str) -> &'a str {
    command[key].as_str().unwrap_or_default()
}

fn table(name: &str, columns: &Value) -> Table {
    let is_local = columns["$localOnly"] == true;
    let columns = columns.as_object().into_iter().flatten().filter_map(|(column, kind)| match kind.as_str()? {
        "integer" => Some(Column::integer(column.clone())),
        "real" => Some(Column::real(column.clone())),
        _ => Some(Column::text(column.clone())),
    });
    Table::create(name.to_owned(), columns.collect(), |table| table.options.local_only = is_local)
}

fn open(command: &Value) -> Result<PowerSyncDatabase, Failure> {
    PowerSyncEnvironment::powersync_auto_extension()?;
    let pool = ConnectionPool::open(Path::new(text(command, "folder")).join(text(command, "file")))?;
    let tables = command["tables"].as_object().into_iter().flatten().map(|(name, columns)| table(name, columns));
    let schema = Schema { tables: tables.collect(), raw_tables: Vec::new() };
    let environment = PowerSyncEnvironment::custom(reqwest::Client::new(), pool, PowerSyncEnvironment::tokio());
    Ok(PowerSyncDatabase::new(environment, schema))
}

async fn perform(database: &PowerSyncDatabase, command: &Value) -> Result<Value, Failure> {
    match text(command, "do") {
        "connect" => {
            let token = command["tokens"][0].as_str().unwrap_or_default().to_owned();
            let options = SyncOptions::download_only(text(command, "endpoint"), Token(Arc::new(token)));
            database.connect(options).await;
        }
        "synced" => {
            let mut status = std::pin::pin!(database.watch_status());
            while status.next().await.is_some_and(|status| !status.has_synced()) {}
        }
        "execute" => {
            let writer = database.writer().await?;
            writer.execute(text(command, "sql"), [])?;
        }
        "query" => {
            let reader = database.reader().await?;
            let count: i64 = reader.query_row(text(command, "sql"), [], |row| row.get(0))?;
            return Ok(json!([{ "n": count }]));
        }
        other => return Err(format!("the command {other:?} is not known").into()),
    }
    Ok(Value::Null)
}

fn answer(id: &Value, outcome: Result<Value, Failure>) {
    let answer = match outcome {
        Ok(ok) => json!({ "id": id, "ok": ok }),
        Err(error) => json!({ "id": id, "error": error.to_string() }),
    };
    println!("{answer}");
    let _ = std::io::stdout().flush(); // whoever reads it may be gone
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (commands, mut received) = tokio::sync::mpsc::channel::<Value>(1);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        for command in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
            if commands.blocking_send(command).is_err() {
                return;
            }
        }
    });
    let mut database = None;
    while let Some(command) = received.recv().await {
        let id = command["id"].clone();
        if text(&command, "do") == "open" {
            let opened = open(&command).map(|opened| database = Some(Arc::new(opened)));
            answer(&id, opened.map(|()| Value::Null));
        } else if let Some(database) = &database {
            let database = Arc::clone(database);
            tokio::spawn(async move { answer(&id, perform(&database, &command).await) });
        }
    }
    Ok(())
}
