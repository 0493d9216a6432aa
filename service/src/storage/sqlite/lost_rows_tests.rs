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

/// Where one place of a block is.
const A_PLACE: &str = "(run_id, table_id, identity) = \
                       (SELECT run_id, table_id, identity FROM row_place ORDER BY run_id DESC LIMIT 1 OFFSET 3)";

/// What may be wrong with a record that says which blocks there are.
fn record_damages() -> Vec<String> {
    let newest = "id = (SELECT max(id) FROM row_run)";
    vec![
        format!("UPDATE row_run SET sum = sum + 1 WHERE {newest}"),
        format!("UPDATE row_run SET last_identity = x'00' WHERE {newest}"),
        format!("UPDATE row_run SET position = 'no number' WHERE {newest}"),
        format!("UPDATE row_run SET entry_count = -1 WHERE {newest}"),
        format!("DELETE FROM row_run WHERE {newest}"),
        format!("UPDATE row_place SET block_id = block_id + 1 WHERE {A_PLACE}"),
        format!("UPDATE row_place SET sum = 'no number' WHERE {A_PLACE}"),
        format!("UPDATE row_place SET run_id = 999 WHERE {A_PLACE}"),
        format!("DELETE FROM row_place WHERE {A_PLACE}"),
    ]
}

fn change(folder: &TempDir, sql: &str) {
    let conn = Connection::open(folder.path().join(FILE)).unwrap();
    assert_eq!(conn.execute(sql, []).unwrap(), 1, "{sql}");
}

fn is_whole(folder: &TempDir) {
    let found = Verification::of(folder.path(), &mut |_| {}).unwrap();
    assert!(found.is_whole(), "{found:?}");
}

/// All is lost that runs have; what is still in the tail is of no use either, but harmless.
fn drops_all(store: &SqliteStore, case: &str) {
    let before = store.stats().unwrap().row_count;
    assert!(store.damages().unwrap().has_damaged_rows, "{case}");
    assert_eq!(drop_lost(store), BTreeSet::new(), "{case}");
    let left = read(store, &all()).unwrap();
    assert!(left.len() < 20 && before > 2_000, "{case}: {} of {before} rows", left.len());
    assert_eq!(store.stats().unwrap().row_count, left.len() as u64, "{case}");
    assert!(store.check_rows().is_ok() && store.damages().unwrap().is_empty(), "{case}");
    assert!(store.dependents(&LookupKey("l".into()), None, 99).unwrap().is_empty(), "{case}");
}

#[test]
fn where_it_is_not_known_which_blocks_there_are_all_are_dropped() {
    let original = tempfile::tempdir().unwrap();
    filled(&original);
    for case in record_damages() {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(original.path().join(FILE), folder.path().join(FILE)).unwrap();
        change(&folder, &case);
        let found = Verification::of(folder.path(), &mut |_| {}).unwrap();
        assert_eq!((found.damage_count, found.row_damage_count), (1, 1), "{case}: {found:?}");
        assert_eq!(found.damages[0].code, "STORE-0109", "{case}");
        let store = SqliteStore::open(folder.path(), options(0)).unwrap();
        let code = |error: StorageError| error.code();
        assert_eq!(store.check_rows().map_err(code), Err("STORE-0109"), "{case}");
        // None of them says that there are no rows.
        assert_eq!(store.row(&key(1, 1_499)).map_err(code), Err("STORE-0109"), "{case}");
        assert_eq!(store.rows_of_table(TableId(1), None, 9).map_err(code), Err("STORE-0109"), "{case}");
        assert_eq!(store.stored_rows(TableId(1), None, 9, 9_999).map_err(code), Err("STORE-0109"), "{case}");
        store.inner.fold().unwrap();
        assert_eq!(store.inner.merge_runs().unwrap(), None, "{case}");
        assert_eq!(store.lost_rows().unwrap(), [TableId(0)..=TableId(u32::MAX)], "{case}");
        drop(store);
        // An end in between: it is found again.
        let store = SqliteStore::open(folder.path(), options(0)).unwrap();
        drops_all(&store, &case);
        let row = StoredRow { image: "again".to_owned().into(), ..StoredRow::default() };
        store.commit(Batch { rows: vec![(key(9, 1), Some(row.clone()))], ..Batch::default() }).unwrap();
        store.inner.fold().unwrap();
        assert_eq!(store.row(&key(9, 1)).unwrap(), Some(row), "{case}");
        drop(store);
        is_whole(&folder);
    }
}

#[test]
fn a_record_that_is_damaged_while_the_store_is_open_is_met_by_a_merge() {
    let folder = tempfile::tempdir().unwrap();
    filled(&folder);
    let store = SqliteStore::open(folder.path(), options(0)).unwrap();
    let case = format!("UPDATE row_place SET block_id = block_id + 1 WHERE {A_PLACE}");
    change(&folder, &case);
    assert_eq!(store.inner.merge_all_runs().unwrap_err().code(), "STORE-0109");
    drops_all(&store, &case);
    drop(store);
    is_whole(&folder);
}

