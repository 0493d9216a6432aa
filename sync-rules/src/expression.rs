//! Compiled expressions. What an input stands for (a column, a claim, …) is the type parameter `I`.

use std::{borrow::Cow, cmp::Ordering};

use serde::Serialize;

use crate::{
    cast::{CastType, cast, to_real},
    functions::Function,
    functions::json::{JsonPath, json_member},
    json::Json,
    value::{Failure, SqlValue},
};

/// A compiled expression.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum Expression<I> {
    /// A literal.
    Literal(SqlValue),
    /// A value from outside.
    Input(I),
    /// `NOT x`
    Not(Box<Self>),
    /// `x IS [NOT] NULL`
    IsNull {
        /// `x`
        operand: Box<Self>,
        /// With `NOT`.
        negated: bool,
    },
    /// `x operator y`
    Binary {
        /// The operator.
        operator: BinaryOperator,
        /// `x`
        left: Box<Self>,
        /// `y`
        right: Box<Self>,
    },
    /// `CAST(x AS type)`
    Cast {
        /// `x`
        operand: Box<Self>,
        /// `type`
        to: CastType,
    },
    /// `x -> path`, `x ->> path`
    JsonMember {
        /// `x`
        document: Box<Self>,
        /// `path`
        path: JsonPath,
        /// `->>`: scalars as values, not as JSON text.
        as_value: bool,
    },
    /// A call of a scalar function.
    Call {
        /// The function.
        function: Function,
        /// Its arguments.
        arguments: Vec<Self>,
    },
}

/// An operator between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum BinaryOperator {
    /// `AND`
    And,
    /// `OR`
    Or,
    /// `=`
    Equal,
    /// `!=`, `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `||`
    Concatenate,
    /// `x IN y`, `y` a JSON array in text.
    In,
}

/// Reads an input.
pub(crate) type ReadInput<'r, 'a, I> = dyn Fn(&'a I) -> Cow<'a, SqlValue> + 'r;

impl<I> Expression<I> {
    /// The value.
    pub(crate) fn evaluate<'a>(&'a self, read: &ReadInput<'_, 'a, I>) -> Result<Cow<'a, SqlValue>, Failure> {
        Ok(Cow::Owned(match self {
            Self::Literal(value) => return Ok(Cow::Borrowed(value)),
            Self::Input(input) => return Ok(read(input)),
            Self::Not(operand) => (!operand.evaluate(read)?.truth()).into(),
            Self::IsNull { operand, negated } => (operand.evaluate(read)?.is_null() != *negated).into(),
            Self::Binary { operator, left, right } => {
                binary(*operator, &*left.evaluate(read)?, &*right.evaluate(read)?)?
            }
            Self::Cast { operand, to } => cast(&*operand.evaluate(read)?, *to)?,
            Self::JsonMember { document, path, as_value } => json_member(&*document.evaluate(read)?, path, *as_value)?,
            Self::Call { function, arguments } => {
                let values = arguments.iter().map(|argument| argument.evaluate(read)).collect::<Result<Vec<_>, _>>()?;
                function.call(&values)?
            }
        }))
    }

    /// The same expression over other inputs, if every input has a counterpart.
    pub(crate) fn try_map<J, E>(&self, map: &mut dyn FnMut(&I) -> Result<J, E>) -> Result<Expression<J>, E> {
        let mut boxed = |operand: &Self| operand.try_map(map).map(Box::new);
        Ok(match self {
            Self::Literal(value) => Expression::Literal(value.clone()),
            Self::Input(input) => Expression::Input(map(input)?),
            Self::Not(operand) => Expression::Not(boxed(operand)?),
            Self::IsNull { operand, negated } => Expression::IsNull { operand: boxed(operand)?, negated: *negated },
            Self::Binary { operator, left, right } => {
                Expression::Binary { operator: *operator, left: boxed(left)?, right: boxed(right)? }
            }
            Self::Cast { operand, to } => Expression::Cast { operand: boxed(operand)?, to: *to },
            Self::JsonMember { document, path, as_value } => {
                Expression::JsonMember { document: boxed(document)?, path: path.clone(), as_value: *as_value }
            }
            Self::Call { function, arguments } => Expression::Call {
                function: *function,
                arguments: arguments.iter().map(|argument| argument.try_map(map)).collect::<Result<_, _>>()?,
            },
        })
    }

    /// The same expression over other inputs.
    pub(crate) fn map<J>(&self, map: impl Fn(&I) -> J) -> Expression<J> {
        match self.try_map(&mut |input| Ok::<J, std::convert::Infallible>(map(input))) {
            Ok(expression) => expression,
            Err(never) => match never {},
        }
    }

    /// Calls `visit` with every input.
    pub(crate) fn visit_inputs(&self, visit: &mut dyn FnMut(&I)) {
        match self {
            Self::Literal(_) => {}
            Self::Input(input) => visit(input),
            Self::Not(operand) | Self::IsNull { operand, .. } | Self::Cast { operand, .. } => {
                operand.visit_inputs(visit);
            }
            Self::Binary { left, right, .. } => {
                left.visit_inputs(visit);
                right.visit_inputs(visit);
            }
            Self::JsonMember { document, .. } => document.visit_inputs(visit),
            Self::Call { arguments, .. } => arguments.iter().for_each(|argument| argument.visit_inputs(visit)),
        }
    }
}

