//! How far the copies of tables are: for status, metrics and progress bars. Pure.

use serde::{Deserialize, Serialize};

/// What the copy of a table does at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CopyStage {
    /// Nothing: it is not its turn, or the stream has not come to where it begins.
    #[default]
    Waiting,
    /// It waits until the stream has passed the snapshots it wants to read in: the stream is behind.
    WaitingForStream,
    /// It reads rows.
    Copying,
    /// All pages are read. Rows that are gone are forgotten, and single rows fetched.
    Finishing,
}

/// How far the copy of a table is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// Schema and name.
    pub table: String,
    /// What it does.
    pub stage: CopyStage,
    /// Rows read since the copy began or went on.
    pub rows_done: u64,
    /// Rows the source believes the table has; may be far off.
    pub rows_estimated: u64,
    /// Bytes of the table's pages that are copied, those of earlier runs included.
    pub bytes_done: u64,
    /// Bytes of all its pages; of a table that waits, with those of its indexed and large values.
    pub bytes_total: u64,
    /// Seconds the rest will take at the speed so far; `None` before anything can be said.
    pub seconds_left: Option<u64>,
}

impl CopyStatus {
    /// Bytes still to be copied.
    pub fn bytes_left(&self) -> u64 {
        self.bytes_total.saturating_sub(self.bytes_done)
    }
}

/// The copy that runs: one that reads or wants to, else one that is almost over.
pub fn current(copies: &[CopyStatus]) -> Option<&CopyStatus> {
    let reads = |copy: &&CopyStatus| matches!(copy.stage, CopyStage::Copying | CopyStage::WaitingForStream);
    copies.iter().find(reads).or_else(|| copies.iter().find(|copy| copy.stage == CopyStage::Finishing))
}

/// Seconds until all is copied, if the other tables are as fast as the one being copied; `None` before anything can be
/// said.
pub fn seconds_left(copies: &[CopyStatus]) -> Option<u64> {
    let (current, seconds) = copies.iter().find_map(|copy| Some((copy, copy.seconds_left?)))?;
    let left: u64 = copies.iter().map(CopyStatus::bytes_left).sum();
    let estimate = u128::from(seconds) * u128::from(left) / u128::from(current.bytes_left().max(1));
    u64::try_from(estimate).ok().filter(|_| current.bytes_left() > 0)
}

/// Takes in which tables are being copied, in the order of the work, and whether all pages of each are read. What was
/// known of them stays.
pub(super) fn follow(copies: &mut Vec<CopyStatus>, tables: impl Iterator<Item = (String, bool)>) {
    let mut known = std::mem::take(copies);
    for (table, is_read) in tables {
        let place = known.iter().position(|copy| copy.table == table);
        let mut copy = place.map(|place| known.swap_remove(place)).unwrap_or_default();
        copy.table = table;
        if is_read {
            (copy.stage, copy.bytes_done, copy.seconds_left) = (CopyStage::Finishing, copy.bytes_total, None);
        } else if copy.stage == CopyStage::Finishing {
            copy = CopyStatus { table: copy.table, ..CopyStatus::default() };
        }
        copies.push(copy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(table: &str, bytes_done: u64, bytes_total: u64, seconds_left: Option<u64>) -> CopyStatus {
        let stage = if seconds_left.is_some() { CopyStage::Copying } else { CopyStage::Waiting };
        CopyStatus { table: table.to_owned(), stage, bytes_done, bytes_total, seconds_left, ..CopyStatus::default() }
    }

    #[test]
    fn all_tables_take_as_long_as_the_one_being_copied_says() {
        let [current, waiting] = [copy("a", 50, 100, Some(10)), copy("b", 0, 150, None)];
        assert_eq!(seconds_left(&[current.clone(), waiting.clone()]), Some(40));
        assert_eq!(seconds_left(&[waiting]), None);
        assert_eq!(seconds_left(&[copy("a", 100, 100, Some(0))]), None, "what is left cannot be foreseen");
    }

    #[test]
    fn the_copy_that_reads_is_the_current_one() {
        let staged = |table: &str, stage| CopyStatus { stage, ..copy(table, 0, 0, None) };
        let finishing = staged("a", CopyStage::Finishing);
        let copies = [finishing.clone(), staged("b", CopyStage::Waiting), staged("c", CopyStage::Copying)];
        assert_eq!(current(&copies), Some(&copies[2]));
        assert_eq!(current(&copies[..2]), Some(&finishing));
        assert_eq!(current(&copies[1..2]), None);
    }

    #[test]
    fn what_is_known_of_a_table_stays_until_its_copy_is_over_or_begun_anew() {
        let mut copies = vec![copy("a", 50, 100, Some(10)), copy("b", 0, 150, None)];
        let tables = |tables: &[(&str, bool)]| {
            tables.iter().map(|(table, is_read)| ((*table).to_owned(), *is_read)).collect::<Vec<_>>().into_iter()
        };
        follow(&mut copies, tables(&[("c", false), ("a", false)]));
        assert_eq!(copies, [copy("c", 0, 0, None), copy("a", 50, 100, Some(10))]);
        follow(&mut copies, tables(&[("a", true)]));
        assert_eq!((copies[0].stage, copies[0].bytes_left(), copies[0].seconds_left), (CopyStage::Finishing, 0, None));
        follow(&mut copies, tables(&[("a", false)]));
        assert_eq!(copies, [copy("a", 0, 0, None)]);
        follow(&mut copies, tables(&[]));
        assert!(copies.is_empty());
    }
}
