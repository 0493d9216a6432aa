//! A device that uploads one write after the other, each until it is answered.

use std::{collections::BTreeSet, time::Duration};

use kairos_tests::service::{PATIENCE, TestService};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

/// What was done to uploaded rows, once for each time it was.
pub(super) const EFFECTS: &str = "
    GRANT SELECT, INSERT, UPDATE ON items TO kairos_write;
    CREATE TABLE effects (id text);
    GRANT INSERT ON effects TO kairos_write;
    CREATE FUNCTION count_effect() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO effects VALUES (NEW.id); RETURN NULL; END $$;
    CREATE TRIGGER count_effect AFTER INSERT OR UPDATE ON items FOR EACH ROW
        WHEN (starts_with(NEW.id, '00000000-up-')) EXECUTE FUNCTION count_effect();";
/// Between two uploads, and two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// These rules, by which devices may write items.
pub(super) fn writable(rules: &str) -> String {
    format!("{rules}write_rules:\n  items:\n    allow: [put]\n    check: true\n")
}

/// Uploads until it is stopped.
pub(super) struct Uploads {
    stop: watch::Sender<bool>,
    task: JoinHandle<Uploaded>,
}

/// Rows of writes that were answered as applied.
pub(super) struct Uploaded(BTreeSet<String>);

impl Uploads {
    /// `context` tells its writes from those of others.
    pub(super) fn start(service: &TestService, context: &str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let url = format!("{}/api/sync/data", service.process.endpoint());
        Self { stop, task: tokio::spawn(upload(url, service.token("ada"), context.to_owned(), stopped)) }
    }

    /// After the last write was answered.
    pub(super) async fn stop(self) -> Uploaded {
        self.stop.send_replace(true);
        self.task.await.expect("uploads do not panic")
    }
}

async fn upload(url: String, token: String, context: String, stopped: watch::Receiver<bool>) -> Uploaded {
    let client = Client::builder().timeout(PATIENCE).build().expect("a client");
    let mut answered = BTreeSet::new();
    for number in 0.. {
        let id = format!("00000000-up-{number:06}");
        let write = json!({ "client_id": context, "batch": [
            { "op": "PUT", "table": "items", "id": id, "op_id": number.to_string(), "data": { "title": "uploaded" } }
        ] });
        loop {
            let request = client.post(&url).bearer_auth(&token).json(&write).send();
            let answer = async { request.await?.error_for_status()?.json::<Value>().await };
            if let Ok(answer) = answer.await {
                let outcome = &answer["data"]["results"][0]["outcome"];
                assert_eq!(outcome, "applied", "{context}: {answer}");
                break;
            }
            sleep(PAUSE).await;
        }
        answered.insert(id);
        if *stopped.borrow() {
            break;
        }
        sleep(PAUSE).await;
    }
    Uploaded(answered)
}

impl Uploaded {
    /// Each answered write is there, and had one effect, as had any other.
    pub(super) async fn assert_once(&self, sql: &tokio_postgres::Client, context: &str) {
        let effects = sql.query("SELECT id, count(*) FROM effects GROUP BY id", &[]).await.expect("answers");
        let several: Vec<String> =
            effects.iter().filter(|row| row.get::<_, i64>(1) > 1).map(|row| row.get(0)).collect();
        assert_eq!(several, [""; 0], "{context}: written more than once");
        let written: BTreeSet<String> = effects.iter().map(|row| row.get(0)).collect();
        assert_eq!(written, self.0, "{context}: what was answered and what was written");
        println!("{context}: {} uploads, each once", written.len());
    }
}
