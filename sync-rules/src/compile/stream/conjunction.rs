//! Terms to alternatives, each with its conditions by what they read.

use crate::{
    definition::ElementPart,
    diagnostic::Problem,
    expression::{BinaryOperator, Expression, fold},
    syntax::Position,
};

use super::{
    super::normal_form::{ALTERNATIVES_MAX, Tree, alternatives},
    leaf::{Instances, Node, StreamExpression, StreamLeaf},
};

/// A term of a condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    /// A condition that reads one node, or nothing.
    Condition(StreamExpression),
    /// Where two nodes meet.
    Equal { left: StreamExpression, right: StreamExpression, at: Position },
    /// A table in FROM: it must have a row, even if nothing is said of it.
    Present(Node),
    /// An array in FROM: it must have an element.
    PresentFunction(usize),
}

/// An alternative: what must hold together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Conjunction {
    pub equalities: Vec<Equality>,
    /// Of the request, and of nothing.
    pub request: Option<StreamExpression>,
    /// Of one table or array each.
    pub conditions: Vec<(Node, StreamExpression)>,
    pub present: Vec<Node>,
    pub present_functions: Vec<usize>,
}

/// Two nodes meet.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Equality {
    pub left: StreamExpression,
    pub right: StreamExpression,
    pub at: Position,
}

impl Conjunction {
    /// Terms about one node become one condition.
    fn new(terms: Vec<Term>, instances: &Instances) -> Self {
        let mut conjunction = Self::default();
        let mut request = Vec::new();
        let mut conditions: Vec<(Node, Vec<StreamExpression>)> = Vec::new();
        for term in terms {
            match term {
                Term::Equal { left, right, at } => conjunction.equalities.push(Equality { left, right, at }),
                Term::Present(node) => conjunction.present.push(node),
                Term::PresentFunction(function) => conjunction.present_functions.push(function),
                Term::Condition(condition) => match instances.nodes(&condition).first() {
                    None | Some(Node::Request) => request.push(condition),
                    Some(node) => match conditions.iter_mut().find(|(known, _)| known == node) {
                        Some((_, known)) => known.push(condition),
                        None => conditions.push((*node, vec![condition])),
                    },
                },
            }
        }
        let and = |left, right| Expression::binary(BinaryOperator::And, left, right);
        conjunction.request = fold(request, &and);
        conjunction.conditions =
            conditions.into_iter().filter_map(|(node, all)| Some((node, fold(all, &and)?))).collect();
        conjunction
    }

    /// Adds an alternative to the condition about a node.
    fn add_alternative(&mut self, node: Node, condition: StreamExpression) {
        match self.conditions.iter_mut().find(|(known, _)| *known == node) {
            Some((_, known)) => *known = Expression::binary(BinaryOperator::Or, known.clone(), condition),
            None => self.conditions.push((node, condition)),
        }
    }

    fn term_count(&self) -> usize {
        self.equalities.len() + usize::from(self.request.is_some()) + self.conditions.len()
    }

    fn is_like(&self, other: &Self) -> bool {
        self.present == other.present && self.present_functions == other.present_functions
    }
}

/// The alternatives of a condition in the order of their buckets' numbers: first those with several terms, then those
/// with one, of which conditions about the same node become one alternative.
pub(super) fn conjunctions(tree: Tree<Term>, instances: &Instances, at: Position) -> Result<Vec<Conjunction>, Problem> {
    let alternatives = alternatives(tree).ok_or_else(|| {
        let message = format!("the condition has more than {ALTERNATIVES_MAX} alternatives");
        Problem::new("too_many_variants", message, at)
            .help("each alternative is a bucket per client; write fewer ORs, or several streams")
    })?;
    let all = alternatives.into_iter().map(|terms| Conjunction::new(terms, instances));
    let (single, mut ordered): (Vec<_>, Vec<_>) = all.partition(|conjunction| conjunction.term_count() == 1);
    let (equalities, conditions): (Vec<_>, Vec<_>) =
        single.into_iter().partition(|conjunction| !conjunction.equalities.is_empty());
    ordered.extend(equalities);
    let (requests, conditions): (Vec<_>, Vec<_>) =
        conditions.into_iter().partition(|conjunction| conjunction.request.is_some());
    let mut merged: Vec<Conjunction> = Vec::new();
    for conjunction in requests.into_iter().chain(conditions) {
        let is_same = |known: &&mut Conjunction| {
            let node = |conjunction: &Conjunction| conjunction.conditions.first().map(|(node, _)| *node);
            known.is_like(&conjunction) && node(known) == node(&conjunction)
        };
        let Some(known) = merged.iter_mut().find(is_same) else {
            merged.push(conjunction);
            continue;
        };
        for (_, condition) in &mut known.conditions {
            *condition = whole_arrays(condition, &known.present_functions, instances);
        }
        if let Some(request) = conjunction.request {
            known.request = Some(match known.request.take() {
                None => request,
                Some(earlier) => Expression::binary(BinaryOperator::Or, earlier, request),
            });
        }
        for (node, condition) in conjunction.conditions {
            known.add_alternative(node, whole_arrays(&condition, &known.present_functions, instances));
        }
    }
    ordered.extend(merged);
    Ok(ordered)
}

/// `value IN array` in place of `value = element`. Beside an alternative a row must not depend on its array having
/// elements. Arrays that stand in FROM are left as they are: there a row without elements has no part in the join.
fn whole_arrays(condition: &StreamExpression, in_from: &[usize], instances: &Instances) -> StreamExpression {
    let Expression::Binary { operator, left, right } = condition else { return condition.clone() };
    let array = |side: &StreamExpression| match side {
        Expression::Input(StreamLeaf::Element { function, part: ElementPart::Value })
            if !in_from.contains(function) =>
        {
            Some(instances.functions[*function].array.clone())
        }
        _ => None,
    };
    match (operator, array(left), array(right)) {
        (BinaryOperator::Equal, None, Some(array)) => Expression::binary(BinaryOperator::In, (**left).clone(), array),
        (BinaryOperator::And | BinaryOperator::Or, ..) => Expression::binary(
            *operator,
            whole_arrays(left, in_from, instances),
            whole_arrays(right, in_from, instances),
        ),
        _ => condition.clone(),
    }
}
