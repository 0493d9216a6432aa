//! Lines as bytes, in the forms that clients ask for.

use std::{io::Write, mem};

use kairos_sync_protocol::{
    BucketName, OpId,
    bson::{self, DataHead},
    line::SyncLine,
};
use serde_json::{Map, Value};

use super::compression::{Segment, ZstdBlocks};
use crate::storage::{OperationRange, RangePart, StorageError};

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineForm {
    /// One JSON object, ended by a newline; the data of operations is a string that holds a JSON object.
    Json,
    /// The same with the data of operations as nested objects; for clients of long ago.
    NestedJson,
    /// One BSON document.
    Bson,
}

/// What stands behind the operations of a `data` line.
const DATA_END: &[u8] = b"]}}\n";

/// A line.
///
/// # Panics
/// Never: wire types have string keys only, and memory takes all.
pub fn write_line(line: &SyncLine, form: LineForm) -> Vec<u8> {
    let mut buffer = Vec::new();
    match form {
        LineForm::Json | LineForm::NestedJson => {
            serde_json::to_writer(&mut buffer, line).expect("wire types always serialise");
            buffer.push(b'\n');
        }
        LineForm::Bson => bson::write_line(line, &mut buffer),
    }
    buffer
}

/// A `data` line made of operations as the store has them.
///
/// # Errors
/// Where operations must be taken apart and are not what was stored.
///
/// # Panics
/// Never: memory takes all.
pub fn write_data_line(
    bucket: &BucketName,
    after: OpId,
    range: &OperationRange,
    form: LineForm,
) -> Result<Vec<u8>, StorageError> {
    let mut buffer = Vec::with_capacity(range.json.length() + bucket.as_str().len() + 256);
    if form == LineForm::Bson {
        let mut json = Vec::new();
        range.json.write(&mut json)?;
        let head = DataHead { bucket, after, has_more: range.has_more, next_after: range.last_op_id };
        bson::write_data_line(head, &json, &mut buffer).map_err(damaged)?;
        return Ok(buffer);
    }
    write_data_head(bucket, after, range, &mut buffer);
    if form == LineForm::NestedJson {
        write_nested(&range.json.array()?, &mut buffer)?;
    } else {
        range.json.write(&mut buffer)?;
    }
    buffer.extend_from_slice(DATA_END);
    Ok(buffer)
}

/// A `data` line of [`LineForm::Json`] for [`Compression::Zstd`](super::Compression::Zstd): what the store has compressed
/// stays as it is.
///
/// # Errors
/// Where something is not what was stored.
///
/// # Panics
/// Never: memory takes all.
pub fn pack_data_line(bucket: &BucketName, after: OpId, range: &OperationRange) -> Result<Segment, StorageError> {
    let (mut blocks, mut plain) = (ZstdBlocks::default(), Vec::new());
    write_data_head(bucket, after, range, &mut plain);
    for (index, part) in range.json.parts().iter().enumerate() {
        if index > 0 {
            plain.push(b',');
        }
        if let RangePart::Packed(json) = part {
            blocks.push(&mem::take(&mut plain));
            if blocks.push_frame(json.frame(), json.length()).is_some() {
                continue;
            }
        }
        part.write(&mut plain)?;
    }
    plain.extend_from_slice(DATA_END);
    blocks.push(&plain);
    Ok(blocks.finish())
}

/// What stands before the operations of a `data` line.
fn write_data_head(bucket: &BucketName, after: OpId, range: &OperationRange, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(br#"{"data":{"bucket":"#);
    serde_json::to_writer(&mut *buffer, bucket.as_str()).expect("text always serialises");
    let (has_more, next_after) = (range.has_more, range.last_op_id);
    write!(buffer, r#","after":"{after}","has_more":{has_more},"next_after":"{next_after}","data":["#)
        .expect("memory takes all");
}

fn write_nested(list: &[u8], buffer: &mut Vec<u8>) -> Result<(), StorageError> {
    let mut operations: Vec<Map<String, Value>> = serde_json::from_slice(list).map_err(damaged)?;
    for (index, operation) in operations.iter_mut().enumerate() {
        if let Some(data) = operation.get_mut("data")
            && let Value::String(text) = data
        {
            *data = serde_json::from_str(text).map_err(damaged)?;
        }
        if index > 0 {
            buffer.push(b',');
        }
        serde_json::to_writer(&mut *buffer, operation).expect("maps with text keys always serialise");
    }
    Ok(())
}

fn damaged(_: impl std::error::Error) -> StorageError {
    StorageError::Damaged { what: "the form of an operation".to_owned() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn range() -> OperationRange {
        OperationRange {
            json: Bytes::from_static(
                br#"{"op_id":"1","op":"PUT","checksum":5,"data":"{\"id\":\"l1\",\"n\":9007199254740993}"},{"op_id":"2","op":"REMOVE","checksum":6,"data":null}"#,
            )
            .into(),
            count: 2,
            last_op_id: OpId::new(2).unwrap(),
            has_more: false,
            valid_from: OpId::ZERO,
        }
    }

    fn line(form: LineForm) -> Vec<u8> {
        write_data_line(&BucketName::new("g[\"u\"]"), OpId::ZERO, &range(), form).unwrap()
    }

    #[test]
    fn operations_are_copied_as_stored() {
        let line = String::from_utf8(line(LineForm::Json)).unwrap();
        assert_eq!(
            line,
            r#"{"data":{"bucket":"g[\"u\"]","after":"0","has_more":false,"next_after":"2","data":[{"op_id":"1","op":"PUT","checksum":5,"data":"{\"id\":\"l1\",\"n\":9007199254740993}"},{"op_id":"2","op":"REMOVE","checksum":6,"data":null}]}}"#
                .to_owned()
                + "\n"
        );
        assert!(serde_json::from_str::<SyncLine>(&line).is_ok());
    }

    #[test]
    fn clients_of_long_ago_get_objects() {
        let line = String::from_utf8(line(LineForm::NestedJson)).unwrap();
        assert!(line.contains(r#""data":{"id":"l1","n":9007199254740993}}"#), "{line}");
        assert!(line.contains(r#""data":null"#), "{line}");
    }

    #[test]
    fn bson_says_what_json_says() {
        let json: SyncLine = serde_json::from_slice(&line(LineForm::Json)).unwrap();
        let mut bson = Vec::new();
        bson::write_line(&json, &mut bson);
        assert_eq!(line(LineForm::Bson), bson);
    }

    #[test]
    fn damaged_operations_are_named() {
        let damaged = OperationRange { json: Bytes::from_static(b"{").into(), ..range() };
        for form in [LineForm::NestedJson, LineForm::Bson] {
            let error = write_data_line(&BucketName::new("b"), OpId::ZERO, &damaged, form).unwrap_err();
            assert_eq!(error.code(), "STORE-0104");
        }
    }
}
