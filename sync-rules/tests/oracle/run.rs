//! Runs the cases of a family: compiles its rules, changes rows on both sides, and compares what each client sees.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use kairos_sync_rules::{Severity, compile};

use crate::{
    database::{Database, Read, Visible},
    engine::Engine,
    model::{Change, Numbers, Principal, Table, changes, schema},
    random::Random,
};

/// Where the cases of a run begin, unless `ORACLE_SEED` says.
const SEED_DEFAULT: u64 = 1;
/// How long a family runs, unless `ORACLE_CASES` says how many cases.
const TIME_DEFAULT: Duration = Duration::from_secs(8);
/// Clients are compared after this many changes, and after the last.
const CHANGES_BETWEEN_CHECKS: usize = 12;

/// A kind of rules.
pub(crate) struct Family {
    pub name: &'static str,
    pub table_count: usize,
    /// One of them is chosen for a case.
    pub numbers: &'static [Numbers],
    pub rules: fn(&mut Random, &[Table], Numbers) -> Rules,
    /// Codes of what the generator cannot avoid and the language refuses.
    pub expected_refusals: &'static [&'static str],
}

/// A rules file in parts, with the SQL that says the same.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub header: String,
    pub definitions: Vec<Definition>,
    /// Names clients can subscribe to.
    pub streams: Vec<String>,
}

/// A bucket definition or stream.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub yaml: String,
    pub reads: Vec<Read>,
}

/// A text as a YAML scalar.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON, and JSON text is YAML")
}

impl Rules {
    fn yaml(&self) -> String {
        self.definitions.iter().fold(self.header.clone(), |yaml, definition| yaml + &definition.yaml)
    }

    fn reads(&self) -> Vec<Read> {
        self.definitions.iter().flat_map(|definition| definition.reads.clone()).collect()
    }
}

#[derive(Debug, Clone)]
struct Case {
    schema: Vec<Table>,
    rules: Rules,
    changes: Vec<Change>,
    principals: Vec<Principal>,
}

/// How a case went.
enum Outcome {
    /// How often a client saw some rows and not all.
    Agreed {
        checks: usize,
        telling: usize,
    },
    Refused(&'static str),
    Differed(String),
}

impl Case {
    fn random(seed: u64, family: &Family) -> Self {
        let mut random = Random::new(seed);
        let schema = schema(&mut random, family.table_count);
        let numbers = *random.pick(family.numbers);
        let rules = (family.rules)(&mut random, &schema, numbers);
        let count = family.table_count * (6 + random.below(10));
        let changes = changes(&mut random, &schema, numbers, count);
        let principals = (0..4).map(|_| Principal::random(&mut random, numbers, &rules.streams)).collect();
        Self { schema, rules, changes, principals }
    }

    fn run(&self, family: &Family) -> Outcome {
        let yaml = self.rules.yaml();
        let compiled = compile(&yaml, "public");
        let findings: Vec<_> =
            compiled.diagnostics.iter().filter(|finding| finding.severity == Severity::Fatal).collect();
        let Some(plan) = compiled.plan else {
            let unexpected = findings.iter().find(|finding| !family.expected_refusals.contains(&finding.code));
            return match (unexpected, findings.first()) {
                (None, Some(finding)) => Outcome::Refused(finding.code),
                (Some(finding), _) => Outcome::Differed(finding.render("rules.yaml", &yaml)),
                (None, None) => Outcome::Differed("refused without a finding".to_owned()),
            };
        };
        let mut engine = Engine::new(&plan, &self.schema);
        let database = Database::new(&self.schema);
        let reads = self.rules.reads();
        let (mut checks, mut telling) = (0, 0);
        for (number, change) in self.changes.iter().enumerate() {
            database.apply(change);
            if let Err(message) = engine.apply(change) {
                return Outcome::Differed(message);
            }
            if (number + 1) % CHANGES_BETWEEN_CHECKS != 0 && number + 1 != self.changes.len() {
                continue;
            }
            let seen: Vec<_> = self.principals.iter().map(|principal| database.visible(&reads, principal)).collect();
            for (principal, expected) in self.principals.iter().zip(&seen) {
                let found = engine.visible(principal);
                if found.as_ref() != Ok(expected) {
                    return Outcome::Differed(difference(number, principal, expected, &found));
                }
                checks += 1;
                telling += usize::from(!expected.is_empty() && seen.iter().any(|other| other != expected));
            }
        }
        Outcome::Agreed { checks, telling }
    }

