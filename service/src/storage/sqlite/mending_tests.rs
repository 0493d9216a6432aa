//! Buckets that are damaged on the disk, and mended as replication does it: by what is in the row store.
//!
//! Bits are flipped in the file of a store that nobody has open. `MENDING_SEED=n MENDING_CASES=1` replays a case.

use std::{
    collections::BTreeMap,
    env, fs,
    time::{Duration, Instant},
};

use kairos_sync_protocol::{
    Checksum,
    operation::{OpKind, Operation},
};
use tempfile::TempDir;

use super::{
    super::{BucketTotals, NewOperation, RowOutput},
    *,
};
use crate::fuzz::Random;

const FILE: &str = "buckets.sqlite3";
pub(super) const BUCKETS: usize = 6;
const ROWS: usize = 300;
/// For what the thread that scrubs does.
const PATIENCE: Duration = Duration::from_secs(30);

/// Data of rows by id.
pub(super) type Rows = BTreeMap<String, String>;

fn options(scrub_bytes_per_second: u64) -> SqliteOptions {
    SqliteOptions {
        straight: StraightLimits { chunk_bytes: 2_000, row_bytes: 1 << 20 },
        compaction: CompactionOptions { bytes_per_second: 0, ..CompactionOptions::default() },
        scrub_bytes_per_second,
        ..SqliteOptions::default()
    }
}

pub(super) fn bucket(number: usize) -> BucketName {
    BucketName::new(format!("todos[\"user {number}\"]"))
}

pub(super) fn put(number: usize, id: &str, data: &str) -> NewOperation {
    NewOperation {
        output: RowOutput { bucket: bucket(number), object_type: "todos".into(), object_id: id.into() },
        subkey: "k".into(),
        checksum: Checksum::of_put("todos", id, data),
        data: Some(data.into()),
    }
}

fn batch(operations: Vec<NewOperation>) -> Batch {
    Batch { operations, visible_at: Some(Lsn::new(1)), ..Batch::default() }
}

