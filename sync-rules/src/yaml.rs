//! YAML to a tree that knows where everything was written.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Error, Spanned};

use crate::{
    diagnostic::{Diagnostic, Problem, Severity, Span},
    syntax::Position,
};

/// Larger files are refused: rules are written by people.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 32;
const NODES_MAX: usize = 50_000;
const ALIASES_MAX: usize = 100;

/// A value in the file.
#[derive(Debug)]
pub(crate) struct Node {
    pub content: Content,
    pub span: Span,
    /// Where the scalar begins, in bytes from the start of the file.
    offset: usize,
    /// Written elsewhere: `*name`.
    pub is_alias: bool,
}

/// The kinds of values.
#[derive(Debug)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Integer(i128),
    Number(f64),
    Text(String),
    Sequence(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Reads a file.
    pub(crate) fn parse(text: &str) -> Result<Self, Diagnostic> {
        let fatal =
            |code, message: String, span| Diagnostic { code, severity: Severity::Fatal, message, help: None, span };
        if text.len() > FILE_BYTES_MAX {
            return Err(fatal("yaml_syntax", format!("the file is larger than {FILE_BYTES_MAX} bytes"), None));
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: DEPTH_MAX,
                max_nodes: NODES_MAX,
                max_events: 2 * NODES_MAX,
                max_aliases: ALIASES_MAX,
                max_anchors: ALIASES_MAX,
            },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: NODES_MAX },
            strict_booleans: true,
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = |location: serde_saphyr::Location| Span {
                line: usize::try_from(location.line()).unwrap_or(1),
                column: usize::try_from(location.column()).unwrap_or(1),
            };
            let span = error.location().map(place);
            match error.without_snippet() {
                Error::DuplicateMappingKey { key, .. } => {
                    let key = key.as_deref().unwrap_or_default();
                    fatal("yaml_duplicate_key", format!("the key `{key}` is there twice"), span)
                }
                other => fatal("yaml_syntax", format!("the file is not valid YAML: {other}"), span),
            }
        })
    }

    /// The text of a text scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number of a scalar, also if it is written as `2.0`.
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
    pub(crate) fn integer(&self) -> Option<i128> {
        const LIMIT: f64 = 9_007_199_254_740_992.0;
        match self.content {
            Content::Integer(number) => Some(number),
            Content::Number(number) if number.fract() == 0.0 && number.abs() <= LIMIT => Some(number as i128),
            _ => None,
        }
    }

    /// What the node is, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "true or false",
            Content::Integer(_) | Content::Number(_) => "a number",
            Content::Text(_) => "text",
            Content::Sequence(_) => "a list",
            Content::Map(_) => "a map",
        }
    }

    /// Where a place in the scalar's text is in the file. Follows quotes, escapes and folded lines.
    pub(crate) fn locate(&self, file: &str, position: Position) -> Span {
        let Some(text) = self.text() else { return self.span };
        let mut cursor = ScalarCursor::new(file, self);
        let (mut line, mut column) = (1, 1);
        for ch in text.chars() {
            if (line, column) >= (position.line, position.column) {
                cursor.skip_to(ch);
                return cursor.span();
            }
            cursor.pass(ch);
            if ch == '\n' {
                line += 1;
                column = 1;
            } else {
                column += 1;
            }
        }
        cursor.span()
    }

    /// The diagnostic of a problem in the scalar's text.
    pub(crate) fn diagnose(&self, file: &str, problem: Problem, severity: Severity) -> Diagnostic {
        Diagnostic {
            code: problem.code,
            severity,
            message: problem.message,
            help: problem.help,
            span: Some(self.locate(file, problem.position)),
        }
    }
}

/// Walks the source of a scalar in step with its text.
struct ScalarCursor<'a> {
    rest: &'a str,
    span: Span,
    quote: Option<char>,
}

