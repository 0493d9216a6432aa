//! An SDK in a process that takes commands on stdin: the official ones in Node.js, or in a browser that such a process
//! drives, and ours.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use tokio::process::Command;
use tokio_postgres::{Client, types::ToSql};

use crate::{
    driver::Driver,
    service::{TestService, eventually},
};

/// An SDK, and how it connects.
#[derive(Debug, Clone, Copy)]
pub struct Sdk {
    /// For messages.
    pub name: &'static str,
    /// The driver in `tests/sdk`, and its arguments. Ours is a program of its own, `kairos-device`.
    driver: &'static [&'static str],
    /// Its table of operations that were received.
    pub oplog: &'static str,
    /// Options of its `connect`, as JSON.
    options: &'static str,
    /// Headers that it sends instead of its own, as JSON.
    headers: &'static str,
    /// How far its device's clock is off, as `faketime` takes it.
    clock: Option<&'static str>,
}

impl Sdk {
    /// The current SDK as it is by default: BSON over HTTP.
    pub const HTTP: Self =
        Self { name: "http", driver: &["driver.mjs"], oplog: "ps_oplog", options: "{}", headers: "{}", clock: None };

    /// RSocket over a WebSocket.
    pub const WEB_SOCKET: Self =
        Self { name: "web-socket", options: r#"{"connectionMethod":"web-socket"}"#, ..Self::HTTP };

    /// Lines of JSON.
    pub const NDJSON: Self = Self { name: "ndjson", headers: r#"{"accept":"application/x-ndjson"}"#, ..Self::HTTP };

    /// The last SDK whose sync client is written in JavaScript; its RSocket carries BSON both ways.
    pub const JAVASCRIPT: Self = Self {
        name: "javascript",
        driver: &["driver.mjs", "powersync-node-javascript"],
        options: r#"{"connectionMethod":"web-socket","clientImplementation":"js"}"#,
        ..Self::HTTP
    };

    /// In Chromium: wa-sqlite and the sync client in a worker that all tabs share.
    pub const WEB: Self = Self { name: "web", driver: &["web-driver.mjs"], ..Self::HTTP };

    /// As [`Self::WEB`], over a WebSocket.
    pub const WEB_OVER_WEB_SOCKET: Self =
        Self { name: "web over a web-socket", options: Self::WEB_SOCKET.options, ..Self::WEB };

    /// Ours for Rust.
    pub const RUST: Self = Self { name: "rust", driver: &[], oplog: "kairos_oplog", ..Self::HTTP };

    /// On a device whose clock is off by so much, such as `+3d`. For [`Self::RUST`] alone.
    #[must_use]
    pub const fn with_clock(self, offset: &'static str) -> Self {
        Self { clock: Some(offset), ..self }
    }

    fn start(self) -> Driver {
        if self.driver.is_empty() {
            let mut device = Command::new(crate::service::binary("kairos-device"));
            if let Some(offset) = self.clock {
                device
                    .env("LD_PRELOAD", false_clock())
                    .env("FAKETIME", offset)
                    .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            }
            return Driver::start(device);
        }
        Driver::script(self.driver)
    }
}

/// The library that shifts a process's clock, which `./kairos test` unpacks or the system has.
fn false_clock() -> PathBuf {
    let device = crate::service::binary("kairos-device");
    let target = device.parent().and_then(Path::parent).expect("target/<profile>/kairos-device");
    let unpacked = target.join("deploy-tools/usr/lib");
    let folders = [unpacked, PathBuf::from("/usr/lib")].into_iter().filter_map(|folder| fs::read_dir(folder).ok());
    let libraries = folders.flatten().flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    libraries
        .filter(|library| library.is_file())
        .find_map(|library| library.canonicalize().ok())
        .expect("`faketime` is there")
}

/// An open client database.
#[derive(Debug, Clone)]
pub struct OfficialClient {
    driver: Arc<Driver>,
    device: String,
    /// The command that opened it.
    opening: Value,
    sdk: Sdk,
}

impl OfficialClient {
    /// Opens a database file in `folder` with the given tables, as `{"habits": {"name": "text"}}`.
    ///
    /// # Panics
    /// When the SDK is not installed or does not open the database.
    pub async fn open(sdk: Sdk, folder: &Path, device: &str, tables: &Value) -> Self {
        Self::open_in(Arc::new(sdk.start()), sdk, folder, device, tables).await
    }

    /// As [`Self::open`], another database in the process of this one.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub async fn open_beside(&self, folder: &Path, device: &str, tables: &Value) -> Self {
        Self::open_in(Arc::clone(&self.driver), self.sdk, folder, device, tables).await
    }

    async fn open_in(driver: Arc<Driver>, sdk: Sdk, folder: &Path, device: &str, tables: &Value) -> Self {
        let headers: Value = serde_json::from_str(sdk.headers).expect("a constant, valid JSON");
        let file = format!("{device}.db");
        let opening = json!({"do": "open", "folder": folder, "file": file, "tables": tables, "headers": headers});
        let client = Self { driver, device: device.to_owned(), opening, sdk };
        client.open_again().await;
        client
    }

    /// Opens the same database anew, not connected. In a browser the page is loaded again, without a word to the old one.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub async fn open_again(&self) {
        self.call(self.opening.clone()).await;
    }

