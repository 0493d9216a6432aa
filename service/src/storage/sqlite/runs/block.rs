//! Rows one after the other, in the order of their keys: what blocks of runs, and records of the tail, are made of.
//!
//! ```text
//! entry = table (number), identity (bytes), whether the row is there (number, 0 or 1), its state (bytes, empty if it is not)
//! ```

use std::ops::Range;

use bytes::{BufMut, Bytes};

use super::super::{
    super::{RowKey, StorageError, TableId},
    codec::{Reader, put_bytes, put_number},
    rows::RowState,
};

/// Names the records in errors.
const ROWS: &str = "row store";

/// Appends an entry; without a state it says that the row is gone.
pub(in super::super) fn put_entry(out: &mut impl BufMut, table: TableId, identity: &[u8], state: Option<&[u8]>) {
    put_number(out, table.0.into());
    put_bytes(out, identity);
    put_number(out, state.is_some().into());
    put_bytes(out, state.unwrap_or_default());
}

/// Entries, one after the other, of which one at a time is looked at.
#[derive(Debug, Default)]
pub(in super::super) struct Entries {
    content: Bytes,
    next: usize,
    current: Option<Entry>,
}

/// Where the parts of an entry are.
#[derive(Debug)]
struct Entry {
    table: TableId,
    identity: Range<usize>,
    state: Option<Range<usize>>,
}

impl Entries {
    /// None of them is looked at yet.
    pub(in super::super) fn of(content: Bytes) -> Self {
        Self { content, next: 0, current: None }
    }

    /// Goes on to the next entry; `false` if there is none.
    pub(in super::super) fn advance(&mut self) -> Result<bool, StorageError> {
        self.current = None;
        let rest = self.content.get(self.next..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(false);
        }
        let mut reader = Reader::new(rest, ROWS);
        let place = |rest: usize, length: usize| {
            let end = self.content.len() - rest;
            end - length..end
        };
        let table = TableId(u32::try_from(reader.number()?).map_err(|_| reader.damaged())?);
        let identity = reader.bytes()?.len();
        let identity = place(reader.remaining(), identity);
        let is_there = match reader.number()? {
            0 => false,
            1 => true,
            _ => return Err(reader.damaged()),
        };
        let state = reader.bytes()?.len();
        let state = place(reader.remaining(), state);
        self.next = state.end;
        self.current = Some(Entry { table, identity, state: is_there.then_some(state) });
        Ok(true)
    }

    /// Whether no entry follows.
    pub(in super::super) fn is_last(&self) -> bool {
        self.next == self.content.len()
    }

    /// Of the current entry.
    pub(in super::super) fn key(&self) -> Option<(TableId, &[u8])> {
        self.current.as_ref().map(|entry| (entry.table, &self.content[entry.identity.clone()]))
    }

    /// Of the current entry, in memory of its own.
    pub(in super::super) fn row_key(&self) -> Option<RowKey> {
        self.key().map(|(table, identity)| RowKey { table, identity: identity.into() })
    }

    /// Of the current entry; `None` if the row is gone.
    pub(in super::super) fn state(&self) -> Option<&[u8]> {
        self.current.as_ref()?.state.clone().map(|state| &self.content[state])
    }

    /// As [`Self::state`], sharing the memory of all entries.
    pub(in super::super) fn shared_state(&self) -> RowState {
        self.current.as_ref()?.state.clone().map(|state| self.content.slice(state))
    }

    /// Bytes of all entries.
    pub(in super::super) fn content(&self) -> &Bytes {
        &self.content
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts = (u32, Vec<u8>, Option<Vec<u8>>);

    fn all(content: Bytes) -> Result<Vec<Parts>, StorageError> {
        let (mut entries, mut all) = (Entries::of(content), Vec::new());
        while entries.advance()? {
            let (table, identity) = entries.key().unwrap();
            assert_eq!(entries.shared_state().as_deref(), entries.state());
            all.push((table.0, identity.to_vec(), entries.state().map(<[u8]>::to_vec)));
        }
        assert_eq!((entries.key(), entries.state()), (None, None));
        Ok(all)
    }

    proptest! {
        #[test]
        fn entries_round_trip(rows in prop::collection::vec(any::<(u32, Vec<u8>, Option<Vec<u8>>)>(), 0..20)) {
            let mut content = Vec::new();
            for (table, identity, state) in &rows {
                put_entry(&mut content, TableId(*table), identity, state.as_deref());
            }
            prop_assert_eq!(all(content.into()).unwrap(), rows);
        }

        #[test]
        fn no_bytes_make_it_panic(content: Vec<u8>) {
            let _ = all(content.into());
        }
    }
}
