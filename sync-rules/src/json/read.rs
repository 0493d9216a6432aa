//! Text to JSON, as strict as the standard.

use super::{Json, repetition::without_repetitions};
use crate::value::Failure;

/// Documents nested deeper are refused, so that recursion has a bound.
const DEPTH_MAX: usize = 100;

const INVALID: Failure = Failure("the text is not valid JSON");
const TOO_DEEP: Failure = Failure("the JSON document is nested too deeply");

pub(super) fn read(text: &str) -> Result<Json, Failure> {
    let mut reader = Reader { text, at: 0 };
    let json = reader.value(0)?;
    reader.skip_space();
    if reader.at == text.len() { Ok(json) } else { Err(INVALID) }
}

/// A cursor over JSON text.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Json, Failure> {
        if depth > DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, Failure> {
        self.at += 1;
        let mut items = Vec::new();
        if self.take_next(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take_next(b']') {
                return Ok(Json::Array(items));
            }
            self.expect_next(b',')?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Failure> {
        self.at += 1;
        let mut members = Vec::new();
        if self.take_next(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(INVALID);
            }
            let name = self.string()?;
            self.expect_next(b':')?;
            members.push((name, self.value(depth + 1)?));
            if self.take_next(b'}') {
                return Ok(Json::object(without_repetitions(members)?));
            }
            self.expect_next(b',')?;
        }
    }

    fn string(&mut self) -> Result<String, Failure> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let is_special = |byte: u8| matches!(byte, b'"' | b'\\' | ..0x20);
            let plain = rest.bytes().position(is_special).ok_or(INVALID)?;
            text.push_str(&rest[..plain]);
            self.at += plain + 1;
            match rest.as_bytes()[plain] {
                b'"' => return Ok(text),
                b'\\' => text.push(self.escaped()?),
                _ => return Err(INVALID),
            }
        }
    }

    /// The character after a backslash.
    fn escaped(&mut self) -> Result<char, Failure> {
        let byte = self.peek().ok_or(INVALID)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.code_point()?,
            _ => return Err(INVALID),
        })
    }

    /// The character after `\u`. Half of a surrogate pair, which JSON can spell but text cannot hold, is U+FFFD.
    fn code_point(&mut self) -> Result<char, Failure> {
        let first = self.code_unit()?;
        let after_first = self.at;
        if matches!(first, 0xd800..0xdc00) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let second = self.code_unit()?;
            if let Some(Ok(character)) = char::decode_utf16([first, second]).next() {
                return Ok(character);
            }
            self.at = after_first;
        }
        Ok(char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn code_unit(&mut self) -> Result<u16, Failure> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(INVALID)?;
        self.at += 4;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex { u16::from_str_radix(digits, 16).map_err(|_| INVALID) } else { Err(INVALID) }
    }

    fn number(&mut self) -> Result<Json, Failure> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        let whole = self.at;
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'-') || self.take(b'+');
            self.digits()?;
        }
        let token = &self.text[start..self.at];
        match token.parse() {
            Ok(integer) if whole == self.at => Ok(Json::Integer(integer)),
            _ => token.parse().map(Json::Real).map_err(|_| INVALID),
        }
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Failure> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(INVALID) }
    }

    fn word(&mut self) -> Result<Json, Failure> {
        for (word, json) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(json);
            }
        }
        Err(INVALID)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes `byte` if it stands here.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Skips space and takes `byte` if it comes next.
    fn take_next(&mut self, byte: u8) -> bool {
        self.skip_space();
        self.take(byte)
    }

    fn expect_next(&mut self, byte: u8) -> Result<(), Failure> {
        if self.take_next(byte) { Ok(()) } else { Err(INVALID) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_json_is_read() {
        for text in ["", "[1,]", "[,1]", "{a:1}", "{\"a\" 1}", "{\"a\":1,}", "'a'", "NaN", "Infinity", "[1", "1 2"]
            .into_iter()
            .chain([
                "\"a",
                "\"\\",
                "\"\\x\"",
                "\"é\\",
                "\"\\é\"",
                "\"\\u+123\"",
                "\"\\u12\"",
                "\"\\ud83d\\u\"",
                "\"\n\"",
            ])
            .chain(["01", "-", "+1", "1.", ".5", "1e", "1e+", "0x1", "--1", "-a", "tru", "True", "nulls", "\u{a0}1"])
            .chain(["\u{feff}1", "1//", "[1 2]", "]"])
        {
            assert_eq!(read(text), Err(INVALID), "{text}");
        }
        assert_eq!(read(" \t\r\n{ \"a\" : [ true , null ] } "), read(r#"{"a":[true,null]}"#));
    }

    #[test]
    fn nesting_has_a_bound() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(read(&nested(DEPTH_MAX + 2)), Err(TOO_DEEP));
        assert_eq!(read(&"{\"a\":".repeat(5000)), Err(TOO_DEEP));
    }

    #[test]
    fn the_spelling_decides_the_kind_of_a_number() {
        for (text, json) in [
            ("5", Json::Integer(5)),
            ("-0", Json::Integer(0)),
            ("9007199254740993", Json::Integer(9_007_199_254_740_993)),
            ("5.0", Json::Real(5.0)),
            ("1E2", Json::Real(100.0)),
            ("0e0", Json::Real(0.0)),
            ("1e999", Json::Real(f64::INFINITY)),
            ("-1e-999", Json::Real(0.0)),
            ("0.30000000000000004", Json::Real(0.300_000_000_000_000_04)),
            ("2.2250738585072011e-308", Json::Real(2.225_073_858_507_201e-308)),
            ("1000000000000000000000000000000000000000", Json::Real(1e39)),
        ] {
            assert_eq!(read(text), Ok(json), "{text}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_becomes_the_replacement_character() {
        let text = |text: &str| read(text).map(|json| json.to_text());
        assert_eq!(text(r#""\ud83d\ude00\u00E9\/""#).unwrap(), "\"😀é/\"");
        assert_eq!(text(r#""\ud83dx""#).unwrap(), "\"\u{fffd}x\"");
        assert_eq!(text(r#""\ud83d\u0041\ude00""#).unwrap(), "\"\u{fffd}A\u{fffd}\"");
        assert_eq!(text(r#""\ud83d\ud83d\ude00""#).unwrap(), "\"\u{fffd}😀\"");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[\[\]{}",:\\u0-9a-f.eE\-+ étrunl]{0,40}"#) {
            let _ = read(&text);
        }

        #[test]
        fn reals_are_read_exactly(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            prop_assert_eq!(read(&format!("{number:e}")), Ok(Json::Real(number)));
        }

        #[test]
        fn what_prints_reads_back(
            numbers: Vec<i64>,
            names in prop::collection::btree_set("[0-9a-b\"\\\\é]{0,3}", 0..6),
        ) {
            let array = Json::Array(numbers.into_iter().map(|number| Json::Integer(number.into())).collect());
            let json = Json::object(names.into_iter().map(|name| (name, array.clone())).collect());
            prop_assert_eq!(read(&json.to_text()), Ok(json));
        }
    }
}
