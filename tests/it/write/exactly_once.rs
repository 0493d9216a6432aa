//! A repeated upload has one effect and gets one answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kairos_sync::write::WriteOptions;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{Desk, as_write_role, batch, codes, habit, principal, rules};
use crate::migrations::connect_to;

/// Every write to a habit is counted by a trigger, so that a second effect shows.
pub(super) const COUNTED: &str = "
    CREATE TABLE effects (habit text);
    GRANT INSERT ON effects TO kairos_write;
    CREATE FUNCTION count_effect() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO effects VALUES (coalesce(NEW.id, OLD.id)); RETURN NULL; END $$;
    CREATE TRIGGER count_effect AFTER INSERT OR UPDATE OR DELETE ON habits FOR EACH ROW EXECUTE FUNCTION count_effect();
";

fn mixed() -> Value {
    json!({ "client_id": "phone", "batch": [
        { "op": "PUT", "table": "habits", "id": "h1", "op_id": "1", "data": { "name": "Read", "user_id": "anna" } },
        { "op": "PUT", "table": "habits", "id": "h2", "op_id": "2", "data": { "name": "", "user_id": "anna" } },
        { "op": "PATCH", "table": "habits", "id": "h1", "op_id": "3", "data": { "name": "Run" } },
    ] })
}

async fn effects(desk: &Desk) -> i64 {
    desk.count("SELECT count(*) FROM effects").await
}

#[tokio::test]
async fn a_repeated_batch_gets_the_first_answers_and_has_no_effect() {
    let desk = Desk::with(COUNTED, &rules(""), as_write_role()).await;
    let first = desk.upload("anna", mixed()).await;
    assert_eq!(codes(&first), ["", "WRITE_CONSTRAINT", ""]);
    desk.admin.batch_execute("UPDATE habits SET name = 'By another device'").await.unwrap();
    let before = effects(&desk).await;
    assert_eq!(desk.upload("anna", mixed()).await, first);
    assert_eq!(effects(&desk).await, before);
    assert_eq!(
        desk.value("SELECT name FROM habits").await.as_deref(),
        Some("By another device"),
        "no old write comes back"
    );
    assert_eq!(desk.written("repeated"), 3);
}

