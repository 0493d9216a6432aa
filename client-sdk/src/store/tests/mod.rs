//! The store against real files, without a network.

mod convergence;
mod copies;
mod learning;
mod local_writes;
mod log;
mod publishing;
mod raw_tables;
mod rejected;
mod schema_changes;
mod staging;
mod verifying;

use std::{collections::BTreeMap, sync::Arc};

use kairos_sync_protocol::{
    Checksum, OpId,
    line::{BucketChecksum, BucketData},
    operation::{OpKind, Operation},
};
use tempfile::TempDir;

use super::{Outcome, RowChanges, Store, StoreError, attention, crud, identity};
use crate::{
    core::{Completion, Scope, StoreStep, Target},
    schema::{Schema, Table},
};

/// A checkpoint the app sees, whatever it did.
const PUBLISHED: Outcome = Outcome::Published(BTreeMap::new());

fn schema() -> Schema {
    Schema::new([
        Table::new("habits").text("name").integer("count").real("score").index(["name"]),
        Table::new("notes").text("body").track_previous(),
        Table::new("drafts").text("body").local_only(),
    ])
}

/// A store in a folder of its own.
struct Bench {
    folder: TempDir,
    store: Store,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("client.db"), schema()).await.unwrap();
        Self { folder, store }
    }

    /// Opens the same file again.
    async fn reopen(self, schema: Schema) -> Self {
        drop(self.store);
        let store = Store::open(self.folder.path().join("client.db"), schema).await.unwrap();
        Self { folder: self.folder, store }
    }

    async fn execute(&self, sql: &'static str) -> Result<(), StoreError> {
        self.store.write(move |tx| Ok(tx.execute_batch(sql)?)).await
    }

    /// All rows of a query, columns joined with `|`.
    async fn rows(&self, sql: &'static str) -> Vec<String> {
        self.store
            .read(move |connection| {
                let mut statement = connection.prepare(sql)?;
                let rows = statement.query_map([], |row| {
                    let text = |column| {
                        row.get::<_, rusqlite::types::Value>(column).map(|value| match value {
                            rusqlite::types::Value::Null => "NULL".to_owned(),
                            rusqlite::types::Value::Integer(number) => number.to_string(),
                            rusqlite::types::Value::Real(number) => format!("{number:?}"),
                            rusqlite::types::Value::Text(text) => text,
                            rusqlite::types::Value::Blob(_) => "BLOB".to_owned(),
                        })
                    };
                    // Not before the first row: a view that has changed is noticed only then.
                    Ok((0..row.as_ref().column_count()).map(text).collect::<Result<Vec<_>, _>>()?.join("|"))
                })?;
                Ok::<_, StoreError>(rows.collect::<Result<Vec<_>, _>>()?)
            })
            .await
            .unwrap()
    }

    async fn queue(&self) -> Vec<String> {
        self.rows("SELECT op, row_type, row_id, data FROM kairos_crud ORDER BY id").await
    }

    async fn habits(&self) -> Vec<String> {
        self.rows("SELECT id, name FROM habits ORDER BY id").await
    }

    /// What became of a completion among the steps; [`Self::publish`] has the rows.
    async fn perform(&self, steps: impl Into<Vec<StoreStep>>) -> Option<Outcome> {
        match self.store.perform(steps.into()).await.unwrap() {
            Some(Outcome::Published(_)) => Some(PUBLISHED),
            outcome => outcome,
        }
    }

    /// What a checkpoint that is published did to the tables.
    async fn publish(&self, steps: impl Into<Vec<StoreStep>>) -> BTreeMap<String, RowChanges> {
        match self.store.perform(steps.into()).await.unwrap() {
            Some(Outcome::Published(rows)) => rows,
            outcome => panic!("{outcome:?}"),
        }
    }

    /// Pretends that everything queued was uploaded and answered with this write checkpoint.
    async fn upload(&self, write_checkpoint: u64) {
        let slice = self.store.read(crud::next_upload).await.unwrap().expect("something is queued");
        let id = write_checkpoint.to_string().parse().unwrap();
        self.store.write(move |tx| crud::acknowledge(tx, slice.last_id, &[], Some(id))).await.unwrap();
    }
}

/// The service's side of some buckets: what it has sent, and what they add up to.
#[derive(Debug, Clone, Default)]
struct Service {
    last_op_id: u64,
    buckets: BTreeMap<String, BucketChecksum>,
    write_checkpoint: Option<u64>,
}

impl Service {
    fn bucket(&mut self, name: &str) -> &mut BucketChecksum {
        self.buckets.entry(name.to_owned()).or_insert_with(|| BucketChecksum {
            bucket: name.to_owned(),
            checksum: Checksum::ZERO,
            count: 0,
            priority: 3,
            subscriptions: Vec::new(),
        })
    }

    fn operation(&mut self, bucket: &str, op: OpKind, row: Option<(&str, &str)>, data: Option<String>) -> StoreStep {
        self.last_op_id += 1;
        let checksum = match (row, &data) {
            (Some((table, id)), Some(data)) => Checksum::of_put(table, id, data),
            _ => Checksum::of_remove(&self.last_op_id.to_string()),
        };
        let state = self.bucket(bucket);
        state.checksum = if op == OpKind::Clear { checksum } else { state.checksum + checksum };
        state.count += 1;
        let operation = Operation {
            op_id: OpId::new(self.last_op_id).unwrap(),
            op,
            object_type: row.map(|(table, _)| table.to_owned()),
            object_id: row.map(|(_, id)| id.to_owned()),
            checksum,
            subkey: None,
            data,
        };
        StoreStep::ApplyData(BucketData {
            bucket: bucket.to_owned(),
            after: OpId::ZERO,
            has_more: false,
            next_after: operation.op_id,
            data: vec![operation],
        })
    }

    fn put(&mut self, bucket: &str, id: &str, name: &str) -> StoreStep {
        let data = serde_json::json!({ "id": id, "name": name }).to_string();
        self.operation(bucket, OpKind::Put, Some(("habits", id)), Some(data))
    }

    /// One line with so many new rows, in bucket `a`.
    fn rows(&mut self, first: usize, count: usize) -> StoreStep {
        let operation = |step| match step {
            StoreStep::ApplyData(line) => line.data.into_iter().next().unwrap(),
            step => panic!("{step:?}"),
        };
        let ids = first..first + count;
        let data: Vec<Operation> = ids.map(|id| operation(self.put("a", &format!("h{id:06}"), "Read"))).collect();
        StoreStep::ApplyData(BucketData {
            bucket: "a".to_owned(),
            after: OpId::ZERO,
            has_more: false,
            next_after: data.last().unwrap().op_id,
            data,
        })
    }

    fn remove(&mut self, bucket: &str, id: &str) -> StoreStep {
        self.operation(bucket, OpKind::Remove, Some(("habits", id)), None)
    }

    fn complete(&self, scope: Scope) -> StoreStep {
        StoreStep::Complete(Completion {
            target: Arc::new(Target {
                last_op_id: OpId::new(self.last_op_id).unwrap(),
                write_checkpoint: self.write_checkpoint.map(|id| id.to_string().parse().unwrap()),
                buckets: self.buckets.clone(),
                streams: Vec::new(),
            }),
            scope,
        })
    }

    fn full(&self) -> StoreStep {
        self.complete(Scope::Full)
    }
}
