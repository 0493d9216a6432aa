//! Writes that were not taken as sent: what is kept of them, and how people decide.

use std::time::Duration;

use kairos_sync::write::{ConflictError, ConflictFilter, WriteOptions, Writer};
use kairos_sync_protocol::{
    conflict::{Choice, Conflict, ConflictPreference, ConflictStatus, PreferredStrategy, Resolve, Resolved},
    upload::{CrudOp, Outcome},
};
use serde_json::{Value, json};

use super::{Desk, as_write_role, codes, principal};

const TABLES: &str = "
    CREATE TABLE notes (
        id text PRIMARY KEY, owner text NOT NULL, title text, body text, key text, at timestamptz,
        version int NOT NULL DEFAULT 1, hidden text DEFAULT 'planted', n int
    );
    INSERT INTO notes (id, owner, title, body, at)
        VALUES ('n1', 'anna', 'first', 'first', '2026-01-02 03:04:05.678912Z');
    SELECT kairos.publish_table('notes', 'INSERT, UPDATE, DELETE')";

async fn desk(conflict: &str) -> Desk {
    desk_with(conflict, as_write_role()).await
}

async fn desk_with(conflict: &str, options: WriteOptions) -> Desk {
    let rules = format!(
        "bucket_definitions: {{}}
write_rules:
  notes:
    allow: [put, patch, delete]
    columns: {{ deny: [hidden] }}
    check: row.owner = auth.user_id()
    validators: {{ title: {{ max_length: 10 }}, key: secrets }}
    conflict: {conflict}
"
    );
    Desk::with(TABLES, &rules, options).await
}

/// A change to the one row there is.
fn patch(op_id: &str, data: &Value, old: &Value) -> Value {
    json!({ "client_id": "phone", "batch": [
        { "op": "PATCH", "table": "notes", "id": "n1", "op_id": op_id, "data": data, "old": old }
    ] })
}

fn delete(op_id: &str, old: &Value) -> Value {
    json!({ "client_id": "phone", "batch": [{ "op": "DELETE", "table": "notes", "id": "n1", "op_id": op_id, "old": old }] })
}

async fn others_write(desk: &Desk, set: &str) {
    desk.admin.batch_execute(&format!("UPDATE notes SET {set} WHERE id = 'n1'")).await.expect("they do");
}

async fn kept(desk: &Desk, user: &str) -> Vec<Conflict> {
    desk.writer.conflicts(user, &ConflictFilter { limit: 1_000, ..ConflictFilter::default() }).await.expect("a list")
}

async fn only_one(desk: &Desk) -> Conflict {
    let mut kept = kept(desk, "anna").await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    kept.remove(0)
}

fn values(columns: Option<&serde_json::Map<String, Value>>) -> Value {
    columns.map_or(Value::Null, |columns| Value::Object(columns.clone()))
}

fn wanted(choice: Choice) -> Resolve {
    Resolve { choice, data: None, remember: false }
}

fn merged(data: &Value) -> Resolve {
    let Value::Object(data) = data.clone() else { panic!("columns") };
    Resolve { choice: Choice::Merged, data: Some(data), remember: false }
}

async fn resolve(desk: &Desk, id: &str, wanted: Resolve) -> Resolved {
    desk.writer.resolve(&principal("anna"), id, wanted).await.expect("an answer")
}

async fn row(desk: &Desk) -> String {
    let sql = "SELECT coalesce(string_agg(concat_ws(' ', title, body, version), ','), 'gone') FROM notes";
    desk.value(sql).await.expect("a text")
}

async fn first_conflict(desk: &Desk) -> Conflict {
    others_write(desk, "title = 'theirs'").await;
    desk.upload("anna", patch("1", &json!({ "title": "mine" }), &json!({ "title": "first" }))).await;
    only_one(desk).await
}

