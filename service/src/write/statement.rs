//! The text of statements. Names are quoted, values are always parameters; `$1` is the row's id.

use super::catalog::Table;

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
    use crate::write::{catalog::Column, value::Kind};

    fn table() -> Table {
        let column = |name: &str| Column { name: name.to_owned(), kind: Kind::Other, generated: false };
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
