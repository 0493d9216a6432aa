//! The row store on disk: sorted runs of rows, in compressed blocks.
//!
//! ```text
//! fold of the tail, or a commit with many rows ─► a run: rows in key order, blocks of some 2 KB, compressed
//! merge, in the background ─► runs that are neighbours in age become one, a slice at a time
//! a row = what the newest run says that has it; a run may also say that the row is gone
//! ```
//!
//! Rows change all over the row store. In a tree each change would write a page of its own; in runs thousands of them are
//! written one after the other, and several times more as runs are merged, compressed.
//!
//! **Invariants**
//!
//! - A run is written whole in one transaction, or by a merge: then it has what its sources had up to a key, and of the
//!   sources counts only what comes after it. The transaction of a slice moves that key, so an end at any moment leaves
//!   every row once; the merge goes on when the store is opened again.
//! - Keys ascend within a run, each once. Every block is found by its last key, which is in the block too.
//! - A run's filter knows all keys that the run may show, or there is no filter. Filters are made before rows leave the
//!   tail's memory; one that is missing is made again in the background.
//! - Numbers of runs and blocks are never used again, so a block in memory is what it was.
//! - Who reads runs has one transaction for their list and for their blocks, since merges delete blocks.
//!
//! Start reading at [`list`], then [`read`] and [`merge`].

pub(super) mod block;
pub(super) mod build;
pub(super) mod check;
pub(super) mod current;
pub(super) mod filter;
pub(super) mod list;
pub(super) mod lost;
pub(super) mod merge;
pub(super) mod missing_filter;
pub(super) mod policy;
pub(super) mod read;
#[cfg(test)]
mod tests;

/// Number of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RunId(pub(super) u64);

impl RunId {
    fn column(self) -> i64 {
        self.0.cast_signed()
    }
}

/// Number of a block of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BlockId(pub(super) u64);

impl BlockId {
    fn column(self) -> i64 {
        self.0.cast_signed()
    }
}
