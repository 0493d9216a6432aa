//! Types that are not built in, as the catalog describes them.
//!
//! Enums and types of extensions are text, so only what has parts, or stands for another type, is described. A type
//! that is too large, too deep or gone is text as well: its values arrive as printed.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use crate::postgres::{
    error::PgError,
    value::{Attribute, ColumnType},
};

/// Types looked up for one question. Schemas have dozens.
const TYPES_MAX: usize = 1_000;
/// How deep types may consist of others. Stored as JSON, of which readers accept 128 levels: three of them for each.
const DEPTH_MAX: usize = 24;
/// How many parts a type may have in all; row types of wide tables have hundreds.
const PARTS_MAX: usize = 1_000;

/// What a type is made of; others by object id.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Description {
    Domain { base: u32 },
    Composite { attributes: Vec<(String, u32)> },
    Array { element: u32, delimiter: char },
    Range { bound: u32 },
    Multirange { bound: u32 },
    Plain,
}

/// Types by object id.
#[derive(Debug, Clone, Default)]
pub struct TypeCatalog {
    descriptions: HashMap<u32, Description>,
}

impl TypeCatalog {
    /// Looks up the types with these object ids, and all they are made of. Asks nothing when all are built in.
    ///
    /// # Errors
    /// [`PgError`]. A type that is not there, or may not be looked at, is no error.
    pub async fn read(client: &Client, oids: impl IntoIterator<Item = u32>) -> Result<Self, PgError> {
        let mut catalog = Self::default();
        let mut wanted = catalog.unknown(oids);
        for _ in 0..DEPTH_MAX {
            if wanted.is_empty() {
                break;
            }
            let mut parts = Vec::new();
            let rows = match client.query(DESCRIBE, &[&wanted]).await.map_err(PgError::from) {
                Err(error) if is_refusal(&error) => {
                    tracing::warn!(code = error.code(), "values of some types will arrive as printed: {error}");
                    break;
                }
                rows => rows?,
            };
            for row in rows {
                let (oid, description) = describe(&row)?;
                parts.extend(description.parts());
                catalog.descriptions.insert(oid, description);
            }
            wanted = catalog.unknown(parts);
        }
        Ok(catalog)
    }

    /// Those that are to be looked up, without repetition and no more than may be.
    fn unknown(&self, oids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let is_unknown = |oid: &u32| !self.descriptions.contains_key(oid) && ColumnType::built_in(*oid).is_none();
        let mut unknown: Vec<_> = oids.into_iter().filter(is_unknown).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown.truncate(TYPES_MAX.saturating_sub(self.descriptions.len()));
        unknown
    }

    /// How text of a type is to be read.
    pub fn column_type(&self, oid: u32) -> ColumnType {
        ColumnType::built_in(oid).unwrap_or_else(|| {
            let mut parts_left = PARTS_MAX;
            match self.resolve(oid, DEPTH_MAX, &mut parts_left) {
                None | Some(ColumnType::Text) => ColumnType::Text,
                Some(read_as) => ColumnType::Own(Box::new(read_as)),
            }
        })
    }

    /// `None` for a type with too many parts, or too deep.
    fn resolve(&self, oid: u32, depth_left: usize, parts_left: &mut usize) -> Option<ColumnType> {
        *parts_left = parts_left.checked_sub(1)?;
        let depth_left = depth_left.checked_sub(1)?;
        if let Some(built_in) = ColumnType::built_in(oid) {
            return Some(built_in);
        }
        let mut part = |oid: u32| self.resolve(oid, depth_left, parts_left);
        Some(match self.descriptions.get(&oid) {
            None | Some(Description::Plain) => ColumnType::Text,
            Some(Description::Domain { base }) => part(*base)?,
            Some(Description::Array { element, delimiter }) => {
                ColumnType::Array { element: Box::new(part(*element)?), delimiter: *delimiter }
            }
            Some(Description::Range { bound }) => ColumnType::Range(Box::new(part(*bound)?)),
            Some(Description::Multirange { bound }) => ColumnType::Multirange(Box::new(part(*bound)?)),
            Some(Description::Composite { attributes }) => {
                let mut attribute =
                    |(name, oid): &(String, u32)| Some(Attribute { name: name.clone(), read_as: part(*oid)? });
                ColumnType::Composite(attributes.iter().map(&mut attribute).collect::<Option<_>>()?)
            }
        })
    }
}

impl Description {
    fn parts(&self) -> Vec<u32> {
        match self {
            Self::Plain => Vec::new(),
            Self::Domain { base: part }
            | Self::Array { element: part, .. }
            | Self::Range { bound: part }
            | Self::Multirange { bound: part } => vec![*part],
            Self::Composite { attributes } => attributes.iter().map(|(_, oid)| *oid).collect(),
        }
    }
}

/// Whether asking again would not help: the role may not read the catalog, or it is not as expected.
fn is_refusal(error: &PgError) -> bool {
    error.sqlstate().is_some_and(|code| code.starts_with("42"))
}

