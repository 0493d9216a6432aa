//! Compiled expressions as SQL text: for people, and for the hash that orders a bucket's parameters.

use std::fmt::Write;

use crate::{
    expression::{BinaryOperator, Expression},
    functions::Function,
    number::write_ecmascript,
    value::SqlValue,
};

/// How strongly an expression binds; operands that do not bind more strongly get parentheses.
fn rank<I>(expression: &Expression<I>) -> u8 {
    use BinaryOperator as Op;
    match expression {
        Expression::Binary { operator, .. } => match operator {
            Op::Or => 0,
            Op::And => 1,
            Op::Equal | Op::NotEqual | Op::In | Op::Overlap => 3,
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => 4,
            Op::BitAnd | Op::BitOr | Op::ShiftLeft | Op::ShiftRight => 5,
            Op::Add | Op::Subtract => 6,
            Op::Multiply | Op::Divide | Op::Modulo => 7,
            Op::Concatenate => 8,
        },
        Expression::Not(_) => 2,
        Expression::IsNull { .. }
        | Expression::IsTruth { .. }
        | Expression::Between { .. }
        | Expression::InList { .. } => 3,
        Expression::JsonMember { .. } => 9,
        Expression::Literal(_)
        | Expression::Input(_)
        | Expression::Case { .. }
        | Expression::Cast { .. }
        | Expression::Call { .. } => 10,
    }
}

const fn symbol(operator: BinaryOperator) -> &'static str {
    use BinaryOperator as Op;
    match operator {
        Op::And => "and",
        Op::Or => "or",
        Op::Equal => "=",
        Op::NotEqual => "!=",
        Op::Less => "<",
        Op::LessOrEqual => "<=",
        Op::Greater => ">",
        Op::GreaterOrEqual => ">=",
        Op::Add => "+",
        Op::Subtract => "-",
        Op::Multiply => "*",
        Op::Divide => "/",
        Op::Modulo => "%",
        Op::BitAnd => "&",
        Op::BitOr => "|",
        Op::ShiftLeft => "<<",
        Op::ShiftRight => ">>",
        Op::Concatenate => "||",
        Op::In => "IN",
        Op::Overlap => "&&",
    }
}

/// How an expression is written.
pub(crate) struct Namer<'n, I> {
    /// Names what it reads.
    pub input: &'n dyn Fn(&I) -> String,
    /// Calls in the form that bucket names depend on: `"->>"(x, 'a')` for `x ->> 'a'`.
    pub is_hashed: bool,
}

/// Appends an expression as SQL.
pub(crate) fn write_sql<I>(expression: &Expression<I>, namer: &Namer<'_, I>, out: &mut String) {
    let outer = rank(expression);
    let operand = |operand: &Expression<I>, out: &mut String| {
        if rank(operand) <= outer {
            out.push('(');
            write_sql(operand, namer, out);
            out.push(')');
        } else {
            write_sql(operand, namer, out);
        }
    };
    match expression {
        Expression::Literal(value) => write_literal(value, out),
        Expression::Input(read) => out.push_str(&(namer.input)(read)),
        Expression::Not(inner) => {
            out.push_str("not ");
            operand(inner, out);
        }
        Expression::IsNull { operand: inner, negated } => {
            operand(inner, out);
            out.push_str(if *negated { " is not NULL" } else { " is NULL" });
        }
        Expression::IsTruth { operand: inner, value } => {
            operand(inner, out);
            out.push_str(if *value { " is TRUE" } else { " is FALSE" });
        }
        Expression::Binary { operator, left, right } => {
            operand(left, out);
            out.push(' ');
            out.push_str(symbol(*operator));
            out.push(' ');
            operand(right, out);
        }
        Expression::Between { operand: inner, low, high } => {
            operand(inner, out);
            out.push_str(" BETWEEN ");
            operand(low, out);
            out.push_str(" AND ");
            operand(high, out);
        }
        Expression::InList { operand: inner, list } => {
            operand(inner, out);
            out.push_str(" IN ");
            write_list(list, namer, out);
        }
        Expression::Case { operand: inner, branches, otherwise } => {
            write_case(inner.as_deref(), branches, otherwise.as_deref(), namer, out);
        }
        Expression::Cast { operand: inner, to } => {
            out.push_str("CAST(");
            write_sql(inner, namer, out);
            out.push_str(" AS ");
            out.push_str(to.name());
            out.push(')');
        }
        Expression::JsonMember { document, path, as_value } => {
            let operator = if *as_value { "->>" } else { "->" };
            if namer.is_hashed {
                let _ = write!(out, "\"{operator}\"(");
                write_sql(document, namer, out);
                out.push_str(", ");
            } else {
                operand(document, out);
                let _ = write!(out, " {operator} ");
            }
            write_literal(&SqlValue::Text(path.text().to_owned()), out);
            out.push_str(if namer.is_hashed { ")" } else { "" });
        }
        Expression::Call { function, arguments } => write_call(*function, arguments, namer, out),
    }
}

fn write_call<I>(function: Function, arguments: &[Expression<I>], namer: &Namer<'_, I>, out: &mut String) {
    let quote = if namer.is_hashed { "\"" } else { "" };
    let _ = write!(out, "{quote}{}{quote}", function.name());
    write_list(arguments, namer, out);
}

fn write_list<I>(list: &[Expression<I>], namer: &Namer<'_, I>, out: &mut String) {
    out.push('(');
    for (index, element) in list.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_sql(element, namer, out);
    }
    out.push(')');
}

fn write_case<I>(
    operand: Option<&Expression<I>>,
    branches: &[(Expression<I>, Expression<I>)],
    otherwise: Option<&Expression<I>>,
    namer: &Namer<'_, I>,
    out: &mut String,
) {
    out.push_str("CASE");
    let mut part = |word: &str, expression: &Expression<I>| {
        out.push(' ');
        out.push_str(word);
        out.push_str(if word.is_empty() { "" } else { " " });
        write_sql(expression, namer, out);
    };
    if let Some(operand) = operand {
        part("", operand);
    }
    for (when, then) in branches {
        part("WHEN", when);
        part("THEN", then);
    }
    if let Some(otherwise) = otherwise {
        part("ELSE", otherwise);
    }
    out.push_str(" END");
}

/// Appends a value as SQL; bytes as NULL.
pub(crate) fn write_literal(value: &SqlValue, out: &mut String) {
    match value {
        SqlValue::Null | SqlValue::Blob(_) => out.push_str("NULL"),
        SqlValue::Integer(number) => out.push_str(&number.to_string()),
        SqlValue::Real(number) => {
            let start = out.len();
            write_ecmascript(*number, out);
            if out.as_bytes()[start..].iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') {
                out.push_str(".0");
            }
        }
        SqlValue::Text(text) => {
            out.push('\'');
            out.push_str(&text.replace('\'', "''"));
            out.push('\'');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_bind_as_strongly_get_parentheses() {
        let mut text = String::new();
        let sum =
            Expression::binary(BinaryOperator::Add, Expression::Input(()), Expression::Literal(SqlValue::Integer(1)));
        write_sql(
            &Expression::binary(BinaryOperator::Multiply, sum.clone(), sum),
            &Namer { input: &|()| "a".to_owned(), is_hashed: true },
            &mut text,
        );
        assert_eq!(text, "(a + 1) * (a + 1)");
    }
}
