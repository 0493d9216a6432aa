//! Requests through the plan: which buckets a client gets.
//!
//! [`Querier`] has a request evaluated as far as it can be without lookups. [`Querier::resolve`] asks the lookups and
//! joins what they say: see [`crate::relation`].

use std::collections::BTreeMap;

use kairos_sync_protocol::BucketName;
use serde_json::{Map, Value};

use crate::{
    definition::{BucketQuery, Definition, DefinitionKind, StreamEdition},
    evaluate::{ErrorKind, EvaluationError, LookupKey, LookupSource},
    key,
    plan::SyncPlan,
    relation::{Fault, Prepared},
    value::Failure,
};

/// What a client proved and asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestContext {
    /// Payload of the verified token.
    pub token: Map<String, Value>,
    /// Client parameters: not authenticated.
    pub parameters: Map<String, Value>,
    /// Also the streams everybody gets.
    pub include_defaults: bool,
    /// Explicit subscriptions.
    pub subscriptions: Vec<Subscription>,
}

/// One explicit stream subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Name of the stream.
    pub stream: String,
    /// Subscription parameters: not authenticated. `None` is the default subscription, listed explicitly.
    pub parameters: Option<Map<String, Value>>,
    /// Overrides the stream's priority.
    pub priority: Option<u8>,
}

/// Why a client has a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Everybody gets it.
    Default,
    /// An index into [`RequestContext::subscriptions`].
    Subscription(usize),
}

/// A bucket a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedBucket {
    /// The bucket, prefix included.
    pub name: BucketName,
    /// Index into [`Querier::definitions`].
    pub definition: usize,
    /// 0 syncs first, 3 last.
    pub priority: u8,
    /// Why; never empty, ascending.
    pub reasons: Vec<Reason>,
    /// The definitions that bring it by default, ascending: several where streams share a bucket. Indexes into
    /// [`Querier::definitions`].
    pub default_of: Vec<usize>,
}

/// All buckets a client gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Each bucket once, sorted by name.
    pub buckets: Vec<ResolvedBucket>,
    /// Lookups that were asked; when the values of one change, the request must be resolved again.
    pub consulted: Vec<LookupKey>,
    /// Subscriptions that failed; `None` is the default one.
    pub errors: Vec<(Option<usize>, EvaluationError)>,
}

/// A definition that is active for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveDefinition {
    /// Name of the bucket definition or stream.
    pub name: String,
    /// Everybody gets it.
    pub is_default: bool,
}

/// A request, evaluated as far as it can be without lookups. Made by [`crate::SyncPlan::querier`].
#[derive(Debug, Clone, Default)]
pub struct Querier {
    definitions: Vec<ActiveDefinition>,
    sources: Vec<BucketSource>,
    errors: Vec<(Option<usize>, EvaluationError)>,
}

/// Where buckets of a definition come from.
#[derive(Debug, Clone)]
struct BucketSource {
    definition: usize,
    priority: u8,
    reason: Reason,
    /// What the names begin with.
    prefix: String,
    query: Prepared,
}

/// One way in which a request has a definition.
pub(crate) struct Activation<'r> {
    pub(crate) reason: Reason,
    pub(crate) subscription: Option<&'r Map<String, Value>>,
    pub(crate) priority: Option<u8>,
}

impl Querier {
    pub(crate) fn new(plan: &SyncPlan, request: &RequestContext, bucket_prefix: &str) -> Result<Self, EvaluationError> {
        let mut querier = Self::default();
        for definition in &plan.definitions {
            let activations = activations(definition, request);
            if activations.is_empty() {
                continue;
            }
            let is_default = match definition.kind {
                DefinitionKind::Buckets => true,
                DefinitionKind::Stream { is_default, .. } => is_default,
            };
            querier.definitions.push(ActiveDefinition { name: definition.name.clone(), is_default });
            for activation in &activations {
                querier.activate(definition, activation, request, bucket_prefix)?;
            }
        }
        Ok(querier)
    }

