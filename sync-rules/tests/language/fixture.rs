//! A service in miniature: it stores rows, keeps the index of lookups, and evaluates again what asked a changed one.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use kairos_sync_rules::{
    Evaluation, LookupKey, LookupSource, LookupValue, RequestContext, Resolution, SourceTable, SqlValue, SyncPlan,
    compile,
};
use serde_json::Value;

/// Where a row is: table and key.
type RowKey = (String, String);

/// What all rows said. A value may have been said by several rows.
#[derive(Debug, Default)]
pub(crate) struct Index(BTreeMap<LookupKey, BTreeMap<LookupValue, usize>>);

impl LookupSource for Index {
    type Error = Infallible;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, Infallible> {
        Ok(self.0.get(key).into_iter().flat_map(BTreeMap::keys).cloned().collect())
    }
}

impl Index {
    /// Adds or removes what a row said; returns the lookups whose values changed.
    fn apply(&mut self, said: &[(LookupKey, LookupValue)], is_added: bool) -> BTreeSet<LookupKey> {
        let mut changed = BTreeSet::new();
        for (key, value) in said {
            let count = self.0.entry(key.clone()).or_default().entry(value.clone()).or_default();
            let before = *count > 0;
            *count = if is_added { *count + 1 } else { *count - 1 };
            if (*count > 0) != before {
                changed.insert(key.clone());
            }
        }
        for values in self.0.values_mut() {
            values.retain(|_, count| *count > 0);
        }
        changed
    }
}

pub(crate) struct Service {
    pub plan: SyncPlan,
    rows: BTreeMap<RowKey, Value>,
    evaluations: BTreeMap<RowKey, Evaluation>,
    pub index: Index,
}

/// A service with rules that must compile.
pub(crate) fn service(rules: &str) -> Service {
    let compiled = compile(rules, "public");
    let findings: String = compiled.diagnostics.iter().map(|finding| finding.render("rules.yaml", rules)).collect();
    let plan = compiled.plan.unwrap_or_else(|| panic!("{findings}"));
    Service { plan, rows: BTreeMap::new(), evaluations: BTreeMap::new(), index: Index::default() }
}

pub(crate) fn table(name: &str) -> SourceTable {
    SourceTable { connection: "default".to_owned(), schema: "public".to_owned(), name: name.to_owned() }
}

/// A request of a user.
pub(crate) fn request(token: Value) -> RequestContext {
    let Value::Object(token) = token else { panic!("a token is an object") };
    RequestContext { token, include_defaults: true, ..RequestContext::default() }
}

pub(crate) fn sql(value: &Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Bool(value) => SqlValue::Integer((*value).into()),
        Value::Number(number) => number.as_i64().map_or_else(
            || SqlValue::Real(number.as_f64().expect("finite")),
            |number| SqlValue::Integer(number.into()),
        ),
        Value::String(text) => SqlValue::Text(text.clone()),
        other => SqlValue::Text(other.to_string()),
    }
}

impl Service {
    /// Stores a row whose key is `id`, and settles what hangs on it.
    pub(crate) fn put(&mut self, table: &str, row: Value) -> &Evaluation {
        let key = (table.to_owned(), row["id"].to_string());
        self.rows.insert(key.clone(), row);
        self.settle(key.clone());
        &self.evaluations[&key]
    }

    pub(crate) fn delete(&mut self, table: &str, id: &Value) {
        let key = (table.to_owned(), id.to_string());
        self.rows.remove(&key);
        self.settle(key);
    }

    fn settle(&mut self, key: RowKey) {
        let mut queue = vec![key];
        while let Some(key) = queue.pop() {
            let evaluation = self.rows.get(&key).map(|row| evaluate(&self.plan, &key.0, row, &mut self.index));
            let before = match evaluation {
                Some(evaluation) => {
                    let before = self.evaluations.get(&key).map(|evaluation| evaluation.lookups.clone());
                    self.evaluations.insert(key.clone(), evaluation);
                    before
                }
                None => self.evaluations.remove(&key).map(|evaluation| evaluation.lookups),
            };
            // Added first: a value that stays is never absent in between.
            let after = self.evaluations.get(&key).map(|evaluation| evaluation.lookups.clone()).unwrap_or_default();
            let mut changed = self.index.apply(&after, true);
            changed.extend(self.index.apply(&before.unwrap_or_default(), false));
            let asked = |evaluation: &Evaluation| evaluation.consulted.iter().any(|key| changed.contains(key));
            queue.extend(
                self.evaluations.iter().filter(|(_, evaluation)| asked(evaluation)).map(|(key, _)| key.clone()),
            );
        }
    }

    pub(crate) fn resolve(&mut self, request: &RequestContext) -> Resolution {
        let querier = self.plan.querier(request, "").unwrap_or_else(|error| panic!("{error}"));
        querier.resolve(&mut self.index).unwrap_or_else(|never| match never {})
    }

    /// Names of a client's buckets.
    pub(crate) fn buckets(&mut self, token: Value) -> Vec<String> {
        let resolution = self.resolve(&request(token));
        resolution.buckets.iter().map(|bucket| bucket.name.to_string()).collect()
    }

    /// Rows a client sees, as `table/id`.
    pub(crate) fn visible(&mut self, token: Value) -> BTreeSet<String> {
        let buckets: BTreeSet<_> = self.buckets(token).into_iter().collect();
        self.evaluations
            .values()
            .flat_map(|evaluation| &evaluation.rows)
            .filter(|row| buckets.contains(row.bucket.as_str()))
            .map(|row| format!("{}/{}", row.object_type, row.object_id))
            .collect()
    }
}

pub(crate) fn evaluate(plan: &SyncPlan, name: &str, row: &Value, index: &mut Index) -> Evaluation {
    let row = row.as_object().expect("a row is an object");
    let columns: Vec<_> = row.keys().cloned().collect();
    let values: Vec<_> = row.values().map(sql).collect();
    let evaluator = plan.evaluator(&table(name), &columns, "");
    evaluator.evaluate(&values, index).unwrap_or_else(|never| match never {})
}
