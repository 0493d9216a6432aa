//! What was sent to connected devices, and the command that asks.

use std::process::{Output, Stdio};

use kairos_tests::service::{ADMIN_TOKEN, PATIENCE, TestService, eventually, service_binary};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{CLASSIC, client, explain, start, summary};

/// A device that stays connected.
fn connected(service: &TestService, user: &str) -> Child {
    let (mut command, _) = client(service, user, &["--watch"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs")
}

#[tokio::test]
async fn what_was_sent_to_connected_devices_is_known() {
    let service = start(CLASSIC).await;
    let id = "17"; // of team t8, which ann edits
    service.run("UPDATE cards SET team_id = 't1', archived = false WHERE id = 17").await;
    service.run("INSERT INTO members VALUES ('t1', 'dana', 'editor')").await;
    eventually(true, async || {
        summary(&service, "dana", "cards", json!(id)).await.contains("no device of the user is connected")
    })
    .await;
    let mut device = connected(&service, "dana");
    let sent = "and it was sent to device ";
    eventually(true, async || summary(&service, "dana", "cards", json!(id)).await.contains(sent)).await;
    let first = explain(&service, json!({"user_id": "dana", "table": "cards", "id": id})).await;
    let [connected] = &first["devices"].as_array().expect("a list")[..] else { panic!("{first:#}") };
    assert_eq!((&connected["row"], &connected["carrier"]), (&json!("sent"), &json!("http")));
    assert_eq!(first["request"]["source"], json!("device"));
    assert_eq!(first["request"]["client_id"], connected["client_id"]);
    let op_id = |answer: &Value| {
        answer["row"]["buckets"][0]["op_id"].as_str().expect("an id").parse::<u64>().expect("a number")
    };
    let completed = |answer: &Value| {
        answer["devices"][0]["completed"]["op_id"].as_str().expect("an id").parse::<u64>().expect("a number")
    };
    assert!(completed(&first) >= op_id(&first), "{first:#}");

    service.run("UPDATE cards SET title = 'changed' WHERE id = 17").await;
    let ask = async || explain(&service, json!({"user_id": "dana", "table": "cards", "id": id})).await;
    eventually(true, async || {
        let answer = ask().await;
        op_id(&answer) > op_id(&first)
            && answer["devices"][0]["row"] == json!("sent")
            && completed(&answer) >= op_id(&answer)
    })
    .await;
    // Explained as another user would ask, the device is without it.
    let other =
        explain(&service, json!({"user_id": "dana", "claims": {"sub": "ann"}, "table": "cards", "id": "3"})).await;
    assert_eq!(other["request"]["source"], json!("given"));

    device.kill().await.expect("it ends");
    eventually(json!(0), async || ask().await["device_count"].clone()).await;
}

async fn command(service: &TestService, token: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(service_binary());
    command.args(["explain", "--url", service.process.endpoint()]).args(arguments).env("KAIROS_ADMIN_TOKEN", token);
    command.env_remove("POWERSYNC_CONFIG_PATH").current_dir(service.folder.path());
    timeout(PATIENCE, command.output()).await.expect("in time").expect("it runs")
}

#[tokio::test]
async fn the_command_answers_in_its_first_line() {
    let service = start(CLASSIC).await;
    let ask = async |arguments: &[&str]| command(&service, ADMIN_TOKEN, arguments).await;
    let output = ask(&["--user", "ann", "--table", "cards", "--id", "15"]).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let first = printed.lines().next().expect("a line");
    assert_eq!(
        first,
        "Row 15 of public.cards is on no device: query 2 of team leaves it out, because `archived = 0` does not hold \
         (archived is 1); see below for the other query."
    );
    for part in [
        "\nuser ann, with a token",
        "NO  archived = 0   (archived is 1)",
        "\n0 devices connected\n",
        "buckets of at most 10000",
    ] {
        assert!(printed.contains(part), "{part}\nis not in\n{printed}");
    }
    let output = ask(&["--user", "ann", "--json"]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["user_id"], json!("ann"));

    let refused = command(&service, "a-guess", &["--user", "ann"]).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.starts_with("error ADMIN-0204: ") && said.contains("PSYNC_S2101") && !said.contains("a-guess"),
        "{said}"
    );
    let mut nowhere = Command::new(service_binary());
    nowhere.args(["explain", "--url", "http://127.0.0.1:1", "--token", "t", "--user", "ann"]);
    let output = timeout(PATIENCE, nowhere.output()).await.expect("in time").expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error ADMIN-0203: "), "{output:?}");
    // The configuration says where, and has a token.
    let mut configured = Command::new(service_binary());
    configured.args(["explain", "--user", "ann", "-c"]).arg(&service.config).env_remove("KAIROS_ADMIN_TOKEN");
    let output = timeout(PATIENCE, configured.output()).await.expect("in time").expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
