//! Names that an object has twice. They are refused: which of two values counts depends on who reads.

use std::collections::{BTreeMap, BTreeSet};

use super::Json;
use crate::value::Failure;

const REPEATED: Failure = Failure("a JSON object has two values for one key");

/// Every name once, where it stood first. A repetition must have the same value.
pub(super) fn without_repetitions(members: Vec<(String, Json)>) -> Result<Vec<(String, Json)>, Failure> {
    let repetitions = repetitions(&members)?;
    let places = members.into_iter().enumerate();
    Ok(places.filter(|(place, _)| !repetitions.contains(place)).map(|(_, member)| member).collect())
}

fn repetitions(members: &[(String, Json)]) -> Result<BTreeSet<usize>, Failure> {
    let mut first_places = BTreeMap::new();
    let mut repetitions = BTreeSet::new();
    for (place, (name, value)) in members.iter().enumerate() {
        let first = *first_places.entry(name).or_insert(place);
        if first < place {
            if !is_same(&members[first].1, value) {
                return Err(REPEATED);
            }
            repetitions.insert(place);
        }
    }
    Ok(repetitions)
}

/// Equality, whatever the order of members.
fn is_same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_same(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            let by_name: BTreeMap<_, _> = right.iter().map(|(name, value)| (name, value)).collect();
            let is_in_right = |(name, value)| by_name.get(name).is_some_and(|other| is_same(value, other));
            left.len() == right.len() && left.iter().map(|(name, value)| (name, value)).all(is_in_right)
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_repeat_only_with_an_equal_value() {
        let text = |text: &str| Json::parse(text).map(|json| json.to_text());
        assert_eq!(text(r#"{"a":1,"b":2,"a":1,"c":3,"b":2}"#).unwrap(), r#"{"a":1,"b":2,"c":3}"#);
        assert_eq!(
            text(r#"{"a":{"x":[1],"y":2},"a":{"y":2,"x":[1]}}"#).unwrap(),
            r#"{"a":{"x":[1],"y":2}}"#,
            "the order of members does not matter"
        );
        for repeated in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"a":1.0}"#,
            r#"{"x":{"x":1},"x":2}"#,
            r#"{"a":[1],"a":[1,2]}"#,
            r#"{"a":{"x":1},"a":{"y":1}}"#,
            r#"{"a":{"x":1},"a":{"x":1,"y":1}}"#,
        ] {
            assert_eq!(Json::parse(repeated), Err(REPEATED), "{repeated}");
        }
    }
}
