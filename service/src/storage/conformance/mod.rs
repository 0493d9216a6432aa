//! The promises of [`BucketStore`], as tests every engine runs: `conformance::suite!(engine)` makes a test of each.
//!
//! `promises` has one function per promise, `deployments` those about rules that change, `concurrency` those about several threads, `histories` compares random
//! histories with a naive model, `compaction` what clients make of operations that become fewer.

pub(super) mod compaction;
pub(super) mod concurrency;
pub(super) mod deployments;
pub(super) mod histories;
pub(super) mod promises;

use std::sync::Arc;

use bytes::Bytes;
use kairos_sync_protocol::{BucketName, Checksum, OpId, operation::Operation};

use super::{
    Batch, BucketStore, LookupKey, LookupValue, NewOperation, RowKey, RowOutput, StorageError, StoredRow, TableId,
};
use crate::lsn::Lsn;

/// One store under test. `open` opens it, and opens it again once what it gave before is dropped.
pub(super) trait Engine {
    fn open(&self) -> Arc<dyn BucketStore>;
}

/// Makes a test of every promise; the argument is evaluated for each and must give a fresh, empty [`Engine`].
macro_rules! suite {
    ($engine:expr) => {
        $crate::storage::conformance::suite! { $engine, promises:
            an_empty_store_has_nothing, op_ids_ascend_over_all_buckets, operations_are_sent_as_the_protocol_says,
            a_range_keeps_its_bounds, a_range_has_at_least_one_operation, totals_are_the_sums_of_operations,
            nothing_is_visible_before_the_first_checkpoint, a_batch_without_checkpoint_hides_the_state_until_the_next,
            a_view_does_not_change, rows_are_replaced_and_forgotten, rows_of_a_table_are_paged_in_key_order,
            lookups_hold_what_rows_give, a_commit_names_what_it_changed, dependents_are_paged_in_key_order,
            replication_state_is_replaced_whole, a_reset_keeps_op_ids_and_write_checkpoints,
            prefixes_are_short_and_never_repeated, write_checkpoints_count_per_key, requested_write_checkpoints_never_go_back,
            write_checkpoints_of_a_batch_are_there_with_it, released_write_checkpoints_are_reached, a_reopened_store_is_the_same,
            statistics_count_what_is_there, sizes_are_told_by_definition,
        }
        $crate::storage::conformance::suite! { $engine, concurrency: views_are_consistent_while_commits_run, write_checkpoints_may_be_concurrent, }
        $crate::storage::conformance::suite! { $engine, deployments: rules_are_stored_with_what_they_serve, what_is_forgotten_is_gone_and_nothing_else, }
        $crate::storage::conformance::suite! { $engine, compaction:
            syncing_in_steps_equals_syncing_at_once, compaction_leaves_little,
            a_view_keeps_its_state_while_operations_become_fewer, nothing_is_compacted_while_nothing_is_visible,
        }
        $crate::storage::conformance::suite! { $engine, histories: random_histories_equal_the_model, }
    };
    ($engine:expr, $part:ident: $($promise:ident),* $(,)?) => {
        $(#[test]
        fn $promise() {
            $crate::storage::conformance::$part::$promise(&|| $engine);
        })*
    };
}
pub(super) use suite;

fn name(text: &str) -> BucketName {
    BucketName::new(text)
}

fn op_id(id: u64) -> OpId {
    OpId::new(id).unwrap()
}

fn key(table: u32, identity: &str) -> RowKey {
    RowKey { table: TableId(table), identity: identity.as_bytes().into() }
}

fn lookup(text: &str) -> LookupKey {
    LookupKey(text.into())
}

fn values(texts: &[&str]) -> Vec<LookupValue> {
    texts.iter().map(|text| LookupValue((*text).into())).collect()
}

fn output(bucket: &str, id: &str) -> RowOutput {
    RowOutput { bucket: name(bucket), object_type: "todos".into(), object_id: id.into() }
}

fn put(bucket: &str, id: &str) -> NewOperation {
    let data = format!(r#"{{"id":"{id}","title":"Milk \"fresh\""}}"#);
    NewOperation {
        output: output(bucket, id),
        subkey: format!("k/{id}").into(),
        checksum: Checksum::of_put("todos", id, &data),
        data: Some(data.into()),
    }
}

fn remove(bucket: &str, id: &str) -> NewOperation {
    let subkey = format!("k/{id}");
    let checksum = Checksum::of_remove(&subkey);
    NewOperation { output: output(bucket, id), subkey: subkey.into(), checksum, data: None }
}

fn row(image: &str, outputs: Vec<RowOutput>) -> StoredRow {
    StoredRow {
        image: Bytes::copy_from_slice(image.as_bytes()),
        outputs,
        lookups: vec![(lookup("l1"), LookupValue("v1".into())), (lookup("l1"), LookupValue("v2".into()))],
        consulted: vec![lookup("l2")],
    }
}

/// A batch of operations, visible.
fn batch(operations: Vec<NewOperation>) -> Batch {
    Batch { operations, visible_at: Some(Lsn::new(1)), ..Batch::default() }
}

/// All operations of a bucket with `after < op id <= upto`, asked for in steps.
fn read_all(
    store: &dyn BucketStore,
    bucket: &BucketName,
    after: OpId,
    upto: OpId,
    bytes_max: usize,
) -> Result<Vec<Operation>, StorageError> {
    let mut all = Vec::new();
    let mut position = after;
    loop {
        let range = store.operations(bucket, position, upto, bytes_max)?;
        let json = range.json.array()?;
        let operations: Vec<Operation> = serde_json::from_slice(&json).expect("a JSON array when put into brackets");
        assert_eq!(operations.len(), range.count);
        assert_eq!(operations.last().map(|operation| operation.op_id).unwrap_or_default(), range.last_op_id);
        all.extend(operations);
        if !range.has_more {
            return Ok(all);
        }
        assert!(range.last_op_id > position, "a range that says there is more gets on");
        position = range.last_op_id;
    }
}
