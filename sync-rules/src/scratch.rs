//! What rows that are evaluated one after the other have in common.

use std::{collections::HashSet, sync::Arc};

use foldhash::fast::RandomState;

/// Texts that are kept to be shared; with more, all are forgotten.
const TEXTS_MAX: usize = 4_096;

/// Memory that evaluating uses again from row to row, and texts that many rows share: names of buckets and tables.
///
/// For one batch of rows: who shares a text is counted, which is slow when several threads do so at a time.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The parameters a row matched last.
    pub(crate) parts: String,
    /// The bucket's name.
    pub(crate) name: String,
    /// The row as JSON.
    pub(crate) json: String,
    texts: HashSet<Arc<str>, RandomState>,
}

impl Scratch {
    /// The text as `name` says it, shared with earlier rows.
    pub(crate) fn shared_name(&mut self) -> Arc<str> {
        share(&mut self.texts, &self.name)
    }

    /// A text, shared with earlier rows.
    pub(crate) fn shared(&mut self, text: &str) -> Arc<str> {
        share(&mut self.texts, text)
    }
}

fn share(texts: &mut HashSet<Arc<str>, RandomState>, text: &str) -> Arc<str> {
    if let Some(known) = texts.get(text) {
        return Arc::clone(known);
    }
    if texts.len() == TEXTS_MAX {
        texts.clear();
    }
    let text: Arc<str> = Arc::from(text);
    texts.insert(Arc::clone(&text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_few_are_kept() {
        let mut scratch = Scratch::default();
        let first = scratch.shared("b[1]");
        scratch.name.push_str("b[1]");
        assert!(Arc::ptr_eq(&first, &scratch.shared_name()));
        (0..10 * TEXTS_MAX).for_each(|number| drop(scratch.shared(&number.to_string())));
        assert!(scratch.texts.len() <= TEXTS_MAX);
    }
}
