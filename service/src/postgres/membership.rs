//! What makes a table part of publications, and what several of them together say of it: as Postgres merges them when
//! it streams them all.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::postgres::{catalog::Table, error::PgError};

/// What one publication says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its name.
    pub publication: String,
    /// Its condition on the table's rows, in SQL.
    pub row_filter: Option<String>,
    /// The columns it has, where the server tells.
    pub columns: Option<Vec<String>>,
    /// Whether it names the table itself, and does not just have all tables, all of a schema, or partitions of one.
    pub is_by_name: bool,
}

impl Listing {
    /// Whether it has a column.
    pub fn has(&self, column: &str) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.iter().any(|listed| listed == column))
    }

    /// Takes a column out that it names and yet does not publish.
    pub(super) fn remove(&mut self, column: &str) {
        if let Some(columns) = &mut self.columns {
            columns.retain(|listed| listed != column);
        }
    }

    fn column_set(&self) -> Option<BTreeSet<&String>> {
        self.columns.as_ref().map(|columns| columns.iter().collect())
    }
}

/// The listing to give up where publications have different columns of a table, which Postgres does not stream: of those
/// that name the table the one with most columns, so that no further column leaves the database. The other value is one
/// that disagrees with it.
pub fn disagreement(listings: &[Listing]) -> Option<(&Listing, &Listing)> {
    let most = listings.iter().max_by_key(|listing| (listing.is_by_name, listing.columns.as_ref().map(Vec::len)))?;
    let other = listings.iter().find(|listing| listing.column_set() != most.column_set())?;
    Some((most, other))
}

/// A row counts if one of the publications has it.
fn any_of(listings: &[Listing]) -> Option<String> {
    let filters: Option<BTreeSet<&str>> = listings.iter().map(|listing| listing.row_filter.as_deref()).collect();
    let filters: Vec<_> = filters?.into_iter().collect();
    match filters[..] {
        [] => None,
        [one] => Some(one.to_owned()),
        _ => Some(filters.iter().map(|filter| format!("({filter})")).collect::<Vec<_>>().join(" OR ")),
    }
}

/// A part of a table that is published as one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its object id.
    pub oid: u32,
    /// The transaction that attached it.
    pub attached_by: u32,
    /// The file its rows are in, zero where it has partitions itself. TRUNCATE gives it another one, and so does what
    /// rewrites it; the stream tells neither.
    pub filenode: u32,
}

/// How a table belongs to the publications.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// The tables it is a partition of, at any level.
    ancestors: Vec<u32>,
    /// The catalog's rows that make it part of the publications, each with the transaction that wrote it. So one that
    /// left and came back is not taken for one that was there all the time.
    pub(super) published_by: String,
    pub(super) partitions: Vec<Partition>,
}

