//! A thousand damages to the files of a store: each is noticed when the store is opened, read or verified, or changes
//! nothing. What is compared is all that can be asked of a store, against the store as it was.
//!
//! `DAMAGE_SEED=n DAMAGE_CASES=1` replays a case, `DAMAGE_CASES=20000` runs longer.

use std::{collections::BTreeMap, env, fmt::Debug, fs};

use bytes::Bytes;
use kairos_sync_protocol::{Checksum, WriteCheckpointId};
use tempfile::TempDir;

use super::{
    super::{Dependency, DeploymentNumber, NewOperation, RowOutput, Verification},
    *,
};
use crate::fuzz::Random;

const CASES: u64 = 1_000;
const BUCKETS: usize = 12;
const LOOKUPS: usize = 8;
const FILE: &str = "buckets.sqlite3";
const LOG: &str = "buckets.sqlite3-wal";

/// What a store answers, by question; errors by their code.
type Answers = BTreeMap<String, Result<String, &'static str>>;

fn options() -> SqliteOptions {
    SqliteOptions {
        straight: StraightLimits { chunk_bytes: 4_000, row_bytes: 20_000 },
        compaction: CompactionOptions { growth_min: 50, growth_percent: 10, rewrite_percent: 50, bytes_per_second: 0 },
        ..SqliteOptions::default()
    }
}

fn bucket(number: usize) -> BucketName {
    BucketName::new(format!("todos[\"user {number}\"]"))
}

fn lookup(number: usize) -> LookupKey {
    LookupKey(format!("[\"lookup {number}\"]").into())
}

fn key(number: usize) -> RowKey {
    RowKey {
        table: TableId(u32::try_from(number % 3).unwrap()),
        identity: format!("row {number:06}").as_bytes().into(),
    }
}

