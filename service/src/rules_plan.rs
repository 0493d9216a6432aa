//! `rules plan`: what a deployment of a rules file would build, and what clients would download.

use std::path::{Path, PathBuf};

use crate::{
    deployment::{Preview, Rules, RulesState, UnusableRules},
    rules_check::{CheckError, read_rules},
};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] CheckError),
    /// The rules of a file cannot be deployed.
    #[error(transparent)]
    Rules(#[from] UnusableRules),
}

impl PlanError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File(error) => error.code(),
            Self::Rules(error) => error.code(),
        }
    }
}

/// What `rules plan` compares.
#[derive(Debug)]
pub struct PlanOptions {
    /// The rules to be deployed.
    pub file: PathBuf,
    /// The rules that are in force.
    pub against: PathBuf,
    /// Print it as JSON.
    pub json: bool,
}

/// The text to print.
///
/// # Errors
/// When a file cannot be read, or its rules cannot be deployed.
pub fn plan(options: &PlanOptions) -> Result<String, PlanError> {
    let serving = RulesState::first(&read(&options.against)?);
    Ok(print(&Preview::of(serving.serving(), &read(&options.file)?), options.json))
}

fn read(file: &Path) -> Result<Rules, PlanError> {
    Ok(Rules::compile(&file.display().to_string(), &read_rules(file)?)?)
}

fn print(preview: &Preview, as_json: bool) -> String {
    if as_json { format!("{}\n", serde_json::json!(preview)) } else { preview.text() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn two_files_are_compared() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let against = file("old.yaml", "bucket_definitions: {a: {data: [SELECT id FROM items]}}");
        let new = file("new.yaml", "bucket_definitions: {a: {data: [SELECT * FROM items]}}");
        let options = |file: &PathBuf, json| PlanOptions { file: file.clone(), against: against.clone(), json };
        assert!(plan(&options(&new, false)).unwrap().contains("clients download them: a\n"));
        let json: serde_json::Value = serde_json::from_str(&plan(&options(&new, true)).unwrap()).unwrap();
        assert_eq!(json["evaluated"][0], "public.items");
        let wrong = file("wrong.yaml", "bucket_definitions: 1");
        assert_eq!(plan(&options(&wrong, false)).unwrap_err().code(), "CONF-0201");
        assert_eq!(plan(&options(&folder.path().join("none"), false)).unwrap_err().code(), "CONF-0203");
    }
}
