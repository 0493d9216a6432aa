//! Buckets and lookups that nobody is served any more.
//!
//! Names go first, a bounded number at a time, so that nothing refers to what follows: the chunks are deleted in the
//! background, as a fold works.

use std::sync::{PoisonError, atomic::Ordering};

use rusqlite::Connection;

use super::{
    super::{NamePrefixes, StorageError, generation},
    BucketId, Inner,
    bucket::Bucket,
    writer::{Change, Durability},
};
use crate::fault_point::fault_point;

/// Most chunks deleted in one slice.
const SLICE_CHUNKS: u32 = 64;
/// Most buckets without any left.
const SLICE_BUCKETS: u32 = 1_024;

/// A bucket that is forgotten.
struct Forgotten {
    id: BucketId,
    /// Operations in its chunks.
    folded_count: u64,
}

impl Inner {
    pub(super) fn forget(&self, names: &NamePrefixes, limit: u32) -> Result<bool, StorageError> {
        let mut writer = self.writer();
        let totals = self.tail_read().totals();
        let (forgotten, has_more) = writer.transaction(Durability::Later, |change| {
            change.head.version += 1;
            let mut left = limit;
            let forgotten = forget_buckets(change, &names.buckets, &mut left)?;
            for Forgotten { id, folded_count } in &forgotten {
                let recent = totals.get(id).map_or(0, |recent| recent.count);
                change.head.operation_count = change.head.operation_count.saturating_sub(folded_count + recent);
                change.head.bucket_count = change.head.bucket_count.saturating_sub(1);
            }
            let head = &mut change.head;
            for (table, count) in [("lookup", &mut head.lookup_count), ("dependent", &mut head.dependent_count)] {
                let before = left;
                forget_lookups(change.tx, table, &names.lookups, &mut left)?;
                *count = count.saturating_sub(u64::from(before - left));
            }
            Ok((forgotten, left == 0))
        })?;
        fault_point("store.names-forgotten");
        writer.forget_names();
        let head = writer.head();
        {
            let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
            for Forgotten { id, .. } in &forgotten {
                tail.remove(*id, head.last_op_id);
            }
            tail.version = head.version;
        }
        self.bucket_names.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(writer);
        if !forgotten.is_empty() {
            self.has_forgotten.store(true, Ordering::Relaxed);
            self.signal.wake();
        }
        Ok(has_more)
    }

    /// Deletes what forgotten buckets had in chunks.
    pub(super) fn delete_forgotten(&self) -> Result<(), StorageError> {
        let _alone = self.maintenance();
        let generation = self.writer().head().generation;
        // Before the first look, so that what is forgotten meanwhile is not missed.
        self.has_forgotten.store(false, Ordering::Relaxed);
        let delete = || -> Result<(), StorageError> {
            while self.slice(generation, |writer| {
                let has_more = writer.transaction(Durability::Later, |change| delete_chunks(change.tx));
                fault_point("store.chunks-forgotten");
                has_more
            })? {}
            Ok(())
        };
        delete().inspect_err(|_| self.has_forgotten.store(true, Ordering::Relaxed))
    }
}

/// Forgets buckets by the beginnings of their names, as many as are `left`.
fn forget_buckets(change: &Change<'_>, prefixes: &[String], left: &mut u32) -> Result<Vec<Forgotten>, StorageError> {
    let bucket_prefix = generation::bucket_prefix(&change.head.creation_id, change.head.generation);
    let find = format!("SELECT {} FROM bucket WHERE name >= ?1 AND name < ?2 LIMIT ?3", Bucket::COLUMNS);
    let mut find = change.tx.prepare_cached(&find)?;
    let mut forgotten = Vec::new();
    for prefix in prefixes {
        let (first, end) = names_with(&format!("{bucket_prefix}{prefix}"));
        let mut rows = find.query((first, end, *left))?;
        while let Some(row) = rows.next()? {
            let Bucket { id, folded, .. } = Bucket::read(row)?;
            forgotten.push(Forgotten { id, folded_count: folded.count });
            *left -= 1;
        }
    }
    let mut delete = change.tx.prepare_cached("DELETE FROM bucket WHERE id = ?1")?;
    let mut remember = change.tx.prepare_cached("INSERT INTO forgotten_bucket (id) VALUES (?1)")?;
    for Forgotten { id, .. } in &forgotten {
        delete.execute([id.column()])?;
        remember.execute([id.column()])?;
    }
    Ok(forgotten)
}