/// A store with chunks and a tail in every bucket, and what devices have of it.
fn filled(folder: &TempDir) -> Vec<Rows> {
    let store = SqliteStore::open(folder.path(), options(0)).unwrap();
    let mut random = Random::new(3);
    let mut rows = vec![Rows::new(); BUCKETS];
    for round in 0..30 {
        let mut operations = Vec::new();
        for _ in 0..60 {
            let id = random.below(ROWS);
            let data = format!(r#"{{"id":"{id}","title":"{:032x}"}}"#, random.next());
            operations.push(put(id % BUCKETS, &id.to_string(), &data));
            rows[id % BUCKETS].insert(id.to_string(), data);
        }
        store.commit(batch(operations)).unwrap();
        if round % 10 == 8 {
            store.inner.fold().unwrap();
        }
    }
    rows
}

/// A device that has nothing, or what it has after an earlier sync.
#[derive(Default, Clone)]
pub(super) struct Device {
    pub(super) rows: Rows,
    sum: Checksum,
    position: OpId,
}

impl Device {
    /// Gets the newest state of a bucket and looks at the sums.
    pub(super) fn sync(&mut self, store: &SqliteStore, number: usize) -> Result<(), StorageError> {
        let BucketTotals { checksum, last_op_id, .. } = store.view()?.bucket(&bucket(number))?;
        loop {
            let range = store.operations(&bucket(number), self.position, last_op_id, 3_000)?;
            let operations: Vec<Operation> = serde_json::from_slice(&range.json.array()?).unwrap();
            for Operation { op_id, op, object_id, checksum, data, .. } in operations {
                assert!(op_id > self.position, "ids ascend");
                self.position = op_id;
                self.sum += checksum;
                match op {
                    OpKind::Put => drop(self.rows.insert(object_id.unwrap(), data.unwrap())),
                    OpKind::Remove => drop(self.rows.remove(&object_id.unwrap())),
                    OpKind::Move => {}
                    OpKind::Clear => (self.rows, self.sum) = (Rows::new(), checksum),
                }
            }
            if !range.has_more {
                break;
            }
        }
        assert_eq!(self.sum, checksum, "the sum of bucket {number}");
        Ok(())
    }
}

/// A bucket that is large begins anew in slices, none of which deletes much, also after an end in between.
#[test]
fn a_large_bucket_is_deleted_in_slices_before_it_is_emptied() {
    let folder = TempDir::new().unwrap();
    let straight = StraightLimits { chunk_bytes: 0, row_bytes: 1 << 20 };
    let options = SqliteOptions { straight, ..options(0) };
    let mut store = SqliteStore::open(folder.path(), options).unwrap();
    for round in 0..300 {
        store.commit(batch(vec![put(0, &round.to_string(), "{}"), put(1, &round.to_string(), "{}")])).unwrap();
    }
    let chunks = |store: &SqliteStore| -> i64 {
        let sql = "SELECT count(*) FROM chunk JOIN bucket ON bucket.id = bucket_id WHERE name = ?1";
        store.inner.writer().conn().query_row(sql, [bucket(0).as_str()], |row| row.get(0)).unwrap()
    };
    let mut left = chunks(&store);
    assert!(left > 250, "{left} chunks");
    let mut slices = 0;
    while store.shrink_damaged(&bucket(0)).unwrap() {
        let now = chunks(&store);
        assert!((1..=32).contains(&(left - now)), "{} chunks at once", left - now);
        (left, slices) = (now, slices + 1);
        assert_eq!(Device::default().sync(&store, 0).unwrap_err().code(), "STORE-0106", "nobody gets a part");
        Device::default().sync(&store, 1).unwrap();
        if slices == 3 {
            drop(store);
            store = SqliteStore::open(folder.path(), options).unwrap();
            assert_eq!(store.damaged_buckets(9).unwrap(), [bucket(0)], "it is known to be damaged");
        }
    }
    assert!(slices > 7 && chunks(&store) == 0, "{slices} slices");
    store.empty_buckets(&[bucket(0)]).unwrap();
    store.commit(batch(vec![put(0, "1", "{\"title\":\"again\"}")])).unwrap();
    store.buckets_mended(&[bucket(0)]).unwrap();
    let mut device = Device::default();
    device.sync(&store, 0).unwrap();
    assert_eq!(device.rows, Rows::from([("1".to_owned(), "{\"title\":\"again\"}".to_owned())]));
}

/// Damages a chunk of this bucket, amid the first part of its block; also where a page that is free has it still.
fn damage(folder: &TempDir, number: usize) {
    let conn = Connection::open(folder.path().join(FILE)).unwrap();
    let sql = "SELECT block FROM chunk JOIN bucket ON bucket.id = bucket_id WHERE name = ?1 ORDER BY chunk.id LIMIT 1";
    let block: Vec<u8> = conn.query_row(sql, [bucket(number).as_str()], |row| row.get(0)).unwrap();
    let file = fs::read(folder.path().join(FILE)).unwrap();
    let start = &block[..64];
    let places = file.windows(start.len()).enumerate().filter(|(_, window)| *window == start);
    let places: Vec<_> = places.map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the block is in the file");
    for at in places {
        flip(folder, at + 40, 3);
    }
}

fn flip(folder: &TempDir, at: usize, bit: usize) {
    let path = folder.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

/// Waits until everything that was noted was looked at.
fn examined(store: &SqliteStore) -> Vec<BucketName> {
    let started = Instant::now();
    while store.inner.damages.has_noted() {
        assert!(started.elapsed() < PATIENCE, "nobody looked");
        thread::sleep(Duration::from_millis(5));
    }
    store.damaged_buckets(BUCKETS).unwrap()
}

/// What replication does.
fn mend(store: &SqliteStore, damaged: &[BucketName], rows: &[Rows]) {
    assert_eq!(store.empty_buckets(damaged).unwrap().emptied, damaged);
    for (number, rows) in rows.iter().enumerate().filter(|(number, _)| damaged.contains(&bucket(*number))) {
        for part in rows.iter().collect::<Vec<_>>().chunks(20) {
            let again = part.iter().map(|(id, data)| put(number, id, data)).collect();
            store.commit(batch(again)).unwrap();
        }
    }
    store.buckets_mended(damaged).unwrap();
}

fn is_whole(folder: &TempDir) -> Verification {
    Verification::of(folder.path(), &mut |_| {}).unwrap()
}

#[test]
fn only_the_damaged_bucket_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let rows = filled(&folder);
    let mut devices = vec![Device::default(); BUCKETS];
    {
        let store = SqliteStore::open(folder.path(), options(0)).unwrap();
        devices.iter_mut().enumerate().for_each(|(number, device)| device.sync(&store, number).unwrap());
    }
    damage(&folder, 2);
    let found = is_whole(&folder);
    assert_eq!((found.damage_count, found.bucket_damage_count), (1, 1), "{found:?}");
    let store = SqliteStore::open(folder.path(), options(0)).unwrap();
    for number in 0..BUCKETS {
        let outcome = Device::default().sync(&store, number).map_err(|error| error.code());
        assert_eq!(outcome, if number == 2 { Err("STORE-0106") } else { Ok(()) });
    }
    assert_eq!(examined(&store), [bucket(2)]);
    store.empty_buckets(&[bucket(2)]).unwrap();
    drop(store);
    // An end amid it: the bucket is still nobody's.
    let found = is_whole(&folder);
    assert!(found.is_whole() && found.mending_count == 1, "{found:?}");
    let store = SqliteStore::open(folder.path(), options(0)).unwrap();
    assert_eq!(Device::default().sync(&store, 2).unwrap_err().code(), "STORE-0106");
    assert_eq!((store.damaged_buckets(9).unwrap(), store.stats().unwrap().damaged_bucket_count), (vec![bucket(2)], 1));
    mend(&store, &[bucket(2)], &rows);
    for number in 0..BUCKETS {
        let mut anew = Device::default();
        anew.sync(&store, number).unwrap();
        let before = devices[number].position;
        devices[number].sync(&store, number).unwrap();
        assert_eq!([&anew.rows, &devices[number].rows], [&rows[number]; 2]);
        assert_eq!(devices[number].position > before, number == 2, "the others download nothing");
    }
    assert_eq!(store.stats().unwrap().damaged_bucket_count, 0);
    store.inner.fold().unwrap();
    drop(store);
    let found = is_whole(&folder);
    assert!(found.is_whole() && found.mending_count == 0, "{found:?}");
}

#[test]
fn the_scrub_finds_what_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    filled(&folder);
    damage(&folder, 4);
    let store = SqliteStore::open(folder.path(), options(1 << 30)).unwrap();
    let started = Instant::now();
    while store.damaged_buckets(9).unwrap() != [bucket(4)] {
        assert!(started.elapsed() < PATIENCE, "it was not found");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(store.stats().unwrap().scrubbed_bytes > 0);
}

#[test]
fn a_fold_goes_on_without_the_damaged_bucket_and_with_it_once_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let rows = filled(&folder);
    let store = SqliteStore::open(folder.path(), options(0)).unwrap();
    store.inner.fold().unwrap();
    // A small newest chunk, which the next fold merges.
    let small = |number| batch(vec![put(number, "0", &rows[0]["0"])]);
    (0..2).for_each(|number| drop(store.commit(small(number)).unwrap()));
    store.inner.fold().unwrap();
    drop(store);
    let conn = Connection::open(folder.path().join(FILE)).unwrap();
    let sql = "UPDATE chunk SET block = zeroblob(length(block)) WHERE id IN \
               (SELECT max(chunk.id) FROM chunk JOIN bucket ON bucket.id = bucket_id WHERE name = ?1)";
    assert_eq!(conn.execute(sql, [bucket(0).as_str()]).unwrap(), 1);
    drop(conn);
    let store = SqliteStore::open(folder.path(), options(0)).unwrap();
    (0..2).for_each(|number| drop(store.commit(small(number)).unwrap()));
    assert_eq!(store.inner.fold().unwrap_err().code(), "STORE-0106");
    let in_tail = |store: &SqliteStore| store.inner.tail_read().bucket_ids().len();
    assert_eq!(in_tail(&store), 1, "what is whole was folded");
    assert_eq!(examined(&store), [bucket(0)]);
    mend(&store, &[bucket(0)], &rows);
    store.inner.fold().unwrap();
    assert_eq!(in_tail(&store), 0);
    drop(store);
    assert!(is_whole(&folder).is_whole());
}

