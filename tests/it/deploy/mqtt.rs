//! Mosquitto, as its container starts it: who may come in, and what he may say.

use std::{fs, future::ready};

use kairos_sync::demo::cluster::free_port;
use kairos_tests::service::eventually;
use tempfile::TempDir;

use super::{
    compose::Compose,
    programs::{Running, kit, program},
    stack::{Host, Ports},
};

/// Whether the broker takes a message.
fn publishes(port: u16, login: &[&str], topic: &str) -> bool {
    let mut command = program("mosquitto_pub");
    command.args(["-V", "mqttv5", "-q", "1", "-h", "127.0.0.1", "-p", &port.to_string(), "-t", topic, "-m", "on"]);
    let output = command.args(login).output().expect("it runs");
    // Exit code 0 comes with a warning where the broker dropped it.
    output.status.success() && output.stderr.is_empty()
}

#[tokio::test]
async fn devices_publish_their_topics_by_password_and_nothing_else() {
    let (compose, folder) = (Compose::read(), TempDir::new().expect("a folder"));
    let port = free_port().expect("a port");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let configuration = fs::read_to_string(kit().join("mosquitto/mosquitto.conf")).expect("readable");
    let here = |text: &str| {
        text.replace("/run/mosquitto", &path(""))
            .replace("/mosquitto/data", &path(""))
            .replace("/mosquitto/config/access.conf", &kit().join("mosquitto/access.conf").display().to_string())
    };
    let configuration = here(&configuration).replace("listener 1883", &format!("listener {port} 127.0.0.1"));
    // As root it would become a user that no package has made here.
    fs::write(path("mosquitto.conf"), configuration + "user root\n").expect("writable");
    let host = Host { compose: &compose, ports: Ports::unused(), folder: folder.path() };
    let script = host.script("mosquitto", |script| {
        here(script).replace("/mosquitto/config/mosquitto.conf", &path("mosquitto.conf"))
    });
    let mut broker = Running::start(script, folder.path(), "mosquitto");
    let password = compose.variable("mosquitto", "MQTT_PASSWORD");
    let own = ["-u", "kairos", "-P", &password];
    eventually(true, || {
        broker.expect_alive();
        ready(publishes(port, &own, "kairos/button/1"))
    })
    .await;
    assert!(!publishes(port, &own, "others/button/1"), "not its topic");
    assert!(!publishes(port, &[], "kairos/button/1"), "a stranger");
    assert!(!publishes(port, &["-u", "kairos", "-P", "wrong"], "kairos/button/1"));
    let kept = fs::read_to_string(path("passwords")).expect("readable");
    assert!(kept.starts_with("kairos:$7$") && !kept.contains(&password), "hashed");

    let mut without = host.script("mosquitto", here);
    let output = without.env("MQTT_PASSWORD", "").output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("MQTT_PASSWORD is not set in .env"), "{output:?}");
}
