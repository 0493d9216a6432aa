//! One write on its way to its row: what the row is, whether it may be written, what of the write is taken.

mod soft_delete;

use std::borrow::Cow;

use kairos_sync_protocol::upload::Outcome;
use kairos_sync_rules::{ConflictStrategy, SqlValue, WriteOp, WriteOrigin, WritePolicy};
use serde_json::{Map, Value};
use tokio_postgres::Row;

use super::{
    batch::Stop,
    catalog::Table,
    conflict::{Base, Decision, Field, decide},
    ledger::Answer,
    operation::{Write, unknown_column},
    refusal::{Refusal, Verdict, judge},
    script::{Effect, NoResult, Stage, Values},
    statement::{self, Form},
    value::{Kind, json},
};

/// One write on its way to its row.
pub(super) struct RowWrite<'a> {
    pub(super) stage: &'a Stage<'a>,
    pub(super) table: &'a Table,
    pub(super) policy: &'a WritePolicy,
    /// The policy's, unless somebody chose another.
    pub(super) strategy: &'a ConflictStrategy,
    pub(super) origin: &'a WriteOrigin,
    /// Fraction digits of the times that devices get; `None`: all.
    pub(super) fraction_digits: Option<u8>,
    pub(super) write: Write,
}

type CheckedRow = Vec<(String, SqlValue)>;

