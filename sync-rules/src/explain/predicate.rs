//! Conditions one by one, each with what it reads.

use serde::{Deserialize, Serialize};

use super::words::value_text;
use crate::{
    expression::{BinaryOperator, Expression},
    value::{Failure, SqlValue},
};

/// Different values of one condition that are shown.
const VALUES_MAX: usize = 20;

/// A condition, and how it turned out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predicate {
    /// As SQL; `p1`, `p2`, … are the bucket's parameters.
    pub text: String,
    /// What it reads.
    pub values: Vec<NamedValue>,
    /// How it turned out.
    pub outcome: Outcome,
    /// What else there is to say, such as what a lookup answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// For an OR its alternatives; all conditions of one must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Vec<Self>>,
}

/// A value that a condition reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedValue {
    /// The column, or what is read of the request.
    pub name: String,
    /// As SQL writes it; long ones are cut.
    pub value: String,
}

/// How a condition turned out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Holds,
    /// It does not.
    DoesNotHold,
    /// It cannot be computed for these values, for this reason.
    Failed(String),
}

impl Outcome {
    /// Of what was computed.
    pub(super) fn of(result: Result<bool, Failure>) -> Self {
        match result {
            Ok(true) => Self::Holds,
            Ok(false) => Self::DoesNotHold,
            Err(Failure(reason)) => Self::Failed(reason.to_owned()),
        }
    }
}

/// How expressions over `I` are written and computed.
pub(super) struct Reader<'r, I> {
    pub(super) text: &'r dyn Fn(&Expression<I>) -> String,
    pub(super) value: &'r dyn Fn(&Expression<I>) -> Result<SqlValue, Failure>,
}

impl<I> Reader<'_, I> {
    /// The conditions that AND joins, each by itself.
    pub(super) fn predicates(&self, condition: &Expression<I>, out: &mut Vec<Predicate>) {
        if let Expression::Binary { operator: BinaryOperator::And, left, right } = condition {
            self.predicates(left, out);
            self.predicates(right, out);
            return;
        }
        out.push(Predicate {
            text: (self.text)(condition),
            values: self.values(&[condition]),
            outcome: Outcome::of((self.value)(condition).map(|value| value.truth())),
            note: None,
            alternatives: Vec::new(),
        });
    }

    /// What expressions read, each once: columns, members of the request, and members of JSON in them.
    pub(super) fn values(&self, expressions: &[&Expression<I>]) -> Vec<NamedValue> {
        let mut values: Vec<NamedValue> = Vec::new();
        for expression in expressions {
            visit_reads(expression, &mut |read| {
                let name = (self.text)(read);
                if values.len() < VALUES_MAX && !values.iter().any(|known| known.name == name) {
                    let value = (self.value)(read);
                    let value =
                        value.map_or_else(|Failure(reason)| format!("nothing: {reason}"), |value| value_text(&value));
                    values.push(NamedValue { name, value });
                }
            });
        }
        values
    }
}

/// Calls `visit` with what an expression reads.
fn visit_reads<I>(expression: &Expression<I>, visit: &mut dyn FnMut(&Expression<I>)) {
    match expression {
        Expression::Input(_) => visit(expression),
        Expression::JsonMember { document, .. } if matches!(**document, Expression::Input(_)) => visit(expression),
        _ => expression.visit_operands(&mut |operand| visit_reads(operand, visit)),
    }
}
