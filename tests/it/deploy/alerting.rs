//! Alertmanager, as its container starts it: an alert of a service that is gone reaches who is to be told.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use kairos_sync::demo::cluster::free_port;
use kairos_tests::service::TestService;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::{
    RULES, SCHEMA,
    compose::Compose,
    monitoring::{Asked, prometheus},
    programs::{Running, fetched, kit, program, run},
    stack::{Host, Ports},
};

/// Scrapes, evaluations and groups come every second here.
const PATIENCE: Duration = Duration::from_mins(2);

/// Hands on the bodies of requests, until nobody wants them.
async fn receive(listener: TcpListener, bodies: mpsc::Sender<Value>) {
    while let Ok((socket, _)) = listener.accept().await {
        let Some(body) = body(socket).await else { continue };
        if bodies.send(body).await.is_err() {
            return;
        }
    }
}

/// The body of one request, which is answered.
async fn body(socket: TcpStream) -> Option<Value> {
    let mut socket = BufReader::new(socket);
    let mut length = 0;
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        if let Some(("content-length", value)) = line.to_lowercase().trim().split_once(": ") {
            length = value.parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.ok()?;
    serde_json::from_slice(&body).ok()
}

/// Where Debian's looks for its templates, which stand in the program elsewhere.
const TEMPLATES: &str = "/usr/share/prometheus/alertmanager";

/// The program. It is not installed: Debian's is changed to look for its templates where they were unpacked.
fn alertmanager(folder: &TempDir) -> PathBuf {
    let unpacked = PathBuf::from(program("prometheus-alertmanager").get_program());
    let templates = fetched().join(&TEMPLATES[1..]);
    if Path::new(TEMPLATES).is_dir() || !templates.is_dir() {
        return unpacked;
    }
    for template in ["default.tmpl", "email.tmpl"] {
        fs::copy(templates.join(template), folder.path().join(template)).expect("copied");
    }
    let mut path = folder.path().to_str().expect("a plain path").to_owned();
    assert!(path.len() <= TEMPLATES.len(), "{path} is too long: set TMPDIR to a shorter one");
    path.extend(std::iter::repeat_n('/', TEMPLATES.len() - path.len()));
    let mut bytes = fs::read(&unpacked).expect("readable");
    while let Some(at) = memchr::memmem::find(&bytes, TEMPLATES.as_bytes()) {
        bytes[at..at + path.len()].copy_from_slice(path.as_bytes());
    }
    let changed = folder.path().join("prometheus-alertmanager");
    fs::write(&changed, bytes).expect("writable");
    fs::set_permissions(&changed, fs::Permissions::from_mode(0o755)).expect("it is ours");
    changed
}

/// The script of the container, with its folders and its program here.
fn here(script: &str, folder: &TempDir) -> String {
    let path = |name: &str| folder.path().join(name).display().to_string();
    script
        .replace("/bin/alertmanager", &alertmanager(folder).display().to_string())
        .replace("/etc/alertmanager/", &format!("{}/", kit().join("alertmanager").display()))
        .replace("/run/alertmanager/", &path(""))
        .replace("=/alertmanager", &format!("={}", path("data")))
}

#[tokio::test]
async fn an_alert_reaches_the_webhook_and_so_does_its_end() {
    let (compose, folder) = (Compose::read(), TempDir::new().expect("a folder"));
    let host = Host { compose: &compose, ports: Ports::unused(), folder: folder.path() };
    let mut without = host.script("alertmanager", |script| here(script, &folder));
    let output = without.env("ALERT_WEBHOOK", "").output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("ALERT_WEBHOOK is not set in .env"), "{output:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    // With all that a shell or sed could misread.
    let webhook = format!("http://{}/hook?template=a&to=b|c\\d", listener.local_addr().expect("an address"));
    let (sender, mut bodies) = mpsc::channel(8);
    tokio::spawn(receive(listener, sender));
    let port = free_port().expect("a port");
    let mut script = host.script("alertmanager", |script| {
        // Groups wait for nothing, and the cluster of one has nobody to talk to.
        let waits = "sed -i 's/group_wait: .*/group_wait: 1s/; s/group_interval: .*/group_interval: 1s/'";
        let prepared = format!("{waits} {}/alertmanager.yaml\nexec", folder.path().display());
        here(script, &folder).trim_end().replacen("exec", &prepared, 1)
            + &format!(" --web.listen-address=127.0.0.1:{port} --cluster.listen-address=")
    });
    script.env("ALERT_WEBHOOK", &webhook);
    let mut alertmanager = Running::start(script, folder.path(), "alertmanager");
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let address = format!("127.0.0.1:{port}");
    let asked = Asked { alertmanager: &address, for_at_once: true };
    let (_prometheus, _) = prometheus(&service, &folder, &asked);
    service.process.kill().expect("it runs");

    let told = async |bodies: &mut mpsc::Receiver<Value>, status: &str| loop {
        let body = bodies.recv().await.expect("the receiver lives");
        let alerts = body["alerts"].as_array().expect("alerts").clone();
        let is_it = |alert: &Value| alert["labels"]["alertname"] == "KairosDown" && alert["status"] == status;
        if let Some(alert) = alerts.into_iter().find(is_it) {
            return alert;
        }
    };
    let Ok(alert) = timeout(PATIENCE, told(&mut bodies, "firing")).await else {
        alertmanager.expect_alive();
        panic!("nobody was told:\n{}", alertmanager.log());
    };
    assert_eq!(alert["labels"]["severity"], "critical");
    assert!(alert["annotations"]["runbook_url"].as_str().is_some_and(|url| url.ends_with("runbook.md#kairosdown")));
    service.process.restart().await.expect("it starts again");
    let end = timeout(PATIENCE, told(&mut bodies, "resolved")).await;
    assert!(end.is_ok(), "nobody was told of the end:\n{}", alertmanager.log());
    run(program("amtool").arg("check-config").arg(folder.path().join("alertmanager.yaml")));
}

#[test]
fn amtool_accepts_the_file_and_finds_who_is_told_of_what() {
    let file = kit().join("alertmanager/alertmanager.yaml");
    let said = run(program("amtool").arg("check-config").arg(&file));
    assert!(said.contains("1 receivers") && said.contains("1 inhibit rules"), "{said}");
    for severity in ["critical", "warning"] {
        let mut routes = program("amtool");
        routes.args(["config", "routes", "test", "--config.file"]).arg(&file).arg(format!("severity={severity}"));
        assert!(run(&mut routes).lines().any(|line| line == "webhook"), "{severity}");
    }
    // Which the script looks for.
    assert!(fs::read_to_string(&file).expect("readable").contains("url: 'http://alert-webhook.invalid/'\n"));
}
