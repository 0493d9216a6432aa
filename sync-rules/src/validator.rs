//! What a value from a device must be like.

mod document;

use std::sync::LazyLock;

use regex::{Regex, RegexBuilder, RegexSet};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

pub use self::document::DocumentSchema;

/// Bytes a compiled pattern may take; above that it is refused when the rules are compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A demand on the values of a column. NULL meets all of them: whether a value is needed at all, Postgres says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Validator {
    /// No password, key or token, as far as their form tells.
    Secrets,
    /// Characters at least.
    MinLength(usize),
    /// Characters at most.
    MaxLength(usize),
    /// A number, and not below this.
    Min(f64),
    /// A number, and not above this.
    Max(f64),
    /// Text in which the pattern is found.
    Pattern(Pattern),
    /// One of these.
    OneOf(Vec<Value>),
    /// JSON, as the schema says.
    JsonSchema(DocumentSchema),
}

impl Validator {
    /// What the value fails at, without the value; `None` where it is as demanded.
    pub fn fault(&self, value: &Value) -> Option<String> {
        if value.is_null() {
            return None;
        }
        let holds = match self {
            Self::Secrets => !holds_secret(value),
            Self::MinLength(min) => length(value) >= *min,
            Self::MaxLength(max) => length(value) <= *max,
            Self::Min(min) => number(value).is_some_and(|number| number >= *min),
            Self::Max(max) => number(value).is_some_and(|number| number <= *max),
            Self::Pattern(pattern) => pattern.0.is_match(&text(value)),
            Self::OneOf(values) => values.iter().any(|one| is_same(one, value)),
            Self::JsonSchema(schema) => return schema.fault(value),
        };
        (!holds).then(|| self.demand())
    }

    fn demand(&self) -> String {
        match self {
            Self::Secrets => "it looks like a password, key or token, which are not stored here".to_owned(),
            Self::MinLength(min) => format!("it needs at least {min} characters"),
            Self::MaxLength(max) => format!("it may have {max} characters"),
            Self::Min(min) => format!("it must be a number, at least {min}"),
            Self::Max(max) => format!("it must be a number, at most {max}"),
            Self::Pattern(pattern) => format!("it must match {}", pattern.0.as_str()),
            Self::OneOf(values) => {
                let values: Vec<_> = values.iter().map(Value::to_string).collect();
                format!("it must be one of {}", values.join(", "))
            }
            Self::JsonSchema(_) => "it must satisfy a JSON Schema".to_owned(),
        }
    }
}

fn text(value: &Value) -> std::borrow::Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

fn length(value: &Value) -> usize {
    text(value).chars().count()
}

/// Devices have numbers of some types as text.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Devices have booleans as 0 and 1.
fn is_same(one: &Value, value: &Value) -> bool {
    one == value
        || match one {
            Value::String(_) => false,
            _ => number(one).is_some_and(|one| number(value) == Some(one)),
        }
}

/// A regular expression: searched for, so `^` and `$` say where it must begin and end. It takes time that grows with
/// the value's length only, whatever the pattern.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn new(text: &str) -> Result<Self, String> {
        let compiled = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        compiled.map(Self).map_err(|error| error.to_string())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_str().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Forms of secrets that are told from other text for certain, or nearly so. It is the last line: apps do well to ask
/// the same before they store a value.
const SECRETS: &[&str] = &[
    // Private keys: PEM of any kind, OpenSSH, PGP; PuTTY.
    r"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----",
    r"(?m)^\s*PuTTY-User-Key-File-\d+:",
    // Tokens of services, by the marks they bear on purpose.
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\b(gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{40})",
    r"\bglpat-[0-9A-Za-z_-]{20}",
    r"\bxox[abeoprs]-[0-9A-Za-z-]{10}",
    r"\b[rs]k_live_[0-9A-Za-z]{16}",
    r"\bAIza[0-9A-Za-z_-]{35}",
    r"\bsk-[0-9A-Za-z_-]{20}",
    r"\bnsec1[02-9ac-hj-np-z]{58}\b",
    r"\bAGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}\b",
    // A signed JWT.
    r"\beyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{16,}",
    // Passwords in commands, settings, headers and addresses.
    r#"(?i)(^|[^0-9a-z])[0-9a-z_.-]*(password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|auth[_-]?token|access[_-]?token)["']?\s*[=:]\s*["']?[^\s"'$&|;]{3,}"#,
    r#"(?i)(^|\s)--(password|passwd|passphrase|secret|token|api-key)[ =]["']?[^\s"'$-][^\s"']{2,}"#,
    r"(?i)\bsshpass\s+-p\s*\S+",
    r"(?i)\bmysql(dump|admin)?\b[^|;&]*\s-p[^\s-]\S*",
    r"(?i)\b(curl|wget|http)\b[^|;&]*\s(-u|--user)[ =]?\S+:\S+",
    r"(?i)\b(authorization|proxy-authorization):\s*(bearer|basic|token)\s+\S{8,}",
    r"(?i)\b[a-z][a-z0-9+.-]*://[^\s/:@]*:[^\s/@$]{3,}@",
];

