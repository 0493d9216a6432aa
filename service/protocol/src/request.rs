//! What clients send to open a sync stream, and the small endpoints beside it.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use crate::{OpId, WriteCheckpointId};

/// Body of `POST /sync/stream`. Unknown fields are ignored, absent and `null` mean the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Buckets the client already has.
    #[serde(default, deserialize_with = "null_is_default")]
    pub buckets: Vec<BucketPosition>,
    /// Accepted for compatibility: checksums are always sent.
    #[serde(default, deserialize_with = "null_is_default")]
    pub include_checksum: bool,
    /// `data` of operations stays a string. Without it, it is a nested object (clients of long ago).
    #[serde(default, deserialize_with = "null_is_default")]
    pub raw_data: bool,
    /// Accepted for compatibility: content negotiation decides.
    #[serde(default, deserialize_with = "null_is_default")]
    pub binary_data: bool,
    /// Random id of the client's database; matches write checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Client parameters for the rules: not authenticated.
    #[serde(default, deserialize_with = "null_is_default")]
    pub parameters: Map<String, Value>,
    /// For logs only.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Map::is_empty")]
    pub app_metadata: Map<String, Value>,
    /// Stream subscriptions.
    #[serde(default, deserialize_with = "null_is_default")]
    pub streams: StreamSubscriptions,
}

/// Where a client stands in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketPosition {
    /// Bucket name as the service sent it.
    pub name: String,
    /// Send operations after this one.
    pub after: OpId,
}

/// The streams a client wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamSubscriptions {
    /// Also those everybody gets.
    #[serde(default = "yes")]
    pub include_defaults: bool,
    /// Explicit subscriptions; the service refers to them by index.
    #[serde(default)]
    pub subscriptions: Vec<StreamSubscription>,
}

impl Default for StreamSubscriptions {
    fn default() -> Self {
        Self { include_defaults: true, subscriptions: Vec::new() }
    }
}

const fn yes() -> bool {
    true
}

/// One explicit subscription. Both optional keys are always sent, since the reference service requires them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamSubscription {
    /// Name as in the rules.
    pub stream: String,
    /// Subscription parameters: not authenticated.
    #[serde(default)]
    pub parameters: Option<Map<String, Value>>,
    /// Overrides the stream's priority, 0 to 3.
    #[serde(default)]
    pub override_priority: Option<u8>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Most JSON answers wrap their content in `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped<T> {
    /// The content.
    pub data: T,
}

/// Answer of `GET /write-checkpoint2.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCheckpointResponse {
    /// Wait for this.
    pub write_checkpoint: WriteCheckpointId,
}

/// Body of `POST /sync/checkpoint-request`: a write checkpoint with an id that the client chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRequest {
    /// Random id of the client's database.
    pub client_id: String,
    /// From 1 on, larger than those before; the service takes a number, too.
    #[serde(deserialize_with = "text_or_number")]
    pub checkpoint_request_id: WriteCheckpointId,
}

/// Answer of `POST /sync/checkpoint-request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRequestResponse {
    /// The largest id the service knows of this client.
    pub checkpoint_request_id: WriteCheckpointId,
}

fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WriteCheckpointId, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(String),
        Number(u64),
    }
    let expected = || de::Error::custom("expected a `checkpoint_request_id` from 1 to 9223372036854775807");
    let id = match Id::deserialize(deserializer).map_err(|_| expected())? {
        Id::Text(text) => text.parse().ok(),
        Id::Number(number) => WriteCheckpointId::new(number).ok(),
    };
    id.filter(|id| *id > WriteCheckpointId::ZERO).ok_or_else(expected)
}

/// Body of every failed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// Stable code, `PSYNC_S…` where SDKs look at it.
    pub code: String,
    /// HTTP status.
    pub status: u16,
    /// What happened, for people; no row values, no secrets.
    pub description: String,
    /// Kind of error, as the reference service names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What exactly is wrong and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_body_asks_for_the_defaults() {
        let request: SyncRequest = serde_json::from_str("{}").expect("parses");
        assert_eq!(request, SyncRequest::default());
        assert!(request.streams.include_defaults);
    }

    #[test]
    fn null_means_absent() {
        let request: SyncRequest =
            serde_json::from_str(r#"{"buckets":null,"parameters":null,"streams":null,"client_id":null}"#)
                .expect("parses");
        assert_eq!(request, SyncRequest::default());
    }
}