/// Looks the membership of listed tables up, by object id. Takes no locks on them.
pub(super) async fn membership(
    client: &Client,
    publications: &[String],
    server_version: u32,
    tables: &[Table],
) -> Result<HashMap<u32, Membership>, PgError> {
    // Schemas can be published since version 15.
    let schemas = if server_version >= 150_000 {
        "UNION ALL SELECT 's', s.oid, s.xmin FROM pg_catalog.pg_publication_namespace s
          WHERE s.pnpubid IN (SELECT oid FROM publication) AND s.pnnspid IN (
                SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = t.oid OR oid = ANY (t.ancestors))"
    } else {
        ""
    };
    let sql = format!(
        "WITH publication AS (SELECT p.oid, p.xmin FROM pg_catalog.pg_publication p WHERE p.pubname = ANY ($2)),
              published AS (
                SELECT oid, array(SELECT relid::oid FROM pg_partition_ancestors(oid::regclass) a(relid) WHERE relid <> oid)
                       AS ancestors
                  FROM unnest($1::oid[]) o(oid))
         SELECT t.oid, t.ancestors, (
                SELECT string_agg(concat(e.kind, e.oid, '/', e.xmin), ' ' ORDER BY e.kind, e.oid) FROM (
                       SELECT 'p' AS kind, oid, xmin FROM publication
                       UNION ALL SELECT 't', r.oid, r.xmin FROM pg_catalog.pg_publication_rel r
                        WHERE r.prpubid IN (SELECT oid FROM publication)
                          AND (r.prrelid = t.oid OR r.prrelid = ANY (t.ancestors))
                       UNION ALL SELECT 'i', i.inhparent, i.xmin FROM pg_catalog.pg_inherits i
                        WHERE (i.inhrelid = t.oid OR i.inhrelid = ANY (t.ancestors)) AND i.inhparent = ANY (t.ancestors)
                       {schemas}) e)
           FROM published t"
    );
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let mut found = HashMap::with_capacity(tables.len());
    for row in client.query(&sql, &[&oids, &publications]).await? {
        let published_by = row.try_get::<_, Option<String>>(2)?.unwrap_or_default();
        let membership = Membership { ancestors: row.try_get(1)?, published_by, partitions: Vec::new() };
        found.insert(row.try_get(0)?, membership);
    }
    let sql = "
        WITH RECURSIVE tree (root, oid, attached_by) AS (
             SELECT i.inhparent, i.inhrelid, i.xmin::text::bigint FROM pg_catalog.pg_inherits i WHERE i.inhparent = ANY ($1)
             UNION ALL
             SELECT tree.root, i.inhrelid, i.xmin::text::bigint FROM tree
               JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
        SELECT root, oid, attached_by, coalesce(pg_relation_filenode(oid), 0)::bigint FROM tree ORDER BY 1, 2";
    let roots: Vec<u32> = tables.iter().filter(|table| table.is_partitioned).map(|table| table.oid).collect();
    for row in client.query(sql, &[&roots]).await? {
        let partition = Partition {
            oid: row.try_get(1)?,
            attached_by: u32::try_from(row.try_get::<_, i64>(2)?).unwrap_or_default(),
            filenode: u32::try_from(row.try_get::<_, i64>(3)?).unwrap_or_default(),
        };
        if let Some(membership) = found.get_mut(&row.try_get(0)?) {
            membership.partitions.push(partition);
        }
    }
    Ok(found)
}

/// The tables as the stream has them: filters joined, and partitions left out that are published as their root.
pub(super) fn as_streamed(tables: Vec<Table>, memberships: &HashMap<u32, Membership>) -> Vec<Table> {
    let listed: BTreeSet<u32> = tables.iter().map(|table| table.oid).collect();
    let ancestors = |table: &Table| memberships.get(&table.oid).map_or(&[][..], |found| &found.ancestors);
    let (parts, mut wholes): (Vec<_>, Vec<_>) =
        tables.into_iter().partition(|table| ancestors(table).iter().any(|ancestor| listed.contains(ancestor)));
    for table in &mut wholes {
        table.row_filter = any_of(&table.listings);
        let parts = parts.iter().filter(|part| ancestors(part).contains(&table.oid));
        let publications = parts.flat_map(|part| &part.listings).map(|listing| &listing.publication);
        table.published_apart_by = publications
            .filter(|name| table.listings.iter().all(|listing| listing.publication != **name))
            .min()
            .cloned();
    }
    wholes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(publication: &str, row_filter: Option<&str>, columns: &[&str], is_by_name: bool) -> Listing {
        Listing {
            publication: publication.to_owned(),
            row_filter: row_filter.map(str::to_owned),
            columns: Some(columns.iter().map(|name| (*name).to_owned()).collect()),
            is_by_name,
        }
    }

    fn filters(filters: &[Option<&str>]) -> Option<String> {
        any_of(&filters.iter().map(|filter| listing("p", *filter, &[], true)).collect::<Vec<_>>())
    }

    #[test]
    fn a_row_that_one_publication_has_is_published() {
        assert_eq!(filters(&[]), None);
        assert_eq!(filters(&[Some("a > 1")]).as_deref(), Some("a > 1"));
        assert_eq!(filters(&[Some("a > 1"), Some("b"), Some("a > 1")]).as_deref(), Some("(a > 1) OR (b)"));
        assert_eq!(filters(&[Some("a > 1"), None]), None);
    }

    #[test]
    fn of_publications_that_disagree_one_gives_way() {
        let all = listing("all", None, &["id", "title", "secret"], false);
        let wide = listing("wide", None, &["secret", "id"], true);
        let narrow = listing("narrow", None, &["id"], true);
        let name = |listings: &[Listing]| disagreement(listings).map(|(gives_way, _)| gives_way.publication.clone());
        assert_eq!(name(&[narrow.clone(), wide.clone()]).as_deref(), Some("wide"));
        assert_eq!(name(&[narrow.clone(), all]).as_deref(), Some("narrow"), "only a named table can be dropped");
        assert_eq!(name(&[wide.clone(), listing("same", None, &["id", "secret"], true)]), None);
        assert_eq!(name(&[narrow]), None);
    }
}
