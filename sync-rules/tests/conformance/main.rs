//! The public conformance cases: the same rules, rows and requests must give the same buckets as PowerSync's service.
//!
//! `cases/` holds inputs, `expected/` the results, a file per area; both are lines of JSON. Every case must agree at
//! every level, except those tagged `quirk` (they depend on the reference's host language), the area of an experimental
//! option, and those in `deviations.txt`. A listed case that agrees is a fault as well, so that the lists stay true.

mod compare;
mod lists;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use compare::{CaseResult, Level, difference};
use kairos_sync_rules::eval_case;
use lists::Lists;
use serde::Deserialize;
use serde_json::Value;

/// Covers an experimental option of the reference, which runs expressions in a real SQLite.
const OPTIONAL_AREA: &str = "sqlite-engine";

/// Faults shown with both results; the others are only named.
const SHOWN_MAX: usize = 10;

/// What the test needs to know of a case.
#[derive(Deserialize)]
struct Case {
    id: String,
    #[serde(default)]
    tags: BTreeSet<String>,
}

/// A line of the table.
#[derive(Default)]
struct Counts {
    cases: usize,
    /// By level, the cases that agree.
    equal: BTreeMap<Level, usize>,
    quirks: usize,
    deviations: usize,
    pending: usize,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

/// The areas, sorted.
fn areas() -> Vec<String> {
    let file_stem = |entry: io::Result<fs::DirEntry>| {
        let path = entry.expect("readable").path();
        path.file_stem().expect("a file has a name").to_str().expect("areas are ASCII").to_owned()
    };
    let mut areas: Vec<_> = fs::read_dir(folder().join("cases")).expect("the folder exists").map(file_stem).collect();
    areas.sort_unstable();
    areas
}

fn lines(part: &str, area: &str) -> Vec<String> {
    let file = folder().join(part).join(format!("{area}.jsonl"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_case_gives_the_expected_result() {
    let lists = Lists::read(&folder());
    let mut ids = BTreeSet::new();
    let mut table = Vec::new();
    let mut faults = Vec::new();
    for area in areas() {
        let counts = run_area(&area, &lists, &mut ids, &mut faults);
        table.push((area, counts));
    }
    faults.extend(lists.unknown(&ids).into_iter().map(|id| format!("{id} is listed, but there is no such case")));
    // Written past the test harness, which would keep it to itself.
    let _ = io::stderr().write_all(print(&table).as_bytes());
    assert!(!ids.is_empty(), "there are no cases");
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

/// Runs the cases of an area; adds what is wrong to `faults`.
fn run_area(area: &str, lists: &Lists, ids: &mut BTreeSet<String>, faults: &mut Vec<String>) -> Counts {
    let mut counts = Counts::default();
    let (cases, expectations) = (lines("cases", area), lines("expected", area));
    assert_eq!(cases.len(), expectations.len(), "{area}: a result per case");
    for (line, expected_line) in cases.iter().zip(&expectations) {
        let case: Case = serde_json::from_str(line).expect("a case");
        let actual_line = eval_case::run(line).unwrap_or_else(|error| panic!("{}: {error}", case.id));
        let read = |line: &str| serde_json::from_str::<CaseResult>(line).expect("a result");
        let (expected, actual) = (read(expected_line), read(&actual_line));
        assert_eq!((&expected.id, &actual.id), (&case.id, &case.id), "results are in the order of cases");
        assert!(ids.insert(case.id.clone()), "{} occurs twice", case.id);

        let difference = difference(&expected, &actual);
        let is_quirk = case.tags.contains("quirk");
        counts.add(difference, is_quirk, &case.id, lists);
        if is_quirk || area == OPTIONAL_AREA {
            continue;
        }
        if let Some(fault) = lists.fault(&case.id, difference) {
            let shown = difference.filter(|_| faults.len() < SHOWN_MAX);
            let results =
                shown.map_or_else(String::new, |_| format!("\n  expected {expected_line}\n  actual   {actual_line}"));
            faults.push(format!("{} {fault}{results}", case.id));
        }
    }
    counts
}

impl Counts {
    fn add(&mut self, difference: Option<Level>, is_quirk: bool, id: &str, lists: &Lists) {
        self.cases += 1;
        for level in Level::ALL.into_iter().filter(|level| difference.is_none_or(|first| *level < first)) {
            *self.equal.entry(level).or_default() += 1;
        }
        self.quirks += usize::from(is_quirk);
        self.deviations += usize::from(lists.deviates(id));
        self.pending += usize::from(lists.is_pending(id));
    }

    fn columns(&self) -> [usize; 7] {
        let [visible, buckets, exact] = Level::ALL.map(|level| self.equal.get(&level).copied().unwrap_or(0));
        [self.cases, visible, buckets, exact, self.quirks, self.deviations, self.pending]
    }
}

fn print(table: &[(String, Counts)]) -> String {
    let mut out = format!("\n{:26}", "area");
    for name in ["cases", "visible", "buckets", "exact", "quirks", "deviations", "pending"] {
        let _ = write!(out, "{name:>11}");
    }
    let mut sum = [0; 7];
    for (area, counts) in table {
        let columns = counts.columns();
        sum.iter_mut().zip(columns).for_each(|(sum, count)| *sum += count);
        write_row(&mut out, area, columns);
    }
    write_row(&mut out, "all", sum);
    out + "\n"
}

fn write_row(out: &mut String, name: &str, columns: [usize; 7]) {
    let _ = write!(out, "\n{name:26}");
    for count in columns {
        let _ = write!(out, "{count:>11}");
    }
}

#[test]
fn results_are_canonical_and_repeat() {
    for line in areas().iter().flat_map(|area| lines("cases", area)) {
        let result = eval_case::run(&line).expect("a case");
        let value: Value = serde_json::from_str(&result).expect("a result is JSON");
        assert_eq!(canonical(&value), result);
        assert_eq!(eval_case::run(&line).expect("a case"), result, "the same case gives the same result");
    }
}

/// JSON with sorted keys and no blanks. The keys of a result are ASCII, where every order of text is the same.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().collect();
            let member =
                |(name, value): (&String, &Value)| format!("{}:{}", Value::from(name.as_str()), canonical(value));
            format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}
