//! `rules explain`: what a rules file does, for a person, or as the plan that is stored.

use std::path::Path;

use kairos_sync_rules::{Severity, SyncPlan, compile};
use serde_json::json;

use crate::rules_check::{CheckError, DEFAULT_SCHEMA, read_rules};

/// The text to print; `Err` holds the findings of a file that cannot be deployed.
///
/// # Errors
/// When the file cannot be read.
pub fn explain(file: &Path, as_json: bool) -> Result<Result<String, String>, CheckError> {
    let text = read_rules(file)?;
    let compiled = compile(&text, DEFAULT_SCHEMA);
    let Some(plan) = compiled.plan else {
        let fatal = compiled.diagnostics.iter().filter(|finding| finding.severity == Severity::Fatal);
        let name = file.display().to_string();
        return Ok(Err(fatal.map(|finding| finding.render(&name, &text) + "\n").collect()));
    };
    Ok(Ok(if as_json { plan_json(&plan) } else { plan.explain() }))
}

/// The plan and the hash of each definition.
fn plan_json(plan: &SyncPlan) -> String {
    let stored: serde_json::Value = serde_json::from_str(&plan.to_json()).unwrap_or_default();
    format!("{}\n", json!({"fingerprint": plan.fingerprint(), "definitions": plan.definition_hashes(), "plan": stored}))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn explained(rules: &str, as_json: bool) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules.yaml");
        fs::write(&file, rules).unwrap();
        explain(&file, as_json).unwrap()
    }

    #[test]
    fn a_plan_is_explained_in_words_and_as_json() {
        let rules = "bucket_definitions: { mine: { data: [SELECT * FROM items] } }";
        assert!(explained(rules, false).unwrap().starts_with("bucket definition mine, for all clients\n"));
        let json: serde_json::Value = serde_json::from_str(&explained(rules, true).unwrap()).unwrap();
        assert_eq!(json["definitions"]["mine"].as_str().map(str::len), Some(64));
        assert!(json["plan"]["format"].is_u64());
    }

    #[test]
    fn what_cannot_be_deployed_is_not_explained() {
        assert!(explained("bucket_definitions: 1", false).unwrap_err().contains("schema_violation"));
        assert!(explain(Path::new("/does/not/exist"), false).is_err());
    }
}