fn holds_secret(value: &Value) -> bool {
    static FORMS: LazyLock<RegexSet> = LazyLock::new(|| RegexSet::new(SECRETS).expect("each of them compiles"));
    match value {
        Value::String(text) => FORMS.is_match(text),
        Value::Array(elements) => elements.iter().any(holds_secret),
        // A document, whose keys say what the values are.
        Value::Object(_) => FORMS.is_match(&value.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_demand_is_met_or_named() {
        let pattern = |text| Validator::Pattern(Pattern::new(text).expect("compiles"));
        for (validator, good, bad) in [
            (Validator::MinLength(2), json!("äö"), json!("ä")),
            (Validator::MaxLength(2), json!("äö"), json!("abc")),
            (Validator::MaxLength(2), json!(12), json!(123)),
            (Validator::Min(1.0), json!(1), json!(0.5)),
            (Validator::Max(10.0), json!("9.5"), json!("10.01")),
            (Validator::Max(10.0), json!(true), json!("many")),
            (pattern("^[a-z]+$"), json!("abc"), json!("abc1")),
            (Validator::OneOf(vec![json!("a"), json!(1)]), json!("1"), json!("2")),
            (Validator::OneOf(vec![json!(true)]), json!(1), json!(0)),
        ] {
            assert_eq!(validator.fault(&good), None, "{validator:?}");
            assert!(validator.fault(&bad).is_some(), "{validator:?}");
            assert_eq!(validator.fault(&Value::Null), None, "{validator:?}");
        }
    }

    #[test]
    fn secrets_are_found_and_other_text_is_left() {
        let lines = "AAAAB3NzaC1yc2EAAAADAQABAAABgQC7";
        for secret in [
            format!("-----BEGIN RSA PRIVATE KEY-----\n{lines}"),
            format!("-----BEGIN PRIVATE KEY-----\n{lines}"),
            format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{lines}"),
            format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}"),
            "-----BEGIN PGP PRIVATE KEY BLOCK-----".to_owned(),
            "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none".to_owned(),
            format!("export AWS={}{}", "AKIA", "IOSFODNN7EXAMPLE"),
            format!("git clone https://{}_{}@example.org/x", "ghp", "a".repeat(36)),
            "curl -H 'Authorization: Bearer abcdefghijk'".to_owned(),
            "curl -u admin:hunter2 https://example.org".to_owned(),
            "mysql -u root -phunter2 shop".to_owned(),
            "psql postgres://app:hunter2@db/shop".to_owned(),
            "sshpass -p hunter2 ssh host".to_owned(),
            "deploy --token abc123".to_owned(),
            "PASSWORD=hunter2 ./run".to_owned(),
            r#"{"db_password": "hunter2"}"#.to_owned(),
            format!("token {}.{}.{}", "eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiJhbm5hIn0", "c2lnbmF0dXJlLXNpZ25hdHVyZQ"),
        ] {
            assert!(Validator::Secrets.fault(&json!(secret)).is_some(), "{secret}");
        }
        for harmless in [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx anna@laptop",
            "-----BEGIN PUBLIC KEY-----",
            "SHA256:Xr4ilOzQ4PCOq3aQ0qbuaQ",
            "passwd anna",
            "git commit -m 'reset the password form'",
            "curl https://example.org:8080/path",
            "PASSWORD=$PASSWORD ./run",
            "mysql -u root -p shop",
            "ls --token-file /run/secrets/token",
            "Read for 20 minutes: a chapter a day",
        ] {
            assert_eq!(Validator::Secrets.fault(&json!(harmless)), None, "{harmless}");
        }
    }

    #[test]
    fn a_pattern_without_bounds_is_refused() {
        assert!(Pattern::new("(").is_err());
        assert!(Pattern::new(r"(\w{1000}){1000}").is_err(), "too large");
    }
}
