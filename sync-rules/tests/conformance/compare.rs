//! Compares two results of a case, level by level.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

/// How far two results must agree. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Which rows a client sees, at which priority, and whether anything failed.
    Visible,
    /// How rows are distributed over buckets, whatever their names; how much failed; events.
    Buckets,
    /// Names and reasons of buckets, codes of findings, source tables.
    Exact,
}

impl Level {
    pub(crate) const ALL: [Self; 3] = [Self::Visible, Self::Buckets, Self::Exact];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Visible => "visible",
            Self::Buckets => "buckets",
            Self::Exact => "exact",
        }
    }
}

/// A result line, without what is an implementation's own.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct CaseResult {
    pub id: String,
    rules: Rules,
    rows: Vec<Row>,
    requests: Vec<Request>,
}

#[derive(Debug, Clone, Deserialize)]
struct Rules {
    ok: bool,
    errors: BTreeSet<Finding>,
    source_tables: Vec<[String; 3]>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Finding {
    code: String,
    severity: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Row {
    data: Vec<DataRow>,
    data_errors: usize,
    parameter_errors: usize,
    #[serde(default)]
    events: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct DataRow {
    bucket: String,
    table: String,
    id: String,
    data: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Request {
    buckets: Vec<ResolvedBucket>,
    errors: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct ResolvedBucket {
    bucket: String,
    priority: u8,
    definition: String,
    reasons: Vec<Value>,
}

/// The first level at which results differ.
pub(crate) fn difference(expected: &CaseResult, actual: &CaseResult) -> Option<Level> {
    Level::ALL.into_iter().find(|level| match level {
        Level::Visible => expected.visible() != actual.visible(),
        Level::Buckets => expected.buckets() != actual.buckets(),
        Level::Exact => expected.exact() != actual.exact(),
    })
}

/// An output row: table, id, data.
type Output<'r> = (&'r str, &'r str, &'r str);

/// All that makes a bucket what it is except its name: source rows and their output, requests and priorities.
type Contents<'r> = (BTreeSet<(usize, Output<'r>)>, Vec<(usize, u8)>);

impl DataRow {
    fn output(&self) -> Output<'_> {
        (&self.table, &self.id, &self.data)
    }
}

impl CaseResult {
    fn visible(&self) -> impl PartialEq + '_ {
        let rows: Vec<_> = self.rows.iter().map(|row| (row.data_errors > 0, row.parameter_errors > 0)).collect();
        let requests: Vec<_> =
            self.requests.iter().map(|request| (request.errors > 0, self.reachable(request))).collect();
        (self.rules.ok, rows, requests)
    }

    /// The rows a request reaches, each with the priority of the bucket it is reached through.
    fn reachable(&self, request: &Request) -> BTreeSet<(u8, Output<'_>)> {
        let mut reachable = BTreeSet::new();
        for bucket in &request.buckets {
            let data = self.rows.iter().flat_map(|row| &row.data).filter(|data| data.bucket == bucket.bucket);
            reachable.extend(data.map(|data| (bucket.priority, data.output())));
        }
        reachable
    }

