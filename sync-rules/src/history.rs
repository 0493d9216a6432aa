//! What of a plan goes on when the rules change.
//!
//! Buckets and indexes are compared by content. One that is as before keeps its history: clients download nothing for
//! it. Any other begins a new one, under a name of its own, and is built beside those that are still served.

use std::collections::{BTreeMap, BTreeSet};

use kairos_sync_protocol::BucketName;
use serde::{Deserialize, Serialize};

use crate::{
    definition::{Bucket, Definition, Filter, IndexId, IndexQuery, RowInput, RowQuery, RowSource, Step},
    evaluate::LookupKey,
    key,
    plan::{PLAN_FORMAT, SyncPlan, TablePattern, hash},
};

/// The history of a bucket or an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// A hash of all that decides about what is in it.
    content: String,
    /// The deployment it began with.
    began: u64,
}

/// Histories of all buckets and indexes of a plan, by name. Plain data, to be stored beside the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histories {
    buckets: BTreeMap<String, History>,
    indexes: BTreeMap<String, History>,
}

/// Names of buckets and keys of lookups that share a beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamePrefixes {
    /// Of bucket names, without the prefix that all have.
    pub buckets: Vec<String>,
    /// Of keys of lookups.
    pub lookups: Vec<String>,
}

impl NamePrefixes {
    /// Whether nothing has such a name.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty() && self.lookups.is_empty()
    }

    /// Whether a bucket, named with this prefix in front, is among them.
    pub fn has_bucket(&self, bucket_prefix: &str, name: &BucketName) -> bool {
        let own = name.as_str().strip_prefix(bucket_prefix);
        own.is_some_and(|own| self.buckets.iter().any(|prefix| own.starts_with(prefix.as_str())))
    }

    /// Whether a lookup is among them.
    pub fn has_lookup(&self, key: &LookupKey) -> bool {
        self.lookups.iter().any(|prefix| key.0.starts_with(prefix.as_str()))
    }

    /// Adds others.
    pub fn extend(&mut self, others: Self) {
        self.buckets.extend(others.buckets);
        self.lookups.extend(others.lookups);
    }
}

impl Histories {
    /// Histories of a plan's parts when it is deployed as number `deployment`, after one with the histories `before`.
    pub fn of(plan: &SyncPlan, before: &Self, deployment: u64) -> Self {
        let go_on = |known: &BTreeMap<String, History>, contents: BTreeMap<String, String>| {
            let history = |(name, content): (String, String)| {
                let same = known.get(&name).filter(|history| history.content == content);
                (name, same.cloned().unwrap_or(History { content, began: deployment }))
            };
            contents.into_iter().map(history).collect()
        };
        Self {
            buckets: go_on(&before.buckets, plan.bucket_contents()),
            indexes: go_on(&before.indexes, plan.index_contents()),
        }
    }

    /// Those of `plan`, whose histories these are, into which no row of these tables goes, nor asks its way by a join.
    #[must_use]
    pub fn without_readers(&self, plan: &SyncPlan, is_read: impl Fn(&TablePattern) -> bool) -> Self {
        let readers = plan.index_readers(&is_read);
        let reads = |source: &RowSource| is_read(&source.table) || source.joins_any(&readers);
        let is_kept = |bucket: &Bucket| !bucket.rows.iter().any(|row| reads(&plan.rows[*row].source));
        let kept: BTreeSet<&str> =
            plan.buckets().filter(|bucket| is_kept(bucket)).map(|bucket| bucket.name.as_str()).collect();
        let own = |(name, history): (&String, &History)| (name.clone(), history.clone());
        Self {
            buckets: self.buckets.iter().filter(|(name, _)| kept.contains(name.as_str())).map(own).collect(),
            indexes: self.indexes.iter().filter(|(id, _)| !readers.contains(id.as_str())).map(own).collect(),
        }
    }

    /// What is here and not, or not with this history, in `other`.
    pub fn without(&self, other: &Self) -> NamePrefixes {
        let buckets = difference(&self.buckets, &other.buckets).map(|name| format!("{name}[")).collect();
        let lookups = difference(&self.indexes, &other.indexes).map(|id| key::lookup_prefix(&IndexId(id))).collect();
        NamePrefixes { buckets, lookups }
    }

    /// Names of all buckets, as the rules have them: definitions, or parts of streams.
    pub fn bucket_names(&self) -> impl Iterator<Item = &str> {
        self.buckets.keys().map(String::as_str)
    }

    /// Names of the buckets that [`Self::without`] gives, as the rules have them: definitions, or parts of a stream.
    pub fn bucket_names_without(&self, other: &Self) -> Vec<String> {
        let is_other = |(name, history): &(&String, &History)| other.buckets.get(*name) != Some(*history);
        self.buckets.iter().filter(is_other).map(|(name, _)| name.clone()).collect()
    }
}

/// Names under which histories go that the other does not have.
fn difference<'h>(
    histories: &'h BTreeMap<String, History>,
    other: &'h BTreeMap<String, History>,
) -> impl Iterator<Item = String> + 'h {
    let is_other = |(name, history): &(&String, &History)| other.get(*name) != Some(*history);
    histories.iter().filter(is_other).map(|(name, history)| history.name_of(name))
}