#[tokio::test]
async fn what_is_refused_is_kept_for_its_user_without_secrets() {
    let desk = desk("client_wins").await;
    let long =
        json!({ "title": "longer than ten", "body": "nul \u{0} and \u{1f600}", "key": "-----BEGIN PRIVATE KEY-----" });
    let batch = json!({ "client_id": "phone", "batch": [
        { "op": "PUT", "table": "notes", "id": "a", "op_id": "1", "data": long },
        { "op": "PATCH", "table": "nul\u{0}", "id": "x\u{0}", "op_id": "2", "data": { "a": 1 }, "old": { "a": 2 } },
        { "op": "PATCH", "table": "notes", "id": "n1", "op_id": "3", "data": { "body": "taken" } },
    ] });
    let results = desk.upload("anna", batch.clone()).await;
    assert_eq!(codes(&results)[1..], ["WRITE_NO_RULE", ""]);
    let repeated = desk.upload("anna", batch).await;
    assert_eq!(codes(&results), codes(&repeated));
    let mut kept = kept(&desk, "anna").await;
    kept.sort_by(|a, b| a.op_id.cmp(&b.op_id));
    assert_eq!(kept.len(), 2, "the repeated batch adds none");
    let [first, second] = &kept[..] else { unreachable!("two") };
    assert_eq!((first.op, first.outcome, first.status), (CrudOp::Put, Outcome::Refused, ConflictStatus::Open));
    assert_eq!((first.client_id.as_deref(), first.row_id.as_deref()), (Some("phone"), Some("a")));
    assert_eq!(first.code, results[0].code);
    assert_eq!(values(first.mine.as_ref()), json!({ "title": "longer than ten", "body": "nul \u{0} and \u{1f600}" }));
    assert_eq!((second.table.as_str(), second.row_id.as_deref()), ("nul\u{fffd}", Some("x\u{fffd}")));
    assert_eq!((values(second.base.as_ref()), &second.theirs), (json!({ "a": 2 }), &None));
    assert_eq!(self::kept(&desk, "eve").await, []);
    let dump = desk.value("SELECT string_agg(c::text, ' ') FROM kairos.conflicts c").await.expect("rows");
    assert!(!dump.contains("PRIVATE KEY"), "{dump}");
}

#[tokio::test]
async fn a_conflict_waits_with_what_all_three_have() {
    let desk = desk("manual").await;
    others_write(&desk, "title = 'theirs'").await;
    let results = desk.upload("anna", patch("1", &json!({ "title": "mine" }), &json!({ "title": "first" }))).await;
    assert_eq!((results[0].outcome, results[0].code.as_deref()), (Outcome::Conflict, Some("WRITE_CONFLICT")));
    assert_eq!(results[0].row.as_ref().expect("the row")["title"], "theirs");
    assert_eq!(row(&desk).await, "theirs first 1");
    let one = only_one(&desk).await;
    assert_eq!((one.status, one.outcome, one.resolution), (ConflictStatus::Open, Outcome::Conflict, None));
    assert_eq!(values(one.base.as_ref()), json!({ "title": "first" }));
    assert_eq!(values(one.mine.as_ref()), json!({ "title": "mine" }));
    let theirs = one.theirs.expect("the row");
    assert_eq!((&theirs["title"], &theirs["body"]), (&json!("theirs"), &json!("first")));
    assert!(!theirs.contains_key("hidden"), "{theirs:?}");
    // What only the device changed is no conflict.
    let results = desk.upload("anna", patch("2", &json!({ "body": "mine" }), &json!({ "body": "first" }))).await;
    assert_eq!(results[0].outcome, Outcome::Applied);
    assert_eq!(row(&desk).await, "theirs mine 1");
    assert_eq!(desk.metrics.conflicts.with_label_values(&["notes", "manual", "open"]).get(), 1);
}

