//! Rows of a table with their states, in the order of their keys: one search for a page of them.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use rusqlite::Connection;

use super::{
    super::{RowKey, StorageError, StoredRow, TableId},
    Inner,
};

impl Inner {
    pub(super) fn stored_rows(
        &self,
        table: TableId,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, StoredRow)>, StorageError> {
        // The tail first, as for operations. What it has is newer than what is placed, and it may have forgotten a row.
        let first = RowKey { table, identity: [].into() };
        let start = after.map_or(Bound::Included(&first), Bound::Excluded);
        let recent = self.tail_read().rows.states(table, start, limit);
        let forgotten = recent.values().filter(|state| state.is_none()).count();
        let placed = {
            let reader = self.reader()?;
            let limit = limit.saturating_add(forgotten);
            placed_states(reader.conn(), table, after.map(|after| &*after.identity), limit)?
        };
        let mut states: BTreeMap<_, _> = placed.into_iter().map(|(key, state)| (key, Some(state))).collect();
        states.extend(recent);
        let there = states.into_iter().filter_map(|(key, state)| Some((key, state?)));
        there.take(limit).map(|(key, state)| Ok((key, self.decode_row(&state)?))).collect()
    }
}

fn placed_states(
    conn: &Connection,
    table: TableId,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<(RowKey, Bytes)>, StorageError> {
    let comparison = if after.is_some() { ">" } else { ">=" };
    let sql = format!(
        "SELECT identity, state FROM row WHERE table_id = ?1 AND identity {comparison} ?2 ORDER BY identity LIMIT ?3"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((table.0, after.unwrap_or_default(), limit))?;
    let mut states = Vec::new();
    while let Some(row) = rows.next()? {
        let blob = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
        let key = RowKey { table, identity: blob(0)?.into() };
        states.push((key, Bytes::copy_from_slice(blob(1)?)));
    }
    Ok(states)
}
