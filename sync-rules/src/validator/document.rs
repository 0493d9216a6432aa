//! Documents that must satisfy a JSON Schema.

use std::{error::Error, fmt, sync::Arc};

use jsonschema::{Draft, PatternOptions, Retrieve, Uri};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::PATTERN_BYTES_MAX;

/// Bytes of a schema as JSON.
const SCHEMA_BYTES_MAX: usize = 64 << 10;

/// A JSON Schema, draft 2020-12, compiled once. It stands alone: nothing is fetched, from nowhere. Its patterns take
/// time that grows with the length of the text only.
#[derive(Clone)]
pub struct DocumentSchema {
    source: Value,
    compiled: Arc<jsonschema::Validator>,
}

impl DocumentSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn new(source: Value) -> Result<Self, String> {
        let bytes = source.to_string().len();
        if bytes > SCHEMA_BYTES_MAX {
            return Err(format!("it has {bytes} bytes as JSON, of which {SCHEMA_BYTES_MAX} are possible"));
        }
        let options = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_retriever(NoRetriever)
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX));
        match options.build(&source) {
            Ok(compiled) => Ok(Self { source, compiled: Arc::new(compiled) }),
            Err(error) => Err(match error.instance_path().as_str() {
                "" => error.masked().to_string(),
                path => format!("{}, at `{path}`", error.masked()),
            }),
        }
    }

    /// Where the schema is not satisfied, without the value: devices have documents as text.
    pub(super) fn fault(&self, value: &Value) -> Option<String> {
        let parsed;
        let document = match value {
            Value::String(text) => match serde_json::from_str(text) {
                Ok(document) => {
                    parsed = document;
                    &parsed
                }
                Err(_) => return Some("it must be JSON".to_owned()),
            },
            document => document,
        };
        let error = self.compiled.validate(document).err()?;
        // The path within the document would name keys, which may be anything.
        Some(format!("`{}` of its JSON Schema does not hold", error.schema_path()))
    }
}

/// Refuses references to other files.
struct NoRetriever;

impl Retrieve for NoRetriever {
    fn retrieve(&self, _: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        Err("schemas stand alone in the rules file: copy it into `$defs`".into())
    }
}

impl fmt::Debug for DocumentSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DocumentSchema").field(&self.source).finish()
    }
}

impl PartialEq for DocumentSchema {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Serialize for DocumentSchema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.source.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DocumentSchema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(source: Value) -> DocumentSchema {
        DocumentSchema::new(source).expect("compiles")
    }

    #[test]
    fn documents_satisfy_it_as_text_and_as_they_are() {
        let schema = schema(json!({
            "type": "object",
            "properties": { "port": { "$ref": "#/$defs/port" }, "mail": { "format": "email" } },
            "additionalProperties": false,
            "$defs": { "port": { "type": "integer", "maximum": 9 } },
        }));
        for good in [json!({}), json!({ "port": 9 }), json!("{\"port\": 1}"), json!({ "mail": "a@example.org" })] {
            assert_eq!(schema.fault(&good), None, "{good}");
        }
        for (bad, place) in [
            (json!({ "port": 77 }), "`/$defs/port/maximum`"),
            (json!("{\"hunter2\": 1}"), "`/additionalProperties`"),
            (json!({ "mail": "hunter2" }), "`/properties/mail/format`"),
            (json!("[77]"), "`/type`"),
            (json!("hunter2"), "JSON"),
        ] {
            let fault = schema.fault(&bad).expect("a fault");
            assert!(fault.contains(place) && !fault.contains("hunter2") && !fault.contains("77"), "{fault}");
        }
    }

    #[test]
    fn what_is_no_schema_or_does_not_stand_alone_is_refused() {
        for (source, reason) in [
            (json!({ "properties": { "a": { "type": "nope" } } }), "/properties/a/type"),
            (json!({ "$ref": "https://example.com/x.json" }), "copy it into `$defs`"),
            (json!({ "$ref": "file:///etc/hostname" }), "copy it into `$defs`"),
            (json!({ "$ref": "#/$defs/missing" }), "missing"),
            (json!({ "pattern": "(?=a)" }), "/pattern"),
            (json!(5), "type"),
            (json!({ "const": "x".repeat(SCHEMA_BYTES_MAX) }), "bytes"),
        ] {
            let problem = DocumentSchema::new(source.clone()).expect_err("refused");
            assert!(problem.contains(reason), "{problem}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_comes_to_an_end() {
        for source in [
            json!({ "$ref": "#" }),
            json!({ "allOf": [{ "$ref": "#" }] }),
            json!({ "not": { "$ref": "#" } }),
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } }),
            json!({ "$dynamicAnchor": "n", "anyOf": [{ "$dynamicRef": "#n" }] }),
            json!({ "properties": { "next": { "$ref": "#" } } }),
        ] {
            let _ = schema(source).fault(&json!({ "next": { "next": {} } }));
        }
    }

    #[test]
    fn it_is_stored_as_it_was_written() {
        let before = schema(json!({ "type": "object" }));
        let text = serde_json::to_string(&before).expect("JSON");
        assert_eq!(text, r#"{"type":"object"}"#);
        assert_eq!(serde_json::from_str::<DocumentSchema>(&text).expect("compiles"), before);
    }
}
