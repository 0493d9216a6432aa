//! Connections that uploads are written through.

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::postgres::SourceConfig;

/// Uploads written at the same time; further ones wait for a connection.
const CONNECTIONS_MAX: usize = 8;

/// A pool on this source. Nothing is connected yet.
pub(super) fn write_pool(source: SourceConfig) -> Pool {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let timeout = source.connect_timeout;
    let manager = Manager::from_connect(Config::new(), SourceConnect(source), config);
    Pool::builder(manager)
        .max_size(CONNECTIONS_MAX)
        .runtime(Runtime::Tokio1)
        .create_timeout(Some(timeout))
        .wait_timeout(Some(timeout))
        .build()
        .expect("a runtime is set, which is all that can be missing")
}

/// Connects as replication does: same TLS, same settings, same deadlines.
struct SourceConnect(SourceConfig);

impl Connect for SourceConnect {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(async {
            match self.0.connect().await {
                // The session's own task ends with its client; the pool has none to watch.
                Ok(client) => Ok((client, tokio::spawn(async {}))),
                Err(error) => {
                    tracing::warn!(code = error.code(), %error, "no connection for uploads");
                    no_connection().await
                }
            }
        })
    }
}

/// The pool knows errors of one kind only, which nobody else can make: the error of a connection that is closed.
async fn no_connection() -> Result<(Client, JoinHandle<()>), Error> {
    let closed = tokio::io::join(tokio::io::empty(), tokio::io::sink());
    let (client, _) = Config::new().user("none").connect_raw(closed, NoTls).await?;
    Ok((client, tokio::spawn(async {})))
}
