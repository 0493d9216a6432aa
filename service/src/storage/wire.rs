//! Operations in the form they are sent. Written once, at commit; serving copies the bytes.

use bytes::{BufMut, Bytes, BytesMut};
use kairos_sync_protocol::{Checksum, OpId};
use serde::Serialize;

use super::{NewOperation, OperationRange, RANGE_OPERATIONS_MAX};

/// An operation with its id, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WireOperation {
    pub(super) op_id: OpId,
    pub(super) checksum: Checksum,
    /// A JSON object as in a `data` line.
    pub(super) json: Bytes,
}

/// As [`kairos_sync_protocol::operation::Operation`], without copying its texts.
#[derive(Serialize)]
struct Fields<'a> {
    op_id: OpId,
    op: &'static str,
    object_type: &'a str,
    object_id: &'a str,
    checksum: Checksum,
    subkey: &'a str,
    data: Option<&'a str>,
}

/// Appends the JSON of an operation to `out`.
pub(super) fn write_json(op_id: OpId, operation: &NewOperation, out: &mut BytesMut) {
    let fields = Fields {
        op_id,
        op: if operation.data.is_some() { "PUT" } else { "REMOVE" },
        object_type: &operation.output.object_type,
        object_id: &operation.output.object_id,
        checksum: operation.checksum,
        subkey: &operation.subkey,
        data: operation.data.as_deref(),
    };
    serde_json::to_writer(out.writer(), &fields).expect("texts and numbers serialise, and memory takes all bytes");
}

/// Collects operations into a range until one of its bounds is reached.
pub(super) struct RangeBuilder {
    bytes_max: usize,
    json: BytesMut,
    count: usize,
    last_op_id: OpId,
    full: bool,
}

impl RangeBuilder {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, json: BytesMut::new(), count: 0, last_op_id: OpId::ZERO, full: false }
    }

    /// Adds an operation, unless a bound is reached; `false` says that it was left out, as all later ones will be.
    pub(super) fn push(&mut self, op_id: OpId, json: &[u8]) -> bool {
        let over = self.count == RANGE_OPERATIONS_MAX || self.json.len() + 1 + json.len() > self.bytes_max;
        if self.full || (self.count > 0 && over) {
            self.full = true;
            return false;
        }
        if self.count > 0 {
            self.json.put_u8(b',');
        }
        self.json.put_slice(json);
        self.count += 1;
        self.last_op_id = op_id;
        true
    }

    pub(super) fn finish(self) -> OperationRange {
        OperationRange { json: self.json.freeze(), count: self.count, last_op_id: self.last_op_id, has_more: self.full }
    }
}

#[cfg(test)]
mod tests {
    use kairos_sync_protocol::{
        BucketName,
        operation::{OpKind, Operation},
    };

    use super::*;
    use crate::storage::RowOutput;

    #[test]
    fn json_reads_as_the_protocols_operation() {
        let data = r#"{"id":"a\"b","n":1}"#;
        let mut operation = NewOperation {
            output: RowOutput {
                bucket: BucketName::new("b[]"),
                object_type: "to\"dos".into(),
                object_id: "ä\u{1}".into(),
            },
            subkey: "k".into(),
            checksum: Checksum::from_bits(u32::MAX),
            data: Some(data.into()),
        };
        let read = |operation: &NewOperation| -> (String, Operation) {
            let mut json = BytesMut::new();
            write_json(OpId::new(7).unwrap(), operation, &mut json);
            let text = String::from_utf8(json.to_vec()).unwrap();
            (text.clone(), serde_json::from_str(&text).unwrap())
        };
        let (_, put) = read(&operation);
        assert_eq!(put.op, OpKind::Put);
        assert_eq!(put.data.as_deref(), Some(data));
        assert_eq!(put.object_id.as_deref(), Some("ä\u{1}"));
        assert_eq!(put.checksum, operation.checksum);

        operation.data = None;
        let (text, remove) = read(&operation);
        assert_eq!(remove.op, OpKind::Remove);
        assert!(text.contains(r#""data":null"#), "present, not left out: {text}");
        assert!(text.starts_with(r#"{"op_id":"7","op":"REMOVE","object_type":"#), "{text}");
    }

    #[test]
    fn a_range_has_at_least_one_operation_and_keeps_its_bounds() {
        let op_id = |id| OpId::new(id).unwrap();
        let mut range = RangeBuilder::new(3);
        assert!(range.push(op_id(1), b"{12345}"));
        assert!(!range.push(op_id(2), b"{}"));
        assert!(!range.push(op_id(3), b""), "nothing follows what was left out");
        let range = range.finish();
        assert_eq!((range.count, range.last_op_id, range.has_more), (1, op_id(1), true));

        let mut range = RangeBuilder::new(7);
        assert!(range.push(op_id(1), b"{1}") && range.push(op_id(2), b"{2}"));
        assert_eq!(range.finish().json, "{1},{2}");
    }
}