/// Forgets entries of an index by the beginnings of their keys, as many as are `left`.
fn forget_lookups(conn: &Connection, table: &str, prefixes: &[String], left: &mut u32) -> Result<(), StorageError> {
    let entries = "SELECT key, table_id, identity FROM";
    let sql = format!(
        "DELETE FROM {table} WHERE (key, table_id, identity) IN ({entries} {table} WHERE key >= ?1 AND key < ?2 LIMIT ?3)"
    );
    let mut delete = conn.prepare_cached(&sql)?;
    for prefix in prefixes {
        let (first, end) = names_with(prefix);
        *left -= count(delete.execute((first, end, *left))?);
    }
    Ok(())
}

/// The first name with a beginning, and one that comes after all of them.
fn names_with(prefix: &str) -> (String, String) {
    (prefix.to_owned(), format!("{prefix}{}", char::MAX))
}

/// Deletes some chunks of forgotten buckets. Whether there may be more.
fn delete_chunks(conn: &Connection) -> Result<bool, StorageError> {
    let mut forgotten = conn.prepare_cached("SELECT id FROM forgotten_bucket LIMIT ?1")?;
    let ids: Vec<i64> = forgotten.query_map([SLICE_BUCKETS], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let delete = "DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE bucket_id = ?1 LIMIT ?2)";
    let mut left = SLICE_CHUNKS;
    for id in &ids {
        let deleted = count(conn.prepare_cached(delete)?.execute((id, left))?);
        if deleted == left {
            return Ok(true);
        }
        left -= deleted;
        conn.prepare_cached("DELETE FROM forgotten_bucket WHERE id = ?1")?.execute([id])?;
    }
    Ok(count(ids.len()) == SLICE_BUCKETS)
}

/// Numbers of rows that were bounded by a `u32`.
fn count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use kairos_sync_protocol::{BucketName, Checksum};

    use super::{
        super::{
            super::{Batch, BucketStore, NewOperation, RowOutput},
            SqliteOptions, SqliteStore,
        },
        *,
    };

    #[test]
    fn chunks_of_forgotten_buckets_leave_the_file_also_after_an_interruption() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
        let prefix = store.bucket_prefix().unwrap();
        let operation = |number: u32| NewOperation {
            output: RowOutput {
                bucket: BucketName::new(format!("{prefix}old[{}]", number % 100)),
                object_type: "t".into(),
                object_id: number.to_string().into(),
            },
            subkey: "k".into(),
            checksum: Checksum::of_remove("k"),
            data: None,
        };
        store.commit(Batch { operations: (0..500).map(operation).collect(), ..Batch::default() }).unwrap();
        store.inner.fold().unwrap();
        let count = |store: &SqliteStore, table: &str| -> i64 {
            let writer = store.inner.writer();
            writer.conn().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        assert!(count(&store, "chunk") >= 100);
        let names = NamePrefixes { buckets: vec!["old[".to_owned()], lookups: vec![] };
        // The background waits for its turn meanwhile, and ends before it gets it.
        let maintenance = store.inner.maintenance();
        while store.forget(&names, 7).unwrap() {}
        assert_eq!((count(&store, "bucket"), count(&store, "forgotten_bucket")), (0, 100));
        store.inner.signal.close();
        drop(maintenance);
        drop(store);
        let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
        store.inner.delete_forgotten().unwrap();
        assert_eq!((count(&store, "chunk"), count(&store, "forgotten_bucket")), (0, 0));
    }
}
