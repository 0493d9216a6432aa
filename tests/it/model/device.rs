//! A device, what was acknowledged to it, and what it may have lost.

use std::time::Duration;

use kairos_tests::official::OfficialClient;
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};

/// Rows of the table that one transaction writes as a whole.
pub(super) const MIRRORS: i64 = 10;

/// What an app knows after it was started.
pub(super) struct Device {
    pub(super) client: OfficialClient,
    pub(super) name: &'static str,
    /// Entries whose transaction was acknowledged.
    pub(super) acknowledged: Vec<String>,
    /// Entries whose transaction was killed before its answer: there, or not there.
    pub(super) uncertain: Vec<String>,
    pub(super) is_connected: bool,
    /// Of the mirrors, the highest seen; none before the first sync.
    version: Option<i64>,
}

impl Device {
    pub(super) fn new(client: OfficialClient, name: &'static str) -> Self {
        let (acknowledged, uncertain) = (Vec::new(), Vec::new());
        Self { client, name, acknowledged, uncertain, is_connected: false, version: None }
    }

    /// A transaction with an entry of its own, which says whether it counted.
    fn transaction(&self, random: &mut StdRng) -> (String, Value) {
        let entry = format!("{}-{}", self.name, self.acknowledged.len() + self.uncertain.len());
        let insert = "INSERT INTO entries (id, device, counted) VALUES (?1, ?2, (SELECT count(*) FROM tallies))";
        let mut statements = vec![json!([insert, [entry, self.name]]), json!(["UPDATE tallies SET n = n + 1", []])];
        for _ in 0..random.random_range(0..4) {
            let (table, any, word) =
                (["notes", "tags"][random.random_range(0..2)], random.random_range(0..30), random.random::<u32>());
            let some = format!("id = (SELECT id FROM {table} ORDER BY id LIMIT 1 OFFSET {any})");
            statements.push(match random.random_range(0..5) {
                0..2 => json!([format!("INSERT INTO {table} (id, word, body) VALUES (uuid(), ?1, 'new')"), [word]]),
                2..4 => json!([format!("UPDATE {table} SET word = ?1 WHERE {some}"), [word]]),
                _ => json!([format!("DELETE FROM {table} WHERE {some}"), []]),
            });
        }
        (entry, json!({"do": "transaction", "statements": statements}))
    }

    pub(super) async fn write(&mut self, random: &mut StdRng) {
        let (entry, command) = self.transaction(random);
        self.client.call(command).await;
        self.acknowledged.push(entry);
    }

    /// The process ends at any moment of a transaction.
    pub(super) async fn write_and_be_killed(&mut self, random: &mut StdRng) {
        let (entry, command) = self.transaction(random);
        let client = self.client.clone();
        let answer = tokio::spawn(async move { client.ask(command).await });
        tokio::time::sleep(Duration::from_micros(random.random_range(0..4_000))).await;
        self.client.kill();
        match answer.await.expect("it does not panic") {
            Some(_) => self.acknowledged.push(entry),
            None => self.uncertain.push(entry),
        }
        self.start_again().await;
    }

    pub(super) async fn be_killed(&mut self) {
        self.client.kill();
        self.start_again().await;
    }

    /// Offline, as an app is when it is started.
    async fn start_again(&mut self) {
        self.client = self.client.open_in_new_process().await;
        self.is_connected = false;
    }

    /// Looks at what the device shows now.
    pub(super) async fn look(&mut self, context: &str) {
        let sql = format!(
            "SELECT count(*) AS mirrors, min(version) AS low, max(version) AS high,
                (SELECT count(*) FROM entries WHERE device = '{}') AS entries FROM mirrors",
            self.name
        );
        let seen = self.client.query(&sql).await.swap_remove(0);
        let entries = seen["entries"].as_u64().expect("a count");
        let written = self.acknowledged.len() as u64;
        let possible = written..=written + self.uncertain.len() as u64;
        assert!(possible.contains(&entries), "{context}: of {written} entries {} shows {entries}", self.name);
        let (low, high) = (seen["low"].as_i64(), seen["high"].as_i64());
        assert_eq!(low, high, "{context}: {} shows a part of a transaction", self.name);
        assert!(high >= self.version, "{context}: {} went back to {high:?} from {:?}", self.name, self.version);
        let expected = if high.is_some() { MIRRORS } else { 0 };
        assert_eq!(seen["mirrors"].as_i64(), Some(expected), "{context}: {} shows a part", self.name);
        self.version = high;
    }
}
