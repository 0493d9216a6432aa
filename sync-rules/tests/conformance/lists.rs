//! What is known not to agree, from files whose empty lines and lines beginning with `#` are comments.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use crate::compare::Level;

/// The cases that may differ.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// On purpose, and at which level first. `deviations.txt`: `case-id level reason…`.
    deviations: BTreeMap<String, Level>,
    /// Not yet equal. `pending.txt`, which may be absent: a case id per line.
    pending: BTreeSet<String>,
}

impl Lists {
    pub(crate) fn read(folder: &Path) -> Self {
        let mut lists = Self::default();
        for line in lines(&folder.join("deviations.txt")) {
            let (id, level) = deviation(&line).unwrap_or_else(|| panic!("not `case-id level reason…`: {line}"));
            assert!(lists.deviations.insert(id, level).is_none(), "listed twice: {line}");
        }
        lists.pending.extend(lines(&folder.join("pending.txt")));
        lists
    }

    pub(crate) fn deviates(&self, id: &str) -> bool {
        self.deviations.contains_key(id)
    }

    pub(crate) fn is_pending(&self, id: &str) -> bool {
        self.pending.contains(id)
    }

    /// What is wrong about a case that first differs at `difference`.
    pub(crate) fn fault(&self, id: &str, difference: Option<Level>) -> Option<String> {
        match (difference, self.deviations.get(id), self.pending.contains(id)) {
            (_, Some(_), true) => Some("is a deviation and pending".to_owned()),
            (None, None, false) | (Some(_), None, true) => None,
            (None, _, _) => Some("is listed, but does not differ".to_owned()),
            (Some(level), None, false) => Some(format!("differs at `{}`", level.name())),
            (Some(level), Some(listed), false) if level == *listed => None,
            (Some(level), Some(listed), false) => {
                Some(format!("differs at `{}`, but is listed with `{}`", level.name(), listed.name()))
            }
        }
    }

    /// Listed cases that do not exist.
    pub(crate) fn unknown(&self, known: &BTreeSet<String>) -> Vec<&str> {
        self.deviations.keys().chain(&self.pending).filter(|id| !known.contains(*id)).map(String::as_str).collect()
    }
}

fn lines(file: &Path) -> Vec<String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => panic!("{}: {error}", file.display()),
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

fn deviation(line: &str) -> Option<(String, Level)> {
    let mut words = line.split_whitespace();
    let id = words.next()?.to_owned();
    let name = words.next()?;
    let level = Level::ALL.into_iter().find(|level| level.name() == name)?;
    // A deviation without a reason is a bug.
    words.next().map(|_| (id, level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_may_differ_and_only_as_listed() {
        let lists = Lists {
            deviations: BTreeMap::from([("d".to_owned(), Level::Exact)]),
            pending: BTreeSet::from(["p".to_owned()]),
        };
        for (id, difference, is_fault) in [
            ("other", None, false),
            ("other", Some(Level::Exact), true),
            ("d", None, true),
            ("d", Some(Level::Exact), false),
            ("d", Some(Level::Visible), true),
            ("p", None, true),
            ("p", Some(Level::Visible), false),
        ] {
            assert_eq!(lists.fault(id, difference).is_some(), is_fault, "{id} {difference:?}");
        }
        assert_eq!(lists.unknown(&BTreeSet::from(["p".to_owned()])), ["d"]);
    }

    #[test]
    fn a_deviation_has_a_level_and_a_reason() {
        assert_eq!(deviation("a/b/1 exact the code is ours"), Some(("a/b/1".to_owned(), Level::Exact)));
        for line in ["a/b/1", "a/b/1 exact", "a/b/1 full all of it"] {
            assert_eq!(deviation(line), None, "{line}");
        }
    }
}
