//! Bounds of a body's shape, held while it arrives: what a few bytes of JSON may become in memory. Pure.
//!
//! A member of an object takes ten times its text once it is read, so a bound on bytes is not enough. Whether the text is
//! JSON at all is not looked at here.

/// How deep lists and objects may lie in each other; the reader has the same bound.
const DEPTH_MAX: usize = 128;
/// Members of one object: Postgres has at most 1,600 columns in a table.
const MEMBERS_MAX: u32 = 4096;
/// Items of one list: ten times the writes of a batch, or the buckets of a client.
const ITEMS_MAX: u32 = 1 << 17;
/// Members and items in all: the largest batch of writes, with a hundred columns each.
const VALUES_MAX: u32 = 1 << 20;
/// Digits and signs of a number: as text, no number of SQLite is longer than 30.
const NUMBER_BYTES_MAX: usize = 1024;

/// Which bound does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    Depth,
    Members,
    Items,
    Values,
    NumberBytes,
}

impl Exceeded {
    /// For the client.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Depth => format!("The body has more than {DEPTH_MAX} levels of lists and objects"),
            Self::Members => format!("An object in the body has more than {MEMBERS_MAX} members"),
            Self::Items => format!("A list in the body has more than {ITEMS_MAX} items"),
            Self::Values => format!("The body has more than {VALUES_MAX} values"),
            Self::NumberBytes => format!("A number in the body is longer than {NUMBER_BYTES_MAX} bytes"),
        }
    }
}

/// What is being read.
enum Within {
    Nothing,
    Text,
    /// After a backslash in a text.
    Escape,
    Number(usize),
}

/// A list or object that is open, and what it has had so far.
enum Open {
    List(u32),
    Object(u32),
}

/// Reads a body as it arrives.
pub(super) struct JsonBounds {
    within: Within,
    open: Vec<Open>,
    values: u32,
}

impl JsonBounds {
    pub(super) fn new() -> Self {
        Self { within: Within::Nothing, open: Vec::new(), values: 0 }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), Exceeded> {
        bytes.iter().try_for_each(|byte| self.step(*byte))
    }

    fn step(&mut self, byte: u8) -> Result<(), Exceeded> {
        match (&mut self.within, byte) {
            (Within::Text, b'"') => self.within = Within::Nothing,
            (Within::Text, b'\\') => self.within = Within::Escape,
            (Within::Text, _) => {}
            (Within::Escape, _) => self.within = Within::Text,
            (Within::Number(length), b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E') => {
                *length += 1;
                if *length > NUMBER_BYTES_MAX {
                    return Err(Exceeded::NumberBytes);
                }
            }
            (Within::Nothing | Within::Number(_), _) => return self.begin(byte),
        }
        Ok(())
    }

    fn begin(&mut self, byte: u8) -> Result<(), Exceeded> {
        self.within = match byte {
            b'"' => Within::Text,
            b'0'..=b'9' | b'-' => Within::Number(1),
            _ => Within::Nothing,
        };
        match byte {
            b'{' | b'[' => {
                self.open.push(if byte == b'{' { Open::Object(1) } else { Open::List(1) });
                self.count()?;
                if self.open.len() > DEPTH_MAX {
                    return Err(Exceeded::Depth);
                }
            }
            b'}' | b']' => {
                self.open.pop();
            }
            b',' => {
                self.count()?;
                let (count, max, exceeded) = match self.open.last_mut() {
                    Some(Open::Object(count)) => (count, MEMBERS_MAX, Exceeded::Members),
                    Some(Open::List(count)) => (count, ITEMS_MAX, Exceeded::Items),
                    None => return Ok(()),
                };
                *count += 1;
                if *count > max {
                    return Err(exceeded);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Exceeded> {
        self.values += 1;
        if self.values > VALUES_MAX { Err(Exceeded::Values) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// Fed whole and byte by byte, which must not differ.
    fn feed(text: &str) -> Result<(), Exceeded> {
        let whole = JsonBounds::new().feed(text.as_bytes());
        let mut bounds = JsonBounds::new();
        assert_eq!(whole, text.as_bytes().chunks(1).try_for_each(|byte| bounds.feed(byte)));
        whole
    }

    fn members(count: u32) -> String {
        (0..count).fold(String::new(), |mut text, n| {
            let _ = write!(text, "{}\"k{n}\":{n}", if n == 0 { "" } else { "," });
            text
        })
    }

    #[test]
    fn each_bound_holds_to_the_last_one() {
        assert_eq!(feed(&"[".repeat(DEPTH_MAX)), Ok(()));
        assert_eq!(feed(&"[".repeat(DEPTH_MAX + 1)), Err(Exceeded::Depth));
        assert_eq!(feed(&"{\"a\":".repeat(DEPTH_MAX + 1)), Err(Exceeded::Depth));
        assert_eq!(feed(&format!("[{{{}}}]", members(MEMBERS_MAX))), Ok(()));
        assert_eq!(feed(&format!("[{{{}}}]", members(MEMBERS_MAX + 1))), Err(Exceeded::Members));
        assert_eq!(feed(&"9".repeat(NUMBER_BYTES_MAX)), Ok(()));
        assert_eq!(feed(&format!("[-{}]", "9".repeat(NUMBER_BYTES_MAX))), Err(Exceeded::NumberBytes));
        assert_eq!(JsonBounds::new().feed("[1,".repeat(3).as_bytes()), Ok(()));
        let items = "[],".repeat(ITEMS_MAX as usize - 1);
        assert_eq!(JsonBounds::new().feed(format!("[{items}[]]").as_bytes()), Ok(()));
        assert_eq!(JsonBounds::new().feed(format!("[{items}[],[]]").as_bytes()), Err(Exceeded::Items));
        let lists = format!("[{items}[]],").repeat(5);
        assert_eq!(JsonBounds::new().feed(format!("[{lists}").as_bytes()), Err(Exceeded::Values));
    }

    #[test]
    fn what_is_in_a_text_does_not_count() {
        let text = format!(r#"{{"a":"{}{}\"{}","b":[]}}"#, "[".repeat(500), ",".repeat(5000), "9".repeat(5000));
        assert_eq!(feed(&text), Ok(()));
        assert_eq!(feed(&format!(r#"["\\",{}]"#, "9".repeat(2000))), Err(Exceeded::NumberBytes), "the text ended");
    }

    #[test]
    fn many_small_objects_are_no_large_one() {
        let objects = vec![format!("{{{}}}", members(100)); 100].join(",");
        assert_eq!(feed(&format!("[{objects}]")), Ok(()));
        assert_eq!(feed(&"]".repeat(1000)), Ok(()), "no JSON, but no harm either");
    }
}
