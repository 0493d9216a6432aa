//! Nobody writes what is not theirs: by the rules, and by Postgres when the rules say yes to everything.

use kairos_sync::write::WriteOptions;
use serde_json::{Value, json};

use super::{Desk, as_write_role, codes, habit, principal, rules};

/// Rules that allow everything.
const OPEN_RULES: &str = "bucket_definitions: {}
write_rules:
  users:
    allow: [put, patch, delete]
    check: true
  habits:
    allow: [put, patch, delete]
    check: true
  completions:
    allow: [put, patch, delete]
    check: true
  routines:
    allow: [put, patch, delete]
    check: true
  routine_habits:
    allow: [put, patch, delete]
    check: true
  household_members:
    allow: [put, patch, delete]
    check: true
";

async fn bens_rows(desk: &Desk) {
    desk.admin
        .batch_execute(
            "INSERT INTO households (id, name) VALUES ('home', 'Home');
             INSERT INTO household_members (id, household_id, user_id) VALUES ('m', 'home', 'ben');
             INSERT INTO habits (id, user_id, name) VALUES ('ben-1', 'ben', 'Secret');
             INSERT INTO completions (id, habit_id, completed_on) VALUES ('ben-c', 'ben-1', '2026-01-01');
             INSERT INTO routines (id, user_id, name) VALUES ('ben-r', 'ben', 'Secret');",
        )
        .await
        .expect("inserts");
}

/// Everything Ben has, as one text.
async fn bens_state(desk: &Desk) -> Option<String> {
    desk.value(
        "SELECT jsonb_build_array(
             (SELECT jsonb_agg(h) FROM habits h WHERE id = 'ben-1'), (SELECT jsonb_agg(c) FROM completions c WHERE id = 'ben-c'),
             (SELECT jsonb_agg(r) FROM routines r WHERE id = 'ben-r'), (SELECT jsonb_agg(m) FROM household_members m)
         )::text",
    )
    .await
}

fn attacks() -> Vec<Value> {
    let patch = |table: &str, id: &str, data: Value| json!({ "op": "PATCH", "table": table, "id": id, "data": data });
    let put = |table: &str, id: &str, data: Value| json!({ "op": "PUT", "table": table, "id": id, "data": data });
    let delete = |table: &str, id: &str| json!({ "op": "DELETE", "table": table, "id": id });
    vec![
        put("habits", "ben-1", json!({ "user_id": "anna", "name": "Mine now" })),
        put("habits", "ben-1", json!({ "name": "Defaced" })),
        put("habits", "ben-1", json!({})),
        patch("habits", "ben-1", json!({ "user_id": "anna" })),
        patch("habits", "ben-1", json!({ "name": "Defaced" })),
        delete("habits", "ben-1"),
        put("habits", "for-ben", json!({ "user_id": "ben", "name": "Planted" })),
        put("completions", "c", json!({ "habit_id": "ben-1", "completed_on": "2026-01-02" })),
        put("completions", "ben-c", json!({ "habit_id": "anna-1", "completed_on": "2026-01-02" })),
        patch("completions", "ben-c", json!({ "habit_id": "anna-1" })),
        delete("completions", "ben-c"),
        put("routine_habits", "rh", json!({ "routine_id": "anna-r", "habit_id": "ben-1" })),
        put("routine_habits", "rh", json!({ "routine_id": "ben-r", "habit_id": "anna-1" })),
        put("household_members", "x", json!({ "household_id": "home", "user_id": "anna" })),
        patch("household_members", "m", json!({ "user_id": "anna" })),
    ]
}

/// Runs all attacks as Anna; the codes.
async fn attack(desk: &Desk) -> Vec<String> {
    bens_rows(desk).await;
    let routine =
        json!({ "op": "PUT", "table": "routines", "id": "anna-r", "data": { "user_id": "anna", "name": "Mine" } });
    let own = desk.upload("anna", json!([habit("anna-1", "anna"), routine])).await;
    assert_eq!(codes(&own), ["", ""]);
    let before = bens_state(desk).await;
    let results = desk.upload("anna", json!(attacks())).await;
    assert_eq!(bens_state(desk).await, before, "Ben has what he had");
    assert_eq!(desk.count("SELECT count(*) FROM completions WHERE habit_id = 'ben-1'").await, 1, "nothing was planted");
    assert_eq!(desk.count("SELECT count(*) FROM habits WHERE user_id = 'ben'").await, 1, "nothing was planted");
    assert_eq!(desk.count("SELECT count(*) FROM routine_habits").await, 0);
    codes(&results)
}

#[tokio::test]
async fn rows_of_others_are_out_of_reach() {
    let desk = Desk::open().await;
    let codes = attack(&desk).await;
    let applied: Vec<_> = attacks().into_iter().zip(&codes).filter(|(_, code)| code.is_empty()).collect();
    // A row one may not see is a missing row, and so no failure for these.
    assert!(applied.iter().all(|(attack, _)| attack["op"] != "PUT"), "{applied:?}");
}

