//! What the stream did to tables while they are being copied: decides which copied rows still count.
//!
//! Rows are read in snapshots of the source, and only once the stream has passed the snapshot. So a copied row is the row
//! as the stream left it, unless the stream has touched it since the snapshot was announced: then the stream knows
//! better. Announced means before the snapshot was taken, so nothing falls between the two.
//!
//! Pure: no store, no source.

use std::collections::{HashMap, VecDeque};

use crate::storage::{RowKey, TableId};

/// Keys remembered for one table. More make the snapshots being read worthless.
const KEYS_MAX: usize = 100_000;
/// Transactions remembered. A transaction is visible to others a moment after its commit is in the stream; there cannot
/// be more in between than there are connections.
const RECENT_MAX: usize = 4_096;

/// What the stream did, by table.
#[derive(Debug, Default)]
pub(in super::super) struct Ledger {
    tables: HashMap<TableId, TableLedger>,
    /// The latest transactions applied.
    recent: VecDeque<u32>,
    /// The last snapshot's number, never used twice: those of a copy that was begun anew must not be taken for others.
    last_snapshot: u64,
}

/// What the stream did to a table since its copy began in this process.
#[derive(Debug)]
struct TableLedger {
    /// Number of the last change or snapshot.
    clock: u64,
    touched: HashMap<RowKey, Touch>,
    /// When all rows were removed at once, or when keys had to be forgotten.
    all_touched_at: u64,
    /// Those being read.
    snapshots: HashMap<SnapshotId, Snapshot>,
    /// Whether a row that was never touched cannot be stored yet.
    knows_all: bool,
    /// Whether rows of this copy are stored.
    has_rows: bool,
}

#[derive(Debug)]
struct Touch {
    at: u64,
    /// Whether, since the copy began, another row may have had this key.
    may_be_another: bool,
}

/// A row which the stream changed.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Touched {
    pub(in super::super) key: RowKey,
    /// Whether it had another key before.
    pub(in super::super) has_moved_here: bool,
}

/// Names a snapshot within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) struct SnapshotId(u64);

#[derive(Debug)]
struct Snapshot {
    begun_at: u64,
    /// A row of it was lost: what does not count yet must be read in another one.
    is_spoiled: bool,
}

/// What to do with a copied row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Verdict {
    /// It cannot be stored yet: write it.
    New,
    /// It may be stored: compare.
    Compare,
    /// The stream has touched it since: take from it at most what the stream did not send.
    Complete,
    /// It says nothing any more.
    Skip,
}

impl Ledger {
    /// A transaction was applied.
    pub(in super::super) fn applied(&mut self, xid: u32) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(xid);
    }

    /// The latest transactions applied: a snapshot in which one of them still runs is too old.
    pub(in super::super) fn recent(&self) -> Vec<u32> {
        self.recent.iter().copied().collect()
    }

    /// A table's copy begins or goes on; `is_empty` says that no row of the table is stored, `has_rows` that pages were
    /// copied already.
    pub(in super::super) fn begin_table(&mut self, table: TableId, is_empty: bool, has_rows: bool) {
        let ledger = TableLedger {
            clock: 0,
            touched: HashMap::new(),
            all_touched_at: 0,
            snapshots: HashMap::new(),
            knows_all: is_empty,
            has_rows,
        };
        self.tables.insert(table, ledger);
    }

    /// Its copy has ended.
    pub(in super::super) fn end_table(&mut self, table: TableId) {
        self.tables.remove(&table);
    }

    /// Whether rows of the copy are stored: then what is older cannot be told apart from what is newer any more.
    pub(in super::super) fn has_rows(&self, table: TableId) -> bool {
        self.tables.get(&table).is_some_and(|ledger| ledger.has_rows)
    }

    /// The stream changed a row.
    pub(in super::super) fn touch(&mut self, Touched { key, has_moved_here }: Touched) {
        let Some(ledger) = self.tables.get_mut(&key.table) else { return };
        ledger.clock += 1;
        let at = ledger.clock;
        let touch = ledger.touched.entry(key).or_insert(Touch { at, may_be_another: false });
        touch.at = at;
        touch.may_be_another |= has_moved_here;
        if ledger.touched.len() > KEYS_MAX {
            ledger.forget_old();
        }
    }

    /// The stream removed all rows of a table.
    pub(in super::super) fn truncate(&mut self, table: TableId) {
        if let Some(ledger) = self.tables.get_mut(&table) {
            ledger.clock += 1;
            ledger.all_touched_at = ledger.clock;
        }
    }

    /// The stream may have changed any row: what is being read must be read again.
    pub(in super::super) fn lost_track(&mut self) {
        self.tables.values_mut().for_each(TableLedger::lose_track);
    }

    /// A snapshot is about to be taken. `None` for a table that is not being copied.
    pub(in super::super) fn begin_snapshot(&mut self, table: TableId) -> Option<SnapshotId> {
        let ledger = self.tables.get_mut(&table)?;
        self.last_snapshot += 1;
        let id = SnapshotId(self.last_snapshot);
        ledger.clock += 1;
        ledger.snapshots.insert(id, Snapshot { begun_at: ledger.clock, is_spoiled: false });
        Some(id)
    }

    /// Whether rows of a snapshot still count.
    pub(in super::super) fn knows(&self, table: TableId, snapshot: SnapshotId) -> bool {
        self.tables.get(&table).is_some_and(|ledger| ledger.snapshots.contains_key(&snapshot))
    }

    /// What to do with a row of a snapshot.
    pub(in super::super) fn judge(&mut self, snapshot: SnapshotId, key: &RowKey) -> Verdict {
        let Some(ledger) = self.tables.get_mut(&key.table) else { return Verdict::Skip };
        let Some(snapshot) = ledger.snapshots.get(&snapshot) else { return Verdict::Skip };
        ledger.has_rows = true;
        if ledger.all_touched_at > snapshot.begun_at {
            return Verdict::Skip;
        }
        match ledger.touched.get(key) {
            Some(touch) if touch.at > snapshot.begun_at && touch.may_be_another => Verdict::Skip,
            Some(touch) if touch.at > snapshot.begun_at => Verdict::Complete,
            None if ledger.knows_all => Verdict::New,
            _ => Verdict::Compare,
        }
    }

    /// A row of a snapshot could not be stored.
    pub(in super::super) fn spoil(&mut self, table: TableId, snapshot: SnapshotId) {
        if let Some(snapshot) = self.tables.get_mut(&table).and_then(|ledger| ledger.snapshots.get_mut(&snapshot)) {
            snapshot.is_spoiled = true;
        }
    }

    /// Whether all rows that were read in a snapshot so far are stored.
    pub(in super::super) fn is_whole(&self, table: TableId, snapshot: SnapshotId) -> bool {
        let snapshot = self.tables.get(&table).and_then(|ledger| ledger.snapshots.get(&snapshot));
        snapshot.is_some_and(|snapshot| !snapshot.is_spoiled)
    }

    /// Nothing more is read in a snapshot.
    pub(in super::super) fn end_snapshot(&mut self, table: TableId, snapshot: SnapshotId) {
        if let Some(ledger) = self.tables.get_mut(&table) {
            ledger.snapshots.remove(&snapshot);
        }
    }
}

