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
    /// What it becomes; no other row has its key, and no rule joins it with others.
    Alone(Evaluated),
    /// The row alone: its rules ask lookups, which only the worker can answer.
    Image(Bytes),
}

impl CopiedRow {
    /// The row, complete, under the layout it was read in.
    pub(in super::super) fn image(&self) -> &Bytes {
        match &self.found {
            Found::Evaluated(evaluated) | Found::Alone(evaluated) => &evaluated.stored.image,
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
        if asks_lookups {
            return Ok(CopiedRow { key, found: Found::Image(image) });
        }
        let Ok(evaluated) = Evaluated::of(layout, &key, &row, image, &mut NoLookups, &mut scratch) else {
            asks_lookups = true;
            return Ok(CopiedRow { key, found: Found::Image(row.encode(layout.number)) });
        };
        let is_alone = layout.has_unique_keys && evaluated.stored.is_in_no_join();
        let found = if is_alone { Found::Alone(evaluated) } else { Found::Evaluated(evaluated) };
        Ok(CopiedRow { key, found })
    };
    lines.into_iter().map(&mut read).collect()
}

fn split<'l>(layout: &Layout, line: &'l [u8]) -> Result<CompleteRow<Cow<'l, [u8]>>, ReplicationError> {
    let mut values = Vec::with_capacity(layout.column_count());
    values.extend(fields(line));
    if values.len() == layout.column_count() {
        Ok(CompleteRow(values))
    } else {
        Err(ReplicationError::RowShape { table: format!("{}.{}", layout.schema, layout.name) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kairos_sync_rules::compile;

    use super::*;
    use crate::{
        replication::{
            apply::{
                Applier,
                tests::{HABITS, state},
            },
            copy::ledger::Verdict,
            plans::Plans,
            relations::Relations,
        },
        storage::{Batch, MemoryStore},
    };

    /// What copied rows of a table with these identifying columns become, and whether they were found to stand alone.
    fn copy(rules: &str, identity: &[&str], lines: &[&'static str], verdict: Verdict) -> (Batch, bool) {
        let plans = Plans::one(compile(rules, "public").plan.expect("valid rules"));
        let mut tables = state().tables;
        tables[0].identity = identity.iter().map(|name| (*name).to_owned()).collect();
        let relations = Relations::new(&plans, String::new(), &tables, BTreeSet::new());
        let table = relations.by_oid(HABITS).expect("a table of the test");
        let layout = table.layout(table.current_layout()).expect("a layout");
        let rows = read_rows(layout, lines.iter().map(|line| Bytes::from(*line)).collect()).expect("rows");
        let are_alone = rows.iter().all(|row| matches!(row.found, Found::Alone(_)));
        let store = MemoryStore::new();
        let mut applier = Applier::new(&store);
        for row in rows {
            assert!(applier.copied(table, row, verdict).expect("applies"));
        }
        (applier.finish(), are_alone)
    }

    const PLAIN: &str = "bucket_definitions: { all: { data: ['SELECT id, user_id FROM habits'] } }";

    #[test]
    fn a_row_that_stands_alone_is_stored_as_any_other() {
        let lines = ["a\tada", "b\tbob"];
        let (alone, are_alone) = copy(PLAIN, &["id"], &lines, Verdict::New);
        assert!(are_alone);
        let (compared, _) = copy(PLAIN, &["id"], &lines, Verdict::Compare);
        assert_eq!((alone.operations.len(), alone.rows.len()), (2, 2));
        assert_eq!((alone.operations, alone.rows), (compared.operations, compared.rows));
    }

    #[test]
    fn equal_rows_of_a_table_without_a_key_are_one() {
        let (batch, are_alone) = copy(PLAIN, &["id", "user_id"], &["a\tada", "a\tada"], Verdict::New);
        assert!(!are_alone);
        assert_eq!(batch.rows.len(), 1);
    }

    #[test]
    fn a_row_that_others_join_does_not_stand_alone() {
        let joined = "bucket_definitions:
          mine:
            parameters: SELECT id AS habit FROM habits WHERE user_id = request.user_id()
            data: ['SELECT id, user_id FROM habits WHERE id = bucket.habit']";
        let (batch, are_alone) = copy(joined, &["id"], &["a\tada"], Verdict::New);
        assert!(!are_alone);
        assert_eq!((batch.rows.len(), batch.lookups.len()), (1, 1));
    }
}
