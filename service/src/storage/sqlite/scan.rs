//! Rows of a table with their states, in the order of their keys: one search for a page of them.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use rusqlite::Connection;

use super::{
    super::{RowKey, StorageError, StoredRow, TableId},
    Inner,
    runs::{list::RunList, read::MergedRuns},
};

/// Bounds of a page.
#[derive(Clone, Copy)]
struct PageSize {
    rows: usize,
    bytes: usize,
}

/// What runs have for a page.
#[derive(Default)]
struct Placed {
    states: Vec<(RowKey, Bytes)>,
    /// The page's bytes are full, and there may be more.
    is_cut: bool,
}

impl Inner {
    pub(super) fn stored_rows(
        &self,
        table: TableId,
        after: Option<&RowKey>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(RowKey, StoredRow)>, StorageError> {
        let size = PageSize { rows: limit, bytes: bytes_max };
        let (mut rows, mut goes_on) = self.page(table, after, size)?;
        // All that was placed may be forgotten in the tail.
        while let (true, Some(last)) = (rows.is_empty(), goes_on.take()) {
            (rows, goes_on) = self.page(table, Some(&last), size)?;
        }
        Ok(rows)
    }

    /// Also gives the last row of the page, there or not, if more may follow.
    #[expect(clippy::type_complexity, reason = "rows, and where they end")]
    fn page(
        &self,
        table: TableId,
        after: Option<&RowKey>,
        size: PageSize,
    ) -> Result<(Vec<(RowKey, StoredRow)>, Option<RowKey>), StorageError> {
        // The tail first, as for operations. What it has is newer than what is placed, and it may have forgotten a row.
        let first = RowKey { table, identity: [].into() };
        let start = after.map_or(Bound::Included(&first), Bound::Excluded);
        let mut recent = self.tail_read().rows.states(table, start, size.rows);
        let forgotten = recent.values().filter(|state| state.is_none()).count();
        let size_placed = PageSize { rows: size.rows.saturating_add(forgotten), ..size };
        let known = self.runs.list();
        let Placed { states, is_cut } = placed_states(self.reader()?.conn(), &known, table, start, size_placed)?;
        let last = states.last().filter(|_| is_cut).map(|(key, _)| key.clone());
        if let Some(last) = &last {
            recent.retain(|key, _| key <= last);
        }
        let mut merged: BTreeMap<_, _> = states.into_iter().map(|(key, state)| (key, Some(state))).collect();
        merged.extend(recent);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (key, state) in merged {
            let Some(state) = state else { continue };
            bytes += state.len();
            rows.push((key, self.decode_row(&state)?));
            if rows.len() == size.rows || bytes >= size.bytes {
                break;
            }
        }
        Ok((rows, last))
    }
}

fn placed_states(
    conn: &Connection,
    known: &RunList,
    table: TableId,
    start: Bound<&RowKey>,
    size: PageSize,
) -> Result<Placed, StorageError> {
    // One state: a merge deletes blocks. The connection ends it when it goes back.
    conn.execute_batch("BEGIN")?;
    let mut rows = MergedRuns::of_all(conn, &RunList::load_with(conn, known)?, start)?;
    let (mut placed, mut bytes) = (Placed::default(), 0);
    while placed.states.len() < size.rows
        && let Some(key) = rows.row_key().filter(|key| key.table == table)
    {
        if let Some(state) = rows.shared_state() {
            bytes += state.len();
            placed.states.push((key, state));
        }
        if bytes >= size.bytes {
            placed.is_cut = true;
            break;
        }
        rows.advance()?;
    }
    Ok(placed)
}
