//! Random histories: however they arrive, the app ends with what the service has, and never loses its own writes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Put { bucket: u8, row: u8 },
    Remove { bucket: u8, row: u8 },
    Move { bucket: u8 },
    Clear { bucket: u8 },
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let (buckets, rows) = (0..3_u8, 0..4_u8);
    prop_oneof![
        6 => (buckets.clone(), rows.clone()).prop_map(|(bucket, row)| Change::Put { bucket, row }),
        3 => (buckets.clone(), rows).prop_map(|(bucket, row)| Change::Remove { bucket, row }),
        1 => buckets.clone().prop_map(|bucket| Change::Move { bucket }),
        1 => buckets.prop_map(|bucket| Change::Clear { bucket }),
    ]
}

impl Change {
    /// What the service sends of it. A row is named after its operation.
    pub(super) fn send(self, service: &mut Service) -> StoreStep {
        let name = (service.last_op_id + 1).to_string();
        match self {
            Self::Put { bucket, row } => service.put(&bucket.to_string(), &row.to_string(), &name),
            Self::Remove { bucket, row } => service.remove(&bucket.to_string(), &row.to_string()),
            Self::Move { bucket } => service.operation(&bucket.to_string(), OpKind::Move, None, None),
            Self::Clear { bucket } => service.operation(&bucket.to_string(), OpKind::Clear, None, None),
        }
    }
}

/// What the buckets hold: bucket and row to operation and name.
#[derive(Debug, Default)]
struct Model(BTreeMap<(u8, u8), u64>);

impl Model {
    fn rows(&self) -> Vec<String> {
        let mut rows = BTreeMap::new();
        for ((_, row), op_id) in &self.0 {
            let newest = rows.entry(row).or_insert(*op_id);
            *newest = (*newest).max(*op_id);
        }
        rows.into_iter().map(|(row, op_id)| format!("{row}|{op_id}")).collect()
    }

    fn apply(&mut self, service: &mut Service, change: Change) -> StoreStep {
        match change {
            Change::Put { bucket, row } => {
                self.0.insert((bucket, row), service.last_op_id + 1);
            }
            Change::Remove { bucket, row } => {
                self.0.remove(&(bucket, row));
            }
            Change::Move { .. } => {}
            Change::Clear { bucket } => self.0.retain(|(of, _), _| *of != bucket),
        }
        change.send(service)
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn checkpoints_in_steps_equal_one_at_the_end(history in prop::collection::vec((change(), any::<bool>()), 1..40)) {
        run(async {
            let (stepwise, at_once) = (Bench::new().await, Bench::new().await);
            let (mut service, mut model) = (Service::default(), Model::default());
            for (change, completes) in history {
                let step = model.apply(&mut service, change);
                at_once.perform([step.clone()]).await;
                stepwise.perform([step]).await;
                if completes {
                    prop_assert_eq!(stepwise.perform([service.full()]).await, Some(PUBLISHED));
                    prop_assert_eq!(stepwise.habits().await, model.rows());
                }
            }
            stepwise.perform([service.full()]).await;
            at_once.perform([service.full()]).await;
            prop_assert_eq!(stepwise.habits().await, model.rows());
            prop_assert_eq!(at_once.habits().await, model.rows());
            Ok(())
        })?;
    }

    /// A row of the app's own among downloads: it stays as written until a checkpoint has the write.
    #[test]
    fn local_writes_survive_whatever_is_downloaded(
        history in prop::collection::vec((change(), 0..4_u8), 1..40),
    ) {
        run(async {
            let bench = Bench::new().await;
            let (mut service, mut model) = (Service::default(), Model::default());
            let (mut mine, mut uploaded, mut acknowledged) = (0_u64, 0_u64, 0_u64);
            for (change, action) in history {
                let step = model.apply(&mut service, change);
                bench.perform([step]).await;
                match action {
                    0 => {
                        mine += 1;
                        let value = mine;
                        bench.store.write(move |tx| Ok::<_, StoreError>(tx.execute(
                            "INSERT OR REPLACE INTO habits (id, name) VALUES ('mine', ?1)", [value.to_string()])?)
                        ).await.unwrap();
                    }
                    1 if mine > uploaded => {
                        bench.upload(mine).await;
                        uploaded = mine;
                        let put = service.put("9", "mine", &mine.to_string());
                        bench.perform([put]).await;
                    }
                    2 => service.write_checkpoint = Some(uploaded).filter(|id| *id > 0),
                    _ => {}
                }
                let published = bench.perform([service.full()]).await == Some(PUBLISHED);
                let is_seen = acknowledged == uploaded || service.write_checkpoint == Some(uploaded);
                prop_assert_eq!(published, mine == uploaded && is_seen);
                if published {
                    acknowledged = uploaded;
                }
                let shown = bench.rows("SELECT name FROM habits WHERE id = 'mine'").await;
                prop_assert_eq!(shown, if mine > 0 { vec![mine.to_string()] } else { vec![] });
            }
            Ok(())
        })?;
    }
}
