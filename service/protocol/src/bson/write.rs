//! Lines to documents. Written by hand because every operation passes here: the members of a line are few, and their
//! order is ours.

use std::io::Write;

use super::{ARRAY, BOOLEAN, DOCUMENT, DOUBLE, INT32, NULL, TEXT};
use crate::{
    BucketName, OpId,
    line::{
        BucketChecksum, BucketData, Checkpoint, CheckpointDiff, StreamDescription, StreamErrorSubject,
        SubscriptionReason, SyncLine,
    },
    operation::{OpKind, Operation},
    stored_json::{Malformed, Reader, Value},
};

/// Appends a line as a document.
pub fn write_line(line: &SyncLine, out: &mut Vec<u8>) {
    document(out, |line_out| match line {
        SyncLine::Checkpoint(checkpoint) => line_out.document("checkpoint", |out| write_checkpoint(checkpoint, out)),
        SyncLine::CheckpointDiff(diff) => line_out.document("checkpoint_diff", |out| write_diff(diff, out)),
        SyncLine::Data(data) => line_out.document("data", |out| write_data(data, out)),
        SyncLine::CheckpointComplete(complete) => {
            line_out.document("checkpoint_complete", |out| out.id("last_op_id", &complete.last_op_id));
        }
        SyncLine::PartialCheckpointComplete(complete) => line_out.document("partial_checkpoint_complete", |out| {
            out.id("last_op_id", &complete.last_op_id);
            out.number("priority", i64::from(complete.priority));
        }),
        SyncLine::TokenExpiresIn(seconds) => line_out.number("token_expires_in", i64::from(*seconds)),
    });
}

/// What a `data` line says beside its operations.
#[derive(Debug, Clone, Copy)]
pub struct DataHead<'a> {
    /// Bucket name.
    pub bucket: &'a BucketName,
    /// As in [`BucketData`].
    pub after: OpId,
    /// As in [`BucketData`].
    pub has_more: bool,
    /// As in [`BucketData`].
    pub next_after: OpId,
}

/// Appends a `data` line. `operations` are JSON objects as in a `data` line, joined by commas.
///
/// # Errors
/// Where they are not; `out` then holds a part of a document.
pub fn write_data_line(head: DataHead<'_>, operations: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let operations = str::from_utf8(operations).map_err(|_| Malformed)?;
    let mut result = Ok(());
    document(out, |out| {
        out.document("data", |out| {
            write_head(head, out);
            out.array("data", |out| result = write_operations(operations, out));
        });
    });
    result
}

fn write_head(head: DataHead<'_>, out: &mut Writer<'_>) {
    out.text("bucket", head.bucket.as_str());
    out.id("after", &head.after);
    out.boolean("has_more", head.has_more);
    out.id("next_after", &head.next_after);
}

fn write_operations(json: &str, out: &mut Array<'_>) -> Result<(), Malformed> {
    let mut reader = Reader::new(json);
    let mut is_first = true;
    while !reader.is_at_end() {
        if !is_first {
            reader.expect(b',')?;
        }
        is_first = false;
        let mut result = Ok(());
        out.document(|out| result = write_members(&mut reader, out));
        result?;
    }
    Ok(())
}

/// The members of an operation, each as it stands in JSON.
fn write_members(json: &mut Reader<'_>, out: &mut Writer<'_>) -> Result<(), Malformed> {
    json.expect(b'{')?;
    loop {
        let key = json.plain_text()?;
        json.expect(b':')?;
        match json.value()? {
            Value::Text => out.stored_text(key, json)?,
            Value::Number => out.number(key, i64::from(json.number()?)),
            Value::Null => {
                json.null()?;
                out.member(NULL, key);
            }
        }
        if !json.take(b',') {
            return json.expect(b'}');
        }
    }
}

