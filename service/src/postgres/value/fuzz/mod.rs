//! Values as a server prints them are read as they were meant; any other text does no harm.

mod printed;

use kairos_sync_rules::{Compatibility, SqlValue};
use serde_json::Value;

use self::printed::{Printed, printed};
use super::ColumnType;
use crate::fuzz::{Random, bounded, run};

/// What mutated texts get more of.
const SIGNS: &[char] =
    &['{', '}', '[', ']', '(', ')', ',', ';', '"', '\\', '=', ':', '-', '+', '.', ' ', 'é', '0', 'N'];

/// A text, how it is to be read, and as what.
struct Input {
    text: String,
    read_as: ColumnType,
    compatibility: Compatibility,
    /// `None` for a text that no server prints.
    expected: Option<Value>,
}

impl AsRef<[u8]> for Input {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

fn input(random: &mut Random) -> Input {
    let compatibility = Compatibility {
        timestamps_iso8601: random.chance(50),
        custom_postgres_types: true,
        timestamp_fraction_digits_max: *random.pick(&[None, Some(0), Some(3), Some(6), Some(9)]),
    };
    let Printed { text, read_as, expected } = printed(random, compatibility, 3);
    Input { text, read_as, compatibility, expected: Some(expected) }
}

fn mutated(random: &mut Random) -> Input {
    let input = input(random);
    let mut characters: Vec<char> = input.text.chars().collect();
    for _ in 0..=random.below(5) {
        let at = random.below(characters.len() + 1);
        let to = (at + random.below(6)).min(characters.len());
        match random.below(5) {
            0 | 1 => characters.insert(at, *random.pick(SIGNS)),
            2 => drop(characters.drain(at..to)),
            3 => characters.truncate(at),
            _ => {
                let again = characters[at..to].repeat(1 + random.below(300));
                characters.splice(at..at, again);
            }
        }
    }
    Input { text: characters.into_iter().collect(), expected: None, ..input }
}

/// The value as JSON has it; text that is JSON counts as what it says.
fn as_json(value: SqlValue, is_structure: bool) -> Value {
    match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(number) => i64::try_from(number).expect("64 bits").into(),
        SqlValue::Text(text) if is_structure => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        SqlValue::Text(text) => Value::String(text),
        other => panic!("no type here has values such as {other:?}"),
    }
}

fn check(input: &Input, _: &mut Random) -> bool {
    let Input { text, read_as, compatibility, expected } = input;
    let (value, _) = bounded(text.len(), || (read_as.decode(text, *compatibility), read_as.is_outgrown_by(text)));
    let is_structure = read_as.structure_name().is_some();
    if let SqlValue::Text(found) = &value
        && is_structure
        && found != text
    {
        assert!(serde_json::from_str::<Value>(found).is_ok(), "{found}");
    }
    let Some(expected) = expected else { return false };
    assert_eq!(as_json(value, is_structure), *expected, "{text} read as {read_as:?}");
    true
}

impl ColumnType {
    /// What it is, if it has parts.
    fn structure_name(&self) -> Option<&'static str> {
        match self {
            Self::Array { .. } => Some("array"),
            Self::Range(_) => Some("range"),
            Self::Multirange(_) => Some("multirange"),
            Self::Composite(_) => Some("composite"),
            _ => None,
        }
    }
}

#[test]
fn values_are_read_as_they_were_meant() {
    run("values", &input, &check);
}

#[test]
fn texts_that_no_server_prints_do_no_harm() {
    run("values-faults", &mutated, &check);
}
