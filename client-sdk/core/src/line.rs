//! One line of text, or one document, to one line of the protocol.

use kairos_sync_protocol::{
    bson::{self, ReadError},
    line::SyncLine,
};
use serde_json::{Map, Value};

/// A line that is not JSON or BSON with exactly one key, or whose content does not fit its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a line of the stream cannot be read ({category})")]
pub struct LineError {
    /// What is wrong, without quoting the line: it may hold row values.
    category: &'static str,
}

const KNOWN: [&str; 6] =
    ["checkpoint", "checkpoint_diff", "data", "checkpoint_complete", "partial_checkpoint_complete", "token_expires_in"];

/// Reads a line of bytes; see [`parse`].
///
/// # Errors
/// [`LineError`] when the line is damaged.
pub fn parse_bytes(bytes: &[u8]) -> Result<Option<SyncLine>, LineError> {
    parse(std::str::from_utf8(bytes).map_err(|_| LineError { category: "it is not UTF-8" })?)
}

/// Reads a line. `None` for empty lines and for kinds a later version of the protocol may add.
///
/// # Errors
/// [`LineError`] when the line is damaged.
pub fn parse(text: &str) -> Result<Option<SyncLine>, LineError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str(text) {
        Ok(line) => Ok(Some(line)),
        Err(error) if error.is_data() && is_unknown_kind(text) => Ok(None),
        Err(error) if error.is_data() => Err(LineError { category: "its fields do not fit its kind" }),
        Err(_) => Err(LineError { category: "it is not JSON" }),
    }
}

/// Reads a document. `None` for kinds a later version of the protocol may add.
///
/// # Errors
/// [`LineError`] when the document is damaged.
pub fn parse_bson(document: &[u8]) -> Result<Option<SyncLine>, LineError> {
    if bson::the_only_key(document).is_some_and(|kind| !KNOWN.contains(&kind)) {
        return Ok(None);
    }
    let category = |error| match error {
        ReadError::Fields => "its fields do not fit its kind",
        _ => "it is not BSON",
    };
    bson::read_line(document).map(Some).map_err(|error| LineError { category: category(error) })
}

fn is_unknown_kind(text: &str) -> bool {
    let Ok(object) = serde_json::from_str::<Map<String, Value>>(text) else { return false };
    object.len() == 1 && object.keys().all(|key| !KNOWN.contains(&key.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_kinds_and_empty_lines_are_skipped() {
        assert_eq!(parse("  \r"), Ok(None));
        assert_eq!(parse(r#"{"weather":{"sunny":true}}"#), Ok(None));
        assert_eq!(parse(r#"{"token_expires_in":20}"#), Ok(Some(SyncLine::TokenExpiresIn(20))));
    }

    #[test]
    fn damaged_lines_are_errors_that_do_not_quote_them() {
        for text in [
            r#"{"checkpoint":{"last_op_id":"1""#,
            r#"{"token_expires_in":"secret"}"#,
            r#"{"token_expires_in":1,"secret":2}"#,
            r#"{"secret":1,"more":2}"#,
            "<html>secret</html>",
        ] {
            let error = parse(text).expect_err(text);
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn documents_are_read_as_lines_are() {
        let mut document = Vec::new();
        bson::write_line(&SyncLine::TokenExpiresIn(20), &mut document);
        assert_eq!(parse_bson(&document), Ok(Some(SyncLine::TokenExpiresIn(20))));
        let unknown = [&[15, 0, 0, 0, 8][..], b"weather\0", &[1, 0]].concat();
        assert_eq!(parse_bson(&unknown), Ok(None));
        let error = parse_bson(&document[..document.len() - 1]).expect_err("cut");
        assert_eq!(error.to_string(), "a line of the stream cannot be read (it is not BSON)");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,200}") {
            let _ = parse(&text);
            let _ = parse_bson(text.as_bytes());
        }
    }
}
