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
        let digits = self.0.iter().take(11).take_while(|byte| byte.is_ascii_digit());
        let (length, number) =
            digits.fold((0, 0), |(length, number), digit| (length + 1, 10 * number + u64::from(digit - b'0')));
        self.0 = &self.0[length..];
        if length == 0 { Err(Malformed) } else { u32::try_from(number).map_err(|_| Malformed) }
    }

    /// Reads a text without escapes.
    pub(crate) fn plain_text(&mut self) -> Result<&'a [u8], Malformed> {
        self.expect(b'"')?;
        let end = length_before_special(self.0).ok_or(Malformed)?;
        let text = self.split(end)?;
        self.expect(b'"')?;
        Ok(text)
    }

    /// Reads a text, which is appended as it is meant.
    pub(crate) fn text(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.expect(b'"')?;
        // Rows are full of quotes, so what lies between escapes is short. Where all specials of a block are known at once,
        // nothing waits for the one before: a whole block is copied from where a run begins, and what is too much of it
        // is dropped, which is several times faster than looking for the end of each run and copying up to it.
        while let Some(window) = self.0.first_chunk::<{ 2 * BLOCK }>() {
            match copy_block(window, out) {
                Block::Passed(length) => self.0 = &self.0[length..],
                Block::End(length) => {
                    self.0 = &self.0[length..];
                    return Ok(());
                }
                Block::Escape(length) => {
                    self.0 = &self.0[length..];
                    self.escape(out)?;
                }
            }
        }
        loop {
            let length = length_before_special(self.0).ok_or(Malformed)?;
            out.extend_from_slice(self.split(length)?);
            if self.take(b'"') {
                return Ok(());
            }
            self.expect(b'\\')?;
            self.escape(out)?;
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

/// Bytes that are looked at together.
const BLOCK: usize = 32;

/// How far a block was read: so many bytes of it.
enum Block {
    /// The text goes on.
    Passed(usize),
    /// The last one was the quote that ends it.
    End(usize),
    /// The last one was a backslash, before something that does not stand for itself or is in the next block.
    Escape(usize),
}

/// Appends what the first block means; what follows it is there to be copied with it.
fn copy_block(window: &[u8; 2 * BLOCK], out: &mut Vec<u8>) -> Block {
    let mut copy = |from: usize, to: usize| {
        if let Some(run) = window[from..].first_chunk::<BLOCK>() {
            out.extend_from_slice(run);
            out.truncate(out.len() - (BLOCK - (to - from)));
        }
    };
    let (mut from, mut taken) = (0, 0);
    for (index, word) in window[..BLOCK].as_chunks::<8>().0.iter().enumerate() {
        let mut specials = specials(*word) & !taken;
        taken = 0;
        while specials != 0 {
            let bit = specials.trailing_zeros();
            let at = 8 * index + bit as usize / 8;
            copy(from, at);
            if window[at] == b'"' {
                return Block::End(at + 1);
            }
            // What stands for itself is the beginning of the next run.
            if at + 1 == BLOCK || !matches!(window[at + 1], b'"' | b'\\') {
                return Block::Escape(at + 1);
            }
            from = at + 1;
            specials &= !(0x8080 << (bit - 7));
            taken = if bit == 63 { 0x80 } else { 0 };
        }
    }
    copy(from, BLOCK);
    Block::Passed(BLOCK)
}

/// The highest bit of each byte of a word that is a quote or a backslash.
fn specials(word: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = ONES * 0x7F;
    let word = u64::from_le_bytes(word);
    let differs_from = |byte: u8| {
        let bits = word ^ (ONES * u64::from(byte));
        ((bits & LOW) + LOW) | bits
    };
    !(differs_from(b'"') & differs_from(b'\\') | LOW)
}

/// How many bytes come before the first quote or backslash, if there is one.
fn length_before_special(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    // Most texts without escapes are short.
    for (index, word) in words.iter().take(3).enumerate() {
        let specials = specials(*word);
        if specials != 0 {
            return Some(8 * index + specials.trailing_zeros() as usize / 8);
        }
    }
    memchr2(b'"', b'\\', bytes)
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

    /// Text as it stands in JSON, long enough for several blocks, and now and then something that may not stand there.
    fn quoted() -> impl Strategy<Value = String> {
        let meant =
            [r#"\""#, r"\\", r"\/", r"\n", r"\u00e9", r"\ud83d\ude00", "a", "é", "without", "any of them at all"];
        let part =
            prop_oneof![60 => prop::sample::select(meant.to_vec()), 1 => prop::sample::select(vec!["\"", "\\", "\\x"])];
        prop::collection::vec(part, 0..40).prop_map(|parts| format!("\"{}\"", parts.concat()))
    }

    proptest! {
        #[test]
        fn any_text_reads_as_serde_reads_it(any in ".{0,90}", noise in r#"["\\u0-9a-fdD8-9/n]{0,12}"#, quoted in quoted()) {
            prop_assert_eq!(text(&serde_json::to_string(&any).unwrap()), Ok(any));
            for quoted in [format!("\"{noise}\""), quoted] {
                prop_assert_eq!(text(&quoted).ok(), serde_json::from_str::<String>(&quoted).ok(), "{}", quoted);
            }
        }
    }
}
