//! Hostile input. Deterministic mutations of a corpus go through the compiler and the evaluator; each must come back in
//! time, in bounded memory, and without a panic.
//!
//! [`harness`] has the bounds and says how to replay, [`mutate`] how inputs are made. Targets are [`rules`] (whole
//! files), [`sql`] (single queries in every place that takes one) and [`evaluation`] (rows and requests). [`values`]
//! shows that values are never code.

mod corpus;
mod evaluation;
mod explanation;
mod harness;
#[path = "../oracle/index.rs"]
mod index;
mod mutate;
#[path = "../oracle/random.rs"]
mod random;
mod rules;
mod sql;
mod values;