/// The members after the id. `texts` are type, id and subkey.
fn write_operation(op: OpKind, texts: [Option<&str>; 3], checksum: u32, data: Option<&str>, out: &mut Writer<'_>) {
    let [object_type, object_id, subkey] = texts;
    let name = match op {
        OpKind::Put => "PUT",
        OpKind::Remove => "REMOVE",
        OpKind::Move => "MOVE",
        OpKind::Clear => "CLEAR",
    };
    out.text("op", name);
    let optional =
        |out: &mut Writer<'_>, key, text: Option<&str>| text.into_iter().for_each(|text| out.text(key, text));
    optional(out, "object_type", object_type);
    optional(out, "object_id", object_id);
    out.number("checksum", i64::from(checksum));
    optional(out, "subkey", subkey);
    match (data, op) {
        (Some(data), _) => out.text("data", data),
        (None, OpKind::Remove) => out.member(NULL, "data"),
        (None, _) => {}
    }
}

fn write_data(data: &BucketData, out: &mut Writer<'_>) {
    let BucketData { bucket, after, has_more, next_after, data } = data;
    let bucket = BucketName::new(bucket.as_str());
    write_head(DataHead { bucket: &bucket, after: *after, has_more: *has_more, next_after: *next_after }, out);
    out.array("data", |out| {
        for Operation { op_id, op, object_type, object_id, checksum, subkey, data } in data {
            out.document(|out| {
                out.id("op_id", op_id);
                let texts = [object_type.as_deref(), object_id.as_deref(), subkey.as_deref()];
                write_operation(*op, texts, checksum.bits(), data.as_deref(), out);
            });
        }
    });
}

fn write_checkpoint(checkpoint: &Checkpoint, out: &mut Writer<'_>) {
    out.id("last_op_id", &checkpoint.last_op_id);
    if let Some(id) = checkpoint.write_checkpoint {
        out.id("write_checkpoint", &id);
    }
    out.array("buckets", |out| write_buckets(&checkpoint.buckets, out));
    out.array("streams", |out| {
        for stream in &checkpoint.streams {
            out.document(|out| write_stream(stream, out));
        }
    });
}

fn write_diff(diff: &CheckpointDiff, out: &mut Writer<'_>) {
    out.id("last_op_id", &diff.last_op_id);
    if let Some(id) = diff.write_checkpoint {
        out.id("write_checkpoint", &id);
    }
    out.array("updated_buckets", |out| write_buckets(&diff.updated_buckets, out));
    out.array("removed_buckets", |out| diff.removed_buckets.iter().for_each(|name| out.text(name)));
}

fn write_buckets(buckets: &[BucketChecksum], out: &mut Array<'_>) {
    for bucket in buckets {
        out.document(|out| {
            out.text("bucket", &bucket.bucket);
            out.number("checksum", i64::from(bucket.checksum.bits()));
            out.number("count", i64::try_from(bucket.count).unwrap_or(i64::MAX));
            out.number("priority", i64::from(bucket.priority));
            out.array("subscriptions", |out| {
                for reason in &bucket.subscriptions {
                    let (key, index) = match reason {
                        SubscriptionReason::Default(index) => ("default", index),
                        SubscriptionReason::Sub(index) => ("sub", index),
                    };
                    out.document(|out| out.number(key, i64::try_from(*index).unwrap_or(i64::MAX)));
                }
            });
        });
    }
}

fn write_stream(stream: &StreamDescription, out: &mut Writer<'_>) {
    out.text("name", &stream.name);
    out.boolean("is_default", stream.is_default);
    out.array("errors", |out| {
        for error in &stream.errors {
            out.document(|out| {
                match &error.subscription {
                    StreamErrorSubject::Index(index) => {
                        out.number("subscription", i64::try_from(*index).unwrap_or(i64::MAX));
                    }
                    StreamErrorSubject::Default(text) => out.text("subscription", text),
                }
                out.text("message", &error.message);
            });
        }
    });
}

/// Writes the members of a document.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

/// Writes the elements of an array, which is a document whose names count up from zero.
struct Array<'a> {
    out: &'a mut Vec<u8>,
    length: usize,
}

