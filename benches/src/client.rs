//! A client that reads lines and keeps nothing.

use std::error::Error;

use futures_util::StreamExt;
use reqwest::Response;

/// An open sync stream, read line by line.
pub(crate) struct RawClient {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    pending: Vec<u8>,
    read: usize,
    pub(crate) byte_count: u64,
}

impl RawClient {
    pub(crate) async fn connect(endpoint: &str, token: &str) -> Result<Self, Box<dyn Error>> {
        let response: Response = reqwest::Client::new()
            .post(format!("{endpoint}/sync/stream"))
            .header("authorization", format!("Token {token}"))
            .header("accept-encoding", "identity")
            .json(&serde_json::json!({"raw_data": true, "include_checksum": true}))
            .send()
            .await?
            .error_for_status()?;
        let body = response.bytes_stream().map(|chunk| chunk.map(|bytes| bytes.to_vec())).boxed();
        Ok(Self { body, pending: Vec::new(), read: 0, byte_count: 0 })
    }

    /// The next line, without its end.
    pub(crate) async fn line(&mut self) -> Result<String, Box<dyn Error>> {
        loop {
            if let Some(end) = self.pending[self.read..].iter().position(|&byte| byte == b'\n') {
                let line = String::from_utf8(self.pending[self.read..self.read + end].to_vec())?;
                self.read += end + 1;
                return Ok(line);
            }
            self.pending.drain(..self.read);
            self.read = 0;
            let chunk = self.body.next().await.ok_or("the stream ended")??;
            self.byte_count += chunk.len() as u64;
            self.pending.extend_from_slice(&chunk);
        }
    }

    /// Reads until a line of this kind.
    pub(crate) async fn until(&mut self, kind: &str) -> Result<String, Box<dyn Error>> {
        let start = format!("{{\"{kind}\":");
        loop {
            let line = self.line().await?;
            if line.starts_with(&start) {
                return Ok(line);
            }
        }
    }
}
