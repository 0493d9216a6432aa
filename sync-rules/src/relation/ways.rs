//! How a request leads to a combination of parameters: which answers of lookups stand behind it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answers, JoinedRows, Prepared, PreparedStep, combination, name_part};
use crate::{
    definition::IndexId,
    evaluate::{LookupKey, LookupSource, LookupValue},
    key,
};

/// Bucket parameters as key parts.
type Parts = Vec<String>;

/// An answer that was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The step that asked.
    pub step: usize,
    /// Its index.
    pub index: IndexId,
    /// What was asked.
    pub key: LookupKey,
    /// What was answered.
    pub value: LookupValue,
}

impl Prepared {
    /// For each of these combinations, which [`Prepared::resolve`] must have given, the answers that lead to it: one way
    /// of those there may be.
    pub(crate) fn ways<L: LookupSource>(
        &self,
        wanted: &BTreeSet<Parts>,
        lookups: &mut L,
    ) -> Result<BTreeMap<Parts, Vec<Answer>>, L::Error> {
        let mut ways: BTreeMap<Parts, Vec<Answer>> = wanted.iter().map(|parts| (parts.clone(), Vec::new())).collect();
        let mut answers = Answers { lookups, consulted: &mut Vec::new(), known: BTreeMap::new() };
        for component in self.components() {
            let Ok(tuples) = self.tuples(&component, &mut answers)? else { continue };
            let mut by_parts: BTreeMap<Vec<Option<String>>, &JoinedRows> = BTreeMap::new();
            for tuple in &tuples {
                if let Some(parts) = self.parts(tuple) {
                    by_parts.entry(parts).or_insert(tuple);
                }
            }
            // All tuples of a component speak of the same parameters.
            let Some(spoken_of) = by_parts.keys().next() else { continue };
            let spoken_of: Vec<bool> = spoken_of.iter().map(Option::is_some).collect();
            for (parts, way) in &mut ways {
                let parts = parts.iter().zip(&spoken_of).map(|(part, is_known)| is_known.then(|| part.clone()));
                if let Some(tuple) = by_parts.get(&parts.collect::<Vec<_>>()) {
                    way.extend(component.iter().filter_map(|step| self.answer(*step, tuple)));
                }
            }
        }
        Ok(ways)
    }

    /// What a tuple says of the parameters, together with the request.
    fn parts(&self, tuple: &JoinedRows) -> Option<Vec<Option<String>>> {
        let value = |step: usize, output: usize| tuple.get(&step)?.get(output).cloned();
        let found = combination(&self.parameters, &value)?;
        Some(found.iter().map(|part| part.as_deref().map(name_part)).collect())
    }

    fn answer(&self, step: usize, tuple: &JoinedRows) -> Option<Answer> {
        let PreparedStep::Lookup { index, inputs } = &self.steps[step] else { return None };
        let value = |step: usize, output: usize| tuple.get(&step)?.get(output).cloned();
        let asked = combination(inputs, &value)?;
        let asked: Vec<_> = asked.iter().flatten().map(|part| name_part(part)).collect();
        let answered = tuple.get(&step)?;
        Some(Answer {
            step,
            index: index.clone(),
            key: key::lookup(index, asked.iter().map(String::as_str)),
            value: key::lookup_value(answered.iter().map(AsRef::as_ref)),
        })
    }
}
