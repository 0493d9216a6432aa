//! The newest states of source rows, in memory by key. The same states are durable in table `row_tail`.
//!
//! Collected until they are enough for a run, in which a row that changes often is written once.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::{Bound, Range},
};

use bytes::Bytes;
use rusqlite::Connection;

use super::{
    super::{RowKey, StorageError, TableId},
    block,
    chain::Chain,
    codec::{put_bytes, put_number},
    head::{Head, number},
    runs::block::Entries,
};

/// The encoded state of a row; `None` forgets the row.
pub(super) type RowState = Option<Bytes>;

/// Names the records in errors.
const ROWS: &str = "row store";

/// Rows whose state is not yet in a run, or is so for an instant.
#[derive(Debug, Default)]
pub(super) struct RecentRows {
    rows: BTreeMap<RowKey, RecentRow>,
    bytes: usize,
}

#[derive(Debug)]
struct RecentRow {
    /// Version of the head that brought it.
    version: u64,
    state: RowState,
}

impl RecentRow {
    fn bytes(&self, key: &RowKey) -> usize {
        key.identity.len() + self.state.as_ref().map_or(0, Bytes::len) + size_of::<(RowKey, Self)>()
    }
}

impl RecentRows {
    /// Reads the states of a store that is being opened. Those a fold had already written are read again: writing them
    /// twice does no harm.
    pub(super) fn load(conn: &Connection, head: &Head) -> Result<Self, StorageError> {
        let mut recent = Self::default();
        let mut chain = Chain::default();
        let mut statement = conn.prepare("SELECT version, block FROM row_tail ORDER BY version")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let version = number(row, 0)?;
            let (rows, versions) = decode(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
            chain.next(version, versions, head.folded_version)?;
            for (key, state) in rows {
                recent.insert(key, version, state);
            }
        }
        chain.end(head.row_tail_version, head.folded_version)?;
        Ok(recent)
    }

    pub(super) fn insert(&mut self, key: RowKey, version: u64, state: RowState) {
        let row = RecentRow { version, state };
        self.bytes += row.bytes(&key);
        match self.rows.entry(key) {
            Entry::Vacant(entry) => drop(entry.insert(row)),
            Entry::Occupied(mut entry) => {
                let older = entry.insert(row);
                self.bytes -= older.bytes(entry.key());
            }
        }
    }

    /// Forgets a state that is now in a run, unless a newer version came meanwhile.
    pub(super) fn remove(&mut self, key: &RowKey, upto: u64) {
        if let Entry::Occupied(entry) = self.rows.entry(key.clone())
            && entry.get().version <= upto
        {
            self.bytes -= entry.remove().bytes(key);
        }
    }

    /// `None` if runs have the state.
    pub(super) fn get(&self, key: &RowKey) -> Option<RowState> {
        self.rows.get(key).map(|row| row.state.clone())
    }

    /// The states of those that are there.
    pub(super) fn present(&self) -> impl Iterator<Item = Bytes> {
        self.rows.values().filter_map(|row| row.state.clone())
    }

