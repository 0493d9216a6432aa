//! Consecutive operations that are sent together.
//!
//! By itself an operation waits for Postgres twice or more. How it ends can mostly be foreseen, so a group waits about
//! as often as one operation does:
//!
//! 1. Rehearsal: each operation is decided by the rows as they are before the group; what it would ask Postgres for is
//!    its script.
//! 2. Performance: all scripts are sent, one operation after the other, without waiting in between.
//! 3. Replay: each operation is decided again, by the same code, with the results of its script.
//!
//! An operation that asks for something else in the replay, or whose write is refused, ends the attempt: the group is
//! undone, those before it are taken as a group again, and it is taken by itself. So Postgres gets the statements it
//! would get one by one, in the same order, with the same results; only savepoints and locks taken early differ.

use std::{
    collections::{HashSet, VecDeque},
    future::poll_fn,
    pin::Pin,
    task::Poll,
};

use deadpool_postgres::Transaction;
use futures_util::future::{BoxFuture, FutureExt, join, join_all, maybe_done};
use kairos_sync_rules::WriteOrigin;
use tokio_postgres::Error;

use super::{
    batch::{self, Context, NEXT_SAVEPOINT, Operation, Planned, Stop, Upload},
    entry_bytes,
    ledger::Answer,
    refusal::Refusal,
    script::{Effect, Played, Script, Stage, send},
};

/// Operations of a batch's first group. Few, as nobody knows yet how large the rows are.
const SIZE_FIRST: usize = 16;
/// Bytes of a group's values, and of its rows before the next group is made smaller.
const BYTES_MAX: usize = 1 << 20;

/// How many operations the next groups of a batch have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    size: usize,
    size_max: usize,
    /// Sizes that come first, after a group that was undone.
    decided: VecDeque<usize>,
}

impl Pace {
    /// For groups of at most so many operations.
    pub(super) fn new(size_max: usize) -> Self {
        Self { size: SIZE_FIRST.min(size_max), size_max, decided: VecDeque::new() }
    }

    fn next(&mut self) -> usize {
        self.decided.pop_front().unwrap_or(self.size)
    }

    /// A group was taken, with rows of so many bytes.
    fn taken(&mut self, row_bytes: usize) {
        self.size = if row_bytes > BYTES_MAX { (self.size / 2).max(1) } else { (self.size * 2).min(self.size_max) };
    }

    /// A group was undone because of the operation at this place: those before it are fine, and it goes by itself. Where
    /// every operation is like that, groups soon are of one operation, and little was done in vain.
    fn undone(&mut self, at: usize) {
        self.size = (self.size / 2).max(1);
        self.decided = [at, 1].into_iter().filter(|&size| size > 0).collect();
    }
}

/// How many of the operations, at most `size` and at least one, may be a group. A row that was written already is not
/// rehearsed as it will be, so the group ends before an operation that asks how it is. (Where the same row has two
/// spellings of its id, the replay notices.)
fn extent(operations: &[Operation<'_>], size: usize, asks: impl Fn(Operation<'_>) -> bool) -> usize {
    let (mut rows, mut bytes) = (HashSet::new(), 0);
    let mut count = 0;
    for &operation in operations.iter().take(size) {
        let entry = operation.entry;
        bytes += entry_bytes(entry);
        if bytes > BYTES_MAX || (!rows.insert((&entry.table, &entry.id)) && asks(operation)) {
            break;
        }
        count += 1;
    }
    count.max(1)
}

