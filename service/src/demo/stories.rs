//! The stories the demo plays on real devices.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kairos_client::ClientError;
use tokio::time::timeout;

use crate::demo::{
    DemoError, Links,
    devices::{Device, Devices, SYNC_TIMEOUT},
    screen::Screen,
    source::DemoSource,
};

/// Habits completed while offline.
const OFFLINE_COMPLETIONS: usize = 3;
/// Commits whose way to a device is timed.
const LATENCY_SAMPLES: i64 = 50;
/// How often somebody in the household does something while people look at it.
const LIFE_EVERY: Duration = Duration::from_secs(4);

/// UC-2: the phone is offline, completes habits, creates one, and comes back; the watch receives it all.
///
/// # Errors
/// [`DemoError`] when a device fails or is late.
pub async fn offline(screen: &Screen, source: &DemoSource, devices: &Devices) -> Result<(), DemoError> {
    let started = Instant::now();
    let Devices { phone, watch, mirror, .. } = devices;
    phone.client.disconnect().await;
    let habits = habit_ids(phone).await?;
    for habit in habits.into_iter().take(OFFLINE_COMPLETIONS) {
        complete(phone, habit).await?;
    }
    phone
        .client
        .execute(
            "INSERT INTO habits (id, user_id, name, icon, schedule, target_per_day, position, archived) \
             VALUES ('made-offline', 'anna', 'Water the plants', '🪴', '{\"every\": \"day\"}', 1, 99, 0)",
            [],
        )
        .await?;
    let pending = phone.client.status();
    screen.line(&format!("    phone: {} ({})", pending.state.label(), "everything works without a network"));
    // Meanwhile the world goes on.
    sql(source, "UPDATE habits SET name = name || '!' WHERE id = (SELECT min(id) FROM habits WHERE user_id = 'anna')")
        .await?;
    phone.client.connect();
    synced(phone, "the upload of offline writes").await?;
    for device in [watch, mirror] {
        shows(device, "SELECT count(*) FROM habits WHERE id = 'made-offline'", 1, "the new habit on other devices")
            .await?;
    }
    screen.done(
        "UC-2: phone completed habits and made one while offline, came back; watch and mirror received it",
        started,
    );
    Ok(())
}

/// UC-3: a habit completed on the watch reaches Postgres and the phone.
///
/// # Errors
/// [`DemoError`] when a device fails or is late.
pub async fn multi_device(screen: &Screen, source: &DemoSource, devices: &Devices) -> Result<(), DemoError> {
    let started = Instant::now();
    let Devices { phone, watch, other, .. } = devices;
    complete(watch, "made-offline".to_owned()).await?;
    shows(
        phone,
        "SELECT count(*) FROM completions WHERE habit_id = 'made-offline'",
        1,
        "the watch's completion on the phone",
    )
    .await?;
    // A write for somebody else's habit: the local database takes it, the server refuses it, and it is undone.
    let habit: String = one(source, "SELECT min(id) FROM habits WHERE user_id = 'ben'").await?;
    complete(phone, habit).await?;
    synced(phone, "the answer to a refused write").await?;
    let refused = phone.client.rejected_writes().await?;
    screen.line(&format!("    phone: {} write for ben's habit refused, local state restored", refused.len()));
    // A habit changes hands: it leaves anna's devices with its completions and arrives at ben's.
    let moved: String = one(source, "SELECT max(id) FROM habits WHERE user_id = 'anna' AND id LIKE 'anna-%'").await?;
    sql(source, &format!("UPDATE habits SET user_id = 'ben' WHERE id = '{moved}'")).await?;
    let of_moved = format!("SELECT count(*) > 0 FROM completions WHERE habit_id = '{moved}'");
    shows(watch, &of_moved, 0, "the habit given away leaving").await?;
    shows(other, &of_moved, 1, "the habit given away arriving").await?;
    screen.done("UC-3: watch to phone; a habit given to ben moved with all its completions", started);
    Ok(())
}

