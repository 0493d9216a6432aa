//! Blocks that follow each other: one that is missing, or out of its place, is noticed when all are read.

use super::super::StorageError;

/// Follows blocks in the order of their places. Each says where it is itself, and where the one before it was.
#[derive(Debug, Default)]
pub(super) struct Chain {
    last: Option<u64>,
}

impl Chain {
    /// A block that was found at this place, and what it says. Those up to `gone_upto` may be missing.
    pub(super) fn next(&mut self, place: u64, says: [u64; 2], gone_upto: u64) -> Result<(), StorageError> {
        let [own, previous] = says;
        let follows = self.last.map_or(previous <= gone_upto, |last| previous == last);
        self.last = Some(place);
        if own == place && follows { Ok(()) } else { Err(missing()) }
    }

    /// There are no more; the newest was written at this place.
    pub(super) fn end(&self, newest: u64, gone_upto: u64) -> Result<(), StorageError> {
        if self.last.map_or(newest <= gone_upto, |last| last == newest) { Ok(()) } else { Err(missing()) }
    }
}

fn missing() -> StorageError {
    StorageError::Damaged { what: "a part of the tail is missing".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follows(blocks: &[(u64, [u64; 2])], newest: u64, gone_upto: u64) -> bool {
        let mut chain = Chain::default();
        blocks.iter().all(|(place, says)| chain.next(*place, *says, gone_upto).is_ok())
            && chain.end(newest, gone_upto).is_ok()
    }

    #[test]
    fn a_missing_block_is_noticed_unless_it_may_be_gone() {
        let [first, second, third] = [(3, [3, 0]), (5, [5, 3]), (9, [9, 5])];
        assert!(follows(&[first, second, third], 9, 0));
        assert!(follows(&[second, third], 9, 3) && follows(&[], 9, 9) && follows(&[], 0, 0));
        assert!(!follows(&[second, third], 9, 2), "the first");
        assert!(!follows(&[first, third], 9, 4), "one amid them");
        assert!(!follows(&[first, second], 9, 0), "the last");
        assert!(!follows(&[], 9, 8), "all");
        assert!(!follows(&[(4, [3, 0]), second], 5, 0), "it was elsewhere");
    }
}