impl TableLedger {
    /// Forgets what no snapshot can meet any more; if that is not enough, those being read are worthless.
    fn forget_old(&mut self) {
        self.knows_all = false;
        let oldest = self.snapshots.values().map(|snapshot| snapshot.begun_at).min().unwrap_or(u64::MAX);
        self.touched.retain(|_, touch| touch.at > oldest);
        if self.touched.len() > KEYS_MAX / 2 {
            self.lose_track();
        }
    }

    fn lose_track(&mut self) {
        self.knows_all = false;
        self.touched.clear();
        self.snapshots.values_mut().for_each(|snapshot| snapshot.is_spoiled = true);
        self.all_touched_at = self.clock;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId(1);

    fn key(number: u32) -> RowKey {
        RowKey { table: TABLE, identity: number.to_be_bytes().into() }
    }

    fn ledger(is_empty: bool) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.begin_table(TABLE, is_empty, false);
        ledger
    }

    fn touched(number: u32) -> Touched {
        Touched { key: key(number), has_moved_here: false }
    }

    #[test]
    fn what_the_stream_touched_after_the_snapshot_was_announced_is_left_to_the_stream() {
        let mut ledger = ledger(true);
        ledger.touch(touched(1));
        let snapshot = ledger.begin_snapshot(TABLE).expect("it is being copied");
        ledger.touch(touched(2));
        ledger.touch(Touched { key: key(3), has_moved_here: true });
        ledger.touch(touched(3));
        let verdicts = [1, 2, 3, 4].map(|number| ledger.judge(snapshot, &key(number)));
        assert_eq!(verdicts, [Verdict::Compare, Verdict::Complete, Verdict::Skip, Verdict::New]);
        assert!(ledger.is_whole(TABLE, snapshot), "nothing was lost");
        ledger.touch(touched(4));
        assert_eq!(ledger.judge(snapshot, &key(4)), Verdict::Complete, "what follows is read in the same snapshot");
        ledger.end_snapshot(TABLE, snapshot);
        assert!(!ledger.is_whole(TABLE, snapshot) && !ledger.knows(TABLE, snapshot), "it has ended");
    }

    #[test]
    fn a_truncate_makes_snapshots_that_were_announced_before_worthless() {
        let mut ledger = ledger(true);
        let before = ledger.begin_snapshot(TABLE).expect("it is being copied");
        ledger.truncate(TABLE);
        let after = ledger.begin_snapshot(TABLE).expect("it is being copied");
        assert_eq!([before, after].map(|snapshot| ledger.judge(snapshot, &key(1))), [Verdict::Skip, Verdict::New]);
    }

    #[test]
    fn rows_of_before_are_compared() {
        let mut ledger = ledger(false);
        let snapshot = ledger.begin_snapshot(TABLE).expect("it is being copied");
        assert_eq!(ledger.judge(snapshot, &key(1)), Verdict::Compare);
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_taken_for_untouched() {
        let mut ledger = ledger(true);
        let snapshot = ledger.begin_snapshot(TABLE).expect("it is being copied");
        for number in 0..=u32::try_from(KEYS_MAX).expect("small") {
            ledger.touch(touched(number));
        }
        assert!(ledger.tables[&TABLE].touched.len() <= KEYS_MAX);
        assert_eq!(ledger.judge(snapshot, &key(0)), Verdict::Skip, "it was touched, though that was forgotten");
        assert!(!ledger.is_whole(TABLE, snapshot), "so another one is needed");
        let again = ledger.begin_snapshot(TABLE).expect("it is being copied");
        assert_eq!(ledger.judge(again, &key(0)), Verdict::Compare);
    }

    #[test]
    fn the_latest_transactions_are_remembered() {
        let mut ledger = Ledger::default();
        (0..10_000).for_each(|xid| ledger.applied(xid));
        assert_eq!(ledger.recent().len(), RECENT_MAX);
        assert!(ledger.recent().contains(&9_999));
    }
}
