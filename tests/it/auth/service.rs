//! A service without a source: who may come in needs none.

use std::{fs, path::PathBuf};

use kairos_sync::demo::{cluster::free_port, process::ServiceProcess};
use kairos_tests::service::service_binary;
use serde_json::Value;
use tempfile::TempDir;

use super::{issuer::AUDIENCE, key_endpoint::KeyEndpoint};

/// With huge pages the first byte of any new two megabytes costs all of them, so that nothing can be measured.
const SMALL_PAGES: (&str, &str) = ("MIMALLOC_ALLOW_THP", "0");

/// A running service.
pub(super) struct Service {
    pub(super) process: ServiceProcess,
    pub(super) http: reqwest::Client,
    pub(super) port: u16,
    folder: TempDir,
}

/// A configuration with this `client_auth`, in a folder of its own.
pub(super) fn write_config(client_auth: &str, port: u16) -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a folder");
    let text = format!(
        "replication: {{ connections: [{{ uri: 'postgresql://app@127.0.0.1:1/app' }}] }}\n\
         sync_config: {{ content: 'bucket_definitions: {{ all: {{ data: [SELECT * FROM lists] }} }}' }}\n\
         port: {port}\ndata_dir: data\nclient_auth:\n{client_auth}"
    );
    let path = folder.path().join("kairos.yaml");
    fs::write(&path, text).expect("writes the configuration");
    (folder, path)
}

/// `client_auth` with keys from these endpoints.
pub(super) fn keys_from(endpoints: &[&KeyEndpoint]) -> String {
    let uris: Vec<String> = endpoints.iter().map(|endpoint| endpoint.uri()).collect();
    format!("  audience: [{AUDIENCE}]\n  jwks_uri: [{}]\n", uris.join(", "))
}

/// How much memory a process needs.
pub(super) struct Memory {
    process: u32,
    before: u64,
}

impl Memory {
    /// How many bytes more than before were in use at the worst moment since.
    pub(super) fn grown(&self) -> u64 {
        status_bytes(self.process, "VmHWM:").saturating_sub(self.before)
    }
}

fn status_bytes(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

impl Service {
    pub(super) async fn start(client_auth: &str) -> Self {
        // A second call would find the provider installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = free_port().expect("a port");
        let (folder, config) = write_config(client_auth, port);
        let process = ServiceProcess::start_with(&service_binary(), &config, port, &[SMALL_PAGES]).await;
        let process = process.expect("the service starts");
        Self { process, http: reqwest::Client::new(), port, folder }
    }

    /// Opens a stream with this `Authorization` header. Its status, and the body where it is refused.
    pub(super) async fn open(&self, header: Option<&str>) -> (u16, Value) {
        let mut request =
            self.http.post(format!("{}/sync/stream", self.process.endpoint())).json(&serde_json::json!({}));
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        let response = request.send().await.expect("answers");
        let status = response.status().as_u16();
        // An open stream has no end.
        if status == 200 { (status, Value::Null) } else { (status, response.json().await.unwrap_or_default()) }
    }

    /// The code with which a token is refused; `None` where it is accepted.
    pub(super) async fn refusal(&self, token: &str) -> Option<String> {
        let (status, body) = self.open(Some(&format!("Token {token}"))).await;
        assert!(status == 200 || status == 401, "{status} {body}");
        body["error"]["code"].as_str().map(str::to_owned)
    }

    /// How often requests were refused with a code.
    pub(super) async fn refused(&self, code: &str) -> u64 {
        let name = format!("kairos_requests_refused_total{{code=\"{code}\"}}");
        self.process.metric(&name).await.expect("answers")
    }

    /// Opens some streams: what is loaded with the first requests is no cost of the later ones.
    pub(super) async fn warm_up(&self, token: &str) {
        for _ in 0..50 {
            self.refusal(token).await;
        }
    }

    /// Begins to measure memory.
    pub(super) fn memory(&self) -> Memory {
        let process = self.process.id();
        // The kernel begins anew with the peak.
        fs::write(format!("/proc/{process}/clear_refs"), "5").expect("a process of our own");
        Memory { process, before: status_bytes(process, "VmRSS:") }
    }

    /// Everything it logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("kairos.log")).expect("a log")
    }
}
