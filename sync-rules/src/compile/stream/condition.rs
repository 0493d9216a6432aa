//! WHERE and ON as a tree of terms, with NOT pushed down to them.

use crate::{
    diagnostic::Problem,
    expression::{BinaryOperator, Expression},
    syntax::{Expr, ExprKind, Position, Select},
};

use super::{
    super::{normal_form::Tree, table::only_column},
    conjunction::Term,
    leaf::{StreamExpression, StreamLeaf},
    query::QueryReader,
    scope::{Frame, Place},
};
use crate::definition::ElementPart;

/// What a finding leaves of a condition.
const NOTHING: Tree<Term> = Tree::All(Vec::new());

impl QueryReader<'_> {
    /// The terms of a condition, or of its opposite.
    pub(super) fn condition(&mut self, expr: &Expr, negated: bool, frame: &Frame<'_>) -> Tree<Term> {
        let found = match &expr.kind {
            ExprKind::Not(operand) => return self.condition(operand, !negated, frame),
            ExprKind::Binary { operator: operator @ (BinaryOperator::And | BinaryOperator::Or), left, right } => {
                let parts = vec![self.condition(left, negated, frame), self.condition(right, negated, frame)];
                let is_and = (*operator == BinaryOperator::And) != negated;
                return if is_and { Tree::All(parts) } else { Tree::Any(parts) };
            }
            ExprKind::Binary { operator: BinaryOperator::Equal, left, right } if !negated => {
                self.equality(left, right, expr.position, frame)
            }
            ExprKind::Binary { operator: BinaryOperator::NotEqual, left, right } if negated => {
                self.equality(left, right, expr.position, frame)
            }
            ExprKind::In { operand, right, negated: not } => {
                self.membership(expr, operand, right, *not != negated, frame)
            }
            ExprKind::Overlap { left, right } if !negated => self.overlap(left, right, expr.position, frame),
            _ => self.plain(expr, negated, frame),
        };
        found.unwrap_or_else(|problem| {
            self.problems.push(problem);
            NOTHING
        })
    }

    /// A condition that is one expression.
    fn plain(&mut self, expr: &Expr, negated: bool, frame: &Frame<'_>) -> Result<Tree<Term>, Problem> {
        let expression = self.value(expr, frame)?;
        Ok(Tree::Term(Term::Condition(if negated { Expression::Not(Box::new(expression)) } else { expression })))
    }

    fn value(&self, expr: &Expr, frame: &Frame<'_>) -> Result<StreamExpression, Problem> {
        super::super::expression::lower(expr, &self.scope(frame, Place::Inner))
    }

    fn equality(&mut self, left: &Expr, right: &Expr, at: Position, frame: &Frame<'_>) -> Result<Tree<Term>, Problem> {
        let (left, right) = (self.value(left, frame)?, self.value(right, frame)?);
        Ok(Tree::Term(self.equal(left, right, at)))
    }

    /// `left = right`: a condition on one node, or where two nodes meet.
    fn equal(&self, left: StreamExpression, right: StreamExpression, at: Position) -> Term {
        match (self.instances.nodes(&left).as_slice(), self.instances.nodes(&right).as_slice()) {
            ([one], [other]) if one != other => Term::Equal { left, right, at },
            _ => Term::Condition(Expression::binary(BinaryOperator::Equal, left, right)),
        }
    }

    fn membership(
        &mut self,
        expr: &Expr,
        operand: &Expr,
        right: &Expr,
        negated: bool,
        frame: &Frame<'_>,
    ) -> Result<Tree<Term>, Problem> {
        let at = expr.position;
        let not_in = || {
            Problem::new("mixed_dependencies", "NOT IN cannot look into other tables", at)
                .help("keep a column that says so in the table itself, or write NOT IN ARRAY[…]")
        };
        match &right.kind {
            ExprKind::Subquery(_) if negated => Err(not_in()),
            ExprKind::Subquery(select) => {
                let value = self.value(operand, frame)?;
                self.in_select(value, select, at, Some(frame))
            }
            ExprKind::List(_) => {
                let list = super::super::expression::lower(expr, &self.scope(frame, Place::Inner))?;
                // The expression has its own NOT; only one from outside is added.
                let is_outer = matches!(expr.kind, ExprKind::In { negated: own, .. } if own != negated);
                Ok(Tree::Term(Term::Condition(if is_outer { Expression::Not(Box::new(list)) } else { list })))
            }
            ExprKind::Column { schema: None, table: None, name } if self.named_select(&name.text).is_some() => {
                if negated {
                    return Err(not_in());
                }
                let value = self.value(operand, frame)?;
                let Some(select) = self.named_select(&name.text) else { return Err(not_in()) };
                let (select, id) = select?;
                self.inside(id, |reader| reader.in_select(value, select, at, None))
            }
            _ => {
                let (value, array) = (self.value(operand, frame)?, self.value(right, frame)?);
                if negated {
                    let contained = Expression::binary(BinaryOperator::In, value, array);
                    let contained =
                        super::super::expression::Scope::finish(&self.scope(frame, Place::Inner), contained, at)?;
                    return Ok(Tree::Term(Term::Condition(Expression::Not(Box::new(contained)))));
                }
                let element = self.element(array, at)?;
                Ok(Tree::Term(self.equal(value, element, at)))
            }
        }
    }

    /// `value IN (SELECT e FROM … WHERE …)`: the tables join the query, and `value = e`.
    fn in_select(
        &mut self,
        value: StreamExpression,
        select: &Select,
        at: Position,
        outer: Option<&Frame<'_>>,
    ) -> Result<Tree<Term>, Problem> {
        let mut conditions = Vec::new();
        let selected = self.selected(select, outer, &mut conditions)?;
        conditions.insert(0, Tree::Term(self.equal(value, selected, at)));
        Ok(Tree::All(conditions))
    }

    /// The one column of a subquery.
    fn selected(
        &mut self,
        select: &Select,
        outer: Option<&Frame<'_>>,
        conditions: &mut Vec<Tree<Term>>,
    ) -> Result<StreamExpression, Problem> {
        if let Some(problem) = &select.refused_clause {
            return Err(problem.clone());
        }
        let expr = only_column(select)?;
        let frame = self.read_from(&select.from, outer, conditions);
        let selected = self.value(expr, &frame)?;
        if let Some(filter) = &select.filter {
            let tree = self.condition(filter, false, &frame);
            conditions.push(tree);
        }
        Ok(selected)
    }

    /// The elements of an array.
    fn element(&mut self, array: StreamExpression, at: Position) -> Result<StreamExpression, Problem> {
        let function = self.function(array, at)?;
        Ok(Expression::Input(StreamLeaf::Element { function, part: ElementPart::Value }))
    }

    /// `left && right`: an element of one is an element of the other.
    fn overlap(&mut self, left: &Expr, right: &Expr, at: Position, frame: &Frame<'_>) -> Result<Tree<Term>, Problem> {
        let mut conditions = Vec::new();
        let mut sides = Vec::with_capacity(2);
        for side in [left, right] {
            let element = if let ExprKind::Subquery(select) = &side.kind {
                self.selected(select, Some(frame), &mut conditions)?
            } else {
                let array = self.value(side, frame)?;
                self.element(array, at)?
            };
            sides.push(element);
        }
        let [left, right] = <[StreamExpression; 2]>::try_from(sides)
            .map_err(|_| Problem::new("unsupported_expression", "&& has two sides", at))?;
        if self.instances.nodes(&left) == self.instances.nodes(&right) {
            return Err(Problem::new("filter_not_associated", "both sides of && belong to the same row", at)
                .help("compare an array of the row with one of the request or of another table"));
        }
        conditions.insert(0, Tree::Term(self.equal(left, right, at)));
        Ok(Tree::All(conditions))
    }
}
