//! SQL text to our own small tree. The parser crate stays behind this module; what it accepts beyond the language is
//! refused here, with a code, a place and a way out.
//!
//! [`dialect`] has the tokens and how strongly operators bind, [`select`] and [`expression`] turn the parser's tree into
//! ours. The tree is that of all editions; what an edition does not have is refused where queries are compiled.
//!
//! **Invariants**
//!
//! - Nothing of the parser's tree is ignored: a part that has no meaning in rules is a [`Problem`].
//! - Input is bounded: tokens per query, depth of expressions.

mod dialect;
mod expression;
mod select;

use crate::{diagnostic::Problem, expression::BinaryOperator, value::SqlValue};

pub(crate) use expression::{SUBSTRING_FROM, parse_expression};
pub(crate) use select::parse_select;

/// A place in the SQL text; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// `SELECT items [FROM from] [WHERE filter]`
#[derive(Debug)]
pub(crate) struct Select {
    pub items: Vec<Item>,
    pub from: Vec<FromItem>,
    pub filter: Option<Expr>,
    /// A clause that rules do not have.
    pub refused_clause: Option<Problem>,
    /// `SELECT DISTINCT`
    pub is_distinct: bool,
    pub position: Position,
}

/// `source [AS alias [(columns)]]`, and the condition it is joined on.
#[derive(Debug)]
pub(crate) struct FromItem {
    pub source: Source,
    pub alias: Option<Name>,
    /// Names given to the columns of a sub-select.
    pub columns: Vec<Name>,
    pub on: Option<Expr>,
    /// Joined in a way rules do not have.
    pub refused_join: Option<Problem>,
}

/// What a query reads.
#[derive(Debug)]
pub(crate) enum Source {
    Table { schema: Option<Name>, name: Name },
    Function { name: Name, arguments: Vec<Expr> },
    Select(Box<Select>),
}

/// An output column.
#[derive(Debug)]
pub(crate) enum Item {
    Star {
        table: Option<Name>,
        position: Position,
    },
    Column {
        expr: Expr,
        alias: Option<Name>,
        /// As it was written.
        text: String,
    },
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
    /// `[[schema.]table.]name`
    Column {
        schema: Option<Name>,
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
    /// `+x`
    Plus(Box<Expr>),
    IsNull {
        operand: Box<Expr>,
        negated: bool,
    },
    /// `x IS [NOT] TRUE`, `x IS [NOT] FALSE`
    IsTruth {
        operand: Box<Expr>,
        value: bool,
        negated: bool,
    },
    Binary {
        operator: BinaryOperator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `x [NOT] IN y`; `y` may be a subquery or a list.
    In {
        operand: Box<Expr>,
        right: Box<Expr>,
        negated: bool,
    },
    /// `x && y`; `y` may be a subquery.
    Overlap {
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Between {
        operand: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        negated: bool,
    },
    Case {
        operand: Option<Box<Expr>>,
        /// `WHEN x THEN y`
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Cast {
        operand: Box<Expr>,
        to: String,
    },
    JsonMember {
        document: Box<Expr>,
        path: Member,
        as_value: bool,
    },
    /// `ARRAY[…]`, `ROW(…)`
    List(Vec<Expr>),
    /// `(SELECT …)`
    Subquery(Box<Select>),
}

/// The right side of `->` and `->>`.
#[derive(Debug)]
pub(crate) enum Member {
    Text(String),
    Index(i128),
}

impl Expr {
    /// Calls `visit` with every direct operand.
    pub(crate) fn visit_operands<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        match &self.kind {
            ExprKind::Literal(_) | ExprKind::Column { .. } | ExprKind::Placeholder(_) | ExprKind::Subquery(_) => {}
            ExprKind::Call { arguments: operands, .. } | ExprKind::List(operands) => operands.iter().for_each(visit),
            ExprKind::Not(operand)
            | ExprKind::Plus(operand)
            | ExprKind::IsNull { operand, .. }
            | ExprKind::IsTruth { operand, .. }
            | ExprKind::Cast { operand, .. }
            | ExprKind::JsonMember { document: operand, .. } => visit(operand),
            ExprKind::Binary { left, right, .. }
            | ExprKind::In { operand: left, right, .. }
            | ExprKind::Overlap { left, right } => {
                visit(left);
                visit(right);
            }
            ExprKind::Between { operand, low, high, .. } => {
                visit(operand);
                visit(low);
                visit(high);
            }
            ExprKind::Case { operand, branches, otherwise } => {
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
        }
    }
}

/// Where a text begins.
pub(crate) const START: Position = Position { line: 1, column: 1 };
