//! What of a write is taken where the row is not as the device saw it. Pure: values are compared by the text Postgres
//! prints for them, so that two spellings of one value are one.

use kairos_sync_protocol::upload::Outcome;
use kairos_sync_rules::{ConflictStrategy, WriteOp};
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// A value before the write, as far as the device says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Base {
    #[default]
    Unknown,
    Seen(Option<String>),
}

impl Base {
    fn is(&self, value: Option<&String>) -> bool {
        matches!(self, Self::Seen(seen) if seen.as_ref() == value)
    }
}

/// A column as the row has it, as the device saw it, and as it wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Field {
    /// Position of the column.
    pub(super) position: usize,
    pub(super) stored: Option<String>,
    pub(super) base: Base,
    pub(super) sent: Option<String>,
    /// What Postgres makes of the three, where the strategy has it calculate.
    pub(super) calculated: Option<String>,
}

/// What becomes of the write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// These values are written; a DELETE has none.
    Write(Vec<(usize, Option<String>)>, Outcome),
    /// The row stays.
    Keep(Outcome),
    Refuse(Refusal),
}

/// Decides about a write to a row that is there. `fields` are the columns that the strategy compares.
pub(super) fn decide(strategy: &ConflictStrategy, op: WriteOp, mut fields: Vec<Field>) -> Decision {
    if op == WriteOp::Put {
        // Who inserts a row has not seen any.
        for field in &mut fields {
            if field.base == Base::Unknown {
                field.base = Base::Seen(None);
            }
        }
    }
    match strategy {
        ConflictStrategy::ServerWins | ConflictStrategy::Manual => all_or_nothing(op, fields),
        ConflictStrategy::MergeFields if op == WriteOp::Delete => all_or_nothing(op, fields),
        ConflictStrategy::MergeFields => merge(fields),
        ConflictStrategy::Version { .. } => version(&fields),
        ConflictStrategy::AppendOnly if fields.iter().all(|field| field.stored == field.sent) => {
            Decision::Keep(Outcome::Duplicate)
        }
        ConflictStrategy::AppendOnly => {
            let message = "rows of this table are only added, and this one is there already: use another id";
            Decision::Refuse(Refusal::new("WRITE_APPEND_ONLY", message))
        }
        ConflictStrategy::Counter { .. } => calculated(fields, |field| Ok(field.calculated.clone())),
        ConflictStrategy::SetUnion { .. } => calculated(fields, union),
        ConflictStrategy::ClientWins | ConflictStrategy::LastWriteWins { .. } => {
            Decision::Write(fields.into_iter().map(|field| (field.position, field.sent)).collect(), Outcome::Applied)
        }
    }
}

fn base_missing() -> Decision {
    let message = "the table's `conflict` strategy needs the values the device saw: send `old` (in the SDKs, have the \
                   table track previous values)";
    Decision::Refuse(Refusal::new("WRITE_BASE_MISSING", message))
}

fn all_or_nothing(op: WriteOp, fields: Vec<Field>) -> Decision {
    if fields.iter().any(|field| field.base == Base::Unknown) || (op == WriteOp::Delete && fields.is_empty()) {
        return base_missing();
    }
    let is_met = |field: &Field| {
        let is_touched = op == WriteOp::Delete || !field.base.is(field.sent.as_ref());
        is_touched && !field.base.is(field.stored.as_ref()) && field.stored != field.sent
    };
    if fields.iter().any(is_met) {
        return Decision::Keep(Outcome::Conflict);
    }
    let values = fields.into_iter().filter(|field| op != WriteOp::Delete && !field.base.is(field.sent.as_ref()));
    Decision::Write(values.map(|field| (field.position, field.sent)).collect(), Outcome::Applied)
}

fn version(fields: &[Field]) -> Decision {
    let Some(field) = fields.first() else { return base_missing() };
    match &field.base {
        Base::Unknown => base_missing(),
        Base::Seen(base) if *base == field.stored => {
            Decision::Write(vec![(field.position, field.calculated.clone())], Outcome::Applied)
        }
        Base::Seen(_) => Decision::Keep(Outcome::Conflict),
    }
}

fn merge(fields: Vec<Field>) -> Decision {
    let (mut values, mut lost) = (Vec::new(), false);
    for Field { position, stored, base, sent, .. } in fields {
        let Base::Seen(base) = base else { return base_missing() };
        if sent == base || sent == stored {
            continue;
        }
        if stored == base {
            values.push((position, sent));
            continue;
        }
        lost = true;
        if let Some(combined) = merge_texts(base.as_deref(), stored.as_deref(), sent.as_deref()) {
            values.push((position, Some(combined)));
        }
    }
    match (values.is_empty(), lost) {
        (true, true) => Decision::Keep(Outcome::Conflict),
        (_, true) => Decision::Write(values, Outcome::Merged),
        (_, false) => Decision::Write(values, Outcome::Applied),
    }
}

