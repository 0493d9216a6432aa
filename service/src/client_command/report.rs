//! What `kairos-sync client` prints: lines for people, or a JSON object per line.
//!
//! Answers go to standard output; for people, all but rows to standard error where there are queries. How far the download
//! is and what fails goes to standard error, too, and as JSON to standard output.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kairos_client::{LocalTable, Progress, RowChanges, Verification};
use serde_json::{Map, Value, json};

use super::error::Failure;

const BAR: &str = "{bar:24} {percent:>3} %  {msg}";

/// Where lines go.
#[derive(Debug)]
pub(super) struct Report {
    is_json: bool,
    /// Standard output is for the rows of queries.
    has_queries: bool,
    /// There is a terminal for a bar.
    is_drawn: bool,
    bar: Option<ProgressBar>,
    /// What was said last of the progress.
    progress: Progress,
}

/// What a checkpoint brought.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct CheckpointLine {
    pub(super) last_op_id: u64,
    pub(super) buckets: usize,
    pub(super) operations: u64,
    pub(super) bytes: u64,
    pub(super) changes: BTreeMap<String, RowChanges>,
}

impl Report {
    pub(super) fn new(is_json: bool, has_queries: bool) -> Self {
        let is_drawn = !is_json && io::stderr().is_terminal();
        Self { is_json, has_queries, is_drawn, bar: None, progress: Progress::default() }
    }

    /// How long a download lasts before it is told how far it is, and between two such lines.
    pub(super) fn interval(&self) -> Duration {
        if self.is_drawn { Duration::from_millis(200) } else { Duration::from_secs(2) }
    }