/// What a strategy lets a device write over is not lost: where the device says what it knew, that shows.
#[tokio::test]
async fn what_a_device_writes_over_is_kept_and_can_come_back() {
    for conflict in ["client_wins", "{ strategy: lww, column: at }", "{ strategy: counter, columns: [n] }"] {
        let desk = desk(conflict).await;
        others_write(&desk, "title = 'theirs', body = 'theirs'").await;
        let known = json!({ "title": "first", "body": "first", "at": "2026-01-02T03:04:05.678912Z" });
        // Nothing is met by a column that nobody else wrote, or in which both want the same.
        let agreed = patch("1", &json!({ "version": 2, "body": "theirs" }), &json!({ "version": 1, "body": "first" }));
        assert_eq!(desk.upload("anna", agreed).await[0].outcome, Outcome::Applied);
        assert_eq!(kept(&desk, "anna").await, [], "{conflict}");
        let result = desk.upload("anna", patch("2", &json!({ "title": "mine" }), &known)).await.remove(0);
        assert_eq!((result.outcome, result.row), (Outcome::Applied, None));
        assert_eq!(row(&desk).await, "mine theirs 2");
        let one = only_one(&desk).await;
        assert_eq!((one.status, one.resolution), (ConflictStatus::Settled, Some(Choice::Mine)), "{conflict}");
        assert_eq!((one.outcome, values(one.mine.as_ref())), (Outcome::Applied, json!({ "title": "mine" })));
        let theirs = one.theirs.expect("the row");
        assert_eq!((&theirs["title"], theirs.contains_key("hidden")), (&json!("theirs"), false));
        let strategy = conflict.trim_start_matches("{ strategy: ").split(',').next().expect("a name");
        assert_eq!(desk.metrics.conflicts.with_label_values(&["notes", strategy, "mine"]).get(), 1);
        let resolved = resolve(&desk, &one.id, wanted(Choice::Theirs)).await;
        assert_eq!(resolved.result.expect("it is written").outcome, Outcome::Applied);
        assert_eq!(
            (row(&desk).await.as_str(), resolved.conflict.status),
            ("theirs theirs 2", ConflictStatus::Resolved)
        );
    }
}

#[tokio::test]
async fn a_row_deleted_over_changes_of_others_can_come_back() {
    let desk = desk("client_wins").await;
    desk.upload("anna", delete("0", &json!({ "title": "first", "at": "2026-01-02 03:04:05.678912Z" }))).await;
    assert_eq!(kept(&desk, "anna").await, [], "nobody had changed it");
    let insert = json!({ "client_id": "phone", "batch": [
        { "op": "PUT", "table": "notes", "id": "n1", "op_id": "1", "data": { "owner": "anna", "title": "first" } }
    ] });
    desk.upload("anna", insert).await;
    others_write(&desk, "title = 'theirs', n = 7").await;
    desk.upload("anna", delete("2", &json!({ "title": "first" }))).await;
    assert_eq!(row(&desk).await, "gone");
    let one = only_one(&desk).await;
    assert_eq!((one.op, one.resolution), (CrudOp::Delete, Some(Choice::Mine)));
    let restored = resolve(&desk, &one.id, merged(&json!({ "body": "new" }))).await;
    assert_eq!(restored.result.expect("it is written").outcome, Outcome::Applied);
    assert_eq!(desk.value("SELECT concat_ws(' ', title, body, n) FROM notes").await.as_deref(), Some("theirs new 7"));
}

/// What would come back meets a later change, and waits with it.
#[tokio::test]
async fn what_went_does_not_come_back_over_a_later_change() {
    let desk = desk("client_wins").await;
    others_write(&desk, "title = 'theirs'").await;
    desk.upload("anna", patch("1", &json!({ "title": "mine" }), &json!({ "title": "first" }))).await;
    let one = only_one(&desk).await;
    others_write(&desk, "title = 'later'").await;
    let answer = resolve(&desk, &one.id, wanted(Choice::Theirs)).await;
    assert_eq!(
        (answer.result.expect("it was tried").outcome, row(&desk).await),
        (Outcome::Conflict, "later first 1".into())
    );
    let one = only_one(&desk).await;
    assert_eq!((one.status, one.resolution), (ConflictStatus::Open, None));
    assert_eq!(values(one.mine.as_ref()), json!({ "title": "theirs" }), "what is wanted now");
    assert_eq!(one.theirs.as_ref().expect("the row")["title"], "later");
    resolve(&desk, &one.id, wanted(Choice::Mine)).await;
    assert_eq!(row(&desk).await, "theirs first 1");
    let decided = desk.metrics.conflicts.with_label_values(&["notes", "client_wins", "mine"]).get();
    resolve(&desk, &one.id, wanted(Choice::Mine)).await;
    assert_eq!(
        desk.metrics.conflicts.with_label_values(&["notes", "client_wins", "mine"]).get(),
        decided,
        "asked twice"
    );
}

