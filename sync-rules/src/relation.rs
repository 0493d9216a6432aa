//! A bucket query for one request: the steps as relations, joined into combinations of bucket parameters.
//!
//! A step's rows are tuples of values; a lookup asked with values that another step found continues that step's tuples,
//! so that values which come from one row stay together. Steps that have nothing to do with each other are joined only
//! by the parameters they share.
//!
//! Values are kept as JSON that tells INTEGER from REAL: two sources of one parameter agree on the kind as well.

mod ways;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

pub(crate) use self::ways::Answer;
use crate::{
    definition::{BucketQuery, ElementInput, IndexId, Nulls, Parameter, RequestInput, Step, ValueSource},
    elements::{request_elements, stored_value},
    evaluate::{LookupKey, LookupSource},
    expression::Expression,
    json::{Form, Json},
    key,
    matching::{COMBINATIONS_MAX, Combination, NAME_BYTES_MAX, TOO_LONG, meet},
    request::RequestContext,
    value::{Failure, SqlValue},
};

const TOO_MANY: Failure = Failure("the request leads to too many combinations of parameters");
const DAMAGED: Failure = Failure("the index of a parameter query is damaged");

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A claim is missing or of another type.
    Claim(String),
    /// An expression failed.
    Failure(Failure),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// A bucket query as far as the request alone says.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    steps: Vec<PreparedStep>,
    /// Per bucket parameter.
    parameters: Vec<Vec<Source>>,
}

#[derive(Debug, Clone)]
enum PreparedStep {
    /// Rows of values.
    Rows(Vec<Values>),
    /// Asks an index with these inputs.
    Lookup { index: IndexId, inputs: Vec<Vec<Source>> },
}

/// A value of the request, or what a step found.
#[derive(Debug, Clone)]
enum Source {
    Value(Arc<str>),
    Found { step: usize, output: usize },
}

/// A row of values. They are shared: a row may be in many combinations.
pub(crate) type Values = Arc<[Arc<str>]>;

/// Rows that belong together, by their steps.
type JoinedRows = BTreeMap<usize, Values>;

/// What a request's expressions read.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'r> {
    pub(crate) request: &'r RequestContext,
    pub(crate) subscription: Option<&'r Map<String, Value>>,
}

impl Inputs<'_> {
    pub(crate) fn value(&self, expression: &Expression<RequestInput>) -> Result<SqlValue, Failure> {
        let read = |input: &RequestInput| std::borrow::Cow::Owned(input.read(self.request, self.subscription));
        Ok(expression.evaluate(&read)?.into_owned())
    }
}

impl Prepared {
    /// `None`: no buckets, whatever lookups say.
    pub(crate) fn new(
        query: &BucketQuery,
        request: &RequestContext,
        subscription: Option<&Map<String, Value>>,
    ) -> Result<Option<Self>, Fault> {
        let inputs = Inputs { request, subscription };
        for condition in &query.conditions {
            if !inputs.value(condition)?.truth() {
                return Ok(None);
            }
        }
        let mut steps = Vec::with_capacity(query.steps.len());
        for step in &query.steps {
            let prepared = match step {
                Step::Elements { .. } => element_rows(step, query.nulls, inputs)?.map(PreparedStep::Rows),
                Step::Lookup { index, inputs: keys } => {
                    let keys = sources(keys, query.nulls, inputs)?;
                    keys.map(|inputs| PreparedStep::Lookup { index: index.clone(), inputs })
                }
            };
            let Some(prepared) = prepared else { return Ok(None) };
            steps.push(prepared);
        }
        let parameters = sources(&query.parameters, query.nulls, inputs)?;
        Ok(parameters.map(|parameters| Self { steps, parameters }))
    }

