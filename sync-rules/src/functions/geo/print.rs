//! Geometry to text: WKT and `GeoJSON`. Neither shows the reference system.

use super::{Axes, Geometry, Kind, Part};
use crate::{
    json::{Form, write_value},
    number::write_ecmascript,
    value::SqlValue,
};

impl Geometry {
    /// As in `POINT Z (1 2 3)`, `MULTIPOINT(0 0,3 1)` and `POLYGON EMPTY`.
    pub(super) fn to_wkt(&self) -> String {
        let mut text = String::new();
        self.write_wkt(&mut text);
        text
    }

    /// The z axis becomes a third number; `GeoJSON` has no place for m.
    pub(super) fn to_geojson(&self) -> String {
        let mut text = String::new();
        self.write_geojson(&mut text);
        text
    }

    fn write_wkt(&self, out: &mut String) {
        let name = self.kind.name().to_ascii_uppercase();
        out.push_str(&name);
        out.push_str(match self.axes {
            Axes::Xy if self.parts.is_empty() => " ",
            Axes::Xy => "",
            Axes::Xyz => " Z ",
            Axes::Xym => " M ",
            Axes::Xyzm => " ZM ",
        });
        write_wkt_list(&self.parts, self.axes, out);
    }

    fn write_geojson(&self, out: &mut String) {
        out.push_str("{\"type\":\"");
        out.push_str(self.kind.name());
        out.push_str("\",\"");
        out.push_str(if self.kind == Kind::GeometryCollection { "geometries" } else { "coordinates" });
        out.push_str("\":");
        match (self.kind, self.parts.as_slice()) {
            (Kind::Point, [position]) => position.write_geojson(self.axes, out),
            (_, parts) => write_list(parts, ['[', ']'], out, |part, out| part.write_geojson(self.axes, out)),
        }
        out.push('}');
    }
}

impl Part {
    fn write_wkt(&self, axes: Axes, out: &mut String) {
        match self {
            Self::Geometry(geometry) => geometry.write_wkt(out),
            Self::List(parts) => write_wkt_list(parts, axes, out),
            Self::Position(position) => {
                for (index, number) in position[..axes.count()].iter().enumerate() {
                    if index > 0 {
                        out.push(' ');
                    }
                    write_ecmascript(*number, out);
                }
            }
        }
    }

    fn write_geojson(&self, axes: Axes, out: &mut String) {
        match self {
            Self::Geometry(geometry) => geometry.write_geojson(out),
            Self::List(parts) => write_list(parts, ['[', ']'], out, |part, out| part.write_geojson(axes, out)),
            Self::Position(position) => {
                let numbers = match axes {
                    Axes::Xy | Axes::Xym => &position[..2],
                    Axes::Xyz | Axes::Xyzm => &position[..3],
                };
                let write = |number: &f64, out: &mut String| write_value(&SqlValue::Real(*number), Form::Data, out);
                write_list(numbers, ['[', ']'], out, write);
            }
        }
    }
}

fn write_wkt_list(parts: &[Part], axes: Axes, out: &mut String) {
    if parts.is_empty() {
        return out.push_str("EMPTY");
    }
    write_list(parts, ['(', ')'], out, |part, out| part.write_wkt(axes, out));
}

fn write_list<T>(items: &[T], [open, close]: [char; 2], out: &mut String, write: impl Fn(&T, &mut String)) {
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(close);
}

impl Kind {
    /// The name in `GeoJSON`; in capitals, that in WKT.
    const fn name(self) -> &'static str {
        match self {
            Self::Point => "Point",
            Self::LineString => "LineString",
            Self::Polygon => "Polygon",
            Self::MultiPoint => "MultiPoint",
            Self::MultiLineString => "MultiLineString",
            Self::MultiPolygon => "MultiPolygon",
            Self::GeometryCollection => "GeometryCollection",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f64, y: f64) -> Part {
        Part::Position([x, y, 3.0, 4.0])
    }

    fn ring(at_x: f64) -> Part {
        Part::List(vec![at(at_x, 0.0), at(at_x + 1.0, 0.0), at(at_x, 0.5), at(at_x, 0.0)])
    }

    fn geometry(kind: Kind, parts: Vec<Part>) -> Geometry {
        Geometry { kind, axes: Axes::Xy, parts }
    }

