//! Scalar functions: one file per family. [`Function::named`] finds one by name, [`Function::call`] runs it.
//!
//! **Invariants**
//!
//! - Functions are pure and total: whatever the values, they return a value or a [`Failure`], which names no value.
//! - A missing argument reads as NULL; surplus arguments are ignored (classic rules do not check the count).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::value::{Failure, SqlValue};

mod date;
mod geo;
pub(crate) mod json;
mod text;
mod uuid;

/// A scalar function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Function {
    /// `upper(x)`
    Upper,
    /// `lower(x)`
    Lower,
    /// `substring(x, start[, length])`
    Substring,
    /// `length(x)`, in UTF-16 units.
    Length,
    /// `instr(x, y)`
    Instr,
    /// `hex(x)`
    Hex,
    /// `base64(x)`
    Base64,
    /// `typeof(x)`
    Typeof,
    /// `ifnull(x, y)`
    Ifnull,
    /// `iif(c, x, y)`
    Iif,
    /// `json_extract(j, path)`; `fixed` as in [`json::JsonPath`].
    JsonExtract {
        /// Whether `fixed_json_extract` is on.
        fixed: bool,
    },
    /// `json_array_length(j[, path])`
    JsonArrayLength {
        /// Whether `fixed_json_extract` is on.
        fixed: bool,
    },
    /// `json_valid(j)`
    JsonValid,
    /// `json_keys(j)`
    JsonKeys,
    /// `j ->> path` with a path that is not a literal: `auth.parameter(path)`
    JsonMember {
        /// Whether `fixed_json_extract` is on.
        fixed: bool,
    },
    /// `uuid_blob(x)`
    UuidBlob,
    /// `unixepoch(t[, modifier[, modifier]])`
    Unixepoch,
    /// `datetime(t[, modifier[, modifier]])`
    Datetime,
    /// `st_x(g)`
    StX,
    /// `st_y(g)`
    StY,
    /// `st_astext(g)`
    StAsText,
    /// `st_asgeojson(g)`
    StAsGeoJson,
}

impl Function {
    /// The functions that have names.
    const fn all(fixed_json: bool) -> [Self; 21] {
        [
            Self::Upper,
            Self::Lower,
            Self::Substring,
            Self::Length,
            Self::Instr,
            Self::Hex,
            Self::Base64,
            Self::Typeof,
            Self::Ifnull,
            Self::Iif,
            Self::JsonExtract { fixed: fixed_json },
            Self::JsonArrayLength { fixed: fixed_json },
            Self::JsonValid,
            Self::JsonKeys,
            Self::UuidBlob,
            Self::Unixepoch,
            Self::Datetime,
            Self::StX,
            Self::StY,
            Self::StAsText,
            Self::StAsGeoJson,
        ]
    }

    /// The function of this name, which is in lower case.
    pub(crate) fn named(name: &str, fixed_json: bool) -> Option<Self> {
        Self::all(fixed_json).into_iter().find(|function| function.name() == name)
    }

    /// All names, and whether edition 3 has the function.
    pub(crate) fn names() -> impl Iterator<Item = (&'static str, bool)> {
        Self::all(true).into_iter().map(|function| (function.name(), function.in_edition_3()))
    }

