//! A source row as expressions read it: columns by position, and the elements it is expanded by.

use std::borrow::Cow;

use crate::{
    definition::{ElementPart, RowInput, TablePart},
    elements::Element,
    expression::Expression,
    plan::{SourceTable, TablePattern},
    value::{Failure, SqlValue},
};

/// Where an input of a row comes from, once the table's columns are known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// The value at this position.
    Index(usize),
    /// The same for all rows of the table.
    Constant(SqlValue),
    /// The table has no such column; reads as NULL.
    Absent,
    /// Of an element.
    Element(usize, ElementPart),
}

/// Columns of a table, to resolve names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub names: &'a [String],
    pub table: &'a SourceTable,
    /// As the query names the table.
    pub pattern: &'a TablePattern,
}

impl Columns<'_> {
    pub(crate) fn cell(&self, input: &RowInput) -> Cell {
        match input {
            RowInput::Column(name) => {
                self.names.iter().position(|column| column == name).map_or(Cell::Absent, Cell::Index)
            }
            RowInput::Table(part) => Cell::Constant(SqlValue::Text(self.table_part(*part).to_owned())),
            RowInput::Element { expansion, part } => Cell::Element(*expansion, *part),
        }
    }

    fn table_part(&self, part: TablePart) -> &str {
        match part {
            TablePart::Schema => &self.table.schema,
            TablePart::Name => &self.table.name,
            TablePart::Suffix => {
                let prefix = self.pattern.name.strip_suffix('%');
                prefix.and_then(|prefix| self.table.name.strip_prefix(prefix)).unwrap_or_default()
            }
        }
    }

    pub(crate) fn resolve(&self, expression: &Expression<RowInput>) -> Expression<Cell> {
        expression.map(|input| self.cell(input))
    }
}

/// A row's values, and the elements it is expanded by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub values: &'a [SqlValue],
    pub elements: &'a [&'a Element],
}

impl<'a> Row<'a> {
    pub(crate) fn evaluate(self, expression: &'a Expression<Cell>) -> Result<Cow<'a, SqlValue>, Failure> {
        match expression {
            // Most expressions are a column; that needs no closure.
            Expression::Input(cell) => Ok(self.read(cell)),
            _ => expression.evaluate(&|cell| self.read(cell)),
        }
    }

    pub(crate) fn read(self, cell: &'a Cell) -> Cow<'a, SqlValue> {
        const NULL: SqlValue = SqlValue::Null;
        match cell {
            Cell::Index(index) => self.values.get(*index).map_or(Cow::Owned(NULL), Cow::Borrowed),
            Cell::Constant(value) => Cow::Borrowed(value),
            Cell::Absent => Cow::Owned(NULL),
            Cell::Element(expansion, part) => {
                self.elements.get(*expansion).map_or(Cow::Owned(NULL), |element| Cow::Borrowed(element.part(*part)))
            }
        }
    }
}
