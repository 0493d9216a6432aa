//! What somebody probably meant.

/// The candidate that differs least, if it differs by a slip of the keyboard only.
pub(crate) fn nearest<'c>(text: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    const DISTANCE_MAX: usize = 2;
    let close = candidates.map(|candidate| (distance(text, candidate), candidate));
    close.filter(|(distance, _)| *distance <= DISTANCE_MAX).min().map(|(_, candidate)| candidate)
}

/// Help for a name that is none of the `known`: the one that was probably meant, or all of them. `what` they are, in
/// the plural.
pub(crate) fn help_for<'c>(name: &str, what: &str, known: impl Iterator<Item = &'c str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => format!("{what} are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// How many letters must be changed, added or removed; capital letters count like small ones.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, one) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(one != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_recognised() {
        assert_eq!(nearest("ownr", ["id", "owner", "order"].into_iter()), Some("owner"));
        assert_eq!(nearest("OWNER", ["owner"].into_iter()), Some("owner"));
        assert_eq!(nearest("owner", ["created_at"].into_iter()), None);
        assert_eq!(distance("", "ab"), 2);
    }
}