/// Takes the first one or more of the operations, of which there must be one.
pub(super) async fn take(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    operations: &[Operation<'_>],
    pace: &mut Pace,
) -> Result<Vec<Answer>, Error> {
    loop {
        let count = extent(operations, pace.next(), |operation| batch::asks_for_row(context, operation));
        if count == 1 {
            return Ok(vec![batch::answer(context, tx, upload, operations[0]).await?]);
        }
        match attempt(context, tx, upload, &operations[..count]).await? {
            Attempt::Taken { answers, row_bytes } => {
                pace.taken(row_bytes);
                return Ok(answers);
            }
            Attempt::Strayed { at } => {
                tx.batch_execute("ROLLBACK TO SAVEPOINT operation").await?;
                pace.undone(at);
            }
        }
    }
}

enum Attempt {
    Taken {
        answers: Vec<Answer>,
        row_bytes: usize,
    },
    /// The operation at this place did not end as foreseen. The group has to be undone.
    Strayed {
        at: usize,
    },
}

/// An operation of a group; some are refused before Postgres is asked.
type Member<'a> = Result<Planned<'a>, Refusal>;

async fn attempt(
    context: &Context<'_>,
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    operations: &[Operation<'_>],
) -> Result<Attempt, Error> {
    let mut members = Vec::with_capacity(operations.len());
    for &operation in operations {
        members.push(match batch::plan(context, tx, upload, operation).await {
            Ok(planned) => Ok(planned),
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::Unknown) => return Ok(Attempt::Strayed { at: members.len() }),
        });
    }
    // Polled in this order, so the savepoint is sent first; its answer is not waited for.
    let (begun, attempt) = join(tx.batch_execute(NEXT_SAVEPOINT), rehearse_and_perform(tx, upload, members)).await;
    begun?;
    attempt
}

async fn rehearse_and_perform(
    tx: &Transaction<'_>,
    upload: &Upload<'_>,
    members: Vec<Member<'_>>,
) -> Result<Attempt, Error> {
    let rehearsals: Vec<_> = members.iter().map(|member| rehearse(tx, &upload.origin, member).boxed()).collect();
    let scripts = join_all(rehearsals).await.into_iter().collect::<Result<Vec<Script>, Error>>()?;
    if let Some(at) = scripts.iter().position(|script| script.is_broken) {
        return Ok(Attempt::Strayed { at });
    }
    let played = perform(tx, &members, scripts).await;
    replay(&upload.origin, members, played).await
}

/// What the operation would ask for.
async fn rehearse(tx: &Transaction<'_>, origin: &WriteOrigin, member: &Member<'_>) -> Result<Script, Error> {
    let Ok(planned) = member else { return Ok(Script::default()) };
    if let Some([read, write]) = planned.foreseen() {
        return Ok(Script::of(tx, [(read, Effect::Read), (write, Effect::Write)]).await);
    }
    let stage = Stage::rehearsal(tx);
    match planned.clone().run(&stage, origin).await {
        Err(Stop::Failed(error)) => Err(error),
        Ok(_) | Err(Stop::Refused(_) | Stop::Unknown) => Ok(stage.into_script()),
    }
}

/// Sends all scripts, and then waits.
async fn perform(tx: &Transaction<'_>, members: &[Member<'_>], scripts: Vec<Script>) -> Vec<Vec<Played>> {
    let steps = members.iter().zip(&scripts).flat_map(|(member, script)| {
        let id = member.as_ref().map_or("", |planned| planned.write.id.as_str());
        script.steps.iter().map(move |step| send(tx, &step.statement, id, &step.values).boxed())
    });
    let mut results = in_order(steps.collect()).await.into_iter();
    let played = |script: Script| script.steps.into_iter().zip(results.by_ref()).collect();
    scripts.into_iter().map(played).collect()
}

/// Begins all before it waits for any, so that what they send goes out in this order.
async fn in_order<T: Send>(futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut begun: Vec<_> = futures.into_iter().map(maybe_done).collect();
    poll_fn(|context| {
        for future in &mut begun {
            let _ = future.poll_unpin(context);
        }
        Poll::Ready(())
    })
    .await;
    let mut outputs = Vec::with_capacity(begun.len());
    for mut future in begun {
        (&mut future).await;
        outputs.push(Pin::new(&mut future).take_output().expect("it was awaited"));
    }
    outputs
}

