//! The Kairos Sync client: a local SQLite database that works offline and stays in sync.
//!
//! ```no_run
//! use kairos_client::{Client, Schema, StaticConnector, Table};
//!
//! # async fn example() -> Result<(), kairos_client::ClientError> {
//! let schema = Schema::new([Table::new("habits").text("name").integer("archived").index(["archived"])]);
//! let connector = StaticConnector::new("https://kairos.home.local", "token");
//! let client = Client::open("kairos.db", schema, connector).await?;
//! client.connect();
//!
//! client.execute("INSERT INTO habits (id, name) VALUES (uuid(), ?1)", ["Read"]).await?;
//! let names = client.query("SELECT name FROM habits", [], |row| row.get::<_, String>(0)).await?;
//! println!("{names:?}: {}", client.status().state.label());
//! # Ok(())
//! # }
//! ```
//!
//! Down: a stream of lines → [`core`] (what to do) → the store (kept as it arrives) → a whole checkpoint becomes visible
//! in one transaction. Up: an `INSERT`, `UPDATE` or `DELETE` on a view changes the row and queues the write in one
//! transaction → the upload loop → the service's answer, which is final.
//!
//! Tools that look at data of any app need no schema ([`Schema::learned`]), hear of each step ([`observer`]) and see the
//! database from outside ([`local_database`]).
//!
//! **Invariants**
//!
//! - The local database is what the app reads and writes; nothing it does waits for the network.
//! - A write that was acknowledged to the app is never lost, and never overwritten before the service has answered it and
//!   its answer came back in a checkpoint.
//! - What the app sees is always a state the service had, plus the local writes.
//! - Killing the process at any moment loses at most a part of a download.
//! - No panics: this lives in someone else's app.
//!
//! Start reading at [`client`], then [`core`].

pub mod changes;
pub mod client;
pub mod connector;
pub mod diagnostics;
mod download;
mod engine;
pub mod events;
pub mod live;
pub mod local_database;
pub mod network;
pub mod observer;
pub mod raw_table;
pub mod schema;
pub mod status;
mod store;
pub mod subscription;
mod token;
pub mod transport;
mod upload;

pub use kairos_client_core as core;
pub use kairos_sync_protocol as protocol;
pub use rusqlite;

pub use crate::{
    changes::TableWatch,
    client::{Client, ClientError, ClientOptions, SignOut, database_of, import},
    connector::{Connector, Credentials, CredentialsReason, StaticConnector},
    core::{Download, Progress, StreamProgress},
    diagnostics::Diagnostics,
    engine::{Statistics, SyncError},
    events::{Command, SyncEvent},
    live::{LiveQuery, LiveRows, RowDifferences},
    local_database::LocalDatabase,
    network::NetworkKind,
    observer::{Observer, PublishedCheckpoint},
    raw_table::RawValue,
    schema::{Schema, SchemaError, Table},
    status::{Problem, Recovery, Status, SyncState},
    store::{
        BucketVerification, LocalBucket, LocalTable, RejectedWrite, RowChanges, StoreError, TableVerification,
        Verification,
    },
    subscription::{Subscription, SubscriptionOptions},
    transport::{Compression, HttpOptions, HttpTransport, LineFormat, Refusal, Transport, TransportError},
};
