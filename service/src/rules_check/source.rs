//! What the source database has, as far as findings depend on it.

use std::{collections::BTreeSet, future::Future, time::Duration};

use kairos_sync_rules::{SchemaTable, SourceSchema, TablePattern};
use tokio::time::timeout;
use tokio_postgres::{Client, Row};

use crate::postgres::{
    PgError, SourceConfig,
    catalog::{Table, unpublished_tables},
    preflight::{CONNECTION_TAG, Inspection, SetupProblem, inspect, inspect_table, source_table},
    walsender::quote_identifier,
};

/// For one look at the catalog; even hundred thousands of tables take seconds only.
const CATALOG_DEADLINE: Duration = Duration::from_mins(1);

/// All relations that rules could name.
pub(super) struct Source {
    pub(super) relations: Vec<Relation>,
    pub(super) server_version: u32,
}

/// Something with rows.
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: RelationKind,
    /// The partitioned table it is a part of, at the top.
    pub(super) partition_root: Option<u32>,
    /// Whether the session's role may use the schema at all.
    may_use_schema: bool,
    /// In the order of the table.
    columns: Vec<String>,
    pub(super) generated_columns: Vec<String>,
}

/// Kinds of relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelationKind {
    Table,
    Partitioned,
    Unlogged,
    View,
    MaterializedView,
    Foreign,
}

impl RelationKind {
    /// Whether a publication can have it.
    pub(super) const fn is_publishable(self) -> bool {
        matches!(self, Self::Table | Self::Partitioned)
    }
}

/// How the source is set up for the tables of the rules.
pub(super) struct Setup {
    /// What the service will find when it starts, and what it would find once all tables are published. Only tables
    /// which are published already are in its list.
    pub(super) inspection: Inspection,
    /// Whether changes of partitions come under the name of the root.
    pub(super) publishes_via_root: bool,
    /// Object ids of all published tables.
    pub(super) published: BTreeSet<u32>,
}

