//! Why an operation is refused, and which errors of Postgres are the operation's fault.

use tokio_postgres::{Error, error::DbError};

/// The reason a write is refused for good. Names tables, columns and constraints, never values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Stable across releases; listed in `docs/errors.md`.
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What an error of Postgres calls for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The operation can never succeed: refuse it, go on with the next.
    Refuse(Refusal),
    /// Two transactions met: run the batch again.
    Contention,
    /// The schema is not what it was: look at it again, then run the batch again.
    Stale,
    /// Nothing the operation could help: the client keeps it and tries later.
    Server,
}

/// Judges an error. `columns` are the names of the statement's parameters from the second on.
pub(super) fn judge(error: &Error, columns: &[&str]) -> Verdict {
    error.as_db_error().map_or(Verdict::Server, |error| judge_db(error, columns))
}

/// Whether the error is a violated constraint.
pub(super) fn is_constraint(error: &Error) -> bool {
    error.code().is_some_and(|state| state.code().starts_with("23"))
}

fn judge_db(error: &DbError, columns: &[&str]) -> Verdict {
    let state = error.code().code();
    let refuse = |code, message| Verdict::Refuse(Refusal::new(code, message));
    match (state.get(..2).unwrap_or_default(), state) {
        (_, "40001" | "40P01") => Verdict::Contention,
        // Missing column, table or type; another type; "cached plan must not change result type"; a lost statement.
        (_, "42703" | "42P01" | "42704" | "42804" | "0A000" | "26000") => Verdict::Stale,
        (_, "42501") if error.routine() == Some("ExecWithCheckOptions") => {
            refuse("WRITE_RLS", "row-level security refuses the row: it is not yours to write".to_owned())
        }
        (_, "42501") => refuse("WRITE_PRIVILEGE", "the write role lacks the privilege for this write".to_owned()),
        ("22" | "54", _) => refuse("WRITE_VALUE", value_message(error, columns)),
        ("23" | "44", _) => refuse("WRITE_CONSTRAINT", constraint_message(error)),
        ("P0" | "27" | "38" | "39" | "09", _) => refuse("WRITE_TRIGGER", trigger_message(error)),
        _ => Verdict::Server,
    }
}

fn value_message(error: &DbError, columns: &[&str]) -> String {
    let state = error.code().code();
    // An unreadable value's place is told by its number only, in the context, just before the value itself.
    let number = error.where_().and_then(|context| {
        let (_, rest) = context.split_once("parameter $")?;
        rest.split(|character: char| !character.is_ascii_digit()).next()?.parse::<usize>().ok()
    });
    let column = error.column().or_else(|| match number? {
        1 => Some("id"),
        n => columns.get(n - 2).copied(),
    });
    match column {
        Some(column) => format!("the value of column `{column}` does not fit its type (SQLSTATE {state})"),
        None => format!("a value does not fit its column's type (SQLSTATE {state})"),
    }
}

fn constraint_message(error: &DbError) -> String {
    let constraint = error.constraint().unwrap_or("unnamed");
    match (error.code().code(), error.column()) {
        ("23502", Some(column)) => format!("column `{column}` needs a value"),
        ("23503", _) => format!("foreign key `{constraint}`: the row referred to is missing, or still in use"),
        ("23505", _) => format!("unique constraint `{constraint}`: another row has these values"),
        ("23514", _) => format!("check constraint `{constraint}` does not hold"),
        ("23P01", _) => format!("exclusion constraint `{constraint}`: another row is in the way"),
        (state, _) => format!("constraint `{constraint}` does not hold (SQLSTATE {state})"),
    }
}

/// A trigger's own message may hold values. It can name what it refuses: `RAISE … USING CONSTRAINT = 'name'`.
fn trigger_message(error: &DbError) -> String {
    let state = error.code().code();
    match (error.constraint(), error.column()) {
        (Some(constraint), _) => format!("a trigger refuses the write: `{constraint}` (SQLSTATE {state})"),
        (None, Some(column)) => format!("a trigger refuses the write because of column `{column}` (SQLSTATE {state})"),
        (None, None) => format!("a trigger refuses the write (SQLSTATE {state})"),
    }
}
