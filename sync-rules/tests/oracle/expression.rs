//! The generators' own tree of expressions and queries, printed twice: in the words of the rules, and as SQLite.
//!
//! The SQL spells out what the rules language means: conditions are two-valued (`coalesce`), text counts by its leading
//! integer, arrays are `json_each`. No part of the engine is used for it.

use std::fmt::Write as _;

use crate::model::Value;

/// A column of one of the tables a query reads.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    /// As the rules write it, with its table or without.
    pub rules: String,
    /// As SQLite reads it; every table there has an alias of its own.
    pub sqlite: String,
}

/// A value that does not come from a row: of the request or of the bucket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outside {
    pub rules: String,
    pub sqlite: String,
}

/// A single value.
#[derive(Debug, Clone)]
pub(crate) enum Scalar {
    Column(Column),
    Outside(Outside),
    Literal(Value),
    TypeOf(Box<Scalar>),
    IfNull(Box<Scalar>, Value),
    Plus(Box<Scalar>, i64),
    ArrayLength(Box<Scalar>),
    /// `CASE WHEN condition THEN first ELSE second END`
    Case(Box<Condition>, Value, Value),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Comparison {
    Equal,
    Less,
    GreaterOrEqual,
    /// NULL is different from nothing.
    Different,
    /// Edition 3: the opposite of `=`, so NULL is different from everything.
    NotEqual,
}

/// A condition.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    Compare(Scalar, Comparison, Scalar),
    IsNull(Scalar),
    IsNotNull(Scalar),
    /// The value itself.
    Truth(Scalar),
    /// `value IS TRUE`: it is 1.
    IsTrue(Scalar),
    IsNotTrue(Scalar),
    Between(Scalar, Value, Value),
    NotBetween(Scalar, Value, Value),
    InList(Scalar, Vec<Value>),
    NotInList(Scalar, Vec<Value>),
    InArray {
        value: Scalar,
        array: Scalar,
        booleans: Booleans,
    },
    NotInArray {
        value: Scalar,
        array: Scalar,
    },
    Overlap(Scalar, Scalar),
    InSelect(Scalar, Box<Select>),
    /// `value IN name`, the query below `with`.
    InNamed {
        value: Scalar,
        name: String,
        select: Box<Select>,
    },
    OverlapSelect(Scalar, Box<Select>),
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

/// What `true` in a JSON array is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Booleans {
    /// INTEGER 1.
    Numbers,
    /// Equal to no SQL value.
    Alone,
}

/// `SELECT item FROM from WHERE filter`
#[derive(Debug, Clone)]
pub(crate) struct Select {
    /// Named expressions; a subquery has one without a name.
    pub items: Vec<(Scalar, Option<String>)>,
    pub from: Vec<Source>,
    pub filter: Option<Condition>,
}

/// An entry of FROM.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub kind: SourceKind,
    /// Its alias in the rules.
    pub alias: Option<String>,
    /// Its alias in SQLite.
    pub sqlite: String,
    /// Joined by `JOIN … ON`; otherwise by a comma.
    pub on: Option<Condition>,
}

#[derive(Debug, Clone)]
pub(crate) enum SourceKind {
    Table(String),
    Derived(Box<Select>),
    /// A name below `with`.
    Named(String, Box<Select>),
}

impl Scalar {
    pub(crate) fn rules(&self) -> String {
        match self {
            Self::Column(column) => column.rules.clone(),
            Self::Outside(outside) => outside.rules.clone(),
            Self::Literal(value) => value.literal(),
            Self::TypeOf(value) => format!("typeof({})", value.rules()),
            Self::IfNull(value, other) => format!("ifnull({}, {})", value.rules(), other.literal()),
            Self::Plus(value, number) => format!("({} + {number})", value.rules()),
            Self::ArrayLength(value) => format!("json_array_length({})", value.rules()),
            Self::Case(condition, first, second) => {
                format!("CASE WHEN {} THEN {} ELSE {} END", condition.rules(), first.literal(), second.literal())
            }
        }
    }

