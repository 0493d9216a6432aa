//! For people: what a plan does, what it makes of a row, and how a request gets its buckets.
//!
//! Nothing here decides anything: what is explained is what [`crate::evaluate`] and [`crate::request`] do, asked part by
//! part. Explanations hold values of rows and tokens; they are for operators, never for logs.
//!
//! Lists are cut, and say how long they are: an explanation stays short however large the plan's buckets are.

mod origin;
mod plan;
mod predicate;
mod request;
mod row;
mod words;

pub use origin::{Origin, UsedLookup};
pub use predicate::{NamedValue, Outcome, Predicate};
pub use request::{
    ExplainedBucketQuery, ExplainedDefinition, ExplainedParameter, ExplainedRequest, ExplainedStep, ExplainedWay,
};
pub use row::{ExplainedRowQuery, Pass};
