//! Flat JSON objects as the service stores them, read from front to back without keeping anything: no whitespace, members
//! that are texts, whole numbers from zero on, or null.

use memchr::memchr2;

/// The text is something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not JSON as the service stores it")]
pub struct Malformed;

/// What is left to read.
pub(crate) struct Reader<'a>(&'a [u8]);

/// How a value begins.
pub(crate) enum Value {
    /// [`Reader::text`] reads it.
    Text,
    /// [`Reader::number`] reads it.
    Number,
    /// [`Reader::null`] reads it.
    Null,
}

impl<'a> Reader<'a> {
    /// Reads this.
    pub(crate) fn new(json: &'a str) -> Self {
        Self(json.as_bytes())
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes this byte, if it is the next one.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(Malformed) }
    }

    pub(crate) fn value(&self) -> Result<Value, Malformed> {
        match self.0.first() {
            Some(b'"') => Ok(Value::Text),
            Some(b'0'..=b'9') => Ok(Value::Number),
            Some(b'n') => Ok(Value::Null),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn null(&mut self) -> Result<(), Malformed> {
        self.0 = self.0.strip_prefix(b"null").ok_or(Malformed)?;
        Ok(())
    }

    pub(crate) fn number(&mut self) -> Result<u32, Malformed> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = std::str::from_utf8(self.split(length)?).map_err(|_| Malformed)?;
        digits.parse().map_err(|_| Malformed)
    }

    /// Reads a text without escapes.
    pub(crate) fn plain_text(&mut self) -> Result<&'a [u8], Malformed> {
        self.expect(b'"')?;
        let end = memchr2(b'"', b'\\', self.0).ok_or(Malformed)?;
        let text = self.split(end)?;
        self.expect(b'"')?;
        Ok(text)
    }

    /// Reads a text, which is appended as it is meant.
    pub(crate) fn text(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.expect(b'"')?;
        loop {
            // Rows are full of quotes, so what lies between escapes is short: eight bytes are copied, and those too many
            // dropped, which is several times faster than looking for the end and copying up to it.
            while let Some(word) = self.0.first_chunk::<8>() {
                let length = length_before_special(*word);
                out.extend_from_slice(word);
                out.truncate(out.len() - (8 - length));
                self.0 = &self.0[length..];
                if length < 8 {
                    break;
                }
            }
            let (special, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            match special {
                b'"' => return Ok(()),
                b'\\' if self.take(b'"') => out.push(b'"'),
                b'\\' => self.escape(out)?,
                other => out.push(*other),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let [kind] = *self.split(1)? else { return Err(Malformed) };
        let byte = match kind {
            b'"' | b'\\' | b'/' => kind,
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let unit = self.code_unit()?;
                let mut units = [unit, 0];
                if (0xD800..0xDC00).contains(&unit) {
                    if self.split(2)? != br"\u" {
                        return Err(Malformed);
                    }
                    units[1] = self.code_unit()?;
                }
                let length = if units[1] == 0 { 1 } else { 2 };
                for decoded in char::decode_utf16(units.into_iter().take(length)) {
                    let decoded = decoded.map_err(|_| Malformed)?;
                    out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
                }
                return Ok(());
            }
            _ => return Err(Malformed),
        };
        out.push(byte);
        Ok(())
    }

    fn code_unit(&mut self) -> Result<u16, Malformed> {
        let digits = self.split(4)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Malformed);
        }
        let digits = std::str::from_utf8(digits).map_err(|_| Malformed)?;
        u16::from_str_radix(digits, 16).map_err(|_| Malformed)
    }

    fn split(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// How many bytes come before the first quote or backslash.
fn length_before_special(word: [u8; 8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(word);
    // Has the highest bit of the first such byte; of what comes behind it nothing is said.
    let matches = |byte: u8| {
        let differing = word ^ (ONES * u64::from(byte));
        differing.wrapping_sub(ONES) & !differing & (ONES << 7)
    };
    ((matches(b'"') | matches(b'\\')).trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(json: &str) -> Result<String, Malformed> {
        let (mut reader, mut out) = (Reader::new(json), Vec::new());
        reader.text(&mut out)?;
        if reader.is_at_end() { Ok(String::from_utf8(out).unwrap()) } else { Err(Malformed) }
    }

    #[test]
    fn escapes_mean_what_json_says() {
        assert_eq!(text(r#""\"\\\/\b\f\n\r\t\u0000\u00e9\u20AC\ud83d\ude00""#).unwrap(), "\"\\/\u{8}\u{c}\n\r\t\0é€😀");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for json in [
            "",
            "\"",
            "x",
            r#""\"#,
            r#""\x""#,
            r#""\u12"#,
            r#""\u12g4""#,
            r#""\ud83d""#,
            r#""\ud83d\u0041""#,
            r#""\ude00""#,
            r#""\ud83d\ud83d""#,
            "\"a\"b",
        ] {
            assert_eq!(text(json), Err(Malformed), "{json}");
        }
    }

    #[test]
    fn numbers_have_32_bits() {
        assert_eq!(Reader::new("4294967295").number(), Ok(u32::MAX));
        assert!(["4294967296", "", "-1"].iter().all(|json| Reader::new(json).number().is_err()));
    }

    proptest! {
        #[test]
        fn any_text_reads_as_serde_reads_it(any in ".{0,30}", noise in r#"["\\u0-9a-fdD8-9/n]{0,12}"#) {
            prop_assert_eq!(text(&serde_json::to_string(&any).unwrap()), Ok(any));
            let quoted = format!("\"{noise}\"");
            prop_assert_eq!(text(&quoted).ok(), serde_json::from_str::<String>(&quoted).ok());
        }
    }
}