    /// How far the download is, where that has changed.
    pub(super) fn progress(&mut self, progress: Progress, bytes: u64) {
        if progress == self.progress {
            return;
        }
        self.progress = progress;
        let Progress { done, total } = progress;
        if self.is_json {
            print(&json!({ "event": "progress", "done": done, "total": total, "bytes": bytes }));
            return;
        }
        let text = format!("{} of {} operations, {}", HumanCount(done), HumanCount(total), HumanBytes(bytes));
        if !self.is_drawn {
            say(&text);
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(BAR).expect("a constant, valid template");
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style)
        });
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(text);
    }

    /// Takes the bar away.
    pub(super) fn end_progress(&mut self) {
        self.progress = Progress::default();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// A checkpoint, and what it changed.
    pub(super) fn checkpoint(&self, line: &CheckpointLine) {
        if self.is_json {
            print(&checkpoint_json(line).into());
        } else {
            self.answer(&checkpoint_text(line));
        }
    }

    /// A whole sync.
    pub(super) fn summary(&self, line: &CheckpointLine, tables: &[LocalTable], took: Duration) {
        if self.is_json {
            let mut object = checkpoint_json(line);
            object.insert("seconds".to_owned(), took.as_secs_f64().into());
            object.insert("tables".to_owned(), tables_json(tables));
            print(&object.into());
            return;
        }
        let CheckpointLine { last_op_id, buckets, operations, bytes, .. } = line;
        self.answer(&format!(
            "checkpoint {last_op_id}: {}; {} and {} received in {:.1} s",
            count(*buckets as u64, "bucket"),
            count(*operations, "operation"),
            HumanBytes(*bytes),
            took.as_secs_f64()
        ));
        self.answer(&tables_text(tables));
    }

    /// What the file has.
    pub(super) fn content(&self, buckets: usize, tables: &[LocalTable]) {
        if self.is_json {
            print(&json!({ "event": "content", "buckets": buckets, "tables": tables_json(tables) }));
        } else {
            self.answer(&count(buckets as u64, "bucket"));
            self.answer(&tables_text(tables));
        }
    }

    /// Verdicts, and what to do about bad ones.
    pub(super) fn verification(&self, found: &Verification, advice: &str) {
        let is_ok = found.is_ok();
        if self.is_json {
            for bucket in &found.buckets {
                print(&json!({
                    "event": "verify", "bucket": bucket.bucket.name, "count": bucket.bucket.count, "stored": bucket.stored,
                    "expected": bucket.expected, "recomputed": bucket.recomputed, "ok": bucket.is_ok(),
                }));
            }
            for table in &found.tables {
                let differing = table.rows_differing;
                print(&json!({ "event": "verify", "table": table.name, "differing": differing, "ok": differing == 0 }));
            }
            print(&json!({ "event": "verified", "ok": is_ok }));
        } else {
            self.answer(&verification_text(found));
        }
        if !is_ok {
            say(advice);
        }
    }

    /// Something that does not keep the sync from going on.
    pub(super) fn warning(&self, what: &str) {
        self.suspend(|| say(&format!("warning: {what}")));
        if self.is_json {
            print(&json!({ "event": "warning", "message": what }));
        }
    }

    /// A failure after which it is tried again.
    pub(super) fn failure(&self, failure: &Failure) {
        self.suspend(|| say(&format!("{}: {failure}; trying again", failure.code)));
        if self.is_json {
            print(&json!({ "event": "failure", "code": failure.code, "message": failure.message }));
        }
    }

    /// Why the run ends; people are told by whoever ends it.
    pub(super) fn error(&self, code: &str, message: &str) {
        if self.is_json {
            print(&json!({ "event": "error", "code": code, "message": message }));
        }
    }

    fn answer(&self, text: &str) {
        self.suspend(|| if self.has_queries { say(text) } else { print_line(text) });
    }

    fn suspend(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// Whoever reads may have gone, which is no failure.
fn print_line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

fn print(object: &Value) {
    print_line(&object.to_string());
}

fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn count(number: u64, what: &str) -> String {
    format!("{} {what}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}

fn checkpoint_json(line: &CheckpointLine) -> Map<String, Value> {
    let CheckpointLine { last_op_id, buckets, operations, bytes, changes } = line;
    let change = |rows: &RowChanges| json!({ "written": rows.written, "deleted": rows.deleted });
    let changes: Map<_, _> = changes.iter().map(|(table, rows)| (table.clone(), change(rows))).collect();
    let pairs = [
        ("event", "checkpoint".into()),
        // An id, which has no bound that numbers of JSON keep.
        ("checkpoint", last_op_id.to_string().into()),
        ("buckets", (*buckets).into()),
        ("operations", (*operations).into()),
        ("bytes", (*bytes).into()),
        ("changes", changes.into()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn checkpoint_text(line: &CheckpointLine) -> String {
    let tables: Vec<_> = line.changes.iter().map(|(table, rows)| changes_text(table, *rows)).collect();
    let changes = if tables.is_empty() { "no row changed".to_owned() } else { tables.join("; ") };
    let (buckets, operations) = (count(line.buckets as u64, "bucket"), count(line.operations, "operation"));
    format!("checkpoint {}: {buckets}, {operations}: {changes}", line.last_op_id)
}

fn changes_text(table: &str, rows: RowChanges) -> String {
    let parts = [(rows.written, "written"), (rows.deleted, "deleted")];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(rows, _)| *rows > 0)
        .map(|(rows, what)| format!("{} {what}", HumanCount(*rows)))
        .collect();
    format!("{table} {}", parts.join(", "))
}

fn tables_json(tables: &[LocalTable]) -> Value {
    tables.iter().map(|table| (table.name.clone(), Value::from(table.rows))).collect::<Map<_, _>>().into()
}

fn tables_text(tables: &[LocalTable]) -> String {
    if tables.is_empty() {
        return "  no tables: no row has come yet".to_owned();
    }
    let lines: Vec<_> = tables.iter().map(|table| format!("  {}: {}", table.name, count(table.rows, "row"))).collect();
    lines.join("\n")
}

fn verification_text(found: &Verification) -> String {
    let mut lines = Vec::new();
    for bucket in &found.buckets {
        let (name, operations) = (&bucket.bucket.name, count(bucket.bucket.count, "operation"));
        lines.push(if bucket.is_ok() {
            format!("ok       {name}: {operations}, checksum {}", bucket.expected)
        } else {
            let (expected, recomputed) = (bucket.expected, bucket.recomputed);
            format!("DIFFERS  {name}: {operations}, checksum {expected}, but what is stored has {recomputed}")
        });
    }
    for table in found.tables.iter().filter(|table| table.rows_differing > 0) {
        lines.push(format!("DIFFERS  table {}: {}", table.name, count(table.rows_differing, "row")));
    }
    let buckets = count(found.buckets.len() as u64, "bucket");
    lines.push(if found.is_ok() { format!("verified: {buckets}") } else { format!("{buckets}, not all as announced") });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> CheckpointLine {
        let changes = [
            ("items".to_owned(), RowChanges { written: 1_200, deleted: 1 }),
            ("notes".to_owned(), RowChanges { written: 0, deleted: 2 }),
        ];
        CheckpointLine { last_op_id: 17, buckets: 1, operations: 1_203, bytes: 2_048, changes: changes.into() }
    }

    #[test]
    fn people_read_what_a_checkpoint_changed() {
        assert_eq!(
            checkpoint_text(&line()),
            "checkpoint 17: 1 bucket, 1,203 operations: items 1,200 written, 1 deleted; notes 2 deleted"
        );
        let nothing = CheckpointLine { changes: BTreeMap::new(), ..line() };
        assert!(checkpoint_text(&nothing).ends_with("no row changed"));
    }

    #[test]
    fn programs_read_the_same() {
        assert_eq!(
            Value::from(checkpoint_json(&line())).to_string(),
            r#"{"event":"checkpoint","checkpoint":"17","buckets":1,"operations":1203,"bytes":2048,"changes":{"items":{"written":1200,"deleted":1},"notes":{"written":0,"deleted":2}}}"#
        );
    }
}
