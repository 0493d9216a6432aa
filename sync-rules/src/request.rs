//! Requests through the plan: which buckets a client gets.

use std::{borrow::Cow, collections::BTreeMap};

use kairos_sync_protocol::BucketName;
use serde_json::{Map, Value};

use crate::{
    definition::{Asked, AskedForm, Definition, ParameterSource, RequestInput, TableParameterQuery, TableValue},
    evaluate::{EvaluationError, LookupKey, LookupSource},
    expression::{Expression, array_elements},
    json::{Form, Json},
    key,
    value::{Failure, SqlValue},
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
    /// Subscription parameters: not authenticated.
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
    /// What the names begin with.
    prefix: String,
    kind: SourceKind,
}

#[derive(Debug, Clone)]
enum SourceKind {
    /// One bucket.
    Fixed { parts: Vec<String> },
    /// A bucket per answer of the lookups.
    Dynamic { lookups: Vec<LookupKey>, parts: Vec<BucketPart> },
}

/// A bucket parameter of a dynamic source.
#[derive(Debug, Clone)]
enum BucketPart {
    /// Of the request.
    Fixed(String),
    /// The next part of the answer.
    Found,
}

impl Querier {
    pub(crate) fn new(
        definitions: &[Definition],
        request: &RequestContext,
        bucket_prefix: &str,
    ) -> Result<Self, EvaluationError> {
        let mut querier = Self::default();
        // Bucket definitions have no subscriptions of their own, but can be named in one.
        let is_active = |definition: &Definition| {
            request.include_defaults || request.subscriptions.iter().any(|each| each.stream == definition.name)
        };
        for definition in definitions.iter().filter(|definition| is_active(definition)) {
            let index = querier.definitions.len();
            querier.definitions.push(ActiveDefinition { name: definition.name.clone(), is_default: true });
            for query in &definition.parameter_queries {
                let kind = match &query.source {
                    ParameterSource::Request { filter, values } => fixed(filter.as_ref(), values, request),
                    ParameterSource::Table(table) => dynamic(&definition.name, table, request),
                    ParameterSource::Claims(claims) => {
                        let parts: Result<Vec<_>, _> = claims.iter().map(|claim| claim.read(&request.token)).collect();
                        match parts {
                            Ok(values) => {
                                let parts = values.iter().map(key::key_part).collect();
                                Ok(Some(SourceKind::Fixed { parts }))
                            }
                            // Another definition may well serve this client.
                            Err(message) => {
                                let error = EvaluationError { definition: definition.name.clone(), message };
                                querier.errors.push((None, error));
                                Ok(None)
                            }
                        }
                    }
                };
                let kind = kind.map_err(|failure| EvaluationError::new(&definition.name, "parameters", failure))?;
                let prefix = format!("{bucket_prefix}{}", definition.name);
                let source = |kind| BucketSource { definition: index, priority: query.priority, prefix, kind };
                querier.sources.extend(kind.map(source));
            }
        }
        Ok(querier)
    }

    /// The definitions this request activates, in the order of the rules file.
    pub fn definitions(&self) -> &[ActiveDefinition] {
        &self.definitions
    }

    /// The buckets as of the state `lookups` shows.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn resolve<L: LookupSource>(&self, lookups: &mut L) -> Result<Resolution, L::Error> {
        const DAMAGED: Failure = Failure("the index of a parameter query is damaged");
        let mut buckets = BTreeMap::new();
        let mut resolution = Resolution { errors: self.errors.clone(), ..Resolution::default() };
        for source in &self.sources {
            match &source.kind {
                SourceKind::Fixed { parts } => {
                    add(&mut buckets, source, parts.iter().map(String::as_str));
                }
                SourceKind::Dynamic { lookups: keys, parts } => {
                    for key in keys {
                        for answer in lookups.values(key)? {
                            let Some(found) = key::lookup_parts(&answer) else {
                                let name = &self.definitions[source.definition].name;
                                resolution.errors.push((None, EvaluationError::new(name, "parameters", DAMAGED)));
                                continue;
                            };
                            let mut found = found.into_iter();
                            let part = |part: &'_ BucketPart| match part {
                                BucketPart::Fixed(part) => part.clone(),
                                BucketPart::Found => found.next().unwrap_or("null").to_owned(),
                            };
                            let parts: Vec<_> = parts.iter().map(part).collect();
                            add(&mut buckets, source, parts.iter().map(String::as_str));
                        }
                    }
                    resolution.consulted.extend(keys.iter().cloned());
                }
            }
        }
        resolution.consulted.sort_unstable();
        resolution.consulted.dedup();
        resolution.buckets = buckets.into_values().collect();
        Ok(resolution)
    }
}