/// A document: its length in bytes, its members, a zero.
fn document(out: &mut Vec<u8>, write: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(&mut Writer { out });
    out.push(0);
    set_length(out, start);
}

fn array(out: &mut Vec<u8>, write: impl FnOnce(&mut Array<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(&mut Array { out, length: 0 });
    out.push(0);
    set_length(out, start);
}

/// Lines are bounded far below what a length can say.
fn set_length(out: &mut [u8], start: usize) {
    let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    let length = i32::try_from(text.len() + 1).unwrap_or(i32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

impl Writer<'_> {
    /// Type and name. Names are ours and hold no zero.
    fn member(&mut self, kind: u8, key: impl AsRef<[u8]>) {
        self.out.push(kind);
        self.out.extend_from_slice(key.as_ref());
        self.out.push(0);
    }

    fn text(&mut self, key: &str, value: &str) {
        self.member(TEXT, key);
        text(self.out, value);
    }

    /// A text that stands in JSON.
    fn stored_text(&mut self, key: &[u8], json: &mut Reader<'_>) -> Result<(), Malformed> {
        self.member(TEXT, key);
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        json.text(self.out)?;
        self.out.push(0);
        let length = i32::try_from(self.out.len() - start - 4).unwrap_or(i32::MAX);
        self.out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// An id as text.
    fn id(&mut self, key: &str, id: &impl ToString) {
        self.text(key, &id.to_string());
    }

    fn boolean(&mut self, key: &str, value: bool) {
        self.member(BOOLEAN, key);
        self.out.push(u8::from(value));
    }

    fn number(&mut self, key: impl AsRef<[u8]>, value: i64) {
        if let Ok(value) = i32::try_from(value) {
            self.member(INT32, key);
            self.out.extend_from_slice(&value.to_le_bytes());
        } else {
            self.member(DOUBLE, key);
            // Exact: checksums have 32 bits, counts stay below 2^53.
            #[allow(clippy::cast_precision_loss)]
            self.out.extend_from_slice(&(value as f64).to_le_bytes());
        }
    }

    fn document(&mut self, key: &str, write: impl FnOnce(&mut Writer<'_>)) {
        self.member(DOCUMENT, key);
        document(self.out, write);
    }

    fn array(&mut self, key: &str, write: impl FnOnce(&mut Array<'_>)) {
        self.member(ARRAY, key);
        array(self.out, write);
    }
}

impl Array<'_> {
    fn element(&mut self, kind: u8) {
        self.out.push(kind);
        // Memory takes all.
        let _ = write!(self.out, "{}", self.length);
        self.out.push(0);
        self.length += 1;
    }

    fn text(&mut self, value: &str) {
        self.element(TEXT);
        text(self.out, value);
    }

    fn document(&mut self, write: impl FnOnce(&mut Writer<'_>)) {
        self.element(DOCUMENT);
        document(self.out, write);
    }
}

#[cfg(test)]
mod tests {
    use bson::{Bson, Document};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The document read by another implementation, as JSON that keeps integers and doubles apart by their values only.
    fn read(bytes: &[u8]) -> Value {
        let document: Document = bson::deserialize_from_slice(bytes).expect("one document");
        let length = i32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        assert_eq!(usize::try_from(length), Ok(bytes.len()), "nothing follows");
        value(Bson::Document(document))
    }

    fn value(bson: Bson) -> Value {
        match bson {
            Bson::Document(members) => members.into_iter().map(|(key, member)| (key, value(member))).collect(),
            Bson::Array(elements) => elements.into_iter().map(value).collect(),
            Bson::String(text) => text.into(),
            Bson::Boolean(truth) => truth.into(),
            Bson::Int32(number) => number.into(),
            Bson::Double(number) => {
                assert!(number > f64::from(i32::MAX), "small numbers are integers");
                json!(format!("{number:.0}").parse::<u64>().expect("a whole number"))
            }
            Bson::Null => Value::Null,
            other => panic!("a type no client expects: {other:?}"),
        }
    }

    fn line(json: &Value) -> SyncLine {
        serde_json::from_value(json.clone()).expect("a line")
    }

    /// Every kind of line, with every member.
    fn lines() -> Vec<Value> {
        let bucket = json!({"bucket": "3#todos|0[\"ü\"]", "checksum": 2_582_164_875_u32, "count": 3_000_000_000_u64, "priority": 1,
            "subscriptions": [{"default": 0}, {"sub": 12}]});
        vec![
            json!({"checkpoint": {"last_op_id": "1300", "write_checkpoint": "17", "buckets": [bucket], "streams": [
                {"name": "a", "is_default": false, "errors": [
                    {"subscription": 0, "message": "no"}, {"subscription": "default", "message": ""}]}]}}),
            json!({"checkpoint": {"last_op_id": "0", "buckets": [], "streams": []}}),
            json!({"checkpoint_diff": {"last_op_id": "9", "updated_buckets": [bucket], "removed_buckets": ["x", "y"]}}),
            json!({"data": {"bucket": "b", "after": "0", "has_more": true, "next_after": "4", "data": [
                {"op_id": "1", "op": "PUT", "object_type": "t", "object_id": "\u{0}", "checksum": 5, "subkey": "k",
                 "data": "{\"id\":\"\\u0000\",\"n\":9007199254740993}"},
                {"op_id": "2", "op": "REMOVE", "object_type": "t", "object_id": "1", "checksum": u32::MAX, "subkey": "k", "data": null},
            ]}}),
            json!({"checkpoint_complete": {"last_op_id": "9"}}),
            json!({"partial_checkpoint_complete": {"last_op_id": "9", "priority": 0}}),
            json!({"token_expires_in": -1}),
        ]
    }

    #[test]
    fn every_line_reads_as_in_json() {
        for json in lines() {
            let mut bytes = Vec::new();
            write_line(&line(&json), &mut bytes);
            assert_eq!(read(&bytes), json);
        }
    }

    #[test]
    fn stored_operations_are_rewritten_whole() {
        let SyncLine::Data(data) = line(&lines()[3]) else { panic!("a data line") };
        let stored: Vec<String> =
            data.data.iter().map(|operation| serde_json::to_string(operation).expect("serialises")).collect();
        let stored =
            stored.join(",") + r#",{"op_id":"3","op":"MOVE","checksum":7},{"op_id":"4","op":"CLEAR","checksum":8}"#;
        let mut bytes = Vec::new();
        let bucket = BucketName::new("b");
        let head = DataHead { bucket: &bucket, after: OpId::ZERO, has_more: true, next_after: data.next_after };
        write_data_line(head, stored.as_bytes(), &mut bytes).expect("operations");
        let mut expect = lines()[3].clone();
        let operations = expect["data"]["data"].as_array_mut().expect("an array");
        operations.push(json!({"op_id": "3", "op": "MOVE", "checksum": 7}));
        operations.push(json!({"op_id": "4", "op": "CLEAR", "checksum": 8}));
        assert_eq!(read(&bytes), expect);
    }

    #[test]
    fn what_is_no_operation_is_an_error() {
        let bucket = BucketName::new("b");
        let head = DataHead { bucket: &bucket, after: OpId::ZERO, has_more: false, next_after: OpId::ZERO };
        for json in ["{", "{}", "1", r#"{"op_id":"1","op":"PUT","checksum":1}x"#, r#"{"op":"PUT"},"#, r#"{"op":true}"#]
        {
            assert!(write_data_line(head, json.as_bytes(), &mut Vec::new()).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_text_arrives(data: String, id: String, checksum: u32) {
            let json = json!({"data": {"bucket": id, "after": "0", "has_more": false, "next_after": "1", "data": [
                {"op_id": "1", "op": "PUT", "object_type": "t", "object_id": id, "checksum": checksum, "subkey": "", "data": data},
            ]}});
            let mut bytes = Vec::new();
            write_line(&line(&json), &mut bytes);
            prop_assert_eq!(read(&bytes), json);
        }
    }
}
