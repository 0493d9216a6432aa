//! Geometry: points as numbers, shapes as WKT and `GeoJSON`.
//!
//! Input is WKB, as bytes or in hex. Numbers and NULL hold no geometry and give NULL; what should be WKB and is not
//! fails.

use crate::value::{Failure, SqlValue};

mod print;
mod wkb;

pub(super) fn st_x(value: &SqlValue) -> Result<SqlValue, Failure> {
    ordinate(value, 0)
}

pub(super) fn st_y(value: &SqlValue) -> Result<SqlValue, Failure> {
    ordinate(value, 1)
}

pub(super) fn st_astext(value: &SqlValue) -> Result<SqlValue, Failure> {
    Ok(read(value)?.map_or(SqlValue::Null, |geometry| SqlValue::Text(geometry.to_wkt())))
}

pub(super) fn st_asgeojson(value: &SqlValue) -> Result<SqlValue, Failure> {
    Ok(read(value)?.map_or(SqlValue::Null, |geometry| SqlValue::Text(geometry.to_geojson())))
}

/// One number of a point; NULL for other kinds and for the empty point.
fn ordinate(value: &SqlValue, axis: usize) -> Result<SqlValue, Failure> {
    let Some(geometry) = read(value)? else { return Ok(SqlValue::Null) };
    Ok(match (geometry.kind, geometry.parts.as_slice()) {
        (Kind::Point, [Part::Position(position)]) => SqlValue::Real(position[axis]),
        _ => SqlValue::Null,
    })
}

fn read(value: &SqlValue) -> Result<Option<Geometry>, Failure> {
    match value {
        SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_) => Ok(None),
        SqlValue::Blob(bytes) => wkb::read(bytes).map(Some),
        SqlValue::Text(text) => wkb::read(&unhex(text)).map(Some),
    }
}

/// The bytes up to the first pair of characters that is not hex.
fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks_exact(2).map_while(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[derive(Debug, PartialEq)]
struct Geometry {
    kind: Kind,
    axes: Axes,
    /// Nothing for an empty geometry of any kind; the only position of a point.
    parts: Vec<Part>,
}

/// A part of a geometry, as deep as its kind says: the positions of a line, the rings of a polygon, …
#[derive(Debug, PartialEq)]
enum Part {
    /// x, y, and z and m as far as [`Axes`] says.
    Position([f64; 4]),
    List(Vec<Self>),
    /// Only in a collection.
    Geometry(Geometry),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Point,
    LineString,
    Polygon,
    MultiPoint,
    MultiLineString,
    MultiPolygon,
    GeometryCollection,
}

/// The numbers of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axes {
    Xy,
    Xyz,
    Xym,
    Xyzm,
}

impl Axes {
    const fn count(self) -> usize {
        match self {
            Self::Xy => 2,
            Self::Xyz | Self::Xym => 3,
            Self::Xyzm => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: fn(&SqlValue) -> Result<SqlValue, Failure>, hex: &str) -> Result<SqlValue, Failure> {
        let result = function(&SqlValue::Text(hex.to_owned()));
        assert_eq!(result, function(&SqlValue::Blob(unhex(hex))), "bytes and hex are read the same");
        result
    }

    #[test]
    fn a_point_has_coordinates_and_another_shape_has_none() {
        let point = "0101000020e6100000b6f3fdd4789b5340d8b628b341e03740";
        assert_eq!(call(st_x, point), Ok(SqlValue::Real(78.429_25)));
        assert_eq!(call(st_y, point), Ok(SqlValue::Real(23.876_002_5)));
        assert_eq!(call(st_x, &point.to_uppercase()), Ok(SqlValue::Real(78.429_25)));
        let line = "010200000002000000000000000000000000000000000000000000000000000840000000000000f03f";
        assert_eq!(call(st_x, line), Ok(SqlValue::Null));
        let empty_point = "0101000000000000000000f87f000000000000f87f";
        assert_eq!(call(st_y, empty_point), Ok(SqlValue::Null));
        let multi_point = "0104000000010000000101000000000000000000f03f0000000000000040";
        assert_eq!(call(st_x, multi_point), Ok(SqlValue::Null));
    }

    #[test]
    fn numbers_and_null_hold_no_geometry() {
        for value in [SqlValue::Null, SqlValue::Integer(5), SqlValue::Real(0.5)] {
            for function in [st_x, st_y, st_astext, st_asgeojson] {
                assert_eq!(function(&value), Ok(SqlValue::Null));
            }
        }
    }

    #[test]
    fn hex_ends_at_the_first_character_that_is_none() {
        assert_eq!(unhex("01fFé"), [1, 255]);
        assert_eq!(unhex("01 02"), [1]);
        assert_eq!(unhex("010"), [1]);
        for text in ["", "zz", "0101", "\\x010100000000000000000024400000000000003440"] {
            assert!(call(st_x, text).is_err(), "{text}");
        }
        assert!(call(st_x, "010100000000000000000024400000000000003440zz").is_ok());
    }
}
