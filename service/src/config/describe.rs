//! The table of settings for people and for editors.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::{
    check::variable,
    settings::{Key, ROOT, Shape, Takes},
};

const INTRODUCTION: &str = "\
# Configuration

All settings. This page is what `kairos-sync config reference` prints; a test keeps it so. `kairos-sync config check` says what is wrong in a file, and where, without starting anything; `kairos-sync config schema` prints the JSON Schema for editors.

The file is the one `-c FILE` names, else `POWERSYNC_CONFIG_PATH`, else `kairos.yaml` or `powersync.yaml` in the working directory. A file written for the PowerSync service works as it is; what is not needed here gives a warning. An unknown setting is an error with its place.

`!env NAME` stands for the value of a variable; `!env NAME::number` and `!env NAME::boolean` for what it says.

**Without a file.** Each setting is taken from its variable where the file does not have it, so the environment alone is enough for a container. A list is one name, or YAML in brackets: `[a, b]`. Of a connection, of `sync_config`, of a preset and of `introspection` a file says all or nothing. `POWERSYNC_CONFIG_B64` is a whole file, encoded as base64.

```sh
DATABASE_URL=postgresql://kairos_replication:…@db/app \\
KAIROS_SYNC_CONFIG_PATH=rules.yaml \\
KAIROS_CLIENT_AUTH_JWKS_URI=https://auth.example.com/keys KAIROS_CLIENT_AUTH_AUDIENCE=app \\
kairos-sync serve
```

What is logged, and how, is not in the file: `--log-level` or `PS_LOG_LEVEL`, and `--log-format json` or `PS_LOG_FORMAT=json` ([operations.md](operations.md#logs)).
";

/// All settings, as Markdown.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    section(&mut page, ROOT, "", "KAIROS");
    page
}

fn section(page: &mut String, keys: &[Key], path: &str, prefix: &str) {
    let mut table = String::new();
    for key in keys {
        let takes = match &key.takes {
            Takes::Nothing(_) | Takes::Renamed(_) | Takes::Section(_) | Takes::Whole(_) | Takes::One(_) => continue,
            takes => takes,
        };
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        let mut variables = vec![variable(prefix, key)];
        variables.extend(key.aliases.iter().map(|&alias| alias.to_owned()));
        let variables = match takes {
            Takes::Anything => String::new(),
            _ => variables.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        let _ = writeln!(table, "| `{}` | {} | {default} | {} | {variables} |", key.name, words(takes), key.about);
    }
    if !table.is_empty() {
        let title = if path.is_empty() { "Top level".to_owned() } else { format!("`{path}`") };
        let _ = write!(
            page,
            "\n## {title}\n\n| Setting | Takes | Without it | | Variables |\n| --- | --- | --- | --- | --- |\n{table}"
        );
    }
    for key in keys {
        let (Takes::Section(below) | Takes::Whole(below) | Takes::One(below)) = key.takes else { continue };
        let dot = if path.is_empty() { "" } else { "." };
        let index = if matches!(key.takes, Takes::One(_)) { "[0]" } else { "" };
        section(page, below, &format!("{path}{dot}{}{index}", key.name), &variable(prefix, key));
    }
    let ignored: Vec<String> = keys
        .iter()
        .filter_map(|key| match key.takes {
            Takes::Nothing(why) => Some(format!("`{}` ({why})", key.name)),
            Takes::Renamed(newer) => Some(format!("`{}` (the older name of `{newer}`)", key.name)),
            _ => None,
        })
        .collect();
    if !ignored.is_empty() {
        let of = if path.is_empty() { "the top level".to_owned() } else { format!("`{path}`") };
        let _ = writeln!(page, "\nRead at {of}, and of no other use here: {}.", ignored.join(", "));
    }
}

fn words(takes: &Takes) -> String {
    match takes {
        Takes::Flag => "`true` or `false`".to_owned(),
        Takes::Number(min, max) if *max > u64::from(u32::MAX) => format!("a number from {min}"),
        Takes::Number(min, max) => format!("a number from {min} to {max}"),
        Takes::Text => "text".to_owned(),
        Takes::Secret => "text, a secret".to_owned(),
        Takes::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Takes::Texts => "text, or a list".to_owned(),
        Takes::Secrets => "text, or a list; secrets".to_owned(),
        Takes::Document(Shape::List, _) => "a list".to_owned(),
        Takes::Document(Shape::Map, _) => "names with values".to_owned(),
        _ => "anything".to_owned(),
    }
}

/// The JSON Schema of the file, for editors.
pub fn schema() -> Value {
    let mut schema = object(ROOT);
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), "Configuration of Kairos Sync".into());
    Value::Object(schema)
}

fn object(keys: &[Key]) -> Map<String, Value> {
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), Value::Object(property(key, keys)))).collect();
    let object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    match object {
        Value::Object(object) => object,
        _ => unreachable!("an object, as it stands there"),
    }
}

fn property(key: &Key, beside: &[Key]) -> Map<String, Value> {
    // `!env` is text to an editor, whatever it stands for.
    let taken = match &key.takes {
        Takes::Flag => json!({ "type": ["boolean", "string"] }),
        Takes::Number(min, max) => json!({ "type": ["integer", "string"], "minimum": min, "maximum": max }),
        Takes::Text | Takes::Secret => json!({ "type": ["string", "number"] }),
        Takes::Word(words) => {
            let flag = |word: &&&str| matches!(**word, "true" | "false");
            let mut values: Vec<Value> = words.iter().map(|&word| word.into()).collect();
            values.extend(words.iter().filter(flag).map(|&word| Value::Bool(word == "true")));
            json!({ "anyOf": [{ "enum": values }, { "type": "string" }] })
        }
        Takes::Texts | Takes::Secrets => {
            json!({ "type": ["string", "number", "array"], "items": { "type": ["string", "number"] } })
        }
        Takes::Document(Shape::List, _) => json!({ "type": "array" }),
        Takes::Document(Shape::Map, _) => json!({ "type": "object" }),
        Takes::Section(keys) | Takes::Whole(keys) => Value::Object(object(keys)),
        Takes::One(keys) => json!({ "type": "array", "items": object(keys), "minItems": 1, "maxItems": 1 }),
        Takes::Renamed(newer) => match beside.iter().find(|key| key.name == *newer) {
            Some(newer) => Value::Object(property(newer, beside)),
            None => json!({}),
        },
        Takes::Nothing(why) => json!({ "deprecated": true, "description": format!("Ignored: {why}.") }),
        Takes::Anything => json!({}),
    };
    let Value::Object(mut property) = taken else { unreachable!("objects, as they stand there") };
    if !key.about.is_empty() {
        property.insert("description".to_owned(), key.about.into());
    }
    if !key.default.is_empty() {
        let default = match key.takes {
            Takes::Number(..) | Takes::Flag => serde_json::from_str(key.default).unwrap_or_default(),
            _ => key.default.into(),
        };
        property.insert("default".to_owned(), default);
    }
    property
}
