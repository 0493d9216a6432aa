//! Values of the language: SQLite's kinds, with integers that do not wrap.

/// A value of the rules language.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// SQL NULL; also an absent column.
    Null,
    /// An integer. Source values fit 64 bits; arithmetic may go beyond.
    Integer(i128),
    /// A binary64 number.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes; never part of output rows.
    Blob(Vec<u8>),
}
