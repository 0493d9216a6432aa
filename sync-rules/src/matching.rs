//! Rows against filters: under which slot values does the filter hold?

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    definition::{Filter, IndexId},
    evaluate::{LookupKey, LookupSource},
    expression::array_elements,
    json::{Form, Json},
    key,
    row::{Cell, Row},
    value::Failure,
};

/// A row may match this many combinations in one query; more would flood the store with copies of it.
pub(crate) const COMBINATIONS_MAX: usize = 100_000;
/// The names of buckets and lookups of one row, or of one request, may have this many bytes together.
pub(crate) const NAME_BYTES_MAX: usize = 16 << 20;
/// Why more gives nothing.
pub(crate) const TOO_LONG: Failure = Failure("the names of the buckets are too long together");
/// Why such a row gives nothing.
pub(crate) const TOO_MANY: Failure = Failure("the row matches too many combinations of parameters");

/// Key parts by slot; `None` where nothing is said of the slot.
/// Parts are shared: one may be in many combinations.
pub(crate) type Combination = Vec<Option<Arc<str>>>;

/// Why a filter gave no answer.
#[derive(Debug)]
pub(crate) enum MatchError<E> {
    /// An expression failed: this query gives nothing for this row.
    Failure(Failure),
    /// The index of lookups failed.
    Lookups(E),
}

impl<E> From<Failure> for MatchError<E> {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// What joins are asked through.
pub(crate) struct Joins<'a, L> {
    pub lookups: &'a mut L,
    /// Every lookup that was asked.
    pub consulted: &'a mut Vec<LookupKey>,
}

/// All combinations under which the filter holds for the row.
pub(crate) fn combinations<L: LookupSource>(
    filter: &Filter<Cell>,
    slot_count: usize,
    row: Row<'_>,
    joins: &mut Joins<'_, L>,
) -> Result<Vec<Combination>, MatchError<L::Error>> {
    let with = |slot: usize, part: Arc<str>| {
        let mut combination = vec![None; slot_count];
        combination[slot] = Some(part);
        combination
    };
    let found = match filter {
        Filter::Condition(condition) if row.evaluate(condition)?.truth() => vec![vec![None; slot_count]],
        Filter::Condition(_) => Vec::new(),
        Filter::Equals { slot, value } => {
            key::row_key_part(&*row.evaluate(value)?).map(|part| with(*slot, Arc::from(part))).into_iter().collect()
        }
        Filter::EqualsOrNull { slot, value } => {
            let value = row.evaluate(value)?;
            let part = if value.is_null() { Some("null".to_owned()) } else { key::row_key_part(&value) };
            part.map(|part| with(*slot, Arc::from(part))).into_iter().collect()
        }
        Filter::IsTrue { slot } => vec![with(*slot, Arc::from("1"))],
        Filter::Contains { slot, array } => {
            let array = row.evaluate(array)?;
            let elements = if array.is_null() { Vec::new() } else { array_elements(&array)? };
            let part = |element: &Json| {
                let mut part = String::new();
                element.write(Form::Name, &mut part);
                part
            };
            // JSON null is as little equal to anything as NULL is.
            let elements = elements.iter().filter(|element| **element != Json::Null);
            elements.map(|element| with(*slot, Arc::from(part(element)))).collect()
        }
        Filter::Joined { index, values, slots } => {
            let mut parts = Vec::with_capacity(values.len());
            for value in values {
                parts.extend(key::row_key_part(&*row.evaluate(value)?));
            }
            if parts.len() == values.len() { joined(index, &parts, slots, slot_count, joins)? } else { Vec::new() }
        }
        Filter::All(parts) => {
            let mut all = vec![vec![None; slot_count]];
            for part in parts {
                // A row that is out already need not ask a join; other failures still show.
                if all.is_empty() && matches!(part, Filter::Joined { .. }) {
                    break;
                }
                all = meet(&all, &combinations(part, slot_count, row, joins)?)?;
            }
            all
        }
        Filter::Any(parts) => {
            let mut any = Vec::new();
            for part in parts {
                any.extend(combinations(part, slot_count, row, joins)?);
            }
            any
        }
    };
    if found.len() > COMBINATIONS_MAX { Err(TOO_MANY.into()) } else { Ok(found) }
}

fn joined<L: LookupSource>(
    index: &IndexId,
    parts: &[String],
    slots: &[usize],
    slot_count: usize,
    joins: &mut Joins<'_, L>,
) -> Result<Vec<Combination>, MatchError<L::Error>> {
    const UNREADABLE: Failure = Failure("the index of the join is damaged");
    let key = key::lookup(index, parts.iter().map(String::as_str));
    let answers = joins.lookups.values(&key).map_err(MatchError::Lookups)?;
    joins.consulted.push(key);
    let mut found = Vec::new();
    for answer in &answers {
        let parts = key::lookup_parts(answer).filter(|parts| parts.len() == slots.len()).ok_or(UNREADABLE)?;
        let mut combination = vec![None; slot_count];
        for (slot, part) in slots.iter().zip(parts) {
            combination[*slot] = Some(Arc::from(part));
        }
        found.push(combination);
    }
    Ok(found)
}

/// Every pair that agrees on the slots both speak of. All combinations of a side speak of the same slots.
pub(crate) fn meet(left: &[Combination], right: &[Combination]) -> Result<Vec<Combination>, Failure> {
    let (Some(one), Some(other)) = (left.first(), right.first()) else { return Ok(Vec::new()) };
    let shared: Vec<_> = (0..one.len()).filter(|slot| one[*slot].is_some() && other[*slot].is_some()).collect();
    let part = |combination: &Combination| shared.iter().map(|slot| combination[*slot].clone()).collect::<Vec<_>>();
    let mut by_part: BTreeMap<_, Vec<&Combination>> = BTreeMap::new();
    for other in right {
        by_part.entry(part(other)).or_default().push(other);
    }
    let mut both = Vec::new();
    for one in left {
        for other in by_part.get(&part(one)).into_iter().flatten() {
            if both.len() == COMBINATIONS_MAX {
                return Err(TOO_MANY);
            }
            both.push(one.iter().zip(*other).map(|(one, other)| one.as_ref().or(other.as_ref()).cloned()).collect());
        }
    }
    Ok(both)
}
