//! Devices that sync from a service under fire, and whether they hold what SQL says.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use kairos_client::{Client, ClientOptions, Schema, StaticConnector, Table};
use kairos_sync::demo::oracle::compare;
use kairos_tests::service::TestService;

use super::{checks::USER_TABLES, load::USERS};

/// How often a device that differs is looked at again.
const POLL: Duration = Duration::from_millis(50);

/// A user's device.
struct Device {
    /// Dropping it ends the sync.
    _client: Client,
    file: PathBuf,
    user: &'static str,
}

/// A device of every user, so that together they hold every bucket.
pub(super) struct Devices(Vec<Device>);

impl Devices {
    /// Empty ones, which sync from now on and survive what happens to the service.
    pub(super) async fn open(service: &TestService, name: &str) -> Self {
        let mut devices = Vec::new();
        for user in USERS {
            let file = service.folder.path().join(format!("{name}-{user}.db"));
            let schema = Schema::new([
                Table::new("items").text("title").text("body"),
                Table::new("habits").text("user_id"),
                Table::new("completions").text("habit_id"),
            ]);
            let connector = StaticConnector::new(service.process.endpoint(), service.token(user));
            let options = ClientOptions {
                retry_base: Duration::from_millis(20),
                retry_cap: Duration::from_millis(200),
                ..ClientOptions::default()
            };
            let client = Client::open_with(&file, schema, connector, options).await.expect("opens");
            client.connect();
            devices.push(Device { _client: client, file, user });
        }
        Self(devices)
    }

    /// Waits until each holds what SQL says. The source must rest.
    pub(super) async fn wait_until_equal(&self, service: &TestService, patience: Duration, context: &str) {
        let deadline = Instant::now() + patience;
        for device in &self.0 {
            loop {
                let compared = compare(&service.sql, &device.file, device.user, &USER_TABLES).await;
                let (_, differences) = compared.expect("both can be read");
                if differences.is_empty() {
                    break;
                }
                let log = service.process.log_tail();
                assert!(Instant::now() < deadline, "{context}: {differences:#?}\n{log}");
                tokio::time::sleep(POLL).await;
            }
        }
    }
}
