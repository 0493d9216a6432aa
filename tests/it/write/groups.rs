//! Operations that are sent together end as they do one by one.

use kairos_sync::write::WriteOptions;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{Desk, as_write_role, codes, habit, rules};

/// A table for each strategy, and what makes operations depend on those before them: foreign keys, unique and deferred
/// constraints, policies that count rows, triggers that change neighbours, refuse, number, or take writes elsewhere.
const SCHEMA: &str = "
    CREATE TABLE plain (id bigint PRIMARY KEY, owner text NOT NULL, name text UNIQUE, n int CHECK (n < 90),
        parent bigint REFERENCES plain ON DELETE CASCADE, nth int, seen int NOT NULL DEFAULT 0);
    CREATE TABLE timed (id text PRIMARY KEY, owner text NOT NULL, a text, at timestamptz,
        plain bigint REFERENCES plain DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE merged (id text PRIMARY KEY, owner text NOT NULL, a text, b text, doc jsonb);
    CREATE TABLE versioned (id uuid PRIMARY KEY, owner text NOT NULL, a text, version int NOT NULL DEFAULT 0);
    CREATE TABLE counted (id text PRIMARY KEY, owner text NOT NULL, n bigint NOT NULL DEFAULT 0, tags text[]);
    CREATE TABLE logged (id text PRIMARY KEY, owner text NOT NULL, a text NOT NULL);
    CREATE TABLE journal (nth int, what text);
    GRANT SELECT, INSERT ON journal TO kairos_write;
    SELECT kairos.publish_table(name::regclass, 'INSERT, UPDATE, DELETE')
        FROM unnest('{plain,timed,merged,versioned,counted,logged}'::text[]) name;
    ALTER TABLE logged ENABLE ROW LEVEL SECURITY;
    CREATE FUNCTION logged_count() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM logged';
    CREATE POLICY few ON logged TO kairos_write USING (owner <> 'hidden') WITH CHECK (logged_count() < 25);
    CREATE FUNCTION on_plain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.n = 7 THEN RAISE EXCEPTION 'seven' USING CONSTRAINT = 'no_sevens'; END IF;
        IF NEW.n = 8 THEN RETURN NULL; END IF;
        NEW.nth := (SELECT count(*) FROM plain);
        RETURN NEW;
    END $$;
    CREATE TRIGGER on_plain BEFORE INSERT OR UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION on_plain();
    -- The neighbour changes hands, or goes, or is seen.
    CREATE FUNCTION after_plain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO journal SELECT count(*), TG_OP || coalesce(NEW.id, OLD.id) FROM journal;
        IF NEW.n = 11 THEN UPDATE plain SET owner = 'ben', n = 0 WHERE id = NEW.id + 1; END IF;
        IF NEW.n = 12 THEN DELETE FROM plain WHERE id = NEW.id + 1; END IF;
        IF NEW.n = 13 THEN INSERT INTO plain (id, owner, n) VALUES (NEW.id + 1, 'anna', 0) ON CONFLICT DO NOTHING; END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER after_plain AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW
        WHEN (pg_trigger_depth() < 2) EXECUTE FUNCTION after_plain();
";

const RULES: &str = "
bucket_definitions: {}
write_rules:
  plain: { allow: [put, patch, delete], columns: { deny: [nth] }, check: row.owner = auth.user_id() }
  timed: { allow: [put, patch, delete], check: row.owner = auth.user_id(), conflict: { strategy: lww, column: at } }
  merged: { allow: [put, patch, delete], check: row.owner = auth.user_id(), conflict: merge_fields }
  versioned: { allow: [put, patch, delete], check: row.owner = auth.user_id(), conflict: { strategy: version, column: version } }
  counted:
    allow: [put, patch]
    columns: { stamp: { owner: auth.user_id() } }
    check: old.id IS NULL OR old.owner = auth.user_id()
    conflict: { strategy: counter, columns: [n] }
  logged: { allow: [put], check: true, conflict: append_only }
";

const TABLES: [&str; 6] = ["plain", "timed", "merged", "versioned", "counted", "logged"];

/// A random operation, most of them fine, on few rows, so that operations meet.
fn operation(random: &mut StdRng, op_id: usize) -> Value {
    let table = TABLES[random.random_range(0..TABLES.len())];
    let row = random.random_range(1..30);
    let is_odd = random.random_bool(0.1);
    let id = match table {
        // The same row, spelled otherwise.
        "plain" if is_odd => ["1", "01", " 1", "x"][random.random_range(0..4)].to_owned(),
        "versioned" if is_odd => format!("00000000-0000-0000-0000-0000000000A{}", row % 10),
        "versioned" => format!("00000000-0000-0000-0000-0000000000a{}", row % 10),
        _ => row.to_string(),
    };
    let owner = if random.random_bool(0.9) { "anna" } else { "ben" };
    let text = |random: &mut StdRng| format!("v{}", random.random_range(0..6));
    let data = match table {
        "plain" => json!({ "owner": owner, "name": format!("n{}", random.random_range(0..60)),
                           "n": if random.random_bool(0.3) { [7, 8, 11, 12, 13, 90][random.random_range(0..6)] } else { row },
                           "parent": random.random_bool(0.3).then(|| random.random_range(1..30)) }),
        "timed" => json!({ "owner": owner, "a": text(random),
                           "at": if is_odd { "no time".to_owned() } else { format!("2026-01-{:02}", random.random_range(1..29)) },
                           "plain": random.random_bool(0.05).then(|| random.random_range(1..30)) }),
        "merged" => json!({ "owner": owner, "a": text(random), "b": text(random), "doc": format!("{{\"k\": {row}}}") }),
        "versioned" => json!({ "owner": owner, "a": text(random), "version": random.random_range(1..4) }),
        "counted" => json!({ "n": random.random_range(0..50), "unknown": 1 }),
        _ => json!({ "owner": if is_odd { "hidden" } else { "anna" }, "a": text(random) }),
    };
    let Value::Object(mut data) = data else { unreachable!("an object") };
    if !(table == "counted" && is_odd) {
        data.remove("unknown");
    }
    let op = ["PUT", "PUT", "PATCH", "PATCH", "DELETE"][random.random_range(0..5)];
    if op == "PATCH" {
        // Without a time it would be the server's, which is not the same in two databases.
        data.retain(|name, _| name == "at" || random.random_bool(0.6));
    }
    let old =
        json!({ "owner": "anna", "a": text(random), "b": text(random), "n": 1, "version": random.random_range(0..4) });
    json!({ "op": op, "table": table, "id": id, "op_id": op_id % 997, "data": data, "old": old })
}

async fn contents(desk: &Desk) -> Vec<Option<String>> {
    let mut contents = Vec::new();
    for table in TABLES.iter().chain(&["journal"]) {
        contents.push(desk.value(&format!("SELECT string_agg(t::text, E'\\n' ORDER BY t::text) FROM {table} t")).await);
    }
    contents
}

#[tokio::test]
async fn a_batch_in_groups_ends_as_it_does_one_by_one() {
    let seed: u64 =
        std::env::var("KAIROS_UPLOAD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("KAIROS_UPLOAD_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let grouped = Desk::with(SCHEMA, RULES, as_write_role()).await;
    let one_by_one = Desk::with(SCHEMA, RULES, WriteOptions { group_size_max: 1, ..as_write_role() }).await;
    let (mut op_id, mut outcomes) = (0, std::collections::BTreeMap::<String, usize>::new());
    for round in 0..25 {
        let count = [1, 3, 20, 60, 150][random.random_range(0..5)];
        let entries: Vec<Value> = (0..count)
            .map(|_| {
                // Now and then an id that was used, for the same write or another one.
                op_id += usize::from(random.random_bool(0.97));
                operation(&mut random, op_id)
            })
            .collect();
        let upload = json!({ "client_id": "phone", "batch": entries });
        let [together, apart] = [grouped.upload("anna", upload.clone()).await, one_by_one.upload("anna", upload).await];
        for ((together, apart), entry) in together.iter().zip(&apart).zip(&entries) {
            assert_eq!(together, apart, "seed {seed}, round {round}: {entry}");
            *outcomes.entry(apart.code.clone().unwrap_or_else(|| format!("{:?}", apart.outcome))).or_default() += 1;
        }
        assert_eq!(contents(&grouped).await, contents(&one_by_one).await, "seed {seed}, round {round}");
    }
    println!("{outcomes:?}");
    for code in ["Applied", "WRITE_CHECK", "WRITE_CONSTRAINT", "WRITE_CONFLICT", "WRITE_VALUE", "WRITE_TRIGGER"] {
        assert!(outcomes.contains_key(code), "seed {seed}: no {code} among {outcomes:?}");
    }
}

#[tokio::test]
async fn neighbours_that_one_write_changes_are_seen_by_the_next() {
    for (n, expected) in [(11, "WRITE_CHECK"), (12, ""), (13, "")] {
        let desk = Desk::with(SCHEMA, RULES, as_write_role()).await;
        let put =
            |id: i32, n: i32| json!({ "op": "PUT", "table": "plain", "id": id, "data": { "owner": "anna", "n": n } });
        desk.upload("anna", if n == 13 { json!([put(1, 1)]) } else { json!([put(1, 1), put(2, 1)]) }).await;
        let patch = |id: i32, n: i32| json!({ "op": "PATCH", "table": "plain", "id": id, "data": { "n": n } });
        let results = desk.upload("anna", json!([patch(1, n), patch(2, 50)])).await;
        assert_eq!(codes(&results), ["", expected], "{n}");
        let second = desk.value("SELECT max(n || owner) FROM plain WHERE id = 2").await;
        assert_eq!(second.as_deref(), [Some("0ben"), None, Some("50anna")][usize::try_from(n).unwrap() - 11], "{n}");
    }
}

/// Rows written under one savepoint have one `xmin`. One operation that is refused costs a few savepoints more, not one
/// for each of the others.
#[tokio::test]
async fn operations_are_sent_together_also_where_one_is_refused() {
    for (refused, group_count) in [(None, 3), (Some(40), 4), (Some(0), 4), (Some(99), 3)] {
        let desk = Desk::with("", &rules(""), as_write_role()).await;
        let mut entries: Vec<Value> = (0..100).map(|n| habit(&format!("h{n}"), "anna")).collect();
        if let Some(refused) = refused {
            let entry: &mut Value = &mut entries[refused];
            entry["data"]["name"] = json!("");
        }
        let results = desk.upload("anna", Value::Array(entries)).await;
        let refused_at: Vec<usize> =
            codes(&results).iter().enumerate().filter(|(_, code)| !code.is_empty()).map(|(index, _)| index).collect();
        assert_eq!(refused_at, Vec::from_iter(refused));
        assert_eq!(desk.count("SELECT count(DISTINCT xmin::text) FROM habits").await, group_count, "{refused:?}");
    }
}
