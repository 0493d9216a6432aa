//! What a plan reads and what it gives, for tools that list tables.

use std::collections::BTreeSet;

use crate::plan::{SourceTable, SyncPlan, TablePattern};

/// What a plan reads a table for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableReads {
    /// Its rows go into buckets.
    pub is_synced: bool,
    /// Its rows decide who gets what.
    pub is_asked: bool,
}

impl SyncPlan {
    /// What a table is read for.
    pub fn reads_of(&self, table: &SourceTable) -> TableReads {
        TableReads {
            is_synced: self.rows.iter().any(|query| query.source.table.matches(table)),
            is_asked: self.indexes.iter().any(|index| index.source.table.matches(table)),
        }
    }

    /// Names that tables have on devices, sorted, each once. One that ends with `%` stands for several.
    pub fn output_tables(&self) -> BTreeSet<&str> {
        self.rows.iter().map(|query| query.object_type.as_deref().unwrap_or(&query.source.table.name)).collect()
    }

    /// Source tables of which rows go into this table of devices under another name than their own.
    pub fn sources_of_output(&self, object_type: &str) -> Vec<&TablePattern> {
        let queries = self.rows.iter().filter(|query| query.object_type.as_deref() == Some(object_type));
        queries.map(|query| &query.source.table).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;

    #[test]
    fn tables_are_known_by_what_they_are_for() {
        let rules = "
bucket_definitions:
  team:
    parameters: SELECT team_id FROM members WHERE user_id = request.user_id()
    data:
      - SELECT * FROM cards WHERE team_id = bucket.team_id
      - SELECT id, team_id FROM cards AS names WHERE team_id = bucket.team_id
";
        let plan = compile(rules, "public").plan.unwrap();
        let reads = |name: &str| {
            let (connection, schema) = ("default".to_owned(), "public".to_owned());
            let TableReads { is_synced, is_asked } =
                plan.reads_of(&SourceTable { connection, schema, name: name.to_owned() });
            (is_synced, is_asked)
        };
        assert_eq!(["cards", "members", "others"].map(reads), [(true, false), (false, true), (false, false)]);
        assert_eq!(plan.output_tables().into_iter().collect::<Vec<_>>(), ["cards", "names"]);
        assert_eq!(plan.sources_of_output("names").len(), 1);
    }
}
