//! Documents to lines, by way of serde: into the same types as from JSON, with the same tolerance for members that a later
//! version of the protocol may add.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor, value::BorrowedStrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{ARRAY, BOOLEAN, DOCUMENT, DOUBLE, INT32, INT64, NULL, TEXT};
use crate::line::SyncLine;

/// Length of the shortest document: four bytes that say it, and a zero.
const DOCUMENT_BYTES_MIN: usize = 5;
/// Lines are five levels deep. What is far deeper is made to exhaust the stack.
const DEPTH_MAX: u8 = 32;

/// A document that is no line. Says nothing of its content, which may be values of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Lengths, types or text that no document has.
    #[error("it is not BSON")]
    Malformed,
    /// A document, but its members are not those of a line.
    #[error("its fields do not fit its kind")]
    Fields,
}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Fields
    }
}

/// Reads one document.
///
/// # Errors
/// Where it is none, or not that of a line.
pub fn read_line(document: &[u8]) -> Result<SyncLine, ReadError> {
    SyncLine::deserialize(Value { kind: DOCUMENT, bytes: document, depth: 0 })
}

/// The name of the only member of a document, if it has one member only: the kind of a line.
pub fn the_only_key(document: &[u8]) -> Option<&str> {
    let mut members = Members::of(document, 0).ok()?;
    let (key, _) = members.next_member().ok()??;
    members.rest.is_empty().then_some(key)
}

/// A value with exactly its bytes.
#[derive(Clone, Copy)]
struct Value<'de> {
    kind: u8,
    bytes: &'de [u8],
    depth: u8,
}

/// What is left of a document or an array.
struct Members<'de> {
    rest: &'de [u8],
    depth: u8,
    /// The value of the key that was handed out.
    value: Option<Value<'de>>,
}

fn int32(bytes: &[u8]) -> Result<i32, ReadError> {
    bytes.first_chunk().map(|bytes| i32::from_le_bytes(*bytes)).ok_or(ReadError::Malformed)
}

fn length(bytes: &[u8]) -> Result<usize, ReadError> {
    usize::try_from(int32(bytes)?).map_err(|_| ReadError::Malformed)
}

fn text(bytes: &[u8]) -> Result<&str, ReadError> {
    str::from_utf8(bytes).map_err(|_| ReadError::Malformed)
}

impl<'de> Members<'de> {
    fn of(document: &'de [u8], depth: u8) -> Result<Self, ReadError> {
        if length(document)? != document.len() || document.len() < DOCUMENT_BYTES_MIN || depth > DEPTH_MAX {
            return Err(ReadError::Malformed);
        }
        match document.get(4..) {
            Some([rest @ .., 0]) => Ok(Self { rest, depth, value: None }),
            _ => Err(ReadError::Malformed),
        }
    }

    fn next_member(&mut self) -> Result<Option<(&'de str, Value<'de>)>, ReadError> {
        let Some((&kind, rest)) = self.rest.split_first() else { return Ok(None) };
        let end = memchr::memchr(0, rest).ok_or(ReadError::Malformed)?;
        let (key, rest) = rest.split_at(end);
        let rest = rest.get(1..).unwrap_or_default();
        let size = match kind {
            DOUBLE | INT64 => 8,
            INT32 => 4,
            BOOLEAN => 1,
            NULL => 0,
            TEXT => length(rest)?.checked_add(4).ok_or(ReadError::Malformed)?,
            DOCUMENT | ARRAY => length(rest)?,
            _ => return Err(ReadError::Malformed),
        };
        let (bytes, rest) = rest.split_at_checked(size).ok_or(ReadError::Malformed)?;
        self.rest = rest;
        Ok(Some((text(key)?, Value { kind, bytes, depth: self.depth })))
    }
}

impl<'de> Value<'de> {
    fn members(self) -> Result<Members<'de>, ReadError> {
        Members::of(self.bytes, self.depth.saturating_add(1))
    }

    fn text(self) -> Result<&'de str, ReadError> {
        match self.bytes.get(4..) {
            Some([content @ .., 0]) => text(content),
            _ => Err(ReadError::Malformed),
        }
    }

    fn eight_bytes(self) -> Result<[u8; 8], ReadError> {
        self.bytes.try_into().map_err(|_| ReadError::Malformed)
    }
}

/// A whole number that was too large for 32 bits, where a double has it exactly.
#[expect(clippy::cast_possible_truncation, reason = "checked")]
fn whole(number: f64) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.kind {
            DOUBLE => {
                let number = f64::from_le_bytes(self.eight_bytes()?);
                match whole(number) {
                    Some(number) => visitor.visit_i64(number),
                    None => visitor.visit_f64(number),
                }
            }
            TEXT => visitor.visit_borrowed_str(self.text()?),
            DOCUMENT => visitor.visit_map(self.members()?),
            ARRAY => visitor.visit_seq(self.members()?),
            BOOLEAN => match self.bytes {
                [0] => visitor.visit_bool(false),
                [1] => visitor.visit_bool(true),
                _ => Err(ReadError::Malformed),
            },
            NULL => visitor.visit_unit(),
            INT32 => visitor.visit_i32(int32(self.bytes)?),
            INT64 => visitor.visit_i64(i64::from_le_bytes(self.eight_bytes()?)),
            _ => Err(ReadError::Malformed),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.kind == NULL { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if self.kind == TEXT {
            return visitor.visit_enum(BorrowedStrDeserializer::new(self.text()?));
        }
        let mut members = self.members()?;
        let (key, value) = members.next_member()?.ok_or(ReadError::Fields)?;
        if !members.rest.is_empty() {
            return Err(ReadError::Fields);
        }
        visitor.visit_enum(Variant { key, value })
    }

    /// Whatever it is, it is not looked at.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some((key, value)) = self.next_member()? else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        seed.deserialize(self.value.take().ok_or(ReadError::Malformed)?)
    }
}