#[tokio::test]
async fn further_changes_of_the_device_belong_to_the_conflict_that_waits() {
    let desk = desk("manual").await;
    let first = first_conflict(&desk).await;
    others_write(&desk, "body = 'theirs'").await;
    let more = patch("2", &json!({ "title": "more", "body": "more" }), &json!({ "title": "mine", "body": "first" }));
    desk.upload("anna", more).await;
    let one = only_one(&desk).await;
    assert_eq!((one.id, one.op_id.as_deref()), (first.id, Some("2")));
    assert_eq!(values(one.base.as_ref()), json!({ "title": "first", "body": "first" }), "as the device saw it first");
    assert_eq!(values(one.mine.as_ref()), json!({ "title": "more", "body": "more" }));
    assert_eq!(one.theirs.expect("the row")["body"], "theirs");
    desk.upload("anna", delete("3", &json!({ "title": "more", "body": "more" }))).await;
    let one = only_one(&desk).await;
    assert_eq!((one.op, one.mine), (CrudOp::Delete, None));
    // Another device of the same user has a conflict of its own.
    let other = json!({ "client_id": "tablet", "batch": [
        { "op": "PATCH", "table": "notes", "id": "n1", "op_id": "1", "data": { "title": "tablet" }, "old": { "title": "first" } },
        { "op": "PATCH", "table": "notes", "id": "n1", "op_id": "2", "data": { "title": "again" }, "old": { "title": "tablet" } },
    ] });
    desk.upload("anna", other).await;
    let kept = kept(&desk, "anna").await;
    assert_eq!(kept.len(), 2);
    assert_eq!(values(kept[0].mine.as_ref()), json!({ "title": "again" }), "two of one batch, too");
}

#[tokio::test]
async fn people_choose_their_own_the_others_or_something_else() {
    for (choice, expected) in [
        (wanted(Choice::Mine), "mine first 1"),
        (wanted(Choice::Theirs), "theirs first 1"),
        (merged(&json!({ "title": "both", "body": "new" })), "both new 1"),
    ] {
        let desk = desk("manual").await;
        let one = first_conflict(&desk).await;
        let resolved = resolve(&desk, &one.id, choice.clone()).await;
        assert_eq!(
            (resolved.conflict.status, resolved.conflict.resolution),
            (ConflictStatus::Resolved, Some(choice.choice))
        );
        assert!(resolved.conflict.resolved_at.is_some());
        assert_eq!(resolved.result.is_some(), choice.choice != Choice::Theirs);
        assert_eq!(resolved.write_checkpoint.is_some(), choice.choice != Choice::Theirs);
        assert_eq!(row(&desk).await, expected);
        // The answer may have been lost; a change since then is not undone.
        others_write(&desk, "title = 'later'").await;
        let again = resolve(&desk, &one.id, choice.clone()).await;
        assert_eq!(again.conflict, resolved.conflict);
        assert!(row(&desk).await.starts_with("later "));
        let other = if choice.choice == Choice::Mine { Choice::Theirs } else { Choice::Mine };
        let error = desk.writer.resolve(&principal("anna"), &one.id, wanted(other)).await.expect_err("decided");
        assert_eq!(error.code(), "WRITE_CONFLICT_RESOLVED");
    }
}

#[tokio::test]
async fn a_decision_that_meets_another_change_is_asked_again() {
    let desk = desk("manual").await;
    let one = first_conflict(&desk).await;
    others_write(&desk, "title = 'later'").await;
    let met = resolve(&desk, &one.id, wanted(Choice::Mine)).await;
    assert_eq!(met.result.expect("tried").outcome, Outcome::Conflict);
    assert_eq!((met.conflict.status, met.conflict.resolution), (ConflictStatus::Open, None));
    assert_eq!(met.conflict.theirs.expect("the row")["title"], "later");
    assert_eq!(row(&desk).await, "later first 1");
    let kept = resolve(&desk, &one.id, wanted(Choice::Mine)).await;
    assert_eq!(kept.conflict.status, ConflictStatus::Resolved);
    assert_eq!(row(&desk).await, "mine first 1");
}

