//! Puts the parts together and runs them until they are told to stop.
//!
//! ```text
//! rules file ─► plan ─┬─► replication ─► store ─► hub ─► sync streams ◄─ api
//!                     └─► writer ◄─ api
//! ```
//!
//! **Invariants**
//!
//! - Nothing is started before configuration, rules and store were found good; every refusal names its remedy.
//! - Losing Postgres stops neither the API nor the process: clients keep what the store has, replication comes back.
//! - A store that can no longer be trusted ends the process: an operator must look at the disk.
//!
//! Start reading at [`run`].

mod descriptors;
mod head;
mod pool;
mod rules;

use std::{error::Error, io, net::Ipv4Addr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use kairos_sync_protocol::WriteCheckpointId;
use tokio::{net::TcpListener, sync::watch};

use self::head::WriteHead;
use crate::{
    admin::Admin,
    api::{self, ApiLimits, ApiParts, ApiState},
    auth::{ApiTokens, AuthError, Authenticator},
    config::{Config, RulesOrigin},
    deployment::{Deployments, RulesState, UnusableRules},
    metrics::Metrics,
    recent_events::RecentEvents,
    replication::{ReplicationError, ReplicationStatus, Replicator, custom_write_checkpoints},
    storage::{BucketStore, Commit, CompactionOptions, SqliteOptions, SqliteStore, StorageError},
    sync::{Hub, SyncContext, SyncLimits, WriteCheckpoints},
    write::{WriteCheckpointSource, WriteOptions, Writer},
};

/// Sockets beyond those of sync streams: probes, uploads, write checkpoints.
const EXTRA_SOCKETS: usize = 1_000;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The rules cannot be deployed.
    #[error(transparent)]
    Rules(#[from] UnusableRules),
    /// The bucket store cannot be opened.
    #[error("open the bucket store")]
    Store(#[source] StorageError),
    /// Keys for tokens cannot be used.
    #[error("prepare the verification of tokens")]
    Auth(#[source] AuthError),
    /// Replication ended for a reason that does not pass by itself.
    #[error("replication ended")]
    Replication(#[source] ReplicationError),
    /// The port is taken or not allowed.
    #[error("listen on port {port}: another process may have it; choose another `port`")]
    Listen {
        /// Which port.
        port: u16,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ServerError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Rules(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Auth(error) => error.code(),
            Self::Replication(error) => error.code(),
            Self::Listen { .. } => "CONF-0202",
        }
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Runs the service until `shutdown` becomes true. Meanwhile `status` says how replication is; `events` are told to operators.
///
/// # Errors
/// [`ServerError`] when it cannot start, or when replication cannot go on.
///
/// # Panics
/// When a task of the service panics, which is a fault of ours.
pub async fn run(
    config: Config,
    status: Arc<ReplicationStatus>,
    events: RecentEvents,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ServerError> {
    let folder = config.data_dir.clone();
    let options = store_options(&config);
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&folder, options)).await;
    let store: Arc<dyn BucketStore> =
        Arc::new(opened.expect("opening a store does not panic").map_err(ServerError::Store)?);
    let deployments = Arc::new(deployments(&config, &*store)?);
    let metrics = Arc::new(Metrics::new());
    let hub = Hub::new(store.view().map_err(ServerError::Store)?.checkpoint());
    let address = (Ipv4Addr::UNSPECIFIED, config.port);
    let listener =
        TcpListener::bind(address).await.map_err(|source| ServerError::Listen { port: config.port, source })?;
    let (stop, stopped) = follow(shutdown.clone(), config.drain);
    let ends = Ends { leaving: shutdown, stopped: stopped.clone() };
    let parts = api_parts(&config, &deployments, &store, &hub, &metrics, &status, ends)?;
    let state = ApiState::new(ApiParts { events, ..parts });
    let shutdown = stopped.clone();
    tokio::spawn(rules::watch(config.rules.clone(), Arc::clone(&deployments), stopped.clone()));
    let replicator = replicator(&config, &deployments, &store, &hub, &metrics, &status);
    let replicating = tokio::spawn(async move {
        let ended = replicator.run(stopped).await;
        // Without replication nothing fresh comes any more, and it only ends by itself when an operator must look.
        stop.send_replace(true);
        ended
    });
    tracing::info!(port = config.port, data_dir = %config.data_dir.display(), "serving");
    let socket_count_max = config.limits.connection_count_max + EXTRA_SOCKETS;
    descriptors::make_room(socket_count_max);
    api::serve(listener, api::router(state), socket_count_max, shutdown).await;
    replicating.await.expect("replication does not panic").map_err(ServerError::Replication)
}

fn store_options(config: &Config) -> SqliteOptions {
    let rates = config.storage;
    let defaults = SqliteOptions::default();
    SqliteOptions {
        reader_count: config.limits.fetch_concurrency_max,
        compaction: CompactionOptions { bytes_per_second: rates.compaction_bytes_per_second, ..defaults.compaction },
        scrub_bytes_per_second: rates.scrub_bytes_per_second,
        ..defaults
    }
}

/// When no more clients should come, and when it is over for those that are here.
struct Ends {
    leaving: watch::Receiver<bool>,
    stopped: watch::Receiver<bool>,
}

/// A stop of our own, which follows that of the caller after this time.
fn follow(mut shutdown: watch::Receiver<bool>, drain: Duration) -> (watch::Sender<bool>, watch::Receiver<bool>) {
    let (stop, stopped) = watch::channel(false);
    let forward = stop.clone();
    tokio::spawn(async move {
        // The caller being gone means the same.
        let _ = shutdown.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(drain).await;
        forward.send_replace(true);
    });
    (stop, stopped)
}

/// What the store was built by, and what the configuration wants. Where rules are deployed over HTTP, that is what was
/// deployed last.
fn deployments(config: &Config, store: &dyn BucketStore) -> Result<Deployments, ServerError> {
    let configured = rules::compile(&config.rules.file, &config.rules.text)?;
    // What cannot be read is built anew.
    let stored = store.rules().map_err(ServerError::Store)?.and_then(|stored| RulesState::from_stored(&stored).ok());
    Ok(match stored {
        None => Deployments::new(configured),
        Some(stored) if config.rules.origin == RulesOrigin::Api => {
            let deployed = stored.building().unwrap_or(stored.serving()).rules.clone();
            Deployments::resume(&stored, deployed)
        }
        Some(stored) => Deployments::resume(&stored, configured),
    })
}

fn replicator(
    config: &Config,
    deployments: &Arc<Deployments>,
    store: &Arc<dyn BucketStore>,
    hub: &Arc<Hub>,
    metrics: &Arc<Metrics>,
    status: &Arc<ReplicationStatus>,
) -> Replicator {
    let hub = Arc::clone(hub);
    Replicator::new(
        config.source.clone(),
        Arc::clone(deployments),
        Arc::clone(store),
        Arc::clone(metrics),
        Arc::new(move |commit: &Commit| hub.publish(commit)),
        Arc::clone(status),
    )
    .spooling_to(config.data_dir.clone())
}

fn api_parts(
    config: &Config,
    deployments: &Arc<Deployments>,
    store: &Arc<dyn BucketStore>,
    hub: &Arc<Hub>,
    metrics: &Arc<Metrics>,
    status: &Arc<ReplicationStatus>,
    Ends { leaving, stopped }: Ends,
) -> Result<ApiParts, ServerError> {
    let head = Arc::new(WriteHead::new(config.source.clone()));
    let plan = deployments.serving();
    let are_custom = {
        let plan = plan.clone();
        move || custom_write_checkpoints::are_custom(&plan.borrow())
    };
    let write_checkpoints = WriteCheckpoints::new(head, Arc::clone(store), Arc::clone(hub), are_custom);
    if config.write.role.is_none() && !plan.borrow().writable_tables().is_empty() {
        tracing::warn!(
            "no `write.role` is configured: uploads run as the connection's own role, which row-level security may not bind"
        );
    }
    let options = WriteOptions {
        role: config.write.role.clone(),
        transaction: config.write.transaction,
        batch_bytes_max: config.limits.body_bytes_max,
        remember_for: config.write.remember_for,
        keep_conflicts_for: config.write.keep_conflicts_for,
        ..WriteOptions::default()
    };
    let uploads = Arc::new(Writer::new(
        pool::write_pool(config.write.source.clone()),
        plan,
        options,
        Arc::new(UploadCheckpoints(write_checkpoints.clone())),
        Arc::clone(metrics),
    ));
    let limits = SyncLimits {
        bucket_count_max: config.limits.bucket_count_max,
        fetch_concurrency_max: config.limits.fetch_concurrency_max,
        shared_bytes_max: config.limits.shared_bytes_max,
        checkpoint_interval_min: config.limits.checkpoint_interval_min,
    };
    let sync = SyncContext::new(
        Arc::clone(store),
        Arc::clone(deployments),
        Arc::clone(hub),
        Arc::clone(metrics),
        limits,
        stopped,
    );
    let sync = Arc::new(sync);
    let admin = Admin::new(Arc::clone(&sync), config.source.clone(), Arc::clone(status));
    Ok(ApiParts {
        sync,
        admin,
        hub: Arc::clone(hub),
        replication: Arc::clone(status),
        deployments: Arc::clone(deployments),
        rules_file: (config.rules.origin != RulesOrigin::Api).then(|| config.rules.file.clone()),
        heartbeat: config.source.heartbeat,
        leaving,
        authenticator: Authenticator::new(config.auth.clone(), metrics).map_err(ServerError::Auth)?,
        api_tokens: ApiTokens::new(&config.admin_tokens),
        write_checkpoints,
        conflicts: Arc::clone(&uploads) as _,
        uploads,
        metrics: Arc::clone(metrics),
        events: RecentEvents::default(),
        serves_mirror: config.serves_mirror,
        base_path: config.base_path.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        limits: ApiLimits {
            connection_count_max: config.limits.connection_count_max,
            body_bytes_max: config.limits.body_bytes_max,
            rate: config.limits.rate,
        },
    })
}

/// Write checkpoints in the answers to uploads, unless the app makes its own. An upload that is committed does not fail
/// for want of one.
struct UploadCheckpoints(WriteCheckpoints);

impl WriteCheckpointSource for UploadCheckpoints {
    fn create<'a>(&'a self, user_id: &'a str, client_id: Option<&'a str>) -> BoxFuture<'a, Option<WriteCheckpointId>> {
        Box::pin(async move {
            if self.0.are_custom() {
                return None;
            }
            self.0
                .create(user_id, client_id)
                .await
                .inspect_err(|error| tracing::warn!(code = error.code(), %error, "no write checkpoint for an upload"))
                .ok()
        })
    }
}
