//! Values: from the text Postgres prints to the values of the rules language.
//!
//! Snapshot and stream both bring text, printed under the same session settings, and both go through
//! [`ColumnType::decode`]: so a row is the same whichever way it came.
//!
//! **Invariants**
//!
//! - No text panics and none is refused: what does not look like its type is taken as text, as printed.
//! - A type that is not built in (enums, domains, composites, ranges of one's own, extensions) is text, as printed.
//!
//! `docs/types.md` lists what becomes of each type; a test tries the list on a real server.

mod array;
mod range;
mod time;

use kairos_sync_rules::{Compatibility, SqlValue};
use tokio_postgres::types::{Kind, Type};

use crate::lsn::Lsn;

/// How the text of a column is to be read. Found once per column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    /// As printed. Also whatever is not named below.
    Text,
    /// 1 or 0.
    Bool,
    /// 64 bits.
    Integer,
    /// 64-bit binary.
    Real,
    /// Bytes in hexadecimal.
    Bytes,
    /// JSON; as printed, but not quoted again within an array.
    Json,
    /// A calendar day.
    Date,
    /// A time of day.
    Time,
    /// A date and time without a zone.
    Timestamp,
    /// A moment.
    TimestampTz,
    /// A WAL position.
    Lsn,
    /// An array of a built-in type.
    Array(Box<ColumnType>),
    /// An array of boxes. Boxes contain commas, so semicolons separate them.
    BoxArray,
    /// A range of a built-in type.
    Range(Box<ColumnType>),
    /// A set of ranges of a built-in type.
    Multirange(Box<ColumnType>),
}

impl ColumnType {
    /// The type with this object id.
    pub fn of(oid: u32) -> Self {
        match Type::from_oid(oid) {
            None => Self::Text,
            Some(Type::BOX_ARRAY) => Self::BoxArray,
            Some(ty) => match ty.kind() {
                Kind::Array(element) => Self::Array(Box::new(Self::element(element))),
                _ => Self::element(&ty),
            },
        }
    }

    fn element(ty: &Type) -> Self {
        match ty.kind() {
            Kind::Range(bound) => Self::Range(Box::new(Self::scalar(bound))),
            Kind::Multirange(bound) => Self::Multirange(Box::new(Self::scalar(bound))),
            _ => Self::scalar(ty),
        }
    }

    fn scalar(ty: &Type) -> Self {
        match *ty {
            Type::BOOL => Self::Bool,
            Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Self::Integer,
            Type::FLOAT4 | Type::FLOAT8 => Self::Real,
            Type::BYTEA => Self::Bytes,
            Type::JSON | Type::JSONB => Self::Json,
            Type::DATE => Self::Date,
            Type::TIME => Self::Time,
            Type::TIMESTAMP => Self::Timestamp,
            Type::TIMESTAMPTZ => Self::TimestampTz,
            Type::PG_LSN => Self::Lsn,
            _ => Self::Text,
        }
    }

    /// Reads a value. `text` is what Postgres printed.
    pub fn decode(&self, text: &str, compatibility: Compatibility) -> SqlValue {
        match self {
            Self::Text | Self::Json => None,
            Self::Bool => match text {
                "t" => Some(SqlValue::Integer(1)),
                "f" => Some(SqlValue::Integer(0)),
                _ => None,
            },
            Self::Integer => text.parse::<i64>().ok().map(|number| SqlValue::Integer(number.into())),
            Self::Real => text.parse().ok().map(SqlValue::Real),
            Self::Bytes => decode_hex(text).map(SqlValue::Blob),
            Self::Date => time::date(text),
            Self::Time => time::time_of_day(text, compatibility),
            Self::Timestamp => time::timestamp(text, compatibility),
            Self::TimestampTz => Some(time::timestamp_tz(text, compatibility)),
            Self::Lsn => text
                .parse::<Lsn>()
                .ok()
                .map(|lsn| SqlValue::Text(format!("{:08X}/{:08X}", lsn.get() >> 32, lsn.get() & 0xFFFF_FFFF))),
            Self::Array(_) | Self::BoxArray | Self::Range(_) | Self::Multirange(_) => {
                self.structure(text, compatibility).map(SqlValue::Text)
            }
        }
        .unwrap_or_else(|| SqlValue::Text(text.to_owned()))
    }

