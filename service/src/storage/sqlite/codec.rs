//! Bytes of the store's own records: numbers of variable length, and texts with their length in front.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{
    super::{LookupKey, LookupValue, StorageError, StoredRow},
    BucketId,
};

/// Reads what the `put_` functions wrote. Every step may find the record damaged.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// `what` names the record in errors.
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, what }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that are left.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    // The index of a chunk has thousands of them.
    #[inline]
    pub(super) fn number(&mut self) -> Result<u64, StorageError> {
        // Most are this short.
        if let [byte @ ..0x80, rest @ ..] = self.bytes {
            self.bytes = rest;
            return Ok(u64::from(*byte));
        }
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.damaged())
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], StorageError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or_else(|| self.damaged())?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], StorageError> {
        let length = usize::try_from(self.number()?).map_err(|_| self.damaged())?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<Arc<str>, StorageError> {
        std::str::from_utf8(self.bytes()?).map(Arc::from).map_err(|_| self.damaged())
    }

    /// A list: its length, then its entries.
    fn list<T>(&mut self, entry: impl Fn(&mut Self) -> Result<T, StorageError>) -> Result<Vec<T>, StorageError> {
        // No capacity from the record: a damaged one could ask for all memory.
        (0..self.number()?).map(|_| entry(self)).collect()
    }

    pub(super) fn damaged(&self) -> StorageError {
        StorageError::Damaged { what: self.what.to_owned() }
    }
}

/// Seven bits at a time, lowest first; the high bit says that more follow.
pub(super) fn put_number(out: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.put_u8(number.to_le_bytes()[0]);
}

pub(super) fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// An output of a stored row, with its bucket by number.
pub(super) struct OutputRecord {
    pub(super) bucket: BucketId,
    pub(super) object_type: Arc<str>,
    pub(super) object_id: Arc<str>,
}

/// Appends the record of a stored row. `buckets` are those of its outputs, in their order.
pub(super) fn encode_row(row: &StoredRow, buckets: &[BucketId], out: &mut Vec<u8>) {
    put_bytes(out, &row.image);
    put_number(out, row.outputs.len() as u64);
    for (output, bucket) in row.outputs.iter().zip(buckets) {
        put_number(out, bucket.0);
        put_bytes(out, output.object_type.as_bytes());
        put_bytes(out, output.object_id.as_bytes());
    }
    put_number(out, row.lookups.len() as u64);
    for (key, value) in &row.lookups {
        put_bytes(out, key.0.as_bytes());
        put_bytes(out, value.0.as_bytes());
    }
    put_number(out, row.consulted.len() as u64);
    for key in &row.consulted {
        put_bytes(out, key.0.as_bytes());
    }
}

/// The stored row without its outputs, and those apart, since their buckets still need names.
pub(super) fn decode_row(record: &[u8]) -> Result<(StoredRow, Vec<OutputRecord>), StorageError> {
    let mut reader = Reader::new(record, "row store");
    let image = Bytes::copy_from_slice(reader.bytes()?);
    let outputs = reader.list(|reader| {
        Ok(OutputRecord { bucket: BucketId(reader.number()?), object_type: reader.text()?, object_id: reader.text()? })
    })?;
    let lookups = reader.list(|reader| Ok((LookupKey(reader.text()?), LookupValue(reader.text()?))))?;
    let consulted = reader.list(|reader| Ok(LookupKey(reader.text()?)))?;
    if !reader.is_empty() {
        return Err(reader.damaged());
    }
    Ok((StoredRow { image, outputs: Vec::new(), lookups, consulted }, outputs))
}

/// The record of a row's values for a lookup.
pub(super) fn encode_values(values: &[LookupValue]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        put_bytes(&mut out, value.0.as_bytes());
    }
    out
}

pub(super) fn decode_values(record: &[u8]) -> Result<Vec<LookupValue>, StorageError> {
    let mut reader = Reader::new(record, "lookup index");
    let mut values = Vec::new();
    while !reader.is_empty() {
        values.push(LookupValue(reader.text()?));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_round_trip(number: u64) {
            let mut record = Vec::new();
            put_number(&mut record, number);
            prop_assert_eq!(Reader::new(&record, "test").number().unwrap(), number);
        }

        #[test]
        fn values_round_trip(values in prop::collection::vec(".*", 0..5)) {
            let values: Vec<_> = values.into_iter().map(|value| LookupValue(value.into())).collect();
            prop_assert_eq!(decode_values(&encode_values(&values)).unwrap(), values);
        }

        #[test]
        fn decoding_never_panics(record: Vec<u8>) {
            let _ = decode_row(&record);
            let _ = decode_values(&record);
        }
    }
}
