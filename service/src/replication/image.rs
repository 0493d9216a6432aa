//! Rows and their identities as bytes.
//!
//! A row image is the number of the column layout it was written under, then each column: 0 for NULL, the largest number
//! for a value that is not known yet, else the length plus one and the text. Numbers are LEB128. An identity is written
//! like a row, without the layout.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Buf, BufMut, Bytes};
use sha2::{Digest, Sha256};

use crate::{
    postgres::pgoutput::{Tuple, TupleValue},
    storage::{RowKey, StorageError, TableId},
};

/// Stands in place of a length for a value that is not known yet.
const UNKNOWN: usize = usize::MAX;

/// 96 bits: no two of a billion rows are expected to share one.
const SUBKEY_BYTES: usize = 12;

/// A row with every column known: texts as Postgres printed them, `None` for NULL. The texts may be borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CompleteRow<T = Bytes>(pub(super) Vec<Option<T>>);

impl<T: AsRef<[u8]>> CompleteRow<T> {
    /// The image to store. `layout` names the columns the values belong to.
    pub(super) fn encode(&self, layout: usize) -> Bytes {
        let values = || self.0.iter().map(|value| value.as_ref().map(AsRef::as_ref));
        // With no room left over, which would have to be remembered beside it.
        let mut image = Vec::with_capacity(number_size(layout) + values().map(value_size).sum::<usize>());
        put_number(&mut image, layout);
        values().for_each(|value| put_value(&mut image, value));
        image.into()
    }

    /// The key of this row; `identity` are the positions of the columns that identify it.
    pub(super) fn key(&self, table: TableId, identity: &[usize]) -> RowKey {
        identity_key(table, identity, |position| self.0.get(position)?.as_ref().map(AsRef::as_ref))
    }
}

/// A row of which the stream has sent parts, while the rest is still to be copied. What was not sent is unchanged since
/// the copy began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartialRow(pub(super) Tuple);

impl PartialRow {
    /// The image to store, as of a complete row.
    pub(super) fn encode(&self, layout: usize) -> Bytes {
        let mut image = Vec::new();
        put_number(&mut image, layout);
        for value in &self.0.0 {
            match value {
                TupleValue::Text(text) => put_value(&mut image, Some(text)),
                TupleValue::Null => put_value(&mut image, None),
                TupleValue::Unchanged => put_number(&mut image, UNKNOWN),
            }
        }
        image.into()
    }

    /// The row with what was not sent taken from `row`, a state of it with the same columns.
    pub(super) fn completed_by(self, row: &CompleteRow) -> CompleteRow {
        let newest = |(sent, copied): (TupleValue, &Option<Bytes>)| match sent {
            TupleValue::Unchanged => copied.clone(),
            TupleValue::Null => None,
            TupleValue::Text(text) => Some(text),
        };
        CompleteRow(self.0.0.into_iter().zip(&row.0).map(newest).collect())
    }

    /// Its identifying values, which are always sent; `None` if one is missing or NULL.
    pub(super) fn identity(&self, positions: &[usize]) -> Option<Vec<Bytes>> {
        let text = |position: &usize| match self.0.0.get(*position) {
            Some(TupleValue::Text(text)) => Some(text.clone()),
            _ => None,
        };
        positions.iter().map(text).collect()
    }
}

/// What is stored of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Image {
    Complete(CompleteRow),
    Partial(PartialRow),
}

impl Image {
    /// The row that a tuple gives.
    pub(super) fn of(tuple: Tuple) -> Self {
        if tuple.0.contains(&TupleValue::Unchanged) {
            return Self::Partial(PartialRow(tuple));
        }
        let text = |value| if let TupleValue::Text(text) = value { Some(text) } else { None };
        Self::Complete(CompleteRow(tuple.0.into_iter().map(text).collect()))
    }

    /// Layout and row of a stored image; `None` if it is damaged.
    pub(super) fn decode(image: &Bytes) -> Option<(usize, Self)> {
        let mut rest = image.clone();
        let layout = take_number(&mut rest)?;
        let (mut values, mut unknown) = (Vec::new(), Vec::new());
        while rest.has_remaining() {
            let value = match take_number(&mut rest)? {
                0 => None,
                UNKNOWN => {
                    unknown.push(values.len());
                    None
                }
                length if length - 1 <= rest.len() => Some(rest.split_to(length - 1)),
                _ => return None,
            };
            values.push(value);
        }
        if unknown.is_empty() {
            return Some((layout, Self::Complete(CompleteRow(values))));
        }
        let mut tuple: Vec<_> =
            values.into_iter().map(|value| value.map_or(TupleValue::Null, TupleValue::Text)).collect();
        for position in unknown {
            tuple[position] = TupleValue::Unchanged;
        }
        Some((layout, Self::Partial(PartialRow(Tuple(tuple)))))
    }

    /// The value of a column; unchanged where it is not known.
    pub(super) fn value(&self, position: usize) -> TupleValue {
        match self {
            Self::Complete(row) => match row.0.get(position) {
                Some(Some(text)) => TupleValue::Text(text.clone()),
                Some(None) => TupleValue::Null,
                None => TupleValue::Unchanged,
            },
            Self::Partial(row) => row.0.0.get(position).cloned().unwrap_or(TupleValue::Unchanged),
        }
    }
}

