//! Writes that were not taken as sent, and rows that writes went over, in `kairos.conflicts`: kept for their user, up to
//! a bound.

use std::{collections::HashMap, time::Duration};

use deadpool_postgres::{Client, GenericClient, Transaction};
use kairos_sync_protocol::{
    conflict::{Choice, Columns, Conflict, ConflictCount, ConflictStatus},
    upload::{CrudEntry, CrudOp, Outcome},
};
use kairos_sync_rules::{ConflictStrategy, WritePolicy};
use serde_json::{Value, json};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::{
    batch::Upload,
    ledger::{self, Answer},
    operation,
};

/// Kept of one user. Beyond that the oldest go, decided ones before open ones.
const COUNT_MAX: i64 = 1_000;
/// Bytes of values kept of one user.
const VALUE_BYTES_MAX: i64 = 16 << 20;
/// Rows one pruning deletes at most, so that it stays short.
const PRUNE_MAX: i64 = 10_000;

/// A conflict as [`conflict`] reads it.
const CONFLICT: &str = "
    id::text, client_id, op_id, op, table_name, row_id, outcome, code, message, base::text, mine::text, theirs::text,
    status, resolution,
    to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
    to_char(resolved_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// A write with its answer, and what decided about it.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    pub(super) entry: &'a CrudEntry,
    pub(super) answer: &'a Answer,
    pub(super) policy: Option<&'a WritePolicy>,
    /// The table's, or what its user chose.
    pub(super) strategy: Option<&'a ConflictStrategy>,
}

/// How it ended where something was lost, by the name of the strategy.
pub(super) fn loss(answer: &Answer, strategy: Option<&str>) -> Option<(ConflictStatus, Option<Choice>)> {
    match (answer.outcome, strategy) {
        (Outcome::Refused, _) | (Outcome::Conflict, Some("manual")) => Some((ConflictStatus::Open, None)),
        (Outcome::Conflict, _) => Some((ConflictStatus::Settled, Some(Choice::Theirs))),
        (Outcome::Merged, Some("merge_fields")) => Some((ConflictStatus::Settled, Some(Choice::Merged))),
        // It was the others' that went.
        (Outcome::Merged | Outcome::Applied, _) if answer.theirs.is_some() => {
            Some((ConflictStatus::Settled, Some(Choice::Mine)))
        }
        // Sets and numbers are joined without loss.
        (Outcome::Merged | Outcome::Applied | Outcome::Duplicate, _) => None,
    }
}

/// One to be kept.
#[derive(Debug, Clone, PartialEq)]
struct Lost {
    id: String,
    op_id: Option<String>,
    op: CrudOp,
    table: String,
    row_id: Option<String>,
    outcome: Outcome,
    code: Option<String>,
    message: Option<String>,
    base: Option<Columns>,
    mine: Option<Columns>,
    theirs: Option<Columns>,
    status: ConflictStatus,
    resolution: Option<Choice>,
}

impl Judged<'_> {
    /// What is lost with the write, if anything is.
    fn lost(&self) -> Option<Lost> {
        let Self { entry, answer, policy, strategy } = self;
        let (status, resolution) = loss(answer, strategy.map(ConflictStrategy::name))?;
        let values = |sent: &Option<Columns>| {
            let sent = sent.as_ref()?;
            Some(policy.map_or_else(|| sent.clone(), |policy| policy.without_secrets(sent)))
        };
        Some(Lost {
            // In the order of the writes, which all have one time.
            id: Uuid::now_v7().to_string(),
            op_id: entry.op_id.as_deref().map(storable),
            op: entry.op,
            table: storable(&entry.table),
            row_id: operation::row_id(entry).ok().as_deref().map(storable),
            outcome: answer.outcome,
            code: answer.code.clone(),
            message: answer.message.as_deref().map(storable),
            base: values(&entry.old),
            mine: values(&entry.data),
            theirs: answer.theirs.clone(),
            status,
            resolution,
        })
    }
}

impl Lost {
    /// Whether later writes of the device to the same row belong to it.
    fn is_waiting(&self) -> bool {
        self.status == ConflictStatus::Open && self.outcome == Outcome::Conflict
    }