impl Source {
    /// Lists the relations of all schemas but the system's.
    pub(super) async fn read(client: &Client) -> Result<Self, PgError> {
        let sql = "
            SELECT c.oid, n.nspname::text, c.relname::text, c.relkind, c.relpersistence = 'u',
                   CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid END,
                   has_schema_privilege(n.oid, 'USAGE'),
                   array(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
                   array(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '')
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
             ORDER BY 2, 3";
        let rows = within_deadline(client.query(sql, &[])).await?;
        let relations = rows.iter().map(Relation::read).collect::<Result<_, _>>()?;
        let version = "SELECT current_setting('server_version_num')::bigint";
        let version: i64 = within_deadline(client.query_one(version, &[])).await?.try_get(0)?;
        Ok(Self { relations, server_version: u32::try_from(version).unwrap_or(u32::MAX) })
    }

    /// The tables as the compiler takes them.
    pub(super) fn schema(&self) -> SourceSchema {
        let table = |relation: &Relation| SchemaTable {
            connection: CONNECTION_TAG.to_owned(),
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            columns: relation.columns.clone(),
        };
        SourceSchema { tables: self.relations.iter().map(table).collect() }
    }

    /// The relations a pattern names.
    pub(super) fn named_by<'s>(&'s self, pattern: &'s TablePattern) -> impl Iterator<Item = &'s Relation> {
        self.relations.iter().filter(move |relation| relation.is_named_by(pattern))
    }

    /// Looks at the setup as the service will, and at tables that are still to be published.
    pub(super) async fn inspect(
        &self,
        client: &Client,
        config: &SourceConfig,
        patterns: &[TablePattern],
    ) -> Result<Setup, PgError> {
        let mut inspection = within_deadline(inspect(client, config, patterns, None)).await?;
        let sql = "
            SELECT coalesce((SELECT bool_or(pubviaroot) FROM pg_catalog.pg_publication WHERE pubname = ANY ($1)), false),
                   array(SELECT c.oid FROM pg_catalog.pg_publication_tables t
                           JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
                           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
                          WHERE t.pubname = ANY ($1))";
        let row = within_deadline(client.query_one(sql, &[&inspection.publications])).await?;
        let (publishes_via_root, published): (_, Vec<u32>) = (row.try_get(0)?, row.try_get(1)?);
        let published = BTreeSet::from_iter(published);
        let role = quote_identifier(&config.user);
        for table in self.still_to_publish(client, patterns, &inspection.tables).await? {
            inspect_table(&table, &role, &mut inspection.problems);
        }
        self.inspect_schemas(&role, patterns, &mut inspection);
        Ok(Setup { inspection, publishes_via_root, published })
    }

    /// Tables which the rules name one by one, which could be published and are not.
    async fn still_to_publish(
        &self,
        client: &Client,
        patterns: &[TablePattern],
        inspected: &[Table],
    ) -> Result<Vec<Table>, PgError> {
        let exact = patterns.iter().filter(|pattern| !pattern.is_wildcard());
        let named = exact.flat_map(|pattern| self.named_by(pattern));
        let missing = named.filter(|relation| {
            relation.kind.is_publishable() && inspected.iter().all(|table| table.oid != relation.oid)
        });
        let oids: Vec<u32> = missing.map(|relation| relation.oid).collect();
        within_deadline(unpublished_tables(client, self.server_version, &oids)).await
    }

    /// A role may have SELECT on a table in a schema it may not enter.
    fn inspect_schemas(&self, role: &str, patterns: &[TablePattern], inspection: &mut Inspection) {
        let exact = patterns.iter().filter(|pattern| !pattern.is_wildcard());
        for relation in exact.flat_map(|pattern| self.named_by(pattern)) {
            let name = relation.sql_name();
            let is_known = inspection
                .problems
                .iter()
                .any(|problem| matches!(problem, SetupProblem::SelectPrivilege { table, .. } if *table == name));
            if !relation.may_use_schema && relation.kind.is_publishable() && !is_known {
                let schema = quote_identifier(&relation.schema);
                inspection.problems.push(SetupProblem::SelectPrivilege { role: role.to_owned(), table: name, schema });
            }
        }
    }
}

impl Relation {
    fn read(row: &Row) -> Result<Self, PgError> {
        let kind = match row.try_get::<_, i8>(3)?.cast_unsigned() {
            b'p' => RelationKind::Partitioned,
            b'v' => RelationKind::View,
            b'm' => RelationKind::MaterializedView,
            b'f' => RelationKind::Foreign,
            _ if row.try_get(4)? => RelationKind::Unlogged,
            _ => RelationKind::Table,
        };
        Ok(Self {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            kind,
            partition_root: row.try_get(5)?,
            may_use_schema: row.try_get(6)?,
            columns: row.try_get(7)?,
            generated_columns: row.try_get(8)?,
        })
    }

    /// Whether a pattern names the relation.
    pub(super) fn is_named_by(&self, pattern: &TablePattern) -> bool {
        pattern.matches(&source_table(&self.schema, &self.name))
    }

    /// Schema and name, quoted for SQL.
    pub(super) fn sql_name(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }

    /// Columns that `published`, the same table, does not have.
    pub(super) fn hides<'r>(&'r self, published: &'r Table) -> impl Iterator<Item = &'r str> {
        let is_hidden = |name: &&String| published.columns.iter().all(|column| column.name != **name);
        self.columns.iter().filter(is_hidden).map(String::as_str)
    }
}

async fn within_deadline<T, E>(question: impl Future<Output = Result<T, E>>) -> Result<T, PgError>
where
    PgError: From<E>,
{
    let answer = timeout(CATALOG_DEADLINE, question).await;
    Ok(answer.map_err(|_| PgError::Timeout { doing: "reading the catalog", after: CATALOG_DEADLINE })??)
}