    pub(crate) fn asks_lookups(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, PreparedStep::Lookup { .. }))
    }

    /// The bucket parameters as key parts, for every bucket. Lookups that were asked are added to `consulted`.
    pub(crate) fn resolve<L: LookupSource>(
        &self,
        lookups: &mut L,
        consulted: &mut Vec<LookupKey>,
    ) -> Result<Result<Vec<Vec<String>>, Failure>, L::Error> {
        let mut answers = Answers { lookups, consulted, known: BTreeMap::new() };
        let Some(fixed) = combination(&self.parameters, &|_, _| None) else { return Ok(Ok(Vec::new())) };
        let is_fixed: Vec<bool> = fixed.iter().map(Option::is_some).collect();
        let mut combinations = vec![fixed];
        for component in self.components() {
            let tuples = match self.tuples(&component, &mut answers)? {
                Ok(tuples) => tuples,
                Err(failure) => return Ok(Err(failure)),
            };
            let found = tuples.iter().filter_map(|tuple| {
                let value = |step: usize, output: usize| tuple.get(&step)?.get(output).cloned();
                let mut found = combination(&self.parameters, &value)?;
                // What the request says itself is there already; it need not be compared again for each.
                found.iter_mut().zip(&is_fixed).filter(|(_, is_fixed)| **is_fixed).for_each(|(part, _)| *part = None);
                Some(found)
            });
            let mut found: Vec<_> = found.collect();
            found.sort_unstable();
            found.dedup();
            combinations = match meet(&combinations, &found) {
                Ok(combinations) => combinations,
                Err(_) => return Ok(Err(TOO_MANY)),
            };
            if combinations.is_empty() {
                return Ok(Ok(Vec::new()));
            }
        }
        let length = |combination: &Combination| combination.iter().flatten().map(|part| part.len()).sum::<usize>();
        if combinations.iter().map(length).sum::<usize>() > NAME_BYTES_MAX {
            return Ok(Err(TOO_LONG));
        }
        let part = |part: &Option<Arc<str>>| name_part(part.as_deref().unwrap_or("null"));
        Ok(Ok(combinations.iter().map(|combination| combination.iter().map(part).collect()).collect()))
    }

    /// Steps in groups that continue each other, in order.
    fn components(&self) -> Vec<Vec<usize>> {
        let mut components: Vec<Vec<usize>> = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            let mut own = vec![number];
            if let PreparedStep::Lookup { inputs, .. } = step {
                let continues = |component: &Vec<usize>| {
                    inputs
                        .iter()
                        .flatten()
                        .any(|source| matches!(source, Source::Found { step, .. } if component.contains(step)))
                };
                let (joined, rest) = components.into_iter().partition::<Vec<_>, _>(continues);
                components = rest;
                own.extend(joined.into_iter().flatten());
                own.sort_unstable();
            }
            components.push(own);
        }
        components
    }

    /// The rows of a component's steps that belong together.
    fn tuples<L: LookupSource>(
        &self,
        component: &[usize],
        answers: &mut Answers<'_, L>,
    ) -> Result<Result<Vec<JoinedRows>, Failure>, L::Error> {
        let mut tuples: Vec<JoinedRows> = vec![BTreeMap::new()];
        for number in component {
            let mut next = Vec::new();
            for tuple in &tuples {
                let rows = match &self.steps[*number] {
                    PreparedStep::Rows(rows) => rows.clone(),
                    PreparedStep::Lookup { index, inputs } => {
                        let value = |step: usize, output: usize| tuple.get(&step)?.get(output).cloned();
                        let Some(key) = combination(inputs, &value) else { continue };
                        let parts: Vec<_> = key.iter().flatten().map(|part| name_part(part)).collect();
                        match answers.rows(&key::lookup(index, parts.iter().map(String::as_str)))? {
                            Some(rows) => rows,
                            None => return Ok(Err(DAMAGED)),
                        }
                    }
                };
                if next.len() + rows.len() > COMBINATIONS_MAX {
                    return Ok(Err(TOO_MANY));
                }
                next.extend(rows.into_iter().map(|row| {
                    let mut tuple = tuple.clone();
                    tuple.insert(*number, row);
                    tuple
                }));
            }
            tuples = next;
        }
        Ok(Ok(tuples))
    }
}

/// Lookups, each asked once.
struct Answers<'a, L> {
    lookups: &'a mut L,
    consulted: &'a mut Vec<LookupKey>,
    known: BTreeMap<LookupKey, Vec<Values>>,
}

impl<L: LookupSource> Answers<'_, L> {
    /// The rows a lookup answers with; `None` if the index has something else there.
    fn rows(&mut self, key: &LookupKey) -> Result<Option<Vec<Values>>, L::Error> {
        if let Some(rows) = self.known.get(key) {
            return Ok(Some(rows.clone()));
        }
        self.consulted.push(key.clone());
        let values = self.lookups.values(key)?;
        let row = |value| Some(key::lookup_parts(value)?.into_iter().map(Arc::from).collect());
        let Some(rows) = values.iter().map(row).collect::<Option<Vec<Values>>>() else { return Ok(None) };
        self.known.insert(key.clone(), rows.clone());
        Ok(Some(rows))
    }
}