#[tokio::test]
async fn who_keeps_a_change_to_a_row_that_is_gone_gets_the_row_back() {
    let desk = desk("manual").await;
    desk.admin.batch_execute("DELETE FROM notes").await.expect("deletes");
    let old = json!({ "owner": "anna", "title": "first", "body": "first", "hidden": "planted" });
    desk.upload("anna", patch("1", &json!({ "title": "mine" }), &old)).await;
    let one = only_one(&desk).await;
    assert_eq!((one.status, &one.theirs), (ConflictStatus::Open, &None));
    let resolved = resolve(&desk, &one.id, wanted(Choice::Mine)).await;
    assert_eq!(resolved.conflict.status, ConflictStatus::Resolved, "{resolved:?}");
    assert_eq!(row(&desk).await, "mine first 1");
    // A delete that met a change can be kept as well.
    others_write(&desk, "body = 'theirs'").await;
    desk.upload("anna", delete("2", &json!({ "body": "first" }))).await;
    let open = kept(&desk, "anna").await.into_iter().find(|one| one.status == ConflictStatus::Open).expect("it waits");
    resolve(&desk, &open.id, wanted(Choice::Mine)).await;
    assert_eq!(row(&desk).await, "gone");
}

#[tokio::test]
async fn a_refused_write_is_tried_again_or_corrected() {
    let desk = desk("manual").await;
    let long = patch("1", &json!({ "title": "longer than ten" }), &json!({ "title": "first" }));
    desk.upload("anna", long).await;
    let one = only_one(&desk).await;
    let again = resolve(&desk, &one.id, wanted(Choice::Mine)).await;
    assert_eq!(again.result.expect("tried").code.as_deref(), Some("WRITE_VALIDATOR"));
    assert_eq!((again.conflict.status, again.conflict.outcome), (ConflictStatus::Open, Outcome::Refused));
    let corrected = resolve(&desk, &one.id, merged(&json!({ "title": "short" }))).await;
    assert_eq!(corrected.conflict.status, ConflictStatus::Resolved);
    assert_eq!(row(&desk).await, "short first 1");
    // Without what the device saw the strategy could not decide; a person can.
    let blind = json!({ "op": "PATCH", "table": "notes", "id": "n1", "data": { "title": "blind" } });
    assert_eq!(desk.outcome("anna", blind).await, "WRITE_BASE_MISSING");
    let open = kept(&desk, "anna").await.remove(0);
    assert_eq!(resolve(&desk, &open.id, wanted(Choice::Mine)).await.conflict.status, ConflictStatus::Resolved);
    assert_eq!(row(&desk).await, "blind first 1");
}

#[tokio::test]
async fn nobody_decides_about_what_is_not_theirs() {
    let desk = desk("manual").await;
    let one = first_conflict(&desk).await;
    for id in [one.id.as_str(), "2c8ac52a-2b0a-4f61-9ed5-4b1f3c6f0d5e", "no id"] {
        let error = desk.writer.resolve(&principal("eve"), id, wanted(Choice::Mine)).await.expect_err("not hers");
        assert_eq!(error.code(), "WRITE_CONFLICT_UNKNOWN");
    }
    for (choice, data) in [(Choice::Mine, Some(serde_json::Map::new())), (Choice::Merged, None)] {
        let resolve = Resolve { choice, data, remember: false };
        let error = desk.writer.resolve(&principal("anna"), &one.id, resolve).await.expect_err("no sense");
        assert!(matches!(error, ConflictError::Data));
    }
    // The row changed hands meanwhile: rules hold for decisions as they do for uploads.
    others_write(&desk, "owner = 'eve'").await;
    let resolved = resolve(&desk, &one.id, wanted(Choice::Mine)).await;
    let result = resolved.result.expect("tried");
    assert_eq!((result.outcome, result.code.as_deref(), result.row), (Outcome::Refused, Some("WRITE_CHECK"), None));
    assert_eq!(row(&desk).await, "theirs first 1");
    let secret = merged(&json!({ "key": "-----BEGIN PRIVATE KEY-----" }));
    let resolved = resolve(&desk, &one.id, secret).await;
    assert_eq!(resolved.result.expect("tried").code.as_deref(), Some("WRITE_SECRET"));
}