    /// What has parts, as JSON; `None` where it stays as printed.
    fn structure(&self, text: &str, compatibility: Compatibility) -> Option<String> {
        match self {
            Self::Array(element) => array::to_json(text, ',', element, compatibility),
            _ if !compatibility.custom_postgres_types => None,
            Self::BoxArray => array::to_json(text, ';', &Self::Text, compatibility),
            Self::Range(bound) => range::to_json(text, bound, compatibility),
            Self::Multirange(bound) => range::many_to_json(text, bound, compatibility),
            _ => None,
        }
    }

    /// Writes a value that is a part of another; JSON is not quoted again.
    fn embed(&self, text: &str, compatibility: Compatibility, json: &mut String) {
        if *self == Self::Json {
            json.push_str(text);
        } else if let Some(structure) = self.structure(text, compatibility) {
            json.push_str(&structure);
        } else {
            self.decode(text, compatibility).write_json(json);
        }
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) const LEGACY: Compatibility =
        Compatibility { timestamps_iso8601: false, custom_postgres_types: false, timestamp_fraction_digits_max: None };

    fn decode(ty: &Type, text: &str) -> SqlValue {
        ColumnType::of(ty.oid()).decode(text, LEGACY)
    }

    fn text(text: &str) -> SqlValue {
        SqlValue::Text(text.to_owned())
    }

    #[test]
    fn scalars_have_the_documented_kinds() {
        let cases = [
            (Type::BOOL, "t", SqlValue::Integer(1)),
            (Type::BOOL, "f", SqlValue::Integer(0)),
            (Type::INT2, "-32768", SqlValue::Integer(-32768)),
            (Type::INT8, "9223372036854775807", SqlValue::Integer(i64::MAX.into())),
            (Type::INT8, "-9223372036854775808", SqlValue::Integer(i64::MIN.into())),
            (Type::OID, "4294967295", SqlValue::Integer(u32::MAX.into())),
            (Type::FLOAT4, "2.75", SqlValue::Real(2.75)),
            (Type::FLOAT8, "-Infinity", SqlValue::Real(f64::NEG_INFINITY)),
            (Type::NUMERIC, "1.50", text("1.50")),
            (Type::NUMERIC, "NaN", text("NaN")),
            (Type::MONEY, "$1,000.00", text("$1,000.00")),
            (Type::JSON, "{ \"a\" : 1}", text("{ \"a\" : 1}")),
            (Type::BYTEA, "\\x00ff", SqlValue::Blob(vec![0, 255])),
            (Type::BYTEA, "\\x", SqlValue::Blob(vec![])),
            (Type::UUID, "0b3b6b4e-0000-4000-8000-000000000000", text("0b3b6b4e-0000-4000-8000-000000000000")),
            (Type::INTERVAL, "1 day 02:00:00", text("1 day 02:00:00")),
            (Type::TIMETZ, "12:00:00+02", text("12:00:00+02")),
            (Type::PG_LSN, "16/B374D848", text("00000016/B374D848")),
            (Type::INT4_RANGE, "[1,5)", text("[1,5)")),
        ];
        for (ty, printed, expected) in cases {
            assert_eq!(decode(&ty, printed), expected, "{ty}");
        }
        assert_eq!(ColumnType::of(99_999).decode("label", LEGACY), text("label"), "an enum");
    }

    #[test]
    fn what_does_not_look_like_its_type_stays_text() {
        for (ty, printed) in
            [(Type::INT4, "many"), (Type::BOOL, "maybe"), (Type::BYTEA, "\\x0"), (Type::BYTEA, "a\\000")]
        {
            assert_eq!(decode(&ty, printed), text(printed), "{ty}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(oid in 0u32..4000, printed in r#"[-0-9:. +/TZ{}",\\a-fxé\[\]()=;]{0,40}|infinity|.*"#, iso: bool, custom: bool, digits in prop::option::of(0u8..10)) {
            let compatibility = Compatibility {
                timestamps_iso8601: iso,
                custom_postgres_types: custom,
                timestamp_fraction_digits_max: digits,
            };
            let _ = ColumnType::of(oid).decode(&printed, compatibility);
        }
    }
}