async fn replay(origin: &WriteOrigin, members: Vec<Member<'_>>, played: Vec<Vec<Played>>) -> Result<Attempt, Error> {
    let (mut answers, mut row_bytes) = (Vec::with_capacity(members.len()), 0);
    for (member, played) in members.into_iter().zip(played) {
        let planned = match member {
            Ok(planned) => planned,
            Err(refusal) => {
                answers.push(refusal.into());
                continue;
            }
        };
        let has_effect = played.iter().any(|(step, result)| step.effect == Effect::Write || result.is_err());
        row_bytes += played
            .iter()
            .filter_map(|(_, result)| Some(result.as_ref().ok()?.as_ref()?.raw_size_bytes()))
            .sum::<usize>();
        let stage = Stage::replay(played);
        let ended = planned.run(&stage, origin).await;
        match ended {
            Ok(answer) if stage.is_played_out() => answers.push(answer),
            Err(Stop::Refused(refusal)) if stage.is_played_out() && !has_effect => answers.push(refusal.into()),
            Err(Stop::Failed(error)) => return Err(error),
            Ok(_) | Err(Stop::Refused(_) | Stop::Unknown) => return Ok(Attempt::Strayed { at: answers.len() }),
        }
    }
    Ok(Attempt::Taken { answers, row_bytes })
}

#[cfg(test)]
mod tests {
    use kairos_sync_protocol::upload::{CrudEntry, CrudOp};
    use serde_json::json;

    use super::*;

    fn entry(table: &str, id: &str, bytes: usize) -> CrudEntry {
        let data = json!({ "note": "x".repeat(bytes) });
        serde_json::from_value(json!({ "op": "PUT", "table": table, "id": id, "data": data })).expect("an entry")
    }

    fn patch(table: &str, id: &str) -> CrudEntry {
        CrudEntry { op: CrudOp::Patch, ..entry(table, id, 0) }
    }

    fn extent_of(entries: &[CrudEntry], size: usize) -> usize {
        let operations: Vec<_> =
            entries.iter().map(|entry| Operation { entry, strategy: None, is_beyond: false }).collect();
        extent(&operations, size, |operation| operation.entry.op == CrudOp::Put)
    }

    #[test]
    fn a_group_ends_where_a_row_comes_again() {
        let entries =
            [entry("a", "1", 0), entry("b", "1", 0), entry("a", "2", 0), entry("b", "1", 0), entry("a", "3", 0)];
        assert_eq!(extent_of(&entries, 64), 3);
        assert_eq!(extent_of(&entries[1..], 64), 2);
        assert_eq!(extent_of(&entries[3..], 64), 2);
        assert_eq!(extent_of(&entries, 2), 2);
    }

    #[test]
    fn a_write_that_does_not_ask_how_the_row_is_may_follow_others_to_it() {
        let entries = [entry("a", "1", 0), patch("a", "1"), patch("a", "1"), entry("a", "1", 0)];
        assert_eq!(extent_of(&entries, 64), 3);
    }

    #[test]
    fn a_group_has_so_many_bytes_or_one_operation() {
        let entries = [entry("a", "1", 600_000), entry("a", "2", 400_000), entry("a", "3", 100_000)];
        assert_eq!(extent_of(&entries, 64), 2);
        assert_eq!(extent_of(&[entry("a", "1", 2 << 20), entry("a", "2", 0)], 64), 1);
    }

    #[test]
    fn groups_grow_while_they_are_taken() {
        let mut pace = Pace::new(40);
        let mut next = |row_bytes| {
            let size = pace.next();
            pace.taken(row_bytes);
            size
        };
        assert_eq!([next(0), next(0), next(0), next(2 << 20), next(0)], [16, 32, 40, 40, 20]);
        assert_eq!(Pace::new(1).next(), 1);
    }

    #[test]
    fn those_before_the_one_at_fault_are_taken_again_and_it_goes_by_itself() {
        let mut pace = Pace::new(64);
        assert_eq!(pace.next(), 16);
        pace.undone(5);
        assert_eq!(pace.next(), 5);
        pace.taken(0);
        assert_eq!((pace.next(), pace.next()), (1, 16));
        pace.undone(0);
        assert_eq!((pace.next(), pace.next()), (1, 8), "nothing was before it");
    }

    #[test]
    fn where_all_are_at_fault_little_is_done_in_vain() {
        let (mut pace, mut in_vain, mut left) = (Pace::new(64), 0, 10_000);
        while left > 0 {
            let size = pace.next();
            if size > 1 {
                in_vain += size;
                pace.undone(0);
            } else {
                left -= 1;
            }
        }
        assert!(in_vain <= 32, "{in_vain}");
    }
}
