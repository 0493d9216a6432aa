//! The embedded store beside engines that could take its place: the same changes, each commit synced, caches of the same
//! size, each engine in processes and folders of its own. Phase by phase, the engines in turns, since machines change
//! their pace.
//!
//! The others do less: they keep no totals of buckets and no sums of records, and compact no operations.

mod engine;
mod fjall_engine;
mod killed;
mod our_store;
mod phases;
mod plain_sqlite;
mod redb_engine;
#[cfg(test)]
mod tests;
mod workload;

use std::{
    error::Error,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use self::{
    engine::{Kind, Outcome},
    phases::{CommitScope, Measured},
};

/// Rows of the large table, unless an argument says otherwise.
pub(crate) const ROW_COUNT: u32 = 500_000;

/// Says to this program that it is to run one phase with one engine and tell its figures.
pub(crate) const PHASE: &str = "engine-phase";

const COMMITS: [CommitScope; 3] = [
    CommitScope { operations: 1, commits: 3_000, time: Duration::from_secs(5) },
    CommitScope { operations: 100, commits: 800, time: Duration::from_secs(8) },
    CommitScope { operations: 2_000, commits: 60, time: Duration::from_secs(12) },
];
/// How often each store is killed.
const KILLS: usize = 4;

/// What one engine says of a phase.
type Told = Vec<(String, f64)>;

/// Compares all engines; the large table has so many rows.
pub(crate) fn measure(row_count: u32) -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir_in(".")?;
    let folder = |kind: Kind, phase: &str| scratch.path().join(format!("{phase}-{}", kind.name()));
    let mut turns = Turns(0);
    print_header()?;
    for (number, scope) in COMMITS.iter().enumerate() {
        let phase = format!("commits of {}", scope.operations);
        turns.compare(&phase, |kind| run(kind, "commits", &folder(kind, &phase), &[&number.to_string()]))?;
    }
    // Those commits have most operations.
    turns.compare("buckets", |kind| run(kind, "reads", &folder(kind, "commits of 2000"), &[]))?;
    let rows = row_count.to_string();
    turns.compare(&format!("{rows} rows copied"), |kind| run(kind, "copy", &folder(kind, "rows"), &[&rows]))?;
    turns.compare("updates of 100 of them", |kind| run(kind, "updates", &folder(kind, "rows"), &[&rows]))?;
    turns.compare("that store, closed and opened", |kind| run(kind, "reopen", &folder(kind, "rows"), &[]))?;
    turns.compare(&format!("killed {KILLS} times"), |kind| kill(kind, &folder(kind, "killed")))
}

/// Runs the phase that the arguments name.
pub(crate) fn phase(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [phase, kind, folder, rest @ ..] = arguments else { return Err("no phase, engine and folder".into()) };
    let (kind, folder) = (Kind::named(kind).ok_or("no such engine")?, Path::new(folder));
    fs::create_dir_all(folder)?;
    let number = || Ok::<_, Box<dyn Error>>(rest.first().ok_or("a number is missing")?.parse::<u32>()?);
    let measured: Measured = match phase.as_str() {
        "commits" => {
            let scope = COMMITS.get(number()? as usize).ok_or("no such scope")?;
            phases::commits(kind, folder, *scope)?
        }
        "reads" => phases::reads(kind, folder)?,
        "copy" => phases::copy(kind, folder, number()?)?,
        "updates" => phases::updates(kind, folder, number()?)?,
        "reopen" => phases::reopen(kind, folder)?,
        "load" => killed::load(kind, folder)?,
        "check" => killed::check(kind, folder, u64::from(number()?))?,
        _ => return Err("no such phase".into()),
    };
    let mut out = std::io::stdout().lock();
    measured.iter().try_for_each(|(name, value)| Ok(writeln!(out, "{name}\t{value}")?))
}

fn child(kind: Kind, phase: &str, folder: &Path, arguments: &[&str]) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([PHASE, phase, kind.name()]).arg(folder).args(arguments).stderr(Stdio::inherit());
    Ok(command)
}

fn run(kind: Kind, phase: &str, folder: &Path, arguments: &[&str]) -> Outcome<Told> {
    let output = child(kind, phase, folder, arguments)?.output()?;
    if !output.status.success() {
        return Err(format!("{} failed in phase {phase}: {}", kind.name(), output.status).into());
    }
    let told = String::from_utf8(output.stdout)?;
    told.lines()
        .map(|line| {
            let (name, value) = line.split_once('\t').ok_or_else(|| format!("not understood: {line}"))?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// Kills the engine's process again and again, in one folder.
fn kill(kind: Kind, folder: &Path) -> Outcome<Told> {
    let (mut readable, mut position) = (Vec::new(), 0.0);
    for _ in 0..KILLS {
        let acknowledged = killed::kill(child(kind, "load", folder, &[])?.stdout(Stdio::piped()).spawn()?)?;
        let told = run(kind, "check", folder, &[&acknowledged.to_string()])?;
        let [(_, milliseconds), (_, reached)] = told[..] else { return Err("not understood".into()) };
        readable.push(milliseconds);
        position = reached;
    }
    readable.sort_unstable_by(f64::total_cmp);
    Ok(vec![
        ("until the last commit is read, median, ms".to_owned(), readable[KILLS / 2]),
        ("the longest of them, ms".to_owned(), readable[KILLS - 1]),
        ("commits of 100 kept in all, none lost".to_owned(), position),
    ])
}

/// Who begins a phase: each engine once, since a machine changes its pace.
struct Turns(usize);

impl Turns {
    /// Prints what each engine tells of a phase, with its ratio to ours.
    fn compare(&mut self, phase: &str, tell: impl Fn(Kind) -> Outcome<Told>) -> Outcome<()> {
        let mut told: Vec<Told> = vec![Vec::new(); Kind::ALL.len()];
        for turn in 0..told.len() {
            let at = (self.0 + turn) % told.len();
            writeln!(std::io::stderr(), "engines: {phase}: {}", Kind::ALL[at].name())?;
            told[at] = tell(Kind::ALL[at])?;
        }
        self.0 += 1;
        let mut out = std::io::stdout().lock();
        for (at, (name, ours)) in told[0].iter().enumerate() {
            write!(out, "| {phase}: {name} | {}", plain(*ours))?;
            for other in &told[1..] {
                let (_, value) = other.get(at).ok_or("an engine has told less than another")?;
                write!(out, " | {} ({:.2})", plain(*value), value / ours)?;
            }
            writeln!(out, " |")?;
        }
        Ok(())
    }
}

fn print_header() -> Outcome<()> {
    let names = Kind::ALL.map(Kind::name).join(" | ");
    let mut out = std::io::stdout().lock();
    writeln!(out, "| In brackets the ratio to ours | {names} |")?;
    Ok(writeln!(out, "| --- |{}", " --- |".repeat(Kind::ALL.len()))?)
}

fn plain(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