    fn check(geometry: &Geometry, wkt: &str, geojson: &str) {
        assert_eq!(geometry.to_wkt(), wkt);
        assert_eq!(geometry.to_geojson(), geojson);
    }

    #[test]
    fn every_kind_has_its_brackets() {
        let line = || vec![at(0.0, 0.0), at(3.0, 1.0)];
        let kinds = [
            (Kind::Point, vec![at(10.0, -0.5)], "POINT(10 -0.5)", "[10.0,-0.5]"),
            (Kind::LineString, line(), "LINESTRING(0 0,3 1)", "[[0.0,0.0],[3.0,1.0]]"),
            (
                Kind::Polygon,
                vec![ring(0.0), ring(5.0)],
                "POLYGON((0 0,1 0,0 0.5,0 0),(5 0,6 0,5 0.5,5 0))",
                "[[[0.0,0.0],[1.0,0.0],[0.0,0.5],[0.0,0.0]],[[5.0,0.0],[6.0,0.0],[5.0,0.5],[5.0,0.0]]]",
            ),
            (Kind::MultiPoint, line(), "MULTIPOINT(0 0,3 1)", "[[0.0,0.0],[3.0,1.0]]"),
            (
                Kind::MultiLineString,
                vec![Part::List(line()), Part::List(vec![])],
                "MULTILINESTRING((0 0,3 1),EMPTY)",
                "[[[0.0,0.0],[3.0,1.0]],[]]",
            ),
            (
                Kind::MultiPolygon,
                vec![Part::List(vec![ring(0.0)])],
                "MULTIPOLYGON(((0 0,1 0,0 0.5,0 0)))",
                "[[[[0.0,0.0],[1.0,0.0],[0.0,0.5],[0.0,0.0]]]]",
            ),
        ];
        for (kind, parts, wkt, coordinates) in kinds {
            let geojson = format!(r#"{{"type":"{}","coordinates":{coordinates}}}"#, kind.name());
            check(&geometry(kind, parts), wkt, &geojson);
        }
    }

    #[test]
    fn a_collection_holds_geometries() {
        let point = || Part::Geometry(geometry(Kind::Point, vec![at(1.0, 2.0)]));
        let inner = Part::Geometry(geometry(Kind::GeometryCollection, vec![point()]));
        check(
            &geometry(Kind::GeometryCollection, vec![point(), inner]),
            "GEOMETRYCOLLECTION(POINT(1 2),GEOMETRYCOLLECTION(POINT(1 2)))",
            concat!(
                r#"{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[1.0,2.0]},"#,
                r#"{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[1.0,2.0]}]}]}"#
            ),
        );
    }

    #[test]
    fn wkt_names_the_axes_and_geojson_keeps_z() {
        for (axes, wkt, coordinates) in [
            (Axes::Xyz, "POINT Z (1 2 3)", "[1.0,2.0,3.0]"),
            (Axes::Xym, "POINT M (1 2 3)", "[1.0,2.0]"),
            (Axes::Xyzm, "POINT ZM (1 2 3 4)", "[1.0,2.0,3.0]"),
        ] {
            let point = Geometry { kind: Kind::Point, axes, parts: vec![at(1.0, 2.0)] };
            check(&point, wkt, &format!(r#"{{"type":"Point","coordinates":{coordinates}}}"#));
        }
    }

    #[test]
    fn empty_geometries_say_so() {
        check(&geometry(Kind::Point, vec![]), "POINT EMPTY", r#"{"type":"Point","coordinates":[]}"#);
        let polygon = Geometry { kind: Kind::Polygon, axes: Axes::Xyz, parts: vec![] };
        check(&polygon, "POLYGON Z EMPTY", r#"{"type":"Polygon","coordinates":[]}"#);
        check(
            &geometry(Kind::GeometryCollection, vec![]),
            "GEOMETRYCOLLECTION EMPTY",
            r#"{"type":"GeometryCollection","geometries":[]}"#,
        );
    }

    #[test]
    fn numbers_print_as_elsewhere() {
        let far = geometry(Kind::Point, vec![at(-2e21, f64::INFINITY)]);
        check(&far, "POINT(-2e+21 Infinity)", r#"{"type":"Point","coordinates":[-2e+21,null]}"#);
    }
}
