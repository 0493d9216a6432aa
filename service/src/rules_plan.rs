//! `rules plan`: what a deployment of a rules file would build, and what clients would download; and `rules deploy` and
//! `rules rebuild`, which ask a running service for it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    admin_client::{AdminArguments, AdminClient, AdminClientError},
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
    /// A running service does not answer, or refuses.
    #[error(transparent)]
    Service(#[from] AdminClientError),
}

impl PlanError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File(error) => error.code(),
            Self::Rules(error) => error.code(),
            Self::Service(error) => error.code(),
        }
    }

    /// Whether there is an answer, and it is no.
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Rules(_) => true,
            Self::Service(error) => error.is_refusal(),
        }
    }
}

/// What `rules plan` compares.
#[derive(Debug, clap::Args)]
pub struct PlanArguments {
    /// The rules to be deployed.
    file: PathBuf,
    /// The rules that are in force; otherwise a running service is asked.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    service: AdminArguments,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// The text to print.
///
/// # Errors
/// When a file cannot be read, its rules cannot be deployed, or a service does not say what it serves.
pub async fn plan(arguments: &PlanArguments) -> Result<String, PlanError> {
    let PlanArguments { file, against, service, json } = arguments;
    let wanted = read(file)?;
    let preview = match against {
        Some(against) => Preview::of(RulesState::first(&read(against)?).serving(), &wanted),
        None => AdminClient::new(service)?.post("/api/admin/v1/rules/plan", &json!({"content": wanted.text})).await?,
    };
    Ok(print(&preview, *json))
}

/// What `rules deploy` deploys, and where.
#[derive(Debug, clap::Args)]
pub struct DeployArguments {
    /// The rules to be deployed.
    file: PathBuf,
    #[command(flatten)]
    service: AdminArguments,
}

/// Deploys rules over HTTP. They are in force once what is new is built, see `kairos-sync status`.
///
/// # Errors
/// When the file cannot be read, its rules cannot be deployed, or the service refuses.
pub async fn deploy(DeployArguments { file, service }: &DeployArguments) -> Result<String, PlanError> {
    let rules = read(file)?;
    let _: Value =
        AdminClient::new(service)?.post("/api/sync-rules/v1/deploy", &json!({"content": rules.text})).await?;
    Ok("deployed; `kairos-sync status --watch` says when clients are served by them\n".to_owned())
}

/// Has a service build everything anew by the rules that are in force.
///
/// # Errors
/// When the service refuses.
pub async fn rebuild(service: &AdminArguments) -> Result<String, PlanError> {
    let _: Value = AdminClient::new(service)?.post("/api/sync-rules/v1/reprocess", &json!({})).await?;
    Ok("everything is built anew; `kairos-sync status --watch` says how far\n".to_owned())
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

    #[tokio::test]
    async fn two_files_are_compared() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let against = file("old.yaml", "bucket_definitions: {a: {data: [SELECT id FROM items]}}");
        let new = file("new.yaml", "bucket_definitions: {a: {data: [SELECT * FROM items]}}");
        let plan = async |file: &Path, json| {
            let service = AdminArguments::default();
            plan(&PlanArguments { file: file.to_owned(), against: Some(against.clone()), service, json }).await
        };
        assert!(plan(&new, false).await.unwrap().contains("clients download them: a\n"));
        let json: Value = serde_json::from_str(&plan(&new, true).await.unwrap()).unwrap();
        assert_eq!(json["evaluated"][0], "public.items");
        let wrong = plan(&file("wrong.yaml", "bucket_definitions: 1"), false).await.unwrap_err();
        assert_eq!((wrong.code(), wrong.is_refusal()), ("CONF-0201", true));
        let none = plan(&folder.path().join("none"), false).await.unwrap_err();
        assert_eq!((none.code(), none.is_refusal()), ("CONF-0203", false));
    }
}
