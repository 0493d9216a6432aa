//! A person decides about a conflict: what is to be written goes the way of all writes, in the same transaction in which
//! the conflict ends.

use deadpool_postgres::{Client, Transaction};
use kairos_sync_protocol::{
    conflict::{Choice, Columns, Conflict, ConflictPreference, ConflictStatus, PreferredStrategy, Resolve},
    upload::{CrudEntry, CrudOp, Outcome},
};
use kairos_sync_rules::{ConflictStrategy, WritePolicy};
use uuid::Uuid;

use super::{
    Work,
    batch::{self, BatchError, Constraints, Context, Operation, Upload},
    conflict_log,
    error::ConflictError,
    ledger::Answer,
    preferences,
};

/// What a person wants.
#[derive(Debug)]
pub(super) struct Resolution<'a> {
    /// Of the user, with nothing to write yet.
    pub(super) upload: Upload<'a>,
    pub(super) id: Uuid,
    pub(super) wanted: &'a Resolve,
}

/// The conflict as it is now, and the write with what became of it.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) conflict: Conflict,
    pub(super) written: Option<(CrudEntry, Answer)>,
    /// Somebody had decided the same before.
    pub(super) is_repeated: bool,
}

impl Work for Resolution<'_> {
    type Done = Result<Decided, ConflictError>;

    async fn attempt(
        &self,
        context: &Context<'_>,
        client: &mut Client,
        constraints: Constraints,
    ) -> Result<Self::Done, BatchError> {
        let user_id = self.upload.user_id;
        let tx = client.transaction().await?;
        batch::configure(&tx, context.deadline).await?;
        let known = conflict_log::lock(&tx, user_id, self.id).await.map_err(BatchError::Ledger)?;
        let Some(conflict) = known else { return Ok(Err(ConflictError::Unknown)) };
        if conflict.status == ConflictStatus::Resolved {
            // Asked twice, as the answer was lost.
            let is_same = conflict.resolution == Some(self.wanted.choice);
            let decided = Decided { conflict, written: None, is_repeated: true };
            return Ok(if is_same { Ok(decided) } else { Err(ConflictError::Resolved) });
        }
        let policy = context.plan.write_policy(&conflict.table);
        let question = question(&conflict);
        let written = if self.wanted.choice == in_row(&conflict) {
            None
        } else {
            Some(self.write(context, &tx, &question, policy, constraints).await?)
        };
        let changed = match written.as_ref().map(|(_, answer)| answer) {
            Some(answer) if answer.outcome.needs_attention() => waiting(question, answer),
            _ => Conflict { status: ConflictStatus::Resolved, resolution: Some(self.wanted.choice), ..conflict },
        };
        let conflict = conflict_log::update(&tx, &changed).await.map_err(BatchError::Ledger)?;
        if let Some(preference) = self.preference(&conflict, policy) {
            preferences::write(&tx, user_id, &preference).await.map_err(BatchError::Ledger)?;
        }
        tx.commit().await?;
        Ok(Ok(Decided { conflict, written, is_repeated: false }))
    }
}

impl Resolution<'_> {
    async fn write(
        &self,
        context: &Context<'_>,
        tx: &Transaction<'_>,
        conflict: &Conflict,
        policy: Option<&WritePolicy>,
        constraints: Constraints,
    ) -> Result<(CrudEntry, Answer), BatchError> {
        let entry = entry(conflict, self.wanted, policy);
        let strategy = strategy(conflict, policy);
        let operation = Operation { entry: &entry, strategy: strategy.as_ref(), is_beyond: false };
        batch::begin(context, tx, &self.upload, constraints).await?;
        let answer = batch::answer(context, tx, &self.upload, operation).await?;
        batch::end(context, tx).await?;
        Ok((entry, answer))
    }

    /// What is to be remembered, once the conflict has ended so.
    fn preference(&self, conflict: &Conflict, policy: Option<&WritePolicy>) -> Option<ConflictPreference> {
        let strategy = match conflict.resolution? {
            Choice::Mine => PreferredStrategy::ClientWins,
            Choice::Theirs => PreferredStrategy::ServerWins,
            Choice::Merged => return None,
        };
        let policy = policy.filter(|policy| self.wanted.remember && policy.asks_user())?;
        Some(ConflictPreference { table: policy.table().to_owned(), strategy: Some(strategy) })
    }
}

