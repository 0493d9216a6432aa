//! `kairos-sync status`: how a running service is, asked over HTTP.

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use reqwest::{Client, Url};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    api::{Probe, Status},
    byte_size::ByteSize,
    copy_bars::{CopyBars, describe, describe_all, describe_rebuild},
    storage::{DamageReport, DamagedDefinition},
};

/// A service that does not answer by then is taken for gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is asked while bars are drawn,
const BARS_INTERVAL: Duration = Duration::from_millis(500);
/// and while lines are printed.
const TEXT_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may not answer while it is watched.
const AWAY_MAX: Duration = Duration::from_mins(1);

/// What `status` is to do.
#[derive(Debug)]
pub struct StatusOptions {
    /// Where the service answers, without a path.
    pub url: String,
    /// Print the answer as it is.
    pub json: bool,
    /// Go on until all tables are copied.
    pub watch: bool,
    /// Judge whether clients can sync, not whether replication reports an error.
    pub ready: bool,
}

/// Why there is no status to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// No URL.
    #[error("`--url` must be like http://127.0.0.1:8080")]
    Url {
        /// What is wrong with it.
        #[source]
        source: <Url as std::str::FromStr>::Err,
    },
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
    #[error("what {url} answers is not the status of this release: use the `kairos-sync` that runs there")]
    Answer {
        /// Where it was asked.
        url: String,
        /// What is not understood.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StatusError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } => "CONF-0300",
            Self::Unreachable { .. } => "CONF-0301",
            Self::Answer { .. } => "CONF-0302",
        }
    }
}

/// Whether tables are still to be copied, or may turn out to be, or rules are being built.
fn is_busy(Probe { replication, rules, .. }: &Probe) -> bool {
    replication.phase != "streaming" || !replication.copies.is_empty() || rules.building.is_some()
}

/// Prints the status, once or until everything is copied. `true` if replication reports no error; with `ready`, if
/// clients can sync.
///
/// # Errors
/// [`StatusError`] if the service does not answer, or not as expected; while it is watched it may be away for a moment.
pub async fn run(options: &StatusOptions) -> Result<bool, StatusError> {
    let place = Place::new(&options.url)?;
    let mut bars = CopyBars::new();
    let mut away_since = None;
    loop {
        let value = match place.ask().await {
            // It may be restarted meanwhile.
            Err(StatusError::Unreachable { .. })
                if away_since.is_some_and(|since: Instant| since.elapsed() < AWAY_MAX) && options.watch =>
            {
                sleep(TEXT_INTERVAL).await;
                continue;
            }
            answer => answer?,
        };
        away_since = Some(Instant::now());
        if options.json {
            print(&format!("{value}\n"));
        }
        let status: Status = serde_json::from_value(value).map_err(|error| place.not_understood(error))?;
        let Status { probe, .. } = &status;
        let replication = &probe.replication;
        let goes_on = options.watch && is_busy(probe);
        let building = probe.rules.building.as_ref();
        let has_bars = !replication.copies.is_empty() || building.is_some();
        let is_drawn = goes_on && has_bars && io::stderr().is_terminal();
        if is_drawn {
            bars.show(&replication.copies, building);
        } else {
            bars.show(&[], None);
        }
        if !options.json && !is_drawn {
            print(&text_of(&place.shown, &status));
        }
        if !goes_on {
            return Ok(if options.ready { probe.ready } else { replication.error.is_none() });
        }
        sleep(if is_drawn { BARS_INTERVAL } else { TEXT_INTERVAL }).await;
    }
}

/// Where a service is asked.
struct Place {
    client: Client,
    url: Url,
    /// As it is printed: without a password.
    shown: String,
}

impl Place {
    fn new(url: &str) -> Result<Self, StatusError> {
        let invalid = |source| StatusError::Url { source };
        let mut url = Url::parse(url).map_err(invalid)?;
        let mut shown = url.clone();
        // A URL that cannot have them has none.
        let _ = (shown.set_password(None), shown.set_username(""));
        let shown = shown.as_str().trim_end_matches('/').to_owned();
        url.set_path(&format!("{}/status", url.path().trim_end_matches('/')));
        // It is asked directly: it runs here, or where the operator says.
        let client = Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build();
        let client = client.map_err(|source| StatusError::Unreachable { url: shown.clone(), source })?;
        Ok(Self { client, url, shown })
    }