impl<'a> ScalarCursor<'a> {
    fn new(file: &'a str, node: &Node) -> Self {
        let rest = file.get(node.offset..).unwrap_or_default();
        let mut cursor = Self { rest, span: node.span, quote: None };
        cursor.quote = cursor.peek().filter(|ch| matches!(ch, '"' | '\''));
        if cursor.quote.is_some() {
            cursor.step();
        }
        cursor
    }

    fn span(&self) -> Span {
        self.span
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn step(&mut self) {
        let Some(ch) = self.peek() else { return };
        self.rest = &self.rest[ch.len_utf8()..];
        if ch == '\n' {
            self.span = Span { line: self.span.line + 1, column: 1 };
        } else {
            self.span.column += 1;
        }
    }

    /// Skips indentation and folded line ends before `ch`.
    fn skip_to(&mut self, ch: char) {
        if !ch.is_whitespace() {
            while self.peek().is_some_and(char::is_whitespace) {
                self.step();
            }
        }
    }

    fn pass(&mut self, ch: char) {
        self.skip_to(ch);
        match (self.peek(), self.quote) {
            (Some('\\'), Some('"')) => self.pass_escape(),
            (Some('\''), Some('\'')) => {
                self.step();
                self.step();
            }
            (Some(found), _) if found == ch => self.step(),
            (Some(found), _) if found.is_whitespace() => {
                while self.peek().is_some_and(char::is_whitespace) {
                    self.step();
                }
            }
            _ => {}
        }
    }

    fn pass_escape(&mut self) {
        self.step();
        let digits = match self.peek() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        for _ in 0..=digits {
            self.step();
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::<Content>::deserialize(deserializer)?;
        let number = |number: u64| usize::try_from(number).unwrap_or(1);
        // An alias has its text where that is written.
        let span = Span { line: number(defined.line()), column: number(defined.column()) };
        let is_alias = referenced != defined;
        Ok(Self { content: value, span, offset: defined.span().byte_offset().map_or(0, number), is_alias })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Content, E> {
        Ok(Content::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Number(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Content::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(yaml: &str, needle: &str) -> (usize, usize) {
        let node = Node::parse(yaml).unwrap();
        let Content::Map(entries) = &node.content else { panic!("a map") };
        let text = entries[0].1.text().unwrap();
        let before = &text[..text.find(needle).unwrap()];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|ch| *ch != '\n').count() + 1;
        let position = Position { line: u64::try_from(line).unwrap(), column: u64::try_from(column).unwrap() };
        let span = entries[0].1.locate(yaml, position);
        (span.line, span.column)
    }

    #[test]
    fn places_are_found_in_every_style() {
        assert_eq!(located("a: SELECT x FROM t", "FROM"), (1, 13));
        assert_eq!(located("a: SELECT x\n   FROM t", "FROM"), (2, 4));
        assert_eq!(located("# é😀\na: SELECT é FROM t", "FROM"), (2, 13));
        assert_eq!(located("a: 'it''s x'", "x"), (1, 11));
        assert_eq!(located(r#"a: "\"t\" \u00e9 x""#, "x"), (1, 18));
        assert_eq!(located("a: |\n  SELECT\n    x\n  FROM t\n", "t"), (4, 8));
        assert_eq!(located("a: >-\n  SELECT\n  x FROM t\n", "FROM"), (3, 5));
    }

    #[test]
    fn bombs_and_depth_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let alias = format!("*a{}, ", level - 1).repeat(9);
            let line = format!("a{level}: &a{level} [{}]\n", alias.trim_end_matches(", "));
            bomb.push_str(&line);
        }
        for text in [bomb, "[".repeat(2000), format!("{}x", "- ".repeat(2000)), "#".repeat(FILE_BYTES_MAX + 1)] {
            assert_eq!(Node::parse(&text).unwrap_err().code, "yaml_syntax");
        }
        assert_eq!(Node::parse("a: 1\na: 2").unwrap_err().code, "yaml_duplicate_key");
    }
}
