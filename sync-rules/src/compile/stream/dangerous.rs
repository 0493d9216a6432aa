//! Finds streams that let clients choose what they see.

use crate::{
    definition::{BucketQuery, Parameter, RequestInput, Step, ValueSource},
    expression::Expression,
};

/// Whether the buckets depend on what the client chooses, and on nothing the token vouches for. What decides is the
/// values of the bucket's parameters, through lookups; conditions only count where there are no parameters.
pub(super) fn is_dangerous(query: &BucketQuery) -> bool {
    let mut found = Found::default();
    if query.parameters.is_empty() {
        query.conditions.iter().for_each(|condition| found.expression(condition));
    } else {
        query.parameters.iter().for_each(|parameter| found.parameter(parameter, query));
    }
    found.chosen && !found.vouched
}

#[derive(Default)]
struct Found {
    vouched: bool,
    chosen: bool,
}

impl Found {
    fn parameter(&mut self, Parameter(sources): &Parameter, query: &BucketQuery) {
        for source in sources {
            match source {
                ValueSource::Request(value) => self.expression(value),
                ValueSource::Claim(_) => self.vouched = true,
                ValueSource::Found { step, .. } => match &query.steps[*step] {
                    Step::Elements { array, .. } => self.expression(array),
                    Step::Lookup { inputs, .. } => inputs.iter().for_each(|input| self.parameter(input, query)),
                },
            }
        }
    }

    /// An expression counts as vouched for if it reads the token, or nothing of the request.
    fn expression(&mut self, expression: &Expression<RequestInput>) {
        let (mut vouched, mut chosen) = (false, false);
        expression.visit_inputs(&mut |input| {
            vouched |= input.is_authenticated();
            chosen |= !input.is_authenticated();
        });
        self.vouched |= vouched || !chosen;
        self.chosen |= chosen && !vouched;
    }
}
