//! The text of statements. Names are quoted, values are always parameters; `$1` is the row's id.

use super::{
    catalog::{Column, Table},
    value::Kind,
};

/// Reads a row and locks it, so that what was checked is what is written.
pub(super) fn select(table: &Table, key: usize) -> String {
    format!("SELECT {} FROM {} WHERE {} = $1 FOR UPDATE", as_text(table), qualified(table), column(table, key))
}

/// Inserts a row of the key and `columns`.
pub(super) fn insert(table: &Table, key: usize, columns: &[usize]) -> String {
    let names = std::iter::once(&key).chain(columns).map(|&position| column(table, position));
    let parameters = (0..=columns.len()).map(|index| format!("${}", index + 1));
    format!(
        "INSERT INTO {} ({}) VALUES ({}) RETURNING {}",
        qualified(table),
        names.collect::<Vec<_>>().join(", "),
        parameters.collect::<Vec<_>>().join(", "),
        as_text(table)
    )
}

/// Updates `columns`, of which there must be some.
pub(super) fn update(table: &Table, key: usize, columns: &[usize]) -> String {
    let assignments =
        columns.iter().enumerate().map(|(index, &position)| format!("{} = ${}", column(table, position), index + 2));
    format!(
        "UPDATE {} SET {} WHERE {} = $1 RETURNING {}",
        qualified(table),
        assignments.collect::<Vec<_>>().join(", "),
        column(table, key),
        as_text(table)
    )
}

/// Deletes the row.
pub(super) fn delete(table: &Table, key: usize) -> String {
    format!("DELETE FROM {} WHERE {} = $1", qualified(table), column(table, key))
}

/// How a compared column is printed, and what Postgres calculates of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    /// Text of a time, cut to this unit of `date_trunc`.
    Cut(&'static str),
    /// As JSON, whatever array it is.
    Json,
    /// Text; calculated: what is stored, and what the device added to what it saw.
    Sum,
    /// Text; calculated: the next whole number.
    Next,
}

/// Columns of a row as four arrays of text: stored, seen by the device, wanted by the device, calculated. Parameters of
/// each column are what was seen, and what is wanted.
pub(super) fn compare(table: &Table, key: usize, columns: &[(usize, Form)]) -> String {
    let mut arrays: [Vec<String>; 4] = Default::default();
    for (index, &(position, form)) in columns.iter().enumerate() {
        let (stored, type_name) = (column(table, position), &table.columns[position].type_name);
        let [seen, wanted] = [2, 3].map(|offset| format!("${}::{type_name}", 2 * index + offset));
        let print = |value: &str| match (form, table.columns[position].kind) {
            (Form::Json, Kind::Array | Kind::Json) => format!("to_jsonb({value})::text"),
            // Text that holds JSON.
            (Form::Json, _) => format!("({value})::text::jsonb::text"),
            (Form::Cut(unit), _) => format!("date_trunc('{unit}', {value})::text"),
            (Form::Text | Form::Sum | Form::Next, _) => format!("({value})::text"),
        };
        for (array, value) in arrays.iter_mut().zip([&stored, &seen, &wanted]) {
            array.push(print(value));
        }
        arrays[3].push(match form {
            Form::Text | Form::Cut(_) | Form::Json => "NULL".to_owned(),
            Form::Sum => format!("(coalesce({stored}, 0) + (coalesce({wanted}, 0) - coalesce({seen}, 0)))::text"),
            Form::Next => format!("(coalesce({stored}, 0) + 1)::text"),
        });
    }
    let arrays = arrays.map(|array| format!("ARRAY[{}]::text[]", array.join(", "))).join(", ");
    format!("SELECT {arrays} FROM {} WHERE {} = $1", qualified(table), column(table, key))
}

/// How far the clock of a device may be ahead. Chosen by the design (ruling X4): a clock ahead cannot win for ever.
const CLOCK_TOLERANCE: &str = "interval '60 seconds'";

/// The moment a value stands for.
fn moment(table: &Table, position: usize, value: &str) -> String {
    match table.columns[position].kind {
        Kind::Integer => format!("to_timestamp(({value})::double precision / 1000)"),
        _ => format!("({value})::text::timestamptz"),
    }
}

/// The device's time of a write as it counts: not later than the server's by more than the tolerance, and the server's
/// where the device has none. `$1` is not used.
pub(super) fn clamp(table: &Table, position: usize) -> String {
    let Column { kind, type_name, .. } = &table.columns[position];
    let sent = format!("$2::{type_name}");
    let print = |moment: &str| match kind {
        Kind::Integer => format!("(extract(epoch FROM {moment}) * 1000)::bigint::text"),
        Kind::TimestampTz => format!("({moment})::text"),
        _ => format!("to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"),
    };
    let latest = format!("(now() + {CLOCK_TOLERANCE})");
    format!(
        "SELECT CASE WHEN {sent} IS NULL THEN {} WHEN {} > {latest} THEN {} ELSE ({sent})::text END
         WHERE $1::text IS NOT NULL",
        print("now()"),
        moment(table, position, &sent),
        print(&latest),
    )
}

/// Whether the stored row is of a later time than the write.
pub(super) fn is_later(table: &Table, key: usize, position: usize) -> String {
    let stored = moment(table, position, &column(table, position));
    let sent = moment(table, position, &format!("$2::{}", table.columns[position].type_name));
    format!(
        "SELECT coalesce({stored} > {sent}, false)::text FROM {} WHERE {} = $1",
        qualified(table),
        column(table, key)
    )
}

fn as_text(table: &Table) -> String {
    table.columns.iter().map(|column| format!("{}::text", quoted(&column.name))).collect::<Vec<_>>().join(", ")
}

fn qualified(table: &Table) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

fn column(table: &Table, position: usize) -> String {
    quoted(&table.columns[position].name)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |name: &str| Column {
            name: name.to_owned(),
            kind: Kind::Other,
            type_name: "text".to_owned(),
            generated: false,
        };
        let columns = vec![column("id"), column("we\"ird"), column("b")];
        Table { schema: "public".to_owned(), name: "t\"; DROP".to_owned(), columns, key: Some(0) }
    }

    #[test]
    fn names_are_quoted_and_values_are_parameters() {
        let all = r#""id"::text, "we""ird"::text, "b"::text"#;
        let name = r#""public"."t""; DROP""#;
        assert_eq!(select(&table(), 0), format!(r#"SELECT {all} FROM {name} WHERE "id" = $1 FOR UPDATE"#));
        assert_eq!(
            insert(&table(), 0, &[1, 2]),
            format!(r#"INSERT INTO {name} ("id", "we""ird", "b") VALUES ($1, $2, $3) RETURNING {all}"#)
        );
        assert_eq!(update(&table(), 0, &[2]), format!(r#"UPDATE {name} SET "b" = $2 WHERE "id" = $1 RETURNING {all}"#));
        assert_eq!(delete(&table(), 0), format!(r#"DELETE FROM {name} WHERE "id" = $1"#));
    }
}
