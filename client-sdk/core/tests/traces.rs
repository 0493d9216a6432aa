//! Syncs that took place, told again: the same events have the same instructions.
//!
//! The recordings are of the crate `kairos-client`, made by the whole-path test `web_client::traces`. Other platforms run
//! them as well.

use std::{fs, path::Path};

use kairos_client_core::{Event, SyncMachine};
use kairos_sync_protocol::request::SyncRequest;
use serde_json::{Value, json};

/// A JSON array, one step per line.
fn steps(file: &Path) -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(file).expect("readable")).expect("a trace is JSON")
}

#[test]
fn recorded_syncs_have_the_same_instructions_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    let mut told = 0;
    for entry in fs::read_dir(folder).expect("there are recordings") {
        let file = entry.expect("readable").path();
        let mut machine = SyncMachine::new(SyncRequest::default());
        for (number, step) in steps(&file).into_iter().enumerate() {
            if let Some(template) = step.get("template") {
                machine = SyncMachine::new(serde_json::from_value(template.clone()).expect("a request"));
                continue;
            }
            let event: Event = serde_json::from_value(step["event"].clone()).expect("an event");
            let instructions = machine.step(event);
            assert_eq!(json!(instructions), step["instructions"], "step {number} of {}", file.display());
            told += 1;
        }
    }
    assert!(told > 50, "only {told} steps were told again");
}
