//! Runs a target on one input after the other, within bounds.
//!
//! `FUZZ_SEED` is where the inputs begin, `FUZZ_SECONDS` how long to go on; `FUZZ_SEED=n FUZZ_SECONDS=0` is the one
//! input `n`. The input at work is kept in a file, so that it is at hand even if the process dies.
//!
//! The service's fuzz targets use this file, too.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::random::Random;

/// Where the inputs of a run begin.
const SEED_DEFAULT: u64 = 1;
/// How long a target runs.
const SECONDS_DEFAULT: u64 = 4;
/// How long a core may work on one input: a second in a release build, whose code is several times faster. Waiting for
/// the core does not count, since others use the machine too.
const TIME_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
/// The stack of a thread as the service has them. Frames of a debug build are several times those of a release build.
const STACK_BYTES: usize = 2 << 20;
/// How much memory the process may ever have had.
const MEMORY_MAX_KIB: u64 = 512 * 1024;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Says so also where the test succeeds, whose output the test harness would keep to itself.
pub(crate) fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The largest amount of memory the process has had; `None` where the system does not say.
fn memory_peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// How long a core has worked for this thread; `None` where the system does not say.
fn thread_time() -> Option<Duration> {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    statistics.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Runs `check` within the bounds and returns how long it took. `what` names the input in messages.
pub(crate) fn in_bounds(what: &str, check: &(dyn Fn() + Sync)) -> Duration {
    let timed = || {
        let (start, worked) = (Instant::now(), thread_time());
        check();
        worked.and_then(|before| thread_time()?.checked_sub(before)).unwrap_or_else(|| start.elapsed())
    };
    let time = thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, timed);
        thread.expect("the system has threads").join()
    });
    let time = time.unwrap_or_else(|_| panic!("panic with {what}"));
    assert!(time <= TIME_MAX, "{what} takes {time:?}");
    if let Some(peak) = memory_peak_kib() {
        assert!(peak <= MEMORY_MAX_KIB, "with {what} the process needed {peak} KiB");
    }
    time
}

/// Where inputs are kept: only integration tests are told of a folder of their own.
fn folder() -> PathBuf {
    option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Runs a target. `input` makes an input of a seed's random choices; `check` must return for it, and says whether the
/// input was accepted. Both get the same random choices each time.
pub(crate) fn run<I: AsRef<[u8]> + Sync>(
    target: &str,
    input: &dyn Fn(&mut Random) -> I,
    check: &(dyn Fn(&I, &mut Random) -> bool + Sync),
) {
    let seed = number("FUZZ_SEED").unwrap_or(SEED_DEFAULT);
    let length = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(SECONDS_DEFAULT));
    let path = folder().join(format!("fuzz-{target}-{}.txt", std::process::id()));
    report(&format!("fuzz {target}: from FUZZ_SEED={seed} for {length:?}; the input at work is in {}", path.display()));
    let (start, mut count, mut accepted) = (Instant::now(), 0, 0u64);
    let mut slowest = (Duration::ZERO, seed);
    loop {
        let number = seed + count;
        let made = input(&mut Random::new(number));
        let bytes = made.as_ref();
        let what = format!("FUZZ_SEED={number} FUZZ_SECONDS=0, {} bytes, kept in {}", bytes.len(), path.display());
        let kept = [format!("FUZZ_SEED={number}\n").as_bytes(), bytes].concat();
        fs::write(&path, kept).expect("the folder can be written to");
        let is_accepted = AtomicBool::new(false);
        let once = || is_accepted.store(check(&made, &mut Random::new(!number)), Ordering::Relaxed);
        let time = in_bounds(&what, &once);
        slowest = slowest.max((time, number));
        accepted += u64::from(is_accepted.load(Ordering::Relaxed));
        count += 1;
        if start.elapsed() >= length {
            break;
        }
    }
    let peak = memory_peak_kib().map_or_else(|| "unknown".to_owned(), |peak| format!("{} MiB", peak / 1024));
    let (time, slow) = slowest;
    report(&format!(
        "fuzz {target}: {count} inputs, {accepted} accepted, slowest {time:?} (FUZZ_SEED={slow}), memory peak {peak}"
    ));
    let _ = fs::remove_file(&path);
}