    /// The row it is about.
    fn row(&self) -> (String, String) {
        (self.table.clone(), self.row_id.clone().unwrap_or_default())
    }

    /// With what the device did to the row before.
    fn after(self, earlier: Self) -> Self {
        let op = match (earlier.op, self.op) {
            (CrudOp::Put, CrudOp::Patch) => CrudOp::Put,
            (_, op) => op,
        };
        let mine = if op == CrudOp::Delete { None } else { joined(earlier.mine, self.mine) };
        // What the device saw first is what others did not know.
        Self { id: earlier.id, op, mine, base: joined(self.base, earlier.base), ..self }
    }

    fn value_bytes(&self) -> i64 {
        value_bytes([&self.base, &self.mine, &self.theirs])
    }
}

fn value_bytes(values: [&Option<Columns>; 3]) -> i64 {
    let bytes: usize = values.into_iter().flatten().map(super::object_bytes).sum();
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// All columns of both; the second one's values where they share one.
fn joined(first: Option<Columns>, second: Option<Columns>) -> Option<Columns> {
    match (first, second) {
        (Some(mut columns), Some(over)) => {
            columns.extend(over);
            Some(columns)
        }
        (first, second) => first.or(second),
    }
}

/// Postgres has no NUL in text.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn status_name(status: ConflictStatus) -> &'static str {
    match status {
        ConflictStatus::Open => "open",
        ConflictStatus::Settled => "settled",
        ConflictStatus::Resolved => "resolved",
    }
}

/// As the table and metrics have it.
pub(super) fn choice_name(choice: Choice) -> &'static str {
    match choice {
        Choice::Mine => "mine",
        Choice::Theirs => "theirs",
        Choice::Merged => "merged",
    }
}

/// Keeps what of these writes is lost, in the transaction of the writes themselves, and forgets what is too much.
pub(super) async fn record(tx: &Transaction<'_>, upload: &Upload<'_>, judged: &[Judged<'_>]) -> Result<(), Error> {
    let (waiting, mut lost): (Vec<_>, Vec<_>) = judged.iter().filter_map(Judged::lost).partition(Lost::is_waiting);
    if !waiting.is_empty() {
        let mut rows = read_waiting(tx, upload, &waiting).await?;
        for one in waiting {
            let row = one.row();
            let one = match rows.remove(&row) {
                Some(earlier) => one.after(earlier),
                None => one,
            };
            rows.insert(row, one);
        }
        lost.extend(rows.into_values());
    }
    if lost.is_empty() {
        return Ok(());
    }
    write(tx, upload, &lost).await?;
    let sql = "DELETE FROM kairos.conflicts WHERE id IN (
                   SELECT id FROM (
                       SELECT id, row_number() OVER kept AS place, sum(value_bytes) OVER kept AS bytes
                       FROM kairos.conflicts WHERE user_id = $1
                       WINDOW kept AS (ORDER BY status <> 'open', recorded_at DESC, id DESC ROWS UNBOUNDED PRECEDING)
                   ) ranked WHERE place > $2 OR bytes > $3::bigint)";
    let statement = tx.prepare_cached(sql).await?;
    tx.execute(&statement, &[&storable(upload.user_id), &COUNT_MAX, &VALUE_BYTES_MAX]).await?;
    Ok(())
}

/// Conflicts of the device about the same rows that still wait, by row.
async fn read_waiting(
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    lost: &[Lost],
) -> Result<HashMap<(String, String), Lost>, Error> {
    let sql = format!(
        "SELECT {CONFLICT} FROM kairos.conflicts
         WHERE user_id = $1 AND client_id IS NOT DISTINCT FROM $2 AND status = 'open' AND outcome = 'conflict'
           AND (table_name, coalesce(row_id, '')) IN (SELECT * FROM unnest($3::text[], $4::text[]))
         FOR UPDATE"
    );
    let statement = tx.prepare_cached(&sql).await?;
    let (tables, ids): (Vec<_>, Vec<_>) = lost.iter().map(Lost::row).unzip();
    let client_id = upload.client_id.map(storable);
    let rows = tx.query(&statement, &[&storable(upload.user_id), &client_id, &tables, &ids]).await?;
    let lost = rows.iter().map(|row| {
        let Conflict { id, op_id, op, table, row_id, outcome, code, message, base, mine, theirs, .. } = conflict(row);
        let (status, resolution) = (ConflictStatus::Open, None);
        let lost =
            Lost { id, op_id, op, table, row_id, outcome, code, message, base, mine, theirs, status, resolution };
        (lost.row(), lost)
    });
    Ok(lost.collect())
}

