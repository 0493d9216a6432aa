//! Lines as bytes: one JSON object each, ended by a newline.

use std::io::Write;

use kairos_sync_protocol::{BucketName, OpId, line::SyncLine};
use serde_json::{Map, Value};

use crate::storage::{OperationRange, StorageError};

/// How clients want the data of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataForm {
    /// As a string that holds a JSON object.
    Text,
    /// As a nested JSON object; clients of long ago.
    Nested,
}

/// Appends a line.
///
/// # Panics
/// Never: wire types have string keys only, and memory takes all.
pub fn write_line(line: &SyncLine, buffer: &mut Vec<u8>) {
    serde_json::to_writer(&mut *buffer, line).expect("wire types always serialise");
    buffer.push(b'\n');
}

/// Appends a `data` line made of operations as the store has them.
///
/// # Errors
/// Where operations must be taken apart for [`DataForm::Nested`] and are not what was stored.
///
/// # Panics
/// Never: memory takes all.
pub fn write_data_line(
    bucket: &BucketName,
    after: OpId,
    range: &OperationRange,
    form: DataForm,
    buffer: &mut Vec<u8>,
) -> Result<(), StorageError> {
    buffer.reserve(range.json.len() + 256);
    buffer.extend_from_slice(br#"{"data":{"bucket":"#);
    serde_json::to_writer(&mut *buffer, bucket.as_str()).expect("text always serialises");
    let (has_more, next_after) = (range.has_more, range.last_op_id);
    write!(buffer, r#","after":"{after}","has_more":{has_more},"next_after":"{next_after}","data":["#)
        .expect("memory takes all");
    match form {
        DataForm::Text => buffer.extend_from_slice(&range.json),
        DataForm::Nested => write_nested(&range.json, buffer)?,
    }
    buffer.extend_from_slice(b"]}}\n");
    Ok(())
}

fn write_nested(json: &[u8], buffer: &mut Vec<u8>) -> Result<(), StorageError> {
    let damaged = |_| StorageError::Damaged { what: "the form of an operation".to_owned() };
    let list = [b"[", json, b"]"].concat();
    let mut operations: Vec<Map<String, Value>> = serde_json::from_slice(&list).map_err(damaged)?;
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn line(form: DataForm) -> String {
        let range = OperationRange {
            json: Bytes::from_static(
                br#"{"op_id":"1","op":"PUT","checksum":5,"data":"{\"id\":\"l1\",\"n\":9007199254740993}"},{"op_id":"2","op":"REMOVE","checksum":6,"data":null}"#,
            ),
            count: 2,
            last_op_id: OpId::new(2).unwrap(),
            has_more: false,
        };
        let mut buffer = Vec::new();
        write_data_line(&BucketName::new("g[\"u\"]"), OpId::ZERO, &range, form, &mut buffer).unwrap();
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn operations_are_copied_as_stored() {
        assert_eq!(
            line(DataForm::Text),
            r#"{"data":{"bucket":"g[\"u\"]","after":"0","has_more":false,"next_after":"2","data":[{"op_id":"1","op":"PUT","checksum":5,"data":"{\"id\":\"l1\",\"n\":9007199254740993}"},{"op_id":"2","op":"REMOVE","checksum":6,"data":null}]}}"#
                .to_owned()
                + "\n"
        );
        assert!(serde_json::from_str::<SyncLine>(&line(DataForm::Text)).is_ok());
    }

    #[test]
    fn clients_of_long_ago_get_objects() {
        let line = line(DataForm::Nested);
        assert!(line.contains(r#""data":{"id":"l1","n":9007199254740993}}"#), "{line}");
        assert!(line.contains(r#""data":null"#), "{line}");
    }
}
