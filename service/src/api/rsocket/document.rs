//! Documents in frames: JSON, or BSON from clients of long ago.

use serde::de::DeserializeOwned;

use crate::{
    api::{body::explain, json_bounds::JsonBounds},
    unambiguous_json,
};

/// Documents may be nested this deep, as in JSON.
const DEPTH_MAX: usize = 100;

/// How a client writes documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentType {
    Json,
    Bson,
}

/// Why a document is not taken. Says nothing of its values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct InvalidDocument(String);

impl DocumentType {
    /// The type with this MIME type.
    pub(super) fn from_mime(mime: &str) -> Option<Self> {
        match mime {
            "application/json" => Some(Self::Json),
            "application/bson" => Some(Self::Bson),
            _ => None,
        }
    }

    /// Reads a document. Nothing at all is an empty one. JSON has the bounds of a body over HTTP.
    pub(super) fn read<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, InvalidDocument> {
        match self {
            _ if bytes.is_empty() => read_json(b"{}"),
            Self::Json => read_json(bytes),
            Self::Bson => {
                read_bson(bytes).ok_or_else(|| InvalidDocument("The body is not a valid document".to_owned()))
            }
        }
    }
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, InvalidDocument> {
    JsonBounds::new().feed(bytes).map_err(|exceeded| InvalidDocument(exceeded.describe()))?;
    unambiguous_json::from_slice(bytes).map_err(|error| InvalidDocument(explain(&error)))
}

fn read_bson<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    if is_sound(bytes) { bson::deserialize_from_slice(bytes).ok() } else { None }
}

/// Whether this is one document that is not nested too deep for a reader that calls itself for each level.
fn is_sound(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut ends = Vec::new();
    let mut sound = enter(&mut rest, &mut ends).is_some();
    while sound && !ends.is_empty() {
        sound = member(&mut rest, &mut ends).is_some() && ends.len() <= DEPTH_MAX;
    }
    sound && rest.is_empty()
}

/// Goes into a document: notes what is left when it ends.
fn enter(rest: &mut &[u8], ends: &mut Vec<usize>) -> Option<()> {
    let length = length(rest)?;
    ends.push((rest.len() + 4).checked_sub(length)?);
    Some(())
}

fn member(rest: &mut &[u8], ends: &mut Vec<usize>) -> Option<()> {
    let kind = take(rest, 1)?[0];
    if kind == 0 {
        return (ends.pop()? == rest.len()).then_some(());
    }
    skip_text(rest)?;
    match kind {
        0x03 | 0x04 => return enter(rest, ends),
        0x01 | 0x09 | 0x11 | 0x12 => take(rest, 8)?,
        0x02 | 0x0D | 0x0E => {
            let length = length(rest)?;
            take(rest, length)?
        }
        0x05 => {
            let length = length(rest)?;
            take(rest, length.checked_add(1)?)?
        }
        0x06 | 0x0A | 0x7F | 0xFF => &[],
        0x07 => take(rest, 12)?,
        0x08 => take(rest, 1)?,
        0x0B => {
            skip_text(rest)?;
            skip_text(rest)?;
            &[]
        }
        0x10 => take(rest, 4)?,
        0x13 => take(rest, 16)?,
        // Code with scope, database pointers, unknown types: nothing a client sends.
        _ => return None,
    };
    Some(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(i32::from_le_bytes(take(rest, 4)?.try_into().ok()?)).ok()
}

fn skip_text(rest: &mut &[u8]) -> Option<()> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    take(rest, end + 1).map(|_| ())
}

#[cfg(test)]
mod tests {
    use bson::{Binary, Bson, DateTime, Document, bson, doc, spec::BinarySubtype};
    use kairos_sync_protocol::request::SyncRequest;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn nested(depth: usize) -> Vec<u8> {
        let mut document = doc! {};
        for _ in 1..depth {
            document = doc! { "a": document };
        }
        bson::serialize_to_vec(&document).unwrap()
    }