/// Elements of true arrays know their array type; other types with elements, such as vectors, print in a way of their
/// own.
const DESCRIBE: &str = "
    SELECT t.oid, t.typtype, t.typbasetype, e.oid, e.typdelim, coalesce(r.rngsubtype, m.rngsubtype),
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
           ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
      FROM pg_catalog.pg_type t
      LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
      LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
      LEFT JOIN pg_catalog.pg_range m ON m.rngmultitypid = t.oid
     WHERE t.oid = ANY ($1)";

fn describe(row: &Row) -> Result<(u32, Description), PgError> {
    let letter = |value: i8| char::from(value.cast_unsigned());
    let bound: Option<u32> = row.try_get(5)?;
    let description = match (letter(row.try_get(1)?), bound) {
        ('d', _) => Description::Domain { base: row.try_get(2)? },
        ('r', Some(bound)) => Description::Range { bound },
        ('m', Some(bound)) => Description::Multirange { bound },
        ('c', _) => {
            let (names, oids): (Vec<String>, Vec<u32>) = (row.try_get(6)?, row.try_get(7)?);
            Description::Composite { attributes: names.into_iter().zip(oids).collect() }
        }
        _ => match row.try_get::<_, Option<u32>>(3)? {
            Some(element) => Description::Array { element, delimiter: letter(row.try_get(4)?) },
            None => Description::Plain,
        },
    };
    Ok((row.try_get(0)?, description))
}

#[cfg(test)]
mod tests {
    use tokio_postgres::types::Type;

    use super::*;

    const INT4: u32 = 23;

    fn catalog(descriptions: impl IntoIterator<Item = (u32, Description)>) -> TypeCatalog {
        TypeCatalog { descriptions: descriptions.into_iter().collect() }
    }

    #[test]
    fn what_is_built_in_needs_no_catalog() {
        let catalog = TypeCatalog::default();
        assert_eq!(catalog.column_type(INT4), ColumnType::Integer);
        assert_eq!(Some(catalog.column_type(Type::BOX_ARRAY.oid())), ColumnType::built_in(Type::BOX_ARRAY.oid()));
        assert_eq!(catalog.column_type(99_999), ColumnType::Text, "a type nobody knows");
    }

    #[test]
    fn domains_are_read_as_what_they_stand_for() {
        let catalog = catalog([
            (100_001, Description::Domain { base: 100_002 }),
            (100_002, Description::Domain { base: INT4 }),
            (100_003, Description::Domain { base: 100_004 }),
            (100_004, Description::Plain),
        ]);
        assert_eq!(catalog.column_type(100_001), ColumnType::Own(Box::new(ColumnType::Integer)));
        assert_eq!(catalog.column_type(100_003), ColumnType::Text, "an enum is text either way");
    }

    #[test]
    fn arrays_have_the_separator_of_their_type() {
        let catalog = catalog([
            (100_001, Description::Array { element: 100_002, delimiter: ':' }),
            (100_002, Description::Plain),
        ]);
        let array = ColumnType::Array { element: Box::new(ColumnType::Text), delimiter: ':' };
        assert_eq!(catalog.column_type(100_001), ColumnType::Own(Box::new(array)));
    }

    #[test]
    fn types_without_end_are_text() {
        let endless = catalog([(100_001, Description::Array { element: 100_001, delimiter: ',' })]);
        assert_eq!(endless.column_type(100_001), ColumnType::Text);
        let twice = |part: u32| Description::Composite { attributes: vec![("a".into(), part), ("b".into(), part)] };
        let wide = catalog((100_000..100_015).map(|oid| (oid, twice(oid + 1))));
        assert_eq!(wide.column_type(100_000), ColumnType::Text, "32,768 parts");
        assert_ne!(wide.column_type(100_010), ColumnType::Text, "32 parts");
    }

    #[test]
    fn the_deepest_type_can_be_stored_and_read_again() {
        let nested = |oid: u32| Description::Composite { attributes: vec![("a".to_owned(), oid + 1)] };
        let deep = catalog((100_000..100_100).map(|oid| (oid, nested(oid))));
        let depth = u32::try_from(DEPTH_MAX).expect("small");
        let deepest = catalog((100_000..100_000 + depth - 1).map(|oid| (oid, nested(oid))));
        assert_eq!(deep.column_type(100_000), ColumnType::Text);
        let deepest = deepest.column_type(100_000);
        assert_ne!(deepest, ColumnType::Text);
        // The state of replication puts columns seven levels down.
        let stored = serde_json::to_string(&deepest).expect("serialises");
        assert_eq!(serde_json::from_str::<ColumnType>(&stored).expect("reads"), deepest);
        // The state of replication puts columns seven levels down.
        let state: Result<serde_json::Value, _> = serde_json::from_str(&format!("[[[[[[[{stored}]]]]]]]"));
        assert!(state.is_ok(), "{state:?}");
    }
}