impl<'de> SeqAccess<'de> for Members<'de> {
    type Error = ReadError;

    /// Elements stand in order; their names, which count them, are not looked at.
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        self.next_member()?.map(|(_, value)| seed.deserialize(value)).transpose()
    }
}

/// A document with one member: its name says which variant.
struct Variant<'de> {
    key: &'de str,
    value: Value<'de>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = ReadError;
    type Variant = Value<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Value<'de>), ReadError> {
        Ok((seed.deserialize(BorrowedStrDeserializer::new(self.key))?, self.value))
    }
}

impl<'de> VariantAccess<'de> for Value<'de> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Err(ReadError::Fields)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};
    use proptest::prelude::*;

    use super::*;
    use crate::bson::write_line;

    /// A document that another implementation wrote.
    fn written(document: &Document) -> Vec<u8> {
        bson::serialize_to_vec(document).expect("writes")
    }

    fn data_line(texts: [String; 3], checksum: u32) -> SyncLine {
        let [object_type, object_id, data] = texts;
        let operation = serde_json::json!({"op_id": "7", "op": "PUT", "object_type": object_type,
            "object_id": object_id, "checksum": checksum, "subkey": "", "data": data});
        let removed = serde_json::json!({"op_id": "8", "op": "REMOVE", "object_type": object_type,
            "object_id": object_id, "checksum": 1, "data": null});
        serde_json::from_value(serde_json::json!({"data": {"bucket": object_type, "after": "0", "has_more": false,
            "next_after": "8", "data": [operation, removed]}}))
        .expect("a line")
    }

    #[test]
    fn lines_of_another_writer_are_read_whichever_numbers_it_uses() {
        for checksum in [doc! {"c": 5_i32}, doc! {"c": 5_i64}, doc! {"c": 5.0_f64}] {
            let checksum = checksum.get("c").expect("there").clone();
            let bucket = doc! {"bucket": "a", "checksum": checksum, "count": 2_i64, "priority": 1_i32,
            "subscriptions": [{"default": 0_i32}, {"sub": 3_i32}], "later": {"deep": [1, null, true]}};
            let errors = doc! {"subscription": "default", "message": "no"};
            let stream = doc! {"name": "s", "is_default": false, "errors": [errors]};
            let line = doc! {"checkpoint": {"last_op_id": "9", "write_checkpoint": null, "buckets": [bucket],
            "streams": [stream], "later": 1.5}};
            let expected = serde_json::from_str(
                r#"{"checkpoint":{"last_op_id":"9","buckets":[{"bucket":"a","checksum":5,"count":2,"priority":1,
                "subscriptions":[{"default":0},{"sub":3}]}],"streams":[{"name":"s","is_default":false,
                "errors":[{"subscription":"default","message":"no"}]}]}}"#,
            );
            assert_eq!(read_line(&written(&line)), Ok(expected.expect("a line")));
        }
    }

    #[test]
    fn what_is_no_line_is_an_error() {
        let fields = [
            doc! {},
            doc! {"token_expires_in": "soon"},
            doc! {"token_expires_in": 1.5},
            doc! {"token_expires_in": 1, "more": 2},
            doc! {"checkpoint_complete": {"last_op_id": 5}},
            doc! {"data": {"bucket": "a", "data": [{"op_id": "1", "op": "PATCH", "checksum": 1}]}},
            doc! {"data": {"bucket": "a", "data": [{"op_id": "1", "op": "PUT", "checksum": 4_294_967_296_i64}]}},
        ];
        for document in fields {
            assert_eq!(read_line(&written(&document)), Err(ReadError::Fields), "{document}");
        }
        for bytes in [&[][..], &[5, 0, 0, 0], &[5, 0, 0, 0, 1], &[255; 8], &[6, 0, 0, 0, 0, 0]] {
            assert_eq!(read_line(bytes), Err(ReadError::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn a_document_that_is_nested_without_end_does_not_exhaust_the_stack() {
        let mut nested = doc! {};
        for _ in 0..100 {
            nested = doc! {"a": nested};
        }
        let errors = doc! {"subscription": nested, "message": ""};
        let line = doc! {"checkpoint": {"last_op_id": "1", "buckets": [],
        "streams": [{"name": "s", "is_default": true, "errors": [errors]}]}};
        assert!(read_line(&written(&line)).is_err());
    }

    #[test]
    fn a_line_has_one_key() {
        assert_eq!(the_only_key(&written(&doc! {"weather": {"sunny": true}})), Some("weather"));
        assert_eq!(the_only_key(&written(&doc! {"a": 1, "b": 2})), None);
        assert_eq!(the_only_key(&written(&doc! {})), None);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(texts: [String; 3], checksum: u32) {
            let line = data_line(texts, checksum);
            let mut bytes = Vec::new();
            write_line(&line, &mut bytes);
            prop_assert_eq!(read_line(&bytes), Ok(line));
        }

        #[test]
        fn damage_never_panics(place in 0_usize..300, byte: u8, cut in 0_usize..300) {
            let mut bytes = Vec::new();
            write_line(&data_line(["t".into(), "1".into(), "{}".into()], 5), &mut bytes);
            let place = place % bytes.len();
            bytes[place] = byte;
            let _ = read_line(&bytes);
            let cut = cut % bytes.len();
            prop_assert!(read_line(&bytes[..cut]).is_err(), "a part is never a line");
        }
    }
}