    /// Opens the same database in another tab of the browser.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub async fn open_tab(&self, name: &str) -> Self {
        let tab = Self { device: name.to_owned(), ..self.clone() };
        tab.open_again().await;
        tab
    }

    /// Sends a command and returns its answer.
    ///
    /// # Panics
    /// When the SDK reports an error or does not answer in time.
    pub async fn call(&self, command: Value) -> Value {
        let text = command.to_string();
        self.ask(command).await.unwrap_or_else(|| panic!("the driver ended at {text}"))
    }

    /// As [`Self::call`], of a process that may be killed meanwhile: then there is no answer.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn ask(&self, command: Value) -> Option<Value> {
        self.driver.ask(&self.device, command).await
    }

    /// Ends the process at once, with all its databases.
    ///
    /// # Panics
    /// When the system does not let it.
    pub fn kill(&self) {
        self.driver.kill();
    }

    /// The same database in a new process, not connected.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub async fn open_in_new_process(&self) -> Self {
        let client = Self { driver: Arc::new(self.sdk.start()), ..self.clone() };
        client.open_again().await;
        client
    }

    /// Connects to a service.
    pub async fn connect(&self, endpoint: &str, token: &str) {
        self.connect_with(endpoint, &[token], json!({})).await;
    }

    /// Connects with further options of the SDK. Tokens are handed out one after the other, the last one for ever.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn connect_with(&self, endpoint: &str, tokens: &[&str], further: Value) {
        let mut options: Value = serde_json::from_str(self.sdk.options).expect("a constant, valid JSON");
        if let (Value::Object(options), Value::Object(further)) = (&mut options, further) {
            options.extend(further);
        }
        self.call(json!({"do": "connect", "endpoint": endpoint, "tokens": tokens, "options": options})).await;
    }

    /// Runs SQL on the device.
    pub async fn execute(&self, sql: &str) {
        self.call(json!({"do": "execute", "sql": sql})).await;
    }

    /// Rows of a query.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn query(&self, sql: &str) -> Vec<Value> {
        match self.call(json!({"do": "query", "sql": sql})).await {
            Value::Array(rows) => rows,
            other => panic!("a query gives rows, not {other}"),
        }
    }

    /// The only column of a query as text.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn texts(&self, sql: &str) -> BTreeSet<String> {
        only_column(self.query(sql).await)
    }

    /// Waits until the device holds what Postgres says: `in_source` and `on_device` give one column of text each.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn converges(
        &self,
        service: &TestService,
        in_source: &str,
        parameters: &[&(dyn ToSql + Sync)],
        on_device: &str,
    ) {
        let difference = async || {
            let held = self.texts(on_device).await;
            (self.sdk.name, differences(service, in_source, parameters, &held).await)
        };
        eventually((self.sdk.name, Vec::new()), difference).await;
    }
}

/// The only column of rows that a device gave, as text.
pub(crate) fn only_column(rows: Vec<Value>) -> BTreeSet<String> {
    let first = |row: Value| row.as_object().and_then(|row| row.values().next().cloned());
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    rows.into_iter().filter_map(first).map(text).collect()
}

/// Some of what the source has by this query and the device does not, or the other way round.
///
/// # Panics
/// When the SQL is not valid.
pub(crate) async fn differences(
    service: &TestService,
    in_source: &str,
    parameters: &[&(dyn ToSql + Sync)],
    on_device: &BTreeSet<String>,
) -> Vec<String> {
    let expected = texts(&service.sql, in_source, parameters).await;
    expected.symmetric_difference(on_device).take(20).cloned().collect()
}

/// The only column of a query on Postgres.
///
/// # Panics
/// When the SQL is not valid.
pub async fn texts(sql: &Client, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> BTreeSet<String> {
    let rows = sql.query(query, parameters).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}
