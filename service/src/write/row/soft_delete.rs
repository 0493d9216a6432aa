//! Rows that a DELETE only marks. To devices a marked row is none: a PATCH or another DELETE leaves it as it is, and a
//! PUT brings it back.

use kairos_sync_protocol::upload::Outcome;
use kairos_sync_rules::{ConflictStrategy, SqlValue, WriteOp};

use super::{
    super::{refusal::Refusal, statement::Form, value::Kind},
    Answer, CheckedRow, RowWrite, Stop, Values, conflict,
};

impl RowWrite<'_> {
    pub(super) fn is_deleted(&self, old: &CheckedRow) -> Result<bool, Stop> {
        let Some(column) = self.policy.soft_delete() else { return Ok(false) };
        let position = self.position(column)?;
        Ok(!matches!(old.get(position), None | Some((_, SqlValue::Null | SqlValue::Integer(0)))))
    }

    /// Answers as for a row that is gone, to those whose it was.
    pub(super) fn leave(&self, old: &CheckedRow) -> Result<Answer, Stop> {
        // Of a check that compares two rows, both are the row as it stays.
        let new = self.policy.compares_with_old().then_some(old);
        self.check(new, Some(old))?;
        if self.write.op == WriteOp::Patch && self.compares_with_base() {
            return Ok(conflict("the row is gone", None));
        }
        Ok(Outcome::Applied.into())
    }

    /// Sets the column, what the strategy counts, and stamps.
    pub(super) async fn mark_deleted(&self, column: &str, mut values: Values) -> Result<Answer, Stop> {
        values.extend(self.write.columns.iter().copied().zip(self.write.values.iter().cloned()));
        values.push(self.mark(column, Some(self.origin.received_at()))?);
        values.sort_unstable();
        self.set(&values).await?;
        Ok(Outcome::Applied.into())
    }

    /// Whoever puts a row that is none inserts it: nothing there was seen, or is worth comparing. Its version goes on,
    /// since devices may still hold an earlier one.
    pub(super) async fn revive(&self, old: &CheckedRow, mut values: Values) -> Result<Answer, Stop> {
        if !self.policy.compares_with_old() {
            self.check(None, Some(old))?;
        }
        if let ConflictStrategy::Version { column } = self.strategy {
            let fields = self.compare(&[(self.position(column)?, Form::Next)], &values).await?;
            values.extend(fields.into_iter().map(|field| (field.position, field.calculated)));
        }
        values.extend(self.policy.soft_delete().map(|column| self.mark(column, None)).transpose()?);
        values.sort_unstable();
        if let Some(new) = self.set(&values).await? {
            self.accept(&new, Some(old))?;
        }
        Ok(Outcome::Applied.into())
    }

    /// The column as it says since when the row is deleted, or that it is not.
    fn mark(&self, column: &str, deleted_at: Option<&str>) -> Result<(usize, Option<String>), Stop> {
        let position = self.position(column)?;
        let value = match self.table.columns[position].kind {
            Kind::Boolean => Some(deleted_at.is_some().to_string()),
            Kind::TimestampTz | Kind::LocalTime | Kind::Other => deleted_at.map(str::to_owned),
            Kind::Integer | Kind::Real | Kind::Numeric | Kind::Json | Kind::Array | Kind::Bytes => {
                let message = format!("column `{column}` of `soft_delete` must be a boolean, a time, or text");
                return Err(Refusal::new("WRITE_SOFT_DELETE", message).into());
            }
        };
        Ok((position, value))
    }
}
