//! Inputs made from others.

use crate::random::Random;

/// Inputs are cut to this: larger ones have a test of their own.
const BYTES_MAX: usize = 64 * 1024;

/// Words and signs that mean something.
const TOKENS: [&str; 58] = [
    "SELECT",
    "FROM",
    "WHERE",
    "AND",
    "OR",
    "NOT",
    "IN",
    "AS",
    "JOIN",
    "ON",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "BETWEEN",
    "IS",
    "NULL",
    "TRUE",
    "CAST",
    "ARRAY[",
    "ROW(",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ";",
    ".",
    "*",
    "%",
    "'",
    "\"",
    "`",
    "--",
    "/*",
    "->",
    "->>",
    "::",
    "||",
    "&&",
    "<>",
    "=",
    "-",
    "json_each(",
    "bucket.a",
    ":user_id",
    "auth.user_id()",
    "request.jwt()",
    "&a",
    "*a",
    "<<:",
    "? ",
    "!tag",
    "|",
    ">-",
];

/// What can be wrapped around itself: before, in the middle, after.
const WRAPPERS: [(&str, &str, &str); 14] = [
    ("(", "a", ")"),
    ("NOT (", "a", ")"),
    ("NOT ", "a", ""),
    ("[", "a", "]"),
    ("{a: ", "a", "}"),
    ("- ", "a", ""),
    ("CASE WHEN ", "a", " THEN 1 END"),
    ("a IN (SELECT a FROM t WHERE ", "a", ")"),
    ("SELECT a FROM (", "SELECT a FROM t", ") AS x"),
    ("upper(", "a", ")"),
    ("CAST(", "a", " AS text)"),
    ("a IN ", "a", ""),
    ("a OR (b AND ", "a", ")"),
    ("a = 1 OR b = 2 AND ", "a", ""),
];

const NUMBERS: [&str; 8] = [
    "0",
    "-1",
    "9223372036854775808",
    "170141183460469231731687303715884105728",
    "99999999999999999999999999999999999999999999999999",
    "1e308",
    "0.1",
    ".5.5.",
];

/// Mutations of an entry: mostly one, at most five, so that many inputs still compile.
pub(crate) fn mutated(random: &mut Random, corpus: &[String]) -> String {
    let mut bytes = random.pick(corpus).clone().into_bytes();
    for _ in 0..*random.pick(&[1, 1, 1, 2, 5]) {
        mutate(random, &mut bytes, corpus);
        bytes.truncate(BYTES_MAX);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, corpus: &[String]) {
    let (from, to) = span(random, bytes);
    match random.below(12) {
        0 => {
            if let Some(byte) = bytes.get_mut(from) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => drop(bytes.drain(from..to)),
        // A stretch again, perhaps very often.
        2 => {
            let stretch = bytes[from..to].repeat(1 + random.below(64));
            insert(bytes, to, &stretch);
        }
        3 | 4 => {
            let other = random.pick(corpus).as_bytes();
            let (start, end) = span(random, other);
            bytes.splice(from..to, other[start..end].iter().copied());
        }
        5 => {
            let (prefix, middle, suffix) = *random.pick(&WRAPPERS);
            let depth = *random.pick(&[1, 1, 2, 5, 20, 60, 130, 2500]);
            insert(bytes, from, (prefix.repeat(depth) + middle + &suffix.repeat(depth)).as_bytes());
        }
        6 => {
            let number = *random.pick(&NUMBERS);
            bytes.splice(from..to.min(from + 3), number.bytes());
        }
        7 => {
            let (start, end) = word(random, bytes);
            let word = bytes[start..end].to_vec();
            let (start, end) = self::word(random, bytes);
            bytes.splice(start..end, word);
        }
        8 => {
            let (start, end) = word(random, bytes);
            let token = random.text(&TOKENS);
            bytes.splice(start..end, token.bytes());
        }
        _ => {
            let token = format!(" {} ", random.text(&TOKENS));
            insert(bytes, from, token.as_bytes());
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, inserted: &[u8]) {
    bytes.splice(at..at, inserted.iter().copied());
}

/// A stretch, mostly a short one.
fn span(random: &mut Random, bytes: &[u8]) -> (usize, usize) {
    let from = random.below(bytes.len() + 1);
    let length_max = *random.pick(&[1, 8, 64, 4096]);
    (from, (from + random.below(length_max + 1)).min(bytes.len()))
}

/// A word or number, or nothing between others.
fn word(random: &mut Random, bytes: &[u8]) -> (usize, usize) {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let at = random.below(bytes.len() + 1);
    let before = bytes[..at].iter().rev().take_while(|byte| is_part(byte)).count();
    let after = bytes[at..].iter().take_while(|byte| is_part(byte)).count();
    (at - before, at + after)
}
