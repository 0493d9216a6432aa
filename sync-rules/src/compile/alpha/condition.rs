//! The terms of an edition 2 filter.

use crate::{
    definition::{Filter, RequestInput, RowInput},
    diagnostic::Problem,
    expression::{BinaryOperator, Expression},
    syntax::{Expr, ExprKind, Position, Select},
};

use super::{
    super::{
        PlanBuilder,
        expression::{Dependencies, Leaf, lower},
        filter::{Asked, AskedForm, row_expression},
        normal_form::Tree,
    },
    scope::AlphaScope,
    subquery::{Subquery, compile_subquery},
};

/// Whether a condition must hold or must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Holds,
    Fails,
}

impl Side {
    const fn flipped(self) -> Self {
        match self {
            Self::Holds => Self::Fails,
            Self::Fails => Self::Holds,
        }
    }
}

/// A term of an alternative.
#[derive(Debug, Clone)]
pub(super) enum Term {
    /// A condition on the row.
    Row(Expression<RowInput>),
    /// A condition on the request.
    Request(Expression<RequestInput>),
    /// A lookup must have a result.
    Exists(Subquery),
    /// A value of the row meets one of the request.
    Match { row: MatchRow, value: MatchValue },
}

/// The row's side of a match.
#[derive(Debug, Clone)]
pub(super) enum MatchRow {
    Value(Expression<RowInput>),
    /// The value; rows with NULL go into a bucket nobody has.
    ValueOrNull(Expression<RowInput>),
    /// The elements of a JSON array.
    Elements(Expression<RowInput>),
}

impl MatchRow {
    pub(super) fn filter(self, slot: usize) -> Filter<RowInput> {
        match self {
            Self::Value(value) => Filter::Equals { slot, value },
            Self::ValueOrNull(value) => Filter::EqualsOrNull { slot, value },
            Self::Elements(array) => Filter::Contains { slot, array },
        }
    }
}

/// The request's side of a match.
#[derive(Debug, Clone)]
pub(super) enum MatchValue {
    Asked(Asked),
    Found(Subquery),
}

/// Finds the terms of a condition.
pub(super) struct Condition<'a, 'b> {
    pub scope: &'a AlphaScope<'b>,
    pub stream: &'a str,
    pub builder: &'a mut PlanBuilder,
}

impl Condition<'_, '_> {
    pub(super) fn tree(&mut self, expr: &Expr, side: Side) -> Result<Tree<Term>, Problem> {
        let at = expr.position;
        // What speaks of the row alone, or of the request alone, is kept together.
        let whole = if has_subquery(expr) { None } else { Some(lower(expr, self.scope)) };
        if let Some(Ok(expression)) = &whole
            && let Some(term) = pure_term(expression, side, at)?
        {
            return Ok(Tree::Term(term));
        }
        match &expr.kind {
            ExprKind::Not(operand) => self.tree(operand, side.flipped()),
            ExprKind::Binary { operator: operator @ (BinaryOperator::And | BinaryOperator::Or), left, right } => {
                let parts = vec![self.tree(left, side)?, self.tree(right, side)?];
                let is_and = (*operator == BinaryOperator::And) == (side == Side::Holds);
                Ok(if is_and { Tree::All(parts) } else { Tree::Any(parts) })
            }
            ExprKind::In { operand, right, negated } => {
                let side = if *negated { side.flipped() } else { side };
                self.membership(operand, right, side, at)
            }
            ExprKind::Overlap { left, right } => self.overlap(left, right, side, at),
            ExprKind::Binary { operator: BinaryOperator::Equal, left, right } if side == Side::Holds => {
                self.equality(left, right, at)
            }
            _ => match whole {
                Some(Err(problem)) => Err(problem),
                _ => Err(misplaced(at)),
            },
        }
    }

    fn equality(&mut self, left: &Expr, right: &Expr, at: Position) -> Result<Tree<Term>, Problem> {
        let (left, right) = (lower(left, self.scope)?, lower(right, self.scope)?);
        let (row, request) = if Dependencies::of(&left).row { (left, right) } else { (right, left) };
        let value = MatchValue::Asked(Asked { value: request_expression(&request, at)?, form: AskedForm::Value });
        Ok(Tree::Term(Term::Match { row: MatchRow::Value(row_expression(&row, at)?), value }))
    }

    fn membership(&mut self, operand: &Expr, right: &Expr, side: Side, at: Position) -> Result<Tree<Term>, Problem> {
        let value = lower(operand, self.scope)?;
        let found = Dependencies::of(&value);
        if let ExprKind::Subquery(select) = &right.kind {
            return self.in_subquery(&value, select, side, at);
        }
        let array = lower(right, self.scope)?;
        let in_array = Dependencies::of(&array);
        if let Some(term) = single_kind(&value, &array, BinaryOperator::In, side, at)? {
            return Ok(Tree::Term(term));
        }
        if side == Side::Fails {
            return Err(misplaced(at));
        }
        let (row, asked) = if found.row && !in_array.row {
            let asked = Asked { value: request_expression(&array, at)?, form: AskedForm::Elements };
            (MatchRow::Value(row_expression(&value, at)?), asked)
        } else {
            let asked = Asked { value: request_expression(&value, at)?, form: AskedForm::Value };
            (MatchRow::Elements(row_expression(&array, at)?), asked)
        };
        Ok(Tree::Term(Term::Match { row, value: MatchValue::Asked(asked) }))
    }

