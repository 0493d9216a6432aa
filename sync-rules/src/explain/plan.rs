//! The compiled plan for a person: for each definition which rows go where, and how a client's buckets are found.

use std::fmt::Write;

use super::words::{
    element_text, parameter_names, parameter_text, request_text, row_input, row_text, table_name as table,
};
use crate::{
    definition::{
        Bucket, BucketQuery, Definition, DefinitionKind, ElementForm, Filter, IndexId, IndexPart, IndexQuery,
        OutputItem, RowInput, RowQuery, RowSource, Step,
    },
    plan::SyncPlan,
};

impl SyncPlan {
    /// The plan as text. Bucket parameters are called `p1`, `p2`, …
    ///
    /// ```text
    /// stream board, for all clients
    ///   rows
    ///     public.cards as cards, into board|0[p1]
    ///       columns *
    ///       when archived = 0
    ///       p1 is board_id
    ///   clients
    ///     get board|0[p1], priority 3
    ///       step 1: ask index a1b2… with token ->> '$.sub'
    ///       p1 is value 1 of step 1
    ///   indexes
    ///     a1b2…: rows of public.boards (board, lookup on boards)
    ///       owner finds id
    /// ```
    pub fn explain(&self) -> String {
        let mut text = String::new();
        for definition in &self.definitions {
            let _ = self.explain_definition(definition, &mut text);
        }
        if self.definitions.is_empty() {
            text.push_str("no definitions: nothing is synced\n");
        }
        for event in &self.events {
            let _ = writeln!(text, "event {}: rows of {}", event.event, table(&event.table));
        }
        for name in self.writable_tables() {
            let _ = writeln!(text, "clients may write to {name}");
        }
        text
    }

    fn explain_definition(&self, definition: &Definition, out: &mut String) -> std::fmt::Result {
        let Definition { name, kind, buckets, queries } = definition;
        match kind {
            DefinitionKind::Buckets => writeln!(out, "bucket definition {name}, for all clients")?,
            DefinitionKind::Stream { is_default: true, .. } => writeln!(out, "stream {name}, for all clients")?,
            DefinitionKind::Stream { is_default: false, .. } => writeln!(out, "stream {name}, for who subscribes")?,
        }
        let mut indexes: Vec<&IndexId> = Vec::new();
        out.push_str("  rows\n");
        for Bucket { name, rows } in buckets {
            for row in rows {
                explain_rows(name, &self.rows[*row], &mut indexes, out)?;
            }
        }
        let shared = queries.iter().filter(|query| !buckets.iter().any(|bucket| bucket.name == query.bucket));
        for query in shared {
            writeln!(out, "    those of {}, which another stream names", query.bucket)?;
        }
        out.push_str("  clients\n");
        for query in queries {
            explain_query(query, &mut indexes, out)?;
        }
        if indexes.is_empty() {
            return Ok(());
        }
        out.push_str("  indexes\n");
        let mut at = 0;
        while let Some(id) = indexes.get(at).copied() {
            if let Some(index) = self.indexes.iter().find(|index| index.id == *id) {
                explain_index(index, &mut indexes, out)?;
            }
            at += 1;
        }
        Ok(())
    }
}

fn explain_rows<'p>(
    bucket: &str,
    query: &'p RowQuery,
    indexes: &mut Vec<&'p IndexId>,
    out: &mut String,
) -> std::fmt::Result {
    let RowQuery { source, object_type, columns, .. } = query;
    let output = object_type.as_deref().unwrap_or("their table");
    let names = parameter_names(source.slot_count);
    writeln!(out, "    {} as {output}, into {bucket}[{names}]", table(&source.table))?;
    let column = |item: &OutputItem| match item {
        OutputItem::Star => "*".to_owned(),
        OutputItem::Column { name, value } => {
            let value = row_text(value);
            if value == *name { value } else { format!("{value} as {name}") }
        }
    };
    let list: Vec<_> = columns.iter().map(column).collect();
    writeln!(out, "      columns {}", list.join(", "))?;
    explain_source(source, indexes, out)
}

fn explain_source<'p>(source: &'p RowSource, indexes: &mut Vec<&'p IndexId>, out: &mut String) -> std::fmt::Result {
    for (number, expansion) in source.expansions.iter().enumerate() {
        writeln!(out, "      for each element{} of {}", number + 1, row_text(&expansion.array))?;
    }
    for condition in &source.conditions {
        writeln!(out, "      when {}", row_text(condition))?;
    }
    explain_filter(&source.filter, 6, indexes, out)
}

fn explain_filter<'p>(
    filter: &'p Filter<RowInput>,
    indent: usize,
    indexes: &mut Vec<&'p IndexId>,
    out: &mut String,
) -> std::fmt::Result {
    let margin = " ".repeat(indent);
    match filter {
        Filter::Condition(condition) => writeln!(out, "{margin}when {}", row_text(condition)),
        Filter::Equals { slot, value } | Filter::EqualsOrNull { slot, value } => {
            writeln!(out, "{margin}p{} is {}", slot + 1, row_text(value))
        }
        Filter::Contains { slot, array } => {
            writeln!(out, "{margin}p{} is each element of {}", slot + 1, row_text(array))
        }
        Filter::IsTrue { slot } => writeln!(out, "{margin}p{} is 1", slot + 1),
        Filter::Joined { index, values, slots } => {
            note(indexes, index);
            let values: Vec<_> = values.iter().map(row_text).collect();
            let given: Vec<_> = slots.iter().map(|slot| format!("p{}", slot + 1)).collect();
            let given = if given.is_empty() { "nothing, but must answer".to_owned() } else { given.join(", ") };
            writeln!(out, "{margin}index {} asked with {} gives {given}", index.0, values.join(", "))
        }
        Filter::All(parts) => parts.iter().try_for_each(|part| explain_filter(part, indent, indexes, out)),
        Filter::Any(parts) => {
            writeln!(out, "{margin}in one of these ways")?;
            for part in parts {
                writeln!(out, "{margin}  either")?;
                explain_filter(part, indent + 4, indexes, out)?;
            }
            Ok(())
        }
    }
}

