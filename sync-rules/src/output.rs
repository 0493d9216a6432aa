//! Output rows: a select list, resolved for a table, to the JSON of a row.

use crate::{
    definition::{OutputItem, OutputStyle},
    expression::Expression,
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

    /// The row's id and its columns as a JSON object.
    pub(crate) fn write(&self, row: Row<'_>) -> Result<(String, String), Failure> {
        let mut id = String::new();
        let mut data = String::with_capacity(24 * self.columns.len());
        data.push('{');
        for column in &self.columns {
            let mut value = None;
            for source in &column.sources {
                // A column the table does not have is absent, not NULL.
                if !matches!(source, Expression::Input(Cell::Absent)) && value.as_deref().is_none_or(SqlValue::is_null)
                {
                    value = Some(row.evaluate(source)?);
                }
            }
            let Some(value) = value.filter(|value| !matches!(**value, SqlValue::Blob(_))) else { continue };
            if data.len() > 1 {
                data.push(',');
            }
            data.push_str(&column.key);
            write_value(&value, Form::Data, &mut data);
            if column.is_id {
                id = value.text().unwrap_or_default().into_owned();
            }
        }
        data.push('}');
        Ok((id, data))
    }
}
