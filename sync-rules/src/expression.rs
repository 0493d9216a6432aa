//! Compiled expressions. What an input stands for (a column, a claim, …) is the type parameter `I`.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    cast::{CastType, cast, to_real},
    functions::Function,
    functions::json::{JsonPath, json_member},
    json::Json,
    key::key_part,
    value::{Failure, SqlValue},
};

/// A compiled expression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// `x IS TRUE`, `x IS FALSE`: whether it is 1 or 0.
    IsTruth {
        /// `x`
        operand: Box<Self>,
        /// `TRUE`
        value: bool,
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
    /// `x BETWEEN low AND high`
    Between {
        /// `x`
        operand: Box<Self>,
        /// `low`
        low: Box<Self>,
        /// `high`
        high: Box<Self>,
    },
    /// `x IN ARRAY[…]`
    InList {
        /// `x`
        operand: Box<Self>,
        /// The elements.
        list: Vec<Self>,
    },
    /// `CASE [x] WHEN … THEN … ELSE … END`
    Case {
        /// `x`
        operand: Option<Box<Self>>,
        /// `WHEN`, `THEN`
        branches: Vec<(Self, Self)>,
        /// `ELSE`
        otherwise: Option<Box<Self>>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// `%`; compiles, but has no value, as in PowerSync.
    Modulo,
    /// `&`; likewise.
    BitAnd,
    /// `|`; likewise.
    BitOr,
    /// `<<`; likewise.
    ShiftLeft,
    /// `>>`; likewise.
    ShiftRight,
    /// `||`
    Concatenate,
    /// `x IN y`, `y` a JSON array in text.
    In,
    /// `x && y`, both JSON arrays in text: whether they share an element.
    Overlap,
}

/// Joins operands from the left, as they are written. A long list becomes a tree of little depth instead: AND and OR give
/// the same in any grouping.
pub(crate) fn fold<T>(mut operands: Vec<T>, join: &dyn Fn(T, T) -> T) -> Option<T> {
    const CHAIN_MAX: usize = 8;
    if operands.len() <= CHAIN_MAX {
        return operands.into_iter().reduce(join);
    }
    let second = operands.split_off(operands.len() / 2);
    Some(join(fold(operands, join)?, fold(second, join)?))
}

/// Reads an input.
pub(crate) type ReadInput<'r, 'a, I> = dyn Fn(&'a I) -> Cow<'a, SqlValue> + 'r;

impl<I> Expression<I> {
    /// `left operator right`
    pub(crate) fn binary(operator: BinaryOperator, left: Self, right: Self) -> Self {
        Self::Binary { operator, left: Box::new(left), right: Box::new(right) }
    }

    /// The value.
    pub(crate) fn evaluate<'a>(&'a self, read: &ReadInput<'_, 'a, I>) -> Result<Cow<'a, SqlValue>, Failure> {
        Ok(Cow::Owned(match self {
            Self::Literal(value) => return Ok(Cow::Borrowed(value)),
            Self::Input(input) => return Ok(read(input)),
            Self::Not(operand) => (!operand.evaluate(read)?.truth()).into(),
            Self::IsNull { operand, negated } => (operand.evaluate(read)?.is_null() != *negated).into(),
            Self::IsTruth { operand, value } => operand.evaluate(read)?.equals(&(*value).into())?.into(),
            Self::Binary { operator, left, right } => {
                binary(*operator, &*left.evaluate(read)?, &*right.evaluate(read)?)?
            }
            Self::Between { operand, low, high } => {
                let operand = operand.evaluate(read)?;
                let above = operand.compare(&*low.evaluate(read)?)?;
                let below = operand.compare(&*high.evaluate(read)?)?;
                match (above, below) {
                    (Some(above), Some(below)) => (above.is_ge() && below.is_le()).into(),
                    _ => SqlValue::Null,
                }
            }
            Self::InList { operand, list } => {
                let list = list.iter().map(|element| element.evaluate(read)).collect::<Result<Vec<_>, _>>()?;
                in_list(&*operand.evaluate(read)?, &list)?
            }
            Self::Case { operand, branches, otherwise } => {
                return case(operand.as_deref(), branches, otherwise.as_deref(), read);
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
        self.try_replace(&mut |input| map(input).map(Expression::Input))
    }

    /// The same expression with an expression for every input.
    pub(crate) fn try_replace<J, E>(
        &self,
        replace: &mut dyn FnMut(&I) -> Result<Expression<J>, E>,
    ) -> Result<Expression<J>, E> {
        let mut boxed = |operand: &Self| operand.try_replace(replace).map(Box::new);
        Ok(match self {
            Self::Literal(value) => Expression::Literal(value.clone()),
            Self::Input(input) => return replace(input),
            Self::Not(operand) => Expression::Not(boxed(operand)?),
            Self::IsNull { operand, negated } => Expression::IsNull { operand: boxed(operand)?, negated: *negated },
            Self::IsTruth { operand, value } => Expression::IsTruth { operand: boxed(operand)?, value: *value },
            Self::Binary { operator, left, right } => {
                Expression::Binary { operator: *operator, left: boxed(left)?, right: boxed(right)? }
            }
            Self::Between { operand, low, high } => {
                Expression::Between { operand: boxed(operand)?, low: boxed(low)?, high: boxed(high)? }
            }
            Self::InList { operand, list } => Expression::InList {
                operand: boxed(operand)?,
                list: list.iter().map(|element| element.try_replace(replace)).collect::<Result<_, _>>()?,
            },
            Self::Case { operand, branches, otherwise } => Expression::Case {
                operand: operand.as_deref().map(&mut boxed).transpose()?,
                otherwise: otherwise.as_deref().map(boxed).transpose()?,
                branches: branches
                    .iter()
                    .map(|(when, then)| Ok((when.try_replace(replace)?, then.try_replace(replace)?)))
                    .collect::<Result<_, E>>()?,
            },
            Self::Cast { operand, to } => Expression::Cast { operand: boxed(operand)?, to: *to },
            Self::JsonMember { document, path, as_value } => {
                Expression::JsonMember { document: boxed(document)?, path: path.clone(), as_value: *as_value }
            }
            Self::Call { function, arguments } => Expression::Call {
                function: *function,
                arguments: arguments.iter().map(|argument| argument.try_replace(replace)).collect::<Result<_, _>>()?,
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

    /// Calls `visit` with every input, in the order they are written.
    pub(crate) fn visit_inputs<'a>(&'a self, visit: &mut dyn FnMut(&'a I)) {
        if let Self::Input(input) = self {
            return visit(input);
        }
        self.visit_operands(&mut |operand| operand.visit_inputs(visit));
    }

    /// Calls `visit` with every direct operand, in the order they are written.
    pub(crate) fn visit_operands<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        match self {
            Self::Literal(_) | Self::Input(_) => {}
            Self::Not(operand)
            | Self::IsNull { operand, .. }
            | Self::IsTruth { operand, .. }
            | Self::Cast { operand, .. }
            | Self::JsonMember { document: operand, .. } => visit(operand),
            Self::Binary { left, right, .. } => {
                visit(left);
                visit(right);
            }
            Self::Between { operand, low, high } => {
                visit(operand);
                visit(low);
                visit(high);
            }
            Self::InList { operand, list } => {
                visit(operand);
                list.iter().for_each(visit);
            }
            Self::Case { operand, branches, otherwise } => {
                if let Some(operand) = operand {
                    visit(operand);
                }
                for (when, then) in branches {
                    visit(when);
                    visit(then);
                }
                if let Some(otherwise) = otherwise {
                    visit(otherwise);
                }
            }
            Self::Call { arguments, .. } => arguments.iter().for_each(visit),
        }
    }
}

fn case<'a, I>(
    operand: Option<&'a Expression<I>>,
    branches: &'a [(Expression<I>, Expression<I>)],
    otherwise: Option<&'a Expression<I>>,
    read: &ReadInput<'_, 'a, I>,
) -> Result<Cow<'a, SqlValue>, Failure> {
    let operand = operand.map(|operand| operand.evaluate(read)).transpose()?;
    for (when, then) in branches {
        let when = when.evaluate(read)?;
        let is_chosen = match &operand {
            Some(operand) => operand.equals(&when)?,
            None => when.truth(),
        };
        if is_chosen {
            return then.evaluate(read);
        }
    }
    otherwise.map_or(Ok(Cow::Owned(SqlValue::Null)), |otherwise| otherwise.evaluate(read))
}

/// `value IN ARRAY[…]`
fn in_list(value: &SqlValue, list: &[Cow<'_, SqlValue>]) -> Result<SqlValue, Failure> {
    if value.is_null() {
        return Ok(SqlValue::Null);
    }
    for element in list {
        if value.equals(element)? {
            return Ok(true.into());
        }
    }
    Ok(if list.iter().any(|element| element.is_null()) { SqlValue::Null } else { false.into() })
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
        Op::Overlap => overlap(left, right),
        Op::Modulo | Op::BitAnd | Op::BitOr | Op::ShiftLeft | Op::ShiftRight => {
            Err(Failure("the operators %, &, |, << and >> have no value"))
        }
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

/// `left && right`
fn overlap(left: &SqlValue, right: &SqlValue) -> Result<SqlValue, Failure> {
    if left.is_null() || right.is_null() {
        return Ok(SqlValue::Null);
    }
    let values = |array| -> Result<BTreeSet<String>, Failure> {
        let elements = array_elements(array)?;
        Ok(elements.iter().map(Json::to_sql).filter(|element| !element.is_null()).map(|each| key_part(&each)).collect())
    };
    Ok((!values(left)?.is_disjoint(&values(right)?)).into())
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
