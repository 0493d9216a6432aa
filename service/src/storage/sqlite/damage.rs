//! Buckets whose operations turned out to be damaged, until they are mended.
//!
//! ```text
//! a reader, a fold or the scrub meets damage ─► noted: nobody gets the bucket
//! scrub: is the file built as it should be? ─► no: chunks are not touched, and only a new store helps
//!                                           ─► yes: whoever commits empties the bucket and appends all its rows again
//! ```
//!
//! To delete chunks from a file whose pages refer to each other wrongly would harm what is beside them: hence the look
//! before. That a bucket was emptied and is not whole yet is in its record; what was only noted is found again.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kairos_sync_protocol::BucketName;
use rusqlite::Connection;

use super::{
    super::{BucketTotals, Commit, DamageReport, StorageError, generation},
    BucketId, Inner, Maintenance,
    bucket::Bucket,
    chunk::{self, Links, NewChunks},
    compact::Rewriting,
    head::Head,
    lost_rows::LostRows,
    tail::TailTotals,
    writer::{Change, Durability},
};
use crate::{fault_point::fault_point, storage::compaction::clear};

/// Buckets that are remembered at most. Others are found again.
const NOTED_MAX: u32 = 10_000;
/// Buckets that are told of at most: each costs a look at its record.
const REPORTED_MAX: usize = 1_000;
/// Chunks deleted at once: a few megabytes.
const SLICE_CHUNKS: u32 = 32;
/// Operations that no bucket has.
const NEVER_DUE: u64 = i64::MAX.unsigned_abs();
/// Steps of SQLite between two looks at whether the store is being closed.
const STEPS_BETWEEN_LOOKS: i32 = 100_000;

/// What is known of damages.
#[derive(Debug, Default)]
pub(super) struct Damages {
    // Locked for one look at a time.
    found: Mutex<Found>,
    /// Those of stored rows.
    rows: Mutex<LostRows>,
}

#[derive(Debug, Default)]
struct Found {
    /// Nobody has looked at the file since.
    noted: BTreeSet<BucketId>,
    /// They can be emptied, or are already.
    mendable: BTreeSet<BucketId>,
    /// The file is not built as it should be.
    is_beyond_repair: bool,
}

impl Damages {
    /// Of a store that is being opened: buckets that were emptied and not mended.
    pub(super) fn load(conn: &Connection) -> Result<Self, StorageError> {
        let mut statement = conn.prepare("SELECT id FROM bucket WHERE mending = 1 ORDER BY id LIMIT ?1")?;
        let ids = statement.query_map([NOTED_MAX], |row| row.get(0))?;
        let mendable = ids.map(|id| BucketId::from_column(id?)).collect::<Result<_, _>>()?;
        Ok(Self { found: Mutex::new(Found { mendable, ..Found::default() }), rows: Mutex::default() })
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lost_rows(&self) -> MutexGuard<'_, LostRows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing can be built again in this file.
    pub(super) fn give_up(&self) -> StorageError {
        self.found().is_beyond_repair = true;
        let error = StorageError::Damaged { what: "the structure of the database file".to_owned() };
        tracing::error!(code = error.code(), %error, "what is damaged cannot be mended");
        error
    }

    pub(super) fn has_noted(&self) -> bool {
        !self.found().noted.is_empty()
    }

    pub(super) fn count(&self) -> u64 {
        let found = self.found();
        (found.noted.union(&found.mendable).count()) as u64
    }

    /// Forgets all, as a reset does.
    pub(super) fn clear(&self) {
        *self.found() = Found::default();
        *self.lost_rows() = LostRows::default();
    }

    fn remove(&self, ids: &[BucketId]) {
        let mut found = self.found();
        for id in ids {
            found.noted.remove(id);
            found.mendable.remove(id);
        }
    }
}

impl Inner {
    /// Notes that operations of a bucket are damaged, where that is what the error says; then it is an error of this
    /// bucket alone.
    pub(super) fn noting(&self, bucket: BucketId, error: StorageError) -> StorageError {
        let StorageError::Damaged { what } = error else { return error };
        let mut found = self.damages.found();
        if found.is_beyond_repair {
            return StorageError::Damaged { what };
        }
        let is_new =
            !found.mendable.contains(&bucket) && found.noted.len() < NOTED_MAX as usize && found.noted.insert(bucket);
        drop(found);
        let error = StorageError::BucketDamaged { what };
        if is_new {
            tracing::error!(code = error.code(), %error, "operations in the bucket store are damaged: check the disk");
            self.scrub_signal.wake();
        }
        error
    }