async fn write(tx: &Transaction<'_>, upload: &Upload<'_>, lost: &[Lost]) -> Result<(), Error> {
    let sql = "
        INSERT INTO kairos.conflicts (user_id, client_id, id, op_id, op, table_name, row_id, outcome, code, message,
                                      base, mine, theirs, status, resolution, value_bytes)
        SELECT $1, $2, id::uuid, op_id, op, table_name, row_id, outcome, code, message,
               base::json, mine::json, theirs::json, status, resolution, value_bytes
        FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
                    $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::bigint[])
             AS lost (id, op_id, op, table_name, row_id, outcome, code, message, base, mine, theirs, status, resolution,
                      value_bytes)
        ON CONFLICT (id) DO UPDATE
        SET op_id = excluded.op_id, op = excluded.op, code = excluded.code, message = excluded.message,
            base = excluded.base, mine = excluded.mine, theirs = excluded.theirs, value_bytes = excluded.value_bytes,
            recorded_at = excluded.recorded_at";
    let statement = tx.prepare_cached(sql).await?;
    let texts = |text: fn(&Lost) -> Option<&str>| lost.iter().map(text).collect::<Vec<_>>();
    let values = |values: fn(&Lost) -> Option<&Columns>| {
        let text = |columns: &Columns| json!(columns).to_string();
        lost.iter().map(|one| values(one).map(text)).collect::<Vec<_>>()
    };
    tx.execute(
        &statement,
        &[
            &storable(upload.user_id),
            &upload.client_id.map(storable),
            &texts(|one| Some(&one.id)),
            &texts(|one| one.op_id.as_deref()),
            &texts(|one| Some(one.op.name())),
            &texts(|one| Some(&one.table)),
            &texts(|one| one.row_id.as_deref()),
            &texts(|one| Some(ledger::outcome_name(one.outcome))),
            &texts(|one| one.code.as_deref()),
            &texts(|one| one.message.as_deref()),
            &values(|one| one.base.as_ref()),
            &values(|one| one.mine.as_ref()),
            &values(|one| one.theirs.as_ref()),
            &texts(|one| Some(status_name(one.status))),
            &texts(|one| one.resolution.map(choice_name)),
            &lost.iter().map(Lost::value_bytes).collect::<Vec<_>>(),
        ],
    )
    .await?;
    Ok(())
}

/// A user's conflict, and nobody else may decide about it until the end of the transaction.
pub(super) async fn lock(tx: &Transaction<'_>, user_id: &str, id: Uuid) -> Result<Option<Conflict>, Error> {
    let sql = format!("SELECT {CONFLICT} FROM kairos.conflicts WHERE id = $2::text::uuid AND user_id = $1 FOR UPDATE");
    let statement = tx.prepare_cached(&sql).await?;
    let row = tx.query_opt(&statement, &[&storable(user_id), &id.to_string()]).await?;
    Ok(row.as_ref().map(conflict))
}

/// What became of a conflict that somebody decided about.
pub(super) async fn update(tx: &Transaction<'_>, changed: &Conflict) -> Result<Conflict, Error> {
    let sql = format!(
        "UPDATE kairos.conflicts
         SET status = $2, resolution = $3, code = $4, message = $5, theirs = $6::text::json, outcome = $7, op = $8,
             base = $9::text::json, mine = $10::text::json, value_bytes = $11,
             resolved_at = CASE WHEN $2 = 'resolved' THEN now() END
         WHERE id = $1::text::uuid RETURNING {CONFLICT}"
    );
    let statement = tx.prepare_cached(&sql).await?;
    let [base, mine, theirs] = [&changed.base, &changed.mine, &changed.theirs]
        .map(|columns| columns.as_ref().map(|columns| json!(columns).to_string()));
    let row = tx
        .query_one(
            &statement,
            &[
                &changed.id,
                &status_name(changed.status),
                &changed.resolution.map(choice_name),
                &changed.code,
                &changed.message,
                &theirs,
                &ledger::outcome_name(changed.outcome),
                &changed.op.name(),
                &base,
                &mine,
                &value_bytes([&changed.base, &changed.mine, &changed.theirs]),
            ],
        )
        .await?;
    Ok(conflict(&row))
}

