//! Blocks of rows that are damaged on the disk, and dropped as replication does it: together with their tables.
//!
//! Bits are flipped in the file of a store that nobody has open. `MENDING_SEED=n MENDING_CASES=1` replays a case.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{mending_tests::number, *};
use crate::fuzz::Random;

const FILE: &str = "buckets.sqlite3";
const TABLES: u32 = 3;
/// For what the thread that scrubs does.
const PATIENCE: Duration = Duration::from_secs(30);

type Rows = BTreeMap<RowKey, String>;

fn options(scrub_bytes_per_second: u64) -> SqliteOptions {
    SqliteOptions {
        fold_operations: usize::MAX,
        straight: StraightLimits { chunk_bytes: usize::MAX, row_bytes: 20_000 },
        compaction: CompactionOptions { bytes_per_second: 0, ..CompactionOptions::default() },
        scrub_bytes_per_second,
        ..SqliteOptions::default()
    }
}

fn below(random: &mut Random, bound: u32) -> u32 {
    u32::try_from(random.below(bound as usize)).unwrap()
}

fn key(table: u32, number: u32) -> RowKey {
    RowKey { table: TableId(table), identity: number.to_be_bytes().into() }
}

/// A store with several runs, one of them merged, rows that are gone, and some in the tail; and what it has.
fn filled(folder: &TempDir) -> Rows {
    let store = SqliteStore::open(folder.path(), options(0)).unwrap();
    let (mut random, mut rows) = (Random::new(7), Rows::new());
    for round in 0..8 {
        let mut changed = BTreeMap::new();
        for _ in 0..if round == 7 { 10 } else { 700 } {
            let [table, number] = [TABLES, 1_500].map(|bound| below(&mut random, bound));
            let key = key(1 + table, number);
            let image = format!("{:016x}", random.next()).repeat(10);
            changed.insert(key, (random.below(6) > 0).then_some(image));
        }
        for (key, image) in &changed {
            match image {
                Some(image) => drop(rows.insert(key.clone(), image.clone())),
                None => drop(rows.remove(key)),
            }
        }
        let row = |image: String| StoredRow { image: image.into(), ..StoredRow::default() };
        let changed = changed.into_iter().map(|(key, image)| (key, image.map(row))).collect();
        let dependents = vec![(LookupKey("l".into()), key(1 + round % TABLES, round), super::super::Dependency::Added)];
        store.commit(Batch { rows: changed, dependents, ..Batch::default() }).unwrap();
        if round == 3 {
            store.inner.merge_runs().unwrap();
        }
    }
    assert!(store.inner.runs.list().len() > 2);
    rows
}

/// Every row, as one by one and as pages of tables give it.
fn read(store: &SqliteStore, tables: &BTreeSet<u32>) -> Result<Rows, StorageError> {
    let mut rows = Rows::new();
    for table in tables {
        for (key, row) in store.stored_rows(TableId(*table), None, usize::MAX, usize::MAX)? {
            rows.insert(key, String::from_utf8(row.image.to_vec()).unwrap());
        }
        let keys = store.rows_of_table(TableId(*table), None, usize::MAX)?;
        assert!(keys.iter().eq(rows.keys().filter(|key| key.table.0 == *table)));
        for number in 0..1_500 {
            let key = key(*table, number);
            assert_eq!(store.row(&key)?.is_some(), rows.contains_key(&key));
        }
    }
    Ok(rows)
}

fn all() -> BTreeSet<u32> {
    (1..=TABLES).collect()
}

/// Drops what is lost. Gives the tables that are whole.
fn drop_lost(store: &SqliteStore) -> BTreeSet<u32> {
    let lost = store.lost_rows().unwrap();
    let is_whole = |table: &u32| !lost.iter().any(|ids| ids.contains(&TableId(*table)));
    store.drop_lost_rows().unwrap();
    all().into_iter().filter(is_whole).collect()
}

fn of_tables(rows: &Rows, tables: &BTreeSet<u32>) -> Rows {
    rows.iter().filter(|(key, _)| tables.contains(&key.table.0)).map(|(key, row)| (key.clone(), row.clone())).collect()
}

fn damage(folder: &TempDir, block: &str) {
    let conn = Connection::open(folder.path().join(FILE)).unwrap();
    let sql = format!("UPDATE row_block SET block = zeroblob(length(block)) WHERE id = ({block})");
    assert_eq!(conn.execute(&sql, []).unwrap(), 1);
}