#[tokio::test]
async fn row_level_security_holds_when_the_rules_allow_everything() {
    let desk = Desk::with("", OPEN_RULES, as_write_role()).await;
    let codes = attack(&desk).await;
    assert_eq!(codes[6], "WRITE_RLS", "planting a row for somebody else");
    assert_eq!(codes[13], "WRITE_PRIVILEGE", "joining a household");
}

#[tokio::test]
async fn the_rules_hold_when_row_level_security_does_not() {
    let desk = Desk::open().await;
    bens_rows(&desk).await;
    // A superuser, whom no row-level security binds, and no role to change to.
    let as_superuser = desk.another_writer("postgres", &rules(""), WriteOptions::default());
    let before = bens_state(&desk).await;
    for attack in &attacks()[..7] {
        let answer = as_superuser.upload(&principal("anna"), super::batch(attack.clone())).await.unwrap();
        assert_eq!(codes(&answer.results), ["WRITE_CHECK"], "{attack}");
    }
    assert_eq!(bens_state(&desk).await, before);
    assert_eq!(desk.count("SELECT count(*) FROM habits").await, 1);
}

#[tokio::test]
async fn one_cannot_give_a_row_away() {
    let desk = Desk::open().await;
    desk.upload("anna", habit("h1", "anna")).await;
    let patch = json!({ "op": "PATCH", "table": "habits", "id": "h1", "data": { "user_id": "ben" } });
    assert_ne!(desk.outcome("anna", patch).await, "");
    assert_eq!(desk.value("SELECT user_id FROM habits").await.as_deref(), Some("anna"));
}

#[tokio::test]
async fn no_text_anywhere_becomes_sql() {
    let desk = Desk::open().await;
    desk.upload("anna", habit("h1", "anna")).await;
    let evil = "x'; DROP TABLE habits; --\" $1 \\ \u{202e} %s {} \n";
    let results = desk
        .upload(
            evil,
            json!({ "client_id": evil, "batch": [
                { "op": "PUT", "table": evil, "id": evil, "op_id": evil, "data": { evil: evil } },
                { "op": "PUT", "table": "habits", "id": evil, "op_id": "2", "data": { evil: evil } },
                { "op": "PUT", "table": "habits", "id": evil, "op_id": "3", "data": { "name": evil, "user_id": evil } },
                { "op": "PATCH", "table": "habits", "id": "' OR true --", "op_id": "4", "data": { "name": evil } },
                { "op": "DELETE", "table": "habits", "id": "' OR true --", "op_id": evil },
                { "op": "PUT", "table": "public.habits\"; --", "id": "1", "op_id": "6", "data": {} },
            ] }),
        )
        .await;
    assert_eq!(codes(&results), ["WRITE_NO_RULE", "WRITE_UNKNOWN_COLUMN", "", "", "", "WRITE_NO_RULE"]);
    assert_eq!(desk.count("SELECT count(*) FROM habits").await, 2);
    let stored = desk.admin.query_one("SELECT id, name, user_id FROM habits WHERE id <> 'h1'", &[]).await.unwrap();
    assert_eq!((stored.get(0), stored.get(1), stored.get(2)), (evil, evil, evil));
}

#[tokio::test]
async fn claims_and_role_do_not_outlive_the_upload() {
    let desk = Desk::with("", &rules(""), as_write_role()).await;
    let sql = "CREATE TABLE seen (id text PRIMARY KEY, who text DEFAULT kairos.current_user_id(), role text DEFAULT current_user)";
    desk.admin.batch_execute(sql).await.unwrap();
    desk.admin.batch_execute("SELECT kairos.publish_table('seen', 'INSERT, UPDATE')").await.unwrap();
    let more = rules("  seen:\n    allow: [put]\n    check: true\n");
    let seen = desk.another_writer("kairos_service", &more, as_write_role());
    for (index, user) in ["anna", "ben", "anna"].iter().enumerate() {
        let put = json!({ "op": "PUT", "table": "seen", "id": index, "data": {} });
        let answer = seen.upload(&principal(user), super::batch(put)).await.unwrap();
        assert_eq!(codes(&answer.results), [""]);
    }
    let who = desk.value("SELECT string_agg(who || '/' || role, ' ' ORDER BY id) FROM seen").await;
    assert_eq!(who.as_deref(), Some("anna/kairos_write ben/kairos_write anna/kairos_write"));
}

#[tokio::test]
async fn a_check_may_compare_with_the_row_as_it_was() {
    let rules = "bucket_definitions: {}
write_rules:
  habits:
    allow: [put, patch]
    check: row.user_id = auth.user_id() AND (old.id IS NULL OR (old.user_id = auth.user_id() AND row.position > old.position))
";
    let desk = Desk::with("", rules, as_write_role()).await;
    let patch =
        |position: i64| json!({ "op": "PATCH", "table": "habits", "id": "h", "data": { "position": position } });
    assert_eq!(desk.outcome("anna", habit("h", "anna")).await, "");
    assert_eq!(desk.outcome("anna", patch(2)).await, "");
    assert_eq!(desk.outcome("anna", patch(1)).await, "WRITE_CHECK");
    assert_eq!(desk.value("SELECT position::text FROM habits WHERE id = 'h'").await.as_deref(), Some("2"));
}
