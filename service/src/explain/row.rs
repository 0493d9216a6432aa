//! Which row of the store is meant, and what is stored of it. Blocks on disk.

use kairos_sync_rules::{SourceTable, SyncPlan};
use serde_json::Value;

use super::answer::{Question, RowState};
use crate::{
    postgres::preflight::source_table,
    replication::{FoundRow, RowStore, StoredTable},
    storage::{BucketStore, StorageError},
};

/// The schema of a table that is named without one, where the store knows no table of the name.
const DEFAULT_SCHEMA: &str = "public";

/// A row as an operator names it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WantedRow {
    table: String,
    id: Value,
}

/// What was found of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// Its table, or what was asked for.
    pub(super) table: SourceTable,
    pub(super) key: String,
    pub(super) state: RowState,
    pub(super) row: Option<FoundRow>,
}

impl WantedRow {
    /// The row of a question, if it asks for one.
    pub(super) fn of(question: &Question) -> Option<Self> {
        let (Some(table), Some(id)) = (&question.table, &question.id) else { return None };
        Some(Self { table: table.clone(), id: id.clone() })
    }
}

/// Finds a row. Where the name could be that of several tables, the one that has the row is meant.
pub(super) fn find(store: &dyn BucketStore, plan: &SyncPlan, wanted: WantedRow) -> Result<Found, StorageError> {
    let WantedRow { table: name, id } = wanted;
    let key_text = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let named = named_table(plan, &name);
    let absent = |state| Found { table: named.clone(), key: key_text.clone(), state, row: None };
    let Some(rows) = RowStore::load(store)? else { return Ok(absent(RowState::NothingReplicated)) };
    let mut first = None;
    for table in candidates(&rows, plan, &name) {
        let found = find_in(store, plan, table, &id)?;
        if found.row.is_some() {
            return Ok(found);
        }
        first.get_or_insert(found);
    }
    Ok(first.unwrap_or_else(|| {
        let is_read = plan.source_tables().iter().any(|pattern| pattern.matches(&named));
        let publications = || rows.publications().to_vec();
        absent(if is_read { RowState::TableNotPublished(publications()) } else { RowState::TableNotInRules })
    }))
}

fn find_in(
    store: &dyn BucketStore,
    plan: &SyncPlan,
    table: StoredTable<'_>,
    id: &Value,
) -> Result<Found, StorageError> {
    let found = |key: String, state, row| Found { table: table.source_table(), key, state, row };
    let Some(identity) = identity(table.identity(), id) else {
        let columns = table.identity().to_vec();
        return Ok(found(id.to_string(), RowState::KeyNeeded(columns), None));
    };
    let texts: Vec<_> = identity.iter().map(Option::as_deref).collect();
    let key = table.key(&texts);
    let shown = key_text(&table.identity_of(&key));
    let row = table.row(store, &key, plan.compatibility())?;
    let state = match &row {
        Some(row) if row.is_complete => RowState::Stored,
        Some(_) => RowState::Incomplete,
        None if table.copy_stage().is_some() => RowState::TableBeingCopied,
        None => RowState::NoSuchRow,
    };
    Ok(found(shown, state, row))
}

/// `a`, or `org=a, id=b`.
pub(super) fn key_text(identity: &[(&str, Option<String>)]) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
    match identity {
        [(_, value)] => text(value),
        several => several.iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(", "),
    }
}

/// Tables of the store that a name may mean: as the source or as devices have it.
fn candidates<'s>(rows: &'s RowStore, plan: &SyncPlan, name: &str) -> Vec<StoredTable<'s>> {
    let outputs = plan.sources_of_output(name);
    let is_meant = |table: &StoredTable<'_>| {
        let source = table.source_table();
        let is_named = match name.split_once('.') {
            Some((schema, name)) => schema == source.schema && name == source.name,
            None => name == source.name,
        };
        is_named || outputs.iter().any(|pattern| pattern.matches(&source))
    };
    rows.tables().into_iter().filter(is_meant).collect()
}

/// The table of a name that the store does not know.
fn named_table(plan: &SyncPlan, name: &str) -> SourceTable {
    let (schema, table) = name.split_once('.').unwrap_or((DEFAULT_SCHEMA, name));
    let named = source_table(schema, table);
    // A name that devices have leads to the table it is made of.
    match plan.sources_of_output(name)[..] {
        [pattern, ..] if !pattern.is_wildcard() => {
            SourceTable { schema: pattern.schema.clone(), name: pattern.name.clone(), ..named }
        }
        _ => named,
    }
}

/// The texts of the identifying columns; `None` if the id does not say all of them.
fn identity(columns: &[String], id: &Value) -> Option<Vec<Option<String>>> {
    match id {
        Value::Object(members) => columns.iter().map(|column| Some(text(members.get(column)?))).collect(),
        value if columns.len() == 1 => Some(vec![text(value)]),
        _ => None,
    }
}

/// A value as Postgres prints it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(true) => Some("t".to_owned()),
        Value::Bool(false) => Some("f".to_owned()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_says_all_columns_of_the_key() {
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let some = |texts: &[&str]| Some(texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>());
        assert_eq!(identity(&columns(&["id"]), &json!("h1")), some(&["h1"]));
        assert_eq!(identity(&columns(&["id"]), &json!(7)), some(&["7"]));
        assert_eq!(identity(&columns(&["id"]), &json!({"id": true})), some(&["t"]));
        assert_eq!(identity(&columns(&["org", "id"]), &json!({"id": 1, "org": "o"})), some(&["o", "1"]));
        assert_eq!(identity(&columns(&["org", "id"]), &json!({"id": 1})), None);
        assert_eq!(identity(&columns(&["org", "id"]), &json!("o")), None);
        assert_eq!(identity(&columns(&["id"]), &json!(null)), Some(vec![None]));
    }
}
