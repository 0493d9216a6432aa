//! Rows that come before the checkpoint that shows them: nobody can tell that they do.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    convergence::{Change, change},
    *,
};
use crate::store::account;

#[derive(Debug, Clone, Copy)]
enum Action {
    Arrive(Change),
    DropBucket { bucket: u8 },
    CompletePart { priority: u8 },
    Complete,
    Insert { row: u8 },
    Replace { row: u8 },
    Update { row: u8 },
    Delete { row: u8 },
    Upload,
    Reopen { with_another_column: bool },
    SignOut,
}

fn action() -> impl Strategy<Value = Action> {
    let (buckets, rows) = (0..3_u8, 0..4_u8);
    prop_oneof![
        13 => change().prop_map(Action::Arrive),
        1 => buckets.clone().prop_map(|bucket| Action::DropBucket { bucket }),
        2 => buckets.prop_map(|priority| Action::CompletePart { priority }),
        3 => Just(Action::Complete),
        1 => rows.clone().prop_map(|row| Action::Insert { row }),
        1 => rows.clone().prop_map(|row| Action::Replace { row }),
        1 => rows.clone().prop_map(|row| Action::Update { row }),
        1 => rows.prop_map(|row| Action::Delete { row }),
        3 => Just(Action::Upload),
        1 => any::<bool>().prop_map(|with_another_column| Action::Reopen { with_another_column }),
        1 => Just(Action::SignOut),
    ]
}

fn other_schema() -> Schema {
    Schema::new([Table::new("habits").text("name").text("color").index(["name"])])
}

/// A store, and whether it stages whatever it can.
struct Subject {
    bench: Bench,
    stages_from: usize,
}

impl Subject {
    async fn new(stages_from: usize) -> Self {
        let mut bench = Bench::new().await;
        bench.store.stages_from = stages_from;
        Self { bench, stages_from }
    }

    /// Does it, and says all that an app could see of that.
    async fn act(mut self, action: Action, steps: Vec<StoreStep>, write_checkpoint: u64) -> (Self, Vec<String>) {
        let mut seen = Vec::new();
        let write = |sql: &'static str, row: u8| {
            self.bench.store.write(move |tx| Ok::<_, StoreError>(tx.execute(sql, [row.to_string()])?))
        };
        match action {
            Action::Insert { row } => {
                let inserted = write("INSERT INTO habits (id, name) VALUES (?1, 'mine')", row).await;
                seen.push(format!("inserted {:?}", inserted.ok()));
            }
            Action::Replace { row } => {
                let sql = "INSERT OR REPLACE INTO habits (id, name) VALUES (?1, 'replaced')";
                seen.push(format!("replaced {:?}", write(sql, row).await.ok()));
            }
            Action::Update { row } => {
                let updated = write("UPDATE habits SET name = name || '!' WHERE id = ?1", row).await;
                seen.push(format!("updated {:?}", updated.ok()));
            }
            Action::Delete { row } => {
                seen.push(format!("deleted {:?}", write("DELETE FROM habits WHERE id = ?1", row).await.ok()));
            }
            Action::Upload if !self.bench.queue().await.is_empty() => self.bench.upload(write_checkpoint).await,
            Action::Reopen { with_another_column } => {
                self.bench = self.bench.reopen(if with_another_column { other_schema() } else { schema() }).await;
                self.bench.store.stages_from = self.stages_from;
            }
            Action::SignOut => self.bench.store.write_as_sync(|tx| account::clear(tx)).await.unwrap(),
            _ => {}
        }
        if !steps.is_empty() {
            seen.push(format!("{:?}", self.bench.store.perform(steps).await.unwrap()));
        }
        seen.extend(self.bench.habits().await);
        seen.extend(self.bench.queue().await);
        let (tables, verification) = self
            .bench
            .store
            .read(|connection| {
                Ok::<_, StoreError>((crate::store::tables(connection)?, crate::store::verify(connection)?))
            })
            .await
            .unwrap();
        seen.push(format!("{tables:?}"));
        assert!(verification.is_ok(), "{verification:?}");
        (self, seen)
    }
}