/// Adds a bucket; of several sources for one, the most urgent counts.
fn add<'a>(
    buckets: &mut BTreeMap<BucketName, ResolvedBucket>,
    source: &BucketSource,
    parts: impl Iterator<Item = &'a str>,
) {
    let name = BucketName::new(key::bucket_name(&source.prefix, parts));
    let BucketSource { definition, priority, .. } = *source;
    let bucket = ResolvedBucket { name: name.clone(), definition, priority, reasons: vec![Reason::Default] };
    let known = buckets.entry(name).or_insert(bucket);
    known.priority = known.priority.min(priority);
}

fn evaluate<'a>(
    expression: &'a Expression<RequestInput>,
    request: &'a RequestContext,
) -> Result<Cow<'a, SqlValue>, Failure> {
    expression.evaluate(&|input| Cow::Owned(input.read(request)))
}

fn fixed(
    filter: Option<&Expression<RequestInput>>,
    values: &[Expression<RequestInput>],
    request: &RequestContext,
) -> Result<Option<SourceKind>, Failure> {
    if let Some(filter) = filter
        && !evaluate(filter, request)?.truth()
    {
        return Ok(None);
    }
    let mut parts = Vec::with_capacity(values.len());
    for value in values {
        match &*evaluate(value, request)? {
            SqlValue::Blob(_) => return Ok(None),
            value => parts.push(key::key_part(value)),
        }
    }
    Ok(Some(SourceKind::Fixed { parts }))
}

fn dynamic(
    definition: &str,
    query: &TableParameterQuery,
    request: &RequestContext,
) -> Result<Option<SourceKind>, Failure> {
    let mut keys: Vec<Vec<String>> = vec![Vec::new()];
    for asked in &query.asked {
        let parts = asked_parts(asked, request)?;
        let extend = |key: &Vec<String>| {
            let key = key.clone();
            parts.iter().map(move |part| key.iter().cloned().chain([part.clone()]).collect()).collect::<Vec<_>>()
        };
        keys = keys.iter().flat_map(extend).collect();
    }
    let mut lookups: Vec<_> = keys
        .iter()
        .map(|parts| key::parameter_lookup(definition, query.id, parts.iter().map(String::as_str)))
        .collect();
    lookups.sort_unstable();
    lookups.dedup();
    let mut parts = Vec::with_capacity(query.values.len());
    for value in &query.values {
        parts.push(match value {
            TableValue::Row(_) => BucketPart::Found,
            TableValue::Request(value) => BucketPart::Fixed(key::key_part(&*evaluate(value, request)?)),
        });
    }
    Ok(Some(SourceKind::Dynamic { lookups, parts }))
}

/// The key parts a request asks a slot for: one, or one per element.
fn asked_parts(asked: &Asked, request: &RequestContext) -> Result<Vec<String>, Failure> {
    let value = evaluate(&asked.value, request)?;
    Ok(match asked.form {
        AskedForm::Value if matches!(*value, SqlValue::Blob(_)) => Vec::new(),
        AskedForm::Value => vec![key::key_part(&value)],
        AskedForm::Truth => vec![u8::from(value.truth()).to_string()],
        // What is not an array has no elements.
        AskedForm::Elements => {
            let part = |element: &Json| {
                let mut part = String::new();
                element.write(Form::Name, &mut part);
                part
            };
            array_elements(&value).unwrap_or_default().iter().map(part).collect()
        }
    })
}