/// Without a filter a run may have any row.
#[test]
fn a_damaged_filter_hides_no_row_and_is_made_again() {
    let original = tempfile::tempdir().unwrap();
    let rows = filled(&original);
    let newest = "run_id = (SELECT max(run_id) FROM row_filter)";
    for case in [
        format!("UPDATE row_filter SET words = zeroblob(length(words)) WHERE {newest}"),
        format!("UPDATE row_filter SET words = x'' WHERE {newest}"),
        format!("UPDATE row_filter SET words = 'text' WHERE {newest}"),
        format!("UPDATE row_filter SET sum = 'no number' WHERE {newest}"),
        format!("UPDATE row_filter SET run_id = 999 WHERE {newest}"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(original.path().join(FILE), folder.path().join(FILE)).unwrap();
        change(&folder, &case);
        let found = Verification::of(folder.path(), &mut |_| {}).unwrap();
        assert_eq!((found.damage_count, found.filter_damage_count), (1, 1), "{case}: {found:?}");
        assert_eq!((found.damages[0].code, found.row_count), ("STORE-0110", rows.len() as u64), "{case}");
        let store = SqliteStore::open(folder.path(), options(0)).unwrap();
        let lacking = |store: &SqliteStore| store.inner.runs.list().iter().filter(|run| run.filter.is_none()).count();
        assert_eq!((lacking(&store), store.check_rows().is_ok()), (1, true), "{case}");
        assert_eq!(read(&store, &all()).unwrap(), rows, "{case}");
        store.inner.make_missing_filter(&mut None).unwrap();
        assert_eq!(lacking(&store), 0, "{case}");
        assert_eq!(read(&store, &all()).unwrap(), rows, "{case}");
        drop(store);
        is_whole(&folder);
    }
}

/// Pages of the file that a table has.
fn pages(folder: &TempDir, table: &str) -> Vec<usize> {
    let conn = Connection::open(folder.path().join(FILE)).unwrap();
    let mut statement = conn.prepare("SELECT pageno FROM dbstat WHERE name = ?1").unwrap();
    let pages = statement.query_map([table], |row| row.get::<_, i64>(0)).unwrap();
    pages.map(|page| usize::try_from(page.unwrap()).unwrap()).collect()
}

/// What has no rows itself is little of a file, so it gets flips of its own.
#[test]
fn any_flipped_bit_of_a_record_costs_all_rows_or_a_filter_or_is_named() {
    const PAGE: usize = 4_096;
    let original = tempfile::tempdir().unwrap();
    let rows = filled(&original);
    let bytes = fs::read(original.path().join(FILE)).unwrap();
    let pages = ["row_run", "row_place", "row_filter"].map(|table| pages(&original, table));
    let first = number("MENDING_SEED", 1);
    let (mut unharmed, mut dropped, mut refused) = (0, 0, 0);
    for seed in first..first + number("MENDING_CASES", 100) {
        let mut random = Random::new(seed);
        let pages = &pages[random.below(pages.len())];
        let start = (pages[random.below(pages.len())] - 1) * PAGE;
        // Much of these pages is empty.
        let used: Vec<_> = (start..start + PAGE).filter(|at| bytes[*at] != 0).collect();
        let (at, bit) = (used[random.below(used.len())], random.below(8));
        println!("MENDING_SEED={seed}: bit {bit} of byte {at}");
        let (folder, Some(store)) = with_flip(&bytes, at, bit) else {
            refused += 1;
            continue;
        };
        match read(&store, &all()) {
            Ok(found) => {
                assert!(found == rows, "MENDING_SEED={seed}: rows are others");
                store.inner.merge_runs().unwrap();
                assert_eq!(read(&store, &all()).unwrap(), rows, "MENDING_SEED={seed}");
                unharmed += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), "STORE-0109", "MENDING_SEED={seed}");
                drops_all(&store, &format!("MENDING_SEED={seed}"));
                dropped += 1;
            }
        }
        drop(store);
        is_whole(&folder);
    }
    println!("{unharmed} unharmed, {dropped} dropped, {refused} named");
    assert!(
        number("MENDING_CASES", 100) < 50 || unharmed + dropped > refused && dropped > 0,
        "most of it is no structure"
    );
}

/// A store in a folder of its own, of which one bit of the file is another; `None` if it is refused.
fn with_flip(bytes: &[u8], at: usize, bit: usize) -> (TempDir, Option<SqliteStore>) {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    fs::write(folder.path().join(FILE), &bytes).unwrap();
    let store = SqliteStore::open(folder.path(), options(0)).ok();
    (folder, store)
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
        let (at, bit) = (random.below(bytes.len()), random.below(8));
        println!("MENDING_SEED={seed}: bit {bit} of byte {at}");
        let (folder, Some(store)) = with_flip(&bytes, at, bit) else {
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