/// Whose values the row got where they met, while no person has decided.
fn in_row(conflict: &Conflict) -> Choice {
    if conflict.resolution == Some(Choice::Mine) { Choice::Mine } else { Choice::Theirs }
}

/// What a person decides about: the row as it is, and what it may have instead. Where the device went over what others
/// had, that is the latter.
fn question(conflict: &Conflict) -> Conflict {
    if in_row(conflict) == Choice::Theirs {
        return conflict.clone();
    }
    let theirs = conflict.theirs.clone().unwrap_or_default();
    let (mine, row) = match &conflict.mine {
        Some(sent) if conflict.op != CrudOp::Delete => {
            let touched = theirs.iter().filter(|(column, _)| sent.contains_key(*column));
            let mine = touched.map(|(column, value)| (column.clone(), value.clone())).collect();
            let row = theirs.iter().chain(sent).map(|(column, value)| (column.clone(), value.clone())).collect();
            (mine, Some(row))
        }
        _ => (theirs.clone(), None),
    };
    let (op, outcome) = (CrudOp::Patch, Outcome::Conflict);
    Conflict { op, outcome, base: Some(theirs), mine: Some(mine), theirs: row, ..conflict.clone() }
}

/// The conflict after a write that was not taken either.
fn waiting(conflict: Conflict, answer: &Answer) -> Conflict {
    Conflict {
        outcome: answer.outcome,
        status: ConflictStatus::Open,
        resolution: None,
        code: answer.code.clone(),
        message: answer.message.clone(),
        theirs: if answer.outcome == Outcome::Conflict { answer.theirs.clone() } else { conflict.theirs },
        ..conflict
    }
}

/// Another one than the table's, if it is to be another. Where the person saw what the row has, that must still hold.
fn strategy(conflict: &Conflict, policy: Option<&WritePolicy>) -> Option<ConflictStrategy> {
    match policy.map(WritePolicy::conflict)? {
        // What went comes back only over what it went for.
        _ if in_row(conflict) == Choice::Mine => Some(ConflictStrategy::ServerWins),
        ConflictStrategy::Manual | ConflictStrategy::MergeFields | ConflictStrategy::ServerWins => {
            let has_seen =
                conflict.outcome == Outcome::Conflict || conflict.theirs.is_some() || conflict.base.is_some();
            Some(if has_seen { ConflictStrategy::ServerWins } else { ConflictStrategy::ClientWins })
        }
        _ => None,
    }
}

/// The write that brings the row to what is wanted. It is one of somebody who saw the row as the conflict has it.
fn entry(conflict: &Conflict, wanted: &Resolve, policy: Option<&WritePolicy>) -> CrudEntry {
    let is_gone = conflict.outcome == Outcome::Conflict && conflict.theirs.is_none();
    let data = wanted.data.clone().or_else(|| conflict.mine.clone());
    let (op, data) = match (conflict.op, wanted.choice) {
        // Whoever keeps a change to a row that is gone wants the row back, as far as it is known.
        (CrudOp::Patch, _) | (CrudOp::Delete, Choice::Merged) if is_gone => {
            (CrudOp::Put, Some(whole(conflict, data, policy)))
        }
        (CrudOp::Delete, Choice::Merged) => (CrudOp::Patch, data),
        (op, _) => (op, data),
    };
    let old = if is_gone { None } else { conflict.theirs.clone().or_else(|| conflict.base.clone()) };
    // A time of the device has passed; the person decides now.
    let data = match policy.map(WritePolicy::conflict) {
        Some(ConflictStrategy::LastWriteWins { column }) => data.map(|mut data| {
            data.remove(column);
            data
        }),
        _ => data,
    };
    CrudEntry {
        op,
        table: conflict.table.clone(),
        id: conflict.row_id.clone(),
        data,
        op_id: None,
        tx_id: None,
        old,
        metadata: None,
    }
}

/// What the device had of the row and may write, and `data` over it.
fn whole(conflict: &Conflict, data: Option<Columns>, policy: Option<&WritePolicy>) -> Columns {
    let is_allowed = |column: &str| policy.is_some_and(|policy| policy.allows_column(column));
    let mut columns = conflict.base.clone().unwrap_or_default();
    columns.retain(|column, _| is_allowed(column));
    columns.extend(data.unwrap_or_default());
    columns
}
