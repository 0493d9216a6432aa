//! Bytes of a stream: lines in the format and the compression that were asked for, in chunks, and cut where a test says.

use std::io::{Result, Write};

use flate2::{Compression, write::GzEncoder};
use kairos_client::protocol::{bson, line::SyncLine};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Headers of a request that say how the answer is to be written.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) accept: String,
    pub(crate) accept_encoding: String,
}

/// What a network does to a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Bytes that arrive together.
    pub(crate) chunk_bytes: usize,
    /// The connection is lost after so many.
    pub(crate) cut: usize,
}

impl Default for Weather {
    fn default() -> Self {
        Self { chunk_bytes: usize::MAX, cut: usize::MAX }
    }
}

enum Encoder {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// What was written since the last call, complete for whoever reads it.
    fn take(&mut self) -> Result<Vec<u8>> {
        match self {
            Self::Plain(bytes) => Ok(std::mem::take(bytes)),
            Self::Gzip(encoder) => encoder.flush().map(|()| std::mem::take(encoder.get_mut())),
            Self::Zstd(encoder) => encoder.flush().map(|()| std::mem::take(encoder.get_mut())),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Plain(to) => Write::write_all(to, bytes),
            Self::Gzip(to) => to.write_all(bytes),
            Self::Zstd(to) => to.write_all(bytes),
        }
    }
}

/// One answer.
pub(crate) struct Wire {
    pub(crate) is_bson: bool,
    pub(crate) encoding: Option<&'static str>,
    encoder: Encoder,
    weather: Weather,
}

impl Wire {
    pub(crate) fn new(asked: &Asked, weather: Weather) -> Result<Self> {
        let (encoding, encoder) = if asked.accept_encoding.contains("zstd") {
            (Some("zstd"), Encoder::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 2)?))
        } else if asked.accept_encoding.contains("gzip") {
            (Some("gzip"), Encoder::Gzip(GzEncoder::new(Vec::new(), Compression::fast())))
        } else {
            (None, Encoder::Plain(Vec::new()))
        };
        Ok(Self { is_bson: asked.accept.contains("bson"), encoding, encoder, weather })
    }

    pub(crate) fn head(&self) -> String {
        let kind = if self.is_bson { "application/vnd.powersync.bson-stream" } else { "application/x-ndjson" };
        let encoding = self.encoding.map(|encoding| format!("content-encoding: {encoding}\r\n")).unwrap_or_default();
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{encoding}transfer-encoding: chunked\r\n\r\n")
    }

    /// A line as it is written; damaged, it is one that ends early.
    pub(crate) fn encode(&self, line: &SyncLine, damaged: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.is_bson {
            bson::write_line(line, &mut bytes);
        } else {
            bytes = super::json(line).into_bytes();
            bytes.push(b'\n');
        }
        if damaged {
            // In the middle of a line is what frames it.
            let middle = bytes.len() / 2;
            bytes.splice(
                middle..middle,
                if self.is_bson { b"\0\0\0\0".as_slice() } else { b"\n".as_slice() }.iter().copied(),
            );
        }
        bytes
    }

    /// Sends bytes. False once the connection is lost.
    pub(crate) async fn send(&mut self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<bool> {
        self.encoder.write(bytes)?;
        for chunk in self.encoder.take()?.chunks(self.weather.chunk_bytes) {
            let sent = chunk.len().min(self.weather.cut);
            let (chunk, lost) = chunk.split_at(sent);
            self.weather.cut -= sent;
            if !chunk.is_empty() {
                to.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
                to.write_all(chunk).await?;
                to.write_all(b"\r\n").await?;
                to.flush().await?;
            }
            if !lost.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