    pub(crate) fn sqlite(&self) -> String {
        match self {
            Self::Column(column) => column.sqlite.clone(),
            Self::Outside(outside) => outside.sqlite.clone(),
            Self::Literal(value) => value.literal(),
            Self::TypeOf(value) => format!("typeof({})", value.sqlite()),
            Self::IfNull(value, other) => format!("ifnull({}, {})", value.sqlite(), other.literal()),
            Self::Plus(value, number) => format!("({} + {number})", value.sqlite()),
            Self::ArrayLength(value) => format!("json_array_length({})", value.sqlite()),
            Self::Case(condition, first, second) => {
                format!("CASE WHEN {} THEN {} ELSE {} END", condition.sqlite(), first.literal(), second.literal())
            }
        }
    }
}

fn list(values: &[Value]) -> String {
    values.iter().map(Value::literal).collect::<Vec<_>>().join(", ")
}

fn joined(parts: &[Condition], word: &str, print: fn(&Condition) -> String) -> String {
    let parts: Vec<_> = parts.iter().map(print).collect();
    format!("({})", parts.join(word))
}

impl Condition {
    pub(crate) fn rules(&self) -> String {
        match self {
            Self::Compare(left, comparison, right) => {
                let operator = match comparison {
                    Comparison::Equal => "=",
                    Comparison::Less => "<",
                    Comparison::GreaterOrEqual => ">=",
                    Comparison::Different | Comparison::NotEqual => "!=",
                };
                format!("{} {operator} {}", left.rules(), right.rules())
            }
            Self::IsNull(value) => format!("{} IS NULL", value.rules()),
            Self::IsNotNull(value) => format!("{} IS NOT NULL", value.rules()),
            Self::Truth(value) => value.rules(),
            Self::IsTrue(value) => format!("{} IS TRUE", value.rules()),
            Self::IsNotTrue(value) => format!("{} IS NOT TRUE", value.rules()),
            Self::Between(value, from, to) => {
                format!("{} BETWEEN {} AND {}", value.rules(), from.literal(), to.literal())
            }
            Self::NotBetween(value, from, to) => {
                format!("{} NOT BETWEEN {} AND {}", value.rules(), from.literal(), to.literal())
            }
            Self::InList(value, values) => format!("{} IN ARRAY[{}]", value.rules(), list(values)),
            Self::NotInList(value, values) => format!("{} NOT IN ROW({})", value.rules(), list(values)),
            Self::InArray { value, array, .. } => format!("{} IN {}", value.rules(), array.rules()),
            Self::NotInArray { value, array } => format!("{} NOT IN {}", value.rules(), array.rules()),
            Self::Overlap(left, right) => format!("{} && {}", left.rules(), right.rules()),
            Self::InSelect(value, select) => format!("{} IN ({})", value.rules(), select.rules()),
            Self::InNamed { value, name, .. } => format!("{} IN {name}", value.rules()),
            Self::OverlapSelect(array, select) => format!("{} && ({})", array.rules(), select.rules()),
            Self::Not(condition) => format!("NOT ({})", condition.rules()),
            Self::All(parts) => joined(parts, " AND ", Self::rules),
            Self::Any(parts) => joined(parts, " OR ", Self::rules),
        }
    }