/// What a stored image is that cannot be read.
pub(super) fn damaged_image() -> StorageError {
    StorageError::Damaged { what: "a row image".to_owned() }
}

/// The key of a row of which `value` gives the columns.
pub(super) fn identity_key<'v>(
    table: TableId,
    identity: &[usize],
    value: impl Fn(usize) -> Option<&'v [u8]>,
) -> RowKey {
    let values = || identity.iter().map(|position| value(*position));
    // Written where it stays.
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, values().map(value_size).sum()).collect();
    if let Some(mut rest) = Arc::get_mut(&mut bytes) {
        values().for_each(|value| put_value(&mut rest, value));
    }
    RowKey { table, identity: bytes }
}

/// The identifying values in a key, in the order of their columns; `None` if it is damaged.
pub(super) fn identity_values(identity: &[u8]) -> Option<Vec<Option<Bytes>>> {
    let mut rest = Bytes::copy_from_slice(identity);
    let mut values = Vec::new();
    while rest.has_remaining() {
        values.push(match take_number(&mut rest)? {
            0 => None,
            length if length - 1 <= rest.len() => Some(rest.split_to(length - 1)),
            _ => return None,
        });
    }
    Some(values)
}

/// Short opaque text, the same for a row as long as its table's name and its identity are.
pub(super) fn subkey(schema: &str, name: &str, key: &RowKey) -> Arc<str> {
    let mut hasher = Sha256::new();
    for part in [schema.as_bytes(), b"\0", name.as_bytes(), b"\0", &key.identity] {
        hasher.update(part);
    }
    let mut text = [0; SUBKEY_BYTES / 3 * 4];
    let written = URL_SAFE_NO_PAD.encode_slice(&hasher.finalize()[..SUBKEY_BYTES], &mut text);
    debug_assert_eq!(written, Ok(text.len()));
    std::str::from_utf8(&text).expect("base64 is ASCII").into()
}

fn put_value(bytes: &mut impl BufMut, value: Option<&[u8]>) {
    match value {
        None => put_number(bytes, 0),
        Some(text) => {
            put_number(bytes, text.len() + 1);
            bytes.put_slice(text);
        }
    }
}

/// Bytes that [`put_value`] writes.
fn value_size(value: Option<&[u8]>) -> usize {
    value.map_or(1, |text| number_size(text.len() + 1) + text.len())
}

fn put_number(bytes: &mut impl BufMut, mut number: usize) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            bytes.put_u8(low);
            return;
        }
        bytes.put_u8(low | 0x80);
    }
}

/// Bytes that [`put_number`] writes.
fn number_size(number: usize) -> usize {
    let bits = usize::BITS - number.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

fn take_number(bytes: &mut Bytes) -> Option<usize> {
    let mut number = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = bytes.first().copied()?;
        bytes.advance(1);
        number |= usize::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(values: &[Option<&'static str>]) -> CompleteRow {
        CompleteRow(values.iter().map(|value| value.map(Bytes::from)).collect())
    }

    #[test]
    fn null_and_the_empty_text_are_different_identities() {
        let key = |value| row(&[value]).key(TableId(1), &[0]);
        assert_ne!(key(None), key(Some("")));
        assert_ne!(
            row(&[Some("a"), Some("bc")]).key(TableId(1), &[0, 1]),
            row(&[Some("ab"), Some("c")]).key(TableId(1), &[0, 1])
        );
    }

    #[test]
    fn a_subkey_is_short_and_stays() {
        let key = row(&[Some("h1")]).key(TableId(1), &[0]);
        let same_row_in_another_store = RowKey { table: TableId(9), ..key.clone() };
        assert_eq!(subkey("public", "habits", &key).len(), 16);
        assert_eq!(subkey("public", "habits", &key), subkey("public", "habits", &same_row_in_another_store));
        assert_ne!(subkey("public", "habits", &key), subkey("public", "routines", &key));
    }

    proptest! {
        #[test]
        fn images_round_trip(layout in 0..1_000_000_usize, values in prop::collection::vec(prop::option::of(".{0,300}"), 0..8)) {
            let row = CompleteRow(values.into_iter().map(|value| value.map(Bytes::from)).collect());
            prop_assert_eq!(Image::decode(&row.encode(layout)), Some((layout, Image::Complete(row))));
        }

        #[test]
        fn images_of_parts_round_trip(
            layout in 0..1_000_000_usize,
            values in prop::collection::vec(prop_oneof![
                Just(TupleValue::Null),
                Just(TupleValue::Unchanged),
                ".{0,300}".prop_map(|text| TupleValue::Text(text.into()))
            ], 1..8)
        ) {
            let image = Image::of(Tuple(values));
            let bytes = match &image {
                Image::Complete(row) => row.encode(layout),
                Image::Partial(row) => row.encode(layout),
            };
            prop_assert_eq!(Image::decode(&bytes), Some((layout, image)));
        }

        #[test]
        fn no_image_panics(image: Vec<u8>) {
            let _ = Image::decode(&image.into());
        }
    }
}
