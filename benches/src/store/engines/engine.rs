//! What is compared, behind one trait.

use std::{error::Error, path::Path};

use super::{
    fjall_engine::FjallEngine, our_store::OurStore, plain_sqlite::PlainSqlite, redb_engine::RedbEngine,
    workload::Changes,
};

/// Page or block cache of each engine.
pub(super) const CACHE_BYTES: usize = 16 << 20;
/// Bytes of operations that readers get at once, as for a client's stream.
pub(super) const SLICE_BYTES: usize = 1 << 20;

pub(super) type Outcome<T> = Result<T, Box<dyn Error>>;

/// A store of operations by bucket, rows by key, and the position of the source.
pub(super) trait Engine {
    /// All of it or nothing; synced when this returns.
    fn commit(&mut self, changes: &Changes) -> Outcome<()>;

    /// The position that was committed last; zero in an empty store.
    fn position(&self) -> Outcome<u64>;

    /// Id of the last operation.
    fn last_op_id(&self) -> Outcome<u64>;

    /// The state of a row.
    fn row(&self, row: u32) -> Outcome<Option<Vec<u8>>>;

    /// Hands out a bucket's operations after an id, in their order, as JSON objects joined by commas, a slice at a time.
    fn read(&self, bucket: u32, after: u64, take: &mut dyn FnMut(&[u8]) -> Outcome<()>) -> Outcome<()>;
}

/// The engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    Sqlite,
    Fjall,
    Redb,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Ours, Self::Sqlite, Self::Fjall, Self::Redb];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Sqlite => "SQLite",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn open(self, folder: &Path) -> Outcome<Box<dyn Engine>> {
        Ok(match self {
            Self::Ours => Box::new(OurStore::open(folder)?),
            Self::Sqlite => Box::new(PlainSqlite::open(folder)?),
            Self::Fjall => Box::new(FjallEngine::open(folder)?),
            Self::Redb => Box::new(RedbEngine::open(folder)?),
        })
    }
}

/// Collects operations into slices.
pub(super) struct Slices<'a> {
    slice: Vec<u8>,
    take: &'a mut dyn FnMut(&[u8]) -> Outcome<()>,
}

impl<'a> Slices<'a> {
    pub(super) fn new(take: &'a mut dyn FnMut(&[u8]) -> Outcome<()>) -> Self {
        Self { slice: Vec::new(), take }
    }

    pub(super) fn push(&mut self, operation: &[u8]) -> Outcome<()> {
        if self.slice.len() + operation.len() > SLICE_BYTES {
            (self.take)(&self.slice)?;
            self.slice.clear();
        }
        if !self.slice.is_empty() {
            self.slice.push(b',');
        }
        self.slice.extend_from_slice(operation);
        Ok(())
    }

    pub(super) fn finish(self) -> Outcome<()> {
        if self.slice.is_empty() { Ok(()) } else { (self.take)(&self.slice) }
    }
}

/// Bucket and op id as a key, in their order.
pub(super) fn operation_key(bucket: u32, op_id: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&bucket.to_be_bytes());
    key[4..].copy_from_slice(&op_id.to_be_bytes());
    key
}

/// Position and last op id as a value.
pub(super) fn place(position: u64, last_op_id: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&position.to_be_bytes());
    value[8..].copy_from_slice(&last_op_id.to_be_bytes());
    value
}

/// What [`place`] was made of.
pub(super) fn read_place(value: &[u8]) -> Outcome<(u64, u64)> {
    let (numbers, _) = value.as_chunks::<8>();
    match numbers {
        [position, last_op_id] => Ok((u64::from_be_bytes(*position), u64::from_be_bytes(*last_op_id))),
        _ => Err("a position is not two numbers".into()),
    }
}
