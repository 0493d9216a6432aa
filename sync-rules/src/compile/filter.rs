//! Conditions to filters: which part of a condition speaks of the row, which of the request, and where the two meet.

use crate::{
    definition::{
        ElementForm, ElementInput, ElementPart, Filter, Parameter, RequestInput, RowInput, Step, ValueSource,
    },
    diagnostic::Problem,
    expression::{BinaryOperator, Expression},
    syntax::{Expr, ExprKind, Position, Select},
};

use super::expression::{Dependencies, Leaf, Scope, lower};

/// What a slot is in one kind of query.
pub(super) trait Slots: Scope<Leaf = Leaf> {
    /// The slot of a value on the request side.
    fn slot(&mut self, value: &Expression<Leaf>, form: AskedForm, at: Position) -> Result<usize, Problem>;

    /// `value IN (SELECT …)`
    fn join(
        &mut self,
        value: Expression<RowInput>,
        select: &Select,
        at: Position,
    ) -> Result<Filter<RowInput>, Problem> {
        let _ = (value, select);
        Err(self.subquery_problem(at))
    }

    /// Refuses OR between matches, where a place does.
    fn allow_or(&self, at: Position) -> Result<(), Problem> {
        let _ = at;
        Ok(())
    }
}

/// How a request asks for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskedForm {
    /// `column = value`
    Value,
    /// `column IN value`: once per element of the JSON array.
    Elements,
    /// `value` as a condition of its own.
    Truth,
}

/// What a request asks for a slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub value: Expression<RequestInput>,
    pub form: AskedForm,
}

impl Asked {
    /// The values, by a step of their own where there are several.
    pub(super) fn parameter(&self, form: ElementForm, steps: &mut Vec<Step>) -> Parameter {
        Parameter(vec![match self.form {
            AskedForm::Value => ValueSource::Request(self.value.clone()),
            // Twice negated is 1 or 0.
            AskedForm::Truth => {
                ValueSource::Request(Expression::Not(Box::new(Expression::Not(Box::new(self.value.clone())))))
            }
            AskedForm::Elements => {
                let element = Expression::Input(ElementInput::Element(ElementPart::Value));
                steps.push(Step::Elements {
                    array: self.value.clone(),
                    form,
                    filter: Vec::new(),
                    outputs: vec![element],
                });
                ValueSource::Found { step: steps.len() - 1, output: 0 }
            }
        }])
    }
}

/// A classified condition.
enum Clause {
    /// Literals alone.
    Static(Expression<Leaf>),
    /// The row alone.
    Row(Expression<Leaf>),
    /// The request alone.
    Request(Expression<Leaf>),
    /// Where row and request meet.
    Match(Filter<RowInput>),
}

/// Compiles a condition; none lets every row through.
pub(super) fn lower_filter(filter: Option<&Expr>, slots: &mut dyn Slots) -> Result<Filter<RowInput>, Problem> {
    let Some(expr) = filter else { return Ok(Filter::always()) };
    let clause = clause(expr, slots)?;
    into_filter(clause, expr.position, slots)
}

/// An expression over the row alone.
pub(super) fn row_expression(expression: &Expression<Leaf>, at: Position) -> Result<Expression<RowInput>, Problem> {
    expression.try_map(&mut |leaf| match leaf {
        Leaf::Row(column) => Ok(column.clone()),
        Leaf::Bucket(_) => Err(Problem::new(
            "bucket_parameter_in_expression",
            "a bucket parameter can only be compared with a column",
            at,
        )),
        Leaf::Old(_) | Leaf::Upload(_) | Leaf::Request(_) | Leaf::Element(_) => {
            Err(Problem::new("mixed_dependencies", "only columns of the row can be used here", at))
        }
    })
}

fn classify(expression: Expression<Leaf>) -> Clause {
    let found = Dependencies::of(&expression);
    match (found.row, found.request || found.bucket) {
        (false, false) => Clause::Static(expression),
        (true, _) => Clause::Row(expression),
        (false, true) => Clause::Request(expression),
    }
}