#[test]
fn only_the_tables_of_a_damaged_block_lose_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rows = filled(&folder);
    damage(
        &folder,
        "SELECT block_id FROM row_place WHERE table_id = 2 ORDER BY run_id DESC, identity LIMIT 1 OFFSET 1",
    );
    let found = Verification::of(folder.path(), &mut |_| {}).unwrap();
    assert_eq!((found.damage_count, found.row_damage_count), (1, 1), "{found:?}");
    let store = SqliteStore::open(folder.path(), options(0)).unwrap();
    assert_eq!((store.lost_rows().unwrap(), store.check_rows().is_ok()), (vec![], true), "nobody has met it");
    assert_eq!(read(&store, &all()).unwrap_err().code(), "STORE-0109");
    assert_eq!(store.check_rows().unwrap_err().code(), "STORE-0109");
    assert!(store.damages().unwrap().has_damaged_rows && store.stats().unwrap().has_damaged_rows);
    let whole = drop_lost(&store);
    assert_eq!(whole, BTreeSet::from([1, 3]));
    assert_eq!(read(&store, &whole).unwrap(), of_tables(&rows, &whole));
    assert!(store.check_rows().is_ok() && store.damages().unwrap().is_empty());
    let rest = read(&store, &all()).unwrap();
    assert!(rest.len() > of_tables(&rows, &whole).len(), "the other blocks of the table are there");
    assert_eq!(store.stats().unwrap().row_count, rest.len() as u64);
    store.inner.merge_all_runs().unwrap();
    assert_eq!(read(&store, &all()).unwrap(), rest);
    drop(store);
    let found = Verification::of(folder.path(), &mut |_| {}).unwrap();
    assert!(found.is_whole() && found.row_count == rest.len() as u64, "{found:?}");
}

#[test]
fn a_merge_and_the_scrub_find_what_nobody_reads() {
    for scrub_bytes_per_second in [0, 1 << 30] {
        let folder = tempfile::tempdir().unwrap();
        filled(&folder);
        damage(&folder, "SELECT max(id) FROM row_block");
        let store = SqliteStore::open(folder.path(), options(scrub_bytes_per_second)).unwrap();
        if scrub_bytes_per_second == 0 {
            assert_eq!(store.inner.merge_all_runs().unwrap_err().code(), "STORE-0109");
        }
        let started = Instant::now();
        while store.check_rows().is_ok() {
            assert!(started.elapsed() < PATIENCE, "it was not found");
            thread::sleep(Duration::from_millis(5));
        }
        drop_lost(&store);
        store.inner.merge_all_runs().unwrap();
        drop(store);
        assert!(Verification::of(folder.path(), &mut |_| {}).unwrap().is_whole());
    }
}

/// Where a flip is found, rows of other tables are as they were, and the store is whole once what is lost is dropped; or
/// all is to be thrown away, and says so.
#[test]
fn any_flipped_bit_costs_the_rows_of_its_tables_or_is_named() {
    let original = tempfile::tempdir().unwrap();
    let rows = filled(&original);
    let bytes = fs::read(original.path().join(FILE)).unwrap();
    let first = number("MENDING_SEED", 1);
    let (mut dropped, mut refused) = (0, 0);
    for seed in first..first + number("MENDING_CASES", 100) {
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = bytes.clone();
        let (at, bit) = (random.below(bytes.len()), random.below(8));
        println!("MENDING_SEED={seed}: bit {bit} of byte {at}");
        bytes[at] ^= 1 << bit;
        fs::write(folder.path().join(FILE), &bytes).unwrap();
        let Ok(store) = SqliteStore::open(folder.path(), options(0)) else {
            refused += 1;
            continue;
        };
        match read(&store, &all()) {
            Ok(found) => {
                assert!(found == rows || found.is_empty(), "MENDING_SEED={seed}: rows are others");
                continue;
            }
            Err(StorageError::RowsDamaged { .. }) => {}
            Err(_) => {
                refused += 1;
                continue;
            }
        }
        if let Err(error) = store.lost_rows() {
            assert_eq!(error.code(), "STORE-0104", "MENDING_SEED={seed}");
            refused += 1;
            continue;
        }
        let whole = drop_lost(&store);
        assert_eq!(read(&store, &whole).unwrap(), of_tables(&rows, &whole), "MENDING_SEED={seed}");
        read(&store, &all()).unwrap();
        drop(store);
        let found = Verification::of(folder.path(), &mut |_| {}).unwrap();
        assert!(found.is_whole(), "MENDING_SEED={seed}: {found:?}");
        dropped += 1;
    }
    println!("{dropped} dropped, {refused} named");
    assert!(number("MENDING_CASES", 100) < 50 || dropped > refused, "most of a file is rows");
}
