//! Finds parameter queries that let clients choose what they see.

use crate::{
    definition::{Filter, RequestInput, RowInput},
    expression::Expression,
};

use super::{super::filter::Asked, parameters::TableValue};

/// Whether an expression reads what the token vouches for, and what the client chooses.
fn sources(expression: &Expression<RequestInput>) -> (bool, bool) {
    let (mut authenticated, mut chosen) = (false, false);
    expression.visit_inputs(&mut |input| {
        authenticated |= input.is_authenticated();
        chosen |= !input.is_authenticated();
    });
    (authenticated, chosen)
}

/// Of a query without a table: something chosen anywhere, and nothing the token vouches for in what must be vouched for.
pub(super) fn is_dangerous_request(
    conditions: &[Expression<RequestInput>],
    columns: &[Expression<RequestInput>],
    vouching: &[Expression<RequestInput>],
) -> bool {
    let chosen = conditions.iter().chain(columns).any(|expression| sources(expression).1);
    chosen && !vouching.iter().any(|column| sources(column).0)
}

/// Of a query over a table: something chosen anywhere, and nothing the token vouches for in columns and filter.
pub(super) fn is_dangerous_table(filter: &Filter<RowInput>, asked: &[Asked], values: &[TableValue]) -> bool {
    let columns = || {
        values.iter().filter_map(|value| match value {
            TableValue::Request(expression) => Some(sources(expression)),
            TableValue::Row(_) => None,
        })
    };
    let chosen = columns().any(|(_, chosen)| chosen) || asked.iter().any(|asked| sources(&asked.value).1);
    let restricted = filter.is_restricted_by(&|slot| sources(&asked[slot].value).0);
    chosen && !restricted && !columns().any(|(authenticated, _)| authenticated)
}

impl Filter<RowInput> {
    /// Whether a slot that `trusted` accepts restricts the filter. OR never counts: each side could be the open one.
    pub(crate) fn is_restricted_by(&self, trusted: &dyn Fn(usize) -> bool) -> bool {
        match self {
            Self::Equals { slot, .. } | Self::Contains { slot, .. } | Self::IsTrue { slot } => trusted(*slot),
            Self::All(parts) => parts.iter().any(|part| part.is_restricted_by(trusted)),
            Self::Condition(_) | Self::EqualsOrNull { .. } | Self::Joined { .. } | Self::Any(_) => false,
        }
    }
}
