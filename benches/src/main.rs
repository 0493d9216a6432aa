//! `./kairos bench`: how fast the main paths are, beside what the machine allows, measured in the same run.
//!
//! Absolute figures say more about the machine than about the product; read the ratios.

mod bench_source;
mod client;
mod client_apply;
mod large;
mod null_store;
mod paths;
mod replica;
mod replication;
mod serving;
mod store;
mod swarm;
mod uploads;

use std::{error::Error, io::Write};

use bench_source::BenchSource;

/// As in the service.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows in the benchmark's table unless the first argument says otherwise.
const ROW_COUNT: u64 = 300_000;

/// Rows of a kibibyte in the large transaction, unless an argument says otherwise: two gibibytes.
const LARGE_ROW_COUNT: u64 = 2 * 1024 * 1024;

/// Buckets of a large store, unless an argument says otherwise.
const BUCKET_COUNT: u64 = 1_000_000;

/// One measured path.
pub(crate) struct Figure {
    path: String,
    measured: String,
    limit: String,
    ratio: Option<f64>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A second call would find the provider installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|argument| argument == "large").is_some() {
        return large_transaction(arguments.next().map_or(Ok(LARGE_ROW_COUNT), |text| text.parse())?).await;
    }
    if arguments.next_if(|argument| argument == "serving").is_some() {
        let mut is_next = |name| arguments.next_if(|argument| argument == name).is_some();
        let scope = match (is_next("crowd"), is_next("download")) {
            (true, _) => serving::Scope::Crowd,
            (_, true) => serving::Scope::Download,
            _ => serving::Scope::All,
        };
        let largest = arguments.next().map_or(Ok(serving::CLIENT_COUNT), |text| text.parse())?;
        print_header()?;
        return serving::measure(largest, scope, print_figure).await;
    }
    if arguments.next_if(|argument| argument == store::scale::OPEN).is_some() {
        let folder = arguments.next().ok_or("no folder")?;
        let bucket_count = arguments.next().ok_or("no number of buckets")?.parse()?;
        return Ok(write!(std::io::stdout(), "{}", store::scale::open(folder.as_ref(), bucket_count)?)?);
    }
    if arguments.next_if(|argument| argument == store::engines::PHASE).is_some() {
        return store::engines::phase(&arguments.collect::<Vec<_>>());
    }
    if arguments.next_if(|argument| argument == "store").is_some() {
        if arguments.next_if(|argument| argument == "engines").is_some() {
            return store::engines::measure(
                arguments.next().map_or(Ok(store::engines::ROW_COUNT), |text| text.parse())?,
            );
        }
        if arguments.next_if(|argument| argument == "scale").is_some() {
            let bucket_count = arguments.next().map_or(Ok(BUCKET_COUNT), |text| text.parse())?;
            print_header()?;
            return store::scale::measure(bucket_count)?.iter().try_for_each(print_figure);
        }
        let row_count = arguments.next().map_or(Ok(ROW_COUNT), |text| text.parse())?;
        print_header()?;
        return store::measure(row_count, print_figure).await;
    }
    if arguments.next_if(|argument| argument == "uploads").is_some() {
        return uploads::measure(arguments.next().map_or(Ok(uploads::SECONDS), |text| text.parse())?).await;
    }
    if arguments.next_if(|argument| argument == "client").is_some() {
        let row_count = arguments.next().map_or(Ok(client_apply::ROW_COUNT), |text| text.parse())?;
        print_header()?;
        return client_apply::measure(row_count, print_figure).await;
    }
    let only_snapshot = arguments.next_if(|argument| argument == "snapshot").is_some();
    let only_replication = only_snapshot || arguments.next_if(|argument| argument == "replication").is_some();
    let row_count = arguments.next().map_or(Ok(ROW_COUNT), |text| text.parse())?;
    let source = BenchSource::start(row_count).await?;
    let scope = if only_snapshot { replication::Scope::Snapshot } else { replication::Scope::All };
    let stages = replication::measure(&source, scope).await?;
    let figures = if only_replication { Vec::new() } else { paths::measure_all(&source).await? };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", replication::table_of(&stages))?;
    if only_replication {
        return Ok(());
    }
    drop(out);
    print_header()?;
    figures.iter().try_for_each(print_figure)
}

fn print_header() -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout(), "{:<52} {:>36} {:>32} {:>7}", "path", "measured", "limit beside it", "ratio")?)
}

fn print_figure(figure: &Figure) -> Result<(), Box<dyn Error>> {
    let Figure { path, measured, limit, ratio } = figure;
    let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    Ok(writeln!(std::io::stdout(), "{path:<52} {measured:>36} {limit:>32} {ratio:>7}")?)
}

async fn large_transaction(row_count: u64) -> Result<(), Box<dyn Error>> {
    let source = BenchSource::start(1_000).await?;
    let large::LargeTransaction { row_count, wal_bytes, ran, followed, peak_bytes, idle_bytes } =
        large::measure(&source, row_count).await?;
    writeln!(
        std::io::stdout().lock(),
        "one transaction of {row_count} rows, {} MiB of WAL: {ran:.0?} in the source, stored {followed:.0?} after its \
         commit; the service held at most {} MiB, {} MiB before",
        wal_bytes >> 20,
        peak_bytes >> 20,
        idle_bytes >> 20
    )?;
    Ok(())
}