    /// The smallest case that still differs, by leaving out parts one at a time.
    fn shrunk(mut self, family: &Family) -> Self {
        let differs = |case: &Self| matches!(case.run(family), Outcome::Differed(_));
        loop {
            let before = self.size();
            self = without_parts(self, |case| &mut case.principals, &differs);
            self = without_parts(self, |case| &mut case.rules.definitions, &differs);
            self = without_parts(self, |case| &mut case.changes, &differs);
            if self.size() == before {
                return self;
            }
        }
    }

    fn size(&self) -> [usize; 3] {
        [self.principals.len(), self.rules.definitions.len(), self.changes.len()]
    }

    fn describe(&self) -> String {
        let mut text = format!("{}\n", self.rules.yaml());
        for read in self.rules.reads() {
            let _ = writeln!(text, "{}", read.sql);
        }
        for change in &self.changes {
            let _ = match change {
                Change::Delete { table, id } => writeln!(text, "delete {} {}", self.schema[*table].name, id.literal()),
                Change::Put { table, row } => {
                    let table = &self.schema[*table];
                    let cell = |(name, value): (&str, &crate::model::Value)| format!("{name} {}", value.literal());
                    let cells: Vec<_> = table.columns().zip(row).map(cell).collect();
                    writeln!(text, "put {}: {}", table.name, cells.join(", "))
                }
            };
        }
        text
    }
}

fn without_parts<T>(mut case: Case, parts: fn(&mut Case) -> &mut Vec<T>, differs: &dyn Fn(&Case) -> bool) -> Case {
    for index in (0..parts(&mut case).len()).rev() {
        if parts(&mut case).len() == 1 {
            break;
        }
        let mut smaller = case.clone();
        parts(&mut smaller).remove(index);
        if differs(&smaller) {
            case = smaller;
        }
    }
    case
}

fn difference(change: usize, principal: &Principal, expected: &Visible, found: &Result<Visible, String>) -> String {
    let after = format!("after change {}, for {principal:?}", change + 1);
    match found {
        Err(error) => format!("{after}: the engine fails: {error}"),
        Ok(found) => {
            let missing: Vec<_> = expected.difference(found).collect();
            let surplus: Vec<_> = found.difference(expected).collect();
            format!("{after}: hidden by mistake {missing:?}, shown by mistake {surplus:?}")
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Says so also where the test succeeds, whose output the harness would keep to itself.
fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs a family; `ORACLE_SEED` and `ORACLE_CASES` replay a case or run longer.
pub(crate) fn check(family: &Family) {
    let seed = number("ORACLE_SEED").unwrap_or(SEED_DEFAULT);
    let count = number("ORACLE_CASES");
    let start = Instant::now();
    let (mut cases, mut accepted, mut all_checks, mut all_telling) = (0u64, 0u64, 0, 0);
    let mut refusals = std::collections::BTreeMap::<_, u64>::new();
    while count.map_or_else(|| start.elapsed() < TIME_DEFAULT, |count| cases < count) {
        let case = Case::random(seed + cases, family);
        match case.run(family) {
            Outcome::Refused(code) => *refusals.entry(code).or_default() += 1,
            Outcome::Agreed { checks, telling } => {
                accepted += 1;
                all_checks += checks;
                all_telling += telling;
            }
            Outcome::Differed(_) => {
                let case = case.shrunk(family);
                let Outcome::Differed(difference) = case.run(family) else { unreachable!("it differed before") };
                let replay = format!("ORACLE_SEED={} ORACLE_CASES=1", seed + cases);
                panic!("{}: {replay}\n\n{}\n{difference}", family.name, case.describe());
            }
        }
        cases += 1;
    }
    report(&format!(
        "{}: {cases} cases from seed {seed}, {accepted} accepted, refused {refusals:?}; {all_checks} checks, \
         {all_telling} of them with rows that not every client sees",
        family.name
    ));
    // A single case, as in a replay, may be a refused one.
    if cases >= 20 {
        assert!(accepted * 100 >= cases * 60, "{}: most generated rules are refused", family.name);
        assert!(all_telling * 100 >= all_checks * 10, "{}: most checks say nothing", family.name);
    }
}
