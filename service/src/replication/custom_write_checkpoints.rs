//! Custom write checkpoints: an upload that is applied later is known by a row which the app's backend writes with it.
//!
//! The rules say which rows those are: payloads of the event `write_checkpoints` or `checkpoint_requests` give `user_id`,
//! `checkpoint` and, for one device alone, `client_id`. A write checkpoint is reached in the state that has its row.

use kairos_sync_protocol::WriteCheckpointId;
use kairos_sync_rules::{ErrorKind, EvaluatedEvent, EvaluationError, SyncPlan};
use serde_json::{Map, Value};

use crate::storage::WriteCheckpointKey;

/// The events that say write checkpoints.
const EVENTS: [&str; 2] = ["write_checkpoints", "checkpoint_requests"];

/// Whether write checkpoints come from rows under these rules, so that the service makes none by itself.
pub fn are_custom(plan: &SyncPlan) -> bool {
    plan.event_names().iter().any(|name| EVENTS.contains(name))
}

/// Events of the rules that nothing comes of.
pub fn unused_events(plan: &SyncPlan) -> Vec<&str> {
    plan.event_names().into_iter().filter(|name| !EVENTS.contains(name)).collect()
}

/// What a row's events say. What is no write checkpoint is an error of its event.
pub(super) fn of_events(
    events: &[EvaluatedEvent],
    errors: &mut Vec<EvaluationError>,
) -> Vec<(WriteCheckpointKey, WriteCheckpointId)> {
    let mut found = Vec::new();
    for EvaluatedEvent { event, data } in events {
        let Some(data) = data.as_ref().filter(|_| EVENTS.contains(&&**event)) else { continue };
        match parse(data) {
            Ok(write_checkpoint) => found.push(write_checkpoint),
            Err(message) => errors.push(EvaluationError {
                definition: event.to_string(),
                message: message.to_owned(),
                kind: ErrorKind::Data,
            }),
        }
    }
    found
}

fn parse(data: &str) -> Result<(WriteCheckpointKey, WriteCheckpointId), &'static str> {
    let row: Map<String, Value> = serde_json::from_str(data).map_err(|_| "the payload is not a JSON object")?;
    let text = |name| match row.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let user_id = text("user_id").ok_or("the payload has no `user_id`")?;
    let checkpoint = text("checkpoint").ok_or("the payload has no `checkpoint`")?;
    let id = checkpoint.parse().ok().and_then(|id| WriteCheckpointId::new(id).ok());
    let id = id.filter(|id| *id != WriteCheckpointId::ZERO).ok_or("`checkpoint` must be between 1 and 2^63 - 1")?;
    Ok((WriteCheckpointKey::of(&user_id, text("client_id").as_deref()), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: &str, data: &str) -> (Vec<(String, u64)>, usize) {
        let events = [EvaluatedEvent { event: event.into(), data: Some(data.into()) }];
        let mut errors = Vec::new();
        let found = of_events(&events, &mut errors);
        (found.into_iter().map(|(key, id)| (key.0, id.get())).collect(), errors.len())
    }

    #[test]
    fn a_payload_names_user_device_and_checkpoint() {
        let one = |key: &str, id| (vec![(key.to_owned(), id)], 0);
        assert_eq!(read("write_checkpoints", r#"{"user_id":"u","client_id":"c","checkpoint":7}"#), one("u/c", 7));
        assert_eq!(read("checkpoint_requests", r#"{"user_id":5,"client_id":null,"checkpoint":"8"}"#), one("5", 8));
        assert_eq!(read("another", r#"{"user_id":"u","checkpoint":7}"#), (vec![], 0));
    }

    #[test]
    fn what_is_no_write_checkpoint_is_an_error_without_values() {
        let payloads = ["{}", r#"{"user_id":"u"}"#, r#"{"checkpoint":1}"#, "1"];
        let ids = ["0", "-1", "1.5", "9223372036854775808", "\"x\"", "null", "[]"];
        let ids = ids.map(|id| format!(r#"{{"user_id":"secret","checkpoint":{id}}}"#));
        for payload in payloads.into_iter().chain(ids.iter().map(String::as_str)) {
            assert_eq!(read("write_checkpoints", payload), (vec![], 1), "{payload}");
        }
    }
}
