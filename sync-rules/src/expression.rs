//! Compiled expressions, over inputs of any kind: columns of a row, facts of a request, rows of a write.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    syntax::{BinaryOp, CastTo},
    value::{SqlValue, integer_prefix},
};

/// An expression over inputs `I`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr<I> {
    Const(SqlValue),
    Input(I),
    Apply(Function, Vec<Expr<I>>),
}

/// What is applied to the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Function {
    Binary(BinaryOp),
    Not,
    IsNull,
    /// Membership in a JSON array.
    In,
    /// A member of a JSON document: the steps to it, and whether it is wanted as a value rather than as JSON.
    Json {
        path: Vec<String>,
        as_value: bool,
    },
    Cast(CastTo),
    Upper,
    Lower,
    Length,
    TypeOf,
    IfNull,
}

impl Function {
    /// The function of this name and how many arguments it takes.
    pub(crate) fn by_name(name: &str) -> Option<(Self, usize)> {
        Some(match name {
            "upper" => (Self::Upper, 1),
            "lower" => (Self::Lower, 1),
            "length" => (Self::Length, 1),
            "typeof" => (Self::TypeOf, 1),
            "ifnull" => (Self::IfNull, 2),
            _ => return None,
        })
    }
}

/// Steps of a JSON path: `a` is one key, `$.a.b` are two steps. Without `fixed`, `a.b` is two steps as well.
pub(crate) fn json_path(text: &str, fixed: bool) -> Vec<String> {
    let steps = if text.starts_with('$') { text.split_once('.').map_or("", |(_, rest)| rest) } else { text };
    match (text.starts_with('$'), steps) {
        (true, "") => Vec::new(),
        (false, key) if fixed => vec![key.to_owned()],
        (_, steps) => steps.split('.').map(str::to_owned).collect(),
    }
}

/// Why an expression has no value, without the values.
pub(crate) type Failure = &'static str;

impl<I> Expr<I> {
    /// The value for these inputs.
    pub(crate) fn eval<'a>(
        &'a self,
        input: &impl Fn(&'a I) -> Cow<'a, SqlValue>,
    ) -> Result<Cow<'a, SqlValue>, Failure> {
        match self {
            Self::Const(value) => Ok(Cow::Borrowed(value)),
            Self::Input(name) => Ok(input(name)),
            Self::Apply(function, arguments) => {
                let values =
                    arguments.iter().map(|argument| argument.eval(input)).collect::<Result<Vec<_>, Failure>>()?;
                apply(function, &values).map(Cow::Owned)
            }
        }
    }

    /// The same expression over other inputs.
    pub(crate) fn map<J>(&self, input: &mut impl FnMut(&I) -> J) -> Expr<J> {
        match self {
            Self::Const(value) => Expr::Const(value.clone()),
            Self::Input(name) => Expr::Input(input(name)),
            Self::Apply(function, arguments) => {
                Expr::Apply(function.clone(), arguments.iter().map(|argument| argument.map(input)).collect())
            }
        }
    }

    /// Calls `visit` with every input.
    pub(crate) fn visit(&self, visit: &mut impl FnMut(&I)) {
        match self {
            Self::Const(_) => {}
            Self::Input(name) => visit(name),
            Self::Apply(_, arguments) => arguments.iter().for_each(|argument| argument.visit(visit)),
        }
    }
}

