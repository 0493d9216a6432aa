//! The demo's verdict and its figures.

use std::time::{Duration, Instant};

use crate::demo::{
    DemoError, Services,
    checks::USER_TABLES,
    devices::Devices,
    household::Seeded,
    named,
    oracle::compare,
    process::ServiceProcess,
    screen::{Screen, bytes, count, duration},
    source::DemoSource,
};

/// How long devices may take to become equal once nothing is written any more.
const PATIENCE: Duration = Duration::from_secs(15);

/// Figures gathered on the way.
pub struct Summary {
    seeded: Seeded,
    snapshot: Duration,
    initial: Duration,
    /// From a commit in Postgres until a device shows it, ascending.
    pub latency: Vec<Duration>,
    rows_compared: u64,
}

impl Summary {
    /// With what is known after the initial sync.
    pub fn new(seeded: Seeded, snapshot: Duration, initial: Duration) -> Self {
        Self { seeded, snapshot, initial, latency: Vec::new(), rows_compared: 0 }
    }

    /// Compares every device with Postgres, again until all are equal or [`PATIENCE`] is over: what was committed last
    /// may still be on its way. A device equal to its user's rows holds no row of another user.
    ///
    /// # Errors
    /// [`DemoError::Oracle`].
    pub async fn check(
        &mut self,
        screen: &Screen,
        source: &DemoSource,
        devices: &Devices,
        when: &str,
    ) -> Result<bool, DemoError> {
        let started = Instant::now();
        let (rows, differences) = loop {
            let (rows, differences) = compare_all(source, devices).await?;
            if differences.is_empty() || started.elapsed() > PATIENCE {
                break (rows, differences);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.rows_compared += rows;
        for difference in &differences {
            screen.failed(&format!("after {when}: {difference}"));
        }
        if differences.is_empty() {
            let what = format!("after {when}: all devices equal SQL on Postgres, {} rows compared", count(rows));
            screen.done(&what, started);
        }
        Ok(differences.is_empty())
    }

    /// Prints all figures.
    pub fn print(&self, screen: &Screen, services: &Services, devices: &Devices) {
        let Seeded { habits, completions, routines, routine_habits, recovery_sessions, .. } = self.seeded;
        let rows = (habits + completions + routines + routine_habits + recovery_sessions) as u64;
        screen.line("\n  Summary");
        let line = |name: &str, value: String| screen.line(&format!("    {name:<28} {value}"));
        line("rows in Postgres", count(rows));
        line(
            "start and snapshot",
            format!("{} ({} rows/s)", duration(self.snapshot), count(per_second(rows, self.snapshot))),
        );
        line("initial sync, four devices", duration(self.initial));
        for (name, device) in named(devices) {
            let totals = device.client.statistics();
            line(
                name,
                format!(
                    "{} operations, {}, {} checkpoints, {} writes uploaded",
                    count(totals.operations),
                    bytes(totals.bytes_received),
                    totals.checkpoints,
                    totals.writes_uploaded
                ),
            );
        }
        if let (Some(median), Some(worst)) = (self.latency.get(self.latency.len() / 2), self.latency.last()) {
            line(
                "commit to device",
                format!("{} median, {} longest of {}", duration(*median), duration(*worst), self.latency.len()),
            );
        }
        line("rows compared", count(self.rows_compared));
        let memory = |service: &ServiceProcess| service.resident_bytes().map_or("unknown".to_owned(), bytes);
        line(
            "memory of the service",
            format!("{} (classic rules: {})", memory(&services.kairos), memory(&services.classic)),
        );
    }
}

async fn compare_all(source: &DemoSource, devices: &Devices) -> Result<(u64, Vec<String>), DemoError> {
    let (mut rows, mut all_differences) = (0, Vec::new());
    for (name, device) in named(devices) {
        let (equal_count, differences) = compare(source.sql(), &device.file, device.user, &USER_TABLES).await?;
        rows += equal_count;
        all_differences.extend(differences.into_iter().map(|difference| format!("{name}: {difference}")));
    }
    Ok((rows, all_differences))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a figure for people"
)]
fn per_second(rows: u64, took: Duration) -> u64 {
    (rows as f64 / took.as_secs_f64()) as u64
}
