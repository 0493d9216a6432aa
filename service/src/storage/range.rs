//! Operations that are asked for together, as JSON: put together operation by operation, or from whole pieces that stay
//! compressed until somebody needs them otherwise.

use bytes::{BufMut, Bytes, BytesMut};
use kairos_sync_protocol::OpId;

use super::{BucketTotals, OperationRange, RANGE_OPERATIONS_MAX, StorageError, frame};

/// JSON objects as in the protocol's `data` lines, joined by commas: what stands between `[` and `]`.
#[derive(Debug, Clone, Default)]
pub struct RangeJson {
    parts: Vec<RangePart>,
    length: usize,
}

/// Some of the operations of a range. Between parts belongs a comma.
#[derive(Debug, Clone)]
pub enum RangePart {
    /// As they are.
    Plain(Bytes),
    /// Compressed.
    Packed(PackedJson),
}

/// Operations joined by commas, as a frame of zstd that has its length and a checksum.
#[derive(Debug, Clone)]
pub struct PackedJson {
    pub(super) frame: Bytes,
    pub(super) length: usize,
}

impl PackedJson {
    /// The frame.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Bytes of JSON.
    pub const fn length(&self) -> usize {
        self.length
    }
}

impl RangePart {
    /// Appends the JSON to `out`.
    ///
    /// # Errors
    /// Where what is compressed is damaged.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), StorageError> {
        match self {
            Self::Plain(json) => out.extend_from_slice(json),
            Self::Packed(PackedJson { frame, length }) => {
                let damaged = || StorageError::Damaged { what: "compressed operations".to_owned() };
                frame::decompress_onto(frame, *length, out).ok_or_else(damaged)?;
            }
        }
        Ok(())
    }
}

impl RangeJson {
    /// Its parts, in order.
    pub fn parts(&self) -> &[RangePart] {
        &self.parts
    }

    /// Bytes of JSON, commas between parts included.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// Appends the JSON to `out`.
    ///
    /// # Errors
    /// As [`RangePart::write`].
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), StorageError> {
        out.reserve(self.length);
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            part.write(out)?;
        }
        Ok(())
    }

    /// The JSON with the brackets of an array around it.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn array(&self) -> Result<Vec<u8>, StorageError> {
        let mut array = Vec::with_capacity(self.length + 2);
        array.push(b'[');
        self.write(&mut array)?;
        array.push(b']');
        Ok(array)
    }
}

#[cfg(test)]
impl RangeJson {
    /// Whether it is one piece as it is stored.
    pub(super) fn is_packed(&self) -> bool {
        matches!(&*self.parts, [RangePart::Packed(_)])
    }
}

#[cfg(test)]
impl From<Bytes> for RangeJson {
    fn from(json: Bytes) -> Self {
        Self { length: json.len(), parts: vec![RangePart::Plain(json)] }
    }
}

/// Collects operations into a range until one of its bounds is reached.
pub(super) struct RangeBuilder {
    bytes_max: usize,
    json: RangeJson,
    /// The last part, while operations are added to it one by one.
    open: BytesMut,
    count: usize,
    last_op_id: OpId,
    full: bool,
    valid_from: OpId,
}