fn clause(expr: &Expr, slots: &mut dyn Slots) -> Result<Clause, Problem> {
    let at = expr.position;
    match &expr.kind {
        ExprKind::Binary { operator: operator @ (BinaryOperator::And | BinaryOperator::Or), left, right } => {
            let (left_at, right_at) = (left.position, right.position);
            let (left, right) = (clause(left, slots)?, clause(right, slots)?);
            combine(*operator, (left, left_at), (right, right_at), at, slots)
        }
        ExprKind::Binary { operator: BinaryOperator::Equal, left, right } => {
            let sides = (lower(left, slots)?, lower(right, slots)?);
            let found = (Dependencies::of(&sides.0), Dependencies::of(&sides.1));
            match (found.0.row, found.1.row) {
                (true, false) if found.1.is_request() => equals(&sides.0, &sides.1, at, slots),
                (false, true) if found.0.is_request() => equals(&sides.1, &sides.0, at, slots),
                _ => lower(expr, slots).map(classify),
            }
        }
        ExprKind::In { operand, right, negated: false } => match &right.kind {
            ExprKind::Subquery(select) => {
                let value = row_expression(&lower(operand, slots)?, at)?;
                slots.join(value, select, at).map(Clause::Match)
            }
            ExprKind::List(_) => lower(expr, slots).map(classify),
            _ => contained(expr, operand, right, slots),
        },
        _ => lower(expr, slots).map(classify),
    }
}

fn equals(
    row: &Expression<Leaf>,
    request: &Expression<Leaf>,
    at: Position,
    slots: &mut dyn Slots,
) -> Result<Clause, Problem> {
    let slot = slots.slot(request, AskedForm::Value, at)?;
    Ok(Clause::Match(Filter::Equals { slot, value: row_expression(row, at)? }))
}

/// `operand IN array`
fn contained(expr: &Expr, operand: &Expr, array: &Expr, slots: &mut dyn Slots) -> Result<Clause, Problem> {
    let at = expr.position;
    let sides = (lower(operand, slots)?, lower(array, slots)?);
    let found = (Dependencies::of(&sides.0), Dependencies::of(&sides.1));
    if found.0.is_request() && !found.0.row && found.1.row {
        let slot = slots.slot(&sides.0, AskedForm::Value, at)?;
        return Ok(Clause::Match(Filter::Contains { slot, array: row_expression(&sides.1, at)? }));
    }
    if found.0.row && found.1.is_request() && !found.1.row {
        let slot = slots.slot(&sides.1, AskedForm::Elements, at)?;
        return Ok(Clause::Match(Filter::Equals { slot, value: row_expression(&sides.0, at)? }));
    }
    lower(expr, slots).map(classify)
}

fn combine(
    operator: BinaryOperator,
    (left, left_at): (Clause, Position),
    (right, right_at): (Clause, Position),
    at: Position,
    slots: &mut dyn Slots,
) -> Result<Clause, Problem> {
    let both = |left, right| Expression::binary(operator, left, right);
    match (left, right) {
        (Clause::Static(left), Clause::Static(right)) => Ok(Clause::Static(both(left, right))),
        (Clause::Static(left) | Clause::Row(left), Clause::Static(right) | Clause::Row(right)) => {
            Ok(Clause::Row(both(left, right)))
        }
        (Clause::Static(left) | Clause::Request(left), Clause::Static(right) | Clause::Request(right))
            if !Dependencies::of(&left).bucket && !Dependencies::of(&right).bucket =>
        {
            Ok(Clause::Request(both(left, right)))
        }
        (left, right) => {
            let parts = [into_filter(left, left_at, slots)?, into_filter(right, right_at, slots)?];
            if operator == BinaryOperator::And {
                return all(parts, at).map(Clause::Match);
            }
            slots.allow_or(at)?;
            if parts[0].slots() != parts[1].slots() {
                return Err(Problem::new("or_parameters_differ", "both sides of OR must use the same parameters", at)
                    .help("write two queries instead of one with OR"));
            }
            Ok(Clause::Match(Filter::Any(parts.into())))
        }
    }
}

/// Joins come last: a row that other conditions exclude need not ask.
fn all(parts: [Filter<RowInput>; 2], at: Position) -> Result<Filter<RowInput>, Problem> {
    if parts.iter().all(has_array) {
        return Err(Problem::new("multiple_array_filters", "only one condition can look into an array", at)
            .help("combine the arrays into one column, or write two definitions"));
    }
    let mut flat = Vec::new();
    for part in parts {
        match part {
            Filter::All(inner) => flat.extend(inner),
            other => flat.push(other),
        }
    }
    flat.sort_by_key(|part| matches!(part, Filter::Joined { .. }));
    Ok(Filter::All(flat))
}

fn has_array(filter: &Filter<RowInput>) -> bool {
    match filter {
        Filter::Contains { .. } => true,
        Filter::All(parts) | Filter::Any(parts) => parts.iter().any(has_array),
        _ => false,
    }
}

fn into_filter(clause: Clause, at: Position, slots: &mut dyn Slots) -> Result<Filter<RowInput>, Problem> {
    match clause {
        Clause::Static(expression) | Clause::Row(expression) => row_expression(&expression, at).map(Filter::Condition),
        Clause::Request(expression) => Ok(Filter::IsTrue { slot: slots.slot(&expression, AskedForm::Truth, at)? }),
        Clause::Match(filter) => Ok(filter),
    }
}