    /// Looks at how the file is built where chunks are, and says of what was noted whether it can be mended.
    pub(super) fn examine(self: &Arc<Self>) -> Result<(), StorageError> {
        let noted = self.damages.found().noted.clone();
        let is_sound = self.is_sound(&["chunk"])?;
        fault_point("mending.examined");
        let mut found = self.damages.found();
        if is_sound {
            found.noted.retain(|id| !noted.contains(id));
            found.mendable.extend(noted);
            return Ok(());
        }
        found.noted.clear();
        drop(found);
        self.damages.give_up();
        Ok(())
    }

    /// Whether tables and their indexes are built as they should be. May take long; ends when the store is being closed.
    pub(super) fn is_sound(self: &Arc<Self>, tables: &[&str]) -> Result<bool, StorageError> {
        let mut conn = self.folder.reader(0)?;
        let store = Arc::clone(self);
        conn.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || store.scrub_signal.is_closing()))?;
        for table in tables {
            let sql = format!("PRAGMA integrity_check({table})");
            match conn.query_row(&sql, [], |row| row.get::<_, String>(0)).map_err(StorageError::from) {
                Ok(says) if says == "ok" => {}
                Ok(_) | Err(StorageError::Damaged { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    pub(super) fn damaged_buckets(&self, limit: usize) -> Result<Vec<BucketName>, StorageError> {
        let ids: Vec<_> = self.damages.found().mendable.iter().copied().take(limit).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let reader = self.reader()?;
        let (mut names, mut forgotten) = (Vec::new(), Vec::new());
        for id in ids {
            match Bucket::load(reader.conn(), id)? {
                Some(bucket) => names.push(bucket.name),
                None => forgotten.push(id),
            }
        }
        self.damages.remove(&forgotten);
        Ok(names)
    }

    pub(super) fn damage_report(&self) -> Result<DamageReport, StorageError> {
        let has_damaged_rows = self.damages.lost_rows().is_known();
        let found = self.damages.found();
        let is_beyond_repair = found.is_beyond_repair;
        let ids: Vec<_> = found.noted.union(&found.mendable).copied().take(REPORTED_MAX).collect();
        drop(found);
        if ids.is_empty() {
            return Ok(DamageReport { is_beyond_repair, has_damaged_rows, ..DamageReport::default() });
        }
        let reader = self.reader()?;
        let head = Head::read(reader.conn())?;
        let prefix = generation::bucket_prefix(&head.creation_id, head.generation);
        let buckets = ids.into_iter().map(|id| Bucket::load(reader.conn(), id)).collect::<Result<Vec<_>, _>>()?;
        let buckets = buckets.iter().flatten().map(|bucket| (&bucket.name, bucket.is_mending));
        Ok(DamageReport::of(is_beyond_repair, has_damaged_rows, buckets, &prefix))
    }

    /// Keeps a fold and compaction away, and forgets what they have planned, which must not come back once it is deleted.
    fn without_plans(&self) -> MutexGuard<'_, Maintenance> {
        let mut maintenance = self.maintenance();
        maintenance.compaction = None;
        *self.rewriting() = Rewriting::Nothing;
        maintenance
    }

    pub(super) fn shrink_damaged(&self, name: &BucketName) -> Result<bool, StorageError> {
        let _alone = self.without_plans();
        let mut writer = self.writer();
        let has_more = writer.transaction(Durability::Later, |change| {
            let Some(bucket) = Bucket::find(change.tx, name)? else { return Ok(false) };
            if !bucket.is_mending {
                change.head.version += 1;
                // Compaction would only meet what is missing.
                Bucket { is_mending: true, due_count: NEVER_DUE, ..bucket.clone() }.update(change.tx)?;
            }
            Ok(chunk::delete_some(change.tx, bucket.id, SLICE_CHUNKS)? == SLICE_CHUNKS as usize)
        })?;
        self.tail.write().unwrap_or_else(PoisonError::into_inner).version = writer.head().version;
        Ok(has_more)
    }

    pub(super) fn empty_buckets(&self, names: &[BucketName]) -> Result<Commit, StorageError> {
        let _alone = self.without_plans();
        let mut writer = self.writer();
        let recent = self.tail_read().totals();
        let emptied = writer.transaction(Durability::Synced, |change| {
            change.head.version += 1;
            let emptied = change.empty_buckets(names, &recent)?;
            if let Some(checkpoint) = &mut change.head.checkpoint {
                checkpoint.op_id = change.head.last_op_id;
            }
            Ok(emptied)
        })?;
        let Head { version, checkpoint, last_op_id, serving, .. } = *writer.head();
        let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
        for (id, _) in &emptied {
            tail.remove(*id, last_op_id);
        }
        tail.version = version;
        tail.checkpoint = checkpoint;
        drop(tail);
        let ids: BTreeSet<_> = emptied.iter().map(|(id, _)| *id).collect();
        let mut found = self.damages.found();
        found.noted.retain(|id| !ids.contains(id));
        found.mendable.extend(ids);
        let emptied = emptied.into_iter().map(|(_, name)| name).collect();
        let (buckets, lookups, write_checkpoints) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Commit { checkpoint, buckets, lookups, emptied, write_checkpoints, serving })
    }

    pub(super) fn buckets_mended(&self, names: &[BucketName]) -> Result<(), StorageError> {
        let mut writer = self.writer();
        let mended = writer.transaction(Durability::Synced, |change| {
            change.head.version += 1;
            let mut mended = Vec::new();
            for name in names {
                let Some(bucket) = Bucket::find(change.tx, name)? else { continue };
                mended.push(bucket.id);
                Bucket { is_mending: false, ..bucket }.update(change.tx)?;
            }
            Ok(mended)
        })?;
        self.tail.write().unwrap_or_else(PoisonError::into_inner).version = writer.head().version;
        drop(writer);
        self.damages.remove(&mended);
        Ok(())
    }
}

impl Change<'_> {
    /// Puts a CLEAR in the place of all operations of buckets, of which the tail has so many.
    fn empty_buckets(
        &mut self,
        names: &[BucketName],
        recent: &TailTotals,
    ) -> Result<Vec<(BucketId, BucketName)>, StorageError> {
        let mut emptied = Vec::new();
        for name in names {
            let Some(mut bucket) = Bucket::find(self.tx, name)? else { continue };
            let op_id = self.head.last_op_id.next();
            self.head.last_op_id = op_id;
            let gone = bucket.folded.count + recent.get(&bucket.id).map_or(0, |recent| recent.count);
            self.head.operation_count = self.head.operation_count.saturating_sub(gone) + 1;
            chunk::delete_all(self.tx, bucket.id)?;
            (bucket.folded, bucket.is_mending) = (BucketTotals::default(), true);
            bucket.due_count = self.due_count();
            bucket.update(self.tx)?;
            // Whoever is at a state before it lacks what it took away.
            let links = Links { valid_from: op_id, ..Links::default() };
            let clear = clear(op_id);
            NewChunks::of(bucket.id, clear.json.len() as u64, links, [clear])?.append(self.tx)?;
            emptied.push((bucket.id, bucket.name));
        }
        Ok(emptied)
    }
}