impl History {
    /// The name a bucket or an index goes under: its own for what the first deployment began, as long as no other can
    /// have that name, else with the deployment's number in front.
    fn name_of(&self, name: &str) -> String {
        let is_numbered =
            name.split_once('#').is_some_and(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
        if self.began == 0 && !is_numbered { name.to_owned() } else { format!("{}#{name}", self.began) }
    }
}

impl SyncPlan {
    /// The plan with its buckets and indexes under the names of their histories. Those of other plans are left alone.
    #[must_use]
    pub fn with_histories(mut self, histories: &Histories) -> Self {
        let bucket = |name: &mut String| {
            if let Some(history) = histories.buckets.get(name) {
                *name = history.name_of(name);
            }
        };
        let index = |id: &mut IndexId| {
            if let Some(history) = histories.indexes.get(&id.0) {
                id.0 = history.name_of(&id.0);
            }
        };
        for definition in &mut self.definitions {
            definition.buckets.iter_mut().for_each(|each| bucket(&mut each.name));
            for query in &mut definition.queries {
                bucket(&mut query.bucket);
                for step in &mut query.steps {
                    if let Step::Lookup { index: id, .. } = step {
                        index(id);
                    }
                }
            }
        }
        let sources = self.rows.iter_mut().map(|query| &mut query.source);
        for source in sources.chain(self.indexes.iter_mut().map(|query| &mut query.source)) {
            source.filter.visit_joins_mut(&mut |id| index(id));
        }
        self.indexes.iter_mut().for_each(|query| index(&mut query.id));
        self
    }

    /// What of this plan is not in `other`, for the evaluation of rows: buckets and indexes by name, and events,
    /// without what is asked for requests.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let known: BTreeSet<&str> = other.buckets().map(|bucket| bucket.name.as_str()).collect();
        let mut rows: Vec<RowQuery> = Vec::new();
        let mut kept = |bucket: &Bucket| {
            let is_new = !known.contains(bucket.name.as_str());
            is_new.then(|| {
                let first = rows.len();
                rows.extend(bucket.rows.iter().filter_map(|row| self.rows.get(*row)).cloned());
                Bucket { name: bucket.name.clone(), rows: (first..rows.len()).collect() }
            })
        };
        let definitions = self
            .definitions
            .iter()
            .map(|definition| Definition {
                name: definition.name.clone(),
                kind: definition.kind,
                buckets: definition.buckets.iter().filter_map(&mut kept).collect(),
                queries: Vec::new(),
            })
            .collect();
        let is_new = |index: &&IndexQuery| other.indexes.iter().all(|known| known.id != index.id);
        Self {
            definitions,
            rows,
            indexes: self.indexes.iter().filter(is_new).cloned().collect(),
            events: self.events.iter().filter(|event| !other.events.contains(event)).cloned().collect(),
            policies: BTreeMap::new(),
            ..self.clone()
        }
    }

    /// Whether rows of no table go into any bucket or index, or trigger an event.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.indexes.is_empty() && self.events.is_empty()
    }

    /// Indexes that have rows of these tables, or ask others that do.
    fn index_readers(&self, is_read: impl Fn(&TablePattern) -> bool) -> BTreeSet<&str> {
        let mut readers = BTreeSet::new();
        loop {
            let reads = |index: &&IndexQuery| is_read(&index.source.table) || index.source.joins_any(&readers);
            let found: BTreeSet<_> = self.indexes.iter().filter(reads).map(|index| index.id.0.as_str()).collect();
            if found.len() == readers.len() {
                return found;
            }
            readers = found;
        }
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.definitions.iter().flat_map(|definition| &definition.buckets)
    }

    /// A hash per bucket name of all that decides about its rows.
    fn bucket_contents(&self) -> BTreeMap<String, String> {
        let content = |bucket: &Bucket| {
            let rows: Vec<_> = bucket.rows.iter().map(|row| &self.rows[*row]).collect();
            (bucket.name.clone(), hash(&(PLAN_FORMAT, &self.compatibility, &bucket.name, rows)))
        };
        self.buckets().map(content).collect()
    }

    /// A hash per index of all that decides about its entries. Its id says the same, but for how values are printed.
    fn index_contents(&self) -> BTreeMap<String, String> {
        let content = |id: &IndexId| (id.0.clone(), hash(&(PLAN_FORMAT, &self.compatibility, &id.0)));
        self.indexes.iter().map(|index| content(&index.id)).collect()
    }
}

impl RowSource {
    /// Whether it asks one of these indexes.
    fn joins_any(&self, indexes: &BTreeSet<&str>) -> bool {
        let mut is_found = false;
        self.filter.visit_joins(&mut |id| is_found |= indexes.contains(id.0.as_str()));
        is_found
    }
}

impl Filter<RowInput> {
    fn visit_joins_mut(&mut self, visit: &mut dyn FnMut(&mut IndexId)) {
        match self {
            Self::Joined { index, .. } => visit(index),
            Self::All(parts) | Self::Any(parts) => parts.iter_mut().for_each(|part| part.visit_joins_mut(visit)),
            Self::Condition(_)
            | Self::Equals { .. }
            | Self::EqualsOrNull { .. }
            | Self::Contains { .. }
            | Self::IsTrue { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests;