    /// As SQLite; never NULL.
    pub(crate) fn sqlite(&self) -> String {
        match self {
            Self::Compare(left, comparison, right) => {
                let (left, right) = (left.sqlite(), right.sqlite());
                match comparison {
                    Comparison::Equal => format!("coalesce({left} = {right}, 0)"),
                    Comparison::Less => format!("coalesce({left} < {right}, 0)"),
                    Comparison::GreaterOrEqual => format!("coalesce({left} >= {right}, 0)"),
                    Comparison::Different => format!("coalesce({left} <> {right}, 0)"),
                    Comparison::NotEqual => format!("coalesce({left} <> {right}, 1)"),
                }
            }
            Self::IsNull(value) => format!("({} IS NULL)", value.sqlite()),
            Self::IsNotNull(value) => format!("({} IS NOT NULL)", value.sqlite()),
            Self::Truth(value) => truth(&value.sqlite()),
            Self::IsTrue(value) => format!("coalesce({} = 1, 0)", value.sqlite()),
            Self::IsNotTrue(value) => format!("coalesce({} <> 1, 1)", value.sqlite()),
            Self::Between(value, from, to) => between(value, from, to),
            Self::NotBetween(value, from, to) => format!("NOT {}", between(value, from, to)),
            Self::InList(value, values) => format!("coalesce({} IN ({}), 0)", value.sqlite(), list(values)),
            Self::NotInList(value, values) => format!("NOT coalesce({} IN ({}), 0)", value.sqlite(), list(values)),
            Self::InArray { value, array, booleans } => in_array(value, array, *booleans),
            Self::NotInArray { value, array } => format!("NOT {}", in_array(value, array, Booleans::Numbers)),
            Self::Overlap(left, right) => format!(
                "EXISTS (SELECT 1 FROM json_each({}) AS l, json_each({}) AS r WHERE l.value = r.value)",
                left.sqlite(),
                right.sqlite()
            ),
            Self::InSelect(value, select) | Self::InNamed { value, select, .. } => {
                format!("coalesce({} IN ({}), 0)", value.sqlite(), select.sqlite())
            }
            Self::OverlapSelect(array, select) => format!(
                "EXISTS (SELECT 1 FROM json_each({}) AS l WHERE l.value IN ({}))",
                array.sqlite(),
                select.sqlite()
            ),
            Self::Not(condition) => format!("NOT ({})", condition.sqlite()),
            Self::All(parts) => joined(parts, " AND ", Self::sqlite),
            Self::Any(parts) => joined(parts, " OR ", Self::sqlite),
        }
    }
}

/// Text counts by its leading integer, not by its leading number as in SQLite.
fn truth(value: &str) -> String {
    format!("coalesce(CASE typeof({value}) WHEN 'text' THEN CAST({value} AS INTEGER) ELSE {value} END <> 0, 0)")
}

fn between(value: &Scalar, from: &Value, to: &Value) -> String {
    format!("coalesce({} BETWEEN {} AND {}, 0)", value.sqlite(), from.literal(), to.literal())
}

fn in_array(value: &Scalar, array: &Scalar, booleans: Booleans) -> String {
    let kinds = match booleans {
        Booleans::Numbers => "",
        Booleans::Alone => " AND e.type NOT IN ('true', 'false')",
    };
    let (value, array) = (value.sqlite(), array.sqlite());
    format!("EXISTS (SELECT 1 FROM json_each({array}) AS e WHERE e.value = {value}{kinds})")
}

impl Select {
    pub(crate) fn rules(&self) -> String {
        self.print(Scalar::rules, Condition::rules, |source| {
            let name = match &source.kind {
                SourceKind::Table(name) | SourceKind::Named(name, _) => name.clone(),
                SourceKind::Derived(select) => format!("({})", select.rules()),
            };
            source.alias.as_ref().map_or(name.clone(), |alias| format!("{name} AS {alias}"))
        })
    }

    pub(crate) fn sqlite(&self) -> String {
        self.print(Scalar::sqlite, Condition::sqlite, |source| match &source.kind {
            SourceKind::Table(name) => format!("{name} AS {}", source.sqlite),
            SourceKind::Named(_, select) | SourceKind::Derived(select) => {
                format!("({}) AS {}", select.sqlite(), source.sqlite)
            }
        })
    }

    fn print(
        &self,
        scalar: fn(&Scalar) -> String,
        condition: fn(&Condition) -> String,
        source: fn(&Source) -> String,
    ) -> String {
        let item = |(value, name): &(Scalar, Option<String>)| {
            name.as_ref().map_or_else(|| scalar(value), |name| format!("{} AS {name}", scalar(value)))
        };
        let items: Vec<_> = self.items.iter().map(item).collect();
        let mut text = format!("SELECT {}", items.join(", "));
        for (index, entry) in self.from.iter().enumerate() {
            text.push_str(match (&entry.on, index) {
                (_, 0) => " FROM ",
                (Some(_), _) => " JOIN ",
                (None, _) => ", ",
            });
            text.push_str(&source(entry));
            if let Some(on) = &entry.on {
                let _ = write!(text, " ON {}", condition(on));
            }
        }
        if let Some(filter) = &self.filter {
            let _ = write!(text, " WHERE {}", condition(filter));
        }
        text
    }
}