fn note<'p>(indexes: &mut Vec<&'p IndexId>, index: &'p IndexId) {
    if !indexes.contains(&index) {
        indexes.push(index);
    }
}

fn explain_query<'p>(query: &'p BucketQuery, indexes: &mut Vec<&'p IndexId>, out: &mut String) -> std::fmt::Result {
    let BucketQuery { bucket, priority, conditions, steps, parameters, .. } = query;
    writeln!(out, "    get {bucket}[{}], priority {priority}", parameter_names(parameters.len()))?;
    for condition in conditions {
        writeln!(out, "      when {}", request_text(condition))?;
    }
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Elements { array, form, filter, outputs } => {
                let form = match form {
                    ElementForm::JsonEach { .. } | ElementForm::Any => "each element",
                    ElementForm::Scalars => "each number or text",
                };
                writeln!(out, "      step {}: {form} of {}", number + 1, request_text(array))?;
                for condition in filter {
                    writeln!(out, "        when {}", element_text(condition))?;
                }
                let list: Vec<_> = outputs.iter().map(element_text).collect();
                if !list.is_empty() {
                    writeln!(out, "        gives {}", list.join(", "))?;
                }
            }
            Step::Lookup { index, inputs } => {
                note(indexes, index);
                let list: Vec<_> = inputs.iter().map(parameter_text).collect();
                let asked = if list.is_empty() { String::new() } else { format!(" with {}", list.join(", ")) };
                writeln!(out, "      step {}: ask index {}{asked}", number + 1, index.0)?;
            }
        }
    }
    for (number, parameter) in parameters.iter().enumerate() {
        writeln!(out, "      p{} is {}", number + 1, parameter_text(parameter))?;
    }
    Ok(())
}

fn explain_index<'p>(index: &'p IndexQuery, indexes: &mut Vec<&'p IndexId>, out: &mut String) -> std::fmt::Result {
    let IndexQuery { id, label, source, key, value } = index;
    let part = |part: &IndexPart| match part {
        IndexPart::Slot(slot) => format!("p{}", slot + 1),
        IndexPart::Row(value) => row_text(value),
        IndexPart::Nullable(input) => row_input(input),
    };
    let list = |parts: &[IndexPart], none: &str| {
        if parts.is_empty() { none.to_owned() } else { parts.iter().map(part).collect::<Vec<_>>().join(", ") }
    };
    writeln!(out, "    {}: rows of {} ({label})", id.0, table(&source.table))?;
    // Where slots only make up the key, they need no names.
    let is_plain = |part: &&IndexPart| matches!(part, IndexPart::Slot(_));
    let asked: Option<Vec<_>> = key.iter().map(|part| slot_value(part, &source.filter)).collect();
    let asked = asked.filter(|asked| !asked.is_empty() && !value.iter().any(|part| is_plain(&part)));
    let found = list(value, "that there is a row");
    if let Some(asked) = asked {
        writeln!(out, "      {} finds {found}", asked.join(", "))?;
        return explain_conditions(source, out);
    }
    writeln!(out, "      {} finds {found}", list(key, "everybody"))?;
    explain_source(source, indexes, out)
}

/// The value of the row a slot of the key is bound to, if that is said by one equality.
fn slot_value(part: &IndexPart, filter: &Filter<RowInput>) -> Option<String> {
    let IndexPart::Slot(wanted) = part else { return None };
    match filter {
        Filter::Equals { slot, value } if slot == wanted => Some(row_text(value)),
        Filter::All(parts) => {
            let is_simple = |part: &Filter<RowInput>| matches!(part, Filter::Equals { .. } | Filter::Condition(_));
            let mut bound = parts.iter().filter_map(|inner| slot_value(part, inner));
            let first = bound.next().filter(|_| parts.iter().all(is_simple));
            first.filter(|_| bound.next().is_none())
        }
        _ => None,
    }
}

/// What must hold of a row, slots apart.
fn explain_conditions(source: &RowSource, out: &mut String) -> std::fmt::Result {
    let filters = match &source.filter {
        Filter::All(parts) => parts.as_slice(),
        filter => std::slice::from_ref(filter),
    };
    let inner = filters.iter().filter_map(|part| match part {
        Filter::Condition(condition) => Some(condition),
        _ => None,
    });
    source.conditions.iter().chain(inner).try_for_each(|condition| writeln!(out, "      when {}", row_text(condition)))
}

#[cfg(test)]
mod tests {
    use crate::compile;

    #[test]
    fn a_plan_reads_like_a_description() {
        let rules = "config: { edition: 3 }\nstreams:\n  board:\n    auto_subscribe: true\n    query: |\n      SELECT cards.* FROM \
                     cards JOIN boards ON boards.id = cards.board_id\n       WHERE cards.archived = 0 AND (boards.owner = \
                     auth.user_id() OR boards.id IN auth.parameter('shared'))\n";
        let text = compile(rules, "public").plan.unwrap().explain();
        for part in [
            "stream board, for all clients\n  rows\n    public.cards as cards, into board|0[p1]\n      columns *\n      when \
             archived = 0\n      p1 is board_id\n",
            "    get board|0[p1], priority 3\n      step 1: ask index ",
            " with token ->> '$.sub'\n      p1 is value 1 of step 1\n",
            "      step 1: each element of token ->> 'shared'\n        gives value\n",
            ": rows of public.boards (board, lookup on boards)\n      owner finds id\n",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
    }
}
