//! The input: a case as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::CaseError;
use crate::{RequestContext, SchemaTable, SourceSchema, SourceTable, Subscription};

/// A case. Keys it does not know, such as `tags`, are for others.
#[derive(Debug, Deserialize)]
pub(super) struct Case<'l> {
    pub id: String,
    pub rules_yaml: String,
    #[serde(default = "public")]
    pub default_schema: String,
    /// What the source looks like, for warnings.
    pub schema: Option<Vec<SchemaPart>>,
    /// Deployment number, for rules that put it in front of bucket names.
    pub bucket_version: Option<u64>,
    #[serde(default, borrow)]
    pub source_rows: Vec<SourceRow<'l>>,
    #[serde(default)]
    pub requests: Vec<Request>,
}

/// Tables of one schema of the source.
#[derive(Debug, Deserialize)]
pub(super) struct SchemaPart {
    #[serde(default = "default_connection")]
    connection: String,
    schema: String,
    /// By table, the types of its columns, of which only the names are used.
    tables: BTreeMap<String, Map<String, Value>>,
}

/// A replicated row.
#[derive(Debug, Deserialize)]
pub(super) struct SourceRow<'l> {
    #[serde(default = "default_connection")]
    connection: String,
    schema: Option<String>,
    table: String,
    /// Kept as text: the spelling of a number decides about its kind.
    #[serde(borrow)]
    pub columns: &'l RawValue,
}

/// A client connection.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    #[serde(default)]
    jwt: Object,
    #[serde(default)]
    parameters: Object,
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default = "yes")]
    default_streams: bool,
}

#[derive(Debug, Deserialize)]
struct Stream {
    #[serde(rename = "stream")]
    name: String,
    /// Absent means `{}`; `null` means the default subscription.
    #[serde(default = "no_parameters")]
    parameters: Option<Object>,
    priority: Option<u8>,
}

/// A JSON object. Read in two steps, because the error of the direct way repeats what stands in its place, and that may
/// be a token.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Value")]
struct Object(Map<String, Value>);

impl TryFrom<Value> for Object {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::Object(members) => Ok(Self(members)),
            _ => Err("tokens and parameters are objects"),
        }
    }
}

fn public() -> String {
    "public".to_owned()
}

fn default_connection() -> String {
    "default".to_owned()
}

fn yes() -> bool {
    true
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the field")]
fn no_parameters() -> Option<Object> {
    Some(Object::default())
}

impl<'l> Case<'l> {
    pub(super) fn parse(line: &'l str) -> Result<Self, CaseError> {
        serde_json::from_str(line).map_err(|error| {
            // A case is one line of a file, so the line `serde_json` counts would mislead.
            let (reason, column) = (error.to_string(), error.column());
            let place = format!(" at line {} column {column}", error.line());
            CaseError::Shape { reason: reason.strip_suffix(&place).unwrap_or(&reason).to_owned(), column }
        })
    }
}

pub(super) fn source_schema(parts: &[SchemaPart]) -> SourceSchema {
    let tables = |part: &'_ SchemaPart| {
        let table = |(name, columns): (&String, &Map<String, Value>)| SchemaTable {
            connection: part.connection.clone(),
            schema: part.schema.clone(),
            name: name.clone(),
            columns: columns.keys().cloned().collect(),
        };
        part.tables.iter().map(table).collect::<Vec<_>>()
    };
    SourceSchema { tables: parts.iter().flat_map(tables).collect() }
}

impl SourceRow<'_> {
    pub(super) fn table(&self, default_schema: &str) -> SourceTable {
        SourceTable {
            connection: self.connection.clone(),
            schema: self.schema.as_deref().unwrap_or(default_schema).to_owned(),
            name: self.table.clone(),
        }
    }
}

impl Request {
    pub(super) fn context(&self) -> RequestContext {
        let subscription = |stream: &Stream| Subscription {
            stream: stream.name.clone(),
            parameters: stream.parameters.as_ref().map(|parameters| parameters.0.clone()),
            priority: stream.priority,
        };
        RequestContext {
            token: self.jwt.0.clone(),
            parameters: self.parameters.0.clone(),
            include_defaults: self.default_streams,
            subscriptions: self.streams.iter().map(subscription).collect(),
        }
    }
}
