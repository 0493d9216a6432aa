//! SQL values as JSON: an array of parameters, an object for each row.

use kairos_client::rusqlite::{self, Row, ToSql, types::Value as SqlValue};
use serde_json::{Map, Value};

use crate::error::KairosError;

fn unreadable(what: &str) -> KairosError {
    KairosError::new("CLIENT-0114", what)
}

/// Parameters of a statement.
#[derive(Clone)]
pub(crate) struct Parameters(Vec<SqlValue>);

impl Parameters {
    /// Of a JSON array of texts, numbers, booleans and nulls. An empty text stands for none.
    pub(crate) fn read(json: &str) -> Result<Self, KairosError> {
        let wrong = || unreadable("parameters are a JSON array of texts, numbers, booleans and nulls");
        if json.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let values: Vec<Value> = serde_json::from_str(json).map_err(|_| wrong())?;
        values.into_iter().map(|value| sql_value(value).ok_or_else(wrong)).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn bound(&self) -> impl rusqlite::Params + '_ {
        rusqlite::params_from_iter(self.0.iter().map(|value| value as &dyn ToSql))
    }

    pub(crate) fn into_params(self) -> impl rusqlite::Params + Clone + Send + Sync + 'static {
        rusqlite::params_from_iter(self.0)
    }
}

fn sql_value(value: Value) -> Option<SqlValue> {
    Some(match value {
        Value::Null => SqlValue::Null,
        Value::Bool(truth) => SqlValue::Integer(truth.into()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => SqlValue::Integer(whole),
            None => SqlValue::Real(number.as_f64()?),
        },
        Value::String(text) => SqlValue::Text(text),
        Value::Array(_) | Value::Object(_) => return None,
    })
}

/// A row as an object of its columns. SQL that gives blobs is not for this way.
pub(crate) fn row(row: &Row<'_>) -> rusqlite::Result<Value> {
    let mut object = Map::new();
    for column in 0..row.as_ref().column_count() {
        let value = match row.get(column)? {
            SqlValue::Null => Value::Null,
            SqlValue::Integer(number) => number.into(),
            SqlValue::Real(number) => number.into(),
            SqlValue::Text(text) => text.into(),
            SqlValue::Blob(_) => {
                return Err(rusqlite::Error::InvalidColumnType(
                    column,
                    row.as_ref().column_name(column)?.to_owned(),
                    rusqlite::types::Type::Blob,
                ));
            }
        };
        object.insert(row.as_ref().column_name(column)?.to_owned(), value);
    }
    Ok(Value::Object(object))
}

/// An object, such as parameters of a stream or merged columns. `None` stands for none.
pub(crate) fn object(json: Option<&str>) -> Result<Option<Map<String, Value>>, KairosError> {
    let read = |json| serde_json::from_str(json).map_err(|_| unreadable("a JSON object is expected"));
    json.map(read).transpose()
}
