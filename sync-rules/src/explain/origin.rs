//! Why a request has a bucket: the query that brings it, and for each parameter where its value comes from.

use std::collections::{BTreeMap, BTreeSet};

use kairos_sync_protocol::BucketName;

use super::words::parameter_text;
use crate::{
    definition::BucketQuery,
    evaluate::{LookupKey, LookupSource, LookupValue},
    key,
    plan::SyncPlan,
    relation::{Answer, Prepared},
    request::{Activation, RequestContext, activations},
};

/// A query that brings a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The bucket definition or stream.
    pub definition: String,
    /// Which subscription of the request; `None`: by default.
    pub subscription: Option<usize>,
    /// 0 syncs first, 3 last.
    pub priority: u8,
    /// For each bucket parameter its value, as the bucket's name has it, and where it comes from in words.
    pub parameters: Vec<(String, String)>,
    /// The subqueries that were asked on the way; one way of several there may be.
    pub lookups: Vec<UsedLookup>,
}

/// A subquery that was asked, and the answer that leads to the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedLookup {
    /// Its step in the query, from 1.
    pub step: usize,
    /// The table whose rows answer.
    pub table: String,
    /// To find these rows in the index of lookups.
    pub key: LookupKey,
    /// What they say.
    pub value: LookupValue,
}

impl SyncPlan {
    /// Why a request has these buckets, as of the state `lookups` shows. Those it does not have are left out.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn origins<L: LookupSource>(
        &self,
        request: &RequestContext,
        bucket_prefix: &str,
        lookups: &mut L,
        wanted: &BTreeSet<BucketName>,
    ) -> Result<BTreeMap<BucketName, Vec<Origin>>, L::Error> {
        let mut origins: BTreeMap<BucketName, Vec<Origin>> = BTreeMap::new();
        for definition in &self.definitions {
            for activation in &activations(definition, request) {
                for query in &definition.queries {
                    let found = self.origins_in(query, activation, request, bucket_prefix, lookups, wanted)?;
                    for (name, origin) in found {
                        origins.entry(name).or_default().push(Origin { definition: definition.name.clone(), ..origin });
                    }
                }
            }
        }
        Ok(origins)
    }

    /// The buckets of one query; whose it is, is left open.
    fn origins_in<L: LookupSource>(
        &self,
        query: &BucketQuery,
        activation: &Activation<'_>,
        request: &RequestContext,
        bucket_prefix: &str,
        lookups: &mut L,
        wanted: &BTreeSet<BucketName>,
    ) -> Result<Vec<(BucketName, Origin)>, L::Error> {
        let Ok(Some(prepared)) = Prepared::new(query, request, activation.subscription) else { return Ok(Vec::new()) };
        let Ok(found) = prepared.resolve(lookups, &mut Vec::new())? else { return Ok(Vec::new()) };
        let prefix = format!("{bucket_prefix}{}", query.bucket);
        let name = |parts: &[String]| BucketName::new(key::bucket_name(&prefix, parts.iter().map(String::as_str)));
        let found: BTreeSet<_> = found.into_iter().filter(|parts| wanted.contains(&name(parts))).collect();
        let origin = |parts: &[String], answers: Vec<Answer>| Origin {
            definition: String::new(),
            subscription: activation.reason.subscription(),
            priority: activation.priority.unwrap_or(query.priority),
            parameters: parts.iter().cloned().zip(query.parameters.iter().map(parameter_text)).collect(),
            lookups: answers.into_iter().map(|answer| self.used(answer)).collect(),
        };
        let ways = prepared.ways(&found, lookups)?;
        Ok(ways.into_iter().map(|(parts, answers)| (name(&parts), origin(&parts, answers))).collect())
    }

    fn used(&self, Answer { step, index, key, value }: Answer) -> UsedLookup {
        UsedLookup { step: step + 1, table: self.table_of(&index), key, value }
    }
}
