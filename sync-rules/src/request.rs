//! Requests through the plan: which buckets a client gets.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
};

use kairos_sync_protocol::BucketName;
use serde_json::{Map, Value};

use crate::{
    evaluate::{EvaluationError, LookupKey, LookupSource, lookup_key, lookup_key_start, parse_data_array},
    expression::{Expr, Failure, json_elements},
    plan::{LookupInput, ParameterOutput, ParameterQuery, ParameterSource, SyncPlan, TableLookup},
    scope::RequestInput,
    value::{SqlValue, name_array},
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
#[derive(Debug, Clone)]
pub struct Querier {
    definitions: Vec<ActiveDefinition>,
    fixed: Vec<ResolvedBucket>,
    lookups: Vec<PendingLookup>,
}

/// Buckets that a lookup finds.
#[derive(Debug, Clone)]
struct PendingLookup {
    definition: usize,
    /// Bucket name without its parameters.
    bucket: String,
    priority: u8,
    keys: Vec<LookupKey>,
    /// `None` takes the next value of the lookup's answer.
    outputs: Vec<Option<SqlValue>>,
}

impl Querier {
    pub(crate) fn new(plan: &SyncPlan, request: &RequestContext, prefix: &str) -> Result<Self, EvaluationError> {
        let mut querier = Self { definitions: Vec::new(), fixed: Vec::new(), lookups: Vec::new() };
        if !request.include_defaults {
            return Ok(querier);
        }
        for (index, definition) in plan.definitions.iter().enumerate() {
            querier.definitions.push(ActiveDefinition { name: definition.name.clone(), is_default: true });
            let bucket = format!("{prefix}{}", definition.name);
            for query in &definition.parameter_queries {
                querier.add(index, &bucket, query, request).map_err(|message| EvaluationError {
                    definition: definition.name.clone(),
                    message: message.to_owned(),
                })?;
            }
        }
        Ok(querier)
    }

    fn add(
        &mut self,
        definition: usize,
        bucket: &str,
        query: &ParameterQuery,
        request: &RequestContext,
    ) -> Result<(), Failure> {
        let eval =
            |expr: &Expr<RequestInput>| expr.eval(&|input| Cow::Owned(input.value(request))).map(Cow::into_owned);
        if let Some(condition) = &query.condition
            && !eval(condition)?.truth()
        {
            return Ok(());
        }
        let values = match &query.source {
            ParameterSource::Request(values) => values.iter().map(eval).collect::<Result<Vec<_>, _>>()?,
            ParameterSource::Claims(claims) => {
                let values = claims.iter().map(|(claim, kind)| kind.of(&claim.value(request)));
                // Who lacks a claim, or has it in another type, owns nothing here.
                let Some(values) = values.collect::<Option<Vec<_>>>() else { return Ok(()) };
                values
            }
            ParameterSource::Table(lookup) => {
                return self.add_lookup(definition, bucket, query.priority, lookup, &eval);
            }
        };
        if !values.iter().any(|value| matches!(value, SqlValue::Blob(_))) {
            self.fixed.push(resolved(definition, bucket, query.priority, &values));
        }
        Ok(())
    }

    fn add_lookup(
        &mut self,
        definition: usize,
        bucket: &str,
        priority: u8,
        lookup: &TableLookup,
        eval: &impl Fn(&Expr<RequestInput>) -> Result<SqlValue, Failure>,
    ) -> Result<(), Failure> {
        let mut tuples = vec![Vec::new()];
        for input in &lookup.inputs {
            let values = match input {
                LookupInput::Value(expr) => vec![eval(expr)?],
                LookupInput::Truth(expr) => vec![SqlValue::from_bool(eval(expr)?.truth())],
                LookupInput::Elements(expr) => json_elements(&eval(expr)?).unwrap_or_default(),
            };
            let values = values.into_iter().filter(|value| !matches!(value, SqlValue::Blob(_)));
            let values: Vec<_> = values.map(SqlValue::integral).collect();
            tuples = tuples
                .iter()
                .flat_map(|tuple: &Vec<_>| values.iter().map(|value| [tuple, std::slice::from_ref(value)].concat()))
                .collect();
        }
        let start = lookup_key_start(&lookup.definition, &lookup.number.to_string());
        let outputs = lookup.outputs.iter().map(|output| match output {
            ParameterOutput::Column(_) => Ok(None),
            ParameterOutput::Request(expr) => eval(expr).map(Some),
        });
        let pending = PendingLookup {
            definition,
            bucket: bucket.to_owned(),
            priority,
            keys: tuples.iter().map(|tuple| lookup_key(&start, tuple)).collect(),
            outputs: outputs.collect::<Result<_, _>>()?,
        };
        self.lookups.push(pending);
        Ok(())
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
        let mut buckets: BTreeMap<BucketName, ResolvedBucket> = BTreeMap::new();
        let mut add = |bucket: ResolvedBucket| match buckets.entry(bucket.name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(bucket);
            }
            Entry::Occupied(mut entry) => entry.get_mut().priority = entry.get().priority.min(bucket.priority),
        };
        self.fixed.iter().cloned().for_each(&mut add);
        let mut resolution = Resolution::default();
        for pending in &self.lookups {
            for key in &pending.keys {
                for answer in lookups.values(key)? {
                    let mut columns = parse_data_array(&answer.0).unwrap_or_default().into_iter();
                    let values: Vec<_> = pending
                        .outputs
                        .iter()
                        .map(|output| output.clone().unwrap_or_else(|| columns.next().unwrap_or(SqlValue::Null)))
                        .collect();
                    add(resolved(pending.definition, &pending.bucket, pending.priority, &values));
                }
                resolution.consulted.push(key.clone());
            }
        }
        resolution.consulted.sort_unstable();
        resolution.consulted.dedup();
        resolution.buckets = buckets.into_values().collect();
        Ok(resolution)
    }
}

fn resolved(definition: usize, bucket: &str, priority: u8, values: &[SqlValue]) -> ResolvedBucket {
    let name = BucketName::new(format!("{bucket}{}", name_array(values)));
    ResolvedBucket { name, definition, priority, reasons: vec![Reason::Default] }
}
