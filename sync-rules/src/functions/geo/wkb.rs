//! WKB to geometry: the ISO form and the extended one of `PostGIS`, whose reference system is skipped.

use super::{Axes, Geometry, Kind, Part};
use crate::value::Failure;

/// Collections nested deeper are refused, so that recursion has a bound.
const DEPTH_MAX: usize = 32;

const BROKEN: Failure = Failure("the value is not a geometry in WKB");
const TOO_DEEP: Failure = Failure("the geometry is nested too deeply");

/// Reads a geometry. Bytes after it are ignored.
pub(super) fn read(bytes: &[u8]) -> Result<Geometry, Failure> {
    Reader { rest: bytes, order: Order::Little }.geometry(0)
}

#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

struct Reader<'a> {
    rest: &'a [u8],
    /// As the last header said. Geometries nest at the end of what contains them, so it never has to change back.
    order: Order,
}

impl Reader<'_> {
    fn geometry(&mut self, depth: usize) -> Result<Geometry, Failure> {
        if depth > DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        let (kind, axes) = self.header()?;
        let parts = match kind {
            Kind::Point => self.point(axes)?.into_iter().collect(),
            Kind::LineString => self.line(axes)?,
            Kind::Polygon => self.polygon(axes)?,
            Kind::MultiPoint => self.list(|reader| {
                reader.member(Kind::Point, axes)?;
                Ok(reader.point(axes)?.unwrap_or(Part::List(Vec::new())))
            })?,
            Kind::MultiLineString => self.list(|reader| {
                reader.member(Kind::LineString, axes)?;
                reader.line(axes).map(Part::List)
            })?,
            Kind::MultiPolygon => self.list(|reader| {
                reader.member(Kind::Polygon, axes)?;
                reader.polygon(axes).map(Part::List)
            })?,
            Kind::GeometryCollection => self.list(|reader| reader.geometry(depth + 1).map(Part::Geometry))?,
        };
        Ok(Geometry { kind, axes, parts })
    }

    /// Byte order, kind and axes. The extended form has flags for the axes, the ISO form adds thousands to the kind.
    fn header(&mut self) -> Result<(Kind, Axes), Failure> {
        const Z: u32 = 0x8000_0000;
        const M: u32 = 0x4000_0000;
        const REFERENCE_SYSTEM: u32 = 0x2000_0000;
        self.order = match self.take::<1>()? {
            [0] => Order::Big,
            [1] => Order::Little,
            _ => return Err(BROKEN),
        };
        let code = self.integer()?;
        if code & REFERENCE_SYSTEM != 0 {
            self.integer()?;
        }
        let (flags, code) = (code & (Z | M), code & !(Z | M | REFERENCE_SYSTEM));
        let axes = match (flags, code / 1000) {
            (0, 0) => Axes::Xy,
            (Z, 0) | (0, 1) => Axes::Xyz,
            (M, 0) | (0, 2) => Axes::Xym,
            (_, 0) | (0, 3) => Axes::Xyzm,
            _ => return Err(BROKEN),
        };
        let kind = match code % 1000 {
            1 => Kind::Point,
            2 => Kind::LineString,
            3 => Kind::Polygon,
            4 => Kind::MultiPoint,
            5 => Kind::MultiLineString,
            6 => Kind::MultiPolygon,
            7 => Kind::GeometryCollection,
            _ => return Err(BROKEN),
        };
        Ok((kind, axes))
    }

    /// The header of a member, which is of one kind and has the axes of the whole.
    fn member(&mut self, kind: Kind, axes: Axes) -> Result<(), Failure> {
        if self.header()? == (kind, axes) { Ok(()) } else { Err(BROKEN) }
    }

    /// `None` for the empty point, which has no numbers.
    fn point(&mut self, axes: Axes) -> Result<Option<Part>, Failure> {
        let position = self.position(axes)?;
        let is_empty = position[0].is_nan() && position[1].is_nan();
        Ok((!is_empty).then_some(Part::Position(position)))
    }

    fn line(&mut self, axes: Axes) -> Result<Vec<Part>, Failure> {
        self.list(|reader| reader.position(axes).map(Part::Position))
    }

    fn polygon(&mut self, axes: Axes) -> Result<Vec<Part>, Failure> {
        self.list(|reader| reader.line(axes).map(Part::List))
    }

    fn list(&mut self, mut part: impl FnMut(&mut Self) -> Result<Part, Failure>) -> Result<Vec<Part>, Failure> {
        /// The smallest part is an empty ring, which is its count alone.
        const PART_BYTES_MIN: usize = 4;
        let count = self.integer()?;
        if usize::try_from(count).map_err(|_| BROKEN)? > self.rest.len() / PART_BYTES_MIN {
            return Err(BROKEN);
        }
        (0..count).map(|_| part(self)).collect()
    }

    fn position(&mut self, axes: Axes) -> Result<[f64; 4], Failure> {
        let mut position = [0.0; 4];
        for number in &mut position[..axes.count()] {
            let bytes = self.take()?;
            *number = match self.order {
                Order::Big => f64::from_be_bytes(bytes),
                Order::Little => f64::from_le_bytes(bytes),
            };
        }
        Ok(position)
    }

    fn integer(&mut self) -> Result<u32, Failure> {
        let bytes = self.take()?;
        Ok(match self.order {
            Order::Big => u32::from_be_bytes(bytes),
            Order::Little => u32::from_le_bytes(bytes),
        })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(BROKEN)?;
        self.rest = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header in little-endian order, and what follows it.
    fn wkb(code: u32, rest: &[&[u8]]) -> Vec<u8> {
        [&[1], &code.to_le_bytes()[..], &rest.concat()].concat()
    }

    fn numbers(numbers: &[f64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    const ONE: &[u8] = &[1, 0, 0, 0];

    #[test]
    fn either_form_says_which_axes_there_are() {
        for (codes, axes, count) in [
            ([1, 1], Axes::Xy, 2),
            ([1001, 0x8000_0001], Axes::Xyz, 3),
            ([2001, 0x4000_0001], Axes::Xym, 3),
            ([3001, 0xc000_0001], Axes::Xyzm, 4),
        ] {
            for code in codes {
                let point = read(&wkb(code, &[&numbers(&[1.0, 2.0, 3.0, 4.0][..count])])).unwrap();
                assert_eq!((point.kind, point.axes), (Kind::Point, axes));
                let [Part::Position(position)] = point.parts[..] else { panic!("a point is one position") };
                assert_eq!(position[..count], [1.0, 2.0, 3.0, 4.0][..count]);
            }
        }
    }

    #[test]
    fn each_geometry_has_its_own_byte_order_and_reference_system() {
        let mut big = vec![0, 0x20, 0, 0, 1, 0, 0, 0x10, 0xe6];
        big.extend([1.5_f64, -2.0].into_iter().flat_map(f64::to_be_bytes));
        let little = wkb(1, &[&numbers(&[3.0, 4.0])]);
        let points = read(&wkb(4, &[&[2, 0, 0, 0], &big, &little])).unwrap();
        assert_eq!(points.parts, [Part::Position([1.5, -2.0, 0.0, 0.0]), Part::Position([3.0, 4.0, 0.0, 0.0])]);
    }

    #[test]
    fn every_truncation_is_refused_and_bytes_after_the_end_are_not() {
        let point = wkb(1, &[&numbers(&[1.0, 2.0])]);
        let line = wkb(2, &[ONE, &numbers(&[1.0, 2.0])]);
        let polygon = wkb(3, &[ONE, ONE, &numbers(&[1.0, 2.0])]);
        let points = wkb(4, &[ONE, &point]);
        let lines = wkb(5, &[ONE, &line]);
        let polygons = wkb(6, &[ONE, &polygon]);
        let collection = wkb(7, &[ONE, &polygons]);
        for whole in [point, line, polygon, points, lines, polygons, collection] {
            for end in 0..whole.len() {
                assert_eq!(read(&whole[..end]), Err(BROKEN), "{end} bytes of {whole:?}");
            }
            assert_eq!(read(&[&whole[..], &[7]].concat()), read(&whole));
            assert!(read(&whole).is_ok());
        }
    }

    #[test]
    fn what_the_formats_do_not_know_is_refused() {
        let at = numbers(&[1.0, 2.0, 3.0, 4.0]);
        for code in [0, 8, 17, 999, 1000, 1008, 4001, 0x8000_03e9, 0x1000_0001] {
            assert_eq!(read(&wkb(code, &[&at])), Err(BROKEN), "{code}");
        }
        let line = wkb(2, &[ONE, &at]);
        assert_eq!(read(&wkb(4, &[ONE, &line])), Err(BROKEN), "a line among points");
        let flat = wkb(1, &[&at]);
        assert_eq!(read(&wkb(1004, &[ONE, &flat])), Err(BROKEN), "a flat point among points with z");
        let mut other_order = wkb(1, &[&at]);
        other_order[0] = 2;
        assert_eq!(read(&other_order), Err(BROKEN));
    }

    #[test]
    fn counts_and_depth_have_a_bound() {
        assert_eq!(read(&wkb(2, &[&[255; 64]])), Err(BROKEN));
        let nested = |depth: usize| [wkb(7, &[ONE]).repeat(depth), wkb(7, &[&[0; 4]])].concat();
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(read(&nested(DEPTH_MAX + 1)), Err(TOO_DEEP));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..80)) {
            let _ = read(&bytes);
        }
    }
}
