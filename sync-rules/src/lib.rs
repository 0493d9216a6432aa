//! The rules language: YAML and SQL in, a plan out, rows and requests through it.
//!
//! [`compile()`] turns the text into a [`SyncPlan`] and diagnostics. The plan answers two questions:
//!
//! - [`SyncPlan::evaluator`]: into which buckets does this source row go, and which lookups does it feed?
//! - [`SyncPlan::querier`]: which buckets does this client get?
//!
//! Both may ask an index of *lookups* (what other rows say), which the caller keeps: see [`LookupSource`]. A row that
//! asked is evaluated again when the answer changes; that is how joins are kept true at write time.
//!
//! **Invariants**
//!
//! - Pure: no clock, files, environment, randomness or hash order. The same text and row give the same buckets, always.
//! - Bad input never panics and never fails outright: it yields diagnostics or evaluation errors beside the results.
//! - Row values appear in no diagnostic and no error.
//!
//! Start reading at [`plan`].

mod cast;
mod claim;
mod compile;
mod config;
pub mod conflict;
mod definition;
pub mod diagnostic;
mod dispatch;
mod elements;
pub mod eval_case;
pub mod evaluate;
pub mod explain;
mod expression;
mod functions;
pub mod history;
mod json;
pub mod json_schema;
mod key;
mod keys;
mod matching;
mod number;
mod output;
pub mod places;
pub mod plan;
mod relation;
pub mod request;
pub mod review;
mod row;
pub mod schema;
mod scratch;
mod sql_text;
mod suggest;
mod survey;
mod syntax;
mod table_query;
pub mod validator;
pub mod value;
pub mod write_limits;
pub mod write_policy;
mod yaml;

pub use conflict::ConflictStrategy;
pub use diagnostic::{Diagnostic, Severity, Span};
pub use evaluate::{
    ErrorKind, EvaluatedEvent, EvaluatedRow, Evaluation, EvaluationError, LookupKey, LookupSource, LookupValue,
    TableEvaluator,
};
pub use explain::{ExplainedRequest, ExplainedRowQuery, Origin};
pub use history::{Histories, NamePrefixes};
pub use json_schema::json_schema;
pub use places::{DefinitionPlace, Places, TablePlace};
pub use plan::{
    Compatibility, CompileOptions, Compiled, PlanError, SourceTable, SyncPlan, TablePattern, compile, compile_with,
};
pub use request::{ActiveDefinition, Querier, Reason, RequestContext, Resolution, ResolvedBucket, Subscription};
pub use review::review;
pub use schema::{SchemaTable, SourceSchema};
pub use scratch::Scratch;
pub use survey::TableReads;
pub use validator::Validator;
pub use value::SqlValue;
pub use write_limits::WriteLimits;
pub use write_policy::{WriteOp, WriteOrigin, WritePolicy};