pub(super) fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Where a flip is found, buckets are mended and devices have what they should; or all is to be thrown away, and says so.
/// Nobody ever gets anything else.
#[test]
fn any_flipped_bit_is_mended_or_named() {
    let original = tempfile::tempdir().unwrap();
    let rows = filled(&original);
    let bytes = fs::read(original.path().join(FILE)).unwrap();
    let first = number("MENDING_SEED", 1);
    let (mut mended, mut refused) = (0, 0);
    for seed in first..first + number("MENDING_CASES", 150) {
        let mut random = Random::new(seed);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), &bytes).unwrap();
        let (at, bit) = (random.below(bytes.len()), random.below(8));
        println!("MENDING_SEED={seed}: bit {bit} of byte {at}");
        flip(&folder, at, bit);
        let Ok(store) = SqliteStore::open(folder.path(), options(0)) else {
            refused += 1;
            continue;
        };
        if store.view().is_ok_and(|view| view.checkpoint().is_none()) {
            // It begins anew, under other names.
            continue;
        }
        let sync_all = || {
            (0..BUCKETS).map(|number| {
                let mut device = Device::default();
                device.sync(&store, number).map(|()| device.rows)
            })
        };
        let outcomes: Vec<_> = sync_all().collect();
        for (outcome, rows) in outcomes.iter().zip(&rows) {
            assert!(outcome.as_ref().is_ok_and(|found| found == rows) || outcome.is_err(), "MENDING_SEED={seed}");
        }
        let damaged = examined(&store);
        if damaged.is_empty() {
            refused += u64::from(outcomes.iter().any(Result::is_err));
            continue;
        }
        mend(&store, &damaged, &rows);
        for (found, rows) in sync_all().zip(&rows) {
            assert!(found.is_ok_and(|found| found == *rows), "MENDING_SEED={seed}");
        }
        store.inner.fold().unwrap();
        drop(store);
        let found = is_whole(&folder);
        assert!(found.is_whole(), "MENDING_SEED={seed}: {found:?}");
        mended += 1;
    }
    println!("{mended} mended, {refused} named");
    assert!(mended > refused, "most of a file is operations");
}