#[tokio::test]
async fn twenty_parallel_duplicates_on_two_nodes_have_one_effect() {
    let desk = Desk::with(COUNTED, &rules(""), as_write_role()).await;
    let other_node = desk.another_writer("kairos_service", &rules(""), as_write_role());
    let uploads: Vec<_> = (0..20)
        .map(|n| {
            let node = Arc::clone(if n % 2 == 0 { &desk.writer } else { &other_node });
            tokio::spawn(async move { node.upload(&principal("anna"), batch(mixed())).await })
        })
        .collect();
    let mut answers = Vec::new();
    for upload in uploads {
        answers.push(upload.await.expect("no panic").expect("an answer").results);
    }
    assert_eq!(codes(&answers[0]), ["", "WRITE_CONSTRAINT", ""]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(effects(&desk).await, 2);
}

#[tokio::test]
async fn a_lost_answer_changes_nothing() {
    let desk = Desk::with(COUNTED, &rules(""), as_write_role()).await;
    // The client goes away while the upload runs, at any moment of it.
    for wait in [0, 1, 2, 3, 5, 8, 13, 21] {
        let (node, user) = (Arc::clone(&desk.writer), principal("anna"));
        let upload = tokio::spawn(async move { node.upload(&user, batch(mixed())).await });
        tokio::time::sleep(Duration::from_millis(wait)).await;
        upload.abort();
        let _ = upload.await;
    }
    assert_eq!(codes(&desk.upload("anna", mixed()).await), ["", "WRITE_CONSTRAINT", ""]);
    assert_eq!(effects(&desk).await, 2);
    assert_eq!(desk.count("SELECT count(*) FROM kairos.write_ledger").await, 3);
}

#[tokio::test]
async fn a_write_is_remembered_for_its_own_user_client_and_content() {
    let desk = Desk::open().await;
    let put = |client: &str, id: &str, user: &str| {
        json!({ "client_id": client, "batch": [
            { "op": "PUT", "table": "habits", "id": id, "op_id": "1", "data": { "name": "x", "user_id": user } }
        ] })
    };
    // The same op id: of another client, another user, and of a device restored from a backup.
    for (client, id, user) in
        [("phone", "a", "anna"), ("watch", "b", "anna"), ("phone", "c", "ben"), ("phone", "d", "anna")]
    {
        assert_eq!(codes(&desk.upload(user, put(client, id, user)).await), [""], "{client} {id} {user}");
    }
    assert_eq!(desk.count("SELECT count(*) FROM habits").await, 4);
    assert_eq!(desk.written("repeated"), 0);
}

#[tokio::test]
async fn an_operation_twice_in_one_batch_has_one_effect() {
    let desk = Desk::with(COUNTED, &rules(""), as_write_role()).await;
    let Value::Object(mut whole) = mixed() else { unreachable!("an object") };
    let Some(Value::Array(entries)) = whole.get_mut("batch") else { unreachable!("a list") };
    entries.push(entries[0].clone());
    assert_eq!(codes(&desk.upload("anna", Value::Object(whole)).await), ["", "WRITE_CONSTRAINT", "", ""]);
    assert_eq!(effects(&desk).await, 2);
}

#[tokio::test]
async fn writes_without_ids_are_taken_each_time() {
    let desk = Desk::with(COUNTED, &rules(""), as_write_role()).await;
    desk.upload("anna", habit("h1", "anna")).await;
    desk.upload("anna", habit("h1", "anna")).await;
    assert_eq!(effects(&desk).await, 2);
    assert_eq!(desk.count("SELECT count(*) FROM kairos.write_ledger").await, 0);
}

#[tokio::test]
async fn old_answers_are_forgotten() {
    let options = WriteOptions { remember_for: Duration::from_hours(1), ..as_write_role() };
    let desk = Desk::with("", &rules(""), options).await;
    let old = "INSERT INTO kairos.write_ledger (key, outcome, recorded_at)
               SELECT sha256(n::text::bytea), 'applied', now() - make_interval(mins => n) FROM generate_series(1, 120) n";
    desk.admin.batch_execute(old).await.unwrap();
    desk.upload("anna", mixed()).await;
    let left = desk.count("SELECT count(*) FROM kairos.write_ledger").await;
    assert!((62..=63).contains(&left), "an hour of answers and three new ones: {left}");
}

#[tokio::test]
async fn a_batch_that_loses_a_deadlock_is_run_again() {
    let mut desk = Desk::with(COUNTED, &rules(""), as_write_role()).await;
    // The upload notices first, and so it is the one to give way.
    let impatient = format!("ALTER ROLE kairos_service IN DATABASE {} SET deadlock_timeout = '20ms'", desk.database);
    desk.admin.batch_execute(&impatient).await.unwrap();
    desk.admin.batch_execute("SET deadlock_timeout = '1min'").await.unwrap();
    desk.upload("ben", json!([habit("a", "ben"), habit("b", "ben")])).await;
    let other = desk.another_writer("kairos_service", &rules(""), as_write_role());

    let watcher = connect_to(&desk.cluster, "postgres", &desk.database).await;
    let meeting = desk.admin.transaction().await.unwrap();
    meeting.batch_execute("UPDATE habits SET name = 'admin' WHERE id = 'b'").await.unwrap();
    let patch = |id: &str| json!({ "op": "PATCH", "table": "habits", "id": id, "data": { "name": "ben" } });
    let entries = json!({ "client_id": "c", "batch": [patch("a"), patch("b")] });
    let upload = tokio::spawn(async move { other.upload(&principal("ben"), batch(entries)).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(10);
    while watcher.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(Instant::now() < deadline, "the upload waits for `b`");
        tokio::task::yield_now().await;
    }
    meeting.batch_execute("UPDATE habits SET name = 'admin' WHERE id = 'a'").await.expect("the upload gave way");
    meeting.commit().await.unwrap();

    let answer = upload.await.expect("no panic").expect("taken in the end");
    assert_eq!(codes(&answer.results), ["", ""]);
    assert_eq!(desk.value("SELECT string_agg(DISTINCT name, ',') FROM habits").await.as_deref(), Some("ben"));
    assert_eq!(effects(&desk).await, 2 + 2 + 2);
}

/// A counter tells: each of these writes adds one, however often and in whatever order copies of it arrive.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_copies_out_of_order_and_without_answers_count_once() {
    let seed: u64 =
        std::env::var("KAIROS_UPLOAD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("KAIROS_UPLOAD_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let sql = "CREATE TABLE counters (id text PRIMARY KEY, n bigint NOT NULL);
               INSERT INTO counters VALUES ('a', 0), ('b', 0), ('c', 0);
               SELECT kairos.publish_table('counters', 'UPDATE')";
    let rules = "bucket_definitions: {}\nwrite_rules:\n  counters: { allow: [patch], check: true, \
                 conflict: { strategy: counter, columns: [n] } }\n";
    let desk = Desk::with(sql, rules, as_write_role()).await;
    let nodes = [Arc::clone(&desk.writer), desk.another_writer("kairos_service", rules, as_write_role())];
    // Batches of three devices; each write to one of three rows, which all of them write to.
    let mut batches: Vec<Vec<Value>> = vec![Vec::new(); 3];
    let mut expected = [0_i64; 3];
    for (device, batches) in batches.iter_mut().enumerate() {
        let mut op_id = 0;
        for _ in 0..60 {
            let write = |_| {
                op_id += 1;
                let row = random.random_range(0..3);
                expected[row] += 1;
                json!({ "op": "PATCH", "table": "counters", "id": (["a", "b", "c"][row]), "op_id": op_id,
                        "data": { "n": op_id }, "old": { "n": op_id - 1 } })
            };
            let entries: Vec<Value> = (0..=device).map(write).collect();
            batches.push(json!({ "client_id": format!("device-{device}"), "batch": entries }));
        }
    }
    let mut next = [0_usize; 3];
    let mut under_way = tokio::task::JoinSet::new();
    let mut copies = 0;
    while copies < 1_000 || next.iter().any(|&next| next < 60) {
        copies += 1;
        let device = random.random_range(0..3);
        // The next one, or one that was sent before.
        let number = if next[device] < 60 && random.random_bool(0.25) {
            next[device]
        } else {
            random.random_range(0..=next[device].min(59))
        };
        next[device] = next[device].max(number + 1).min(60);
        let (node, upload) = (Arc::clone(&nodes[random.random_range(0..2)]), batch(batches[device][number].clone()));
        let lost_after = random.random_bool(0.3).then(|| Duration::from_micros(random.random_range(0..8_000)));
        under_way.spawn(async move {
            let anna = principal("anna");
            let written = node.upload(&anna, upload);
            let answer = match lost_after {
                Some(time) => tokio::time::timeout(time, written).await.ok(),
                None => Some(written.await),
            };
            answer.map(|answer| answer.expect("an answer"))
        });
        if under_way.len() >= 6 {
            under_way.join_next().await.expect("some are under way").expect("no panic");
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended.expect("no panic");
    }
    // The last word: every batch once more, in order, now answered.
    for batches in &batches {
        for upload in batches {
            let results = nodes[0].upload(&principal("anna"), batch(upload.clone())).await.expect("an answer").results;
            assert!(codes(&results).iter().all(String::is_empty), "seed {seed}: {results:?}");
        }
    }
    for (row, expected) in ["a", "b", "c"].iter().zip(expected) {
        let found = desk.count(&format!("SELECT n FROM counters WHERE id = '{row}'")).await;
        assert_eq!(found, expected, "seed {seed}: row {row}");
    }
    println!("{copies} copies, {} answered from memory", desk.written("repeated"));
}
