//! The examples for reverse proxies in front of a running service: streams pass at once, uploads whole, WebSocket
//! upgrades too, and the service knows who asks.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use kairos_sync::demo::cluster::free_port;
use kairos_tests::service::{PATIENCE, TestService, eventually};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::{Client, Response};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    RULES, SCHEMA,
    programs::{Running, kit, program, run},
};

/// Behind a proxy on this host, with a bound that is soon met.
const SETTINGS: &str = "base_path: /sync-api\ntrusted_proxies: [127.0.0.1]\n\
                        limits: { rate: { refused_tokens_per_minute: 5 } }\n";

/// A proxy in front of a service.
struct Site {
    service: TestService,
    url: String,
    certificate: reqwest::Certificate,
    proxy: Running,
    _folder: TempDir,
}

async fn service() -> TestService {
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.reconfigure(SETTINGS).await;
    service.wait_until_ready().await;
    service
}

impl Site {
    /// nginx with `nginx.conf`, in which names, ports and certificates are those of this host.
    async fn nginx() -> Self {
        let (service, folder, port) =
            (service().await, TempDir::new().expect("a folder"), free_port().expect("a port"));
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("fullchain.pem"), cert.pem()).expect("writable");
        fs::write(path("privkey.pem"), signing_key.serialize_pem()).expect("writable");
        let example = fs::read_to_string(kit().join("proxy/nginx.conf")).expect("readable");
        let address = service.process.endpoint().trim_start_matches("http://");
        let here = example
            .replace("kairos-sync:8080", address)
            .replace("pocketbase:8090", "127.0.0.1:1")
            .replace("/etc/ssl/kairos", &folder.path().display().to_string())
            .replace("listen 443 ", &format!("listen 127.0.0.1:{port} "))
            .replace("listen 80;", &format!("listen 127.0.0.1:{};", free_port().expect("a port")));
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|kind| format!("{kind}_temp_path {};\n", path(kind))).concat();
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {};\nerror_log stderr;\nevents {{ worker_connections 256; }}\n\
             http {{\naccess_log off;\n{temporary}{here}}}\n",
            path("pid")
        );
        fs::write(path("nginx.conf"), whole).expect("writable");
        let nginx = || {
            let mut command = program("nginx");
            command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(path("nginx.conf"));
            command
        };
        run(nginx().arg("-t"));
        let proxy = Running::start(nginx(), folder.path(), "nginx");
        let certificate = reqwest::Certificate::from_pem(cert.pem().as_bytes()).expect("valid");
        Self { service, url: format!("https://localhost:{port}"), certificate, proxy, _folder: folder }
    }

    /// Caddy with `Caddyfile` and a certificate that it makes itself.
    async fn caddy() -> Self {
        let (service, folder, port) =
            (service().await, TempDir::new().expect("a folder"), free_port().expect("a port"));
        let mut command = program("caddy");
        command.args(["run", "--config"]).arg(kit().join("proxy/Caddyfile"));
        let url = format!("https://localhost:{port}");
        // Ports of its own also for the redirect, which this address leaves out.
        command.env("KAIROS_SITE", &url).env("KAIROS_TLS", "internal").env("POCKETBASE", "127.0.0.1:1");
        command.env("KAIROS_SYNC", service.process.endpoint().trim_start_matches("http://"));
        command.env("XDG_DATA_HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path()).env("HOME", folder.path());
        let proxy = Running::start(command, folder.path(), "caddy");
        let root = folder.path().join("caddy/pki/authorities/local/root.crt");
        eventually(true, async || root.is_file()).await;
        let certificate = reqwest::Certificate::from_pem(&fs::read(&root).expect("readable")).expect("valid");
        Self { service, url, certificate, proxy, _folder: folder }
    }

    /// A client at this address, which trusts the certificate.
    fn client_at(&self, last: u8) -> Client {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let client = Client::builder().tls_certs_only([self.certificate.clone()]).local_address(address);
        let here = (Ipv4Addr::LOCALHOST, 0).into();
        client.resolve("localhost", here).no_proxy().build().expect("a client")
    }

    async fn ask(&self, client: &Client, token: &str, encoding: &str) -> Response {
        let request = client.post(format!("{}/sync-api/sync/stream", self.url)).json(&json!({}));
        let request = request.header("accept-encoding", encoding).bearer_auth(token);
        request.send().await.expect("an answer")
    }

    async fn open(&self, client: &Client, token: &str, encoding: &str) -> Lines {
        Lines { response: self.ask(client, token, encoding).await, unread: String::new() }
    }

    async fn wait_until_alive(&mut self) {
        let client = self.client_at(2);
        let url = format!("{}/sync-api/probes/liveness", self.url);
        eventually(true, || {
            self.proxy.expect_alive();
            let request = client.get(&url).send();
            async { request.await.is_ok_and(|answer| answer.status().is_success()) }
        })
        .await;
    }
}