/// Times the way of single commits from Postgres to the watch. Ascending.
///
/// # Errors
/// [`DemoError`] when a commit does not arrive.
pub async fn latency(source: &DemoSource, devices: &Devices) -> Result<Vec<Duration>, DemoError> {
    let mut samples = Vec::new();
    for position in 1_001..=1_000 + LATENCY_SAMPLES {
        let mut changes = devices.watch.client.watch(&["habits"]);
        sql(source, &format!("UPDATE habits SET position = {position} WHERE id = 'made-offline'")).await?;
        let committed = Instant::now();
        let arrived = async {
            let query = "SELECT position FROM habits WHERE id = 'made-offline'";
            while number(&devices.watch, query).await? != position {
                changes.changed().await;
            }
            Ok::<_, ClientError>(())
        };
        timeout(SYNC_TIMEOUT, arrived).await.map_err(|_| DemoError::Late("a commit on the watch", SYNC_TIMEOUT))??;
        samples.push(committed.elapsed());
    }
    samples.sort_unstable();
    Ok(samples)
}

/// Says where the mirror is, and lets the household live, until it is dropped.
///
/// # Errors
/// [`DemoError`] when Postgres fails.
pub async fn live(screen: &Screen, source: &DemoSource, links: &Links, opens_browser: bool) -> Result<(), DemoError> {
    let psql = source.psql_command();
    screen.line("\n  Until Ctrl-C, which removes everything:");
    screen.line(&format!("    Mirror:   {}", links.mirror));
    screen.line(&format!("    Status:   {}", links.status));
    screen.line(&format!("    Postgres: {psql}"));
    screen.line(&format!(
        "    Try:      {psql} -c \"UPDATE habits SET name = 'Changed by me' WHERE id = 'made-offline'\""
    ));
    if opens_browser {
        open_in_browser(screen, &links.mirror);
    }
    let mut clock = tokio::time::interval(LIFE_EVERY);
    loop {
        clock.tick().await;
        sql(source, TOGGLE_SOMETHING).await?;
    }
}

fn open_in_browser(screen: &Screen, url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let opened =
        Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Err(error) = opened {
        screen.line(&format!("    no browser was opened: {program}: {error}"));
    }
}

/// Somebody completes one of anna's habits today, or takes it back.
const TOGGLE_SOMETHING: &str = "
    WITH habit AS (SELECT id FROM habits WHERE user_id = 'anna' AND NOT archived ORDER BY random() LIMIT 1),
    undone AS (
        DELETE FROM completions c USING habit h
        WHERE c.habit_id = h.id AND completed_on = current_date AND random() < 0.3 RETURNING 1
    )
    INSERT INTO completions (id, habit_id, completed_on)
    SELECT gen_random_uuid()::text, id, current_date FROM habit
    WHERE NOT EXISTS (SELECT FROM undone)
    AND NOT EXISTS (SELECT FROM completions c WHERE c.habit_id = habit.id AND completed_on = current_date)";

async fn habit_ids(device: &Device) -> Result<Vec<String>, DemoError> {
    Ok(device
        .client
        .query("SELECT id FROM habits WHERE NOT archived ORDER BY position, id", [], |row| row.get(0))
        .await?)
}

async fn complete(device: &Device, habit: String) -> Result<(), DemoError> {
    let sql = "INSERT INTO completions (id, habit_id, completed_on, completed_at, amount) \
               VALUES (uuid(), ?1, date('now'), strftime('%Y-%m-%d %H:%M:%SZ', 'now'), '1.00')";
    device.client.execute(sql, [habit]).await?;
    Ok(())
}

/// Waits until all writes are answered and the device shows the service's latest state.
async fn synced(device: &Device, what: &'static str) -> Result<(), DemoError> {
    timeout(SYNC_TIMEOUT, device.client.wait_until_synced()).await.map_err(|_| DemoError::Late(what, SYNC_TIMEOUT))
}

/// Waits until a query on the device gives this number.
async fn shows(device: &Device, query: &str, expected: i64, what: &'static str) -> Result<(), DemoError> {
    let shown = async {
        while number(device, query).await? != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, ClientError>(())
    };
    timeout(SYNC_TIMEOUT, shown).await.map_err(|_| DemoError::Late(what, SYNC_TIMEOUT))??;
    Ok(())
}

async fn number(device: &Device, query: &str) -> Result<i64, ClientError> {
    let rows = device.client.query(query, [], |row| row.get(0)).await?;
    Ok(rows.first().copied().unwrap_or_default())
}

async fn sql(source: &DemoSource, statement: &str) -> Result<(), DemoError> {
    source.sql().batch_execute(statement).await.map_err(DemoError::Prepare)
}

async fn one(source: &DemoSource, query: &str) -> Result<String, DemoError> {
    let row = source.sql().query_one(query, &[]).await.map_err(DemoError::Prepare)?;
    row.try_get(0).map_err(DemoError::Prepare)
}
