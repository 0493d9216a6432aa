//! Tokens, and how strongly operators bind.

use sqlparser::{
    dialect::{Dialect, PostgreSqlDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};

use crate::diagnostic::Problem;

use super::{Position, START};

/// A query may have this many tokens; that also bounds the depth of the parser's tree.
const TOKENS_MAX: usize = 4000;

/// How deep the parser may nest: parentheses count one, subqueries two or three. It needs much stack for each.
const NESTING_MAX: usize = 40;

const GRAMMAR: &RulesDialect = &RulesDialect;

/// `x IN y` without parentheses around `y`, which SQL does not have; the parser gets it as an operator of this name.
pub(super) const IN: &str = "IN";
/// `x NOT IN y`, likewise.
pub(super) const NOT_IN: &str = "NOT IN";

/// SQL text and its tokens.
#[derive(Debug)]
pub(super) struct Text<'a> {
    sql: &'a str,
    /// Without blanks and comments.
    pub(super) tokens: Vec<TokenWithSpan>,
    /// `SELECT WHERE …` selects nothing, which the parser does not know: it gets a `*`, which is to be forgotten.
    pub(super) selects_nothing: bool,
}

impl<'a> Text<'a> {
    pub(super) fn read(sql: &'a str) -> Result<Self, Problem> {
        let mut tokens = Tokenizer::new(GRAMMAR, sql).tokenize_with_location().map_err(|error| {
            Problem::new("sql_syntax", format!("the SQL cannot be read: {}", error.message), position(error.location))
        })?;
        if tokens.len() > TOKENS_MAX {
            return Err(Problem::new("sql_syntax", format!("the SQL has more than {TOKENS_MAX} tokens"), START));
        }
        tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
        refuse_glued_minus(&tokens)?;
        let mut tokens = with_membership_operators(&tokens);
        let is_keyword = |at: usize, keyword| matches!(tokens.get(at).map(|token| &token.token), Some(Token::Word(word)) if word.keyword == keyword);
        let is_end =
            |at: usize| tokens.get(at).is_none_or(|token| matches!(token.token, Token::EOF | Token::SemiColon));
        let selects_nothing = is_keyword(0, Keyword::SELECT) && (is_keyword(1, Keyword::WHERE) || is_end(1));
        if selects_nothing {
            let span = tokens[0].span;
            tokens.insert(1, TokenWithSpan { token: Token::Mul, span });
        }
        Ok(Self { sql, tokens, selects_nothing })
    }

    pub(super) fn parser(&self) -> Parser<'static> {
        Parser::new(GRAMMAR).with_recursion_limit(NESTING_MAX).with_tokens_with_locations(self.tokens.clone())
    }

    /// The text from one token to another, both included.
    pub(super) fn between(&self, first: usize, last: usize) -> &str {
        let (Some(first), Some(last)) = (self.tokens.get(first), self.tokens.get(last)) else { return "" };
        self.sql.get(self.offset(first.span.start)..self.offset(last.span.end)).unwrap_or_default()
    }

    fn offset(&self, location: Location) -> usize {
        let index = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let line_start: usize = self.sql.split_inclusive('\n').take(index(location.line)).map(str::len).sum();
        let line = self.sql.get(line_start..).unwrap_or_default();
        line_start + line.char_indices().nth(index(location.column)).map_or(line.len(), |(at, _)| at)
    }
}

/// The tokens with `IN` and `NOT IN` as operators. `IN (SELECT …)` is left to the parser.
fn with_membership_operators(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let is_keyword = |at: usize, keyword: Keyword| matches!(tokens.get(at).map(|token| &token.token), Some(Token::Word(word)) if word.keyword == keyword && word.quote_style.is_none());
    let is_parenthesis = |at: usize| matches!(tokens.get(at).map(|token| &token.token), Some(Token::LParen));
    let is_member = |at: usize| {
        let is_subquery =
            is_parenthesis(at + 1) && (is_keyword(at + 2, Keyword::SELECT) || is_keyword(at + 2, Keyword::WITH));
        is_keyword(at, Keyword::IN) && !is_subquery
    };
    let mut rewritten = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while let Some(TokenWithSpan { token, span }) = tokens.get(at) {
        let (token, length) = if is_keyword(at, Keyword::NOT) && is_member(at + 1) {
            (Token::CustomBinaryOperator(NOT_IN.to_owned()), 2)
        } else if is_member(at) {
            (Token::CustomBinaryOperator(IN.to_owned()), 1)
        } else {
            (token.clone(), 1)
        };
        rewritten.push(TokenWithSpan { token, span: *span });
        at += length;
    }
    rewritten
}

