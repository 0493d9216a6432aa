//! Rules that come while the service runs: from their file when it changes, or at SIGHUP, or over HTTP.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

use super::chain;
use crate::{
    config::{RulesOrigin, RulesText},
    deployment::{Deployments, Refusal, Rules, UnusableRules},
    replication::custom_write_checkpoints,
    rules_check::read_rules,
};

/// How often the file is looked at. Reading it is cheaper than to be sure of notifications on every file system, and a
/// mounted file may be replaced without one.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A file that is written in pieces is read when it was the same twice.
const LOOKS_ALIKE: usize = 2;

/// Compiles rules. What comes to nothing is told in the log.
pub(super) fn compile(file: &str, text: &str) -> Result<Rules, UnusableRules> {
    let rules = Rules::compile(file, text)?;
    for event in custom_write_checkpoints::unused_events(&rules.plan) {
        tracing::warn!(
            "the rules define the event `{event}`, of which nothing comes: only events for write checkpoints are known"
        );
    }
    Ok(rules)
}

/// Wants other rules whenever their file changes, until `stopped`.
pub(super) async fn watch(rules: RulesText, deployments: Arc<Deployments>, mut stopped: watch::Receiver<bool>) {
    let mut hangup = signal(SignalKind::hangup()).expect("signals can be listened to at start");
    let mut file = WatchedFile { name: rules.file, deployed: rules.text, seen: None };
    loop {
        let is_forced = tokio::select! {
            () = sleep(LOOK_INTERVAL) => false,
            _ = hangup.recv() => true,
            _ = stopped.wait_for(|stops| *stops) => return,
        };
        match &rules.origin {
            RulesOrigin::File(path) => file.look(path, &deployments, is_forced),
            RulesOrigin::Config if is_forced => {
                tracing::warn!(
                    "the rules are part of the configuration, which is read at start only: restart the service"
                );
            }
            RulesOrigin::Config | RulesOrigin::Api => {}
        }
    }
}

struct WatchedFile {
    name: String,
    /// What was last taken from it.
    deployed: String,
    /// What it was at the last looks, if that is something else, and how often.
    seen: Option<(String, usize)>,
}

impl WatchedFile {
    fn look(&mut self, path: &Path, deployments: &Deployments, is_forced: bool) {
        // A small file, whose size is bounded.
        let text = match read_rules(path) {
            Ok(text) => text,
            // It may be being replaced.
            Err(error) if is_forced => {
                tracing::error!(code = error.code(), "rules: the old ones stay: {}", chain(&error));
                return;
            }
            Err(_) => return,
        };
        if !is_forced && !self.has_settled(&text) {
            return;
        }
        self.seen = None;
        self.deployed.clone_from(&text);
        deploy(&self.name, &text, deployments);
    }

    /// Whether the file is another one, and has been for a while.
    fn has_settled(&mut self, text: &str) -> bool {
        if text == self.deployed {
            self.seen = None;
            return false;
        }
        let count = match self.seen.take() {
            Some((seen, count)) if seen == text => count + 1,
            _ => 1,
        };
        self.seen = Some((text.to_owned(), count));
        count >= LOOKS_ALIKE
    }
}

/// Wants these rules. If they are wrong the old ones stay, and it is told.
fn deploy(file: &str, text: &str, deployments: &Deployments) {
    match compile(file, text) {
        Ok(rules) => deployments.want(rules),
        Err(error) => {
            tracing::error!(code = error.code(), "rules: clients are served by the old ones as before: {error}");
            deployments.refuse(Refusal { code: error.code(), message: error.to_string() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "bucket_definitions: {}";
    const NEW: &str = "bucket_definitions: {a: {data: [SELECT id FROM items]}}";

    #[test]
    fn a_file_counts_once_it_no_longer_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yaml");
        let deployments = Deployments::new(Rules::compile("rules.yaml", OLD).unwrap());
        let mut file = WatchedFile { name: "rules.yaml".to_owned(), deployed: OLD.to_owned(), seen: None };
        let wanted = || deployments.wanted().map(|rules| rules.text.clone());
        let mut look = |text: &str, is_forced| {
            std::fs::write(&path, text).unwrap();
            file.look(&path, &deployments, is_forced);
            wanted()
        };
        assert_eq!(look(OLD, false).as_deref(), Some(OLD));
        assert_eq!(look(&NEW[..20], false).as_deref(), Some(OLD));
        assert_eq!(look(NEW, false).as_deref(), Some(OLD));
        assert_eq!(look(NEW, false).as_deref(), Some(NEW));
        assert_eq!(look(OLD, true).as_deref(), Some(OLD), "a signal is in no doubt");
        assert_eq!(look("bucket_definitions: 7", true), None);
        let refusal = deployments.snapshot().refusal.expect("it is told");
        assert_eq!(refusal.code, "CONF-0201");
        assert!(refusal.message.contains("rules.yaml:1:"), "{}", refusal.message);
        assert_eq!(look(NEW, true).as_deref(), Some(NEW), "and mended");
    }

    #[test]
    fn a_file_that_is_gone_changes_nothing() {
        let deployments = Deployments::new(Rules::compile("rules.yaml", OLD).unwrap());
        let mut file = WatchedFile { name: "rules.yaml".to_owned(), deployed: OLD.to_owned(), seen: None };
        for is_forced in [false, true] {
            file.look(Path::new("/nowhere/rules.yaml"), &deployments, is_forced);
        }
        assert!(deployments.wanted().is_some());
    }
}
