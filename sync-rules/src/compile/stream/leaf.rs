//! What expressions of a stream's query read: tables, arrays taken apart, the request.

use crate::{
    definition::{ElementPart, RequestInput, TablePart},
    expression::Expression,
    plan::TablePattern,
};

/// An input of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StreamLeaf {
    /// A column of a table: an index into [`Instances::tables`].
    Column { table: usize, name: String },
    /// Of a table's name.
    Table { table: usize, part: TablePart },
    /// Of an element: an index into [`Instances::functions`].
    Element { function: usize, part: ElementPart },
    /// A value of the request.
    Request(RequestInput),
}

/// An expression of a stream's query.
pub(super) type StreamExpression = Expression<StreamLeaf>;

/// Where values come from. Rows of two nodes meet only where values are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// The request.
    Request,
    /// A table, with the arrays its rows hold.
    Table(usize),
    /// An array of the request, or a constant one.
    Function(usize),
}

/// A table a query reads. One that is read twice is there twice.
#[derive(Debug, Clone)]
pub(super) struct TableInstance {
    pub pattern: TablePattern,
    /// Output table; `None`: as the source table is called.
    pub object_type: Option<String>,
}

/// A `json_each(array)` of a query.
#[derive(Debug, Clone)]
pub(super) struct FunctionInstance {
    pub array: StreamExpression,
    /// The table whose rows hold the array; `None` for arrays of the request.
    pub owner: Option<usize>,
}

/// What a query reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Instances {
    pub tables: Vec<TableInstance>,
    pub functions: Vec<FunctionInstance>,
}

impl Instances {
    /// The node an input belongs to.
    pub(super) fn node(&self, leaf: &StreamLeaf) -> Node {
        match leaf {
            StreamLeaf::Column { table, .. } | StreamLeaf::Table { table, .. } => Node::Table(*table),
            StreamLeaf::Element { function, .. } => self.function_node(*function),
            StreamLeaf::Request(_) => Node::Request,
        }
    }

    /// The node a function belongs to.
    pub(super) fn function_node(&self, function: usize) -> Node {
        self.functions[function].owner.map_or(Node::Function(function), Node::Table)
    }

    /// The nodes an expression reads, each once, ascending.
    pub(super) fn nodes(&self, expression: &StreamExpression) -> Vec<Node> {
        let mut nodes = Vec::new();
        expression.visit_inputs(&mut |leaf| nodes.push(self.node(leaf)));
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}
