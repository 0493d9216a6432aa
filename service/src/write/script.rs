//! How the statements of a write reach Postgres: one by one as they are asked for, or as a script that was written
//! beforehand and is sent in one go.
//!
//! [`RowWrite`](super::row::RowWrite) asks for statements and goes on with their results; it does not know which of
//! these it runs in. A rehearsal finds out what it will ask for, a replay gives it the results.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use deadpool_postgres::Transaction;
use tokio_postgres::{Error, Row, Statement, error::SqlState, types::ToSql};

use super::value::TextParameter;

/// Columns and their values as text.
pub(super) type Values = Vec<(usize, Option<String>)>;

/// Whether a statement changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Read,
    Write,
}

/// A statement of a write, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) sql: String,
    pub(super) statement: Statement,
    pub(super) values: Values,
    pub(super) effect: Effect,
}

/// A step that was sent, and its result.
pub(super) type Played = (Step, Result<Option<Row>, Error>);

/// Why a statement has no result.
pub(super) enum NoResult {
    Postgres(Error),
    /// Not to be known here: it was not sent, or comes after an error of another write.
    Unknown,
}

/// Where the statements of a write go.
pub(super) enum Stage<'a> {
    /// Each is sent when it is asked for.
    Live(&'a Transaction<'a>),
    /// Reads are sent as well; what would change something is only written down.
    Rehearsal(&'a Transaction<'a>, Mutex<Script>),
    /// All were sent already, in the order of the script.
    Replay(Mutex<VecDeque<Played>>),
}

/// What a write asked for.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    /// Postgres did not take one of the reads, so the transaction takes nothing more.
    pub(super) is_broken: bool,
}

impl Script {
    /// Of these statements, none of which was sent.
    pub(super) async fn of(tx: &Transaction<'_>, statements: [((String, Values), Effect); 2]) -> Self {
        let mut script = Self::default();
        for ((sql, values), effect) in statements {
            match tx.prepare_cached(&sql).await.map_err(of_this_write) {
                Ok(statement) => script.steps.push(Step { sql, statement, values, effect }),
                Err(NoResult::Unknown) => {}
                Err(NoResult::Postgres(_)) => script.is_broken = true,
            }
        }
        script
    }
}

impl<'a> Stage<'a> {
    pub(super) fn rehearsal(tx: &'a Transaction<'a>) -> Self {
        Self::Rehearsal(tx, Mutex::default())
    }

    pub(super) fn replay(played: Vec<Played>) -> Self {
        Self::Replay(Mutex::new(played.into()))
    }

    /// Runs a statement of the row's id and `values`.
    pub(super) async fn ask(
        &self,
        sql: String,
        id: &str,
        values: &Values,
        effect: Effect,
    ) -> Result<Option<Row>, NoResult> {
        match self {
            Self::Live(tx) => {
                let statement = tx.prepare_cached(&sql).await.map_err(NoResult::Postgres)?;
                send(tx, &statement, id, values).await.map_err(NoResult::Postgres)
            }
            Self::Rehearsal(tx, script) => {
                let rehearsed = rehearse(tx, script, sql, id, values, effect).await;
                rehearsed.map_err(|result| match result {
                    NoResult::Postgres(error) => {
                        lock(script).is_broken = true;
                        of_this_write(error)
                    }
                    NoResult::Unknown => NoResult::Unknown,
                })
            }
            Self::Replay(played) => {
                let next = lock(played).pop_front();
                let (step, result) = next.ok_or(NoResult::Unknown)?;
                if step.sql != sql || step.values != *values {
                    return Err(NoResult::Unknown);
                }
                result.map_err(of_this_write)
            }
        }
    }

    /// Undoes what the write did so far.
    pub(super) async fn undo(&self) -> Result<(), NoResult> {
        match self {
            Self::Live(tx) => tx.batch_execute("ROLLBACK TO SAVEPOINT operation").await.map_err(NoResult::Postgres),
            Self::Rehearsal(..) | Self::Replay(_) => Err(NoResult::Unknown),
        }
    }

    /// What was asked for in a rehearsal.
    pub(super) fn into_script(self) -> Script {
        match self {
            Self::Rehearsal(_, script) => script.into_inner().unwrap_or_else(PoisonError::into_inner),
            Self::Live(_) | Self::Replay(_) => Script::default(),
        }
    }

    /// Whether all that was sent was also asked for.
    pub(super) fn is_played_out(&self) -> bool {
        match self {
            Self::Replay(played) => lock(played).is_empty(),
            Self::Live(_) | Self::Rehearsal(..) => true,
        }
    }
}

async fn rehearse(
    tx: &Transaction<'_>,
    script: &Mutex<Script>,
    sql: String,
    id: &str,
    values: &Values,
    effect: Effect,
) -> Result<Option<Row>, NoResult> {
    let statement = tx.prepare_cached(&sql).await.map_err(NoResult::Postgres)?;
    lock(script).steps.push(Step { sql, statement: statement.clone(), values: values.clone(), effect });
    match effect {
        Effect::Read => send(tx, &statement, id, values).await.map_err(NoResult::Postgres),
        Effect::Write => Err(NoResult::Unknown),
    }
}

/// Sends a statement when it is first polled.
pub(super) async fn send(
    tx: &Transaction<'_>,
    statement: &Statement,
    id: &str,
    values: &Values,
) -> Result<Option<Row>, Error> {
    let texts: Vec<TextParameter<'_>> = std::iter::once(TextParameter(Some(id)))
        .chain(values.iter().map(|(_, value)| TextParameter(value.as_deref())))
        .collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = texts.iter().map(|text| text as &(dyn ToSql + Sync)).collect();
    tx.query_opt(statement, &parameters).await
}

/// After an error Postgres answers everything alike until a savepoint; that says nothing about the statement.
fn of_this_write(error: Error) -> NoResult {
    match error.code() {
        Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => NoResult::Unknown,
        _ => NoResult::Postgres(error),
    }
}

/// Held for a push or a pop; a poisoned lock is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
