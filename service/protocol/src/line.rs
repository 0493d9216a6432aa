//! The lines of a sync stream.
//!
//! First a `checkpoint`, later only `checkpoint_diff`s; after each, the data of the buckets that changed, and
//! `checkpoint_complete` once all of it was sent. A `token_expires_in` line may stand between any two.

use serde::{Deserialize, Serialize};

use crate::{Checksum, OpId, WriteCheckpointId, operation::Operation};

/// One line of a sync stream: an object with exactly one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncLine {
    /// The complete list of buckets; resets what the client aims at.
    Checkpoint(Checkpoint),
    /// What changed since the last checkpoint line of this stream.
    CheckpointDiff(CheckpointDiff),
    /// Operations of one bucket.
    Data(BucketData),
    /// All data of the latest checkpoint was sent.
    CheckpointComplete(CheckpointComplete),
    /// All data up to a priority was sent.
    PartialCheckpointComplete(PartialCheckpointComplete),
    /// Seconds until the token expires. Zero or less: the token is refused from now on.
    TokenExpiresIn(i32),
}

/// A state clients may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Every operation up to here belongs to the checkpoint.
    pub last_op_id: OpId,
    /// The client's latest write checkpoint that replication has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_checkpoint: Option<WriteCheckpointId>,
    /// All buckets of the client. What it has beyond these, it deletes.
    pub buckets: Vec<BucketChecksum>,
    /// All streams the client is subscribed to, by default or explicitly.
    #[serde(default)]
    pub streams: Vec<StreamDescription>,
}

/// A bucket and what it must add up to at a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketChecksum {
    /// Bucket name; opaque to clients.
    pub bucket: String,
    /// Sum over all operations up to the checkpoint.
    pub checksum: Checksum,
    /// Number of operations up to the checkpoint; drives progress bars only.
    #[serde(default)]
    pub count: u64,
    /// 0 syncs first, 3 (the default) last.
    #[serde(default = "default_priority")]
    pub priority: u8,
    /// Why the client has this bucket.
    #[serde(default)]
    pub subscriptions: Vec<SubscriptionReason>,
}

const fn default_priority() -> u8 {
    3
}

/// Why a client has a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionReason {
    /// A stream everybody gets: an index into [`Checkpoint::streams`].
    Default(usize),
    /// An explicit subscription: an index into the request's subscriptions.
    Sub(usize),
}

/// A stream or bucket definition the client is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDescription {
    /// Name as in the rules.
    pub name: String,
    /// Everybody gets it.
    pub is_default: bool,
    /// Subscriptions that could not be evaluated.
    #[serde(default)]
    pub errors: Vec<StreamError>,
}

/// A subscription that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamError {
    /// Which one.
    pub subscription: StreamErrorSubject,
    /// What is wrong with it, without row values.
    pub message: String,
}

/// Which subscription a [`StreamError`] speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StreamErrorSubject {
    /// An index into the request's subscriptions.
    Index(usize),
    /// The text `default`.
    Default(String),
}

/// What changed since the last checkpoint line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointDiff {
    /// As in [`Checkpoint`].
    pub last_op_id: OpId,
    /// As in [`Checkpoint`]; clients overwrite what they remember, so it is repeated in every diff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_checkpoint: Option<WriteCheckpointId>,
    /// Full replacements for these buckets, new ones included.
    pub updated_buckets: Vec<BucketChecksum>,
    /// Names of buckets the client no longer has.
    pub removed_buckets: Vec<String>,
}

/// Operations of exactly one bucket, ascending by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketData {
    /// Bucket name.
    pub bucket: String,
    /// The position this line continues from.
    #[serde(default)]
    pub after: OpId,
    /// More data may follow for this bucket.
    #[serde(default)]
    pub has_more: bool,
    /// Id of the last operation here.
    #[serde(default)]
    pub next_after: OpId,
    /// The operations.
    pub data: Vec<Operation>,
}

/// See [`SyncLine::CheckpointComplete`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointComplete {
    /// Of the latest checkpoint line.
    pub last_op_id: OpId,
}

/// See [`SyncLine::PartialCheckpointComplete`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialCheckpointComplete {
    /// Of the latest checkpoint line.
    pub last_op_id: OpId,
    /// Buckets with this priority number or a lower one are complete.
    pub priority: u8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::OpKind;

    fn round_trip(line: &SyncLine, text: &str) {
        assert_eq!(serde_json::to_string(line).expect("serialises"), text);
        assert_eq!(&serde_json::from_str::<SyncLine>(text).expect("parses"), line);
    }

    fn op_id(id: u64) -> OpId {
        OpId::new(id).expect("in range")
    }

    #[test]
    fn lines_have_one_key() {
        round_trip(
            &SyncLine::CheckpointComplete(CheckpointComplete { last_op_id: op_id(1312) }),
            r#"{"checkpoint_complete":{"last_op_id":"1312"}}"#,
        );
        round_trip(&SyncLine::TokenExpiresIn(3412), r#"{"token_expires_in":3412}"#);
        assert!(serde_json::from_str::<SyncLine>(r#"{"token_expires_in":1,"extra":1}"#).is_err());
    }

    #[test]
    fn a_checkpoint_names_its_reasons() {
        round_trip(
            &SyncLine::Checkpoint(Checkpoint {
                last_op_id: op_id(1300),
                write_checkpoint: Some(WriteCheckpointId::new(17).expect("in range")),
                buckets: vec![BucketChecksum {
                    bucket: "3#todos|0[\"u1\"]".into(),
                    checksum: Checksum::from_bits(2_582_164_875),
                    count: 812,
                    priority: 3,
                    subscriptions: vec![SubscriptionReason::Default(0), SubscriptionReason::Sub(1)],
                }],
                streams: vec![],
            }),
            r#"{"checkpoint":{"last_op_id":"1300","write_checkpoint":"17","buckets":[{"bucket":"3#todos|0[\"u1\"]","checksum":2582164875,"count":812,"priority":3,"subscriptions":[{"default":0},{"sub":1}]}],"streams":[]}}"#,
        );
    }

    #[test]
    fn a_remove_has_null_data() {
        let operation = Operation {
            op_id: op_id(2),
            op: OpKind::Remove,
            object_type: Some("lists".into()),
            object_id: Some("l1".into()),
            checksum: Checksum::from_bits(1_221_873_537),
            subkey: Some("subkey-l1".into()),
            data: None,
        };
        assert_eq!(
            serde_json::to_string(&operation).expect("serialises"),
            r#"{"op_id":"2","op":"REMOVE","object_type":"lists","object_id":"l1","checksum":1221873537,"subkey":"subkey-l1","data":null}"#
        );
    }
}