    /// The name in SQL.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Upper => "upper",
            Self::Lower => "lower",
            Self::Substring => "substring",
            Self::Length => "length",
            Self::Instr => "instr",
            Self::Hex => "hex",
            Self::Base64 => "base64",
            Self::Typeof => "typeof",
            Self::Ifnull => "ifnull",
            Self::Iif => "iif",
            Self::JsonExtract { .. } => "json_extract",
            Self::JsonArrayLength { .. } => "json_array_length",
            Self::JsonValid => "json_valid",
            Self::JsonKeys => "json_keys",
            Self::JsonMember { .. } => "->>",
            Self::UuidBlob => "uuid_blob",
            Self::Unixepoch => "unixepoch",
            Self::Datetime => "datetime",
            Self::StX => "st_x",
            Self::StY => "st_y",
            Self::StAsText => "st_astext",
            Self::StAsGeoJson => "st_asgeojson",
        }
    }

    /// Fewest and most arguments in edition 3; `None` is any number. Earlier editions do not count.
    pub(crate) const fn arity(self) -> (usize, Option<usize>) {
        match self {
            Self::Upper
            | Self::Lower
            | Self::Length
            | Self::Hex
            | Self::Base64
            | Self::Typeof
            | Self::JsonValid
            | Self::JsonKeys
            | Self::UuidBlob
            | Self::StX
            | Self::StY
            | Self::StAsText
            | Self::StAsGeoJson => (1, Some(1)),
            Self::JsonArrayLength { .. } => (1, Some(2)),
            Self::Unixepoch | Self::Datetime => (1, None),
            Self::Instr | Self::JsonMember { .. } => (2, Some(2)),
            Self::Substring => (2, Some(3)),
            Self::Ifnull | Self::JsonExtract { .. } => (2, None),
            Self::Iif => (3, Some(3)),
        }
    }

    /// Whether edition 3 has the function.
    pub(crate) const fn in_edition_3(self) -> bool {
        !matches!(self, Self::JsonValid)
    }

    /// Calls the function.
    pub(crate) fn call(self, arguments: &[Cow<'_, SqlValue>]) -> Result<SqlValue, Failure> {
        const MISSING: &SqlValue = &SqlValue::Null;
        let argument = |index: usize| arguments.get(index).map_or(MISSING, AsRef::as_ref);
        let first = argument(0);
        Ok(match self {
            Self::Upper => text::upper(first),
            Self::Lower => text::lower(first),
            Self::Substring => text::substring(first, argument(1), arguments.get(2).map(AsRef::as_ref))?,
            Self::Length => text::length(first),
            Self::Instr => text::instr(first, argument(1)),
            Self::Hex => text::hex(first),
            Self::Base64 => text::base64(first),
            Self::Typeof => SqlValue::Text(type_name(first).to_owned()),
            Self::Ifnull => if first.is_null() { argument(1) } else { first }.clone(),
            Self::Iif => argument(if first.truth() { 1 } else { 2 }).clone(),
            Self::JsonExtract { fixed } => json::json_extract(first, argument(1), fixed)?,
            Self::JsonArrayLength { fixed } => json::json_array_length(first, argument(1), fixed)?,
            Self::JsonValid => json::json_valid(first),
            Self::JsonKeys => json::json_keys(first)?,
            Self::JsonMember { fixed } => match argument(1).text() {
                Some(path) => json::json_member(first, &json::JsonPath::new(&path, fixed), true)?,
                None => SqlValue::Null,
            },
            Self::UuidBlob => uuid::uuid_blob(first)?,
            Self::Unixepoch => date::unixepoch(first, [argument(1), argument(2)]),
            Self::Datetime => date::datetime(first, [argument(1), argument(2)]),
            Self::StX => geo::st_x(first)?,
            Self::StY => geo::st_y(first)?,
            Self::StAsText => geo::st_astext(first)?,
            Self::StAsGeoJson => geo::st_asgeojson(first)?,
        })
    }
}

const fn type_name(value: &SqlValue) -> &'static str {
    match value {
        SqlValue::Null => "null",
        SqlValue::Integer(_) => "integer",
        SqlValue::Real(_) => "real",
        SqlValue::Text(_) => "text",
        SqlValue::Blob(_) => "blob",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &[SqlValue]) -> Result<SqlValue, Failure> {
        let arguments: Vec<_> = arguments.iter().map(Cow::Borrowed).collect();
        Function::named(name, true).unwrap().call(&arguments)
    }

    #[test]
    fn a_missing_argument_reads_as_null_and_a_surplus_one_is_ignored() {
        let (one, two) = (SqlValue::Integer(1), SqlValue::Integer(2));
        for name in ["upper", "length", "instr", "uuid_blob", "unixepoch", "datetime", "st_x", "json_keys", "iif"] {
            assert_eq!(call(name, &[]), Ok(SqlValue::Null), "{name}");
        }
        assert_eq!(call("hex", &[]), Ok(SqlValue::Text(String::new())));
        assert_eq!(call("ifnull", &[SqlValue::Null, one.clone(), two.clone()]), Ok(one.clone()));
        assert_eq!(call("iif", &[one.clone(), two.clone()]), Ok(two));
        assert_eq!(call("typeof", &[SqlValue::Real(2.0), one]), Ok(SqlValue::Text("real".to_owned())));
    }

    #[test]
    fn names_are_exact() {
        for name in ["Upper", "substr", "coalesce", "now", "random", "st_asText", ""] {
            assert_eq!(Function::named(name, true), None, "{name}");
        }
    }

    #[test]
    fn edition_3_counts_arguments_and_lacks_json_valid() {
        let arity = |name: &str| Function::named(name, true).unwrap().arity();
        assert_eq!(arity("upper"), (1, Some(1)));
        assert_eq!(arity("substring"), (2, Some(3)));
        assert_eq!(arity("ifnull"), (2, None));
        assert_eq!(arity("iif"), (3, Some(3)));
        assert_eq!(arity("json_array_length"), (1, Some(2)));
        assert_eq!(arity("datetime"), (1, None));
        assert!(Function::named("json_keys", true).unwrap().in_edition_3());
        assert!(!Function::named("json_valid", true).unwrap().in_edition_3());
    }
}
