//! An alternative as a graph: tables and arrays meet each other and the request where values are equal.
//!
//! From the request outwards, each node becomes a step that is asked with what is known by then; the primary table's
//! sides of its equalities become the bucket's parameters.

use crate::{
    definition::{
        BucketQuery, ElementForm, ElementInput, Filter, IndexPart, Nulls, OutputStyle, Parameter, RequestInput,
        RowInput, RowQuery, RowSource, Step, ValueSource,
    },
    diagnostic::Problem,
    expression::Expression,
    syntax::Position,
};

use super::{
    super::PlanBuilder,
    conjunction::Conjunction,
    key_order::key_hash,
    leaf::{Instances, Node, StreamExpression, StreamLeaf},
    query::{OutputColumn, Query},
};

/// An alternative of a query.
pub(super) struct Graph<'q> {
    pub instances: &'q Instances,
    pub primary: Node,
    pub columns: &'q [OutputColumn],
    pub conjunction: &'q Conjunction,
    /// The equalities, each seen from both of its sides.
    pub edges: Vec<Edge<'q>>,
    /// The option `fixed_json_extract`.
    pub fixed_json: bool,
}

/// An equality as one of its sides sees it.
#[derive(Clone, Copy)]
pub(super) struct Edge<'q> {
    pub node: Node,
    pub value: &'q StreamExpression,
    pub other: Node,
    pub other_value: &'q StreamExpression,
    pub at: Position,
}

impl<'q> Graph<'q> {
    pub(super) fn new(query: &'q Query, conjunction: &'q Conjunction, fixed_json: bool) -> Self {
        let instances = &query.instances;
        let node = |value: &StreamExpression| instances.nodes(value).first().copied().unwrap_or(Node::Request);
        let mut edges = Vec::new();
        for equality in &conjunction.equalities {
            let (left, right) = (node(&equality.left), node(&equality.right));
            let edge = |node, value, other, other_value| Edge { node, value, other, other_value, at: equality.at };
            edges.push(edge(left, &equality.left, right, &equality.right));
            edges.push(edge(right, &equality.right, left, &equality.left));
        }
        let primary = Node::Table(query.primary);
        Self { instances, primary, columns: &query.columns, conjunction, edges, fixed_json }
    }

