//! The world of a case: tables, rows that come, change and go, and clients. Few different values, so that they meet.

use crate::random::Random;

/// A value of a row or a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
}

impl Value {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// The literal, which is spelled alike in rules and in SQLite.
    pub(crate) fn literal(&self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Real(number) => format!("{number:?}"),
            Self::Text(text) => format!("'{}'", text.replace('\'', "''")),
        }
    }
}

/// Which numbers a world has.
///
/// Where two sources speak of one key, a stream compares INTEGER and REAL strictly, which SQL does not. So a world that
/// has such streams has one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Both kinds anywhere.
    Mixed,
    /// INTEGER in rows. None in requests and JSON arrays, where streams read every number as REAL.
    Integers,
    /// REAL in rows; any number in requests and JSON arrays.
    Reals,
}

impl Numbers {
    /// A value of a column.
    pub(crate) fn value(self, random: &mut Random) -> Value {
        match random.below(20) {
            0..=12 => Value::text(random.text(&["a", "b", "c"])),
            13..=15 => self.number(random),
            16 => Value::text(random.text(&["1", "it's", "\"]", "\u{1F600}"])),
            17 => Value::text(""),
            _ => Value::Null,
        }
    }

    fn number(self, random: &mut Random) -> Value {
        match self {
            Self::Mixed if random.chance(60) => Value::Integer(*random.pick(&[0, 1, 2])),
            Self::Integers => Value::Integer(*random.pick(&[0, 1, 2])),
            Self::Mixed | Self::Reals => Value::Real(*random.pick(&[0.0, 1.0, 2.0, 2.5])),
        }
    }

    /// A value of a request: `None` is an absent claim.
    pub(crate) fn claim(self, random: &mut Random) -> Option<Value> {
        match random.below(10) {
            0..=6 => Some(Value::text(random.text(&["a", "b", "c"]))),
            7 => Some(Value::text(random.text(&["1", "\"]"]))),
            8 if self != Self::Integers => Some(Value::Real(*random.pick(&[1.0, 2.0, 2.5]))),
            8 => Some(Value::text("b")),
            _ => None,
        }
    }

    /// A JSON array as text, spelled loosely.
    pub(crate) fn array(self, random: &mut Random) -> String {
        let plain = ["\"a\"", "\"b\"", "\"c\"", "\"\\u0061\"", "\"1\"", "null"];
        let numbers = ["1", "2", "1.0", "2.5", "25e-1"];
        let elements: Vec<_> = (0..random.below(4))
            .map(|_| match random.below(10) {
                0..=6 => *random.pick(&plain),
                7 | 8 if self != Self::Integers => *random.pick(&numbers),
                // A boolean is INTEGER 1 or 0.
                9 if self != Self::Reals => *random.pick(&["true", "false"]),
                _ => "\"c\"",
            })
            .collect();
        let separator = random.pick(&[",", " , "]);
        format!("[{}]", elements.join(separator))
    }
}

/// A source table. Its first column is `id`.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub name: &'static str,
    /// Columns with single values, `id` first.
    pub scalars: Vec<&'static str>,
    /// Columns with JSON arrays.
    pub arrays: Vec<&'static str>,
}

impl Table {
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.scalars.iter().chain(&self.arrays).copied()
    }
}

/// Tables of two to six columns.
pub(crate) fn schema(random: &mut Random, table_count: usize) -> Vec<Table> {
    const TABLES: [&str; 5] = ["lists", "members", "notes", "tasks", "teams"];
    const SCALARS: [&str; 3] = ["kind", "owner", "team"];
    const ARRAYS: [&str; 2] = ["refs", "tags"];
    let table = |name: &&'static str, random: &mut Random| {
        let mut scalars = vec!["id"];
        let first = random.below(SCALARS.len());
        scalars.extend((0..=random.below(3)).map(|step| SCALARS[(first + step) % SCALARS.len()]));
        let arrays = ARRAYS[..random.below(3)].to_vec();
        Table { name, scalars, arrays }
    };
    TABLES[..table_count].iter().map(|name| table(name, random)).collect()
}

/// A change of the source; tables by number.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A row in the order of the table's columns. It replaces the row with the same id.
    Put {
        table: usize,
        row: Vec<Value>,
    },
    Delete {
        table: usize,
        id: Value,
    },
}

/// A sequence of inserts, updates and deletes.
pub(crate) fn changes(random: &mut Random, schema: &[Table], numbers: Numbers, count: usize) -> Vec<Change> {
    let mut known: Vec<(usize, Vec<Value>)> = Vec::new();
    let mut changes = Vec::new();
    for _ in 0..count {
        let is_about_known = !known.is_empty() && random.chance(50);
        if is_about_known && random.chance(40) {
            let (table, row) = known.swap_remove(random.below(known.len()));
            changes.push(Change::Delete { table, id: row[0].clone() });
            continue;
        }
        let (table, mut row) = if is_about_known {
            known.swap_remove(random.below(known.len()))
        } else {
            let table = random.below(schema.len());
            let id = if numbers == Numbers::Reals || random.chance(60) {
                Value::text(random.text(&["a", "b", "c", "d"]))
            } else {
                Value::Integer(*random.pick(&[1, 2, 3]))
            };
            let row = fresh_row(random, &schema[table], numbers, id);
            known.retain(|(known, earlier)| (*known, &earlier[0]) != (table, &row[0]));
            (table, row)
        };
        if is_about_known {
            let column = 1 + random.below(row.len() - 1);
            row[column] = fresh_row(random, &schema[table], numbers, Value::Null).swap_remove(column);
        }
        known.push((table, row.clone()));
        changes.push(Change::Put { table, row });
    }
    changes
}

fn fresh_row(random: &mut Random, table: &Table, numbers: Numbers, id: Value) -> Vec<Value> {
    let mut row = vec![id];
    row.extend(table.scalars[1..].iter().map(|_| numbers.value(random)));
    row.extend(
        table.arrays.iter().map(|_| if random.chance(15) { Value::Null } else { Value::Text(numbers.array(random)) }),
    );
    row
}

/// What one subscription to a stream says.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubscriptionValues {
    pub scalar: Option<Value>,
    pub array: Option<String>,
}

/// A client. What is `None` is not in the token or the parameters at all.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    pub user: Option<Value>,
    pub role: Option<Value>,
    pub level: Option<f64>,
    pub tags: Option<String>,
    /// Parameters of the client's own.
    pub choice: Option<Value>,
    pub choices: Option<String>,
    /// By stream.
    pub subscriptions: Vec<(String, SubscriptionValues)>,
}

impl Principal {
    pub(crate) fn random(random: &mut Random, numbers: Numbers, streams: &[String]) -> Self {
        let array = |random: &mut Random| random.chance(85).then(|| numbers.array(random));
        Self {
            user: numbers.claim(random),
            role: numbers.claim(random),
            level: (numbers != Numbers::Integers && random.chance(80)).then(|| *random.pick(&[0.0, 1.0, 2.0, 2.5])),
            tags: array(random),
            choice: numbers.claim(random),
            choices: array(random),
            subscriptions: (0..random.below(4))
                .filter(|_| !streams.is_empty())
                .map(|_| {
                    let values = SubscriptionValues { scalar: numbers.claim(random), array: array(random) };
                    (random.pick(streams).clone(), values)
                })
                .collect(),
        }
    }
}