/// Which of a user's conflicts are asked for.
#[derive(Debug, Clone, Default)]
pub struct ConflictFilter {
    /// Those which are so far.
    pub status: Option<ConflictStatus>,
    /// Those of a table, as the device names it.
    pub table: Option<String>,
    /// At most so many, the newest.
    pub limit: u16,
}

/// A user's conflicts, newest first.
pub(super) async fn list(client: &Client, user_id: &str, filter: &ConflictFilter) -> Result<Vec<Conflict>, Error> {
    let sql = format!(
        "SELECT {CONFLICT} FROM kairos.conflicts
         WHERE user_id = $1 AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR table_name = $3)
         ORDER BY recorded_at DESC, id DESC LIMIT $4"
    );
    let statement = client.prepare_cached(&sql).await?;
    let (status, table) = (filter.status.map(status_name), filter.table.as_deref().map(storable));
    let rows = client.query(&statement, &[&storable(user_id), &status, &table, &i64::from(filter.limit)]).await?;
    Ok(rows.iter().map(conflict).collect())
}

/// How many conflicts a user has, by kind.
pub(super) async fn count(client: &Client, user_id: &str) -> Result<Vec<ConflictCount>, Error> {
    let sql = "SELECT table_name, outcome, status, resolution, count(*) FROM kairos.conflicts WHERE user_id = $1
               GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&storable(user_id)]).await?;
    let counted = rows.iter().map(|row| ConflictCount {
        table: row.get(0),
        outcome: ledger::outcome(row.get(1)),
        status: status(row.get(2)),
        resolution: row.get::<_, Option<&str>>(3).and_then(choice),
        count: u64::try_from(row.get::<_, i64>(4)).unwrap_or_default(),
    });
    Ok(counted.collect())
}

/// Forgets some of what was decided before `keep_for`.
pub(super) async fn prune(client: &impl GenericClient, keep_for: Duration) -> Result<u64, Error> {
    let sql = "DELETE FROM kairos.conflicts WHERE id IN (
                   SELECT id FROM kairos.conflicts
                   WHERE status <> 'open' AND recorded_at < now() - make_interval(secs => $1)
                   ORDER BY recorded_at LIMIT $2)";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&keep_for.as_secs_f64(), &PRUNE_MAX]).await
}

/// A row of [`CONFLICT`].
fn conflict(row: &Row) -> Conflict {
    let columns = |index: usize| match serde_json::from_str(row.get::<_, Option<&str>>(index)?) {
        Ok(Value::Object(columns)) => Some(columns),
        _ => None,
    };
    Conflict {
        id: row.get(0),
        client_id: row.get(1),
        op_id: row.get(2),
        op: match row.get(3) {
            "PUT" => CrudOp::Put,
            "PATCH" => CrudOp::Patch,
            _ => CrudOp::Delete,
        },
        table: row.get(4),
        row_id: row.get(5),
        outcome: ledger::outcome(row.get(6)),
        code: row.get(7),
        message: row.get(8),
        base: columns(9),
        mine: columns(10),
        theirs: columns(11),
        status: status(row.get(12)),
        resolution: row.get::<_, Option<&str>>(13).and_then(choice),
        recorded_at: row.get(14),
        resolved_at: row.get(15),
    }
}

fn status(name: &str) -> ConflictStatus {
    match name {
        "settled" => ConflictStatus::Settled,
        "resolved" => ConflictStatus::Resolved,
        _ => ConflictStatus::Open,
    }
}

fn choice(name: &str) -> Option<Choice> {
    match name {
        "mine" => Some(Choice::Mine),
        "theirs" => Some(Choice::Theirs),
        "merged" => Some(Choice::Merged),
        _ => None,
    }
}