    pub(super) fn edges_of(&self, node: Node) -> impl Iterator<Item = Edge<'q>> {
        self.edges.iter().copied().filter(move |edge| edge.node == node)
    }

    /// The nodes that hang together with one, itself included, without going through the request. Ascending.
    pub(super) fn component(&self, from: Node) -> Vec<Node> {
        let mut found = vec![from];
        let mut at = 0;
        while let Some(node) = found.get(at).copied() {
            for edge in self.edges_of(node) {
                if edge.other != Node::Request && !found.contains(&edge.other) {
                    found.push(edge.other);
                }
            }
            at += 1;
        }
        found.sort_unstable();
        found
    }

    /// All nodes of the alternative but the request, ascending.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let functions =
            self.conjunction.present_functions.iter().map(|function| self.instances.function_node(*function));
        let mut nodes: Vec<Node> = self
            .edges
            .iter()
            .map(|edge| edge.node)
            .chain(self.conjunction.conditions.iter().map(|(node, _)| *node))
            .chain(self.conjunction.present.iter().copied())
            .chain(functions)
            .filter(|node| *node != Node::Request)
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    pub(super) fn condition(&self, node: Node) -> Option<&'q StreamExpression> {
        self.conjunction.conditions.iter().find(|(known, _)| *known == node).map(|(_, condition)| condition)
    }

    /// Components the primary table is not in: they must have a row. Refuses those nothing restricts.
    pub(super) fn other_components(&self) -> Result<Vec<Vec<Node>>, Problem> {
        let mut seen = self.component(self.primary);
        let mut components = Vec::new();
        for node in self.nodes() {
            if seen.contains(&node) {
                continue;
            }
            let component = self.component(node);
            let edges = || component.iter().flat_map(|node| self.edges_of(*node));
            let is_restricted = edges().any(|edge| edge.other == Node::Request)
                || component.iter().any(|node| self.condition(*node).is_some());
            if let Some(edge) = edges().next().filter(|_| !is_restricted) {
                return Err(Problem::new(
                    "filter_not_associated",
                    "these tables are joined with each other, but not with the synced table",
                    edge.at,
                )
                .help("compare one of their columns with a column of the synced table or with the request"));
            }
            seen.extend(&component);
            components.push(component);
        }
        Ok(components)
    }

    /// A table's rows as a query reads them. `used` are the expressions over it, columns excepted.
    pub(super) fn row_source(&self, node: Node, used: &[&StreamExpression]) -> RowReader<'q> {
        let Node::Table(table) = node else {
            return RowReader { table: 0, functions: Vec::new(), instances: self.instances };
        };
        let mut functions: Vec<usize> = self
            .conjunction
            .present_functions
            .iter()
            .copied()
            .filter(|function| self.instances.functions[*function].owner == Some(table))
            .collect();
        let columns = self.columns.iter().filter_map(|column| match column {
            OutputColumn::Value { value, .. } if node == self.primary => Some(value),
            _ => None,
        });
        for expression in self.condition(node).into_iter().chain(used.iter().copied()).chain(columns) {
            expression.visit_inputs(&mut |leaf| match leaf {
                StreamLeaf::Element { function, .. } if !functions.contains(function) => functions.push(*function),
                _ => {}
            });
        }
        RowReader { table, functions, instances: self.instances }
    }

    /// The row query's select list.
    pub(super) fn row_query(&self, source: RowSource, reader: &RowReader<'_>) -> RowQuery {
        RowQuery {
            object_type: self.instances.tables[reader.table].object_type.clone(),
            columns: self.columns.iter().map(|column| column.item(|value| reader.expression(value))).collect(),
            source,
            style: OutputStyle::Plain,
        }
    }

    pub(super) fn source(&self, node: Node, reader: &RowReader<'_>) -> RowSource {
        RowSource {
            table: self.instances.tables[reader.table].pattern.clone(),
            expansions: reader.expansions(self.fixed_json),
            conditions: self.condition(node).map(|condition| reader.expression(condition)).into_iter().collect(),
            filter: Filter::always(),
            slot_count: 0,
        }
    }

    /// The step that takes an array of the request apart.
    pub(super) fn elements(&self, function: usize, outputs: &[&StreamExpression]) -> Step {
        Step::Elements {
            array: request_expression(&self.instances.functions[function].array),
            form: ElementForm::JsonEach { fixed: self.fixed_json },
            filter: self.condition(Node::Function(function)).map(element_expression).into_iter().collect(),
            outputs: outputs.iter().map(|output| element_expression(output)).collect(),
        }
    }

    /// Refuses an array of the request that several tables are compared with, where PowerSync does: when the walk from
    /// the synced table, in the order of the comparisons, comes to the array before it has been to all of them.
    fn check_arrays(&self, node: Node, visited: &mut Vec<Node>) -> Result<(), Problem> {
        visited.push(node);
        for edge in self.edges_of(node) {
            if edge.other == Node::Request || visited.contains(&edge.other) {
                continue;
            }
            if let Node::Function(_) = node {
                return Err(Problem::new(
                    "table_function_inputs",
                    "an array of the request is compared with several tables",
                    edge.at,
                )
                .help("compare it with one table, and the tables with each other"));
            }
            self.check_arrays(edge.other, visited)?;
        }
        Ok(())
    }

    /// Plans the alternative with one bucket per combination of the primary table's values.
    pub(super) fn plan(&self, label: &str, builder: &mut PlanBuilder) -> Result<(RowQuery, BucketQuery), Problem> {
        self.check_arrays(self.primary, &mut Vec::new())?;
        let mut steps = Steps { graph: self, label, builder, found: Vec::new(), placed: Vec::new() };
        let reached = self.component(self.primary);
        steps.place(reached.into_iter().filter(|node| *node != self.primary).collect())?;
        for component in self.other_components()? {
            steps.place(component)?;
        }
        let mut keys: Vec<(&StreamExpression, Parameter)> = Vec::new();
        for edge in self.edges_of(self.primary) {
            let source = steps.value(edge.other, edge.other_value);
            add_key(&mut keys, edge.value, source);
        }
        let steps = steps.found;
        keys.sort_by_key(|(key, _)| key_hash(key, self.instances));
        let used: Vec<_> = keys.iter().map(|(key, _)| *key).collect();
        let reader = self.row_source(self.primary, &used);
        let equals = |(slot, key): (usize, &&StreamExpression)| Filter::Equals { slot, value: reader.expression(key) };
        let filter = Filter::All(used.iter().enumerate().map(equals).collect());
        let source = RowSource { filter, slot_count: keys.len(), ..self.source(self.primary, &reader) };
        let query = BucketQuery {
            bucket: String::new(),
            priority: 0,
            conditions: self.conjunction.request.iter().map(request_expression).collect(),
            steps,
            parameters: keys.into_iter().map(|(_, parameter)| parameter).collect(),
            nulls: Nulls::Drop,
        };
        Ok((self.row_query(source, &reader), query))
    }
}

/// Adds a source to the key of this expression.
fn add_key<'q>(keys: &mut Vec<(&'q StreamExpression, Parameter)>, key: &'q StreamExpression, source: ValueSource) {
    match keys.iter_mut().find(|(known, _)| *known == key) {
        Some((_, Parameter(sources))) if sources.contains(&source) => {}
        Some((_, Parameter(sources))) => sources.push(source),
        None => keys.push((key, Parameter(vec![source]))),
    }
}

