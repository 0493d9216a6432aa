//! The measured paths: snapshot, catch-up, initial sync, commit to client.

use std::{
    error::Error,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use kairos_sync::demo::process::ServiceProcess;

use crate::{
    Figure,
    bench_source::{BenchSource, USER_COUNT},
    client::RawClient,
};

const CATCH_UP_TRANSACTIONS: u64 = 1_000;
const CATCH_UP_ROWS: u64 = 100;
const LATENCY_SAMPLES: usize = 300;
const DEADLINE: Duration = Duration::from_mins(5);
const TOKEN_LIFE: Duration = Duration::from_hours(1);

pub(crate) async fn measure_all(source: &BenchSource) -> Result<Vec<Figure>, Box<dyn Error>> {
    let mut figures = Vec::new();
    let copy_rate = copy_rate(source).await?;
    let started = Instant::now();
    let mut service = source.start_service().await?;
    wait_until_ready(&service).await?;
    figures.push(rate("snapshot, rows/s", source.row_count, started.elapsed(), copy_rate, "COPY TO STDOUT"));
    figures.push(initial_sync(source, &service).await?);
    figures.extend(latency(source, &service).await?);
    figures.push(memory("RSS after snapshot, MiB", &service));
    figures.push(catch_up(source, &mut service).await?);
    figures.push(memory("RSS after catch-up, MiB", &service));
    Ok(figures)
}

/// Rows per second of a plain COPY, to nowhere.
async fn copy_rate(source: &BenchSource) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    let stream = source.sql.copy_out("COPY items TO STDOUT").await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(chunk) = stream.next().await {
        chunk?;
    }
    Ok(per_second(source.row_count, started.elapsed()))
}

pub(crate) async fn wait_until_ready(service: &ServiceProcess) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + DEADLINE;
    while !service.is_ready().await? {
        if Instant::now() > deadline {
            return Err(format!("the service does not become ready:\n{}", service.log_tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// One client downloads its bucket; beside it, a plain loopback socket moves as many bytes.
async fn initial_sync(source: &BenchSource, service: &ServiceProcess) -> Result<Figure, Box<dyn Error>> {
    let started = Instant::now();
    let mut byte_count = 0;
    // Several users one after the other, so that the time is long enough to measure.
    for user in 0..10 {
        let token = source.mint.mint(&format!("user{user}"), TOKEN_LIFE);
        let mut client = RawClient::connect(service.endpoint(), &token).await?;
        client.until("checkpoint_complete").await?;
        byte_count += client.byte_count;
    }
    let took = started.elapsed();
    let limit = loopback_rate(byte_count).await?;
    let operations = source.row_count / USER_COUNT * 10;
    let mut figure = rate("initial sync, bytes/s", byte_count, took, limit, "loopback socket");
    figure.measured = format!("{} ({:.0} ops/s)", figure.measured, per_second(operations, took));
    Ok(figure)
}

/// Bytes per second over a loopback socket.
async fn loopback_rate(byte_count: u64) -> Result<f64, Box<dyn Error>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let sender = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        let block = vec![b'x'; 64 * 1024];
        let mut left = byte_count;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            socket.write_all(&block[..part]).await?;
            left -= part as u64;
        }
        std::io::Result::Ok(())
    });
    let started = Instant::now();
    let mut socket = tokio::net::TcpStream::connect(address).await?;
    let mut buffer = vec![0; 64 * 1024];
    while socket.read(&mut buffer).await? > 0 {}
    sender.await??;
    Ok(per_second(byte_count, started.elapsed()))
}