impl RowWrite<'_> {
    /// The row as it is decides first, then the row as it became, which Postgres returns: after casts, defaults and
    /// triggers. What was written before a refusal is undone with the savepoint.
    pub(super) async fn run(mut self) -> Result<Answer, Stop> {
        let old = self.read().await?;
        match (self.write.op, old) {
            (WriteOp::Put, None) => {
                let values = self.take_values().await?;
                self.insert(values).await
            }
            (WriteOp::Patch, None) if self.compares_with_base() => Ok(conflict("the row is gone", None)),
            (WriteOp::Patch | WriteOp::Delete, None) => Ok(Outcome::Applied.into()),
            (WriteOp::Patch | WriteOp::Delete, Some(old)) if self.is_deleted(&old)? => self.leave(&old),
            (WriteOp::Put | WriteOp::Patch, Some(old)) => {
                let values = self.take_values().await?;
                self.update(&old, values).await
            }
            (WriteOp::Delete, Some(old)) => self.delete(&old).await,
        }
    }

    fn compares_with_base(&self) -> bool {
        matches!(
            self.strategy,
            ConflictStrategy::ServerWins
                | ConflictStrategy::MergeFields
                | ConflictStrategy::Manual
                | ConflictStrategy::Version { .. }
        )
    }

    /// What the device wants, with its time as it counts.
    async fn take_values(&mut self) -> Result<Values, Stop> {
        let sent = std::mem::take(&mut self.write.values);
        let mut values: Values = self.write.columns.iter().copied().zip(sent).collect();
        if let ConflictStrategy::LastWriteWins { column } = self.strategy
            && (self.write.op == WriteOp::Put || !values.is_empty())
        {
            let position = self.position(column)?;
            let sent = values.iter().position(|(sent, _)| *sent == position).map(|index| values.remove(index).1);
            let clamp = statement::clamp(self.table, position);
            let clamped = self.query(clamp, &vec![(position, sent.flatten())]).await.map_err(|stop| match stop {
                Stop::Refused(_) => {
                    Refusal::new("WRITE_VALUE", format!("the value of column `{column}` is no moment in time")).into()
                }
                other @ (Stop::Failed(_) | Stop::Unknown) => other,
            })?;
            values.push((position, clamped.and_then(|row| row.get(0))));
            values.sort_unstable();
        }
        Ok(values)
    }

    fn position(&self, column: &str) -> Result<usize, Stop> {
        Ok(self.table.position(column).ok_or_else(|| unknown_column(column))?)
    }

    /// A plain INSERT: `ON CONFLICT DO UPDATE` would change a row that appeared since it was looked for, unchecked.
    async fn insert(&self, values: Values) -> Result<Answer, Stop> {
        let mut inserted = Cow::Borrowed(&values);
        if let ConflictStrategy::Version { column } = self.strategy {
            let inserted = inserted.to_mut();
            inserted.push((self.position(column)?, Some("1".to_owned())));
            inserted.sort_unstable();
        }
        let sql = statement::insert(self.table, self.write.key, &positions(&inserted));
        let refusal = match self.perform(sql, &inserted).await {
            Ok(new) => {
                new.map_or(Ok(()), |new| self.accept(&new, None))?;
                return Ok(Outcome::Applied.into());
            }
            Err(Stop::Refused(refusal)) => refusal,
            Err(stop) => return Err(stop),
        };
        self.stage.undo().await.map_err(|no_result| self.stop(no_result, &Values::new()))?;
        match self.read().await? {
            Some(old) => self.update(&old, values).await,
            None => Err(refusal.into()),
        }
    }

    async fn update(&self, old: &CheckedRow, values: Values) -> Result<Answer, Stop> {
        if self.is_deleted(old)? {
            return self.revive(old, values).await;
        }
        if !self.policy.compares_with_old() {
            self.check(None, Some(old))?;
        }
        // There is nothing to compare, and nothing that counts.
        if self.write.op == WriteOp::Patch && values.is_empty() {
            return Ok(Outcome::Applied.into());
        }
        let (values, outcome) = match self.decide(old, values).await? {
            Ok(taken) => taken,
            Err(kept) => return Ok(kept),
        };
        let is_stamp = |(position, _): &(usize, Option<String>)| self.write.stamped.contains(position);
        // A write that changes nothing is not stamped either; a PUT is, which may say just that.
        if values.is_empty() || (self.write.op == WriteOp::Patch && values.iter().all(is_stamp)) {
            return Ok(outcome.into());
        }
        if let Some(new) = self.set(&values).await? {
            self.accept(&new, Some(old))?;
        }
        let is_lossy = outcome == Outcome::Merged && *self.strategy == ConflictStrategy::MergeFields;
        let is_lost = is_lossy || self.overwrites(old, &values);
        Ok(Answer { theirs: is_lost.then(|| self.shown(old)), ..outcome.into() })
    }

    /// Whether something goes that others wrote and the device did not know of, as far as it says what it knew. (Where
    /// the strategy compares, nothing does.)
    fn overwrites(&self, old: &CheckedRow, values: &Values) -> bool {
        let Some(base) = self.write.base.as_ref().filter(|_| !self.compares_with_base()) else { return false };
        base.iter().any(|(position, seen)| {
            let (Some(column), Some((name, stored))) = (self.table.columns.get(*position), old.get(*position)) else {
                return false;
            };
            let decides = self.strategy.columns().iter().any(|column| column == name);
            let is = |text: &Option<String>| column.kind.is_printed(text.as_deref(), stored, self.fraction_digits);
            let goes = match self.write.op {
                WriteOp::Delete => true,
                WriteOp::Put | WriteOp::Patch => {
                    values.iter().any(|(written, value)| written == position && !is(value))
                }
            };
            goes && !decides && !self.write.stamped.contains(position) && !is(seen)
        })
    }

    /// Sets columns. No row comes back where a trigger of the app took the write elsewhere.
    async fn set(&self, values: &Values) -> Result<Option<Row>, Stop> {
        let sql = statement::update(self.table, self.write.key, &positions(values));
        self.perform(sql, values).await
    }

    async fn delete(&self, old: &CheckedRow) -> Result<Answer, Stop> {
        self.check(None, Some(old))?;
        let mut decided = Values::new();
        if self.compares_with_base() {
            match self.decide(old, Values::new()).await? {
                Ok((values, _)) => decided = values,
                Err(kept) => return Ok(kept),
            }
        }
        if let Some(column) = self.policy.soft_delete() {
            return self.mark_deleted(column, decided).await;
        }
        self.perform(statement::delete(self.table, self.write.key), &Values::new()).await?;
        let theirs = self.overwrites(old, &Values::new()).then(|| self.shown(old));
        Ok(Answer { theirs, ..Outcome::Applied.into() })
    }

    /// What to write, or the answer if the row stays.
    async fn decide(&self, old: &CheckedRow, mut values: Values) -> Result<Result<(Values, Outcome), Answer>, Stop> {
        let strategy = self.strategy;
        if let ConflictStrategy::LastWriteWins { column } = strategy {
            let position = self.position(column)?;
            let time = values.iter().filter(|(sent, _)| *sent == position).cloned().collect::<Values>();
            if !time.is_empty() && self.is_later(position, &time).await? {
                return self.keep(old, Outcome::Conflict).map(Err);
            }
            return Ok(Ok((values, Outcome::Applied)));
        }
        let compared = self.compared(&values)?;
        let fields = self.compare(&compared, &values).await?;
        let sent: Values =
            values.extract_if(.., |(position, _)| compared.iter().any(|(compared, _)| compared == position)).collect();
        match decide(strategy, self.write.op, fields) {
            Decision::Write(decided, outcome) => {
                let bound = |(position, value): (usize, Option<String>)| {
                    let form = compared.iter().find(|(compared, _)| *compared == position).map(|(_, form)| *form);
                    let value = match form {
                        // What was decided as JSON is bound as the column has it.
                        Some(Form::Json) => {
                            let kind = self.table.columns[position].kind;
                            value.and_then(|json| kind.text(&Value::String(json)))
                        }
                        // A time was cut to be compared.
                        Some(Form::Cut(_)) => {
                            sent.iter().find(|(sent, _)| *sent == position).and_then(|sent| sent.1.clone())
                        }
                        _ => value,
                    };
                    (position, value)
                };
                values.extend(decided.into_iter().map(bound));
                values.sort_unstable();
                Ok(Ok((values, outcome)))
            }
            Decision::Keep(outcome) => self.keep(old, outcome).map(Err),
            Decision::Refuse(refusal) => self.keep(old, Outcome::Refused).and(Err(refusal.into())),
        }
    }

    /// The columns that the strategy compares, and how.
    fn compared(&self, values: &Values) -> Result<Vec<(usize, Form)>, Stop> {
        let sent = values.iter().map(|(position, _)| *position).filter(|sent| !self.write.stamped.contains(sent));
        let seen = self.write.base.iter().flat_map(|base| base.keys().copied());
        let of = |columns: &[String], form| -> Result<Vec<_>, Stop> {
            let named = columns.iter().map(|column| self.position(column)).collect::<Result<Vec<_>, _>>()?;
            Ok(sent.clone().filter(|sent| named.contains(sent)).map(|position| (position, form)).collect())
        };
        match self.strategy {
            ConflictStrategy::ClientWins | ConflictStrategy::LastWriteWins { .. } => Ok(Vec::new()),
            ConflictStrategy::ServerWins | ConflictStrategy::MergeFields | ConflictStrategy::Manual
                if self.write.op == WriteOp::Delete =>
            {
                Ok(seen.map(|position| (position, self.form(position))).collect())
            }
            ConflictStrategy::ServerWins
            | ConflictStrategy::MergeFields
            | ConflictStrategy::Manual
            | ConflictStrategy::AppendOnly => Ok(sent.map(|position| (position, self.form(position))).collect()),
            ConflictStrategy::Version { column } => Ok(vec![(self.position(column)?, Form::Next)]),
            ConflictStrategy::SetUnion { columns } => of(columns, Form::Json),
            ConflictStrategy::Counter { columns } => of(columns, Form::Sum),
        }
    }

    /// Times are compared as far as devices know them.
    fn form(&self, position: usize) -> Form {
        match (self.table.columns[position].kind, self.fraction_digits) {
            (Kind::TimestampTz | Kind::LocalTime, Some(0)) => Form::Cut("second"),
            (Kind::TimestampTz | Kind::LocalTime, Some(3)) => Form::Cut("milliseconds"),
            _ => Form::Text,
        }
    }

    /// Has Postgres print the columns as the three have them.
    async fn compare(&self, compared: &[(usize, Form)], values: &Values) -> Result<Vec<Field>, Stop> {
        if compared.is_empty() {
            return Ok(Vec::new());
        }
        let base = |position: usize| self.write.base.as_ref()?.get(&position).cloned();
        let sent = |position: usize| values.iter().find(|(sent, _)| *sent == position)?.1.clone();
        let parameters: Values = compared
            .iter()
            .flat_map(|&(position, _)| [(position, base(position).flatten()), (position, sent(position))])
            .collect();
        let sql = statement::compare(self.table, self.write.key, compared);
        let Some(row) = self.query(sql, &parameters).await? else { return Ok(Vec::new()) };
        let [stored, seen, wanted, calculated]: [Vec<Option<String>>; 4] =
            [row.get(0), row.get(1), row.get(2), row.get(3)];
        let printed = stored.into_iter().zip(seen).zip(wanted).zip(calculated);
        let fields = compared.iter().zip(printed).map(|(&(position, _), (((stored, seen), sent), calculated))| Field {
            position,
            stored,
            base: if base(position).is_some() { Base::Seen(seen) } else { Base::Unknown },
            sent,
            calculated,
        });
        Ok(fields.collect())
    }

    async fn is_later(&self, position: usize, time: &Values) -> Result<bool, Stop> {
        let row = self.query(statement::is_later(self.table, self.write.key, position), time).await?;
        Ok(row.is_some_and(|row| row.get::<_, Option<&str>>(0) == Some("true")))
    }

    /// The row stays. That may be said only to whom the row concerns: a check of both rows was not asked yet, and who
    /// tries values one after another would otherwise find out what somebody else's row has.
    fn keep(&self, old: &CheckedRow, outcome: Outcome) -> Result<Answer, Stop> {
        if self.policy.compares_with_old() {
            self.check(Some(old), Some(old))?;
        }
        if outcome != Outcome::Conflict {
            return Ok(outcome.into());
        }
        Ok(conflict("others changed the row since the device saw it", Some(self.shown(old))))
    }

    /// Of a row what devices may write, and what decides.
    fn shown(&self, row: &CheckedRow) -> Map<String, Value> {
        let decides = |name: &str| self.strategy.columns().iter().any(|column| column == name);
        let is_shown = |name: &str| self.policy.allows_column(name) || decides(name);
        row.iter().filter(|(name, _)| is_shown(name)).map(|(name, value)| (name.clone(), json(value))).collect()
    }

    /// The row as it became.
    fn accept(&self, new: &Row, old: Option<&CheckedRow>) -> Result<(), Stop> {
        let bytes: usize = (0..new.len()).map(|index| new.get::<_, Option<&str>>(index).map_or(0, str::len)).sum();
        if let Some(max) = self.policy.limits().row_bytes.filter(|max| bytes > max.get() as usize) {
            let message = format!("the row would have {bytes} bytes, of which {max} are allowed in this table");
            return Err(Refusal::new("WRITE_ROW_TOO_LARGE", message).into());
        }
        self.check(Some(&self.checked_row(new)), old)
    }

    fn check(&self, new: Option<&CheckedRow>, old: Option<&CheckedRow>) -> Result<(), Stop> {
        match self.policy.check(self.origin, new.map(Vec::as_slice), old.map(Vec::as_slice)) {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Refusal::new("WRITE_CHECK", "the `check` of the table's write rule refuses the row").into())
            }
            Err(error) => {
                let message = format!("the `check` of the table's write rule failed: {}", error.message);
                Err(Refusal::new("WRITE_CHECK", message).into())
            }
        }
    }

    async fn read(&self) -> Result<Option<CheckedRow>, Stop> {
        let row = self.query(statement::select(self.table, self.write.key), &Values::new()).await?;
        Ok(row.map(|row| self.checked_row(&row)))
    }

    async fn query(&self, sql: String, values: &Values) -> Result<Option<Row>, Stop> {
        let result = self.stage.ask(sql, &self.write.id, values, Effect::Read).await;
        result.map_err(|no_result| self.stop(no_result, values))
    }

    async fn perform(&self, sql: String, values: &Values) -> Result<Option<Row>, Stop> {
        let result = self.stage.ask(sql, &self.write.id, values, Effect::Write).await;
        result.map_err(|no_result| self.stop(no_result, values))
    }

    fn checked_row(&self, row: &Row) -> CheckedRow {
        let columns = self.table.columns.iter().enumerate();
        columns.map(|(index, column)| (column.name.clone(), column.kind.parse(row.get(index)))).collect()
    }

    fn stop(&self, no_result: NoResult, values: &Values) -> Stop {
        let NoResult::Postgres(error) = no_result else { return Stop::Unknown };
        let names: Vec<&str> = values.iter().map(|&(position, _)| self.table.columns[position].name.as_str()).collect();
        match judge(&error, &names) {
            Verdict::Refuse(refusal) => Stop::Refused(refusal),
            Verdict::Contention | Verdict::Stale | Verdict::Server => Stop::Failed(error),
        }
    }
}

