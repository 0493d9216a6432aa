//! SIGHUP: the rules are read at once, whatever the look at their file, which waits until it no longer changes.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use kairos_tests::service::{PATIENCE, TestService, eventually};
use serde_json::Value;
use tokio::{task::JoinHandle, time::sleep};

use crate::faults::deploy;

const SCHEMA: &str = "CREATE TABLE items (id text PRIMARY KEY, body text); SELECT kairos.publish_table('items');
                      INSERT INTO items VALUES ('1', 'one');";
const RULES: &str = "bucket_definitions: { everything: { data: [SELECT * FROM items] } }";
const OTHER: &str = "bucket_definitions: { others: { data: [SELECT * FROM items] } }";
const BAD: &str = "bucket_definitions: { others: { data: [SELECT FROM] } }";
/// More often than the file is looked at.
const REWRITTEN_EVERY: Duration = Duration::from_millis(150);

/// Keeps the rules file changing, so that nobody takes it unless told to. It always says the same.
fn keep_changing(folder: PathBuf, rules: &'static str) -> JoinHandle<()> {
    deploy(&folder, rules);
    tokio::spawn(async move {
        for number in 0.. {
            deploy(&folder, &format!("{rules} # {number}\n"));
            sleep(REWRITTEN_EVERY).await;
        }
    })
}

fn hang_up(service: &TestService) {
    let hangup = Command::new("kill").args(["-HUP", &service.process.id().to_string()]).status();
    assert!(hangup.expect("kill runs").success());
}

async fn rules(service: &TestService) -> Value {
    let status = service.process.get("/status").await.expect("an answer");
    serde_json::from_str::<Value>(&status).expect("JSON")["rules"].clone()
}

/// Names of definitions in the buckets that a client gets.
async fn buckets(service: &TestService) -> String {
    let request = reqwest::Client::new().post(format!("{}/sync/stream", service.process.endpoint()));
    let request = request.bearer_auth(service.token("ann")).json(&serde_json::json!({})).timeout(PATIENCE);
    let mut stream = request.send().await.expect("an answer");
    String::from_utf8(stream.chunk().await.expect("a line").expect("a line").to_vec()).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_read_at_sighup_and_bad_ones_change_nothing() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let folder = service.folder.path().to_path_buf();
    let changing = keep_changing(folder.clone(), OTHER);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(rules(&service).await["deployment"], 0, "a file that changes is not taken by itself");
    hang_up(&service);
    eventually(Value::from(1), async || rules(&service).await["deployment"].clone()).await;
    assert!(buckets(&service).await.contains("others[]"));
    changing.abort();

    let changing = keep_changing(folder.clone(), BAD);
    hang_up(&service);
    eventually(Value::from("CONF-0201"), async || rules(&service).await["refused"].clone()).await;
    let said = service.process.log().expect("readable");
    assert!(said.contains("clients are served by the old ones as before") && said.contains("rules.yaml:1:"), "{said}");
    assert_eq!(rules(&service).await["deployment"], 1);
    assert!(buckets(&service).await.contains("others[]"), "served as before");
    changing.abort();

    // A file that is gone is told, too.
    fs::remove_file(folder.join("rules.yaml")).expect("it is there");
    hang_up(&service);
    eventually(true, async || service.process.log().expect("readable").contains("rules: the old ones stay")).await;
    // And good ones end all that.
    deploy(&folder, OTHER);
    hang_up(&service);
    eventually(Value::Null, async || rules(&service).await["refused"].clone()).await;
    assert_eq!(rules(&service).await["deployment"], 1);
}

/// The configuration is read at the start alone. The signal, whose usual effect is the end of a process, says so.
#[tokio::test]
async fn rules_in_the_configuration_are_not_read_at_sighup() {
    let mut service = TestService::start(SCHEMA, RULES).await;
    let config = fs::read_to_string(&service.config).expect("readable");
    let (before, after) = config.split_once("sync_config:\n  path: ").expect("it names the file");
    let after = after.split_once('\n').expect("more").1;
    fs::write(&service.config, format!("{before}sync_config:\n  content: '{RULES}'\n{after}")).expect("writable");
    service.reconfigure("").await;
    service.wait_until_ready().await;
    hang_up(&service);
    eventually(true, async || {
        service.process.log().expect("readable").contains("read at start only: restart the service")
    })
    .await;
    assert!(buckets(&service).await.contains("everything[]"));
}
