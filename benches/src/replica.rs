//! A replicator in this process, on any store.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use kairos_sync::{
    deployment::{Deployments, Rules},
    lsn::Lsn,
    metrics::Metrics,
    postgres::SourceConfig,
    replication::{Phase, ReplicationError, ReplicationStatus, Replicator, StatusSnapshot},
    storage::{BucketStore, DeploymentNumber},
};
use tokio::{sync::watch, task::JoinHandle};

const DEADLINE: Duration = Duration::from_mins(10);
/// Short against everything measured here.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Runs until stopped.
pub(crate) struct Replica {
    deployments: Arc<Deployments>,
    status: Arc<ReplicationStatus>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), ReplicationError>>,
}

impl Replica {
    /// Replicates what `rules` read into `store`. `name` is part of the slot's name.
    pub(crate) fn start(
        uri: &str,
        name: &str,
        rules: &str,
        store: Arc<dyn BucketStore>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut source = SourceConfig::from_uri(uri)?;
        source.slot_prefix = format!("kairos_stage_{name}_");
        let deployments = Arc::new(Deployments::new(Rules::compile("rules", rules)?));
        let status = Arc::new(ReplicationStatus::default());
        let replicator = Replicator::new(
            source,
            Arc::clone(&deployments),
            store,
            Arc::new(Metrics::new()),
            Arc::new(|_| ()),
            Arc::clone(&status),
        );
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(replicator.run(stopped));
        Ok(Self { deployments, status, stop, task })
    }

    /// Waits until the copies are done and the stream runs.
    pub(crate) async fn wait_until_copied(&self) -> Result<(), Box<dyn Error>> {
        self.wait_until(|status| status.phase == Phase::Streaming).await
    }

    /// Waits until everything before `position` is durable.
    pub(crate) async fn wait_until_passed(&self, position: Lsn) -> Result<(), Box<dyn Error>> {
        self.wait_until(|status| status.resume >= position).await
    }

    /// Deploys other rules.
    pub(crate) fn want(&self, rules: &str) -> Result<(), Box<dyn Error>> {
        self.deployments.want(Rules::compile("rules", rules)?);
        Ok(())
    }

    /// Waits until clients are served by this deployment.
    pub(crate) async fn wait_until_serving(&self, store: &dyn BucketStore, number: u64) -> Result<(), Box<dyn Error>> {
        self.wait_until(|_| store.view().is_ok_and(|view| view.serving() >= DeploymentNumber(number))).await
    }

    async fn wait_until(&self, is_done: impl Fn(&StatusSnapshot) -> bool) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status.snapshot();
            if is_done(&status) {
                return Ok(());
            }
            if Instant::now() > deadline || self.task.is_finished() {
                return Err(format!("replication does not get on: {status:?}").into());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Ends it in order; its slot stays.
    pub(crate) async fn stop(self) -> Result<(), Box<dyn Error>> {
        self.stop.send_replace(true);
        Ok(self.task.await??)
    }
}