    fn buckets(&self) -> impl PartialEq + '_ {
        let rows: Vec<_> = self.rows.iter().map(|row| (row.data_errors, row.parameter_errors, &row.events)).collect();
        let requests: Vec<_> = self.requests.iter().map(|request| request.errors).collect();
        (self.partition(), rows, requests)
    }

    /// The contents of all buckets that hold a row or that a request resolves, in an order of their own.
    fn partition(&self) -> Vec<Contents<'_>> {
        let mut buckets = BTreeMap::<&str, Contents<'_>>::new();
        for (index, row) in self.rows.iter().enumerate() {
            for data in &row.data {
                buckets.entry(&data.bucket).or_default().0.insert((index, data.output()));
            }
        }
        for (index, request) in self.requests.iter().enumerate() {
            for bucket in &request.buckets {
                buckets.entry(&bucket.bucket).or_default().1.push((index, bucket.priority));
            }
        }
        let mut contents: Vec<_> = buckets.into_values().collect();
        contents.sort_unstable();
        contents
    }

    fn exact(&self) -> impl PartialEq + '_ {
        let data: Vec<_> = self.rows.iter().map(|row| &row.data).collect();
        let buckets: Vec<_> = self.requests.iter().map(|request| &request.buckets).collect();
        (&self.rules.errors, &self.rules.source_tables, data, buckets)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Two rows in two buckets, one request for the first.
    fn line() -> Value {
        let data = |bucket: &str, id: &str| json!({"bucket": bucket, "table": "t", "id": id, "data": "{}"});
        let row = |data| json!({"data": [data], "data_errors": 0, "parameter_errors": 0, "parameters": []});
        json!({
            "id": "x",
            "rules": {"ok": true, "errors": [], "source_tables": [["default", "public", "t"]]},
            "rows": [row(data("a", "1")), row(data("b", "2"))],
            "requests": [{
                "buckets": [{"bucket": "a", "priority": 3, "definition": "d", "reasons": ["default"]}],
                "dynamic": false,
                "errors": 0,
            }],
        })
    }

    fn compare(change: impl FnOnce(&mut Value)) -> Option<Level> {
        let read = |line: Value| serde_json::from_value(line).unwrap();
        let mut changed = line();
        change(&mut changed);
        difference(&read(line()), &read(changed))
    }

    #[test]
    fn equal_results_have_no_difference() {
        assert_eq!(compare(|_| ()), None);
    }

    #[test]
    fn what_a_client_sees_or_that_something_failed_is_visible() {
        assert_eq!(compare(|line| line["rules"]["ok"] = json!(false)), Some(Level::Visible));
        assert_eq!(compare(|line| line["rows"][0]["data"][0]["data"] = json!("{\"a\":1}")), Some(Level::Visible));
        assert_eq!(compare(|line| line["rows"][0]["data"][0]["bucket"] = json!("b")), Some(Level::Visible));
        assert_eq!(compare(|line| line["rows"][1]["parameter_errors"] = json!(1)), Some(Level::Visible));
        assert_eq!(compare(|line| line["requests"][0]["errors"] = json!(1)), Some(Level::Visible));
        assert_eq!(compare(|line| line["requests"][0]["buckets"][0]["priority"] = json!(1)), Some(Level::Visible));
        assert_eq!(compare(|line| line["requests"][0]["buckets"] = json!([])), Some(Level::Visible));
    }

    #[test]
    fn how_buckets_are_cut_is_seen_at_buckets() {
        assert_eq!(compare(|line| line["rows"][1]["data"] = json!([])), Some(Level::Buckets), "nobody asks for it");
        assert_eq!(compare(|line| line["rows"][1]["events"] = json!([{"event": "e"}])), Some(Level::Buckets));
        let empty = json!({"bucket": "c", "priority": 3, "definition": "d", "reasons": []});
        let add = |line: &mut Value| line["requests"][0]["buckets"].as_array_mut().unwrap().push(empty);
        assert_eq!(compare(add), Some(Level::Buckets), "an empty bucket is one too");
    }

    #[test]
    fn names_and_codes_are_seen_at_exact() {
        let rename = |line: &mut Value| {
            line["rows"][0]["data"][0]["bucket"] = json!("z");
            line["requests"][0]["buckets"][0]["bucket"] = json!("z");
        };
        assert_eq!(compare(rename), Some(Level::Exact));
        assert_eq!(compare(|line| line["requests"][0]["buckets"][0]["reasons"] = json!([])), Some(Level::Exact));
        assert_eq!(compare(|line| line["requests"][0]["buckets"][0]["definition"] = json!("e")), Some(Level::Exact));
        let warn = json!([{"code": "c", "severity": "warning"}]);
        assert_eq!(compare(|line| line["rules"]["errors"] = warn), Some(Level::Exact));
        assert_eq!(compare(|line| line["rules"]["source_tables"] = json!([])), Some(Level::Exact));
        let repeat = |line: &mut Value| {
            let data = line["rows"][0]["data"][0].clone();
            line["rows"][0]["data"].as_array_mut().unwrap().push(data);
        };
        assert_eq!(compare(repeat), Some(Level::Exact), "duplicates count");
    }

    #[test]
    fn what_is_internal_never_counts() {
        assert_eq!(compare(|line| line["requests"][0]["dynamic"] = json!(true)), None);
        assert_eq!(compare(|line| line["rows"][0]["parameters"] = json!([{}])), None);
    }
}
