//! `explain`: why a user has these buckets, and why a row is on the user's devices or not.
//!
//! ```text
//! question ─► request (which device asked, or what is given) ─► store: the row, then one view: rules over row and request
//!   ─► the rows behind lookups, the row's last operations ─► connections ─► verdict (pure) ─► answer ─► text
//! ```
//!
//! **Invariants**
//!
//! - Only what is asked for is read: the row, the user's lookups, a page of buckets. No limit of serving makes it fail.
//! - Every read of the store takes its turn among those of clients, and is short.
//! - Values of rows are in the answer and nowhere else.
//!
//! Start reading at [`explain`].

mod answer;
mod command;
mod last_operation;
mod lookups;
mod row;
mod text;
mod user;
mod verdict;

use std::sync::Arc;

use kairos_sync_protocol::{BucketName, OpId};

pub use self::{
    answer::{Answer, Question},
    command::ExplainArguments,
};
use self::{
    answer::{CheckpointAnswer, DeviceAnswer, RowAnswer, RowOnDevice, RowState, ToldAnswer},
    last_operation::last_operations,
    row::WantedRow,
    user::{User, asked_by},
};
use crate::{
    iso8601::iso8601,
    replication::StatusSnapshot,
    sync::{
        SyncContext, SyncError,
        connections::{Connection, Moment},
    },
};

/// Connections of the user that are listed.
const DEVICES_MAX: usize = 100;

/// Answers a question, as of the store's newest state.
///
/// # Errors
/// When the store cannot be read.
pub async fn explain(
    context: &SyncContext,
    replication: &StatusSnapshot,
    question: Question,
) -> Result<Answer, SyncError> {
    let (connections, device_count) = context.connections().list(Some(&question.user_id), 0, usize::MAX);
    let (request, explained_as) = asked_by(&question, &connections);
    let wanted = WantedRow::of(&question);
    let found = match wanted {
        Some(wanted) => Some({
            let plan = context.view(|_, plan| Ok(Arc::clone(plan))).await?;
            context.read(move |store| Ok(row::find(store, &plan, wanted)?)).await?
        }),
        None => None,
    };
    let user = User { request, page_after: question.buckets_after, page_limit: question.bucket_limit };
    let limit = context.limits().bucket_count_max;
    let read = context.view(move |view, plan| Ok(user.read(view, plan, found, limit)?)).await?;
    let mut row = read.row;
    if let Some(row) = &mut row {
        find_operations(context, row).await?;
    }
    let mut buckets = read.buckets;
    buckets.page = context.read(move |store| Ok(lookups::with_rows(store, read.page)?)).await?;
    let devices = connections.iter().rev().take(DEVICES_MAX);
    let mut answer = Answer {
        summary: String::new(),
        user_id: question.user_id,
        request: explained_as,
        checkpoint: read
            .checkpoint
            .map(|checkpoint| CheckpointAnswer { op_id: checkpoint.op_id, lsn: checkpoint.lsn.to_string() }),
        lag_bytes: replication.lag_bytes(),
        buckets,
        definitions: read.definitions,
        devices: devices.map(|connection| device(context, connection, row.as_ref())).collect(),
        row,
        device_count,
    };
    answer.summary = verdict::summary(&answer);
    Ok(answer)
}

/// Looks for the last operations on the row, in the user's buckets that it is in.
async fn find_operations(context: &SyncContext, row: &mut RowAnswer) -> Result<(), SyncError> {
    let mut budget = last_operation::Budget::default();
    for bucket in row.buckets.iter_mut().filter(|bucket| bucket.is_users) {
        let Some(upto) = bucket.bucket_last_op_id else { continue };
        let search =
            last_operations(BucketName::new(bucket.name.as_str()), upto, &bucket.object_type, &bucket.object_id);
        bucket.op_id = search.run(context, &mut budget).await?;
    }
    Ok(())
}

/// What is known of a connection, and whether it was sent the row.
fn device(context: &SyncContext, connection: &Connection, row: Option<&RowAnswer>) -> DeviceAnswer {
    let told = connection.told();
    let view = |moment: Moment| ToldAnswer { op_id: moment.op_id, at: iso8601(moment.at) };
    let is_stored = |row: &&RowAnswer| matches!(row.state, RowState::Stored | RowState::Incomplete);
    DeviceAnswer {
        client_id: connection.client_id.clone(),
        user_agent: connection.user_agent.clone(),
        carrier: connection.carrier.name().to_owned(),
        since: iso8601(connection.since),
        bucket_count: context.hub().bucket_count(connection.id),
        announced: told.announced.map(view),
        completed: told.completed.map(view),
        row: row.filter(is_stored).map(|row| {
            let holds = |name: &str| context.hub().holds(connection.id, &BucketName::new(name));
            on_device(row, told.completed.map(|moment| moment.op_id), holds)
        }),
    }
}

/// Whether a device that has everything up to `completed` has the row.
fn on_device(row: &RowAnswer, completed: Option<OpId>, holds: impl Fn(&str) -> bool) -> RowOnDevice {
    let mut held = row.buckets.iter().filter(|bucket| holds(&bucket.name)).peekable();
    if held.peek().is_none() {
        return RowOnDevice::NotAsked;
    }
    // Where the operation was not found, the bucket's last one includes it.
    let is_sent = |needed: Option<OpId>| needed.zip(completed).is_some_and(|(needed, completed)| needed <= completed);
    if held.any(|bucket| is_sent(bucket.op_id.or(bucket.bucket_last_op_id))) {
        RowOnDevice::Sent
    } else {
        RowOnDevice::Coming
    }
}

#[cfg(test)]
mod tests {
    use super::{answer::RowBucket, *};

    #[test]
    fn a_row_was_sent_once_a_checkpoint_with_its_operation_is_complete() {
        let id = |id| OpId::new(id).unwrap();
        let bucket = |name: &str, op_id: Option<u64>, last| RowBucket {
            name: name.to_owned(),
            is_users: true,
            object_type: "t".to_owned(),
            object_id: "1".to_owned(),
            op_id: op_id.map(id),
            bucket_last_op_id: Some(id(last)),
        };
        let row = |buckets| RowAnswer {
            table: "t".to_owned(),
            key: "1".to_owned(),
            state: RowState::Stored,
            queries: Vec::new(),
            buckets,
            bucket_count: 1,
            user_bucket_count: 1,
        };
        let known = row(vec![bucket("a", Some(5), 9)]);
        let unknown = row(vec![bucket("a", None, 9)]);
        let is_a = |name: &str| name == "a";
        assert_eq!(on_device(&known, Some(id(5)), is_a), RowOnDevice::Sent);
        assert_eq!(on_device(&known, Some(id(4)), is_a), RowOnDevice::Coming);
        assert_eq!(on_device(&known, None, is_a), RowOnDevice::Coming);
        assert_eq!(on_device(&known, Some(id(9)), |_| false), RowOnDevice::NotAsked);
        assert_eq!(on_device(&unknown, Some(id(8)), is_a), RowOnDevice::Coming);
        assert_eq!(on_device(&unknown, Some(id(9)), is_a), RowOnDevice::Sent);
        let either = row(vec![bucket("b", Some(1), 1), bucket("a", Some(5), 9)]);
        assert_eq!(on_device(&either, Some(id(4)), |_| true), RowOnDevice::Sent, "one bucket is enough");
    }
}