/// What sources say of a parameter.
enum Agreed {
    /// None of them is known yet.
    Unknown,
    Value(Arc<str>),
    /// They differ.
    Nothing,
}

fn agree(sources: &[Source], found: &dyn Fn(usize, usize) -> Option<Arc<str>>) -> Agreed {
    let mut agreed = Agreed::Unknown;
    for source in sources {
        let value = match source {
            Source::Value(value) => Some(value.clone()),
            Source::Found { step, output } => found(*step, *output),
        };
        let Some(value) = value else { continue };
        match &agreed {
            Agreed::Unknown => agreed = Agreed::Value(value),
            Agreed::Value(known) if *known == value => {}
            Agreed::Value(_) | Agreed::Nothing => return Agreed::Nothing,
        }
    }
    agreed
}

/// All parameters as far as they are known; `None` if the sources of one differ.
fn combination(parameters: &[Vec<Source>], found: &dyn Fn(usize, usize) -> Option<Arc<str>>) -> Option<Combination> {
    let mut combination = Vec::with_capacity(parameters.len());
    for sources in parameters {
        combination.push(match agree(sources, found) {
            Agreed::Unknown => None,
            Agreed::Value(value) => Some(value),
            Agreed::Nothing => return None,
        });
    }
    Some(combination)
}

/// A stored value as a key part, in which INTEGER and REAL of the same value meet.
fn name_part(stored: &str) -> String {
    if stored.starts_with(['"', 'n']) {
        return stored.to_owned();
    }
    let mut part = String::new();
    match Json::parse(stored) {
        Ok(json) => json.write(Form::Name, &mut part),
        Err(_) => part.push_str(stored),
    }
    part
}

/// Sources with the request's values filled in; `None` where a value leads nowhere.
fn sources(parameters: &[Parameter], nulls: Nulls, inputs: Inputs<'_>) -> Result<Option<Vec<Vec<Source>>>, Fault> {
    let mut known = Vec::with_capacity(parameters.len());
    for Parameter(sources) in parameters {
        let mut values = Vec::with_capacity(sources.len());
        for source in sources {
            values.push(match source {
                ValueSource::Found { step, output } => Source::Found { step: *step, output: *output },
                ValueSource::Claim(claim) => {
                    let claim = claim.read(&inputs.request.token).map_err(Fault::Claim)?;
                    Source::Value(Arc::from(stored_value(&claim)))
                }
                ValueSource::Request(value) => match inputs.value(value)? {
                    SqlValue::Blob(_) => return Ok(None),
                    SqlValue::Null if nulls == Nulls::Drop => return Ok(None),
                    value => Source::Value(Arc::from(stored_value(&value))),
                },
            });
        }
        known.push(values);
    }
    Ok(Some(known))
}

/// The rows of an array of the request; `None` if there are none.
pub(crate) fn element_rows(step: &Step, nulls: Nulls, inputs: Inputs<'_>) -> Result<Option<Vec<Values>>, Failure> {
    let Step::Elements { array, form, filter, outputs } = step else { return Ok(None) };
    let mut rows = Vec::new();
    let elements = request_elements(&inputs.value(array)?, *form)?;
    'elements: for element in &elements {
        let read = |input: &ElementInput| {
            std::borrow::Cow::Owned(match input {
                ElementInput::Element(part) => element.part(*part).clone(),
                ElementInput::Request(input) => input.read(inputs.request, inputs.subscription),
            })
        };
        for condition in filter {
            if !condition.evaluate(&read)?.truth() {
                continue 'elements;
            }
        }
        let mut row = Vec::with_capacity(outputs.len());
        for output in outputs {
            match &*output.evaluate(&read)? {
                SqlValue::Blob(_) => continue 'elements,
                SqlValue::Null if nulls == Nulls::Drop => continue 'elements,
                value => row.push(Arc::from(stored_value(value))),
            }
        }
        rows.push(Values::from(row));
    }
    rows.sort_unstable();
    rows.dedup();
    Ok((!rows.is_empty()).then_some(rows))
}