/// From a commit to the line a client gets, on an idle system; beside it, the commit alone.
async fn latency(source: &BenchSource, service: &ServiceProcess) -> Result<Vec<Figure>, Box<dyn Error>> {
    let mut client = RawClient::connect(service.endpoint(), &source.mint.mint("user1", TOKEN_LIFE)).await?;
    client.until("checkpoint_complete").await?;
    let (mut commits, mut arrivals) = (Vec::new(), Vec::new());
    for _ in 0..LATENCY_SAMPLES {
        let started = Instant::now();
        source.sql.execute("UPDATE items SET done = NOT done WHERE id = 1", &[]).await?;
        let committed = Instant::now();
        client.until("checkpoint_complete").await?;
        commits.push(committed - started);
        arrivals.push(committed.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let commit = percentile(&mut commits, 50);
    Ok([50, 95, 99]
        .into_iter()
        .zip(["commit to client, p50", "commit to client, p95", "commit to client, p99"])
        .map(|(percent, path)| {
            let arrival = percentile(&mut arrivals, percent);
            Figure {
                path: path.to_owned(),
                measured: format!("{:.1} ms", arrival.as_secs_f64() * 1e3),
                limit: format!("the commit itself {:.1} ms", commit.as_secs_f64() * 1e3),
                ratio: Some(arrival.as_secs_f64() / commit.as_secs_f64()),
            }
        })
        .collect())
}

/// Changes made while the service was away; beside it, `pg_recvlogical` reads the same changes into a file.
async fn catch_up(source: &BenchSource, service: &mut ServiceProcess) -> Result<Figure, Box<dyn Error>> {
    service.kill()?;
    source.sql.execute("SELECT pg_create_logical_replication_slot('bench_limit', 'pgoutput')", &[]).await?;
    for transaction in 0..CATCH_UP_TRANSACTIONS {
        let first = transaction * CATCH_UP_ROWS % (source.row_count - CATCH_UP_ROWS);
        source
            .sql
            .execute(
                &format!("UPDATE items SET amount = amount + 1 WHERE id > {first} AND id <= {first} + {CATCH_UP_ROWS}"),
                &[],
            )
            .await?;
    }
    let change_count = CATCH_UP_TRANSACTIONS * CATCH_UP_ROWS;
    let end: String = source.sql.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
    let limit = per_second(change_count, recvlogical(source, &end)?);

    let started = Instant::now();
    service.restart().await?;
    let deadline = started + DEADLINE;
    // The service has caught up once its slot is confirmed beyond the last change.
    let caught_up = format!(
        "SELECT coalesce(bool_and(confirmed_flush_lsn >= '{end}'), false) FROM pg_replication_slots \
         WHERE slot_name LIKE 'kairos_bench_%'"
    );
    while !source.sql.query_one(&caught_up, &[]).await?.get::<_, bool>(0) {
        if Instant::now() > deadline {
            return Err(format!("the service does not catch up:\n{}", service.log_tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(rate("catch-up, changes/s", change_count, started.elapsed(), limit, "pg_recvlogical"))
}

fn recvlogical(source: &BenchSource, end: &str) -> Result<Duration, Box<dyn Error>> {
    let started = Instant::now();
    let status = Command::new(source.cluster.program("pg_recvlogical"))
        .args(["-d", &source.cluster.uri("postgres", "postgres"), "--slot", "bench_limit", "--start", "--endpos", end])
        .args(["-o", "proto_version=1", "-o", "publication_names=kairos_sync", "-f"])
        .arg(source.scratch("recvlogical.out"))
        .stderr(Stdio::inherit())
        .status()?;
    if status.success() { Ok(started.elapsed()) } else { Err(format!("pg_recvlogical failed: {status}").into()) }
}

fn memory(path: &str, service: &ServiceProcess) -> Figure {
    let measured = service.resident_bytes().map_or("unknown".to_owned(), |bytes| format!("{}", bytes >> 20));
    Figure { path: path.to_owned(), measured, limit: String::new(), ratio: None }
}

pub(crate) fn rate(path: &str, count: u64, took: Duration, limit: f64, limit_name: &str) -> Figure {
    let measured = per_second(count, took);
    Figure {
        path: path.to_owned(),
        measured: format!("{measured:.0}"),
        limit: format!("{limit_name} {limit:.0}"),
        ratio: Some(measured / limit),
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures are for people")]
pub(crate) fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

pub(crate) fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent / 100).min(samples.len() - 1)]
}
