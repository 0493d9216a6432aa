//! A request through the plan: which definitions it has, and how each of their queries finds buckets, or why none.

use serde::{Deserialize, Serialize};

use super::{
    predicate::{NamedValue, Predicate, Reader},
    words::{element_text, parameter_text, request_text, shorten, table_name},
};
use crate::{
    definition::{BucketQuery, Definition, DefinitionKind, IndexId, Parameter, RequestInput, Step, ValueSource},
    evaluate::{EvaluationError, LookupKey, LookupSource, LookupValue},
    expression::Expression,
    key,
    plan::SyncPlan,
    relation::{Fault, Inputs, Prepared, element_rows},
    request::{Activation, RequestContext, Resolution, activations},
    value::Failure,
};

/// How a request gets its buckets.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedRequest {
    /// All definitions, in the order of the file.
    pub definitions: Vec<ExplainedDefinition>,
    /// The buckets. `Err`: a query that everybody has fails, so that nothing can be said of any bucket.
    pub resolution: Result<Resolution, EvaluationError>,
}

/// A definition, as a request has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedDefinition {
    /// Its name.
    pub name: String,
    /// It is a stream; otherwise a bucket definition.
    pub is_stream: bool,
    /// Everybody has it, unless they say otherwise.
    pub is_default: bool,
    /// What the names of its buckets begin with, without the prefix of the store. Streams may share them.
    pub buckets: Vec<String>,
    /// The ways in which the request has it: by default, or by subscriptions. None: not at all.
    pub ways: Vec<ExplainedWay>,
}

/// One way in which a request has a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedWay {
    /// Which subscription of the request; `None`: by default.
    pub subscription: Option<usize>,
    /// Its queries.
    pub queries: Vec<ExplainedBucketQuery>,
}

/// A query for buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedBucketQuery {
    /// What the names of its buckets begin with, without the prefix of the store.
    pub bucket: String,
    /// 0 syncs first, 3 last.
    pub priority: u8,
    /// All must hold.
    pub conditions: Vec<Predicate>,
    /// What is found out, in order.
    pub steps: Vec<ExplainedStep>,
    /// Where the bucket's parameters come from.
    pub parameters: Vec<ExplainedParameter>,
    /// Buckets it finds.
    pub bucket_count: usize,
    /// Why it finds none: an expression has no value, a claim is missing, or there would be too many.
    pub failure: Option<String>,
}

/// A step of a query: an array of the request taken apart, or a subquery asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedStep {
    /// What it does.
    pub text: String,
    /// What it reads of the request.
    pub values: Vec<NamedValue>,
    /// What was asked for, of a subquery: the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<String>,
    /// Elements there are, or answers there were.
    pub found_count: usize,
}

/// Where a bucket parameter comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedParameter {
    /// In words; `p1` and steps are those of the query.
    pub from: String,
    /// Its value as bucket names have it; `None` where a step finds it.
    pub value: Option<String>,
}

/// Questions of a subquery that are shown.
const ASKED_MAX: usize = 5;

impl SyncPlan {
    /// How a request gets its buckets, as of the state `lookups` shows; `bucket_prefix` goes in front of their names.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn explain_request<L: LookupSource>(
        &self,
        request: &RequestContext,
        bucket_prefix: &str,
        lookups: &mut L,
    ) -> Result<ExplainedRequest, L::Error> {
        let resolution = match self.querier(request, bucket_prefix) {
            Ok(querier) => Ok(querier.resolve(lookups)?),
            Err(failed) => Err(failed),
        };
        let explain = |definition| explain_definition(self, definition, request, lookups);
        let definitions = self.definitions.iter().map(explain).collect::<Result<_, _>>()?;
        Ok(ExplainedRequest { definitions, resolution })
    }
}

fn explain_definition<L: LookupSource>(
    plan: &SyncPlan,
    definition: &Definition,
    request: &RequestContext,
    lookups: &mut L,
) -> Result<ExplainedDefinition, L::Error> {
    let (is_stream, is_default) = match definition.kind {
        DefinitionKind::Buckets => (false, true),
        DefinitionKind::Stream { is_default, .. } => (true, is_default),
    };
    let mut ways = Vec::new();
    for activation in activations(definition, request) {
        let asking = Asking { plan, request, activation: &activation };
        let queries = definition.queries.iter().map(|query| asking.explain(query, lookups));
        let queries = queries.collect::<Result<_, _>>()?;
        ways.push(ExplainedWay { subscription: activation.reason.subscription(), queries });
    }
    let mut buckets: Vec<_> = definition.queries.iter().map(|query| query.bucket.clone()).collect();
    buckets.dedup();
    Ok(ExplainedDefinition { name: definition.name.clone(), is_stream, is_default, buckets, ways })
}

