//! Tokens, and how strongly operators bind.

use sqlparser::{
    ast::{self, BinaryOperator as SqlOperator},
    dialect::{Dialect, PostgreSqlDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};

use crate::diagnostic::Problem;

use super::{Position, START};

/// A query may have this many tokens; that also bounds the depth of the parser's tree.
const TOKENS_MAX: usize = 4000;

const GRAMMAR: &RulesDialect = &RulesDialect;

/// A parser over the tokens of a text. `SELECT WHERE …` selects nothing, which the parser does not know: it gets a `*`,
/// and the flag says to forget it.
pub(super) fn parser(sql: &str) -> Result<(Parser<'static>, bool), Problem> {
    let mut tokens = Tokenizer::new(GRAMMAR, sql).tokenize_with_location().map_err(|error| {
        Problem::new("sql_syntax", format!("the SQL cannot be read: {}", error.message), position(error.location))
    })?;
    if tokens.len() > TOKENS_MAX {
        return Err(Problem::new("sql_syntax", format!("the SQL has more than {TOKENS_MAX} tokens"), START));
    }
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    let is_keyword = |at: usize, keyword| matches!(tokens.get(at).map(|token| &token.token), Some(Token::Word(word)) if word.keyword == keyword);
    let is_end = |at: usize| tokens.get(at).is_none_or(|token| matches!(token.token, Token::EOF | Token::SemiColon));
    let selects_nothing = is_keyword(0, Keyword::SELECT) && (is_keyword(1, Keyword::WHERE) || is_end(1));
    if selects_nothing {
        let span = tokens[0].span;
        tokens.insert(1, TokenWithSpan { token: Token::Mul, span });
    }
    Ok((Parser::new(GRAMMAR).with_tokens_with_locations(tokens), selects_nothing))
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

    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            Precedence::Period => 100,
            Precedence::DoubleColon => 60,
            Precedence::AtTz | Precedence::MulDivModOp => 40,
            Precedence::PlusMinus => 30,
            Precedence::Xor | Precedence::Ampersand | Precedence::Caret | Precedence::Pipe | Precedence::PgOther => 25,
            Precedence::Colon => 0,
            Precedence::Between | Precedence::Like => 20,
            Precedence::Is => 16,
            Precedence::Eq => 14,
            Precedence::UnaryNot => 12,
            Precedence::And => 10,
            Precedence::Or => 5,
        }
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            Token::Arrow | Token::LongArrow => Some(Ok(60)),
            Token::StringConcat => Some(Ok(30)),
            Token::Lt | Token::LtEq | Token::Gt | Token::GtEq => Some(Ok(COMPARISON)),
            // Never an infix operator here; otherwise `a :b` would be one.
            Token::Colon => Some(Ok(0)),
            _ => None,
        }
    }

    /// `x IN y` without parentheses, which SQL does not have. `x IN (SELECT …)` is left to the parser.
    fn parse_infix(&self, parser: &mut Parser, left: &ast::Expr, _: u8) -> Option<Result<ast::Expr, ParserError>> {
        let is_keyword = |at: usize, keyword: Keyword| matches!(&parser.peek_nth_token_ref(at).token, Token::Word(word) if word.keyword == keyword);
        let negated = is_keyword(0, Keyword::NOT);
        let after = usize::from(negated);
        let is_subquery = parser.peek_nth_token_ref(after + 1).token == Token::LParen
            && (is_keyword(after + 2, Keyword::SELECT) || is_keyword(after + 2, Keyword::WITH));
        if !is_keyword(after, Keyword::IN) || is_subquery {
            return None;
        }
        for _ in 0..=after {
            parser.advance_token();
        }
        let name = if negated { "NOT IN" } else { "IN" };
        let build = |right| ast::Expr::BinaryOp {
            left: Box::new(left.clone()),
            op: SqlOperator::Custom(name.to_owned()),
            right: Box::new(right),
        };
        Some(parser.parse_subexpr(self.prec_value(Precedence::Between)).map(build))
    }
}

/// The parser's way of saying where.
pub(super) const fn position(location: Location) -> Position {
    Position { line: location.line, column: location.column }
}
