//! Which queries of a table can match a row at all.
//!
//! Many definitions over one table often differ by a literal: `kind = 'a'`, `kind = 'b'`, … Such queries are found by
//! the row's value, so that a row costs what matches it, not what is defined.

use std::collections::HashMap;

use crate::{
    definition::Filter,
    expression::{BinaryOperator, Expression},
    key,
    row::Cell,
    table_query::{Matcher, TableQuery},
    value::SqlValue,
};

/// The queries of a table, by what they ask of a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dispatch {
    /// Queries every row is tried with, ascending.
    always: Vec<usize>,
    /// By column: queries that match one value of it only, by that value as a key part.
    by_value: Vec<(usize, HashMap<String, Vec<usize>>)>,
}

impl Dispatch {
    pub(crate) fn new(queries: &[TableQuery]) -> Self {
        let mut dispatch = Self::default();
        for (index, query) in queries.iter().enumerate() {
            let Some((column, part)) = required_value(query) else {
                dispatch.always.push(index);
                continue;
            };
            let at = dispatch.by_value.iter().position(|(known, _)| *known == column).unwrap_or_else(|| {
                dispatch.by_value.push((column, HashMap::new()));
                dispatch.by_value.len() - 1
            });
            dispatch.by_value[at].1.entry(part).or_default().push(index);
        }
        dispatch
    }

    /// How many queries a row is tried with that no value excludes.
    pub(crate) fn usual(&self) -> usize {
        self.always.len()
    }

    /// Calls `visit` with the queries to try, ascending.
    pub(crate) fn for_each<E>(
        &self,
        values: &[SqlValue],
        visit: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.by_value.is_empty() {
            return self.always.iter().try_for_each(|index| visit(*index));
        }
        let mut found = self.always.clone();
        for (column, by_part) in &self.by_value {
            let part = values.get(*column).and_then(key::row_key_part);
            found.extend(part.and_then(|part| by_part.get(&part)).into_iter().flatten());
        }
        found.sort_unstable();
        found.into_iter().try_for_each(visit)
    }
}

/// The column and the value, as a key part, without which the query matches no row. `None` where that is not certain,
/// or where a row that does not match must be tried all the same because the query could fail for it.
fn required_value(query: &TableQuery) -> Option<(usize, String)> {
    if !query.expansions.is_empty() {
        return None;
    }
    let mut conditions: Vec<&Expression<Cell>> = query.conditions.iter().collect();
    let mut values: Vec<&Expression<Cell>> = Vec::new();
    let filter = match &query.matcher {
        Matcher::Values(bound) => {
            values.extend(bound);
            &[]
        }
        Matcher::Filter { filter: Filter::All(parts), .. } => parts.as_slice(),
        Matcher::Filter { filter, .. } => std::slice::from_ref(filter),
    };
    for part in filter {
        match part {
            Filter::Condition(condition) => conditions.push(condition),
            Filter::Equals { value, .. } | Filter::EqualsOrNull { value, .. } => values.push(value),
            // A join is asked only for rows that match everything else.
            Filter::Joined { values: joined, .. } => values.extend(joined),
            Filter::Contains { .. } | Filter::IsTrue { .. } | Filter::All(_) | Filter::Any(_) => return None,
        }
    }
    let is_certain = conditions.iter().chain(&values).all(|expression| never_fails(expression));
    is_certain.then(|| conditions.into_iter().find_map(literal_equality)).flatten()
}

/// `column = literal`, also below AND.
fn literal_equality(condition: &Expression<Cell>) -> Option<(usize, String)> {
    let Expression::Binary { operator, left, right } = condition else { return None };
    match (operator, &**left, &**right) {
        (BinaryOperator::And, left, right) => literal_equality(left).or_else(|| literal_equality(right)),
        (BinaryOperator::Equal, Expression::Input(Cell::Index(column)), Expression::Literal(value))
        | (BinaryOperator::Equal, Expression::Literal(value), Expression::Input(Cell::Index(column)))
            if is_exact(value) =>
        {
            Some((*column, key::key_part(value)))
        }
        _ => None,
    }
}

/// Whether equal values have equal key parts. Large numbers do not: INTEGER and REAL print differently.
fn is_exact(value: &SqlValue) -> bool {
    const LIMIT: i128 = 1 << 53;
    match value {
        SqlValue::Text(_) => true,
        SqlValue::Integer(number) => (-LIMIT..=LIMIT).contains(number),
        SqlValue::Null | SqlValue::Real(_) | SqlValue::Blob(_) => false,
    }
}

/// Whether an expression has a value for every row. Comparisons of two columns can meet bytes, which fails.
fn never_fails(expression: &Expression<Cell>) -> bool {
    use BinaryOperator as Op;
    match expression {
        Expression::Input(_) | Expression::Literal(_) => true,
        Expression::Not(operand) | Expression::IsNull { operand, .. } => never_fails(operand),
        Expression::Binary { operator: Op::And | Op::Or, left, right } => never_fails(left) && never_fails(right),
        Expression::Binary {
            operator: Op::Equal | Op::NotEqual | Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual,
            left,
            right,
        } => {
            let is_plain = |side: &Expression<Cell>| matches!(side, Expression::Literal(value) if !matches!(value, SqlValue::Blob(_)));
            (is_plain(left) || is_plain(right)) && never_fails(left) && never_fails(right)
        }
        _ => false,
    }
}
