//! Whether rules would do, and which are in force.

use std::sync::Arc;

use kairos_sync_rules::{Severity, SyncPlan};

use super::{
    Admin,
    shape::{CONNECTION, CurrentRules, DeployedRules, NamedDefinition, ReplicationReport, RulesReport, Validation},
    source_errors::{Sorted, sorted},
    within_deadline,
};
use crate::{
    deployment::{Deployment, DeploymentsSnapshot},
    postgres::PgError,
    rules_check::{SourceReport, look_at_source},
};

/// In the place of a slot's name, for rules that have none.
const NO_SLOT: &str = "none";

impl Admin {
    /// How the source is for these rules.
    pub(super) async fn look_at_source(&self, text: &str) -> Result<SourceReport, PgError> {
        let asked = async {
            let client = self.source.connect().await?;
            look_at_source(&client, &self.source, Some(text)).await
        };
        within_deadline(asked).await
    }

    /// What these rules would find in the source. They are not deployed.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn check_rules(&self, text: &str) -> Result<RulesReport, PgError> {
        let report = self.look_at_source(text).await?;
        let Sorted { tables, others } = sorted(&report, text);
        let slot_name = NO_SLOT.to_owned();
        let connection =
            ReplicationReport { id: CONNECTION, tag: CONNECTION, slot_name, tables, ..ReplicationReport::default() };
        Ok(RulesReport { content: None, connections: vec![connection], errors: others })
    }

    /// The rules that are in force, and those that are being built; `None` before replication began.
    pub fn current_rules(&self) -> Option<CurrentRules> {
        let slot_name = self.status.snapshot().slot.unwrap_or_default();
        let DeploymentsSnapshot { serving, building, .. } = self.sync.deployments().snapshot();
        let deployed = |deployment: Arc<Deployment>| DeployedRules {
            slot_name: slot_name.clone(),
            content: deployment.rules.text.clone(),
            valid: true,
        };
        Some(CurrentRules { current: deployed(serving?), next: building.map(deployed) })
    }

    /// Whether these rules can be deployed.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn validate(&self, text: &str) -> Result<Validation, PgError> {
        let report = self.look_at_source(text).await?;
        let fatal = report.compiled.diagnostics.iter().filter(|finding| finding.severity == Severity::Fatal);
        let errors: Vec<_> = fatal.map(|finding| finding.render("rules", text)).collect();
        let Some(plan) = report.compiled.plan.as_ref().filter(|_| errors.is_empty()) else {
            return Ok(Validation {
                valid: false,
                errors,
                bucket_definitions: None,
                source_tables: None,
                data_tables: None,
            });
        };
        let names = report.compiled.places.definitions.iter().map(|place| NamedDefinition { name: place.name.clone() });
        Ok(Validation {
            valid: true,
            errors,
            bucket_definitions: Some(names.collect()),
            data_tables: Some(SyncPlan::output_tables(plan).into_iter().map(str::to_owned).collect()),
            source_tables: Some(sorted(&report, text).tables),
        })
    }
}
