//! The order of a bucket's parameters, which is part of its name: by a hash of the expressions, as PowerSync orders
//! them. Clients that move here keep their buckets' names.

use crate::{
    expression::{BinaryOperator, Expression},
    functions::Function,
    number::write_ecmascript,
    value::SqlValue,
};

use super::leaf::{Instances, StreamExpression, StreamLeaf};

const MASK: u32 = 0x1fff_ffff;
const INITIAL: u32 = 614_160_925;

/// A 29-bit hash over UTF-16 units.
struct Hasher(u32);

impl Hasher {
    fn add_text(&mut self, text: &str) {
        for unit in text.encode_utf16() {
            self.add(u32::from(unit));
        }
    }

    fn add(&mut self, value: u32) {
        let mut hash = (self.0 + value) & MASK;
        hash = (hash + ((hash & 0x7_ffff) << 10)) & MASK;
        self.0 = hash ^ (hash >> 6);
    }

    fn finish(self) -> u32 {
        let mut hash = (self.0 + ((self.0 & 0x3ff_ffff) << 3)) & MASK;
        hash ^= hash >> 11;
        (hash + ((hash & 0x3fff) << 15)) & MASK
    }
}

/// What a key is ordered by.
pub(super) fn key_hash(key: &StreamExpression, instances: &Instances) -> u32 {
    let mut hasher = Hasher(INITIAL);
    let mut function = None;
    key.visit_inputs(&mut |leaf| {
        if let StreamLeaf::Element { function: found, .. } = leaf {
            function = Some(*found);
        }
    });
    if let Some(function) = function {
        hasher.add_text("json_each");
        add_expression(&instances.functions[function].array, &mut hasher);
    }
    add_expression(key, &mut hasher);
    hasher.finish()
}

fn add_expression(expression: &StreamExpression, hasher: &mut Hasher) {
    let mut text = String::new();
    write(expression, &mut text);
    hasher.add_text(&text);
    expression.visit_inputs(&mut |leaf| match leaf {
        StreamLeaf::Column { name, .. } => hasher.add_text(name),
        StreamLeaf::Element { part, .. } => hasher.add_text(match part {
            crate::definition::ElementPart::Key => "key",
            crate::definition::ElementPart::Value => "value",
        }),
        StreamLeaf::Request(_) => {}
    });
}

/// How strongly an expression binds; operands that do not bind more strongly get parentheses.
fn rank(expression: &StreamExpression) -> u8 {
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
        Expression::Literal(_)
        | Expression::Input(_)
        | Expression::Case { .. }
        | Expression::Cast { .. }
        | Expression::JsonMember { .. }
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

/// An expression as SQL, with `?` for what it reads.
fn write(expression: &StreamExpression, out: &mut String) {
    let outer = rank(expression);
    let operand = |operand: &StreamExpression, out: &mut String| {
        if rank(operand) <= outer {
            out.push('(');
            write(operand, out);
            out.push(')');
        } else {
            write(operand, out);
        }
    };
    match expression {
        Expression::Literal(value) => write_literal(value, out),
        Expression::Input(_) => out.push('?'),
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
            write_list(list, out);
        }
        Expression::Case { operand: inner, branches, otherwise } => {
            write_case(inner.as_deref(), branches, otherwise.as_deref(), out);
        }
        Expression::Cast { operand: inner, to } => {
            out.push_str("CAST(");
            write(inner, out);
            out.push_str(" AS ");
            out.push_str(to.name());
            out.push(')');
        }
        Expression::JsonMember { document, path, as_value } => {
            out.push_str(if *as_value { "\"->>\"(" } else { "\"->\"(" });
            write(document, out);
            out.push_str(", ");
            write_literal(&SqlValue::Text(path.text().to_owned()), out);
            out.push(')');
        }
        Expression::Call { function, arguments } => write_call(*function, arguments, out),
    }
}

fn write_call(function: Function, arguments: &[StreamExpression], out: &mut String) {
    out.push('"');
    out.push_str(function.name());
    out.push('"');
    write_list(arguments, out);
}

fn write_list(list: &[StreamExpression], out: &mut String) {
    out.push('(');
    for (index, element) in list.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write(element, out);
    }
    out.push(')');
}

fn write_case(
    operand: Option<&StreamExpression>,
    branches: &[(StreamExpression, StreamExpression)],
    otherwise: Option<&StreamExpression>,
    out: &mut String,
) {
    out.push_str("CASE");
    let mut part = |word: &str, expression: &StreamExpression| {
        out.push(' ');
        out.push_str(word);
        out.push_str(if word.is_empty() { "" } else { " " });
        write(expression, out);
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

fn write_literal(value: &SqlValue, out: &mut String) {
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

    fn column(name: &str) -> StreamExpression {
        Expression::Input(StreamLeaf::Column { table: 0, name: name.to_owned() })
    }

    fn order(names: &[&'static str]) -> Vec<&'static str> {
        let mut names = names.to_vec();
        names.sort_by_key(|name| key_hash(&column(name), &Instances::default()));
        names
    }

    #[test]
    fn keys_stand_in_the_order_of_the_specification() {
        assert_eq!(order(&["c1", "c2", "c3", "c4", "c5"]), ["c5", "c3", "c2", "c4", "c1"]);
        assert_eq!(order(&["owner", "org", "team"]), ["team", "org", "owner"]);
        assert_eq!(order(&["b", "a"]), ["a", "b"]);
        assert_eq!(order(&["org_id", "region"]), ["region", "org_id"]);
    }

    #[test]
    fn a_call_hashes_as_specified() {
        let lower = Expression::Call { function: Function::Lower, arguments: vec![column("name")] };
        assert_eq!(key_hash(&lower, &Instances::default()), 340_108_774);
    }

    #[test]
    fn operands_that_bind_as_strongly_get_parentheses() {
        let mut text = String::new();
        let sum = Expression::binary(BinaryOperator::Add, column("a"), Expression::Literal(SqlValue::Integer(1)));
        write(&Expression::binary(BinaryOperator::Multiply, sum.clone(), sum), &mut text);
        assert_eq!(text, "(? + 1) * (? + 1)");
    }
}
