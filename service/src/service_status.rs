//! `kairos-sync status`: how a running service is, asked over HTTP.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use reqwest::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    byte_size::ByteSize,
    copy_bars::{CopyBars, describe, describe_all},
    replication::CopyStatus,
};

/// A service that does not answer by then is taken for gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is asked while it is watched.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// What `status` is to do.
#[derive(Debug)]
pub struct StatusOptions {
    /// Where the service answers, without a path.
    pub url: String,
    /// Print the answer as it is.
    pub json: bool,
    /// Go on until all tables are copied.
    pub watch: bool,
}

/// Why there is no status to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// The service does not answer.
    #[error(
        "no status from {url}: is the service running there? `--url`, or the configuration's `port`, says where it is"
    )]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// What answers is another release, or something else.
    #[error("what {url} answers is not the status of this release; `--json` prints it")]
    Answer {
        /// Where it was asked.
        url: String,
        /// What is not understood.
        #[source]
        source: serde_json::Error,
    },
}

impl StatusError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "CONF-0301",
            Self::Answer { .. } => "CONF-0302",
        }
    }
}

/// The parts of the answer that are shown.
#[derive(Debug, Deserialize)]
struct Answer {
    version: String,
    ready: bool,
    reason: Option<String>,
    replication: Replication,
}

#[derive(Debug, Deserialize)]
struct Replication {
    phase: String,
    error: Option<String>,
    lag_bytes: u64,
    last_message_at: Option<String>,
    checkpoint_at: Option<String>,
    slot: Option<String>,
    slot_retained_bytes: Option<u64>,
    slot_budget_bytes: Option<u64>,
    last_comparison: Option<String>,
    copies: Vec<CopyStatus>,
}

impl Replication {
    /// Whether tables are still to be copied, or may turn out to be.
    fn may_copy(&self) -> bool {
        self.phase != "streaming" || !self.copies.is_empty()
    }
}

/// Prints the status, once or until everything is copied. `true` if replication reports no error.
///
/// # Errors
/// [`StatusError`] if the service does not answer, or not as expected.
pub async fn run(options: &StatusOptions) -> Result<bool, StatusError> {
    let url = options.url.trim_end_matches('/');
    let unreachable =
        |source: reqwest::Error| StatusError::Unreachable { url: url.to_owned(), source: source.without_url() };
    // It is asked directly: it runs here, or where the operator says.
    let client = Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build().map_err(unreachable)?;
    let ask = async || client.get(format!("{url}/status")).send().await?.error_for_status()?.json::<Value>().await;
    let mut bars = CopyBars::new();
    loop {
        let value = ask().await.map_err(unreachable)?;
        if options.json {
            print(&format!("{value}\n"));
        }
        let answer: Answer =
            serde_json::from_value(value).map_err(|source| StatusError::Answer { url: url.to_owned(), source })?;
        let goes_on = options.watch && answer.replication.may_copy();
        let is_drawn = goes_on && io::stderr().is_terminal();
        bars.show(if is_drawn { &answer.replication.copies } else { &[] });
        if !options.json && !is_drawn {
            print(&text_of(url, &answer));
        }
        if !goes_on {
            return Ok(answer.replication.error.is_none());
        }
        sleep(WATCH_INTERVAL).await;
    }
}

fn print(text: &str) {
    // A reader that went away has seen what it wanted.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// The status for people.
fn text_of(url: &str, answer: &Answer) -> String {
    let Answer { version, ready, reason, replication } = answer;
    let mut text = String::new();
    let readiness = if *ready { "ready" } else { "not ready" };
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(format!("kairos-sync {version} at {url}: {readiness}, {}", replication.phase.replace('_', " ")));
    if let Some(reason) = reason {
        line(format!("  {reason}"));
    }
    if let Some(code) = &replication.error {
        line(format!("  replication failed with {code}; the log says more"));
    }
    line(format!("  {} behind the source", ByteSize(replication.lag_bytes)));
    for (what, when) in
        [("last message", &replication.last_message_at), ("newest checkpoint", &replication.checkpoint_at)]
    {
        line(format!("  {what}: {}", when.as_deref().unwrap_or("none since the start")));
    }
    if let (Some(slot), Some(retained)) = (&replication.slot, replication.slot_retained_bytes) {
        let bound = replication.slot_budget_bytes.map_or_else(String::new, |bytes| format!(" of {}", ByteSize(bytes)));
        line(format!("  slot {slot} keeps {}{bound} of WAL", ByteSize(retained)));
    }
    if let Some(code) = &replication.last_comparison {
        line(format!("  all tables were compared because of {code}"));
    }
    for copy in &replication.copies {
        line(format!("  {}", describe(copy)));
    }
    if replication.copies.len() > 1 {
        line(format!("  {}", describe_all(&replication.copies)));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(phase: &str, copies: &Value) -> Answer {
        let answer = json!({
            "version": "1.2.3", "ready": false, "reason": "no checkpoint is visible yet", "touched_at": "now",
            "replication": {
                "phase": phase, "error": null, "lag_bytes": 2048, "last_message_at": "2026-01-01T00:00:00.000Z",
                "checkpoint_at": null, "slot": "kairos_1", "slot_retained_bytes": 1024, "slot_budget_bytes": null,
                "last_comparison": "REPL-0201", "copies": copies, "copy_seconds_left": null,
            },
        });
        serde_json::from_value(answer).expect("an answer")
    }

    #[test]
    fn people_read_what_is_going_on() {
        let copy = json!({ "table": "public.items", "stage": "copying", "rows_done": 5, "rows_estimated": 10,
                           "bytes_done": 1024, "bytes_total": 2048, "seconds_left": 3 });
        let expected = "kairos-sync 1.2.3 at here: not ready, creating slot
  no checkpoint is visible yet
  2 kB behind the source
  last message: 2026-01-01T00:00:00.000Z
  newest checkpoint: none since the start
  slot kairos_1 keeps 1 kB of WAL
  all tables were compared because of REPL-0201
  public.items: 1.00 KiB of 2.00 KiB, 5 of about 10 rows, 3 s left
";
        assert_eq!(text_of("here", &answer("creating_slot", &json!([copy]))), expected);
    }

    #[test]
    fn it_is_watched_until_nothing_is_left_to_copy() {
        let waiting = json!({ "table": "t", "stage": "waiting", "rows_done": 0, "rows_estimated": 0, "bytes_done": 0,
                              "bytes_total": 0, "seconds_left": null });
        assert!(answer("connecting", &json!([])).replication.may_copy());
        assert!(answer("streaming", &json!([waiting])).replication.may_copy());
        assert!(!answer("streaming", &json!([])).replication.may_copy());
    }
}
