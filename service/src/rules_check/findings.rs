//! What the database says about a rules file, as findings at the places of the file. Pure.

use kairos_sync_rules::{Diagnostic, Places, Severity, Span, TablePattern, TablePlace};

use super::source::{Relation, RelationKind, Setup, Source};
use crate::postgres::{catalog::Table, preflight::SetupProblem, walsender::quote_identifier};

/// Everything found about the source, in the order of the tables' names.
pub(super) fn of_database(source: &Source, setup: &Setup, places: &Places) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    // Tables whose publication is not only missing: publishing them would fail, or not help.
    let mut explained = Vec::new();
    for (pattern, place) in &places.tables {
        let relations: Vec<_> = source.named_by(pattern).collect();
        if relations.is_empty() {
            explained.push(sql_name(pattern));
        }
        for relation in relations {
            if let Some(finding) = unpublishable(relation, source, setup).filter(|_| !pattern.is_wildcard()) {
                explained.push(relation.sql_name());
                found.push(at(place.span, finding));
            }
            if let Some(table) = setup.inspection.tables.iter().find(|table| table.oid == relation.oid) {
                hidden_parts(relation, table, place, &mut found);
            }
        }
    }
    for problem in &setup.inspection.problems {
        let is_explained =
            matches!(problem, SetupProblem::TableNotPublished { table, .. } if explained.contains(table));
        if !is_explained {
            found.push(of_setup(problem, source, places));
        }
    }
    found
}

/// A finding before it has its place: code, message, help.
type Finding = (&'static str, String, String);

fn at(span: Span, (code, message, help): Finding) -> Diagnostic {
    Diagnostic { code, severity: Severity::Warning, message, help: Some(help), span: Some(span) }
}

fn sql_name(pattern: &TablePattern) -> String {
    format!("{}.{}", quote_identifier(&pattern.schema), quote_identifier(&pattern.name))
}

/// Why rows of a relation never come, other than that nobody published it.
fn unpublishable(relation: &Relation, source: &Source, setup: &Setup) -> Option<Finding> {
    let name = relation.sql_name();
    let publication = quote_identifier(setup.inspection.publications.first().map_or("", String::as_str));
    let finding = match relation.kind {
        RelationKind::View | RelationKind::MaterializedView => {
            let message = format!("{name} is a view; changes come from tables only");
            ("view_not_replicated", message, "read the tables it is made of".to_owned())
        }
        RelationKind::Foreign => {
            let message = format!("{name} is a foreign table; its changes are known where its rows are");
            ("foreign_table_not_replicated", message, "sync from the server that has the rows".to_owned())
        }
        RelationKind::Unlogged => {
            let message = format!("{name} is unlogged; its changes are not in the WAL");
            ("unlogged_table_not_replicated", message, format!("run `ALTER TABLE {name} SET LOGGED;`"))
        }
        RelationKind::Partitioned => {
            let is_published_in_parts = || {
                let mut parts = source.relations.iter().filter(|part| part.partition_root == Some(relation.oid));
                parts.any(|part| setup.published.contains(&part.oid))
            };
            if setup.publishes_via_root || setup.published.contains(&relation.oid) || !is_published_in_parts() {
                return None;
            }
            let message = format!("changes of {name} come under the names of its partitions");
            let sql = format!("ALTER PUBLICATION {publication} SET (publish_via_partition_root = true);");
            ("partitions_published_apart", message, format!("run `{sql}`"))
        }
        RelationKind::Table => {
            let root = relation.partition_root.filter(|root| setup.published.contains(root))?;
            let root = source.relations.iter().find(|relation| relation.oid == root)?;
            let root = root.sql_name();
            let message = format!("{name} is a partition, and its changes come under the name of {root}");
            let sql = format!("ALTER PUBLICATION {publication} SET (publish_via_partition_root = false);");
            ("partition_published_as_root", message, format!("read {root} instead, or run `{sql}`"))
        }
    };
    Some(finding)
}

/// Rows and columns that the publication keeps back from the rules.
fn hidden_parts(relation: &Relation, table: &Table, place: &TablePlace, found: &mut Vec<Diagnostic>) {
    let name = relation.sql_name();
    let publication = quote_identifier(table.listings.first().map_or("", |listing| &listing.publication));
    let publish_whole = format!(
        "if clients should have them, run `ALTER PUBLICATION {publication} DROP TABLE {name}; ALTER PUBLICATION \
         {publication} ADD TABLE {name};`"
    );
    if table.row_filter.is_some() {
        let message = format!("publication {publication} has a condition that keeps rows of {name} back");
        found.push(at(place.span, ("rows_not_published", message, publish_whole.clone())));
    }
    for column in relation.hides(table) {
        let Some(span) = place.columns.get(column) else { continue };
        let column_name = quote_identifier(column);
        let finding = if relation.generated_columns.iter().any(|generated| generated == column) {
            let message = format!("the column {column_name} of {name} is generated, and Postgres does not publish it");
            let help = "read the columns it is computed from, or let a trigger fill an ordinary column";
            ("column_not_published", message, help.to_owned())
        } else {
            let message = format!("publication {publication} keeps the column {column_name} of {name} back");
            ("column_not_published", message, publish_whole.clone())
        };
        found.push(at(*span, finding));
    }
}

/// A problem that would meet the service at its start.
fn of_setup(problem: &SetupProblem, source: &Source, places: &Places) -> Diagnostic {
    let table = match problem {
        SetupProblem::TableNotPublished { table, .. }
        | SetupProblem::SelectPrivilege { table, .. }
        | SetupProblem::RowSecurity { table, .. }
        | SetupProblem::ColumnsDiffer { table, .. }
        | SetupProblem::PartitionsApart { table, .. }
        | SetupProblem::EqualRows { table }
        | SetupProblem::NoIdentity { table, .. } => Some(table),
        SetupProblem::ServerVersion { .. }
        | SetupProblem::WalLevel { .. }
        | SetupProblem::NoWalSenders
        | SetupProblem::NoFreeSlot { .. }
        | SetupProblem::Failover { .. }
        | SetupProblem::ReplicationPrivilege { .. }
        | SetupProblem::PublicationMissing { .. }
        | SetupProblem::PublicationPartial { .. } => None,
    };
    // The service that runs on this database may have one of the slots.
    let is_warning = problem.is_warning() || matches!(problem, SetupProblem::NoFreeSlot { .. });
    // Every one says what is wrong and, after a colon, what to do.
    let text = problem.to_string();
    let (message, help) = match text.split_once(": ") {
        Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
        None => (text, None),
    };
    Diagnostic {
        code: problem.code(),
        severity: if is_warning { Severity::Warning } else { Severity::Fatal },
        message,
        help,
        span: table.and_then(|table| span_of(table, source, places)),
    }
}

/// Where the rules name a table, which is quoted for SQL.
fn span_of(table: &str, source: &Source, places: &Places) -> Option<Span> {
    let relation = source.relations.iter().find(|relation| relation.sql_name() == table)?;
    places.tables.iter().find(|(pattern, _)| relation.is_named_by(pattern)).map(|(_, place)| place.span)
}