    #[test]
    fn a_request_reads_alike_in_both() {
        let json = json!({"buckets": [{"name": "a[]", "after": "12"}], "raw_data": true, "client_id": "c", "parameters": {"n": 5, "x": [null, 1.5]},
            "streams": {"include_defaults": false, "subscriptions": [{"stream": "s", "parameters": {"l": "1"}, "override_priority": 2}]}});
        let bson = bson::serialize_to_vec(&json).unwrap();
        let from_json: SyncRequest = DocumentType::Json.read(json.to_string().as_bytes()).unwrap();
        assert_eq!(DocumentType::Bson.read::<SyncRequest>(&bson).unwrap(), from_json);
        assert_eq!(DocumentType::Bson.read::<SyncRequest>(&[]).unwrap(), SyncRequest::default());
    }

    #[test]
    fn every_type_clients_may_send_is_walked_over() {
        let binary = Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] });
        let document = doc! {
            "a": bson!([1, 2_i64, 1.5, "text", true, null]), "d": DateTime::from_millis(5), "b": binary,
            "o": bson::oid::ObjectId::new(), "r": bson::Regex { pattern: "a".try_into().unwrap(), options: "i".try_into().unwrap() },
            "e": {}, "m": Bson::MinKey, "c": Bson::JavaScriptCode("x".to_owned()),
        };
        assert!(is_sound(&bson::serialize_to_vec(&document).unwrap()));
        assert!(!is_sound(&[bson::serialize_to_vec(&document).unwrap(), vec![0]].concat()), "something follows");
    }

    #[test]
    fn deep_documents_are_refused() {
        assert!(is_sound(&nested(DEPTH_MAX)));
        assert!(!is_sound(&nested(DEPTH_MAX + 1)));
        // Built by hand: a writer that calls itself could not make it.
        let depth = 1_000_000;
        let mut deep = Vec::with_capacity(depth * 8);
        for level in (1..=depth).rev() {
            deep.extend_from_slice(&i32::try_from(level * 8 - 3).unwrap().to_le_bytes());
            deep.extend_from_slice(&[3, b'a', 0]);
        }
        assert!(DocumentType::Bson.read::<SyncRequest>(&deep).is_err());
        let deep = format!("{{\"parameters\":{}", r#"{"a":"#.repeat(100_000));
        assert!(DocumentType::Json.read::<SyncRequest>(deep.as_bytes()).is_err());
    }

    #[test]
    fn json_has_the_bounds_of_a_body() {
        let refusal = |json: &str| DocumentType::Json.read::<SyncRequest>(json.as_bytes()).unwrap_err().to_string();
        for (json, expect) in [
            (r#"{"parameters":{"a":1,"b":{"c":1,"c":2}}}"#.to_owned(), "duplicate field"),
            (r#"{"client_id":"a","client_id":"b"}"#.to_owned(), "duplicate field"),
            (format!(r#"{{"parameters":{{"n":{}}}}}"#, "9".repeat(1025)), "A number in the body is longer"),
            (format!(r#"{{"parameters":{{"l":[{}0]}}}}"#, "0,".repeat(1 << 17)), "A list in the body has more"),
            (format!(r#"{{"parameters":{}"#, r#"{"a":"#.repeat(200)), "The body has more than 128 levels"),
            ("{".to_owned(), "The body is not valid JSON"),
            (r#"{"client_id":["secret"]}"#.to_owned(), "a value has the wrong kind, at line 1"),
        ] {
            assert!(refusal(&json).starts_with(expect), "{json:.40}: {}", refusal(&json));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_document_or_refused(mut bytes: Vec<u8>, text: String, at: usize, byte: u8) {
            let _ = DocumentType::Bson.read::<SyncRequest>(&bytes);
            let document: Document = doc! { "parameters": { "t": text, "n": [1, { "m": 2.5 }] }, "raw_data": true };
            bytes = bson::serialize_to_vec(&document).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = DocumentType::Bson.read::<SyncRequest>(&bytes);
        }
    }
}