    fn in_subquery(
        &mut self,
        value: &Expression<Leaf>,
        select: &Select,
        side: Side,
        at: Position,
    ) -> Result<Tree<Term>, Problem> {
        if side == Side::Fails {
            return Err(misplaced(at));
        }
        let found = Dependencies::of(value);
        if found.is_static() {
            return Err(Problem::new("subquery_left_operand", "a constant cannot be looked up in a subquery", at)
                .help("write the constant into the subquery's WHERE, and auth.user_id() before IN"));
        }
        if found.row {
            let subquery = compile_subquery(select, None, self.stream, self.scope.context, self.builder)?;
            let row = MatchRow::ValueOrNull(row_expression(value, at)?);
            return Ok(Tree::Term(Term::Match { row, value: MatchValue::Found(subquery) }));
        }
        let value = request_expression(value, at)?;
        let subquery = compile_subquery(select, Some(value), self.stream, self.scope.context, self.builder)?;
        Ok(Tree::Term(Term::Exists(subquery)))
    }

    fn overlap(&mut self, left: &Expr, right: &Expr, side: Side, at: Position) -> Result<Tree<Term>, Problem> {
        let array = lower(left, self.scope)?;
        if let ExprKind::Subquery(select) = &right.kind {
            if side == Side::Fails {
                return Err(misplaced(at));
            }
            if !Dependencies::of(&array).row {
                return Err(Problem::new("subquery_left_operand", "the left side of && is a column here", at)
                    .help("write column && (SELECT …)"));
            }
            let subquery = compile_subquery(select, None, self.stream, self.scope.context, self.builder)?;
            let row = MatchRow::Elements(row_expression(&array, at)?);
            return Ok(Tree::Term(Term::Match { row, value: MatchValue::Found(subquery) }));
        }
        let other = lower(right, self.scope)?;
        if let Some(term) = single_kind(&array, &other, BinaryOperator::Overlap, side, at)? {
            return Ok(Tree::Term(term));
        }
        if side == Side::Fails {
            return Err(misplaced(at));
        }
        let (row, value, form) = if Dependencies::of(&array).row {
            (array, other, AskedForm::Elements)
        } else {
            // PowerSync looks for the whole array here, which is never an element.
            (other, array, AskedForm::Value)
        };
        let asked = Asked { value: request_expression(&value, at)?, form };
        let row = MatchRow::Elements(row_expression(&row, at)?);
        Ok(Tree::Term(Term::Match { row, value: MatchValue::Asked(asked) }))
    }
}

fn misplaced(at: Position) -> Problem {
    Problem::new("match_clause_misplaced", "a condition on rows and request cannot be negated or compared", at)
        .help("join such conditions by AND and OR only")
}

fn has_subquery(expr: &Expr) -> bool {
    let mut found = matches!(expr.kind, ExprKind::Subquery(_));
    expr.visit_operands(&mut |operand| found |= has_subquery(operand));
    found
}

/// The term of a condition that reads the row alone, the request alone, or nothing.
fn pure_term(expression: &Expression<Leaf>, side: Side, at: Position) -> Result<Option<Term>, Problem> {
    let found = Dependencies::of(expression);
    let expression = match side {
        Side::Holds => expression.clone(),
        Side::Fails => Expression::Not(Box::new(expression.clone())),
    };
    match (found.row, found.request) {
        (true, true) => Ok(None),
        (false, true) => request_expression(&expression, at).map(Term::Request).map(Some),
        (_, false) => row_expression(&expression, at).map(Term::Row).map(Some),
    }
}

/// The term of an operator between two sides that read the same.
fn single_kind(
    left: &Expression<Leaf>,
    right: &Expression<Leaf>,
    operator: BinaryOperator,
    side: Side,
    at: Position,
) -> Result<Option<Term>, Problem> {
    pure_term(&Expression::binary(operator, left.clone(), right.clone()), side, at)
}

pub(super) fn request_expression(
    expression: &Expression<Leaf>,
    at: Position,
) -> Result<Expression<RequestInput>, Problem> {
    expression.try_map(&mut |leaf| match leaf {
        Leaf::Request(input) => Ok(input.clone()),
        _ => Err(Problem::new("mixed_dependencies", "rows and request meet in more than one place here", at)
            .help("compare a column by `=`, IN or && with a value of the request")),
    })
}