/// A transaction of the source, as replication hands it to the store.
fn batch(random: &mut Random, row_count: usize) -> Batch {
    let mut batch = Batch { visible_at: Some(Lsn::new(random.next() >> 8)), ..Batch::default() };
    let mut rows = BTreeMap::new();
    for _ in 0..row_count {
        let number = random.below(400);
        let of = bucket(number % BUCKETS);
        let output = RowOutput { bucket: of, object_type: "todos".into(), object_id: number.to_string().into() };
        let data = random.chance(80).then(|| format!(r#"{{"id":"{number}","title":"{:032x}"}}"#, random.next()));
        batch.operations.push(NewOperation {
            output: output.clone(),
            subkey: "k".into(),
            checksum: Checksum::from_bits(u32::try_from(random.next() >> 32).unwrap()),
            data: data.as_deref().map(Into::into),
        });
        let image = data.map(|data| StoredRow {
            image: Bytes::from(data),
            outputs: vec![output],
            lookups: vec![(lookup(number % LOOKUPS), LookupValue("v".into()))],
            consulted: vec![lookup(0)],
        });
        let value = LookupValue(random.next().to_string().into());
        batch.lookups.push((lookup(number % LOOKUPS), key(number), vec![value]));
        batch.dependents.push((lookup(number % LOOKUPS), key(number), Dependency::Added));
        rows.insert(key(number), image);
    }
    batch.rows = rows.into_iter().collect();
    batch.replication_state = Some(Bytes::from(random.next().to_le_bytes().to_vec()));
    batch.rules = Some(StoredRules { serving: DeploymentNumber(1), state: Bytes::from_static(b"rules") });
    let id = WriteCheckpointId::new(1 + random.next() % 1_000).unwrap();
    batch.write_checkpoints = vec![(WriteCheckpointKey(format!("user {}", random.below(5))), id)];
    batch
}

/// A store with something in every table.
fn fill(store: &SqliteStore, random: &mut Random) {
    for round in 0..40 {
        let count = if round % 10 == 0 { 150 } else { 20 };
        store.commit(batch(random, count)).unwrap();
        if round % 10 == 5 {
            store.inner.fold().unwrap();
            while store.compact().unwrap() {}
        }
    }
}

fn answer<T: Debug>(answers: &mut Answers, question: impl Into<String>, answer: Result<T, StorageError>) {
    let answer = answer.map(|answer| format!("{answer:?}")).map_err(|error| error.code());
    answers.insert(question.into(), answer);
}

/// Everything that can be asked.
fn answers(store: &SqliteStore) -> Answers {
    let mut all = Answers::new();
    let mut upto = OpId::ZERO;
    match store.view() {
        Ok(view) => {
            upto = view.checkpoint().map(|checkpoint| checkpoint.op_id).unwrap_or_default();
            answer(&mut all, "view", Ok((view.checkpoint(), view.bucket_prefix(), view.serving())));
            (0..BUCKETS).for_each(|number| answer(&mut all, format!("totals {number}"), view.bucket(&bucket(number))));
            (0..LOOKUPS).for_each(|number| answer(&mut all, format!("lookup {number}"), view.lookup(&lookup(number))));
        }
        Err(error) => answer::<()>(&mut all, "view", Err(error)),
    }
    for number in 0..BUCKETS {
        let mut operations = Vec::new();
        let mut after = OpId::ZERO;
        let read = loop {
            match store.operations(&bucket(number), after, upto, 3_000) {
                Ok(range) => {
                    operations.push((range.json, range.valid_from));
                    if !range.has_more {
                        break Ok(operations);
                    }
                    after = range.last_op_id;
                }
                Err(error) => break Err(error),
            }
        };
        answer(&mut all, format!("operations {number}"), read);
    }
    for number in 0..400 {
        answer(&mut all, format!("row {number}"), store.row(&key(number)));
    }
    for table in 0..3 {
        answer(&mut all, format!("table {table}"), store.rows_of_table(TableId(table), None, 1_000));
    }
    for number in 0..LOOKUPS {
        answer(&mut all, format!("entries {number}"), store.lookup_entries(&lookup(number)));
        answer(&mut all, format!("dependents {number}"), store.dependents(&lookup(number), None, 1_000));
    }
    for number in 0..5 {
        let key = WriteCheckpointKey(format!("user {number}"));
        answer(&mut all, format!("write checkpoint {number}"), store.write_checkpoint(&key));
    }
    answer(&mut all, "replication", store.replication_state());
    answer(&mut all, "rules", store.rules());
    all
}

/// How a damage came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Harmless,
    FoundOnOpening,
    FoundOnReading,
    /// Whoever reads gets what was written.
    FoundByVerify,
    /// Replication would find a row, or who depends on one, missing; clients get what was written.
    OnlyVerifyKnows,
}

/// What became of a store with these files.
fn fate(files: &[(&str, Vec<u8>)], expected: &Answers, case: &str) -> Fate {
    let put = || {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    };
    let folder = put();
    let found = Verification::of(folder.path(), &mut |_| {});
    let is_found = found.as_ref().map_or(true, |found| !found.is_whole());
    let folder = put();
    let Ok(store) = SqliteStore::open(folder.path(), options()) else {
        assert!(is_found, "{case}: the store cannot be opened, and verify finds nothing");
        return Fate::FoundOnOpening;
    };
    let answers = answers(&store);
    let differing: Vec<_> = expected
        .iter()
        .filter(|(question, of)| answers.get(*question) != Some(of))
        .map(|(question, _)| question)
        .collect();
    let silent: Vec<_> =
        differing.iter().filter(|question| answers.get(**question).is_none_or(Result::is_ok)).collect();
    // A store that begins anew has other names for its buckets, so nothing of it is mistaken for what was.
    let is_new = answers.get("view").is_some_and(|view| view.as_ref().is_ok_and(|view| view.starts_with("(None")));
    if differing.is_empty() {
        return if is_found { Fate::FoundByVerify } else { Fate::Harmless };
    }
    assert!(is_found || is_new, "{case}: nobody notices that {differing:?} differ");
    match (silent.is_empty(), is_new) {
        (true, _) => Fate::FoundOnReading,
        (false, true) => Fate::FoundOnOpening,
        (false, false) => {
            let of_clients = ["view", "totals", "lookup", "operations", "write checkpoint"];
            let told = |question: &&&&String| of_clients.iter().any(|of| question.starts_with(of));
            let to_clients: Vec<_> = silent.iter().filter(told).collect();
            assert!(to_clients.is_empty(), "{case}: clients would get other {to_clients:?}");
            Fate::OnlyVerifyKnows
        }
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs the cases with `damage`, which changes the files and says how; how many had each fate.
fn run(
    folder: &TempDir,
    names: &[&'static str],
    expected: &Answers,
    mut damage: impl FnMut(&mut Random, &mut Vec<(&'static str, Vec<u8>)>) -> String,
) -> BTreeMap<Fate, u64> {
    let read = |name: &&'static str| (*name, fs::read(folder.path().join(name)).unwrap());
    let intact: Vec<_> = names.iter().map(read).collect();
    let mut fates = BTreeMap::new();
    let first = number("DAMAGE_SEED").unwrap_or(1);
    for seed in first..first + number("DAMAGE_CASES").unwrap_or(CASES) {
        let mut files = intact.clone();
        let case = damage(&mut Random::new(seed), &mut files);
        let case = format!("DAMAGE_SEED={seed} ({case})");
        *fates.entry(fate(&files, expected, &case)).or_default() += 1;
    }
    println!("{fates:?}");
    fates
}

fn flip(random: &mut Random, bytes: &mut [u8]) -> String {
    let at = random.below(bytes.len());
    let bit = random.below(8);
    bytes[at] ^= 1 << bit;
    format!("bit {bit} of byte {at} of {}", bytes.len())
}

#[test]
fn a_thousand_damages_are_noticed_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    fill(&SqliteStore::open(folder.path(), options()).unwrap(), &mut Random::new(7));
    let found = Verification::of(folder.path(), &mut |_| {}).unwrap();
    assert!(found.is_whole(), "{found:?}");
    assert!(found.chunk_count > 0 && found.row_count > 0 && found.lookup_count > 0 && found.dependent_count > 0);
    let expected = answers(&SqliteStore::open(folder.path(), options()).unwrap());
    assert!(expected.values().all(Result::is_ok));
    let fates = run(&folder, &[FILE], &expected, |random, files| {
        let bytes = &mut files[0].1;
        if random.chance(90) {
            return flip(random, bytes);
        }
        bytes.truncate(random.below(bytes.len()));
        format!("cut to {} bytes", bytes.len())
    });
    let count = |fate| fates.get(&fate).copied().unwrap_or_default();
    assert!(count(Fate::FoundOnReading) > count(Fate::FoundByVerify), "most of a file is read and compared");
}

/// A store that was killed has its newest commits in the log. What is damaged there and all after it are no commits: the
/// store is as it was before them, which replication notices by the slot, being ahead.
#[test]
fn a_damaged_log_gives_the_state_of_an_earlier_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), options()).unwrap();
    let mut random = Random::new(8);
    fill(&store, &mut random);
    drop(store);
    let store = SqliteStore::open(folder.path(), options()).unwrap();
    let mut states = vec![answers(&store)];
    for _ in 0..10 {
        store.commit(batch(&mut random, 20)).unwrap();
        states.push(answers(&store));
    }
    let [file, log] = [FILE, LOG].map(|name| fs::read(folder.path().join(name)).unwrap());
    let mut seen = vec![0; states.len()];
    for seed in 1..=CASES / 5 {
        let mut log = log.clone();
        let case = flip(&mut Random::new(seed), &mut log);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), &file).unwrap();
        fs::write(folder.path().join(LOG), &log).unwrap();
        let store = SqliteStore::open(folder.path(), options()).unwrap();
        let found = answers(&store);
        let state = states.iter().position(|state| *state == found);
        seen[state.unwrap_or_else(|| panic!("seed {seed}, {case}: a state that never was"))] += 1;
    }
    assert!(seen[0] > 0 && seen[states.len() - 2] > 0, "{seen:?}");
}