/// A stream, decompressed, and what of it was not asked for yet.
struct Lines {
    response: Response,
    unread: String,
}

impl Lines {
    /// Reads on until after this. A proxy that buffers never hands it on, since the stream goes on.
    async fn read_until(&mut self, wanted: &str) {
        let Self { response, unread } = self;
        let read = async {
            loop {
                if let Some(at) = unread.find(wanted) {
                    unread.drain(..at + wanted.len());
                    return;
                }
                unread.drain(..unread.floor_char_boundary(unread.len().saturating_sub(wanted.len())));
                let chunk = response.chunk().await.expect("lines").expect("the stream goes on");
                unread.push_str(&String::from_utf8_lossy(&chunk));
            }
        };
        assert!(timeout(PATIENCE, read).await.is_ok(), "{wanted} did not come; the last was {unread}");
    }
}

async fn serves_devices(mut site: Site) {
    site.wait_until_alive().await;
    let (client, token) = (site.client_at(2), site.service.token("ann"));

    // Enough for stored lines, which are handed on as they were compressed.
    let many =
        "INSERT INTO notes SELECT 'copied-' || n, 'ann', repeat(md5(n::text), 20) FROM generate_series(1, 1500) n";
    site.service.run(many).await;
    for encoding in ["identity", "gzip", "zstd"] {
        let mut stream = site.open(&client, &token, encoding).await;
        stream.read_until("copied-1500").await;
        stream.read_until("checkpoint_complete").await;
        let change = format!("a small change, {encoding}");
        site.service.run(&format!("INSERT INTO notes VALUES ('{encoding}', 'ann', '{change}')")).await;
        stream.read_until(&change).await;
    }
    let mut stream = site.open(&client, &token, "identity").await;
    stream.read_until("checkpoint_complete").await;

    // More than proxies take by default, less than the service does.
    let body = "x".repeat(100_000);
    let note = |id: usize| json!({ "op": "PUT", "table": "notes", "id": format!("{id}"), "data": { "owner": "ann", "body": body } });
    let batch: Vec<_> = (0..15).map(note).collect();
    let upload = client.post(format!("{}/sync-api/api/sync/data", site.url)).json(&json!({ "batch": batch }));
    let answer = upload.bearer_auth(&token).timeout(Duration::from_mins(1)).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    let answer: serde_json::Value = answer.json().await.expect("JSON");
    let results = answer["data"]["results"].as_array().expect("results");
    assert!(results.len() == 15 && results.iter().all(|result| result["outcome"] == "applied"), "{answer}");
    stream.read_until("checkpoint_complete").await;

    let upgrade = client.get(format!("{}/sync-api/sync/stream", site.url));
    let upgrade = upgrade.header("connection", "Upgrade").header("upgrade", "websocket");
    let upgrade = upgrade.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(upgrade.send().await.expect("an answer").status().as_u16(), 101);

    for path in ["metrics", "status", "admin", "admin/", "api/admin/v1/diagnostics"] {
        let answer = client.get(format!("{}/sync-api/{path}", site.url)).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 404, "{path} is for operators");
    }

    // One address has used up what it may; another one has not, and nobody can say that he is that one.
    let refused = async |client: &Client| site.ask(client, "wrong", "identity").await.status().as_u16();
    eventually(429, || refused(&client)).await;
    let other = site.client_at(3);
    assert_eq!(refused(&other).await, 401, "it is not asked by the same address");
    let forged = client.post(format!("{}/sync-api/sync/stream", site.url)).json(&json!({})).bearer_auth("wrong");
    let forged = forged.header("x-forwarded-for", "127.0.0.3").send().await.expect("an answer");
    assert_eq!(forged.status().as_u16(), 429, "nobody is who he says");
}

#[tokio::test]
async fn nginx_hands_on_what_devices_need() {
    serves_devices(Site::nginx().await).await;
}

#[tokio::test]
async fn caddy_hands_on_what_devices_need() {
    serves_devices(Site::caddy().await).await;
}