fn apply(function: &Function, values: &[Cow<'_, SqlValue>]) -> Result<SqlValue, Failure> {
    let first = values.first().map_or(&SqlValue::Null, |value| value.as_ref());
    let second = values.get(1).map_or(&SqlValue::Null, |value| value.as_ref());
    let text = |to: fn(&str) -> SqlValue| first.to_text().map_or(SqlValue::Null, |text| to(&text));
    Ok(match function {
        Function::Binary(op) => binary(*op, first, second)?,
        Function::Not => SqlValue::from_bool(!first.truth()),
        Function::IsNull => SqlValue::from_bool(*first == SqlValue::Null),
        Function::In => match (first, second) {
            (SqlValue::Null, _) | (_, SqlValue::Null) => SqlValue::Null,
            (wanted, array) => {
                let found = json_elements(array)?
                    .iter()
                    .any(|element| element.order(wanted).is_some_and(std::cmp::Ordering::is_eq));
                SqlValue::from_bool(found)
            }
        },
        Function::Json { path, as_value } => json(first, path, *as_value)?,
        Function::Cast(to) => cast(first, *to)?,
        Function::Upper => text(|text| SqlValue::Text(text.to_uppercase())),
        Function::Lower => text(|text| SqlValue::Text(text.to_lowercase())),
        Function::Length => match first {
            SqlValue::Blob(bytes) => SqlValue::Integer(bytes.len() as i128),
            _ => text(|text| SqlValue::Integer(text.encode_utf16().count() as i128)),
        },
        Function::TypeOf => SqlValue::Text(
            match first {
                SqlValue::Null => "null",
                SqlValue::Integer(_) => "integer",
                SqlValue::Real(_) => "real",
                SqlValue::Text(_) => "text",
                SqlValue::Blob(_) => "blob",
            }
            .to_owned(),
        ),
        Function::IfNull => if *first == SqlValue::Null { second } else { first }.clone(),
    })
}

fn binary(op: BinaryOp, left: &SqlValue, right: &SqlValue) -> Result<SqlValue, Failure> {
    let compared = |holds: fn(std::cmp::Ordering) -> bool| match (left, right) {
        (SqlValue::Blob(_), SqlValue::Blob(_)) => Err("comparing blobs is not supported"),
        (SqlValue::Null, _) | (_, SqlValue::Null) => Ok(SqlValue::Null),
        // Not a number is unequal to and smaller than everything.
        _ => Ok(SqlValue::from_bool(holds(left.order(right).unwrap_or(std::cmp::Ordering::Less)))),
    };
    match op {
        BinaryOp::And => Ok(SqlValue::from_bool(left.truth() && right.truth())),
        BinaryOp::Or => Ok(SqlValue::from_bool(left.truth() || right.truth())),
        BinaryOp::Equal => compared(std::cmp::Ordering::is_eq),
        BinaryOp::NotEqual => compared(std::cmp::Ordering::is_ne),
        BinaryOp::Less => compared(std::cmp::Ordering::is_lt),
        BinaryOp::LessOrEqual => compared(std::cmp::Ordering::is_le),
        BinaryOp::Greater => compared(std::cmp::Ordering::is_gt),
        BinaryOp::GreaterOrEqual => compared(std::cmp::Ordering::is_ge),
        BinaryOp::Concat => Ok(match (left.to_text(), right.to_text()) {
            (Some(left), Some(right)) => SqlValue::Text(left + &right),
            _ => SqlValue::Null,
        }),
        BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Remainder => {
            arithmetic(op, left, right)
        }
    }
}

fn arithmetic(op: BinaryOp, left: &SqlValue, right: &SqlValue) -> Result<SqlValue, Failure> {
    const TOO_LARGE: Failure = "a number is too large";
    match (numeric(left), numeric(right)) {
        (SqlValue::Null, _) | (_, SqlValue::Null) => Ok(SqlValue::Null),
        (SqlValue::Integer(a), SqlValue::Integer(b)) => {
            let result = match op {
                BinaryOp::Add => a.checked_add(b),
                BinaryOp::Subtract => a.checked_sub(b),
                BinaryOp::Multiply => a.checked_mul(b),
                BinaryOp::Divide if b == 0 => return Ok(SqlValue::Null),
                BinaryOp::Divide => a.checked_div(b),
                _ => return Err("this operator cannot be evaluated"),
            };
            result.map(SqlValue::Integer).ok_or(TOO_LARGE)
        }
        (a, b) => {
            let (a, b) = (real(&a), real(&b));
            Ok(SqlValue::Real(match op {
                BinaryOp::Add => a + b,
                BinaryOp::Subtract => a - b,
                BinaryOp::Multiply => a * b,
                BinaryOp::Divide if b == 0.0 => return Ok(SqlValue::Null),
                BinaryOp::Divide => a / b,
                _ => return Err("this operator cannot be evaluated"),
            }))
        }
    }
}

fn numeric(value: &SqlValue) -> SqlValue {
    match value {
        SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_) => value.clone(),
        other => {
            let text = other.to_text().unwrap_or_default();
            let prefix = number_prefix(&text);
            match prefix.parse::<i128>() {
                Ok(number) => SqlValue::Integer(number),
                Err(_) => prefix.parse().map_or(SqlValue::Integer(0), SqlValue::Real),
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "the nearest binary64 is what is asked for")]
fn real(value: &SqlValue) -> f64 {
    match value {
        SqlValue::Integer(number) => *number as f64,
        SqlValue::Real(number) => *number,
        SqlValue::Null => 0.0,
        other => number_prefix(&other.to_text().unwrap_or_default()).parse().unwrap_or(0.0),
    }
}

/// The longest prefix that is a decimal number.
fn number_prefix(text: &str) -> &str {
    let text = text.trim_start();
    (1..=text.len().min(400))
        .rev()
        .filter_map(|end| text.get(..end))
        .find(|prefix| prefix.bytes().all(|byte| b"+-.eE0123456789".contains(&byte)) && prefix.parse::<f64>().is_ok())
        .unwrap_or_default()
}

fn cast(value: &SqlValue, to: CastTo) -> Result<SqlValue, Failure> {
    Ok(match (to, value) {
        (_, SqlValue::Null) => SqlValue::Null,
        (CastTo::Text, value) => value.to_text().map_or(SqlValue::Null, SqlValue::Text),
        (CastTo::Integer, SqlValue::Integer(number)) => SqlValue::Integer(*number),
        #[expect(clippy::cast_possible_truncation, reason = "beyond 128 bits it saturates, which no column holds")]
        (CastTo::Integer, SqlValue::Real(number)) if number.is_finite() => SqlValue::Integer(number.floor() as i128),
        (CastTo::Integer, SqlValue::Real(_)) => return Err("only a finite number has an integer"),
        (CastTo::Integer, text) => SqlValue::Integer(integer_prefix(&text.to_text().unwrap_or_default())),
        (CastTo::Real, value) => SqlValue::Real(real(value)),
    })
}

fn json(document: &SqlValue, path: &[String], as_value: bool) -> Result<SqlValue, Failure> {
    let Some(text) = document.to_text() else { return Ok(SqlValue::Null) };
    let document: Value = serde_json::from_str(&text).map_err(|_| "a text is no JSON document")?;
    let selected = path.iter().try_fold(&document, |value, step| match value {
        Value::Object(members) => members.get(step),
        Value::Array(elements) => step.parse::<usize>().ok().and_then(|index| elements.get(index)),
        _ => None,
    });
    Ok(match selected {
        None | Some(Value::Null) => SqlValue::Null,
        Some(value) if as_value => json_scalar(value),
        Some(value) => SqlValue::Text(value.to_string()),
    })
}

/// A JSON value as SQL: numbers by their spelling, structures as JSON text.
pub(crate) fn json_scalar(value: &Value) -> SqlValue {
    match value {
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => SqlValue::Integer(whole.into()),
            (None, Some(whole), _) => SqlValue::Integer(whole.into()),
            (_, _, Some(real)) => SqlValue::Real(real),
            _ => SqlValue::Null,
        },
        other => SqlValue::from_json_column(other),
    }
}

/// The elements of a JSON array in text.
pub(crate) fn json_elements(array: &SqlValue) -> Result<Vec<SqlValue>, Failure> {
    const NO_ARRAY: Failure = "a text is no JSON array";
    let SqlValue::Text(text) = array else { return Err(NO_ARRAY) };
    let elements: Vec<Value> = serde_json::from_str(text).map_err(|_| NO_ARRAY)?;
    Ok(elements.iter().map(json_scalar).collect())
}