/// Whether what is written depends on how the row is. (Whether it is written always does.)
pub(super) fn asks_for_row(strategy: &ConflictStrategy, op: WriteOp) -> bool {
    op == WriteOp::Put || *strategy != ConflictStrategy::ClientWins
}

/// The locked read and the write of an operation that writes the same whatever the row has, if the row is there.
pub(super) fn foreseen(
    table: &Table,
    policy: &WritePolicy,
    strategy: &ConflictStrategy,
    write: &Write,
) -> Option<[(String, Values); 2]> {
    // Where rows are only marked, the mark decides.
    if asks_for_row(strategy, write.op) || policy.soft_delete().is_some() {
        return None;
    }
    let read = (statement::select(table, write.key), Values::new());
    match write.op {
        WriteOp::Put => None,
        WriteOp::Patch => {
            let changes = write.columns.iter().any(|position| !write.stamped.contains(position));
            let values = || write.columns.iter().copied().zip(write.values.iter().cloned()).collect();
            changes.then(|| [read, (statement::update(table, write.key, &write.columns), values())])
        }
        WriteOp::Delete => Some([read, (statement::delete(table, write.key), Values::new())]),
    }
}

fn positions(values: &Values) -> Vec<usize> {
    values.iter().map(|(position, _)| *position).collect()
}

fn conflict(message: &str, theirs: Option<Map<String, Value>>) -> Answer {
    let (code, message) = (Some("WRITE_CONFLICT".to_owned()), Some(message.to_owned()));
    Answer { outcome: Outcome::Conflict, code, message, theirs }
}
