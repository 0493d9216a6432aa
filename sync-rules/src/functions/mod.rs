//! Scalar functions: one file per family. [`Function::named`] finds one by name, [`Function::call`] runs it.
//!
//! **Invariants**
//!
//! - Functions are pure and total: whatever the values, they return a value or a [`Failure`], which names no value.
//! - A missing argument reads as NULL; surplus arguments are ignored (classic rules do not check the count).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::value::{Failure, SqlValue};

pub(crate) mod json;
mod text;

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
}

impl Function {
    /// The function of this name, which is in lower case.
    pub(crate) fn named(name: &str, fixed_json: bool) -> Option<Self> {
        Some(match name {
            "upper" => Self::Upper,
            "lower" => Self::Lower,
            "substring" => Self::Substring,
            "length" => Self::Length,
            "instr" => Self::Instr,
            "hex" => Self::Hex,
            "base64" => Self::Base64,
            "typeof" => Self::Typeof,
            "ifnull" => Self::Ifnull,
            "iif" => Self::Iif,
            "json_extract" => Self::JsonExtract { fixed: fixed_json },
            "json_array_length" => Self::JsonArrayLength { fixed: fixed_json },
            "json_valid" => Self::JsonValid,
            "json_keys" => Self::JsonKeys,
            _ => return None,
        })
    }

    /// The function's name.
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
        }
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
