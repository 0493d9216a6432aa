//! `kairos-sync store`: looks at a store that no service has open, and mends what can be mended.
//!
//! Every command takes the store's lock, and says STORE-0103 where a service has it. Nothing of rows is printed: damage is
//! named by its kind and by the definition of its bucket.

mod output;

use std::{
    io::{self, IsTerminal, Write, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    config::{Config, ConfigError, ProcessEnvironment},
    storage::{CompactionOptions, SqliteOptions, SqliteStore, StorageError, StoreStats, Verification},
};

/// As the bars of copies.
const STYLE: &str = "{bar:24} {percent:>3} %  {msg}";

/// What to do with the store.
#[derive(Subcommand)]
pub enum StoreCommand {
    /// Read everything, and say what is damaged. Exits with 0 if nothing is, 1 if something is, 2 if that could not be found
    /// out.
    Verify(StoreArguments),
    /// Say how much the store holds, by definition. Exits with 0, or with 2 if that could not be found out.
    Stats(StoreArguments),
    /// Make every bucket as small as it can be, and give the space back. The service does so by itself, where it pays.
    /// Exits with 0, or with 2 if it could not be done.
    Compact(StoreArguments),
    /// Delete the store: the service builds it again from Postgres when it starts, and devices download what they have once
    /// more. Without --yes it says what would be deleted. Exits with 0, or with 2 if it could not be done.
    Delete(DeleteArguments),
}

/// Which store, and whether to.
#[derive(Args)]
pub struct DeleteArguments {
    #[command(flatten)]
    store: StoreArguments,
    /// Do it.
    #[arg(long)]
    yes: bool,
}

/// Which store, and how to tell.
#[derive(Args)]
pub struct StoreArguments {
    /// The store's folder; `data_dir` of the configuration otherwise.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Configuration file; found as `serve` finds it otherwise.
    #[arg(
        short,
        long = "config-path",
        visible_alias = "config",
        value_name = "FILE",
        env = "POWERSYNC_CONFIG_PATH",
        conflicts_with = "data_dir"
    )]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
enum StoreCommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StorageError),
}

impl StoreCommandError {
    const fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }
}

impl StoreCommand {
    /// Runs the command, which blocks on disk. Prints to stdout, progress and errors to stderr.
    pub fn run(&self) -> ExitCode {
        let (printed, exit) = match self {
            Self::Verify(arguments) => arguments.verify(),
            Self::Stats(arguments) => arguments.stats(),
            Self::Compact(arguments) => arguments.compact(),
            Self::Delete(arguments) => arguments.delete(),
        }
        .unwrap_or_else(|error| {
            eprintln!("error {}: {error}", error.code());
            (String::new(), ExitCode::from(2))
        });
        // A reader that went away has seen what it wanted.
        let _ = io::stdout().lock().write_all(printed.as_bytes());
        exit
    }
}

/// What is printed, and how the command ends.
type Outcome = Result<(String, ExitCode), StoreCommandError>;

impl StoreArguments {
    fn folder(&self) -> Result<PathBuf, StoreCommandError> {
        match &self.data_dir {
            Some(folder) => Ok(folder.clone()),
            None => Ok(Config::load(self.config.as_deref(), &ProcessEnvironment)?.data_dir),
        }
    }

    fn verify(&self) -> Outcome {
        let folder = self.folder()?;
        let bar = bar("reading");
        let found = Verification::of(&folder, &mut |progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        })?;
        bar.finish_and_clear();
        let exit = if found.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        Ok((output::verification(&found, self.json), exit))
    }

    fn stats(&self) -> Outcome {
        let (stats, definitions) = SqliteStore::stats_of(&self.folder()?)?;
        Ok((output::stats(stats, &definitions, self.json), ExitCode::SUCCESS))
    }

    fn compact(&self) -> Outcome {
        let folder = self.folder()?;
        let (before, _) = SqliteStore::stats_of(&folder)?;
        compact_all(&folder)?;
        let (after, _) = SqliteStore::stats_of(&folder)?;
        Ok((output::compaction(before, after, self.json), ExitCode::SUCCESS))
    }
}

impl DeleteArguments {
    fn delete(&self) -> Outcome {
        let folder = self.store.folder()?;
        let size_bytes = SqliteStore::size_of(&folder)?;
        if self.yes {
            SqliteStore::delete(&folder)?;
        }
        Ok((output::deletion(&folder, size_bytes, self.yes, self.store.json), ExitCode::SUCCESS))
    }
}

fn compact_all(folder: &Path) -> Result<(), StorageError> {
    // Nothing in the background: it would only get in the way.
    let compaction = CompactionOptions { bytes_per_second: 0, ..CompactionOptions::default() };
    let store = SqliteStore::open(folder, SqliteOptions { compaction, ..SqliteOptions::default() })?;
    let bar = bar("compacting");
    store.compact_all(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
fn bar(message: &'static str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(STYLE).expect("a constant, valid template");
    ProgressBar::new(0).with_style(style).with_message(message)
}

/// Fewer operations and bytes, in words.
fn saved(before: StoreStats, after: StoreStats) -> (u64, u64) {
    let fewer = |before: u64, after: u64| before.saturating_sub(after);
    (fewer(before.operation_count, after.operation_count), fewer(before.size_bytes, after.size_bytes))
}
