//! Where a rules file speaks of tables, columns and definitions, so that a finding made elsewhere, for example in the
//! database, can point at the line it is about.

use std::collections::BTreeMap;

use crate::{diagnostic::Span, plan::TablePattern};

/// The places of a rules file. There are tables only if it was compiled with a schema of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The bucket definitions, then the streams, each in the order of the file.
    pub definitions: Vec<DefinitionPlace>,
    /// The tables that queries read.
    pub tables: BTreeMap<TablePattern, TablePlace>,
}

/// A bucket definition or stream in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionPlace {
    /// Its name.
    pub name: String,
    /// Where its name stands.
    pub span: Span,
    /// Whether it says `accept_potentially_dangerous_queries: true`.
    pub accepts_dangerous: bool,
}

/// A table in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePlace {
    /// Where it is named first.
    pub span: Span,
    /// The columns that are read by name, and where first. `*` is not among them.
    pub columns: BTreeMap<String, Span>,
}

impl Places {
    /// Notes a table, or a column of it; the first place counts. Finding a place costs time, so `span` is asked only
    /// for what is new.
    pub(crate) fn note(&mut self, table: TablePattern, column: Option<String>, span: impl Fn() -> Span) {
        let table = self.tables.entry(table).or_insert_with(|| TablePlace { span: span(), columns: BTreeMap::new() });
        if let Some(column) = column {
            table.columns.entry(column).or_insert_with(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{CompileOptions, Compiled, SchemaTable, SourceSchema, compile, compile_with};

    use super::*;

    const CLASSIC: &str = "
bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS user
    data:
      - SELECT id, title FROM items WHERE owner = bucket.user
      - SELECT * FROM items WHERE lender = bucket.user
";

    /// With a source that has one table.
    fn compiled(yaml: &str, columns: &[&str]) -> Compiled {
        let table = SchemaTable {
            connection: "default".to_owned(),
            schema: "public".to_owned(),
            name: "items".to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        };
        let schema = SourceSchema { tables: vec![table] };
        compile_with(yaml, &CompileOptions { default_schema: "public", schema: Some(&schema) })
    }

    /// The text from a place to the end of the word.
    fn word(yaml: &str, span: Span) -> &str {
        let rest = &yaml.lines().nth(span.line - 1).unwrap()[span.column - 1..];
        rest.split(|char: char| !char.is_alphanumeric()).next().unwrap()
    }

    #[test]
    fn a_table_and_its_columns_are_where_they_are_named_first() {
        let places = compiled(CLASSIC, &["id", "title", "owner", "lender", "hidden"]).places;
        assert_eq!(places.definitions.len(), 1);
        assert_eq!(word(CLASSIC, places.definitions[0].span), "mine");
        let (pattern, table) = places.tables.first_key_value().unwrap();
        assert_eq!((pattern.name.as_str(), table.span), ("items", Span { line: 6, column: 31 }));
        let columns: Vec<_> = table.columns.keys().map(String::as_str).collect();
        assert_eq!(columns, ["id", "lender", "owner", "title"], "`*` names no column");
        assert!(table.columns.iter().all(|(column, span)| word(CLASSIC, *span) == column));
    }

    #[test]
    fn without_a_schema_there_are_definitions_only() {
        let places = compile(CLASSIC, "public").places;
        assert_eq!((places.definitions.len(), places.tables.len()), (1, 0));
    }

    #[test]
    fn names_of_the_kairos_dialect_have_places_of_their_own() {
        let yaml = "
bucket_definitions:
  mine:
    parameters: [{ name: user_id, type: string }]
    data:
      - filter: \"owner = :user_id\"
        table: items
        columns: [id, titel]
";
        let compiled = compiled(yaml, &["id", "title", "owner"]);
        let table = compiled.places.tables.first_key_value().unwrap().1;
        assert_eq!(word(yaml, table.span), "items");
        assert!(table.columns.iter().all(|(column, span)| word(yaml, *span) == column), "{table:?}");
        let codes: Vec<_> = compiled.diagnostics.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, ["column_not_found"]);
        assert_eq!(word(yaml, compiled.diagnostics[0].span.unwrap()), "titel");
    }
}
