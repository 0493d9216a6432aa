//! Values, the text that Postgres prints for them, and what is to be read. Shares nothing with what reads them.

use std::fmt::Write as _;

use kairos_sync_rules::Compatibility;
use serde_json::{Value, json};

use crate::{
    fuzz::Random,
    postgres::value::{Attribute, ColumnType},
};

/// A value.
pub(super) struct Printed {
    pub(super) text: String,
    pub(super) read_as: ColumnType,
    /// What is to be read.
    pub(super) expected: Value,
}

/// What values of a type are made of.
struct Maker<'r> {
    random: &'r mut Random,
    compatibility: Compatibility,
}

/// A value, with at most so many structures within each other.
pub(super) fn printed(random: &mut Random, compatibility: Compatibility, depth: usize) -> Printed {
    let mut maker = Maker { random, compatibility };
    let read_as = maker.any_type(depth);
    let (text, expected) = maker.value(&read_as);
    Printed { text, read_as, expected }
}

impl Maker<'_> {
    fn any_type(&mut self, depth: usize) -> ColumnType {
        let structures = if depth == 0 { 0 } else { 4 };
        match self.random.below(5 + structures) {
            0 => ColumnType::Bool,
            1 => ColumnType::Integer,
            2 | 3 => ColumnType::Text,
            4 => ColumnType::TimestampTz,
            5 | 6 => {
                // What is printed in braces itself is no element by itself.
                let element = loop {
                    let element = self.any_type(depth - 1);
                    if !matches!(element, ColumnType::Array { .. }) {
                        break Box::new(element);
                    }
                };
                ColumnType::Array { element, delimiter: *self.random.pick(&[',', ',', ';']) }
            }
            7 => {
                let count = 1 + self.random.below(4);
                let attribute = |maker: &mut Self, number: usize| Attribute {
                    name: format!("{number} {}", maker.random.text(&["a", "\"", "é\\"])),
                    read_as: maker.any_type(depth - 1),
                };
                ColumnType::Composite((0..count).map(|number| attribute(self, number)).collect())
            }
            _ => {
                let bound = Box::new(self.any_type(0));
                if self.random.chance(50) { ColumnType::Range(bound) } else { ColumnType::Multirange(bound) }
            }
        }
    }

    fn value(&mut self, read_as: &ColumnType) -> (String, Value) {
        match read_as {
            ColumnType::Bool => {
                let flag = self.random.chance(50);
                (if flag { "t" } else { "f" }.to_owned(), json!(i32::from(flag)))
            }
            ColumnType::Integer => {
                let number = *self.random.pick(&[0, 1, -1, 1_000_007, i64::MAX, i64::MIN]);
                (number.to_string(), json!(number))
            }
            ColumnType::TimestampTz => self.moment(),
            ColumnType::Array { element, delimiter } => self.array(element, *delimiter),
            ColumnType::Composite(attributes) => self.composite(attributes),
            ColumnType::Range(bound) => self.range(bound),
            ColumnType::Multirange(bound) => self.multirange(bound),
            _ => {
                let text = self.text();
                (text.clone(), json!(text))
            }
        }
    }

    fn text(&mut self) -> String {
        const WORDS: &[&str] = &[
            "a", "é", "\"", "\\", ",", ";", "(", ")", "[", "]", "{", "}", " ", "\n", "NULL", "null", "=", "'", "empty",
            "\u{1}", "𝄞", "7",
        ];
        (0..self.random.below(6)).map(|_| *self.random.pick(WORDS)).collect()
    }

    fn array(&mut self, element: &ColumnType, delimiter: char) -> (String, Value) {
        let (rows, columns) = (1 + self.random.below(3), self.random.below(4));
        if columns == 0 {
            return ("{}".to_owned(), json!([]));
        }
        let is_matrix = self.random.chance(30);
        let (mut texts, mut values) = (Vec::new(), Vec::new());
        for _ in 0..if is_matrix { rows } else { 1 } {
            let (texts_of_row, values_of_row): (Vec<_>, Vec<_>) =
                (0..columns).map(|_| self.element(element, delimiter)).unzip();
            texts.push(format!("{{{}}}", texts_of_row.join(&delimiter.to_string())));
            values.push(Value::Array(values_of_row));
        }
        let bounds = if self.random.chance(20) { if is_matrix { "[0:2][5:6]=" } else { "[-1:3]=" } } else { "" };
        if is_matrix {
            (format!("{bounds}{{{}}}", texts.join(&delimiter.to_string())), Value::Array(values))
        } else {
            (format!("{bounds}{}", texts.remove(0)), values.remove(0))
        }
    }

    fn element(&mut self, element: &ColumnType, delimiter: char) -> (String, Value) {
        if self.random.chance(15) {
            return ("NULL".to_owned(), Value::Null);
        }
        let (text, value) = self.value(element);
        let special = |sign: char| sign == delimiter || "{}\"\\".contains(sign) || sign.is_ascii_whitespace();
        if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special) {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            return (format!("\"{escaped}\""), value);
        }
        (text, value)
    }

    fn composite(&mut self, attributes: &[Attribute]) -> (String, Value) {
        let (mut texts, mut object) = (Vec::new(), serde_json::Map::new());
        for Attribute { name, read_as } in attributes {
            let (text, value) = self.part(read_as);
            texts.push(text);
            object.insert(name.clone(), value);
        }
        (format!("({})", texts.join(",")), Value::Object(object))
    }

    /// An attribute or a bound: nothing at all for NULL, or for no bound.
    fn part(&mut self, read_as: &ColumnType) -> (String, Value) {
        if self.random.chance(20) {
            return (String::new(), Value::Null);
        }
        let (text, value) = self.value(read_as);
        let special = |sign: char| "()[],\"\\".contains(sign) || sign.is_ascii_whitespace();
        if text.is_empty() || text.contains(special) {
            return (format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\"")), value);
        }
        (text, value)
    }

    fn range(&mut self, bound: &ColumnType) -> (String, Value) {
        if self.random.chance(10) {
            return ("empty".to_owned(), json!("empty"));
        }
        self.bounds(bound)
    }

    fn bounds(&mut self, bound: &ColumnType) -> (String, Value) {
        let (from, to) = (self.part(bound), self.part(bound));
        let (is_open, is_shut) = (self.random.chance(50), self.random.chance(50));
        let (before, after) = (if is_open { '(' } else { '[' }, if is_shut { ')' } else { ']' });
        let value = json!({
            "lower": from.1, "upper": to.1,
            "lower_exclusive": i32::from(is_open), "upper_exclusive": i32::from(is_shut),
        });
        (format!("{before}{},{}{after}", from.0, to.0), value)
    }

    fn multirange(&mut self, bound: &ColumnType) -> (String, Value) {
        let (texts, values): (Vec<_>, Vec<_>) = (0..self.random.below(4)).map(|_| self.bounds(bound)).unzip();
        (format!("{{{}}}", texts.join(",")), Value::Array(values))
    }

    /// A moment as it is on a clock some hours and minutes away from UTC.
    fn moment(&mut self) -> (String, Value) {
        let (year, month) = (1 + self.random.below(9998), 1 + self.random.below(12));
        let day = 1 + self.random.below(days_in(year, month));
        let (minute_of_day, second) = (self.random.below(24 * 60), self.random.below(60));
        let micros = *self.random.pick(&[0, 500_000, 120_000, 123_456, 1, 999_999]);
        let away = *self.random.pick(&[0, 60, 330, 14 * 60, 59]);
        let is_west = self.random.chance(50);
        let (date, minute) = match (minute_of_day + away, minute_of_day.checked_sub(away)) {
            (_, Some(earlier)) if is_west => ((year, month, day), earlier),
            (_, None) if is_west => (day_before(year, month, day), minute_of_day + 24 * 60 - away),
            (later, _) if later < 24 * 60 => ((year, month, day), later),
            (later, _) => (day_after(year, month, day), later - 24 * 60),
        };
        let fraction = format!("{micros:06}");
        let short = fraction.trim_end_matches('0');
        let short = if short.is_empty() { String::new() } else { format!(".{short}") };
        let mut text = format!("{:04}-{:02}-{:02} ", date.0, date.1, date.2);
        let _ = write!(text, "{:02}:{:02}:{second:02}{short}", minute / 60, minute % 60);
        let _ = write!(text, "{}{:02}", if is_west { '-' } else { '+' }, away / 60);
        if !away.is_multiple_of(60) {
            let _ = write!(text, ":{:02}", away % 60);
        }
        let clock = format!("{:02}:{:02}:{second:02}", minute_of_day / 60, minute_of_day % 60);
        let digits = self.compatibility.timestamp_fraction_digits_max.unwrap_or(6).min(6);
        let expected = match (self.compatibility.timestamps_iso8601, digits) {
            (false, _) => format!("{year:04}-{month:02}-{day:02} {clock}{short}Z"),
            (true, 0) => format!("{year:04}-{month:02}-{day:02}T{clock}Z"),
            (true, digits) => format!("{year:04}-{month:02}-{day:02}T{clock}.{}Z", &fraction[..digits.into()]),
        };
        (text, json!(expected))
    }
}

fn days_in(year: usize, month: usize) -> usize {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn day_after(year: usize, month: usize, day: usize) -> (usize, usize, usize) {
    match (month, day) {
        (12, 31) => (year + 1, 1, 1),
        (_, day) if day == days_in(year, month) => (year, month + 1, 1),
        _ => (year, month, day + 1),
    }
}

fn day_before(year: usize, month: usize, day: usize) -> (usize, usize, usize) {
    match (month, day) {
        (1, 1) => (year - 1, 12, 31),
        (_, 1) => (year, month - 1, days_in(year, month - 1)),
        _ => (year, month, day - 1),
    }
}