/// Three JSON objects as one, if they are that and the device's part changes anything.
fn merge_texts(base: Option<&str>, stored: Option<&str>, sent: Option<&str>) -> Option<String> {
    let object = |text: Option<&str>| match serde_json::from_str(text?) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    let (stored, sent) = (object(stored)?, object(sent)?);
    let merged = merge_objects(&object(base).unwrap_or_default(), &stored, &sent);
    (merged != stored).then(|| Value::Object(merged).to_string())
}

/// Keys which only the device changed are as it has them; all others are as the row has them.
fn merge_objects(
    base: &Map<String, Value>,
    stored: &Map<String, Value>,
    sent: &Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = stored.clone();
    let empty = Map::new();
    for key in base.keys().chain(sent.keys()) {
        let (before, now, wanted) = (base.get(key), stored.get(key), sent.get(key));
        if wanted == before {
            continue;
        }
        match (now, wanted) {
            (Some(Value::Object(now)), Some(Value::Object(wanted))) => {
                let before = before.and_then(Value::as_object).unwrap_or(&empty);
                merged.insert(key.clone(), merge_objects(before, now, wanted).into());
            }
            (now, Some(wanted)) if now == before => {
                merged.insert(key.clone(), wanted.clone());
            }
            (now, None) if now == before => {
                merged.remove(key);
            }
            _ => {}
        }
    }
    merged
}

/// Everything is written, what `value` says of the fields which Postgres or the device calculates with.
fn calculated(fields: Vec<Field>, value: impl Fn(&Field) -> Result<Option<String>, Refusal>) -> Decision {
    let mut outcome = Outcome::Applied;
    let mut values = Vec::new();
    for field in fields {
        if field.base == Base::Unknown {
            return base_missing();
        }
        let result = match value(&field) {
            Ok(result) => result,
            Err(refusal) => return Decision::Refuse(refusal),
        };
        if result != field.sent {
            outcome = Outcome::Merged;
        }
        values.push((field.position, result));
    }
    Decision::Write(values, outcome)
}

