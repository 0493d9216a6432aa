//! Operations in the form they are sent. Written once, at commit; serving copies the bytes.

use bytes::Bytes;
use kairos_sync_protocol::{Checksum, OpId};

use super::NewOperation;

/// An operation with its id, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WireOperation {
    pub(super) op_id: OpId,
    pub(super) checksum: Checksum,
    /// A JSON object as in a `data` line.
    pub(super) json: Bytes,
}

/// About how long the JSON of an operation will be.
pub(super) fn json_bytes(operation: &NewOperation) -> usize {
    128 + operation.data.as_ref().map_or(0, |data| data.len() + data.len() / 4)
}

/// Appends the JSON of an operation to `out`: as `kairos_sync_protocol::operation::Operation` serialises, written by
/// hand because every operation passes here.
pub(super) fn write_json(op_id: OpId, operation: &NewOperation, out: &mut Vec<u8>) {
    let data = operation.data.as_deref();
    out.reserve(json_bytes(operation));
    out.extend_from_slice(b"{\"op_id\":\"");
    out.extend_from_slice(itoa::Buffer::new().format(op_id.get()).as_bytes());
    out.extend_from_slice(if data.is_some() { b"\",\"op\":\"PUT\"" } else { b"\",\"op\":\"REMOVE\"" });
    out.extend_from_slice(b",\"object_type\":");
    write_text(&operation.output.object_type, out);
    out.extend_from_slice(b",\"object_id\":");
    write_text(&operation.output.object_id, out);
    out.extend_from_slice(b",\"checksum\":");
    out.extend_from_slice(itoa::Buffer::new().format(operation.checksum.bits()).as_bytes());
    out.extend_from_slice(b",\"subkey\":");
    write_text(&operation.subkey, out);
    out.extend_from_slice(b",\"data\":");
    match data {
        Some(data) => write_text(data, out),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

/// Appends a JSON string. Rows are full of quotes and hardly of anything else that needs an escape.
fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if text.bytes().fold(0, |found, byte| found | u8::from(byte < 0x20)) != 0 {
        write_with_controls(text, out);
    } else {
        write_quoted(text, out);
    }
    out.push(b'"');
}

/// A text without control characters, eight bytes at a time: what is before an escaped byte, a backslash, and so on with what is
/// left of the eight. Always eight are written, of which those count that are passed. A branch for each byte would take several
/// times as long.
fn write_quoted(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + 2 * text.len() + 8, 0);
    let written = &mut out[start..];
    let mut at = 0;
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    for word in words {
        at += write_word(u64::from_le_bytes(*word), 8, &mut written[at..]);
    }
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    at += write_word(u64::from_le_bytes(word), rest.len(), &mut written[at..]);
    out.truncate(start + at);
}

/// Writes the first `left` bytes of a word, escaped where need be; how many bytes that took.
fn write_word(mut word: u64, mut left: usize, written: &mut [u8]) -> usize {
    let mut escaped = places(word, b'"') | places(word, b'\\');
    let mut at = 0;
    while escaped != 0 {
        let plain = escaped.trailing_zeros() as usize / 8;
        written[at..at + 8].copy_from_slice(&word.to_le_bytes());
        written[at + plain] = b'\\';
        at += plain + 1;
        // The escaped byte is the first of what is left, and looked at no more.
        word >>= 8 * plain;
        escaped = escaped >> (8 * plain) & !0xFF;
        left -= plain;
    }
    written[at..at + 8].copy_from_slice(&word.to_le_bytes());
    at + left
}

/// The high bit of each of eight bytes that is this one: only those become zero, to which 0x7F can be added without it.
fn places(word: u64, byte: u8) -> u64 {
    const LOW_BITS: u64 = u64::from_le_bytes([0x7F; 8]);
    let differing = word ^ u64::from_le_bytes([byte; 8]);
    !(((differing & LOW_BITS) + LOW_BITS) | differing | LOW_BITS)
}

fn write_with_controls(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            0..0x20 => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 0xF)],
            ]),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use kairos_sync_protocol::{
        BucketName,
        operation::{OpKind, Operation},
    };
    use proptest::prelude::*;

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
            let mut json = Vec::new();
            write_json(OpId::new(7).unwrap(), operation, &mut json);
            let text = String::from_utf8(json).unwrap();
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

    proptest! {
        #[test]
        fn texts_are_written_as_serde_writes_them(text: String, control in "[\\x00-\\x7f]{0,20}") {
            for text in [text, control] {
                let mut json = Vec::new();
                write_text(&text, &mut json);
                prop_assert_eq!(String::from_utf8(json).unwrap(), serde_json::to_string(&text).unwrap());
            }
        }
    }
}