    async fn ask(&self) -> Result<Value, StatusError> {
        let unreachable =
            |error: reqwest::Error| StatusError::Unreachable { url: self.shown.clone(), source: error.without_url() };
        let response = self.client.get(self.url.clone()).send().await.map_err(unreachable)?;
        let response = response.error_for_status().map_err(|error| self.not_understood(error.without_url()))?;
        let body = response.bytes().await.map_err(unreachable)?;
        serde_json::from_slice(&body).map_err(|error| self.not_understood(error))
    }

    fn not_understood(&self, source: impl Into<Box<dyn Error + Send + Sync>>) -> StatusError {
        StatusError::Answer { url: self.shown.clone(), source: source.into() }
    }
}

fn print(text: &str) {
    // A reader that went away has seen what it wanted.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// The status for people.
fn text_of(url: &str, status: &Status) -> String {
    let Status { version, probe, damages } = status;
    let Probe { ready, reason, replication, rules, .. } = probe;
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
    if let Some(deployment) = rules.deployment.filter(|deployment| *deployment > 0) {
        line(format!("  rules: deployment {deployment}"));
    }
    if let Some(rebuild) = &rules.building {
        line(format!("  {}", describe_rebuild(rebuild)));
    }
    if let Some(code) = &rules.refused {
        line(format!("  the rules that are wanted were refused with {code}, and the old ones stay; the log says more"));
    }
    for text in describe_damages(damages) {
        line(format!("  {text}"));
    }
    for copy in &replication.copies {
        line(format!("  {}", describe(copy)));
    }
    if replication.copies.len() > 1 {
        line(format!("  {}", describe_all(&replication.copies)));
    }
    text
}

/// What of the store is damaged.
fn describe_damages(damages: &DamageReport) -> Vec<String> {
    let of_definition = |DamagedDefinition { definition, bucket_count, mending_count }: &DamagedDefinition| {
        format!("damaged buckets of {definition}: {bucket_count}, of which {mending_count} are being built again")
    };
    let mut texts: Vec<_> = damages.definitions.iter().map(of_definition).collect();
    if damages.has_damaged_rows {
        texts.push("stored rows are damaged (STORE-0109): their tables are about to be copied again".to_owned());
    }
    if damages.is_beyond_repair {
        texts.push("the file of the bucket store is damaged (STORE-0104): the log says what to do".to_owned());
    }
    texts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(phase: &str, copies: &Value) -> Status {
        let answer = json!({
            "version": "1.2.3", "ready": false, "reason": "no checkpoint is visible yet", "started": true, "touched_at": "now",
            "replication": {
                "phase": phase, "error": null, "lag_bytes": 2048, "last_message_at": "2026-01-01T00:00:00.000Z",
                "checkpoint_at": null, "slot": "kairos_1", "slot_retained_bytes": 1024, "slot_budget_bytes": null,
                "last_comparison": "REPL-0201", "copies": copies, "copy_seconds_left": null,
            },
            "rules": { "deployment": 3, "refused": "CONF-0201" },
            "damages": { "is_beyond_repair": true, "has_damaged_rows": true, "definitions": [
                { "definition": "todos", "bucket_count": 3, "mending_count": 1 },
            ] },
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
  rules: deployment 3
  the rules that are wanted were refused with CONF-0201, and the old ones stay; the log says more
  damaged buckets of todos: 3, of which 1 are being built again
  stored rows are damaged (STORE-0109): their tables are about to be copied again
  the file of the bucket store is damaged (STORE-0104): the log says what to do
  public.items: 1.00 KiB of 2.00 KiB, 5 of about 10 rows, 3 s left
";
        assert_eq!(text_of("here", &answer("creating_slot", &json!([copy]))), expected);
    }

    #[test]
    fn it_is_watched_until_nothing_is_left_to_copy() {
        let waiting = json!({ "table": "t", "stage": "waiting", "rows_done": 0, "rows_estimated": 0, "bytes_done": 0,
                              "bytes_total": 0, "seconds_left": null });
        assert!(is_busy(&answer("connecting", &json!([])).probe));
        assert!(is_busy(&answer("streaming", &json!([waiting])).probe));
        assert!(!is_busy(&answer("streaming", &json!([])).probe));
    }
}