/// Steps being put in order.
struct Steps<'g, 'q> {
    graph: &'g Graph<'q>,
    label: &'g str,
    builder: &'g mut PlanBuilder,
    found: Vec<Step>,
    /// Nodes with their steps and what these give.
    placed: Vec<(Node, usize, Vec<&'q StreamExpression>)>,
}

impl<'q> Steps<'_, 'q> {
    /// Makes steps of nodes that hang together, from the request outwards, so that as little as possible is looked up.
    fn place(&mut self, mut pending: Vec<Node>) -> Result<(), Problem> {
        while !pending.is_empty() {
            let is_known = |node: &Node| {
                let mut edges = self.graph.edges_of(*node);
                edges.any(|edge| edge.other == Node::Request || self.is_placed(edge.other))
            };
            let next = pending
                .iter()
                .position(|node| matches!(node, Node::Function(_)))
                .or_else(|| pending.iter().position(is_known))
                .unwrap_or(0);
            let node = pending.remove(next);
            self.place_node(node)?;
        }
        Ok(())
    }

    fn is_placed(&self, node: Node) -> bool {
        self.placed.iter().any(|(placed, ..)| *placed == node)
    }

    fn place_node(&mut self, node: Node) -> Result<(), Problem> {
        let mut keys: Vec<(&StreamExpression, Parameter)> = Vec::new();
        let mut outputs: Vec<&StreamExpression> = Vec::new();
        for edge in self.graph.edges_of(node) {
            if edge.other == Node::Request || self.is_placed(edge.other) {
                if let Node::Function(_) = node {
                    return Err(Problem::new(
                        "table_function_inputs",
                        "an array of the request is compared with a value of the request",
                        edge.at,
                    )
                    .help("compare the array with a column, or give the token a claim for the answer"));
                }
                let source = self.value(edge.other, edge.other_value);
                add_key(&mut keys, edge.value, source);
            } else if !outputs.contains(&edge.value) {
                outputs.push(edge.value);
            }
        }
        let step = match node {
            Node::Function(function) => self.graph.elements(function, &outputs),
            _ => self.lookup(node, keys, &outputs),
        };
        self.found.push(step);
        self.placed.push((node, self.found.len() - 1, outputs));
        Ok(())
    }

    fn lookup(
        &mut self,
        node: Node,
        mut keys: Vec<(&'q StreamExpression, Parameter)>,
        outputs: &[&'q StreamExpression],
    ) -> Step {
        keys.sort_by_key(|(key, _)| key_hash(key, self.graph.instances));
        let used: Vec<_> = keys.iter().map(|(key, _)| *key).chain(outputs.iter().copied()).collect();
        let reader = self.graph.row_source(node, &used);
        let part = |value: &StreamExpression| IndexPart::Row(reader.expression(value));
        let key = keys.iter().map(|(key, _)| part(key)).collect();
        let value = outputs.iter().map(|output| part(output)).collect();
        let source = self.graph.source(node, &reader);
        let label = format!("{}, lookup on {}", self.label, source.table.name);
        let index = self.builder.index(&label, source, key, value);
        Step::Lookup { index, inputs: keys.into_iter().map(|(_, parameter)| parameter).collect() }
    }

    /// Where the other side of an equality comes from.
    fn value(&self, node: Node, value: &StreamExpression) -> ValueSource {
        let found = self.placed.iter().find(|(placed, ..)| *placed == node).and_then(|(_, step, outputs)| {
            let output = outputs.iter().position(|output| *output == value)?;
            Some(ValueSource::Found { step: *step, output })
        });
        found.unwrap_or_else(|| ValueSource::Request(request_expression(value)))
    }
}

/// Translates expressions over one table.
pub(super) struct RowReader<'q> {
    table: usize,
    /// The arrays a row is expanded by.
    functions: Vec<usize>,
    instances: &'q Instances,
}

impl RowReader<'_> {
    pub(super) fn expression(&self, expression: &StreamExpression) -> Expression<RowInput> {
        expression.map(|leaf| match leaf {
            StreamLeaf::Column { name, .. } => RowInput::Column(name.clone()),
            StreamLeaf::Table { part, .. } => RowInput::Table(*part),
            StreamLeaf::Element { function, part } => {
                let expansion = self.functions.iter().position(|known| known == function).unwrap_or(usize::MAX);
                RowInput::Element { expansion, part: *part }
            }
            StreamLeaf::Request(_) => unreachable!("an expression over a table reads nothing of the request"),
        })
    }

    fn expansions(&self, fixed: bool) -> Vec<crate::definition::Expansion> {
        let expansion = |function: &usize| crate::definition::Expansion {
            array: self.expression(&self.instances.functions[*function].array),
            fixed,
        };
        self.functions.iter().map(expansion).collect()
    }
}

/// An expression over the request alone.
pub(super) fn request_expression(expression: &StreamExpression) -> Expression<RequestInput> {
    expression.map(|leaf| match leaf {
        StreamLeaf::Request(input) => input.clone(),
        StreamLeaf::Column { .. } | StreamLeaf::Table { .. } | StreamLeaf::Element { .. } => {
            unreachable!("an expression over the request reads no table")
        }
    })
}

fn element_expression(expression: &StreamExpression) -> Expression<ElementInput> {
    expression.map(|leaf| match leaf {
        StreamLeaf::Element { part, .. } => ElementInput::Element(*part),
        StreamLeaf::Request(input) => ElementInput::Request(input.clone()),
        StreamLeaf::Column { .. } | StreamLeaf::Table { .. } => {
            unreachable!("an expression over an array of the request reads no table")
        }
    })
}
