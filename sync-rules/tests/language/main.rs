//! The rules language from the outside: text in, buckets out. One file per part of the language.

mod classic;
mod diagnostics;
mod explain;
mod fixture;
mod joins;
mod json_schema;
mod kairos;
mod schema_checker;
mod streams;
mod write_rules;
