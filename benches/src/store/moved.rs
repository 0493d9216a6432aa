//! A parent with very many children moves from one user to another; beside it, SQL finds the children.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use crate::{
    Figure,
    bench_source::{BenchSource, JOINED_RULES, SCHEMA},
    client::RawClient,
    paths::wait_until_ready,
};

const CHILDREN: u64 = 100_000;
const TOKEN_LIFE: Duration = Duration::from_hours(1);
/// Often enough to see what a part takes.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

pub(super) async fn measure() -> Result<Vec<Figure>, Box<dyn Error>> {
    let schema = format!(
        "{SCHEMA}
         INSERT INTO owners VALUES ('parent', 'user0');
         INSERT INTO items SELECT n, 'parent', 'item number ' || n, repeat(md5(n::text), 3), n % 3 = 0, n / 7.0, \
         '2026-01-01'::timestamptz + n * interval '1 second' FROM generate_series(1, {CHILDREN}) n;"
    );
    let source = BenchSource::with(&schema, JOINED_RULES, CHILDREN).await?;
    let service = source.start_service().await?;
    wait_until_ready(&service).await?;
    let idle_bytes = service.resident_bytes().unwrap_or(0);
    let token = source.mint.mint("user1", TOKEN_LIFE);
    let mut client = RawClient::connect(service.endpoint(), &token).await?;
    client.until("checkpoint_complete").await?;

    source.sql.execute("UPDATE owners SET user_id = 'user1' WHERE id = 'parent'", &[]).await?;
    let committed = Instant::now();
    let mut peak_bytes = idle_bytes;
    let (visible, checkpoints) = {
        let follow = follow(client, service.endpoint(), &token, committed);
        tokio::pin!(follow);
        loop {
            tokio::select! {
                followed = &mut follow => break followed?,
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    peak_bytes = peak_bytes.max(service.resident_bytes().unwrap_or(0));
                }
            }
        }
    };
    let downloaded = committed.elapsed();
    let started = Instant::now();
    source.sql.query("SELECT * FROM items WHERE owner = 'parent'", &[]).await?;
    let selected = started.elapsed();
    Ok(vec![
        Figure {
            path: format!("{CHILDREN} children move, until visible"),
            measured: format!("{:.2} s, {checkpoints} checkpoint(s)", visible.as_secs_f64()),
            limit: format!("SQL reads them in {:.2} s", selected.as_secs_f64()),
            ratio: Some(visible.as_secs_f64() / selected.as_secs_f64()),
        },
        Figure {
            path: "the same, until the new user's client has them".to_owned(),
            measured: format!("{:.2} s", downloaded.as_secs_f64()),
            limit: String::new(),
            ratio: None,
        },
        Figure {
            path: "memory of the service meanwhile, MiB".to_owned(),
            measured: format!("at most {}", peak_bytes >> 20),
            limit: format!("{} before", idle_bytes >> 20),
            ratio: None,
        },
    ])
}

/// Reads until the client has all children. Gives when the first checkpoint with some of them was told, and how many
/// checkpoints it took.
///
/// A stream ends when nothing is visible for a while; its client connects again.
async fn follow(
    mut client: RawClient,
    endpoint: &str,
    token: &str,
    committed: Instant,
) -> Result<(Duration, u64), Box<dyn Error>> {
    let (mut visible, mut checkpoints, mut operations) = (None, 0, 0);
    loop {
        let Ok(line) = client.line().await else {
            client = RawClient::connect(endpoint, token).await?;
            continue;
        };
        if line.starts_with("{\"checkpoint") && !line.starts_with("{\"checkpoint_complete") {
            visible = visible.or(Some(committed.elapsed()));
        } else if line.starts_with("{\"data\":") {
            operations += line.matches("\"op\":\"PUT\"").count() as u64;
        } else if line.starts_with("{\"checkpoint_complete") {
            checkpoints += 1;
            // And the parent itself.
            if operations > CHILDREN {
                return Ok((visible.unwrap_or_default(), checkpoints));
            }
        }
    }
}