/// A `-` right before a digit begins a number, so `a -1` would be two values without an operator.
fn refuse_glued_minus(tokens: &[TokenWithSpan]) -> Result<(), Problem> {
    const BEFORE_VALUES: [Keyword; 15] = [
        Keyword::SELECT,
        Keyword::WHERE,
        Keyword::ON,
        Keyword::AND,
        Keyword::OR,
        Keyword::NOT,
        Keyword::IN,
        Keyword::BETWEEN,
        Keyword::CASE,
        Keyword::WHEN,
        Keyword::THEN,
        Keyword::ELSE,
        Keyword::LIMIT,
        Keyword::OFFSET,
        Keyword::BY,
    ];
    let ends_value = |token: &Token| match token {
        Token::Number(..) | Token::SingleQuotedString(_) | Token::RParen | Token::RBracket => true,
        Token::Word(word) => word.quote_style.is_some() || !BEFORE_VALUES.contains(&word.keyword),
        _ => false,
    };
    for three in tokens.windows(3) {
        let [before, minus, digit] = three else { continue };
        let is_glued = minus.token == Token::Minus
            && matches!(digit.token, Token::Number(..))
            && minus.span.end == digit.span.start;
        if is_glued && ends_value(&before.token) {
            return Err(Problem::new(
                "sql_syntax",
                "`-` right before a digit belongs to the number",
                position(minus.span.start),
            )
            .help("write a blank after the minus: `a - 1`"));
        }
    }
    Ok(())
}

/// The parser puts the place into the text of its message.
pub(super) fn syntax_problem(error: ParserError) -> Problem {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    };
    let located = message.rsplit_once(" at Line: ").and_then(|(what, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((what.to_owned(), Position { line: line.parse().ok()?, column: column.parse().ok()? }))
    });
    let (what, position) = located.unwrap_or((message, START));
    Problem::new("sql_syntax", format!("the SQL cannot be read: {what}"), position)
}

/// Postgres' lexical rules with the operator precedence of the rules language.
#[derive(Debug)]
struct RulesDialect;

/// Binding strength of bit operators and `&&`.
const BITS: u8 = 25;
/// Binding strength of IN, BETWEEN and LIKE.
const MEMBERSHIP: u8 = 20;
/// Binding strength of comparisons by size, between `IS` and `IN`.
const COMPARISON: u8 = 18;

impl Dialect for RulesDialect {
    fn dialect(&self) -> std::any::TypeId {
        // The parser asks for the type where it has Postgres' behaviour built in.
        std::any::TypeId::of::<PostgreSqlDialect>()
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        PostgreSqlDialect {}.is_identifier_part(ch)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '"'
    }

    fn supports_string_escape_constant(&self) -> bool {
        true
    }

    fn supports_empty_projections(&self) -> bool {
        true
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            Precedence::Period => 100,
            Precedence::DoubleColon => 60,
            Precedence::AtTz | Precedence::MulDivModOp => 40,
            Precedence::PlusMinus => 30,
            Precedence::Xor | Precedence::Ampersand | Precedence::Caret | Precedence::Pipe | Precedence::PgOther => {
                BITS
            }
            Precedence::Colon => 0,
            Precedence::Between | Precedence::Like => MEMBERSHIP,
            Precedence::Is => 16,
            Precedence::Eq => 14,
            Precedence::UnaryNot => 12,
            Precedence::And => 10,
            Precedence::Or => 5,
        }
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match &parser.peek_token_ref().token {
            Token::Arrow | Token::LongArrow => Some(Ok(60)),
            Token::StringConcat => Some(Ok(30)),
            Token::ShiftLeft | Token::ShiftRight | Token::Overlap => Some(Ok(BITS)),
            Token::CustomBinaryOperator(name) if name == IN || name == NOT_IN => Some(Ok(MEMBERSHIP)),
            Token::Lt | Token::LtEq | Token::Gt | Token::GtEq => Some(Ok(COMPARISON)),
            // Never an infix operator here; otherwise `a :b` would be one.
            Token::Colon => Some(Ok(0)),
            _ => None,
        }
    }
}

/// The parser's way of saying where.
pub(super) const fn position(location: Location) -> Position {
    Position { line: location.line, column: location.column }
}