fn binary(operator: BinaryOperator, left: &SqlValue, right: &SqlValue) -> Result<SqlValue, Failure> {
    use BinaryOperator as Op;
    let compared = |accept: fn(Ordering) -> bool| -> Result<SqlValue, Failure> {
        Ok(left.compare(right)?.map_or(SqlValue::Null, |ordering| accept(ordering).into()))
    };
    match operator {
        // Logic is two-valued: NULL counts as false and never comes out.
        Op::And => Ok((left.truth() && right.truth()).into()),
        Op::Or => Ok((left.truth() || right.truth()).into()),
        Op::Equal => compared(Ordering::is_eq),
        Op::NotEqual => compared(Ordering::is_ne),
        Op::Less => compared(Ordering::is_lt),
        Op::LessOrEqual => compared(Ordering::is_le),
        Op::Greater => compared(Ordering::is_gt),
        Op::GreaterOrEqual => compared(Ordering::is_ge),
        Op::Add | Op::Subtract | Op::Multiply | Op::Divide => arithmetic(operator, left, right),
        Op::Concatenate => Ok(match (left.text(), right.text()) {
            (Some(left), Some(right)) => SqlValue::Text(left.into_owned() + &right),
            _ => SqlValue::Null,
        }),
        Op::In => contained(left, right),
    }
}

fn arithmetic(operator: BinaryOperator, left: &SqlValue, right: &SqlValue) -> Result<SqlValue, Failure> {
    use BinaryOperator as Op;
    const TOO_LARGE: Failure = Failure("the result of the arithmetic is too large");
    let real = |value: &SqlValue| match value {
        SqlValue::Integer(number) => to_real(*number),
        SqlValue::Real(number) => *number,
        _ => 0.0,
    };
    match (cast(left, CastType::Numeric)?, cast(right, CastType::Numeric)?) {
        (SqlValue::Null, _) | (_, SqlValue::Null) => Ok(SqlValue::Null),
        (_, divisor) if operator == Op::Divide && real(&divisor) == 0.0 => Ok(SqlValue::Null),
        (SqlValue::Integer(left), SqlValue::Integer(right)) => match operator {
            Op::Add => left.checked_add(right),
            Op::Subtract => left.checked_sub(right),
            Op::Multiply => left.checked_mul(right),
            _ => left.checked_div(right),
        }
        .map(SqlValue::Integer)
        .ok_or(TOO_LARGE),
        (left, right) => {
            let (left, right) = (real(&left), real(&right));
            Ok(SqlValue::Real(match operator {
                Op::Add => left + right,
                Op::Subtract => left - right,
                Op::Multiply => left * right,
                _ => left / right,
            }))
        }
    }
}

/// `value IN array`.
fn contained(value: &SqlValue, array: &SqlValue) -> Result<SqlValue, Failure> {
    if value.is_null() || array.is_null() {
        return Ok(SqlValue::Null);
    }
    for element in array_elements(array)? {
        if value.equals(&element.to_sql())? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

/// The elements of a JSON array in text.
pub(crate) fn array_elements(array: &SqlValue) -> Result<Vec<Json>, Failure> {
    const NOT_AN_ARRAY: Failure = Failure("the right side of IN is not a JSON array");
    let SqlValue::Text(text) = array else { return Err(NOT_AN_ARRAY) };
    match Json::parse(text)? {
        Json::Array(elements) => Ok(elements),
        _ => Err(NOT_AN_ARRAY),
    }
}
