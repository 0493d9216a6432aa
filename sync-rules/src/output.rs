//! Output rows: a select list, resolved for a table, to the JSON of a row.

use std::{borrow::Cow, sync::Arc};

use crate::{
    definition::{OutputItem, OutputStyle},
    expression::Expression,
    functions::Function,
    json::{Form, write_text, write_value},
    row::{Cell, Columns, Row},
    value::{Failure, SqlValue},
};

/// The output columns of a query, each name once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    columns: Vec<OutputColumn>,
    style: OutputStyle,
}

#[derive(Debug, Clone, PartialEq)]
struct OutputColumn {
    /// `"name":`, ready to be written.
    key: String,
    is_id: bool,
    name: String,
    /// The first that is not NULL counts.
    sources: Vec<Expression<Cell>>,
}

impl Output {
    /// Resolves a select list. A later column replaces an earlier one of the same name.
    pub(crate) fn new(items: &[OutputItem], style: OutputStyle, columns: Columns<'_>) -> Self {
        let mut output = Self { columns: Vec::new(), style };
        for item in items {
            match item {
                OutputItem::Column { name, value } => {
                    let sources = &mut output.column(name).sources;
                    sources.clear();
                    sources.push(columns.resolve(value));
                }
                OutputItem::Star => {
                    for (index, name) in columns.names.iter().enumerate() {
                        if style == OutputStyle::Classic && name.starts_with('_') {
                            continue;
                        }
                        let sources = &mut output.column(name).sources;
                        if style == OutputStyle::Plain {
                            sources.clear();
                        }
                        sources.push(Expression::Input(Cell::Index(index)));
                    }
                }
            }
        }
        output
    }

    /// Whether columns read elements the row is expanded by.
    pub(crate) fn reads_elements(&self) -> bool {
        let mut found = false;
        for source in self.columns.iter().flat_map(|column| &column.sources) {
            source.visit_inputs(&mut |cell| found |= matches!(cell, Cell::Element(..)));
        }
        found
    }

    /// Whether a failing column shows in rows that go into no bucket.
    pub(crate) fn fails_early(&self) -> bool {
        let is_plain = |source: &Expression<Cell>| matches!(source, Expression::Input(_) | Expression::Literal(_));
        self.style == OutputStyle::Plain && !self.columns.iter().flat_map(|column| &column.sources).all(is_plain)
    }

    fn column(&mut self, name: &str) -> &mut OutputColumn {
        let index = self.columns.iter().position(|column| column.name == name).unwrap_or_else(|| {
            let mut key = String::new();
            write_text(name, &mut key);
            key.push(':');
            self.columns.push(OutputColumn { key, is_id: name == "id", name: name.to_owned(), sources: Vec::new() });
            self.columns.len() - 1
        });
        &mut self.columns[index]
    }

    /// The row's id and its columns as a JSON object. `data` is memory to write it in.
    pub(crate) fn write(&self, row: Row<'_>, data: &mut String) -> Result<OutputRow, Failure> {
        let mut id: Option<Arc<str>> = None;
        data.clear();
        data.push('{');
        for column in &self.columns {
            let Some(value) = column.value(row)? else { continue };
            if data.len() > 1 {
                data.push(',');
            }
            data.push_str(&column.key);
            write_value(&value, Form::Data, data);
            if column.is_id {
                id = value.text().map(|text| Arc::from(&*text));
            }
        }
        data.push('}');
        Ok(OutputRow { id: id.unwrap_or_else(|| Arc::from("")), data: Arc::from(data.as_str()) })
    }
}

/// An output row.
#[derive(Debug, Clone)]
pub(crate) struct OutputRow {
    pub id: Arc<str>,
    pub data: Arc<str>,
}

impl OutputColumn {
    /// The column's value; `None` leaves it out. A column the table does not have is absent, not NULL, and bytes are
    /// never sent.
    fn value<'a>(&'a self, row: Row<'a>) -> Result<Option<Cow<'a, SqlValue>>, Failure> {
        let mut value = None;
        for source in &self.sources {
            if value.as_deref().is_none_or(SqlValue::is_null) && !is_absent(source, row)? {
                value = Some(row.evaluate(source)?);
            }
        }
        Ok(value.filter(|value| !matches!(**value, SqlValue::Blob(_))))
    }
}

/// Whether there is no value at all: a column the table does not have, or an argument that a call chooses but was not
/// given, which editions 1 and 2 let pass.
fn is_absent(source: &Expression<Cell>, row: Row<'_>) -> Result<bool, Failure> {
    let (function, arguments) = match source {
        Expression::Input(cell) => return Ok(*cell == Cell::Absent),
        Expression::Call { function, arguments } => (function, arguments),
        _ => return Ok(false),
    };
    let first = arguments.first().map(|first| row.evaluate(first)).transpose()?;
    Ok(match function {
        Function::Ifnull if arguments.len() < 2 => first.is_none_or(|first| first.is_null()),
        Function::Iif if arguments.len() < 3 => {
            let chosen = if first.is_some_and(|first| first.truth()) { 1 } else { 2 };
            chosen >= arguments.len()
        }
        _ => false,
    })
}
