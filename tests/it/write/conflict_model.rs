//! Two devices change a row at random, each knowing what it last heard and what it did since: what becomes of the row
//! and of each write under every strategy, compared with a model that knows nothing of how the service decides.

use std::collections::{BTreeMap, BTreeSet};

use kairos_sync::write::ConflictFilter;
use kairos_sync_protocol::{
    conflict::{Choice, Conflict, ConflictStatus, Resolve},
    upload::Outcome,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    Desk,
    conflicts::{desk, row, start, upload},
    principal,
};

/// What a device, or the model, holds of the row.
type Row = BTreeMap<&'static str, Value>;

/// Strategies, as rules have them, and the columns that devices change.
const STRATEGIES: [(&str, &str, &[&str]); 8] = [
    ("client_wins", "client_wins", &["a", "b", "n"]),
    ("server_wins", "server_wins", &["a", "b", "n"]),
    ("manual", "manual", &["a", "b", "n"]),
    ("merge_fields", "merge_fields", &["a", "b", "n"]),
    ("version", "{ strategy: version, column: version }", &["a", "b", "n"]),
    ("lww", "{ strategy: lww, column: at_ms }", &["a", "b", "n"]),
    ("counter", "{ strategy: counter, columns: [n] }", &["a", "n"]),
    ("set_union", "{ strategy: set_union, columns: [tags] }", &["a", "tags"]),
];

/// What becomes of the row, and of the write of a device that saw `base`.
fn expected(strategy: &str, row: &Row, base: &Row, change: &Row) -> (Row, Outcome) {
    let with = |change: &Row| -> Row { row.clone().into_iter().chain(change.clone()).collect() };
    let touched = change.iter().filter(|(column, value)| base[*column] != **value);
    let is_met = |column: &str| row[column] != base[column] && row[column] != change[column];
    let (met, free): (Row, Row) =
        touched.map(|(column, value)| (*column, value.clone())).partition(|(column, _)| is_met(column));
    let kept = (row.clone(), Outcome::Conflict);
    match strategy {
        "client_wins" => (with(change), Outcome::Applied),
        "server_wins" | "manual" | "merge_fields" if met.is_empty() => (with(&free), Outcome::Applied),
        "server_wins" | "manual" => kept,
        "merge_fields" if with(&free) == *row => kept,
        "merge_fields" => (with(&free), Outcome::Merged),
        _ if change.is_empty() => (row.clone(), Outcome::Applied),
        "version" if row["version"] != base["version"] => kept,
        "version" => {
            let counted = Row::from([("version", json!(number(&row["version"]) + 1))]);
            (with(&change.clone().into_iter().chain(counted).collect()), Outcome::Applied)
        }
        "lww" if number(&row["at_ms"]) > number(&change["at_ms"]) => kept,
        "lww" => (with(change), Outcome::Applied),
        _ => {
            let column = if strategy == "counter" { "n" } else { "tags" };
            let Some(wanted) = change.get(column) else { return (with(change), Outcome::Applied) };
            let joined = joined(&row[column], &base[column], wanted);
            let outcome = if joined == *wanted { Outcome::Applied } else { Outcome::Merged };
            let joined = Row::from([(column, joined)]);
            (with(&change.clone().into_iter().chain(joined).collect()), outcome)
        }
    }
}

