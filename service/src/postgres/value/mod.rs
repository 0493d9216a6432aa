//! Values: from the text Postgres prints to the values of the rules language.
//!
//! Snapshot and stream both bring text, printed under the same session settings, and both go through
//! [`ColumnType::decode`]: so a row is the same whichever way it came.
//!
//! **Invariants**
//!
//! - No text panics and none is refused: what does not look like its type is taken as text, as printed.
//! - A type that is not built in is text, as printed, unless the rules ask for its parts (`custom_postgres_types`);
//!   what it consists of is told by [`super::type_catalog`].
//!
//! `docs/types.md` lists what becomes of each type; a test tries the list on a real server.

mod array;
mod composite;
#[cfg(test)]
mod fuzz;
mod part;
mod range;
mod time;

use std::cell::Cell;

use kairos_sync_rules::{Compatibility, SqlValue};
use serde::{Deserialize, Serialize};
use tokio_postgres::types::{Kind, Type};

pub use self::composite::Attribute;
use crate::lsn::Lsn;

/// How the text of a column is to be read. Found once per column, and stored beside the rows that were written with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// An array.
    Array {
        /// What it consists of.
        element: Box<ColumnType>,
        /// What stands between two elements.
        delimiter: char,
    },
    /// A range; as printed where the rules do not ask for its parts.
    Range(Box<ColumnType>),
    /// A set of ranges; as printed where the rules do not ask for its parts.
    Multirange(Box<ColumnType>),
    /// Attributes with names.
    Composite(Vec<Attribute>),
    /// A type that is not built in, read as what it is made of; as printed where the rules do not ask for that.
    Own(Box<ColumnType>),
}

/// What reading one value depends on, and what it finds out.
struct Reading {
    compatibility: Compatibility,
    /// Set by a composite with more attributes than are known.
    outgrown: Cell<bool>,
}

impl Reading {
    fn new(compatibility: Compatibility) -> Self {
        Self { compatibility, outgrown: Cell::new(false) }
    }
}

impl ColumnType {
    /// The built-in type with this object id; `None` for any other, which the catalog has to describe.
    pub fn built_in(oid: u32) -> Option<Self> {
        let ty = Type::from_oid(oid)?;
        Some(match ty.kind() {
            // Boxes contain commas.
            Kind::Array(_) if ty == Type::BOX_ARRAY => {
                Self::Own(Box::new(Self::Array { element: Box::new(Self::Text), delimiter: ';' }))
            }
            Kind::Array(element) => Self::Array { element: Box::new(Self::element(element)), delimiter: ',' },
            _ => Self::element(&ty),
        })
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
        self.read(text, &Reading::new(compatibility))
    }

    /// Whether there is a composite in it: those may get further attributes.
    pub fn has_composite(&self) -> bool {
        match self {
            Self::Composite(_) => true,
            Self::Array { element: part, .. } | Self::Range(part) | Self::Multirange(part) | Self::Own(part) => {
                part.has_composite()
            }
            _ => false,
        }
    }

    /// Whether the text has more parts than the type had when it was looked up.
    pub fn is_outgrown_by(&self, text: &str) -> bool {
        let reading = Reading::new(Compatibility {
            timestamps_iso8601: true,
            custom_postgres_types: true,
            timestamp_fraction_digits_max: None,
        });
        self.structure(text, &reading);
        reading.outgrown.get()
    }

    fn read(&self, text: &str, reading: &Reading) -> SqlValue {
        let compatibility = reading.compatibility;
        match self {
            Self::Own(inner) if compatibility.custom_postgres_types => return inner.read(text, reading),
            Self::Text | Self::Json | Self::Own(_) => None,
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
            Self::Array { .. } | Self::Range(_) | Self::Multirange(_) | Self::Composite(_) => {
                self.structure(text, reading).map(SqlValue::Text)
            }
        }
        .unwrap_or_else(|| SqlValue::Text(text.to_owned()))
    }

    /// What has parts, as JSON; `None` where it stays as printed.
    fn structure(&self, text: &str, reading: &Reading) -> Option<String> {
        match self {
            Self::Array { element, delimiter } => array::to_json(text, *delimiter, element, reading),
            _ if !reading.compatibility.custom_postgres_types => None,
            Self::Range(bound) => range::to_json(text, bound, reading),
            Self::Multirange(bound) => range::many_to_json(text, bound, reading),
            Self::Composite(attributes) => composite::to_json(text, attributes, reading),
            Self::Own(inner) => inner.structure(text, reading),
            _ => None,
        }
    }

    /// Writes a value that is a part of another; JSON is not quoted again.
    fn embed(&self, text: &str, reading: &Reading, json: &mut String) {
        if *self == Self::Json {
            json.push_str(text);
        } else if let Some(structure) = self.structure(text, reading) {
            json.push_str(&structure);
        } else {
            self.read(text, reading).write_json(json);
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

    pub(super) const CUSTOM: Compatibility = Compatibility { custom_postgres_types: true, ..LEGACY };

    pub(super) fn built_in(ty: &Type) -> ColumnType {
        ColumnType::built_in(ty.oid()).expect("a built-in type")
    }

    fn decode(ty: &Type, text: &str) -> SqlValue {
        built_in(ty).decode(text, LEGACY)
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
        assert_eq!(ColumnType::built_in(99_999), None);
    }

    #[test]
    fn what_does_not_look_like_its_type_stays_text() {
        for (ty, printed) in
            [(Type::INT4, "many"), (Type::BOOL, "maybe"), (Type::BYTEA, "\\x0"), (Type::BYTEA, "a\\000")]
        {
            assert_eq!(decode(&ty, printed), text(printed), "{ty}");
        }
    }

    fn any_type() -> impl Strategy<Value = ColumnType> {
        let leaf = (0u32..5000).prop_filter_map("built in", ColumnType::built_in);
        leaf.prop_recursive(4, 16, 3, |inner| {
            let boxed = inner.clone().prop_map(Box::new);
            prop_oneof![
                (boxed.clone(), prop::sample::select(vec![',', ';', ':']))
                    .prop_map(|(element, delimiter)| ColumnType::Array { element, delimiter }),
                boxed.clone().prop_map(ColumnType::Range),
                boxed.clone().prop_map(ColumnType::Multirange),
                boxed.prop_map(ColumnType::Own),
                prop::collection::vec((".{0,3}", inner), 0..3).prop_map(|attributes| {
                    let attribute = |(name, read_as)| Attribute { name, read_as };
                    ColumnType::Composite(attributes.into_iter().map(attribute).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_text_panics(ty in any_type(), printed in r#"[-0-9:. +/TZ{}",\\a-fxé\[\]()=;]{0,40}|infinity|.*"#, iso: bool, custom: bool, digits in prop::option::of(0u8..10)) {
            let compatibility = Compatibility {
                timestamps_iso8601: iso,
                custom_postgres_types: custom,
                timestamp_fraction_digits_max: digits,
            };
            let _ = ty.decode(&printed, compatibility);
            let _ = ty.is_outgrown_by(&printed);
        }
    }
}