impl RangeBuilder {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            json: RangeJson::default(),
            open: BytesMut::new(),
            count: 0,
            last_op_id: OpId::ZERO,
            full: false,
            valid_from: OpId::ZERO,
        }
    }

    /// Adds an operation, unless a bound is reached; `false` says that it was left out, as all later ones will be.
    pub(super) fn push(&mut self, op_id: OpId, json: &[u8]) -> bool {
        if !self.takes(1, json.len()) {
            return false;
        }
        if !self.open.is_empty() {
            self.open.put_u8(b',');
        }
        self.open.put_slice(json);
        self.last_op_id = op_id;
        true
    }

    /// Adds all of these operations, or leaves them out as [`Self::push`] does. Among the first of a range more than fit are
    /// not refused for ever: `None` says that they are to be added one by one.
    pub(super) fn push_packed(
        &mut self,
        totals: &BucketTotals,
        json: impl FnOnce() -> PackedJson,
        length: usize,
    ) -> Option<bool> {
        let count = usize::try_from(totals.count).unwrap_or(usize::MAX);
        if self.is_empty() && count > 1 && self.is_over(count, length) {
            return None;
        }
        if !self.takes(count, length) {
            return Some(false);
        }
        self.close();
        self.json.parts.push(RangePart::Packed(json()));
        self.last_op_id = totals.last_op_id;
        Some(true)
    }

    fn is_over(&self, count: usize, length: usize) -> bool {
        self.count.saturating_add(count) > RANGE_OPERATIONS_MAX
            || self.json.length.saturating_add(1 + length) > self.bytes_max
    }

    /// Counts operations, if they are to be added.
    fn takes(&mut self, count: usize, length: usize) -> bool {
        if self.full || (self.count > 0 && self.is_over(count, length)) {
            self.full = true;
            return false;
        }
        self.json.length += usize::from(self.count > 0) + length;
        self.count += count;
        true
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.json.parts.push(RangePart::Plain(self.open.split().freeze()));
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What was added, or would have been, was replaced by operations up to this one.
    pub(super) fn replaced_upto(&mut self, op_id: OpId) {
        self.valid_from = self.valid_from.max(op_id);
    }

    /// Whether more operations, which are there but cost something to get, shall be added. Not so to a range that is
    /// half full: what does not fit into it would have to be got again for the next.
    pub(super) fn wants_more(&mut self) -> bool {
        self.full |= self.count > RANGE_OPERATIONS_MAX / 2 || self.json.length > self.bytes_max / 2;
        !self.full
    }

    pub(super) fn finish(mut self) -> OperationRange {
        self.close();
        let Self { json, count, last_op_id, full, valid_from, .. } = self;
        OperationRange { json, count, last_op_id, has_more: full, valid_from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op_id(id: u64) -> OpId {
        OpId::new(id).unwrap()
    }

    fn text(range: &OperationRange) -> String {
        let mut json = Vec::new();
        range.json.write(&mut json).unwrap();
        assert_eq!(json.len(), range.json.length());
        String::from_utf8(json).unwrap()
    }

    /// Adds so many operations that end with this one.
    fn push_packed(range: &mut RangeBuilder, count: u64, last: u64, json: &str) -> Option<bool> {
        let mut frame = Vec::new();
        frame::compress_onto(json.as_bytes(), &mut frame).unwrap();
        let totals = BucketTotals { count, last_op_id: op_id(last), ..BucketTotals::default() };
        range.push_packed(&totals, || PackedJson { frame: frame.into(), length: json.len() }, json.len())
    }

    #[test]
    fn a_range_has_at_least_one_operation_and_keeps_its_bounds() {
        let mut range = RangeBuilder::new(3);
        assert!(range.push(op_id(1), b"{12345}"));
        assert!(!range.push(op_id(2), b"{}"));
        assert!(!range.push(op_id(3), b""), "nothing follows what was left out");
        let range = range.finish();
        assert_eq!((range.count, range.last_op_id, range.has_more), (1, op_id(1), true));

        let mut range = RangeBuilder::new(9);
        assert!(range.push(op_id(1), b"{1}") && range.wants_more() && range.push(op_id(2), b"{2}"));
        assert!(!range.wants_more() && !range.push(op_id(3), b""), "it stays as it is");
        assert!(range.finish().has_more);

        let mut range = RangeBuilder::new(7);
        assert!(range.push(op_id(1), b"{1}") && range.push(op_id(2), b"{2}"));
        assert_eq!(text(&range.finish()), "{1},{2}");
    }

    #[test]
    fn whole_pieces_and_single_operations_stand_in_their_order() {
        let mut range = RangeBuilder::new(100);
        assert!(range.push(op_id(1), b"{1}") && range.push(op_id(2), b"{2}"));
        assert_eq!(push_packed(&mut range, 2, 4, "{3},{4}"), Some(true));
        assert_eq!(push_packed(&mut range, 1, 5, "{5}"), Some(true));
        assert!(range.push(op_id(6), b"{6}"));
        let range = range.finish();
        assert_eq!(text(&range), "{1},{2},{3},{4},{5},{6}");
        assert_eq!((range.count, range.last_op_id, range.has_more), (6, op_id(6), false));
        assert_eq!(range.json.array().unwrap(), b"[{1},{2},{3},{4},{5},{6}]");
    }

    #[test]
    fn a_piece_is_added_whole_or_not_at_all() {
        let mut range = RangeBuilder::new(10);
        assert_eq!(push_packed(&mut range, 3, 3, "{1},{2},{3}"), None, "more than a range holds");
        assert!(range.push(op_id(1), b"{1}"));
        assert_eq!(push_packed(&mut range, 2, 3, "{2},{3}"), Some(false));
        assert!(!range.push(op_id(2), b"{2}"), "nothing follows what was left out");
        let range = range.finish();
        assert_eq!((text(&range).as_str(), range.has_more), ("{1}", true));

        let mut range = RangeBuilder::new(3);
        assert_eq!(push_packed(&mut range, 1, 1, "{12345}"), Some(true), "at least one operation");
        let mut range = RangeBuilder::new(1 << 20);
        assert_eq!(push_packed(&mut range, RANGE_OPERATIONS_MAX as u64 + 1, 3, "{}"), None);
        assert_eq!(push_packed(&mut range, RANGE_OPERATIONS_MAX as u64, 3, "{}"), Some(true));
        assert_eq!(push_packed(&mut range, 1, 4, "{}"), Some(false));
    }

    #[test]
    fn damage_in_a_piece_is_named() {
        let json = PackedJson { frame: Bytes::from_static(b"no frame"), length: 5 };
        let mut range = RangeBuilder::new(10);
        let totals = BucketTotals { count: 1, last_op_id: op_id(1), ..BucketTotals::default() };
        assert_eq!(range.push_packed(&totals, || json, 5), Some(true));
        assert_eq!(range.finish().json.array().unwrap_err().code(), "STORE-0104");
    }
}
