//! Lines as BSON: one document each, with the same members as in JSON.
//!
//! Numbers are 32-bit integers where they fit, doubles otherwise, since that is what clients were made for; ids are text,
//! as in JSON. See <https://bsonspec.org/spec.html>.

mod read;
mod write;

pub use read::{ReadError, read_line, the_only_key};
pub use write::{DataHead, write_data_line, write_line};

/// Types of members.
const DOUBLE: u8 = 0x01;
const TEXT: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BOOLEAN: u8 = 0x08;
const NULL: u8 = 0x0A;
const INT32: u8 = 0x10;
/// Not written, but read: services may.
const INT64: u8 = 0x12;
