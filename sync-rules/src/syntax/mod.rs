//! SQL text to our own small tree. The parser crate stays behind this module; what it accepts beyond the language is
//! refused here, with a code, a place and a way out.
//!
//! [`dialect`] has the tokens and how strongly operators bind, [`convert`] turns the parser's tree into ours.
//!
//! **Invariants**
//!
//! - Nothing of the parser's tree is ignored: a part that has no meaning in rules is a [`Problem`].
//! - Input is bounded: tokens per query, depth of expressions.

mod convert;
mod dialect;

use crate::{diagnostic::Problem, expression::BinaryOperator, value::SqlValue};

pub(crate) use convert::{parse_expression, parse_select};

/// A place in the SQL text; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub line: u64,
    pub column: u64,
}

/// A name, folded to lower case unless it was quoted.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub text: String,
    /// Not quoted, and written with upper-case letters, which folding lost.
    pub lost_case: bool,
    pub position: Position,
}

/// `SELECT items [FROM source] [WHERE filter]`
#[derive(Debug)]
pub(crate) struct Select {
    pub items: Vec<Item>,
    pub source: Option<Source>,
    pub filter: Option<Expr>,
    /// A clause that rules do not have.
    pub refused_clause: Option<Problem>,
    pub position: Position,
}

/// What a query reads.
#[derive(Debug)]
pub(crate) enum Source {
    Table { schema: Option<Name>, name: Name, alias: Option<Name> },
    Function { name: Name },
}

/// An output column.
#[derive(Debug)]
pub(crate) enum Item {
    Star { table: Option<Name>, position: Position },
    Column { expr: Expr, alias: Option<Name> },
}

/// An expression.
#[derive(Debug)]
pub(crate) struct Expr {
    pub kind: ExprKind,
    pub position: Position,
}

/// The kinds of expressions.
#[derive(Debug)]
pub(crate) enum ExprKind {
    Literal(SqlValue),
    Column {
        table: Option<Name>,
        name: Name,
    },
    /// `:name`
    Placeholder(String),
    Call {
        schema: Option<String>,
        name: String,
        arguments: Vec<Expr>,
    },
    Not(Box<Expr>),
    IsNull {
        operand: Box<Expr>,
        negated: bool,
    },
    Binary {
        operator: BinaryOperator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `x NOT IN y`; no place accepts it.
    NotIn,
    InSelect {
        operand: Box<Expr>,
        select: Box<Select>,
        negated: bool,
    },
    Cast {
        operand: Box<Expr>,
        to: String,
    },
    JsonMember {
        document: Box<Expr>,
        path: String,
        as_value: bool,
    },
}

/// Where a text begins.
pub(crate) const START: Position = Position { line: 1, column: 1 };
