//! Joins at write time: a row's buckets follow from the rows it is joined with, so that a client has one bucket for all
//! it can see through them, not one per joined row.
//!
//! The graph is walked from the synced table. Where a table meets the request there is a bucket parameter; where it
//! meets another table, that table's rows say, by the joined values, which parameters they stand for. Rows that ask are
//! evaluated again when the answer changes.

use crate::{
    definition::{BucketQuery, Filter, IndexPart, Nulls, Parameter, RowInput, RowQuery, RowSource, Step, ValueSource},
    diagnostic::Problem,
    syntax::Position,
};

use super::{
    super::PlanBuilder,
    graph::{Graph, request_expression},
    leaf::{Node, StreamExpression},
};

/// Tables joined behind each other; each is one more round of evaluation when a row changes.
const DEPTH_MAX: usize = 8;

/// A bucket parameter: a value of the request that rows are compared with.
#[derive(PartialEq)]
struct Slot<'q> {
    node: Node,
    value: &'q StreamExpression,
}

/// A walk through the graph.
struct Walk<'g, 'q> {
    graph: &'g Graph<'q>,
    label: &'g str,
    at: Position,
    builder: &'g mut PlanBuilder,
    slots: Vec<Slot<'q>>,
    visited: Vec<Node>,
}

impl<'q> Graph<'q> {
    /// Plans the alternative with one bucket per combination of the request's values.
    pub(super) fn plan_at_write_time(
        &self,
        label: &str,
        at: Position,
        builder: &mut PlanBuilder,
    ) -> Result<(RowQuery, BucketQuery), Problem> {
        if let Some(component) = self.other_components()?.first() {
            return Err(self.not_joined(component, at));
        }
        let slots = self.request_values();
        let mut walk = Walk { graph: self, label, at, builder, slots, visited: Vec::new() };
        let (source, reader_values) = walk.source(self.primary, None, 0)?;
        let reader = self.row_source(self.primary, &reader_values);
        let Walk { slots, .. } = walk;
        let mut query = BucketQuery {
            bucket: String::new(),
            priority: 0,
            conditions: self.conjunction.request.iter().map(request_expression).collect(),
            steps: Vec::new(),
            parameters: Vec::new(),
            nulls: Nulls::Drop,
        };
        let mut functions: Vec<(Node, Vec<&StreamExpression>)> = Vec::new();
        for Slot { node, value } in &slots {
            query.parameters.push(Parameter(vec![match node {
                Node::Function(_) => {
                    let step = functions.iter().position(|(known, _)| known == node).unwrap_or_else(|| {
                        functions.push((*node, Vec::new()));
                        functions.len() - 1
                    });
                    functions[step].1.push(value);
                    ValueSource::Found { step, output: functions[step].1.len() - 1 }
                }
                _ => ValueSource::Request(request_expression(value)),
            }]));
        }
        query.steps = functions.iter().filter_map(|(node, outputs)| self.function_step(*node, outputs)).collect();
        Ok((self.row_query(source, &reader), query))
    }

    fn function_step(&self, node: Node, outputs: &[&StreamExpression]) -> Option<Step> {
        match node {
            Node::Function(function) => Some(self.elements(function, outputs)),
            _ => None,
        }
    }

    /// What rows are compared with on the request's side, each once.
    fn request_values(&self) -> Vec<Slot<'q>> {
        let mut slots: Vec<Slot<'q>> = Vec::new();
        for edge in &self.edges {
            let slot = Slot { node: edge.other, value: edge.other_value };
            let is_request = matches!(edge.other, Node::Request | Node::Function(_));
            if is_request && matches!(edge.node, Node::Table(_)) && !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        slots
    }

    fn not_joined(&self, component: &[Node], at: Position) -> Problem {
        let table = component.iter().find_map(|node| match node {
            Node::Table(table) => Some(self.instances.tables[*table].pattern.name.as_str()),
            _ => None,
        });
        let message = match table {
            Some(table) => format!("`{table}` is not joined with the synced table, which `write_time_joins` needs"),
            None => "a condition on the request alone cannot look into an array with `write_time_joins`".to_owned(),
        };
        Problem::new("write_time_join_unsupported", message, at)
            .help("compare a column of it with a column of the synced table, or leave `write_time_joins` out")
    }
}

impl<'q> Walk<'_, 'q> {
    /// The rows of a table and how they bind slots; and the expressions of the table that are compared. `from` is where
    /// the walk comes from.
    fn source(
        &mut self,
        node: Node,
        from: Option<Node>,
        depth: usize,
    ) -> Result<(RowSource, Vec<&'q StreamExpression>), Problem> {
        let circle = || {
            Problem::new("write_time_join_unsupported", "tables are joined in a circle", self.at)
                .help("leave out one of the comparisons, or `write_time_joins`")
        };
        if self.visited.contains(&node) || depth > DEPTH_MAX {
            return Err(circle());
        }
        self.visited.push(node);
        let mut neighbours: Vec<Node> = Vec::new();
        let mut used: Vec<&'q StreamExpression> = Vec::new();
        for edge in self.graph.edges_of(node) {
            used.push(edge.value);
            if matches!(edge.other, Node::Table(_)) && Some(edge.other) != from && !neighbours.contains(&edge.other) {
                neighbours.push(edge.other);
            }
        }
        let reader = self.graph.row_source(node, &used);
        let mut filters: Vec<Filter<RowInput>> = Vec::new();
        for edge in self.graph.edges_of(node) {
            let slot = Slot { node: edge.other, value: edge.other_value };
            if let Some(slot) = self.slots.iter().position(|known| *known == slot) {
                filters.push(Filter::Equals { slot, value: reader.expression(edge.value) });
            }
        }
        for neighbour in neighbours {
            let edges: Vec<_> = self.graph.edges_of(node).filter(|edge| edge.other == neighbour).collect();
            let (source, used) = self.source(neighbour, Some(node), depth + 1)?;
            let inner = self.graph.row_source(neighbour, &used);
            let key = edges.iter().map(|edge| IndexPart::Row(inner.expression(edge.other_value))).collect();
            let slots = source.filter.slots();
            let answer = slots.iter().map(|slot| IndexPart::Slot(*slot)).collect();
            let label = format!("{}, join with {}", self.label, source.table.name);
            let index = self.builder.index(&label, source, key, answer);
            let values = edges.iter().map(|edge| reader.expression(edge.value)).collect();
            filters.push(Filter::Joined { index, values, slots });
        }
        let source = RowSource {
            filter: Filter::All(filters),
            slot_count: self.slots.len(),
            ..self.graph.source(node, &reader)
        };
        Ok((source, used))
    }
}
