//! What the demo prints: one line per finished step, progress bars while something runs.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The terminal. Bars appear only where there is one; finished steps are always printed.
#[derive(Debug, Clone)]
pub struct Screen {
    bars: MultiProgress,
}

impl Screen {
    /// The terminal behind standard error; lines go to standard output.
    pub fn new() -> Self {
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()) }
    }

    /// Prints a line above the bars.
    pub fn line(&self, text: &str) {
        // Whoever reads may have gone; the demo goes on and cleans up.
        let _ = self.bars.suspend(|| writeln!(io::stdout(), "{text}"));
    }

    /// Prints a finished step with how long it took.
    pub fn done(&self, what: &str, since: Instant) {
        self.line(&format!("  ✓ {what}  ({})", duration(since.elapsed())));
    }

    /// Prints a check that failed.
    pub fn failed(&self, what: &str) {
        self.line(&format!("  ✗ {what}"));
    }

    /// A bar over a known number of things.
    ///
    /// # Panics
    /// Never: the template is a constant.
    pub fn bar(&self, label: &str, total: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("    {msg:<24} {bar:32} {human_pos:>9}/{human_len} {per_sec:>14}")
            .expect("a constant, valid template");
        self.bars.add(ProgressBar::new(total).with_style(style).with_message(label.to_owned()))
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// A duration for people: milliseconds below ten seconds.
pub fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(10) {
        format!("{} ms", duration.as_millis())
    } else {
        HumanDuration(duration).to_string()
    }
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// A number with separators.
pub fn count(count: u64) -> String {
    HumanCount(count).to_string()
}
