//! How a batch is divided into Postgres transactions. Pure.

use kairos_sync_protocol::upload::CrudEntry;

use super::batch::Upload;

/// What of a batch is committed at once. Outcomes are those of single operations either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionPolicy {
    /// All of it.
    #[default]
    Batch,
    /// Consecutive operations of one transaction on the device (`tx_id`), or of none. Each is committed before the next
    /// begins, so locks are held for a short time, and an error later in the batch leaves it in place.
    TxId,
}

impl TransactionPolicy {
    /// The parts of a batch, in order. One where a repeat would not be recognised: if a part failed, the client could not
    /// send the parts before it again without writing them twice.
    pub(super) fn divide<'a>(self, upload: &Upload<'a>) -> Vec<&'a [CrudEntry]> {
        let has_keys = upload.client_id.is_some() && upload.entries.iter().all(|entry| entry.op_id.is_some());
        match self {
            Self::TxId if has_keys => upload.entries.chunk_by(|left, right| left.tx_id == right.tx_id).collect(),
            Self::Batch | Self::TxId => vec![upload.entries],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use kairos_sync_rules::WriteOrigin;
    use serde_json::{Map, json};

    use super::*;

    fn lengths(policy: TransactionPolicy, client_id: Option<&str>, tx_ids: &[Option<u32>]) -> Vec<usize> {
        let entry = |(op_id, tx_id): (usize, &Option<u32>)| {
            let json = json!({ "op": "PUT", "table": "t", "id": "1", "op_id": op_id, "tx_id": tx_id });
            serde_json::from_value(json).expect("an entry")
        };
        let entries: Vec<CrudEntry> = tx_ids.iter().enumerate().map(entry).collect();
        let received_at = Instant::now();
        let origin = WriteOrigin::new(Map::new(), client_id, String::new());
        let upload = Upload { user_id: "u", origin, client_id, entries: &entries, row_bytes_max: 0, received_at };
        policy.divide(&upload).into_iter().map(<[_]>::len).collect()
    }

    #[test]
    fn consecutive_operations_of_a_transaction_stay_together() {
        let tx_ids = [Some(1), Some(1), Some(2), None, None, Some(1)];
        assert_eq!(lengths(TransactionPolicy::TxId, Some("c"), &tx_ids), [2, 1, 2, 1]);
        assert_eq!(lengths(TransactionPolicy::Batch, Some("c"), &tx_ids), [6]);
    }

    #[test]
    fn what_could_be_written_twice_is_written_at_once() {
        assert_eq!(lengths(TransactionPolicy::TxId, None, &[Some(1), Some(2)]), [2]);
    }
}