/// Whether something of the row goes that the device did not know of, where nothing but the newer write decides.
fn writes_over(strategy: &str, row: &Row, base: &Row, change: &Row) -> bool {
    let decides = match strategy {
        "client_wins" => "",
        "lww" => "at_ms",
        "counter" => "n",
        "set_union" => "tags",
        _ => return false,
    };
    change.iter().any(|(column, value)| *column != decides && row[column] != base[column] && row[column] != *value)
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn set(value: &Value) -> BTreeSet<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A sum, or a sorted set, of what both did.
fn joined(row: &Value, base: &Value, wanted: &Value) -> Value {
    if !row.is_array() {
        return json!(number(row) + number(wanted) - number(base));
    }
    let (row, base, wanted) = (set(row), set(base), set(wanted));
    let stays = row.iter().filter(|one| wanted.contains(*one) || !base.contains(*one));
    json!(stays.chain(wanted.difference(&base)).collect::<BTreeSet<_>>())
}

/// A value that a device may want in a column. Few there are, so that devices meet in them.
fn wanted(column: &str, random: &mut StdRng) -> Value {
    match column {
        "n" if random.random_bool(0.15) => Value::Null,
        "n" => json!(random.random_range(0..4)),
        "tags" => json!(["v", "w", "x", "y", "z"].into_iter().filter(|_| random.random_bool(0.5)).collect::<Vec<_>>()),
        _ => json!(random.random_range(0..3).to_string()),
    }
}

/// As devices send it: arrays are text there.
fn sent(values: &Row) -> Value {
    let text = |value: &Value| if value.is_array() { json!(value.to_string()) } else { value.clone() };
    values.iter().map(|(column, value)| ((*column).to_owned(), text(value))).collect()
}

/// What was written, with sets in one order.
async fn written(desk: &Desk, model: &Row) -> Row {
    let mut row = row(desk).await;
    if let Some(tags) = row["tags"].as_array_mut() {
        tags.sort_unstable_by_key(Value::to_string);
    }
    model.keys().map(|column| (*column, row[*column].clone())).collect()
}

/// What waits for a person under `manual`: what the row was when it came, and what the device wants.
#[derive(Debug, Clone, PartialEq)]
struct Waiting {
    row: Row,
    mine: Row,
}

/// The conflict that waits as the service has it. There is one at most: uploads of one unnamed device join it.
async fn waiting(desk: &Desk) -> Option<(String, Waiting)> {
    let filter = ConflictFilter { status: Some(ConflictStatus::Open), limit: 10, ..ConflictFilter::default() };
    let mut open = desk.writer.conflicts("anna", &filter).await.expect("a list");
    assert!(open.len() < 2, "{open:?}");
    let Conflict { id, mine, theirs, .. } = open.pop()?;
    let named = |columns: Option<serde_json::Map<String, Value>>| -> Row {
        let columns = columns.expect("columns").into_iter();
        columns.filter_map(|(name, value)| Some((*COLUMNS.iter().find(|column| **column == name)?, value))).collect()
    };
    Some((id, Waiting { row: named(theirs), mine: named(mine) }))
}

/// The columns that devices change under `manual`.
const COLUMNS: [&str; 3] = ["a", "b", "n"];

fn shown(row: &Row) -> Row {
    COLUMNS.into_iter().map(|column| (column, row[column].clone())).collect()
}

/// A person decides about what waits, or leaves it. Returns the row after that, and what still waits.
async fn decide(desk: &Desk, row: &Row, open: Waiting, random: &mut StdRng) -> (Row, Option<Waiting>) {
    let (id, found) = waiting(desk).await.expect("it waits");
    assert_eq!(found, open);
    let merged = Row::from([("a", wanted("a", random)), ("n", wanted("n", random))]);
    let (choice, data, change) = match random.random_range(0..3) {
        0 => (Choice::Theirs, None, Row::new()),
        1 => (Choice::Mine, None, open.mine.clone()),
        _ => (Choice::Merged, sent(&merged).as_object().cloned(), merged),
    };
    let resolve = Resolve { choice, data, remember: false };
    let answer = desk.writer.resolve(&principal("anna"), &id, resolve).await.expect("an answer");
    // Only over the row that the person saw.
    let is_met = change
        .iter()
        .any(|(column, value)| open.row[column] != *value && row[column] != open.row[column] && row[column] != *value);
    let status = if is_met { ConflictStatus::Open } else { ConflictStatus::Resolved };
    assert_eq!(answer.conflict.status, status, "{row:?} {open:?} {choice:?} {change:?}");
    if is_met {
        return (row.clone(), Some(Waiting { row: shown(row), ..open }));
    }
    let touched = change.into_iter().filter(|(column, value)| open.row[column] != *value);
    (row.clone().into_iter().chain(touched).collect(), None)
}

async fn run(strategy: &str, conflict: &str, columns: &[&'static str], seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let desk = desk(conflict).await;
    start(&desk, "a, b, n, tags, at_ms", "'0', '0', 0, '{}', 0").await;
    let mut model = Row::from([
        ("a", json!("0")),
        ("b", json!("0")),
        ("n", json!(0)),
        ("tags", json!([])),
        ("at_ms", json!(0)),
        ("version", json!(0)),
    ]);
    let mut devices = [model.clone(), model.clone()];
    let mut outcomes = BTreeMap::<String, u32>::new();
    let mut open: Option<Waiting> = None;
    let mut overwritten = 0;
    for step in 0..150 {
        if let Some(waits) = open.take_if(|_| random.random_bool(0.3)) {
            (model, open) = decide(&desk, &model, waits, &mut random).await;
            assert_eq!(written(&desk, &model).await, model, "step {step}");
            *outcomes.entry(format!("decided: {}", open.is_none())).or_default() += 1;
        }
        let device = &mut devices[random.random_range(0..2)];
        if random.random_bool(0.35) {
            device.clone_from(&model);
        }
        let chosen: Vec<&'static str> = columns.iter().copied().filter(|_| random.random_bool(0.5)).collect();
        let mut change: Row = chosen.into_iter().map(|column| (column, wanted(column, &mut random))).collect();
        if strategy == "lww" && !change.is_empty() {
            // Clocks are not far apart.
            change.insert("at_ms", json!(step + random.random_range(0..6)));
        }
        let result = upload(&desk, "PATCH", sent(&change), sent(device)).await;
        let (next, outcome) = expected(strategy, &model, device, &change);
        let what = format!("{strategy}, step {step}: {model:?} {device:?} {change:?}");
        assert_eq!(result.outcome, outcome, "{what}");
        assert_eq!(written(&desk, &model).await, next, "{what}");
        *outcomes.entry(format!("{outcome:?}")).or_default() += 1;
        overwritten += i64::from(writes_over(strategy, &model, device, &change) && outcome != Outcome::Conflict);
        if strategy == "manual" && outcome == Outcome::Conflict {
            let mine =
                open.take().map(|open| open.mine).unwrap_or_default().into_iter().chain(change.clone()).collect();
            open = Some(Waiting { row: shown(&model), mine });
        }
        model = next;
        // The device goes on without having heard: what it wants is what it shows. Some count their changes.
        if strategy == "version" && !change.is_empty() && random.random_bool(0.5) {
            device.insert("version", json!(number(&device["version"]) + 1));
        }
        device.extend(change);
    }
    assert_eq!(waiting(&desk).await.map(|(_, waits)| waits).filter(|_| strategy == "manual"), open);
    let kept =
        desk.count("SELECT count(*) FROM kairos.conflicts WHERE status = 'settled' AND resolution = 'mine'").await;
    assert_eq!(kept, overwritten, "{strategy}: what others wrote and a device wrote over");
    println!("{strategy}: {outcomes:?}, {overwritten} written over");
    assert!(strategy == "client_wins" || outcomes.len() > 1, "devices met: {outcomes:?}");
}

#[tokio::test]
async fn any_order_of_two_devices_gives_what_the_model_says() {
    let seed: u64 =
        std::env::var("KAIROS_CONFLICT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("KAIROS_CONFLICT_SEED={seed}");
    for (strategy, conflict, columns) in STRATEGIES {
        run(strategy, conflict, columns, seed).await;
    }
    run_additions(seed).await;
}

/// Rows of `append_only` are the first that came, whichever device sends which again.
async fn run_additions(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let desk = desk("append_only").await;
    let mut model = BTreeMap::<u32, Row>::new();
    let mut outcomes = BTreeMap::<String, u32>::new();
    for step in 0..150 {
        let id = random.random_range(0..40);
        let row: Row = COLUMNS.into_iter().map(|column| (column, wanted(column, &mut random))).collect();
        // A device that did not hear sends the same again.
        let row = model.get(&id).filter(|_| random.random_bool(0.4)).cloned().unwrap_or(row);
        let mut data = sent(&row);
        data["owner"] = json!("anna");
        let entry = json!({ "op": "PUT", "table": "notes", "id": id.to_string(), "data": data });
        let result = desk.upload("anna", entry).await.remove(0);
        let (outcome, code) = match model.get(&id) {
            None => (Outcome::Applied, None),
            Some(first) if *first == row => (Outcome::Duplicate, None),
            Some(_) => (Outcome::Refused, Some("WRITE_APPEND_ONLY")),
        };
        assert_eq!((result.outcome, result.code.as_deref()), (outcome, code), "step {step}: {row:?} {model:?}");
        *outcomes.entry(format!("{outcome:?}")).or_default() += 1;
        model.entry(id).or_insert(row);
    }
    let stored = desk.value("SELECT jsonb_object_agg(id, jsonb_build_object('a', a, 'b', b, 'n', n))::text FROM notes");
    let stored: Value = serde_json::from_str(&stored.await.expect("rows")).expect("JSON");
    let expected: BTreeMap<String, Value> = model.iter().map(|(id, row)| (id.to_string(), json!(row))).collect();
    assert_eq!(stored, json!(expected));
    println!("append_only: {outcomes:?}");
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
}
