//! SQL on the synced file, and its rows as a table or as JSON.

use std::io::{self, Write};

use kairos_client::{
    LocalDatabase,
    rusqlite::{self, Row, types::ValueRef},
};
use serde_json::{Map, Value, json};

use super::error::ClientCommandError;

/// Columns are as wide as the values of the first rows, of which so many are kept meanwhile,
const ROWS_MEASURED: usize = 500;
/// or so many bytes.
const BYTES_MEASURED: usize = 1024 * 1024;
/// Longer values stick out.
const WIDTH_MAX: usize = 40;

/// Runs a query and prints its rows. `number` tells it from the others, from 1.
pub(super) fn run(
    database: &LocalDatabase,
    number: usize,
    sql: &str,
    is_json: bool,
    out: &mut dyn Write,
) -> Result<(), ClientCommandError> {
    let failed = |source| explain(database, number, source);
    let mut statement = database.connection().prepare(sql).map_err(failed)?;
    let columns = distinct(statement.column_names());
    let mut printer: Box<dyn Printer> =
        if is_json { Box::new(JsonRows::new(number, columns)) } else { Box::new(TextTable::new(columns)) };
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if printer.row(row, out).is_err() {
            return Ok(()); // who read it has seen enough
        }
    }
    let _ = printer.finish(out);
    Ok(())
}

/// A table that is not there is the usual mistake.
fn explain(database: &LocalDatabase, number: usize, source: rusqlite::Error) -> ClientCommandError {
    let message = match &source {
        rusqlite::Error::SqlInputError { msg, .. } => msg.as_str(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message,
        _ => "",
    };
    match (message.strip_prefix("no such table: "), database.tables()) {
        (Some(table), Ok(tables)) => {
            let tables = tables.into_iter().map(|table| table.name).collect();
            ClientCommandError::UnknownTable { number, table: table.to_owned(), tables }
        }
        _ => ClientCommandError::Query { number, source },
    }
}

/// Names as SQLite gives them to a view: `id`, `id:1`, …
fn distinct<'name>(names: impl IntoIterator<Item = &'name str>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        let numbered = (1..).map(|number| format!("{name}:{number}"));
        let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !distinct.contains(name));
        distinct.extend(free);
    }
    distinct
}

trait Printer {
    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()>;
    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()>;
}

/// An object per row, and one with their number.
struct JsonRows {
    number: usize,
    columns: Vec<String>,
    count: u64,
}

impl JsonRows {
    fn new(number: usize, columns: Vec<String>) -> Self {
        Self { number, columns, count: 0 }
    }
}

impl Printer for JsonRows {
    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
        self.count += 1;
        let value = |index| row.get_ref(index).map_or(Value::Null, json_value);
        let object: Map<_, _> =
            self.columns.iter().enumerate().map(|(index, column)| (column.clone(), value(index))).collect();
        writeln!(out, "{}", json!({ "event": "row", "query": self.number, "row": object }))
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Self { number, columns, count } = self;
        writeln!(out, "{}", json!({ "event": "rows", "query": number, "columns": columns, "count": count }))
    }
}

fn json_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => hex(bytes).into(),
    }
}

fn text_value(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        // A row is one line, and what a terminal obeys is not sent to it.
        ValueRef::Text(text) => String::from_utf8_lossy(text).chars().map(plain).collect(),
        ValueRef::Blob(bytes) => hex(bytes),
    }
}

fn plain(char: char) -> String {
    if char.is_control() { char.escape_default().to_string() } else { char.to_string() }
}

/// As SQL writes it.
fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{}'", digits.concat())
}

/// Columns below their names.
struct TextTable {
    columns: Vec<String>,
    widths: Vec<usize>,
    /// Rows that wait until widths are known.
    waiting: Vec<Vec<String>>,
    waiting_bytes: usize,
    is_measured: bool,
}

impl TextTable {
    fn new(columns: Vec<String>) -> Self {
        let widths = columns.iter().map(|column| column.chars().count()).collect();
        Self { columns, widths, waiting: Vec::new(), waiting_bytes: 0, is_measured: false }
    }

    fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_measured, true) {
            line(out, &self.columns, &self.widths)?;
            let rule: Vec<_> = self.widths.iter().map(|width| "-".repeat(*width)).collect();
            line(out, &rule, &self.widths)?;
        }
        self.waiting.drain(..).try_for_each(|row| line(out, &row, &self.widths))
    }
}

impl Printer for TextTable {
    fn row(&mut self, row: &Row<'_>, out: &mut dyn Write) -> io::Result<()> {
        let text = |index| row.get_ref(index).map_or_else(|error| error.to_string(), text_value);
        let values: Vec<_> = (0..self.columns.len()).map(text).collect();
        if !self.is_measured {
            for (width, value) in self.widths.iter_mut().zip(&values) {
                *width = (*width).max(value.chars().count().min(WIDTH_MAX));
            }
        }
        self.waiting_bytes += values.iter().map(String::len).sum::<usize>();
        self.waiting.push(values);
        let is_enough = self.waiting.len() == ROWS_MEASURED || self.waiting_bytes > BYTES_MEASURED;
        if self.is_measured || is_enough { self.flush(out) } else { Ok(()) }
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.flush(out)
    }
}

fn line(out: &mut dyn Write, values: &[String], widths: &[usize]) -> io::Result<()> {
    let cells: Vec<_> = values.iter().zip(widths).map(|(value, width)| format!("{value:<width$}")).collect();
    writeln!(out, "{}", cells.join("  ").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(sql: &str, mut printer: impl FnMut(Vec<String>) -> Box<dyn Printer>) -> String {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        let mut printer = printer(distinct(statement.column_names()));
        let (mut rows, mut out) = (statement.query([]).unwrap(), Vec::new());
        while let Some(row) = rows.next().unwrap() {
            printer.row(row, &mut out).unwrap();
        }
        printer.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn table(sql: &str) -> String {
        print(sql, |columns| Box::new(TextTable::new(columns)))
    }

    #[test]
    fn a_table_is_as_wide_as_its_values() {
        assert_eq!(
            table("SELECT 'a' AS id, 2.0 AS price, NULL AS note UNION ALL SELECT 'longer', 1, x'0aff'"),
            "id      price  note\n------  -----  -------\na       2.0    NULL\nlonger  1      x'0aff'\n"
        );
        assert_eq!(table("SELECT 1 AS n WHERE false"), "n\n-\n");
        assert_eq!(
            table("SELECT 'two' || char(10) || 'lines' || char(27) AS x"),
            "x\n----------------\ntwo\\nlines\\u{1b}\n"
        );
    }

    #[test]
    fn every_row_of_a_long_result_is_printed_once() {
        let sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1201) SELECT x FROM n";
        let text = table(sql);
        let numbers: Vec<usize> = text.lines().skip(2).map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers, (1..=1201).collect::<Vec<_>>());
    }

    #[test]
    fn json_rows_keep_types_and_columns_of_one_name() {
        let sql = "SELECT 1 AS id, '2' AS id, 3.5 AS \"id:1\", NULL AS n, 9007199254740993 AS big, 1e999 AS no";
        let text = print(sql, |columns| Box::new(JsonRows::new(7, columns)));
        let row = r#"{"event":"row","query":7,"row":{"id":1,"id:1":"2","id:1:1":3.5,"n":null,"big":9007199254740993,"no":null}}"#;
        assert_eq!(text.lines().next(), Some(row));
        assert!(text.ends_with("\"count\":1}\n"), "{text}");
    }
}
