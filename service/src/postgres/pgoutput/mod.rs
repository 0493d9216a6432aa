//! The messages of the `pgoutput` plugin, protocol version 1: bytes in, messages out.
//!
//! Values stay slices of the received message; nothing is copied. One file per kind of message, named as the Postgres
//! manual names them ("Logical Replication Message Formats").
//!
//! **Invariants**
//!
//! - Pure, and no input panics: a malformed message is a [`Malformed`], which ends the connection.
//! - Knows no catalog: relations are the numbers Postgres gives them.
//!
//! Start reading at [`decode`].

mod reader;
mod relation;
mod row;
mod transaction;

use bytes::Bytes;

pub use reader::Malformed;
use reader::Reader;
pub use relation::{IdentitySetting, Relation, RelationColumn};
pub use row::{Delete, Insert, OldTuple, Truncate, Tuple, TupleValue, Update};
pub use transaction::{Begin, Commit, LogicalMessage};

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A transaction begins; what follows up to its commit belongs to it.
    Begin(Begin),
    /// The transaction is complete.
    Commit(Commit),
    /// Describes a table; sent before its first change, and again after its definition changed.
    Relation(Relation),
    /// A new row.
    Insert(Insert),
    /// A changed row.
    Update(Update),
    /// A removed row.
    Delete(Delete),
    /// Emptied tables.
    Truncate(Truncate),
    /// Something written by `pg_logical_emit_message`.
    Logical(LogicalMessage),
    /// A custom type, or the origin of a change: neither changes what is done.
    Ignored,
}

/// Decodes one message.
///
/// # Errors
/// [`Malformed`] when it is not what the manual describes.
pub fn decode(message: Bytes) -> Result<Message, Malformed> {
    let mut reader = Reader::new(message);
    let decoded = match reader.u8()? {
        b'B' => Message::Begin(Begin::read(&mut reader)?),
        b'C' => Message::Commit(Commit::read(&mut reader)?),
        b'R' => Message::Relation(Relation::read(&mut reader)?),
        b'I' => Message::Insert(Insert::read(&mut reader)?),
        b'U' => Message::Update(Update::read(&mut reader)?),
        b'D' => Message::Delete(Delete::read(&mut reader)?),
        b'T' => Message::Truncate(Truncate::read(&mut reader)?),
        b'M' => Message::Logical(LogicalMessage::read(&mut reader)?),
        b'Y' | b'O' => return Ok(Message::Ignored),
        _ => return Err(Malformed),
    };
    reader.end()?;
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_update_keeps_null_and_unchanged_apart() {
        let bytes = Bytes::from_static(b"U\0\0\0\x07N\0\x03nut\0\0\0\x02hi");
        let expected = Update {
            relation: 7,
            old: None,
            new: Tuple(vec![TupleValue::Null, TupleValue::Unchanged, TupleValue::Text(Bytes::from_static(b"hi"))]),
        };
        assert_eq!(decode(bytes), Ok(Message::Update(expected)));
    }

    #[test]
    fn a_key_change_carries_the_old_key() {
        let bytes = Bytes::from_static(b"U\0\0\0\x07K\0\x01t\0\0\0\x011N\0\x01t\0\0\0\x012");
        let Ok(Message::Update(update)) = decode(bytes) else { panic!("an update") };
        assert_eq!(update.old, Some(OldTuple::Key(Tuple(vec![TupleValue::Text(Bytes::from_static(b"1"))]))));
    }

    #[test]
    fn a_message_with_anything_after_its_end_is_refused() {
        assert!(decode(Bytes::from_static(b"T\0\0\0\x01\0\0\0\0\x07")).is_ok());
        assert_eq!(decode(Bytes::from_static(b"T\0\0\0\x01\0\0\0\0\x07\0")), Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_message_panics(kind in prop::sample::select(b"BCRIUDTMYOS?".to_vec()), body: Vec<u8>) {
            let mut message = vec![kind];
            message.extend(body);
            let _ = decode(message.into());
        }

        #[test]
        fn no_truncated_message_is_accepted(values in prop::collection::vec(prop::option::of("[a-z]{0,9}"), 1..6)) {
            let mut message = b"I\0\0\0\x01N".to_vec();
            message.extend(u16::try_from(values.len()).expect("few").to_be_bytes());
            for value in &values {
                match value {
                    None => message.push(b'n'),
                    Some(text) => {
                        message.push(b't');
                        message.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
                        message.extend(text.as_bytes());
                    }
                }
            }
            prop_assert!(decode(message.clone().into()).is_ok());
            for length in 0..message.len() {
                prop_assert_eq!(decode(message[..length].to_vec().into()), Err(Malformed));
            }
        }
    }
}
