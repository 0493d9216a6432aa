//! The embedded store: commits, reads, its size; what is built from its rows; and a parent whose children move with it.

mod commits;
pub(crate) mod engines;
mod moved;
mod reads;
mod rebuild;
pub(crate) mod scale;

use std::{error::Error, fs};

use self::commits::CommitScope;
use crate::{Figure, bench_source::BenchSource};

/// Operations of a commit, and how many such commits are made.
const COMMITS: [CommitScope; 3] = [
    CommitScope { operations: 1, commits: 2_000 },
    CommitScope { operations: 100, commits: 1_000 },
    CommitScope { operations: 2_000, commits: 150 },
];

/// Measures on a source of so many rows.
pub(crate) async fn measure(
    row_count: u64,
    print: impl Fn(&Figure) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let source = BenchSource::start(row_count).await?;
    for figure in rebuild::measure(&source).await? {
        print(&figure)?;
    }
    for figure in reads::measure(&source).await? {
        print(&figure)?;
    }
    for scope in COMMITS {
        for figure in commits::measure(scope)? {
            print(&figure)?;
        }
    }
    drop(source);
    for figure in moved::measure().await? {
        print(&figure)?;
    }
    Ok(())
}

/// The largest size this process ever had in memory, in bytes; 0 where the system does not say.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// Bytes this process has sent to disks, where the system says so.
fn written_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "figures are for people")]
fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to.max(1) as f64
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}