#[tokio::test]
async fn a_choice_that_is_remembered_settles_later_conflicts() {
    let desk = desk("manual").await;
    let preferences = async || desk.writer.preferences("anna").await.expect("a list");
    for (choice, strategy, expected) in [
        (Choice::Theirs, PreferredStrategy::ServerWins, "theirs"),
        (Choice::Mine, PreferredStrategy::ClientWins, "mine"),
    ] {
        desk.admin
            .batch_execute(
                "DELETE FROM kairos.conflicts; DELETE FROM kairos.write_ledger; UPDATE notes SET title = 'first'",
            )
            .await
            .expect("anew");
        let forget = ConflictPreference { table: "notes".to_owned(), strategy: None };
        desk.writer.prefer("anna", &forget).await.expect("forgets");
        let one = first_conflict(&desk).await;
        resolve(&desk, &one.id, Resolve { remember: true, ..wanted(choice) }).await;
        assert_eq!(preferences().await, [ConflictPreference { table: "notes".to_owned(), strategy: Some(strategy) }]);
        desk.admin.batch_execute("DELETE FROM kairos.conflicts").await.expect("empty");
        others_write(&desk, "title = 'theirs'").await;
        desk.upload("anna", patch("2", &json!({ "title": "mine" }), &json!({ "title": "x" }))).await;
        assert_eq!(row(&desk).await, format!("{expected} first 1"));
        let kept = kept(&desk, "anna").await;
        let settled: Vec<_> = kept.iter().map(|one| (one.status, one.resolution)).collect();
        assert_eq!(settled, [(ConflictStatus::Settled, Some(choice))]);
    }
    let of =
        |table: &str| ConflictPreference { table: table.to_owned(), strategy: Some(PreferredStrategy::MergeFields) };
    desk.writer.prefer("anna", &of("notes")).await.expect("remembers");
    assert_eq!(desk.writer.prefer("anna", &of("others")).await.expect_err("no rule").code(), "WRITE_NOT_MANUAL");
    assert_eq!(desk.writer.preferences("eve").await.expect("a list"), [], "each has their own");
    // A preference decides nothing once the rule leaves nothing to people.
    let rules =
        "bucket_definitions: {}\nwrite_rules: { notes: { allow: [patch], check: true, conflict: server_wins } }";
    let strict = desk.another_writer("kairos_service", rules, as_write_role());
    others_write(&desk, "title = 'theirs'").await;
    let batch = super::batch(patch("9", &json!({ "title": "mine", "n": 1 }), &json!({ "title": "x", "n": null })));
    let results = strict.upload(&principal("anna"), batch).await.expect("an answer").results;
    assert_eq!(results[0].outcome, Outcome::Conflict);
}

#[tokio::test]
async fn what_strategies_decided_is_kept_as_history() {
    let version = "{ strategy: version, column: version }";
    let lww = "{ strategy: lww, column: at }";
    let old = json!({ "title": "before", "version": 7, "at": "2020-01-01T00:00:00Z" });
    for (strategy, name, data, resolution) in [
        ("server_wins", "server_wins", json!({ "title": "mine" }), Some(Choice::Theirs)),
        (version, "version", json!({ "title": "mine" }), Some(Choice::Theirs)),
        (lww, "lww", json!({ "title": "mine", "at": "2021-01-01T00:00:00Z" }), Some(Choice::Theirs)),
        ("merge_fields", "merge_fields", json!({ "title": "mine", "n": 1 }), Some(Choice::Merged)),
        ("client_wins", "client_wins", json!({ "title": "mine" }), Some(Choice::Mine)),
        ("{ strategy: counter, columns: [version] }", "counter", json!({ "version": 9 }), None),
    ] {
        let desk = desk(strategy).await;
        let mut old = old.clone();
        old["n"] = Value::Null;
        desk.upload("anna", patch("1", &data, &old)).await;
        let kept = kept(&desk, "anna").await;
        let found: Vec<_> = kept.iter().map(|one| (one.status, one.resolution)).collect();
        let expected: Vec<_> = resolution.iter().map(|one| (ConflictStatus::Settled, Some(*one))).collect();
        assert_eq!(found, expected, "{strategy}");
        for one in &kept {
            assert_eq!(values(one.mine.as_ref()), data, "{strategy}");
            assert_eq!(one.theirs.as_ref().expect("the row")["title"], "first", "{strategy}");
            let label = match resolution {
                Some(Choice::Merged) => "merged",
                Some(Choice::Mine) => "mine",
                _ => "theirs",
            };
            assert_eq!(desk.metrics.conflicts.with_label_values(&["notes", name, label]).get(), 1, "{strategy}");
            // A person may still overrule the strategy.
            let resolved = resolve(&desk, &one.id, wanted(Choice::Mine)).await;
            assert_eq!(resolved.conflict.status, ConflictStatus::Resolved, "{strategy} {resolved:?}");
            let expected = if strategy == version { "mine first 2" } else { "mine first 1" };
            assert_eq!(row(&desk).await, expected, "{strategy}");
        }
    }
}

