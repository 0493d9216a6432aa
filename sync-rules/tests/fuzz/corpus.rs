//! Inputs to begin with.

/// Entries are separated by a line of their own.
fn entries(text: &str) -> Vec<String> {
    text.trim_end().split("\n%%\n").map(str::to_owned).collect()
}

/// Rules files.
pub(crate) fn rules() -> Vec<String> {
    entries(include_str!("corpus/rules.txt"))
}

/// Single queries and expressions.
pub(crate) fn queries() -> Vec<String> {
    entries(include_str!("corpus/queries.txt"))
}

/// Texts that are code or structure somewhere.
pub(crate) fn texts() -> Vec<String> {
    entries(include_str!("corpus/texts.txt"))
}
