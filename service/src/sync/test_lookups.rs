//! What a row gives the lookup index, as replication hands it to the store.

use std::convert::Infallible;

use kairos_sync_rules::{LookupKey, LookupSource, LookupValue, SourceTable, SqlValue, SyncPlan};

/// Of a row of `table`, which asks no lookup itself: its columns with their texts.
pub(crate) fn lookups_of(plan: &SyncPlan, table: &str, row: &[(&str, &str)]) -> Vec<(LookupKey, LookupValue)> {
    let [connection, schema, name] = ["default", "public", table].map(str::to_owned);
    let (columns, values): (Vec<_>, Vec<_>) =
        row.iter().map(|(column, text)| ((*column).to_owned(), SqlValue::Text((*text).to_owned()))).unzip();
    let evaluator = plan.evaluator(&SourceTable { connection, schema, name }, &columns, "");
    let Ok(evaluation) = evaluator.evaluate(&values, &mut NoLookups);
    evaluation.lookups
}

struct NoLookups;

impl LookupSource for NoLookups {
    type Error = Infallible;

    fn values(&mut self, _: &LookupKey) -> Result<Vec<LookupValue>, Infallible> {
        Ok(Vec::new())
    }
}
