//! Rows as they were copied: taken apart and evaluated by the session that read them, as far as that needs no lookup.

use std::borrow::Cow;

use bytes::Bytes;
use kairos_sync_rules::Scratch;

use super::super::{
    error::ReplicationError, evaluated::Evaluated, image::CompleteRow, lookups::NoLookups, relations::Layout,
};
use crate::{postgres::copy::fields, storage::RowKey};

/// A row that was copied.
#[derive(Debug)]
pub(in super::super) struct CopiedRow {
    pub(in super::super) key: RowKey,
    pub(in super::super) found: Found,
}

/// What was found out about a row.
#[derive(Debug)]
pub(in super::super) enum Found {
    /// What it becomes.
    Evaluated(Evaluated),
    /// The row alone: its rules ask lookups, which only the worker can answer.
    Image(Bytes),
}

impl CopiedRow {
    /// The row, complete, under the layout it was read in.
    pub(in super::super) fn image(&self) -> &Bytes {
        match &self.found {
            Found::Evaluated(evaluated) => &evaluated.stored.image,
            Found::Image(image) => image,
        }
    }
}

/// Takes lines of a copy apart and evaluates their rows.
///
/// # Errors
/// [`ReplicationError::RowShape`] if a line has more or less values than the layout has columns.
pub(in super::super) fn read_rows(layout: &Layout, lines: Vec<Bytes>) -> Result<Vec<CopiedRow>, ReplicationError> {
    let mut scratch = Scratch::default();
    let mut asks_lookups = false;
    let mut read = |line: Bytes| {
        let row = split(layout, &line)?;
        let key = row.key(layout.table, &layout.identity);
        let image = row.encode(layout.number);
        // Once one has asked, others will.
        if !asks_lookups
            && let Ok(evaluated) = Evaluated::of(layout, &key, &row, image.clone(), &mut NoLookups, &mut scratch)
        {
            return Ok(CopiedRow { key, found: Found::Evaluated(evaluated) });
        }
        asks_lookups = true;
        Ok(CopiedRow { key, found: Found::Image(image) })
    };
    lines.into_iter().map(&mut read).collect()
}

fn split<'l>(layout: &Layout, line: &'l [u8]) -> Result<CompleteRow<Cow<'l, [u8]>>, ReplicationError> {
    let row = CompleteRow(fields(line).collect());
    if row.0.len() == layout.column_count() {
        Ok(row)
    } else {
        Err(ReplicationError::RowShape { table: format!("{}.{}", layout.schema, layout.name) })
    }
}
