//! Serving: from the store to the bytes at clients, up to ten thousand of them.

use std::{
    error::Error,
    io::Write,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::StreamExt;
use kairos_sync::demo::process::ServiceProcess;

use crate::{
    Figure,
    bench_source::{BenchSource, connect},
    client::RawClient,
    paths::{per_second, percentile, rate, wait_until_ready},
    swarm::Swarm,
};

/// Clients at most, unless the argument says otherwise.
pub(crate) const CLIENT_COUNT: usize = 10_000;
/// Rows of the one large bucket.
const BULK_ROWS: u64 = 1_000_000;
/// Buckets of the clients that have many; with two more they are as many as are allowed.
const BUCKET_COUNTS: [u64; 4] = [1, 100, 1_000, 9_998];
const TOKEN_LIFE: Duration = Duration::from_hours(2);
const DEADLINE: Duration = Duration::from_mins(3);
/// How long commits go on for one measurement of latency.
const LATENCY_TIME: Duration = Duration::from_secs(6);
/// Until a service on which nothing happens has given back what it does not need.
const QUIET_TIME: Duration = Duration::from_secs(25);
/// Sessions that commit.
const WRITERS: u64 = 8;

const RULES: &str = "\
bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS owner
    data: ['SELECT * FROM items WHERE owner = bucket.owner']
  notices:
    data: ['SELECT * FROM notices']
  lists:
    parameters: SELECT id AS list_id FROM lists WHERE owner = request.user_id()
    data: ['SELECT * FROM entries WHERE list_id = bucket.list_id']
";

/// A source, and a service on it.
struct Stage {
    source: BenchSource,
    service: ServiceProcess,
}

impl Stage {
    /// `row_count` is that of the table of items.
    async fn start(schema: &str, row_count: u64) -> Result<Self, Box<dyn Error>> {
        let source = BenchSource::with(schema, RULES, row_count).await?;
        let service = source.start_service().await?;
        wait_until_ready(&service).await?;
        Ok(Self { source, service })
    }

    fn token(&self, user: &str) -> String {
        self.source.mint.mint(user, TOKEN_LIFE)
    }

    fn tokens(&self, count: usize) -> Vec<String> {
        (0..count).map(|user| self.token(&format!("user{user}"))).collect()
    }

    async fn swarm(&self, count: usize) -> Result<Swarm, Box<dyn Error>> {
        Swarm::open(self.service.endpoint(), &self.tokens(count), DEADLINE).await
    }

    /// Waits until the service has read so many rows of `items` and told Postgres that it keeps them.
    async fn wait_for_items(&self, count: u64) -> Result<(), Box<dyn Error>> {
        let started = Instant::now();
        let end: String = self.source.sql.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
        let kept = format!("SELECT bool_and(confirmed_flush_lsn >= '{end}') FROM pg_replication_slots");
        while self.service.rows_replicated().await? < count
            || !self.source.sql.query_one(&kept, &[]).await?.get::<_, bool>(0)
        {
            if started.elapsed() > DEADLINE {
                return Err("the service does not catch up".into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn resident_bytes(&self) -> u64 {
        self.service.resident_bytes().unwrap_or_default()
    }
}

/// A row each for `users`, `bulk_rows` for one more, and users with many buckets.
fn schema(users: usize, bulk_rows: u64) -> String {
    let tables =
        "CREATE TABLE items (id bigint PRIMARY KEY, owner text NOT NULL, title text NOT NULL, note text NOT NULL, \
                  change bigint NOT NULL DEFAULT 0);
         CREATE TABLE notices (id bigint PRIMARY KEY, change bigint NOT NULL);
         CREATE TABLE lists (id bigint PRIMARY KEY, owner text NOT NULL);
         CREATE TABLE entries (id bigint PRIMARY KEY, list_id bigint NOT NULL);
         CREATE PUBLICATION kairos_sync FOR TABLE items, notices, lists, entries;
         INSERT INTO notices VALUES (1, 0);";
    let row = "'item number ' || n, repeat(md5(n::text), 3)";
    let mut sql = format!(
        "{tables}
         INSERT INTO items SELECT n, 'user' || n, {row} FROM generate_series(0, {users} - 1) n;
         INSERT INTO items SELECT 1000000 + n, 'bulk', {row} FROM generate_series(1, {bulk_rows}) n;"
    );
    let mut first = 0;
    for count in BUCKET_COUNTS {
        sql += &many_lists(first, count);
        first += count;
    }
    sql + "INSERT INTO entries SELECT id, id FROM lists;"
}

fn many_lists(first: u64, count: u64) -> String {
    format!("INSERT INTO lists SELECT {first} + n, 'many{count}' FROM generate_series(1, {count}) n;")
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All.
    All,
    /// Memory of a household, and what many connections take.
    Crowd,
    /// One client's first download.
    Download,
}

/// Measures with up to so many clients, and tells each figure when it is known.
pub(crate) async fn measure(
    client_count: usize,
    scope: Scope,
    tell: impl Fn(&Figure) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    if scope != Scope::Download {
        tell(&household().await?)?;
    }
    if scope == Scope::Crowd {
        let mut stage = Stage::start(&schema(client_count, 0), client_count as u64).await?;
        return crowd(&mut stage, client_count).await?.iter().try_for_each(&tell);
    }
    let mut stage = Stage::start(&schema(client_count, BULK_ROWS), client_count as u64 + BULK_ROWS).await?;
    // What filling the store took is given back by a new process.
    stage.service.kill()?;
    stage.service.restart().await?;
    wait_until_ready(&stage.service).await?;
    initial_sync(&stage).await?.iter().try_for_each(&tell)?;
    if scope == Scope::Download {
        return Ok(());
    }
    many_buckets(&stage).await?.iter().try_for_each(&tell)?;
    for count in [1, 100, 1_000, 5_000].into_iter().filter(|count| *count <= client_count) {
        for commits_per_second in [20, 1_000] {
            tell(&latency(&stage, count, commits_per_second).await?)?;
        }
    }
    crowd(&mut stage, client_count).await?.iter().try_for_each(&tell)
}

/// What the service holds with a hundred users and a hundred thousand rows, once it runs as on any day.
async fn household() -> Result<Figure, Box<dyn Error>> {
    let mut stage = Stage::start(&schema(100, 0), 100).await?;
    let fill = "INSERT INTO items SELECT 1000 + n, 'user' || n % 100, 'item number ' || n, repeat(md5(n::text), 3) \
                FROM generate_series(1, 100000) n";
    stage.source.sql.execute(fill, &[]).await?;
    stage.wait_for_items(100_100).await?;
    let after_fill = stage.resident_bytes();
    stage.service.kill()?;
    stage.service.restart().await?;
    wait_until_ready(&stage.service).await?;
    let swarm = stage.swarm(100).await?;
    for change in 0..100_i64 {
        stage.source.sql.execute("UPDATE items SET change = $1 WHERE id = $1", &[&change]).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after_burst = stage.resident_bytes();
    // Threads have ended, and lines that are kept for others are given back.
    tokio::time::sleep(QUIET_TIME).await;
    let quiet = stage.resident_bytes();
    drop(swarm);
    Ok(Figure {
        path: "household: 100 clients, 100,000 rows, RSS".to_owned(),
        measured: format!(
            "{} MiB when it is quiet, {} MiB two seconds after all came, {} MiB after the first fill",
            quiet >> 20,
            after_burst >> 20,
            after_fill >> 20
        ),
        limit: "aim 40 MiB".to_owned(),
        ratio: None,
    })
}

/// One client downloads one large bucket, in each form and compression, twice; beside it, the same bytes as a file.
async fn initial_sync(stage: &Stage) -> Result<Vec<Figure>, Box<dyn Error>> {
    let mut figures = Vec::new();
    let token = stage.token("bulk");
    let endpoint = stage.service.endpoint();
    let bson = "application/vnd.powersync.bson-stream";
    let mut file_rate = 0.0;
    for (name, accept, encoding) in [
        ("NDJSON", "application/x-ndjson", "identity"),
        ("BSON", bson, "identity"),
        ("NDJSON, zstd", "application/x-ndjson", "zstd"),
        ("NDJSON, gzip", "application/x-ndjson", "gzip"),
        ("BSON, zstd", bson, "zstd"),
    ] {
        let mut file = tempfile::NamedTempFile::new()?;
        download(endpoint, &token, (accept, encoding), |chunk| file.write_all(chunk)).await?;
        if file_rate == 0.0 {
            // As often as the stream, the second time counts.
            served_file_rate(&file).await?;
            file_rate = served_file_rate(&file).await?;
        }
        let (byte_count, took) = download(endpoint, &token, (accept, encoding), |_| Ok(())).await?;
        let mut figure = rate(
            &format!("initial sync of 1,000,000 operations, {name}"),
            byte_count,
            took,
            file_rate,
            "a file, bytes/s",
        );
        let operations = per_second(BULK_ROWS, took);
        figure.measured = format!("{} bytes/s, {operations:.0} ops/s", figure.measured);
        figures.push(figure);
    }
    Ok(figures)
}

/// Downloads a bucket in a form and compression; gives the number of bytes, and how long they took.
async fn download(
    endpoint: &str,
    token: &str,
    (accept, encoding): (&str, &str),
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(u64, Duration), Box<dyn Error>> {
    let started = Instant::now();
    let client = reqwest::Client::builder().no_gzip().no_zstd().build()?;
    let response = client
        .post(format!("{endpoint}/sync/stream"))
        .header("authorization", format!("Token {token}"))
        .header("accept", accept)
        .header("accept-encoding", encoding)
        .json(&serde_json::json!({"raw_data": true}))
        .send()
        .await?
        .error_for_status()?;
    let mut chunks = response.bytes_stream();
    let (mut byte_count, mut last) = (0, started);
    // A stream does not end; it is silent once all was sent.
    while let Ok(Some(chunk)) = tokio::time::timeout(Duration::from_secs(2), chunks.next()).await {
        let chunk = chunk?;
        take(&chunk)?;
        byte_count += chunk.len() as u64;
        last = Instant::now();
    }
    Ok((byte_count, last - started))
}

/// Bytes per second of a file served by the same HTTP stack.
async fn served_file_rate(file: &tempfile::NamedTempFile) -> Result<f64, Box<dyn Error>> {
    let path = file.path().to_path_buf();
    let serve = move || {
        let path = path.clone();
        async move {
            let file = tokio::fs::File::open(path).await.expect("the file is there");
            let chunks = futures_util::stream::try_unfold(file, async |mut file| {
                let mut chunk = bytes::BytesMut::with_capacity(256 * 1024);
                let read = tokio::io::AsyncReadExt::read_buf(&mut file, &mut chunk).await?;
                std::io::Result::Ok((read > 0).then(|| (Bytes::from(chunk), file)))
            });
            Body::from_stream(chunks)
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let server = tokio::spawn(axum::serve(listener, Router::new().route("/", get(serve))).into_future());
    let started = Instant::now();
    let mut chunks = reqwest::get(url).await?.bytes_stream();
    let mut byte_count = 0;
    while let Some(chunk) = chunks.next().await {
        byte_count += chunk?.len() as u64;
    }
    server.abort();
    Ok(per_second(byte_count, started.elapsed()))
}

/// From connecting to the first line, for clients with many buckets.
async fn many_buckets(stage: &Stage) -> Result<Vec<Figure>, Box<dyn Error>> {
    let mut figures = Vec::new();
    for count in BUCKET_COUNTS {
        let token = stage.token(&format!("many{count}"));
        let mut samples = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            let mut client = RawClient::connect(stage.service.endpoint(), &token).await?;
            client.until("checkpoint").await?;
            samples.push(started.elapsed());
        }
        figures.push(Figure {
            path: format!("connect to checkpoint, {count} buckets and 2"),
            measured: format!("{:.1} ms", percentile(&mut samples, 50).as_secs_f64() * 1e3),
            limit: String::new(),
            ratio: None,
        });
    }
    Ok(figures)
}

/// Commits that each concern one of the clients, at a steady rate.
async fn latency(stage: &Stage, count: usize, commits_per_second: u64) -> Result<Figure, Box<dyn Error>> {
    let swarm = stage.swarm(count).await?;
    swarm.take_arrivals();
    let started = Instant::now();
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let sql = connect(&stage.source.cluster).await?;
        writers.push(tokio::spawn(async move {
            let update = sql.prepare("UPDATE items SET change = $1 WHERE id = $2").await?;
            let mut commits = Vec::new();
            for change in (1..).filter(|change| change % WRITERS == writer) {
                let due = started + Duration::from_secs(change) / u32::try_from(commits_per_second).unwrap_or(1);
                if due > started + LATENCY_TIME {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                let client = usize::try_from(change).unwrap_or(0).wrapping_mul(7_919) % count;
                let id = i64::try_from(client).unwrap_or(0);
                sql.execute(&update, &[&change.cast_signed(), &id]).await?;
                commits.push((client, change, Instant::now()));
            }
            Ok::<_, tokio_postgres::Error>(commits)
        }));
    }
    let mut commits = Vec::new();
    for writer in writers {
        commits.extend(writer.await??);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut arrivals = vec![Vec::new(); count];
    for arrival in swarm.take_arrivals() {
        arrivals[arrival.client].push(arrival);
    }
    let mut samples = Vec::new();
    for (client, change, committed) in &commits {
        let arrival = arrivals[*client].iter().find(|arrival| arrival.change >= *change);
        let arrival = arrival.ok_or("a change did not arrive")?;
        samples.push(arrival.at.saturating_duration_since(*committed));
    }
    let ms = |percent| percentile(&mut samples.clone(), percent).as_secs_f64() * 1e3;
    Ok(Figure {
        path: format!("commit to client, {count} clients, {commits_per_second} commits/s"),
        measured: format!("p50 {:.1}, p99 {:.1} ms", ms(50), ms(99)),
        limit: format!("{:.0} commits/s done", per_second(commits.len() as u64, LATENCY_TIME)),
        ratio: None,
    })
}

/// Ten thousand clients: memory while idle, one change for all, and all of them coming back at once.
async fn crowd(stage: &mut Stage, count: usize) -> Result<Vec<Figure>, Box<dyn Error>> {
    stage.service.kill()?;
    stage.service.restart().await?;
    wait_until_ready(&stage.service).await?;
    let before = stage.resident_bytes();
    let started = Instant::now();
    let swarm = stage.swarm(count).await?;
    let connected = started.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = stage.resident_bytes();
    let mut fan_outs = Vec::new();
    for change in 1..=5_i64 {
        swarm.take_arrivals();
        stage.source.sql.execute("UPDATE notices SET change = $1", &[&change]).await?;
        let committed = Instant::now();
        swarm.wait_for(count, DEADLINE).await?;
        let last = swarm.take_arrivals().into_iter().map(|arrival| arrival.at).max().ok_or("nothing arrived")?;
        fan_outs.push(last.saturating_duration_since(committed));
    }
    let busy = stage.resident_bytes();
    drop(swarm);
    let started = Instant::now();
    let swarm = stage.swarm(count).await?;
    let reconnected = started.elapsed();
    drop(swarm);
    let per_connection = idle.saturating_sub(before) / count as u64;
    let figure =
        |path: String, measured: String, limit: &str| Figure { path, measured, limit: limit.to_owned(), ratio: None };
    Ok(vec![
        figure(
            format!("{count} idle connections, RSS"),
            format!("{per_connection} bytes each, {} MiB in all", idle >> 20),
            "aim 10 KiB beyond the socket",
        ),
        figure(format!("{count} clients connect"), format!("{:.1} s", connected.as_secs_f64()), ""),
        figure(
            format!("one change to {count} clients, the last one"),
            format!("{:.2} s ({} MiB after five)", percentile(&mut fan_outs, 50).as_secs_f64(), busy >> 20),
            "aim 1 s",
        ),
        figure(format!("{count} clients come back at once"), format!("{:.1} s", reconnected.as_secs_f64()), ""),
    ])
}
