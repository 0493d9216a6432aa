//! Conditions as alternatives: OR of ANDs.

/// How many alternatives a condition may have. More would be as many buckets per client.
pub(super) const ALTERNATIVES_MAX: usize = 100;

/// A condition, with NOT inside its terms.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree<T> {
    Term(T),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// The alternatives, each a list of terms that must all hold. In an alternative, terms from distributed ORs come before
/// those that were joined by AND alone; bucket names depend on it. `None` if there are too many.
pub(super) fn alternatives<T: Clone>(tree: Tree<T>) -> Option<Vec<Vec<T>>> {
    match tree {
        Tree::Term(term) => Some(vec![vec![term]]),
        Tree::Any(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(alternatives(part)?);
                if all.len() > ALTERNATIVES_MAX {
                    return None;
                }
            }
            Some(all)
        }
        Tree::All(parts) => {
            let mut combined: Vec<Vec<T>> = vec![Vec::new()];
            let mut plain = Vec::new();
            for part in flatten(parts) {
                let Tree::Any(_) = part else {
                    plain.extend(alternatives(part)?.into_iter().flatten());
                    continue;
                };
                let choices = alternatives(part)?;
                if combined.len() * choices.len() > ALTERNATIVES_MAX {
                    return None;
                }
                combined = combined
                    .iter()
                    .flat_map(|chosen| choices.iter().map(|choice| chosen.iter().chain(choice).cloned().collect()))
                    .collect();
            }
            for terms in &mut combined {
                terms.extend(plain.iter().cloned());
            }
            Some(combined)
        }
    }
}

/// Parts of nested ANDs in one list.
fn flatten<T>(parts: Vec<Tree<T>>) -> Vec<Tree<T>> {
    let mut flat = Vec::new();
    for part in parts {
        match part {
            Tree::All(inner) => flat.extend(flatten(inner)),
            other => flat.push(other),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(name: &'static str) -> Tree<&'static str> {
        Tree::Term(name)
    }

    #[test]
    fn distributed_terms_come_first() {
        let tree = Tree::All(vec![term("a"), Tree::Any(vec![term("b"), term("c")]), Tree::All(vec![term("d")])]);
        assert_eq!(alternatives(tree).unwrap(), [vec!["b", "a", "d"], vec!["c", "a", "d"]]);
    }

    #[test]
    fn nothing_is_one_alternative_without_terms() {
        assert_eq!(alternatives(Tree::<()>::All(vec![])).unwrap(), [vec![]]);
    }

    #[test]
    fn products_have_a_bound() {
        let choice = || Tree::Any(vec![term("a"), term("b")]);
        assert_eq!(alternatives(Tree::All(vec![choice(), choice(), choice()])).unwrap().len(), 8);
        assert!(alternatives(Tree::All((0..7).map(|_| choice()).collect())).is_none());
    }
}
