//! One case in, one result out: rules, rows and requests as a line of JSON, and all the engine makes of them.
//!
//! [`run`] reads a case (`case`), hands its rows over as a source connector would (`values`, `time`), lets the engine
//! work (`engine`) and prints the result canonically (`result`): object keys and lists sorted by UTF-16 code unit, so
//! that two results can be compared as text. Rules that cannot be deployed are a result like any other.
//!
//! **Invariants**
//!
//! - The same line gives the same result, always.
//! - Errors name a place in the case, never a value of a row.

mod case;
mod engine;
mod result;
mod time;
mod values;

use crate::{CompileOptions, Compiled, compile_with};

/// Why a line has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaseError {
    /// The line is not JSON, or not of the shape of a case.
    #[error("not a case: {reason} (column {column})")]
    Shape {
        /// What is wrong.
        reason: String,
        /// How far the line was understood, in bytes.
        column: usize,
    },
    /// A column is not written as the format says.
    #[error("source row {row}: {reason}")]
    Column {
        /// Index of the row in the case.
        row: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The rows change each other's lookups without end.
    #[error("the lookups of the rows do not settle")]
    Unsettled,
}

/// Runs a case and returns the result, without the line end.
///
/// # Errors
/// When the line is no case. Rules, rows and requests that fail are counted in the result.
pub fn run(line: &str) -> Result<String, CaseError> {
    let case = case::Case::parse(line)?;
    let schema = case.schema.as_deref().map(case::source_schema);
    let options = CompileOptions { default_schema: &case.default_schema, schema: schema.as_ref() };
    let Compiled { plan, diagnostics, .. } = compile_with(&case.rules_yaml, &options);
    let Some(plan) = plan else { return Ok(result::refused(&case.id, &diagnostics).to_line()) };
    Ok(engine::evaluate(&case, &plan, &diagnostics)?.to_line())
}

#[cfg(test)]
mod tests;
