//! `kairos-sync teardown`: takes what a service leaves in its source, where it would cost something, and its store.

use std::{fmt::Write, path::PathBuf};

use indicatif::HumanBytes;

use crate::{
    config::{Config, ConfigError, ProcessEnvironment},
    postgres::{PgError, SourceConfig, slot},
    storage::{SqliteStore, StorageError},
};

/// What goes, and by whom.
#[derive(Debug, clap::Args)]
pub struct TeardownArguments {
    /// Configuration file; found as `serve` finds it otherwise.
    #[arg(short, long = "config-path", visible_alias = "config", value_name = "FILE", env = "POWERSYNC_CONFIG_PATH")]
    pub config: Option<PathBuf>,
    /// Go through this connection, of a role that may drop slots; without it through the service's own.
    #[arg(long, value_name = "URI", env = "KAIROS_TEARDOWN_ADMIN", hide_env_values = true)]
    pub admin: Option<String>,
    /// Delete the bucket store as well. Devices keep what they have.
    #[arg(long)]
    pub store: bool,
    /// Do it; without it, only what would be done is said.
    #[arg(long)]
    pub yes: bool,
}

/// Why something is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeardownError {
    /// The configuration has a mistake.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The source cannot be reached, or refuses.
    #[error(transparent)]
    Database(#[from] PgError),
    /// The store cannot be deleted.
    #[error(transparent)]
    Store(#[from] StorageError),
    /// A service runs.
    #[error("slot {0} is being read: stop the service first")]
    InUse(String),
}

impl TeardownError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Database(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::InUse(_) => "CONF-0304",
        }
    }
}

impl TeardownArguments {
    /// Does it, and says what that was.
    ///
    /// # Errors
    /// [`TeardownError`]; what was done before stays done, and to try again is safe.
    pub async fn run(&self) -> Result<String, TeardownError> {
        let config = Config::load(self.config.as_deref(), &ProcessEnvironment)?;
        let admin = self.admin.as_deref().map(SourceConfig::from_uri).transpose()?;
        let admin = admin.map(|admin| admin.reached_like(&config.source));
        let client = admin.as_ref().unwrap_or(&config.source).connect().await?;
        let prefix = &config.source.slot_prefix;
        if let Some(slot) = slot::slots_in_use(&client, prefix).await?.into_iter().next() {
            return Err(TeardownError::InUse(slot));
        }
        let mut said = String::new();
        let verb = if self.yes { "dropped" } else { "would drop" };
        for slot::IdleSlot { name, retained_bytes } in slot::idle_slots(&client, prefix).await? {
            if self.yes {
                slot::drop_slot(&client, &name).await?;
            }
            let _ = writeln!(said, "{verb} slot {name}, for which {} of WAL are kept", HumanBytes(retained_bytes));
        }
        if self.store {
            let folder = config.data_dir.display();
            let done = if self.yes { SqliteStore::delete(&config.data_dir) } else { Ok(()) };
            let line = match done {
                Ok(()) if self.yes => format!("deleted the store in {folder}\n"),
                Ok(()) => format!("would delete the store in {folder}\n"),
                Err(StorageError::Missing { .. }) => format!("there is no store in {folder}\n"),
                Err(error) => return Err(error.into()),
            };
            said.push_str(&line);
        }
        if said.is_empty() {
            said.push_str("nothing to do: no slot is left\n");
        } else if !self.yes {
            said.push_str("say --yes to do it\n");
        }
        Ok(said)
    }
}
