//! The service, Postgres behind it, and the devices before it.

use std::collections::BTreeSet;

use kairos_tests::{
    official::{OfficialClient, Sdk, texts},
    service::TestService,
};
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};

use super::device::{Device, MIRRORS};

const SCHEMA: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, word text, body text);
    CREATE TABLE tags (id text PRIMARY KEY, word text, body text);
    CREATE TABLE entries (id text PRIMARY KEY, device text NOT NULL, counted int NOT NULL);
    CREATE TABLE tallies (id text PRIMARY KEY, n bigint NOT NULL);
    CREATE TABLE mirrors (id text PRIMARY KEY, half text NOT NULL, version bigint NOT NULL);
    CREATE TABLE effects (entry text NOT NULL);
    GRANT INSERT ON effects TO kairos_write;
    CREATE FUNCTION count_effect() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO effects VALUES (NEW.id); RETURN NULL; END $$;
    CREATE TRIGGER count_effect AFTER INSERT OR UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION count_effect();
    SELECT kairos.publish_table('notes', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('tags', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('entries', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('tallies', 'INSERT, UPDATE, DELETE');
    SELECT kairos.publish_table('mirrors');
    INSERT INTO tallies VALUES ('all', 0);
    INSERT INTO notes SELECT 'note-' || n, n, 'first' FROM generate_series(1, 20) n;
";

/// The mirrors are in two buckets, so that a checkpoint has to join them.
const RULES: &str = "
bucket_definitions:
  all: {data: [SELECT * FROM notes, SELECT * FROM tags, SELECT * FROM entries, SELECT * FROM tallies]}
  left:
    data:
      - SELECT id, version FROM mirrors WHERE half = 'left'
  right:
    data:
      - SELECT id, version FROM mirrors WHERE half = 'right'
write_rules:
  notes: {allow: [put, patch, delete], check: true}
  tags: {allow: [put, patch, delete], check: true}
  entries: {allow: [put], check: true}
  tallies: {allow: [patch], check: true, conflict: {strategy: counter, columns: [n]}}
";

/// Valid in Postgres and on a device.
const ALL: &str = "
    SELECT 'note ' || id || ' ' || coalesce(word, '-') || ' ' || coalesce(body, '-') FROM notes
    UNION ALL SELECT 'tag ' || id || ' ' || coalesce(word, '-') || ' ' || coalesce(body, '-') FROM tags
    UNION ALL SELECT 'entry ' || id || ' ' || device || ' ' || counted FROM entries
    UNION ALL SELECT 'tally ' || id || ' ' || n FROM tallies
    UNION ALL SELECT 'mirror ' || id || ' ' || version FROM mirrors";

fn tables() -> Value {
    json!({
        "notes": {"word": "text", "body": "text"},
        "tags": {"word": "text", "body": "text"},
        "entries": {"device": "text", "counted": "integer"},
        "tallies": {"n": "integer", "$trackPrevious": true},
        "mirrors": {"version": "integer"},
    })
}

pub(super) struct World {
    service: TestService,
    is_up: bool,
    pub(super) devices: Vec<Device>,
}

impl World {
    pub(super) async fn start() -> Self {
        let service = TestService::start(SCHEMA, RULES).await;
        let halves = format!(
            "INSERT INTO mirrors SELECT 'mirror-' || n, CASE n % 2 WHEN 0 THEN 'left' ELSE 'right' END, 0
             FROM generate_series(1, {MIRRORS}) n"
        );
        service.run(&halves).await;
        service.wait_until_ready().await;
        let mut devices = Vec::new();
        let clocks = [Sdk::RUST, Sdk::RUST.with_clock("+3d"), Sdk::RUST.with_clock("-3d")];
        for (name, sdk) in ["phone", "tablet", "laptop"].into_iter().zip(clocks) {
            let client = OfficialClient::open(sdk, service.folder.path(), name, &tables()).await;
            devices.push(Device::new(client, name));
        }
        Self { service, is_up: true, devices }
    }

    pub(super) async fn change_connection(&mut self, device: usize) {
        let device = &mut self.devices[device];
        device.is_connected = !device.is_connected;
        if device.is_connected {
            device.client.connect(self.service.process.endpoint(), &self.service.token("ann")).await;
        } else {
            device.client.call(json!({"do": "disconnect"})).await;
        }
    }

    /// SIGKILL, and back some steps later.
    pub(super) async fn change_service(&mut self) {
        if self.is_up {
            self.service.process.kill().expect("it runs");
        } else {
            self.service.process.restart().await.expect("it starts again");
        }
        self.is_up = !self.is_up;
    }

    pub(super) async fn turn_mirrors(&self) {
        self.service.run("UPDATE mirrors SET version = version + 1").await;
    }

    pub(super) async fn edit_in_source(&self, random: &mut StdRng) {
        let any = random.random_range(0..30);
        let some = format!("id = (SELECT id FROM notes ORDER BY id LIMIT 1 OFFSET {any})");
        let edit = match random.random_range(0..3) {
            0 => format!("INSERT INTO notes VALUES (gen_random_uuid(), '{any}', 'from elsewhere')"),
            1 => format!("UPDATE notes SET body = 'elsewhere {any}' WHERE {some}"),
            _ => format!("DELETE FROM notes WHERE {some}"),
        };
        self.service.run(&edit).await;
    }

    /// Everything runs and is connected, until all devices hold what SQL says.
    pub(super) async fn settle(&mut self) {
        if !self.is_up {
            self.change_service().await;
        }
        self.service.wait_until_ready().await;
        for device in 0..self.devices.len() {
            if !self.devices[device].is_connected {
                self.change_connection(device).await;
            }
        }
        // Whoever has uploaded everything has changed what the others are to hold.
        for device in &self.devices {
            let pending = async || device.client.call(json!({"do": "status"})).await["pending"].take();
            kairos_tests::service::eventually(json!(0), pending).await;
        }
        for device in &self.devices {
            device.client.converges(&self.service, ALL, &[], ALL).await;
        }
    }

    pub(super) async fn assert_each_write_is_there_once(&self) {
        let in_source = texts(&self.service.sql, "SELECT id FROM entries", &[]).await;
        let entries = |of: fn(&Device) -> &Vec<String>| -> BTreeSet<String> {
            self.devices.iter().flat_map(of).cloned().collect()
        };
        let (acknowledged, uncertain) = (entries(|device| &device.acknowledged), entries(|device| &device.uncertain));
        let lost: Vec<_> = acknowledged.difference(&in_source).collect();
        assert!(lost.is_empty(), "acknowledged, but not in Postgres: {lost:?}");
        let known: BTreeSet<String> = acknowledged.union(&uncertain).cloned().collect();
        assert!(in_source.is_subset(&known), "nobody wrote {:?}", in_source.difference(&known).collect::<Vec<_>>());
        let doubled =
            texts(&self.service.sql, "SELECT entry FROM effects GROUP BY entry HAVING count(*) > 1", &[]).await;
        assert!(doubled.is_empty(), "written more than once: {doubled:?}");
        let counts =
            texts(&self.service.sql, "SELECT (SELECT n FROM tallies) || ' of ' || sum(counted) FROM entries", &[])
                .await;
        let counted = texts(&self.service.sql, "SELECT sum(counted) || ' of ' || sum(counted) FROM entries", &[]).await;
        assert_eq!(counts, counted, "increments of a counter that everybody counts up");
        println!("{} entries acknowledged, {} uncertain", acknowledged.len(), uncertain.len());
    }
}
