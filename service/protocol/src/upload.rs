//! Local writes on their way to Postgres, and the answer to each.
//!
//! The shapes are the conventional ones: `{"batch":[…]}`, a bare array or a bare operation, in either spelling of the
//! SDKs (`table` or `type`, `data` or `opData`, `op_id` or `clientId`, …).

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::WriteCheckpointId;

/// A batch of local writes, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UploadBatch {
    /// Random id of the client's database; with the op ids it makes a repeated batch harmless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The writes.
    pub batch: Vec<CrudEntry>,
}

/// What a local write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CrudOp {
    /// Insert, or update the given columns where the row exists.
    #[serde(alias = "put", alias = "Put")]
    Put,
    /// Update the given columns; nothing where the row is missing.
    #[serde(alias = "patch", alias = "Patch")]
    Patch,
    /// Delete; nothing where the row is missing.
    #[serde(alias = "delete", alias = "Delete")]
    Delete,
}

impl CrudOp {
    /// As it is sent.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// One local write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrudEntry {
    /// What to do.
    pub op: CrudOp,
    /// The synced table.
    #[serde(alias = "type")]
    pub table: String,
    /// Id of the row; a number is read as its text, and `data.id` stands in where it is absent.
    #[serde(default, deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Column values as SQLite has them: PUT all that are not null, PATCH the changed ones.
    #[serde(default, alias = "opData", skip_serializing_if = "Option::is_none")]
    pub data: Option<Map<String, Value>>,
    /// Position in the client's queue: unique per client id.
    #[serde(default, alias = "clientId", deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub op_id: Option<String>,
    /// Writes of one local transaction share it.
    #[serde(
        default,
        alias = "transactionId",
        deserialize_with = "text_or_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub tx_id: Option<String>,
    /// Values before the write, where the client tracks them.
    #[serde(default, alias = "previousValues", skip_serializing_if = "Option::is_none")]
    pub old: Option<Map<String, Value>>,
    /// Free text from the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(serde::de::Error::custom("expected a string or a number")),
    }
}

impl Outcome {
    /// Whether what the device wanted is lost, so that somebody should be told.
    pub fn needs_attention(self) -> bool {
        matches!(self, Self::Conflict | Self::Refused)
    }
}

impl<'de> Deserialize<'de> for UploadBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;

        #[derive(Deserialize)]
        struct Whole {
            #[serde(default)]
            client_id: Option<String>,
            batch: Vec<CrudEntry>,
        }

        match Value::deserialize(deserializer)? {
            list @ Value::Array(_) => {
                let batch = serde_json::from_value(list).map_err(D::Error::custom)?;
                Ok(Self { client_id: None, batch })
            }
            Value::Object(object) if object.contains_key("batch") => {
                let whole: Whole = serde_json::from_value(Value::Object(object)).map_err(D::Error::custom)?;
                Ok(Self { client_id: whole.client_id, batch: whole.batch })
            }
            Value::Object(object) => {
                let client_id = object.get("client_id").and_then(Value::as_str).map(str::to_owned);
                let entry = serde_json::from_value(Value::Object(object)).map_err(D::Error::custom)?;
                Ok(Self { client_id, batch: vec![entry] })
            }
            _ => Err(D::Error::custom("expected {\"batch\":[…]}, a list of operations or one operation")),
        }
    }
}

/// What became of a write. Final: the client removes it from its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Written.
    Applied,
    /// Written in part, or joined with what others wrote.
    Merged,
    /// Not written, as others changed the row since the device saw it; the row comes back as the server has it.
    Conflict,
    /// Not written, as it is there already.
    Duplicate,
    /// Not written, for the reason given; the row comes back as the server has it.
    Refused,
}

/// The answer to one write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpResult {
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op_id: Option<String>,
    /// As sent.
    pub table: String,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Of a conflict, the row as it is, in columns that devices may write. Absent where an answer is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<Map<String, Value>>,
    /// Stable code of a refusal or a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What is wrong and what to do, for people; no row values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Answer of `POST /api/sync/data`, wrapped in `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadResponse {
    /// Saves the client asking for one; absent where it could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_checkpoint: Option<WriteCheckpointId>,
    /// One per write, in order.
    pub results: Vec<OpResult>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_conventional_shape_is_the_same_batch() {
        let entry = r#"{"op":"PUT","table":"lists","id":"l1","data":{"name":"Groceries"}}"#;
        let wrapped: UploadBatch = serde_json::from_str(&format!(r#"{{"batch":[{entry}]}}"#)).expect("wrapped");
        let list: UploadBatch = serde_json::from_str(&format!("[{entry}]")).expect("list");
        let single: UploadBatch = serde_json::from_str(entry).expect("single");
        assert_eq!(wrapped, list);
        assert_eq!(wrapped, single);
    }

    #[test]
    fn sdk_spellings_are_understood() {
        let entry: CrudEntry = serde_json::from_str(
            r#"{"op":"patch","type":"lists","id":7,"clientId":41,"transactionId":3,"opData":{"name":"x"},"previousValues":{}}"#,
        )
        .expect("parses");
        assert_eq!(entry.op, CrudOp::Patch);
        assert_eq!((entry.table.as_str(), entry.id.as_deref()), ("lists", Some("7")));
        assert_eq!((entry.op_id.as_deref(), entry.tx_id.as_deref()), (Some("41"), Some("3")));
        assert!(entry.data.is_some() && entry.old.is_some());
    }
}