    /// Those that are there, and those that are not.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RowKey, &RowState)> {
        self.rows.iter().map(|(key, row)| (key, &row.state))
    }

    /// Whether the row is there; `None` if runs know.
    pub(super) fn is_there(&self, key: &RowKey) -> Option<bool> {
        self.rows.get(key).map(|row| row.state.is_some())
    }

    /// Whether there are rows with these keys, or keys between them.
    pub(super) fn has_between(&self, first: &RowKey, last: &RowKey) -> bool {
        first <= last && self.rows.range(first..=last).next().is_some()
    }

    /// The first states, of versions up to this one.
    pub(super) fn slice(&self, upto: u64, limit: usize) -> Vec<(RowKey, RowState)> {
        let rows = self.rows.iter().filter(|(_, row)| row.version <= upto);
        rows.take(limit).map(|(key, row)| (key.clone(), row.state.clone())).collect()
    }

    /// The newest states of a table's rows from a key on: at most so many rows that are there, and those forgotten between.
    pub(super) fn states(&self, table: TableId, start: Bound<&RowKey>, limit: usize) -> BTreeMap<RowKey, RowState> {
        let mut left = limit;
        let rows = self.rows.range((start, Bound::Unbounded)).take_while(|(key, row)| {
            let is_wanted = key.table == table && left > 0;
            left -= usize::from(is_wanted && row.state.is_some());
            is_wanted
        });
        rows.map(|(key, row)| (key.clone(), row.state.clone())).collect()
    }

    /// What a page of a table's keys must take from here.
    pub(super) fn page(&self, table: TableId, start: Bound<&RowKey>, limit: usize) -> RecentPage {
        let mut page = RecentPage::default();
        let rows = self.rows.range((start, Bound::Unbounded)).take_while(|(key, _)| key.table == table);
        for (key, row) in rows {
            if page.present.len() == limit {
                break;
            }
            let keys = if row.state.is_some() { &mut page.present } else { &mut page.forgotten };
            keys.insert(key.clone());
        }
        page
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Keys that a page of the runs does not have, or has no longer.
#[derive(Debug, Default)]
pub(super) struct RecentPage {
    pub(super) present: BTreeSet<RowKey>,
    pub(super) forgotten: BTreeSet<RowKey>,
}

/// What a commit did to rows.
pub(super) type RowStates = Vec<(RowKey, RowState)>;

/// The record of one commit's rows, and their states, which share one buffer.
#[derive(Debug, Default)]
pub(super) struct RowsBuilder {
    content: Vec<u8>,
    /// Keys, and where their states begin and end.
    rows: Vec<(RowKey, Option<Range<usize>>)>,
    /// Memory used again for every state, whose length is written before it.
    state: Vec<u8>,
}

impl RowsBuilder {
    /// Adds a row whose state `write` appends, or one that is forgotten.
    pub(super) fn push(&mut self, key: RowKey, write: Option<impl FnOnce(&mut Vec<u8>)>) {
        put_number(&mut self.content, u64::from(key.table.0));
        put_bytes(&mut self.content, &key.identity);
        put_number(&mut self.content, u64::from(write.is_some()));
        self.state.clear();
        let is_there = write.map(|write| write(&mut self.state)).is_some();
        put_bytes(&mut self.content, &self.state);
        let end = self.content.len();
        self.rows.push((key, is_there.then_some(end - self.state.len()..end)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The record of this version, which follows that of another.
    pub(super) fn finish(mut self, version: u64, previous: u64) -> Result<(Vec<u8>, RowStates), StorageError> {
        self.content.extend_from_slice(&version.to_le_bytes());
        self.content.extend_from_slice(&previous.to_le_bytes());
        let record = block::pack(&self.content)?;
        let content = Bytes::from(self.content);
        let state = |(key, range): (RowKey, Option<Range<usize>>)| (key, range.map(|range| content.slice(range)));
        Ok((record, self.rows.into_iter().map(state).collect()))
    }
}

/// The rows of a record, its version, and that of the record before it.
fn decode(record: &[u8]) -> Result<(RowStates, [u64; 2]), StorageError> {
    let mut content = block::unpack(record)?;
    let (_, versions) =
        content.split_last_chunk::<16>().ok_or_else(|| StorageError::Damaged { what: ROWS.to_owned() })?;
    let (versions, _) = versions.as_chunks::<8>();
    let versions = [0, 1].map(|at| versions.get(at).copied().map(u64::from_le_bytes).unwrap_or_default());
    content.truncate(content.len() - 16);
    Ok((decode_content(&content)?, versions))
}

/// The rows of a record without versions.
pub(super) fn decode_content(content: &Bytes) -> Result<RowStates, StorageError> {
    let (mut entries, mut rows) = (Entries::of(content.clone()), Vec::new());
    while entries.advance()? {
        rows.extend(entries.row_key().map(|key| (key, entries.shared_state())));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(table: u32, identity: &str) -> RowKey {
        RowKey { table: TableId(table), identity: identity.as_bytes().into() }
    }

    #[test]
    fn rows_round_trip() {
        let rows =
            [(key(1, "a"), Some(Bytes::from_static(b"state"))), (key(2, ""), None), (key(3, "b"), Some(Bytes::new()))];
        let mut builder = RowsBuilder::default();
        for (key, state) in rows.clone() {
            builder.push(key, state.map(|state| move |out: &mut Vec<u8>| out.extend_from_slice(&state)));
        }
        let (record, states) = builder.finish(7, 5).unwrap();
        assert_eq!(states, rows);
        assert_eq!(decode(&record).unwrap(), (rows.to_vec(), [7, 5]));
    }

    #[test]
    fn a_newer_state_is_not_forgotten_with_the_older_one() {
        let mut recent = RecentRows::default();
        recent.insert(key(1, "a"), 5, Some(Bytes::from_static(b"old")));
        recent.insert(key(1, "a"), 7, Some(Bytes::from_static(b"newer")));
        recent.insert(key(1, "b"), 6, None);
        assert_eq!(recent.slice(6, 9), [(key(1, "b"), None)]);
        recent.remove(&key(1, "a"), 6);
        assert_eq!(recent.get(&key(1, "a")), Some(Some(Bytes::from_static(b"newer"))));
        recent.remove(&key(1, "a"), 7);
        recent.remove(&key(1, "b"), 7);
        assert_eq!((recent.len(), recent.bytes()), (0, 0));
    }
}
