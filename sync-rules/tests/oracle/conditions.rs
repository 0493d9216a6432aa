//! Random conditions on single rows, which all families share.

use crate::{
    expression::{Booleans, Column, Comparison, Condition, Outside, Scalar},
    model::{Table, Value},
    random::Random,
};

/// Which language a condition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    /// Bucket definitions of editions 1 and 2.
    Buckets,
    /// Streams of edition 3.
    Streams,
}

/// A table that a query reads.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// Written in front of columns; `None`: nothing is.
    pub qualifier: Option<String>,
    /// Alias in SQLite.
    pub sqlite: String,
    pub scalars: Vec<String>,
    pub arrays: Vec<String>,
}

impl Instance {
    pub(crate) fn of(table: &Table, qualifier: Option<String>, sqlite: String) -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self { qualifier, sqlite, scalars: names(&table.scalars), arrays: names(&table.arrays) }
    }

    pub(crate) fn column(&self, name: &str) -> Scalar {
        let rules = self.qualifier.as_ref().map_or_else(|| name.to_owned(), |table| format!("{table}.{name}"));
        Scalar::Column(Column { rules, sqlite: format!("{}.{name}", self.sqlite) })
    }

    pub(crate) fn scalar(&self, random: &mut Random) -> Scalar {
        self.column(&self.scalars[random.below(self.scalars.len())])
    }

    /// A column with arrays, if there is one.
    pub(crate) fn array(&self, random: &mut Random) -> Option<Scalar> {
        (!self.arrays.is_empty()).then(|| self.column(&self.arrays[random.below(self.arrays.len())]))
    }

    /// What is compared with other rows and requests: mostly a column.
    pub(crate) fn key(&self, random: &mut Random, language: Language) -> Scalar {
        let column = self.scalar(random);
        match random.below(12) {
            0 => Scalar::IfNull(Box::new(column), Value::text("c")),
            1 if language == Language::Streams => Scalar::Case(
                Box::new(Condition::Compare(column, Comparison::Equal, Scalar::Literal(Value::text("a")))),
                Value::text("b"),
                Value::Null,
            ),
            _ => column,
        }
    }
}

fn literal(random: &mut Random) -> Value {
    random
        .pick(&[
            Value::text("a"),
            Value::text("b"),
            Value::text("c"),
            Value::text("1"),
            Value::text("it's"),
            Value::Integer(1),
            Value::Integer(2),
            Value::Real(1.0),
            Value::Real(2.5),
            Value::Null,
        ])
        .clone()
}

fn comparison(random: &mut Random, language: Language) -> Comparison {
    let different = match language {
        Language::Buckets => Comparison::Different,
        Language::Streams => Comparison::NotEqual,
    };
    *random.pick(&[Comparison::Equal, Comparison::Equal, Comparison::Less, Comparison::GreaterOrEqual, different])
}

/// A value computed from a row.
fn computed(random: &mut Random, row: &Instance, language: Language) -> Scalar {
    let column = Box::new(row.scalar(random));
    match random.below(10) {
        0 => Scalar::TypeOf(column),
        1 => Scalar::IfNull(column, literal(random)),
        2 => Scalar::Plus(column, 1),
        3 => row.array(random).map_or(*column, |array| Scalar::ArrayLength(Box::new(array))),
        4 if language == Language::Streams => {
            let condition = simple(random, row, language);
            Scalar::Case(Box::new(condition), literal(random), literal(random))
        }
        _ => *column,
    }
}

fn simple(random: &mut Random, row: &Instance, language: Language) -> Condition {
    let is_stream = language == Language::Streams;
    let column = row.scalar(random);
    match random.below(16) {
        0 => Condition::IsNull(column),
        1 => Condition::IsNotNull(column),
        2 => Condition::Truth(column),
        3 => Condition::Compare(column, comparison(random, language), row.scalar(random)),
        4 if !is_stream => row.array(random).map_or(Condition::Truth(column.clone()), |array| Condition::InArray {
            value: column,
            array,
            booleans: Booleans::Numbers,
        }),
        4 => row
            .array(random)
            .map_or(Condition::Truth(column.clone()), |array| Condition::NotInArray { value: column, array }),
        5 if is_stream => Condition::IsTrue(column),
        6 if is_stream => Condition::IsNotTrue(column),
        7 if is_stream => Condition::Between(column, literal(random), literal(random)),
        8 if is_stream => Condition::NotBetween(column, literal(random), literal(random)),
        9 if is_stream => Condition::InList(column, vec![literal(random), literal(random)]),
        10 if is_stream => Condition::NotInList(column, vec![literal(random), literal(random)]),
        _ => {
            let value = computed(random, row, language);
            Condition::Compare(value, comparison(random, language), Scalar::Literal(literal(random)))
        }
    }
}

/// A condition on one row.
pub(crate) fn row_condition(random: &mut Random, row: &Instance, language: Language, depth: usize) -> Condition {
    if depth == 0 || random.chance(50) {
        return simple(random, row, language);
    }
    let mut nested = || row_condition(random, row, language, depth - 1);
    let (first, second) = (nested(), nested());
    match random.below(3) {
        0 => Condition::Not(Box::new(first)),
        1 => Condition::All(vec![first, second]),
        _ => Condition::Any(vec![first, second]),
    }
}

/// A condition on a request. `scalars` are its single values.
pub(crate) fn request_condition(random: &mut Random, scalars: &[Outside], language: Language) -> Condition {
    let value = Scalar::Outside(random.pick(scalars).clone());
    match random.below(6) {
        0 => Condition::IsNotNull(value),
        1 => Condition::Truth(value),
        2 => Condition::Not(Box::new(Condition::Compare(value, Comparison::Equal, Scalar::Literal(literal(random))))),
        _ => Condition::Compare(value, comparison(random, language), Scalar::Literal(literal(random))),
    }
}

/// Several conditions, or the only one.
pub(crate) fn all(mut parts: Vec<Condition>) -> Option<Condition> {
    if parts.len() < 2 { parts.pop() } else { Some(Condition::All(parts)) }
}
