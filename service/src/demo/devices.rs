//! The devices of the household: real SQLite databases, kept in sync by the client SDK.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use kairos_client::{Client, Schema, StaticConnector, Status, Table};

use crate::demo::{DemoError, Services, named, process::ServiceProcess, screen::Screen, token::TokenMint};

/// How long the tokens of devices are good.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_hours(12);
/// How long a device may take to hold what it must.
pub(crate) const SYNC_TIMEOUT: Duration = Duration::from_mins(1);

/// A device of a user.
pub struct Device {
    /// Its database.
    pub client: Client,
    /// The database's file.
    pub file: PathBuf,
    /// Whose it is.
    pub user: &'static str,
}

/// All devices of the demo.
pub struct Devices {
    /// Anna's phone.
    pub phone: Device,
    /// Anna's watch.
    pub watch: Device,
    /// Ben's phone.
    pub other: Device,
    /// Anna's mirror on the wall, which syncs from the service with classic rules.
    pub mirror: Device,
}

impl Devices {
    /// Opens empty databases in `folder`, ready to connect.
    ///
    /// # Errors
    /// [`DemoError::Device`].
    pub async fn open(folder: &Path, mint: &TokenMint, services: &Services) -> Result<Self, DemoError> {
        let open = async |name: &str, user: &'static str, service: &ServiceProcess| -> Result<Device, DemoError> {
            let file = folder.join(format!("{name}.db"));
            let connector = StaticConnector::new(service.endpoint(), mint.mint(user, TOKEN_LIFE));
            Ok(Device { client: Client::open(&file, app_schema(), connector).await?, file, user })
        };
        Ok(Self {
            phone: open("phone-anna", "anna", &services.kairos).await?,
            watch: open("watch-anna", "anna", &services.kairos).await?,
            other: open("phone-ben", "ben", &services.kairos).await?,
            mirror: open("mirror-anna", "anna", &services.classic).await?,
        })
    }

    /// Connects all devices and waits for their first sync, with a progress bar each. Gives how long the slowest took.
    ///
    /// # Errors
    /// [`DemoError::Late`].
    pub async fn sync_first(&self, screen: &Screen) -> Result<Duration, DemoError> {
        let started = Instant::now();
        let bars = named(self).map(|(name, device)| (device, screen.bar(name, 0)));
        let [a, b, c, d] = bars.map(|(device, bar)| first_sync(device, bar));
        tokio::try_join!(a, b, c, d)?;
        screen.done("four devices synced for the first time", started);
        Ok(started.elapsed())
    }
}

async fn first_sync(device: &Device, bar: ProgressBar) -> Result<(), DemoError> {
    let mut updates = device.client.status_stream();
    device.client.connect();
    let synced = async {
        loop {
            let Status { progress, last_synced_at, .. } = updates.borrow_and_update().clone();
            if let Some(progress) = progress {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
            }
            if last_synced_at.is_some() || updates.changed().await.is_err() {
                return;
            }
        }
    };
    let result = tokio::time::timeout(SYNC_TIMEOUT, synced).await;
    bar.finish_and_clear();
    result.map_err(|_| DemoError::Late("the first sync", SYNC_TIMEOUT))
}

/// The tables of the app as devices see them: booleans are integers, times are text.
pub fn app_schema() -> Schema {
    let table = |name: &str, text: &[&str], integers: &[&str]| {
        let table = text.iter().fold(Table::new(name), |table, column| table.text(*column));
        integers.iter().fold(table, |table, column| table.integer(*column))
    };
    Schema::new([
        table(
            "habits",
            &["user_id", "name", "description", "icon", "color", "schedule", "created_at", "updated_at"],
            &["target_per_day", "position", "archived"],
        ),
        table("completions", &["habit_id", "completed_on", "completed_at", "amount", "note", "created_at"], &[])
            .index(["habit_id"]),
        table("routines", &["user_id", "name", "starts_at", "created_at", "updated_at"], &["archived"]),
        table("routine_habits", &["routine_id", "habit_id"], &["position"]),
        table("recovery_sessions", &["habit_id", "reason", "started_at", "ended_at", "created_at"], &[]),
    ])
}