/// The row's elements without those the device took out, and then those it added; a JSON array. Where they are the
/// device's own, they are as it sent them: order and spelling mean nothing in a set.
fn union(field: &Field) -> Result<Option<String>, Refusal> {
    let elements = |text: Option<&str>| match text.map(serde_json::from_str) {
        None | Some(Ok(Value::Null)) => Ok(Vec::new()),
        Some(Ok(Value::Array(elements))) => Ok(elements),
        Some(_) => Err(Refusal::new("WRITE_VALUE", "a column of `set_union` holds no array")),
    };
    let seen = match &field.base {
        Base::Seen(seen) => seen.as_deref(),
        Base::Unknown => None,
    };
    let (base, stored, sent) = (elements(seen)?, elements(field.stored.as_deref())?, elements(field.sent.as_deref())?);
    let mut union: Vec<Value> = Vec::new();
    let kept = stored.into_iter().filter(|one| !base.contains(one) || sent.contains(one));
    for element in kept.chain(sent.iter().filter(|one| !base.contains(one)).cloned()) {
        if !union.contains(&element) {
            union.push(element);
        }
    }
    if union.len() == sent.len() && sent.iter().all(|one| union.contains(one)) {
        return Ok(field.sent.clone());
    }
    Ok(Some(Value::Array(union).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(position: usize, stored: &str, base: Option<&str>, sent: &str) -> Field {
        let text = |text: &str| (text != "-").then(|| text.to_owned());
        Field {
            position,
            stored: text(stored),
            base: base.map_or(Base::Unknown, |base| Base::Seen(text(base))),
            sent: text(sent),
            calculated: None,
        }
    }

    fn patch(strategy: &ConflictStrategy, fields: &[Field]) -> Decision {
        decide(strategy, WriteOp::Patch, fields.to_vec())
    }

    fn written(values: &[(usize, &str)], outcome: Outcome) -> Decision {
        let values = values.iter().map(|(position, value)| (*position, Some((*value).to_owned()))).collect();
        Decision::Write(values, outcome)
    }

    #[test]
    fn the_server_wins_where_both_changed_something() {
        let strategy = ConflictStrategy::ServerWins;
        let mine = field(1, "a", Some("a"), "b");
        assert_eq!(patch(&strategy, std::slice::from_ref(&mine)), written(&[(1, "b")], Outcome::Applied));
        let theirs = field(2, "x", Some("a"), "b");
        assert_eq!(patch(&strategy, &[mine.clone(), theirs]), Decision::Keep(Outcome::Conflict));
        let untouched = field(2, "x", Some("a"), "a");
        assert_eq!(patch(&strategy, &[mine, untouched]), written(&[(1, "b")], Outcome::Applied), "not sent back");
        let agreed = field(2, "b", Some("a"), "b");
        assert_eq!(patch(&strategy, &[agreed]), written(&[(2, "b")], Outcome::Applied));
        assert_eq!(patch(&strategy, &[field(1, "a", None, "b")]), base_missing());
        let inserted = decide(&strategy, WriteOp::Put, vec![field(1, "a", None, "b")]);
        assert_eq!(inserted, Decision::Keep(Outcome::Conflict), "two made the same row");
        let delete = |fields: &[Field]| decide(&strategy, WriteOp::Delete, fields.to_vec());
        assert_eq!(delete(&[field(1, "a", Some("a"), "-")]), written(&[], Outcome::Applied));
        assert_eq!(delete(&[field(1, "b", Some("a"), "-")]), Decision::Keep(Outcome::Conflict));
        assert_eq!(delete(&[]), base_missing());
    }

    #[test]
    fn fields_are_merged_one_by_one() {
        let strategy = ConflictStrategy::MergeFields;
        let (mine, theirs, both) =
            (field(1, "a", Some("a"), "b"), field(2, "x", Some("a"), "a"), field(3, "x", Some("a"), "b"));
        assert_eq!(patch(&strategy, &[mine.clone(), theirs]), written(&[(1, "b")], Outcome::Applied));
        assert_eq!(patch(&strategy, &[mine, both.clone()]), written(&[(1, "b")], Outcome::Merged));
        assert_eq!(patch(&strategy, &[both]), Decision::Keep(Outcome::Conflict));
        let objects = field(
            4,
            r#"{"font": 12, "dark": true, "panes": {"left": 1, "right": 9}}"#,
            Some(r#"{"font": 11, "dark": false, "old": 1, "panes": {"left": 1, "right": 2}}"#),
            r#"{"font": 13, "dark": false, "panes": {"left": 5, "right": 2}, "new": 1}"#,
        );
        let Decision::Write(values, Outcome::Merged) = patch(&strategy, &[objects]) else { panic!("merged") };
        let merged: Value = serde_json::from_str(values[0].1.as_deref().expect("a value")).expect("JSON");
        let expected = serde_json::json!({ "font": 12, "dark": true, "panes": {"left": 5, "right": 9}, "new": 1 });
        assert_eq!(merged, expected);
    }

    #[test]
    fn a_version_is_compared_and_counted() {
        let strategy = ConflictStrategy::Version { column: "v".to_owned() };
        let seen = Field { calculated: Some("8".to_owned()), ..field(1, "7", Some("7"), "-") };
        assert_eq!(patch(&strategy, &[seen]), written(&[(1, "8")], Outcome::Applied));
        assert_eq!(patch(&strategy, &[field(1, "7", Some("6"), "-")]), Decision::Keep(Outcome::Conflict));
        assert_eq!(patch(&strategy, &[field(1, "7", None, "-")]), base_missing());
    }

    #[test]
    fn sets_lose_what_was_taken_out_and_gain_what_was_added() {
        let strategy = ConflictStrategy::SetUnion { columns: vec!["tags".to_owned()] };
        for (stored, base, sent, expected) in [
            (r#"["a","b"]"#, Some(r#"["a"]"#), r#"["a","c"]"#, r#"["a","b","c"]"#),
            (r#"["a","b"]"#, Some(r#"["a"]"#), "[]", r#"["b"]"#),
            (r#"["a"]"#, Some("-"), r#"["a","a"]"#, r#"["a"]"#),
            ("-", Some("-"), r#"[{"k": 1}]"#, r#"[{"k": 1}]"#),
            (r#"["b", "a"]"#, Some(r#"["a"]"#), r#"["a", "b"]"#, r#"["a", "b"]"#),
        ] {
            let Decision::Write(values, _) = patch(&strategy, &[field(1, stored, base, sent)]) else {
                panic!("{stored}")
            };
            assert_eq!(values, [(1, Some(expected.to_owned()))], "{stored} {base:?} {sent}");
        }
    }

    #[test]
    fn what_is_no_array_is_not_lost_in_one() {
        let strategy = ConflictStrategy::SetUnion { columns: vec!["tags".to_owned()] };
        for (stored, sent) in [(r#"{"a":1}"#, "[]"), ("[]", r#""text""#)] {
            assert!(matches!(patch(&strategy, &[field(1, stored, Some("[]"), sent)]), Decision::Refuse(_)), "{stored}");
        }
    }

    #[test]
    fn a_row_that_is_only_added_may_come_twice() {
        let put = |fields| decide(&ConflictStrategy::AppendOnly, WriteOp::Put, fields);
        assert_eq!(put(vec![field(1, "a", None, "a")]), Decision::Keep(Outcome::Duplicate));
        assert!(matches!(put(vec![field(1, "a", None, "b")]), Decision::Refuse(_)));
    }
}
