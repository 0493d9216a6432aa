//! A page of stored rows on its way through what is being built, read while the one before is committed.
//!
//! Whoever reads it only reads: the store, and layouts that do not change. All that it means is decided when it is
//! applied, on the stream's thread, which alone commits.
//!
//! **Invariants**
//!
//! - A row that is evaluated ahead depends on its image and its layout alone. One whose rules ask lookups is read ahead,
//!   and evaluated when it is applied: what the page before it, or the stream, does to lookups comes first.
//! - From the moment a page is asked for, [`Touched`] notes the rows behind its beginning that any commit changes. These
//!   are taken from the store once more when the page is applied, and are passed over if they are gone. So it does not
//!   matter which state of them was read. All others are as they were read.
//! - Rows that come behind the beginning meanwhile need no look: they went through all plans.
//! - A page that does not begin where the build is, as when the one before was too much for one commit, is thrown away.
//!   Only a page that was applied is counted, in the same commit; so none is lost in a crash.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kairos_sync_rules::Scratch;

use super::{
    apply::{Applier, PartSize},
    error::ReplicationError,
    evaluated::Evaluated,
    image::{Image, damaged_image},
    lookups::{Asked, NoLookups},
    relations::{Layout, SourceRelation},
};
use crate::storage::{BucketStore, RowKey, StorageError, StoredRow, TableId};

/// Where a page begins: the table, and the last row before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageStart {
    pub(super) table: TableId,
    pub(super) after: Option<RowKey>,
}

/// How much a page takes at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageSize {
    /// So many rows.
    pub(super) rows: usize,
    /// About so many bytes of stored rows.
    pub(super) bytes: usize,
    /// What it becomes fits into one commit.
    pub(super) part: PartSize,
}

/// Rows of a table as they were stored, in the order of their keys.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) start: PageStart,
    rows: Vec<PageRow>,
}

#[derive(Debug)]
struct PageRow {
    key: RowKey,
    stored: StoredRow,
    /// What it is with what is new; `None` if it is not complete, or asks lookups.
    evaluated: Option<Evaluated>,
}

impl Page {
    /// Reads a page. `layouts` are the table's.
    pub(super) fn read(
        store: &dyn BucketStore,
        layouts: &[Arc<Layout>],
        start: PageStart,
        size: PageSize,
    ) -> Result<Self, StorageError> {
        let mut scratch = Scratch::default();
        let mut asks_lookups = false;
        let stored_rows = store.stored_rows(start.table, start.after.as_ref(), size.rows, size.bytes)?;
        let (mut rows, mut bytes) = (Vec::with_capacity(stored_rows.len()), 0);
        for (key, stored) in stored_rows {
            if bytes >= size.part.bytes {
                break;
            }
            let evaluated = match news(layouts, &key, &stored, &mut scratch) {
                // Once one has asked, others will.
                _ if asks_lookups => None,
                Ok(evaluated) => evaluated?,
                Err(Asked) => {
                    asks_lookups = true;
                    None
                }
            };
            bytes += stored.image.len() + key.identity.len() + evaluated.as_ref().map_or(0, Evaluated::bytes);
            rows.push(PageRow { key, stored, evaluated });
        }
        Ok(Self { start, rows })
    }

    /// The page at `start`, and the rows that were touched since it was read: the one that was read ahead or, if that is
    /// worth nothing, one that is read now.
    pub(super) fn at(
        start: PageStart,
        ahead: Option<Self>,
        touched: &Touched,
        read: impl FnOnce(PageStart) -> Result<Self, StorageError>,
    ) -> Result<(Self, HashSet<RowKey>), StorageError> {
        let touched = touched.take(&start);
        match (ahead.filter(|page| page.start == start), touched) {
            (Some(page), Some(touched)) => Ok((page, touched)),
            _ => Ok((read(start)?, HashSet::new())),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Where the next page begins; `None` when there are no more rows in the table.
    pub(super) fn next(&self) -> Option<PageStart> {
        let last = self.rows.last()?;
        Some(PageStart { table: self.start.table, after: Some(last.key.clone()) })
    }

    /// Puts rows into a batch until that is full. Gives how many, and the last.
    pub(super) fn apply(
        self,
        store: &dyn BucketStore,
        applier: &mut Applier<'_>,
        table: Option<&SourceRelation>,
        touched: &HashSet<RowKey>,
        part: PartSize,
    ) -> Result<(u64, Option<RowKey>), ReplicationError> {
        let (mut row_count, mut last) = (0, None);
        for PageRow { key, stored, evaluated } in self.rows {
            if applier.is_full(part) {
                break;
            }
            if let Some(table) = table {
                if touched.contains(&key) {
                    if let Some(stored) = store.row(&key)? {
                        applier.evaluate_news(table, &key, stored)?;
                    }
                } else if let Some(evaluated) = evaluated {
                    applier.put_news(&key, stored, evaluated);
                } else {
                    applier.evaluate_news(table, &key, stored)?;
                }
            }
            row_count += 1;
            last = Some(key);
        }
        Ok((row_count, last))
    }
}

/// A stored row with what is new. The inner result is the store's; `None` for a row that is not complete.
fn news(
    layouts: &[Arc<Layout>],
    key: &RowKey,
    stored: &StoredRow,
    scratch: &mut Scratch,
) -> Result<Result<Option<Evaluated>, StorageError>, Asked> {
    let Some((number, image)) = Image::decode(&stored.image) else { return Ok(Err(damaged_image())) };
    let Image::Complete(row) = image else { return Ok(Ok(None)) };
    let Some(layout) = layouts.get(number) else { return Ok(Err(damaged_image())) };
    Evaluated::of_news(layout, key, &row, stored, &mut NoLookups, scratch).map(|evaluated| Ok(Some(evaluated)))
}

/// Rows that were committed since a page was asked for. Locked for one look at a time.
#[derive(Debug, Default)]
pub(super) struct Touched(Mutex<Option<Since>>);

#[derive(Debug)]
struct Since {
    start: PageStart,
    /// `None`: too many to be worth it.
    rows: Option<HashSet<RowKey>>,
}

/// More rows than these make a page worthless.
const TOUCHED_MAX: usize = 2_000;

impl Touched {
    /// Notes rows behind `start` from now on.
    pub(super) fn begin(&self, start: PageStart) {
        *self.since() = Some(Since { start, rows: Some(HashSet::new()) });
    }

    /// To be called with the rows of every commit, before it.
    pub(super) fn note(&self, committed: &[(RowKey, Option<StoredRow>)]) {
        let mut since = self.since();
        let Some(Since { start, rows: noted }) = since.as_mut() else { return };
        let Some(rows) = noted else { return };
        let is_behind =
            |key: &&RowKey| key.table == start.table && start.after.as_ref().is_none_or(|after| after < *key);
        for key in committed.iter().map(|(key, _)| key).filter(is_behind) {
            if rows.len() == TOUCHED_MAX {
                *noted = None;
                return;
            }
            rows.insert(key.clone());
        }
    }

    /// What was touched behind `start` since [`Self::begin`], which ends with it; `None` if that is not known.
    pub(super) fn take(&self, start: &PageStart) -> Option<HashSet<RowKey>> {
        self.since().take().filter(|since| since.start == *start)?.rows
    }

    fn since(&self) -> MutexGuard<'_, Option<Since>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