/// A request that has a definition in one way.
struct Asking<'r> {
    plan: &'r SyncPlan,
    request: &'r RequestContext,
    activation: &'r Activation<'r>,
}

impl Asking<'_> {
    fn inputs(&self) -> Inputs<'_> {
        Inputs { request: self.request, subscription: self.activation.subscription }
    }

    fn explain<L: LookupSource>(&self, query: &BucketQuery, lookups: &mut L) -> Result<ExplainedBucketQuery, L::Error> {
        let value = |expression: &Expression<RequestInput>| self.inputs().value(expression);
        let reader = Reader { text: &request_text, value: &value };
        let mut conditions = Vec::new();
        query.conditions.iter().for_each(|condition| reader.predicates(condition, &mut conditions));
        let mut recorder = Recorder { lookups, asked: Vec::new() };
        let (bucket_count, failure) = match Prepared::new(query, self.request, self.activation.subscription) {
            Ok(None) => (0, None),
            Ok(Some(prepared)) => match prepared.resolve(&mut recorder, &mut Vec::new())? {
                Ok(found) => (found.len(), None),
                Err(Failure(reason)) => (0, Some(reason.to_owned())),
            },
            Err(Fault::Failure(Failure(reason))) => (0, Some(reason.to_owned())),
            Err(Fault::Claim(message)) => (0, Some(message)),
        };
        let steps = query.steps.iter().map(|step| self.step(query, step, &reader, &recorder.asked)).collect();
        Ok(ExplainedBucketQuery {
            bucket: query.bucket.clone(),
            priority: self.activation.priority.unwrap_or(query.priority),
            conditions,
            steps,
            parameters: query.parameters.iter().map(|parameter| self.parameter(parameter)).collect(),
            bucket_count,
            failure,
        })
    }

    fn step(
        &self,
        query: &BucketQuery,
        step: &Step,
        reader: &Reader<'_, RequestInput>,
        asked: &[(LookupKey, usize)],
    ) -> ExplainedStep {
        match step {
            Step::Elements { array, filter, .. } => {
                let mut text = format!("each element of {}", request_text(array));
                for condition in filter {
                    text = format!("{text} where {}", element_text(condition));
                }
                let rows = element_rows(step, query.nulls, self.inputs());
                let found_count = rows.ok().flatten().map_or(0, |rows| rows.len());
                ExplainedStep { text, values: reader.values(&[array]), asked: Vec::new(), found_count }
            }
            Step::Lookup { index, inputs } => {
                let texts: Vec<_> = inputs.iter().map(parameter_text).collect();
                let text = format!("SELECT … FROM {} for ({})", self.plan.table_of(index), texts.join(", "));
                let requested =
                    inputs.iter().flat_map(|Parameter(sources)| sources).filter_map(|source| match source {
                        ValueSource::Request(value) => Some(value),
                        _ => None,
                    });
                let values = reader.values(&requested.collect::<Vec<_>>());
                let of_index = || asked.iter().filter(|(key, _)| key::parts_asked(index, key).is_some());
                let shown = of_index().filter_map(|(key, _)| key::parts_asked(index, key)).take(ASKED_MAX);
                let shown = shown.map(|parts| shorten(parts.join(", "))).collect();
                ExplainedStep { text, values, asked: shown, found_count: of_index().map(|(_, count)| count).sum() }
            }
        }
    }

    fn parameter(&self, parameter: &Parameter) -> ExplainedParameter {
        let Parameter(sources) = parameter;
        let value = |source: &ValueSource| match source {
            ValueSource::Request(value) => self.inputs().value(value).ok(),
            ValueSource::Claim(claim) => claim.read(&self.request.token).ok(),
            ValueSource::Found { .. } => None,
        };
        let value = sources.iter().find_map(value).map(|value| key::key_part(&value));
        ExplainedParameter { from: parameter_text(parameter), value }
    }
}

impl SyncPlan {
    /// The table an index is made of, for messages.
    pub(super) fn table_of(&self, index: &IndexId) -> String {
        let index = self.indexes.iter().find(|known| known.id == *index);
        index.map_or_else(|| "an unknown table".to_owned(), |index| table_name(&index.source.table))
    }
}

/// Notes what was asked, and how many answers there were.
struct Recorder<'a, L> {
    lookups: &'a mut L,
    asked: Vec<(LookupKey, usize)>,
}

impl<L: LookupSource> LookupSource for Recorder<'_, L> {
    type Error = L::Error;

    fn values(&mut self, key: &LookupKey) -> Result<Vec<LookupValue>, L::Error> {
        let values = self.lookups.values(key)?;
        self.asked.push((key.clone(), values.len()));
        Ok(values)
    }
}