/// What the service sends, as far as this action has it send something.
fn steps(action: Action, service: &mut Service) -> Vec<StoreStep> {
    match action {
        Action::Arrive(change) => {
            let step = change.send(service);
            if let Change::Put { bucket, .. } = change {
                service.bucket(&bucket.to_string()).priority = bucket;
            }
            vec![step]
        }
        Action::DropBucket { bucket } => {
            service.buckets.remove(&bucket.to_string());
            vec![StoreStep::DeleteBuckets(vec![bucket.to_string()])]
        }
        Action::CompletePart { priority } if service.last_op_id > 0 => {
            vec![service.complete(Scope::UpTo(priority))]
        }
        Action::Complete if service.last_op_id > 0 => vec![service.full()],
        _ => vec![],
    }
}

#[tokio::test]
async fn a_first_sync_is_shown_and_announced_at_once() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let mut watch = bench.store.changes().watch(&["habits"]);
    bench.perform([service.rows(0, 40)]).await; // too few for a view made anew
    bench.perform([service.rows(40, 300)]).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), watch.changed()).await.is_err(), "nothing is visible");
    assert!(bench.habits().await.is_empty());
    let waiting = bench.rows("SELECT staged_rows FROM kairos_table WHERE name = 'habits'").await;
    assert_eq!(waiting, ["300"], "the rows are in their place");
    let changes = bench.publish([service.full()]).await;
    assert_eq!(changes["habits"], RowChanges { written: 340, deleted: 0 });
    assert!(watch.changed().await);
    assert_eq!(bench.habits().await.len(), 340);
    let plan = bench.rows("EXPLAIN QUERY PLAN SELECT count(*) FROM habits").await;
    assert!(plan[0].contains("COVERING INDEX"), "the view is as it would be without: {plan:?}");
}

/// The app's write waits for a piece of the download, not for all of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_writes_between_the_pieces_of_a_download() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let store = Arc::new(bench.store);
    let download = tokio::spawn({
        let (store, steps) = (Arc::clone(&store), vec![service.rows(0, 40_000), service.full()]);
        async move { store.perform(steps).await.unwrap() }
    });
    let arrived = |store: Arc<Store>| async move {
        let count = "SELECT count(*) FROM kairos_oplog";
        store.read(move |connection| Ok::<_, StoreError>(connection.query_row(count, [], |row| row.get(0))?)).await
    };
    let mut seen = Vec::new();
    while !download.is_finished() {
        let write = "INSERT INTO drafts (id, body) VALUES (uuid(), 'a thought')";
        store.write(move |tx| Ok::<_, StoreError>(tx.execute(write, [])?)).await.unwrap();
        seen.push(arrived(Arc::clone(&store)).await.unwrap());
    }
    let partly = seen.iter().filter(|count: &&i64| (1..40_000).contains(*count)).count();
    assert!(partly > 2, "writes were made while {seen:?} operations had arrived");
    assert!(matches!(download.await.unwrap(), Some(Outcome::Published(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn an_app_cannot_tell_whether_rows_were_staged(history in prop::collection::vec(action(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let (mut staging, mut plain) = (Subject::new(1).await, Subject::new(usize::MAX).await);
            let (mut service, mut write_checkpoint) = (Service::default(), 0);
            for action in history {
                match action {
                    Action::Upload => {
                        write_checkpoint += 1;
                        service.write_checkpoint = Some(write_checkpoint);
                    }
                    // Another user's buckets come to an empty store.
                    Action::SignOut => service.buckets.clear(),
                    _ => {}
                }
                let steps = steps(action, &mut service);
                let seen;
                let expected;
                (staging, seen) = staging.act(action, steps.clone(), write_checkpoint).await;
                (plain, expected) = plain.act(action, steps, write_checkpoint).await;
                prop_assert_eq!(seen, expected, "after {:?}", action);
            }
            Ok(())
        })?;
    }
}
