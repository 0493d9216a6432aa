//! What every engine commits: the same for a position in each run, so that a reader knows what must be there.

use std::{collections::BTreeSet, fmt::Write};

use kairos_sync_protocol::{
    Checksum, OpId,
    operation::{OpKind, Operation},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::engine::Outcome;

pub(super) const BUCKETS: u32 = 2_000;
/// The output table.
pub(super) const TYPE: &str = "todos";

/// Bytes of text in a row: with names and numbers around it, rows have about 150 to 600.
const TEXT_BYTES: std::ops::Range<usize> = 65..515;

/// Which rows change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload {
    /// How many there are.
    pub(super) rows: u32,
    /// How many a commit changes.
    pub(super) changes: u32,
    /// Whether each change is an operation for a client, too.
    pub(super) has_operations: bool,
}

/// One row's new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) row: u32,
    /// As JSON.
    pub(super) data: String,
    pub(super) checksum: Checksum,
}

/// What is committed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changes {
    /// Of the source; ascending.
    pub(super) position: u64,
    pub(super) rows: Vec<Change>,
    pub(super) has_operations: bool,
}

impl Workload {
    /// Scattered over all rows, each at most once.
    pub(super) fn changes(&self, position: u64) -> Changes {
        let mut rng = StdRng::seed_from_u64(position);
        let mut rows = BTreeSet::new();
        while rows.len() < self.changes.min(self.rows) as usize {
            rows.insert(rng.random_range(0..self.rows));
        }
        // Sources change rows in an order of their own, and engines may sort.
        let mut rows: Vec<_> = rows.into_iter().collect();
        for at in (1..rows.len()).rev() {
            rows.swap(at, rng.random_range(0..=at));
        }
        let rows = rows.into_iter().map(|row| Change::new(&mut rng, row, position)).collect();
        Changes { position, rows, has_operations: self.has_operations }
    }
}

impl Changes {
    /// As a table is copied: rows that follow each other, without operations.
    pub(super) fn copied(position: u64, rows: std::ops::Range<u32>) -> Self {
        let mut rng = StdRng::seed_from_u64(position);
        let rows = rows.map(|row| Change::new(&mut rng, row, position)).collect();
        Self { position, rows, has_operations: false }
    }

    /// Bytes of JSON.
    pub(super) fn payload(&self) -> u64 {
        self.rows.iter().map(|change| change.data.len() as u64).sum()
    }
}

impl Change {
    fn new(rng: &mut StdRng, row: u32, position: u64) -> Self {
        let text = text(rng);
        let data = format!(
            r#"{{"id":"{row:08}","owner_id":"u{}","title":"{text}","done":{},"updated_at":{position}}}"#,
            bucket_of(row),
            row % 2
        );
        Self { row, checksum: Checksum::of_put(TYPE, &object_id(row), &data), data }
    }

    /// The operation as it is sent. Engines that do not know of operations store this.
    pub(super) fn wire_form(&self, op_id: u64) -> Outcome<Vec<u8>> {
        Ok(serde_json::to_vec(&Operation {
            op_id: OpId::new(op_id)?,
            op: OpKind::Put,
            object_type: Some(TYPE.to_owned()),
            object_id: Some(object_id(self.row)),
            checksum: self.checksum,
            subkey: Some(subkey(self.row)),
            data: Some(self.data.clone()),
        })?)
    }

    /// The row as a store keeps it: its image, behind the bucket it is in.
    pub(super) fn row_form(&self) -> Vec<u8> {
        let mut form = bucket_of(self.row).to_be_bytes().to_vec();
        form.extend_from_slice(self.data.as_bytes());
        form
    }
}

/// The image in what [`Change::row_form`] gives.
pub(super) fn image_of(row_form: &[u8]) -> Vec<u8> {
    row_form.get(4..).unwrap_or_default().to_vec()
}

pub(super) fn bucket_of(row: u32) -> u32 {
    row % BUCKETS
}

pub(super) fn object_id(row: u32) -> String {
    format!("{row:08}")
}

pub(super) fn subkey(row: u32) -> String {
    format!("1/{row:08x}")
}

/// Words, since engines that compress have something to find in real rows.
fn text(rng: &mut StdRng) -> String {
    const SYLLABLES: [&str; 16] =
        ["ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "xu", "zan"];
    let length = rng.random_range(TEXT_BYTES);
    let mut text = String::with_capacity(length + 8);
    while text.len() < length {
        let word: usize = rng.random_range(0..2_048);
        let syllable = |shift: usize| SYLLABLES[(word >> shift) % 16];
        let _ = write!(text, "{}{}{} ", syllable(0), syllable(4), syllable(8));
    }
    text.truncate(length);
    text
}
