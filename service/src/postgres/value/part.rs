//! Parts of composites and ranges: what stands between their brackets and commas.

/// What stands at a place.
pub(super) enum Part {
    /// No text at all: there is no value.
    Absent,
    /// A value, without its quotes. `""` is one of no characters.
    Text(String),
}

/// Takes a part off the front of `rest`, up to one of the characters that may follow it. `None` when none does.
///
/// Within quotes a quote is doubled, and a backslash keeps what follows it.
pub(super) fn take(rest: &mut &str, ends: &[char]) -> Option<Part> {
    if rest.starts_with(ends) {
        return Some(Part::Absent);
    }
    let (mut text, mut is_quoted) = (String::new(), false);
    let mut characters = rest.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '\\' => text.push(characters.next()?.1),
            '"' if is_quoted && characters.as_str().starts_with('"') => text.push(characters.next()?.1),
            '"' => is_quoted = !is_quoted,
            end if !is_quoted && ends.contains(&end) => {
                *rest = &rest[position..];
                return Some(Part::Text(text));
            }
            _ => text.push(character),
        }
    }
    None
}