#[tokio::test]
async fn a_user_has_a_share_and_decided_ones_make_room_first() {
    let desk = desk("client_wins").await;
    let refused = |range: std::ops::Range<i32>, body: &str| {
        let one = |n| json!({ "op": "PUT", "table": "unknown", "id": format!("{n}"), "data": { "body": body } });
        json!({ "batch": range.map(one).collect::<Vec<_>>() })
    };
    desk.upload("anna", refused(0..900, "small")).await;
    desk.upload("eve", refused(0..1, "small")).await;
    desk.admin
        .batch_execute("UPDATE kairos.conflicts SET status = 'resolved' WHERE row_id::int % 2 = 0 AND user_id = 'anna'")
        .await
        .expect("decided");
    desk.upload("anna", refused(900..1_400, "small")).await;
    let counts = desk.writer.conflict_counts("anna").await.expect("counts");
    let counts: Vec<_> = counts.iter().map(|one| (one.status, one.outcome, one.count)).collect();
    let expected = [(ConflictStatus::Open, Outcome::Refused, 950), (ConflictStatus::Resolved, Outcome::Refused, 50)];
    assert_eq!(counts, expected);
    let newest = "SELECT min(row_id::int)::bigint FROM kairos.conflicts WHERE status = 'resolved'";
    assert_eq!(desk.count(newest).await, 800, "the newest");
    // Large ones: sixteen megabytes in all.
    desk.upload("anna", refused(2_000..2_012, &"x".repeat(1_000_000))).await;
    desk.upload("anna", refused(3_000..3_012, &"x".repeat(1_000_000))).await;
    let bytes =
        desk.count("SELECT sum(octet_length(mine::text))::bigint FROM kairos.conflicts WHERE user_id = 'anna'").await;
    assert!((15_000_000..17_000_000).contains(&bytes), "{bytes}");
    let newest = desk.count("SELECT count(*) FROM kairos.conflicts WHERE row_id::int >= 3000").await;
    assert_eq!(newest, 12, "the newest stay");
    assert_eq!(kept(&desk, "eve").await.len(), 1, "another user's stay");
}

#[tokio::test]
async fn history_has_an_end_and_open_ones_have_none() {
    let options = WriteOptions { keep_conflicts_for: Duration::from_hours(1), ..as_write_role() };
    let desk = desk_with("server_wins", options).await;
    desk.admin
        .batch_execute(
            "INSERT INTO kairos.conflicts (id, user_id, op, table_name, outcome, status, recorded_at, value_bytes)
             SELECT gen_random_uuid(), 'anna', 'PUT', 'notes', 'refused', status, now() - age, 0
               FROM unnest('{open,settled,resolved}'::text[]) status, unnest('{2 hours,1 minute}'::interval[]) age",
        )
        .await
        .expect("rows");
    desk.upload("anna", patch("1", &json!({ "title": "taken" }), &json!({ "title": "first" }))).await;
    let left = "SELECT string_agg(status, ' ' ORDER BY status) FROM kairos.conflicts";
    assert_eq!(desk.value(left).await.as_deref(), Some("open open resolved settled"));
}

#[tokio::test]
async fn filters_find_what_is_asked_for() {
    let desk = desk("server_wins").await;
    desk.upload("anna", patch("1", &json!({ "title": "mine" }), &json!({ "title": "x" }))).await;
    desk.upload("anna", json!({ "op": "PUT", "table": "unknown", "id": "1", "data": {} })).await;
    let find = async |status: Option<ConflictStatus>, table: Option<&str>, limit: u16| {
        let filter = ConflictFilter { status, table: table.map(str::to_owned), limit };
        let found = Writer::conflicts(&desk.writer, "anna", &filter).await.expect("a list");
        found.into_iter().map(|one| one.table).collect::<Vec<_>>()
    };
    assert_eq!(find(None, None, 10).await, ["unknown", "notes"], "newest first");
    assert_eq!(find(None, None, 1).await, ["unknown"]);
    assert_eq!(find(Some(ConflictStatus::Settled), None, 10).await, ["notes"]);
    assert_eq!(find(Some(ConflictStatus::Open), Some("notes"), 10).await, [""; 0]);
}
