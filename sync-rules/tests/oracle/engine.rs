//! The engine with what a service keeps for it: rows, their evaluations, and the index of lookups.

use std::collections::{BTreeMap, BTreeSet};

use kairos_sync_rules::{Evaluation, LookupKey, RequestContext, SourceTable, SqlValue, Subscription, SyncPlan};
use serde_json::{Map, Number, Value as Json};

use crate::{
    database::Visible,
    index::Index,
    model::{Change, Principal, Table, Value},
};

/// A row: number of its table, literal of its id.
type RowKey = (usize, String);

pub(crate) struct Engine<'a> {
    plan: &'a SyncPlan,
    schema: &'a [Table],
    rows: BTreeMap<RowKey, Vec<SqlValue>>,
    evaluations: BTreeMap<RowKey, Evaluation>,
    index: Index,
}

fn sql(value: &Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Integer(number) => SqlValue::Integer((*number).into()),
        Value::Real(number) => SqlValue::Real(*number),
        Value::Text(text) => SqlValue::Text(text.clone()),
    }
}

impl<'a> Engine<'a> {
    pub(crate) fn new(plan: &'a SyncPlan, schema: &'a [Table]) -> Self {
        Self { plan, schema, rows: BTreeMap::new(), evaluations: BTreeMap::new(), index: Index::default() }
    }

    /// Stores a change and evaluates what hangs on it. No row of a case may fail: the message of one that does.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), String> {
        /// Many times what the joins of a case can ask for.
        const ROUNDS_MAX: usize = 10_000;
        let key = match change {
            Change::Put { table, row } => {
                let key = (*table, row[0].literal());
                self.rows.insert(key.clone(), row.iter().map(sql).collect());
                key
            }
            Change::Delete { table, id } => {
                let key = (*table, id.literal());
                self.rows.remove(&key);
                key
            }
        };
        let mut queue = BTreeSet::from([key]);
        for _ in 0..ROUNDS_MAX {
            let Some(key) = queue.pop_first() else { return Ok(()) };
            let changed = self.evaluate(&key)?;
            let asks = |evaluation: &Evaluation| evaluation.consulted.iter().any(|key| changed.contains(key));
            let asking = self.evaluations.iter().filter(|(_, evaluation)| asks(evaluation));
            queue.extend(asking.map(|(key, _)| key.clone()));
        }
        Err("rows are evaluated again and again".to_owned())
    }

    fn evaluate(&mut self, key: &RowKey) -> Result<BTreeSet<LookupKey>, String> {
        let before = self.evaluations.remove(key).unwrap_or_default();
        let Some(row) = self.rows.get(key) else { return Ok(self.index.replace(&before.lookups, &[])) };
        let table = &self.schema[key.0];
        let columns: Vec<_> = table.columns().map(str::to_owned).collect();
        let source =
            SourceTable { connection: "default".to_owned(), schema: "public".to_owned(), name: table.name.to_owned() };
        let evaluator = self.plan.evaluator(&source, &columns, "");
        let evaluation = evaluator.evaluate(row, &mut self.index).unwrap_or_else(|never| match never {});
        if let Some(error) = evaluation.errors.first() {
            return Err(format!("row {} of {}: {error}", key.1, table.name));
        }
        let changed = self.index.replace(&before.lookups, &evaluation.lookups);
        self.evaluations.insert(key.clone(), evaluation);
        Ok(changed)
    }

    /// What a client sees: all rows in the buckets it gets. A client that lacks a claim may get an error and less.
    pub(crate) fn visible(&mut self, principal: &Principal) -> Result<Visible, String> {
        let querier = self.plan.querier(&request(principal), "").map_err(|error| error.to_string())?;
        let resolution = querier.resolve(&mut self.index).unwrap_or_else(|never| match never {});
        if let Some((_, error)) = resolution.errors.iter().find(|(_, error)| !error.message.contains("the token")) {
            return Err(error.to_string());
        }
        let buckets: BTreeSet<_> = resolution.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
        let rows = self.evaluations.values().flat_map(|evaluation| &evaluation.rows);
        let rows = rows.filter(|row| buckets.contains(row.bucket.as_str()));
        Ok(rows.map(|row| (row.object_type.to_string(), row.object_id.to_string())).collect())
    }
}

fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) => Json::from(*number),
        // As a token would spell it: `1`, not `1.0`.
        Value::Real(number) => serde_json::from_str(&number.to_string()).expect("a number is JSON"),
        Value::Text(text) => Json::String(text.clone()),
    }
}

fn members<const N: usize>(members: [(&str, Option<Json>); N]) -> Map<String, Json> {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn request(principal: &Principal) -> RequestContext {
    let array = |text: &Option<String>| text.as_deref().map(|text| serde_json::from_str(text).expect("a JSON array"));
    let scalar = |value: &Option<Value>| value.as_ref().map(json);
    let subscription = |(stream, values): &(String, crate::model::SubscriptionValues)| Subscription {
        stream: stream.clone(),
        parameters: Some(members([("s", scalar(&values.scalar)), ("ss", array(&values.array))])),
        priority: None,
    };
    RequestContext {
        token: members([
            ("sub", scalar(&principal.user)),
            ("role", scalar(&principal.role)),
            ("level", principal.level.and_then(Number::from_f64).map(Json::Number)),
            ("tags", array(&principal.tags)),
            (
                "parameters",
                Some(Json::Object(members([("role", scalar(&principal.role)), ("tags", array(&principal.tags))]))),
            ),
        ]),
        parameters: members([("choice", scalar(&principal.choice)), ("choices", array(&principal.choices))]),
        include_defaults: true,
        subscriptions: principal.subscriptions.iter().map(subscription).collect(),
    }
}
