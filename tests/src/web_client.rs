//! The client for browsers, `client-sdk/web`, in tabs of a Chromium.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use tokio_postgres::types::ToSql;

use crate::{
    driver::Driver,
    official::{differences, only_column},
    service::{TestService, eventually},
};

/// A tab that has opened a database.
#[derive(Debug, Clone)]
pub struct WebClient {
    driver: Arc<Driver>,
    /// Name of the tab.
    tab: String,
    /// Where the browser keeps its data.
    folder: PathBuf,
    tables: Value,
    storage: &'static str,
    /// Under which name the page comes.
    host: &'static str,
}

impl WebClient {
    /// Opens a database in the first tab of a new browser.
    ///
    /// # Panics
    /// When the package is not built, or does not open the database.
    pub async fn open(folder: &Path, tables: &Value) -> Self {
        Self::open_at("127.0.0.1", folder, tables, "opfs").await
    }

    /// As [`Self::open`], with a page that is from this host, in this storage. `plain.test` is a host that the browser does
    /// not take for this machine.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub async fn open_at(host: &'static str, folder: &Path, tables: &Value, storage: &'static str) -> Self {
        let driver = Arc::new(Driver::script(&["kairos-driver.mjs"]));
        let (tab, folder, tables) = ("first".to_owned(), folder.to_owned(), tables.clone());
        let client = Self { driver, tab, folder, tables, storage, host };
        client.load(&json!(null)).await;
        client
    }

    /// Opens the same database in another tab.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub async fn open_tab(&self, name: &str, server: &Value) -> Self {
        let tab = Self { tab: name.to_owned(), ..self.clone() };
        tab.load(server).await;
        tab
    }

    /// A later version of the app, which declares these tables: its page is loaded in the place of this one.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub async fn update(self, tables: &Value, server: &Value) -> Self {
        let updated = Self { tables: tables.clone(), ..self };
        updated.load(server).await;
        updated
    }

    /// Loads the page anew, without a word to the old one. `server` is where its connector finds one.
    ///
    /// # Panics
    /// As [`Self::open`].
    pub async fn load(&self, server: &Value) {
        let Self { folder, tables, storage, host, .. } = self;
        let mut opening =
            json!({"do": "open", "file": "app", "folder": folder, "tables": tables, "storage": storage, "host": host});
        if !server.is_null() {
            opening["given"] = server.clone();
        }
        self.call(opening).await;
    }

    /// Sends a command and returns its answer.
    ///
    /// # Panics
    /// When it fails, or is not answered in time.
    pub async fn call(&self, command: Value) -> Value {
        self.driver.ask(&self.tab, command).await.expect("the driver goes on")
    }

    /// Why a command fails.
    ///
    /// # Panics
    /// When it does not.
    pub async fn fails(&self, command: Value) -> String {
        let answer = self.driver.answer(&self.tab, command).await.expect("the driver goes on");
        answer["error"].as_str().unwrap_or_else(|| panic!("it did not fail: {answer}")).to_owned()
    }

    /// Writes that the service did not take.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn rejected(&self) -> Vec<Value> {
        match self.call(json!({"do": "rejected"})).await {
            Value::Array(writes) => writes,
            other => panic!("a list of writes, not {other}"),
        }
    }

    /// Connects with tokens that are handed out one after the other, the last one for ever.
    pub async fn connect(&self, endpoint: &str, tokens: &[&str]) {
        self.call(json!({"do": "server", "endpoint": endpoint, "tokens": tokens})).await;
        self.call(json!({"do": "connect"})).await;
    }

    /// Runs SQL on the device; gives the number of rows it changed.
    pub async fn execute(&self, sql: &str) -> Value {
        self.call(json!({"do": "execute", "sql": sql})).await
    }

    /// The only column of a query as text.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn texts(&self, sql: &str) -> BTreeSet<String> {
        let answer = self.call(json!({"do": "query", "sql": sql})).await;
        let Value::Array(rows) = answer else { panic!("a query gives rows, not {answer}") };
        only_column(rows)
    }

    /// A field of the status now.
    pub async fn status(&self, field: &str) -> Value {
        self.call(json!({"do": "status"})).await[field].take()
    }

    /// Waits for a state of the sync.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn reaches(&self, state: &str) {
        eventually(json!(state), async || self.status("state").await).await;
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
            differences(service, in_source, parameters, &held).await
        };
        eventually(Vec::new(), difference).await;
    }
}
