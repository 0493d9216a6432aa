//! What operators are told of damage.

use std::collections::BTreeMap;

use kairos_sync_protocol::BucketName;
use serde::{Deserialize, Serialize};

use super::definition_of;

/// What was found damaged and is not whole again, for operators: names of buckets hold values, those of definitions do
/// not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageReport {
    /// Whether the file itself is not built as it should be, so that nothing in it can be built again.
    pub is_beyond_repair: bool,
    /// Whether stored rows are damaged; their tables are copied again.
    #[serde(default)]
    pub has_damaged_rows: bool,
    /// Buckets by definition, each once. Where there are very many, not all of them.
    pub definitions: Vec<DamagedDefinition>,
}

/// Damaged buckets of one definition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedDefinition {
    /// What bucket names begin with, between the store's prefix and the parameters.
    pub definition: String,
    /// How many.
    pub bucket_count: u64,
    /// How many of them were emptied and are being built again.
    pub mending_count: u64,
}

impl DamageReport {
    /// Of buckets, each with whether it was emptied.
    pub(super) fn of<'a>(
        is_beyond_repair: bool,
        has_damaged_rows: bool,
        buckets: impl Iterator<Item = (&'a BucketName, bool)>,
        prefix: &str,
    ) -> Self {
        let mut definitions: BTreeMap<&str, DamagedDefinition> = BTreeMap::new();
        for (name, is_mending) in buckets {
            let definition = definition_of(name, prefix);
            let counts = definitions.entry(definition).or_default();
            definition.clone_into(&mut counts.definition);
            counts.bucket_count += 1;
            counts.mending_count += u64::from(is_mending);
        }
        Self { is_beyond_repair, has_damaged_rows, definitions: definitions.into_values().collect() }
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        !self.is_beyond_repair && !self.has_damaged_rows && self.definitions.is_empty()
    }
}