    /// Adds the buckets of a definition for one subscription: all or, if something fails, none.
    fn activate(
        &mut self,
        definition: &Definition,
        activation: &Activation<'_>,
        request: &RequestContext,
        bucket_prefix: &str,
    ) -> Result<(), EvaluationError> {
        let before = self.sources.len();
        for query in &definition.queries {
            let BucketQuery { bucket, priority, .. } = query;
            match Prepared::new(query, request, activation.subscription) {
                Ok(None) => {}
                Ok(Some(prepared)) => self.sources.push(BucketSource {
                    definition: self.definitions.len() - 1,
                    priority: activation.priority.unwrap_or(*priority),
                    reason: activation.reason,
                    prefix: format!("{bucket_prefix}{bucket}"),
                    query: prepared,
                }),
                Err(fault) => {
                    self.sources.truncate(before);
                    let is_alone = matches!(definition.kind, DefinitionKind::Stream { .. });
                    let error = match fault {
                        // Another definition may well serve this client.
                        Fault::Claim(message) => EvaluationError {
                            definition: definition.name.clone(),
                            message,
                            kind: ErrorKind::Parameters,
                        },
                        Fault::Failure(failure) if is_alone => failed(&definition.name, failure),
                        Fault::Failure(failure) => return Err(failed(&definition.name, failure)),
                    };
                    self.errors.push((activation.reason.subscription(), error));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The definitions this request activates, in the order of the rules file.
    pub fn definitions(&self) -> &[ActiveDefinition] {
        &self.definitions
    }

    /// Whether the buckets depend on lookups.
    pub fn is_dynamic(&self) -> bool {
        self.sources.iter().any(|source| source.query.asks_lookups())
    }

    /// The buckets as of the state `lookups` shows.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn resolve<L: LookupSource>(&self, lookups: &mut L) -> Result<Resolution, L::Error> {
        let mut buckets = BTreeMap::new();
        let mut resolution = Resolution { errors: self.errors.clone(), ..Resolution::default() };
        for source in &self.sources {
            match source.query.resolve(lookups, &mut resolution.consulted)? {
                Ok(found) => {
                    for parts in found {
                        add(&mut buckets, source, parts.iter().map(String::as_str));
                    }
                }
                Err(failure) => {
                    let error = failed(&self.definitions[source.definition].name, failure);
                    resolution.errors.push((source.reason.subscription(), error));
                }
            }
        }
        resolution.consulted.sort_unstable();
        resolution.consulted.dedup();
        resolution.buckets = buckets.into_values().collect();
        Ok(resolution)
    }
}

impl Reason {
    /// The subscription, if it is one.
    pub const fn subscription(self) -> Option<usize> {
        match self {
            Self::Default => None,
            Self::Subscription(index) => Some(index),
        }
    }
}

fn failed(definition: &str, failure: Failure) -> EvaluationError {
    EvaluationError::new(definition, "parameters", ErrorKind::Parameters, failure)
}

/// The ways in which a request has a definition; none if it does not.
pub(crate) fn activations<'r>(definition: &Definition, request: &'r RequestContext) -> Vec<Activation<'r>> {
    let named = || request.subscriptions.iter().enumerate().filter(|(_, each)| each.stream == definition.name);
    let by_default = Activation { reason: Reason::Default, subscription: None, priority: None };
    let DefinitionKind::Stream { is_default, edition } = definition.kind else {
        // Bucket definitions have no subscriptions of their own, but can be named in one.
        let is_active = request.include_defaults || named().next().is_some();
        return if is_active { vec![by_default] } else { Vec::new() };
    };
    let mut activations: Vec<_> = named()
        .map(|(index, subscription)| Activation {
            reason: Reason::Subscription(index),
            subscription: subscription.parameters.as_ref(),
            priority: subscription.priority,
        })
        .collect();
    let is_listed = named().any(|(_, subscription)| subscription.parameters.is_none());
    let is_included = match edition {
        StreamEdition::Compiled => request.include_defaults,
        StreamEdition::Alpha => request.include_defaults || !activations.is_empty(),
    };
    if is_default && is_included && !is_listed {
        activations.push(by_default);
    }
    activations
}

/// Adds a bucket; of several sources for one, the most urgent counts.
fn add<'a>(
    buckets: &mut BTreeMap<BucketName, ResolvedBucket>,
    source: &BucketSource,
    parts: impl Iterator<Item = &'a str>,
) {
    let name = BucketName::new(key::bucket_name(&source.prefix, parts));
    let BucketSource { definition, priority, reason, .. } = *source;
    let bucket =
        ResolvedBucket { name: name.clone(), definition, priority, reasons: Vec::new(), default_of: Vec::new() };
    let known = buckets.entry(name).or_insert(bucket);
    if priority < known.priority {
        (known.priority, known.definition) = (priority, definition);
    }
    insert(&mut known.reasons, reason);
    if reason == Reason::Default {
        insert(&mut known.default_of, definition);
    }
}

/// Adds an item to a sorted list that has each once.
fn insert<T: Ord>(items: &mut Vec<T>, item: T) {
    if let Err(place) = items.binary_search(&item) {
        items.insert(place, item);
    }
}
