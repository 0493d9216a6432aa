//! Whatever is committed while a page waits, clients end with what the rules say.

use std::collections::BTreeSet;

use kairos_sync_protocol::BucketName;
use kairos_sync_rules::compile;
use proptest::prelude::*;

use super::*;
use crate::{
    lsn::Lsn,
    replication::{
        apply::tests::{COMPLETIONS, Change, HABITS, Model, RULES, apply, change, client_rows, parts, state},
        plans::Plans,
        relations::Relations,
    },
    storage::{Batch, MemoryStore},
};

/// A store that is being built, and what it is to have.
struct Build<'b> {
    store: &'b MemoryStore,
    relations: &'b Relations<'b>,
    touched: Touched,
    part: PartSize,
    model: Model,
    buckets: BTreeSet<BucketName>,
    commit_count: u64,
}

impl Build<'_> {
    fn commit(&mut self, applier: Applier<'_>) {
        for batch in parts(self.store, self.relations, applier, self.part) {
            self.commit_count += 1;
            self.touched.note(&batch.rows);
            let batch = Batch { visible_at: Some(Lsn::new(self.commit_count)), ..batch };
            let growths = self.store.commit(batch).expect("commits").buckets;
            self.buckets.extend(growths.into_iter().map(|growth| growth.bucket));
        }
    }

    fn stream(&mut self, changes: &[Change]) {
        let store = self.store;
        let mut applier = Applier::new(store);
        for change in changes {
            if let Some(change) = self.model.change(change) {
                apply(&mut applier, self.relations, change);
            }
        }
        self.commit(applier);
    }

    /// Builds a table; the stream comes between any two pages, after the second was read.
    fn table(&mut self, oid: u32, rows: usize, streamed: &mut impl Iterator<Item = Vec<Change>>) {
        let (store, relations) = (self.store, self.relations);
        let table = relations.by_oid(oid).expect("a table of the test");
        let size = PageSize { rows, bytes: usize::MAX, part: self.part };
        let read = |start| Page::read(store, table.layouts(), start, size);
        let (mut start, mut ahead) = (PageStart { table: table.id, after: None }, None);
        loop {
            let (page, touched) = Page::at(start, ahead.take(), &self.touched, read).expect("a page");
            if let Some(next) = page.next() {
                self.touched.begin(next.clone());
                ahead = Some(read(next).expect("a page"));
            }
            let mut applier = Applier::new(store);
            let (_, last) = page.apply(store, &mut applier, Some(table), &touched, self.part).expect("applies");
            self.commit(applier);
            self.stream(&streamed.next().unwrap_or_default());
            if last.is_none() {
                return;
            }
            start = PageStart { table: table.id, after: last };
        }
    }

    /// User, table and id of all that clients have of a definition.
    fn found(&self, definition: &str, prefix: &str) -> BTreeSet<(String, String, String)> {
        let mut found = BTreeSet::new();
        for bucket in &self.buckets {
            let Some(name) = bucket.as_str()[prefix.len()..].strip_prefix(definition) else { continue };
            let user: String = name.chars().filter(char::is_ascii_digit).collect();
            found.extend(client_rows(self.store, bucket).into_iter().map(|(table, id)| (user.clone(), table, id)));
        }
        found
    }
}

proptest! {
    /// Rows of habits are evaluated ahead, those of completions ask a lookup.
    #[test]
    fn what_is_committed_while_a_page_waits_counts(
        before in prop::collection::vec(change(), 1..30),
        meanwhile in prop::collection::vec(prop::collection::vec(change(), 0..6), 1..12),
        page_rows in 1..4_usize,
        part_rows in 1..20_usize,
    ) {
        let serving = compile(RULES, "public").plan.expect("valid rules");
        let building = compile(&RULES.replace("user_data", "built"), "public").plan.expect("valid rules");
        let (one, both) = (Plans::one(serving.clone()), Plans::both(serving, building));
        let store = MemoryStore::new();
        let prefix = store.bucket_prefix().expect("a prefix");
        let relations = |plans| Relations::new(plans, prefix.clone(), &state().tables, BTreeSet::new());
        let (served, built) = (relations(&one), relations(&both));
        let part = PartSize { bytes: usize::MAX, rows: part_rows };
        let (touched, model, buckets) = (Touched::default(), Model::default(), BTreeSet::new());
        let mut build = Build { store: &store, relations: &served, touched, part, model, buckets, commit_count: 0 };
        build.stream(&before);
        build.relations = &built;
        let mut streamed = meanwhile.into_iter();
        build.table(HABITS, page_rows, &mut streamed);
        build.table(COMPLETIONS, page_rows, &mut streamed);
        prop_assert_eq!(build.found("user_data", &prefix), build.model.expected());
        prop_assert_eq!(build.found("built", &prefix), build.model.expected());
    }
}

#[test]
fn only_rows_behind_the_beginning_are_noted_and_not_too_many() {
    let row = |table, number: u32| RowKey { table: TableId(table), identity: Arc::from(number.to_be_bytes()) };
    let start = PageStart { table: TableId(1), after: Some(row(1, 5)) };
    let touched = Touched::default();
    touched.begin(start.clone());
    touched.note(&[(row(1, 5), None), (row(1, 6), None), (row(2, 7), None)]);
    touched.note(&[(row(1, 9), Some(StoredRow::default()))]);
    assert_eq!(touched.take(&start), Some(HashSet::from([row(1, 6), row(1, 9)])));
    assert_eq!(touched.take(&start), None, "it has ended");

    touched.begin(start.clone());
    touched.note(&[(row(1, 6), None)]);
    assert_eq!(touched.take(&PageStart { after: None, ..start.clone() }), None, "it is of another page");

    touched.begin(start.clone());
    let many = u32::try_from(TOUCHED_MAX).expect("a small number") + 1;
    touched.note(&(0..many).map(|number| (row(1, 6 + number), None)).collect::<Vec<_>>());
    assert_eq!(touched.take(&start), None);
}
