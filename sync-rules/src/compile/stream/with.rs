//! `with`: selects by name, each use a copy of its own.

use std::cell::Cell;

use crate::{
    config::Report,
    diagnostic::{Problem, ScalarId, Severity},
    syntax::{START, Select, parse_select},
    yaml::Node,
};

use super::super::Context;

/// The named selects a stream can use: its own, which come first, and those of all streams.
#[derive(Debug, Default)]
pub(super) struct With<'a> {
    own: Vec<NamedSelect<'a>>,
    shared: Option<&'a With<'a>>,
}

#[derive(Debug)]
struct NamedSelect<'a> {
    name: String,
    node: &'a Node,
    /// The text, as findings name it.
    id: Option<ScalarId>,
    /// `None`: it has a finding of its own.
    select: Option<Select>,
    is_used: Cell<bool>,
}

impl<'a> With<'a> {
    /// Reads the selects of a `with` key.
    pub(super) fn read(
        entries: &[(&'a Node, &'a Node)],
        shared: Option<&'a With<'a>>,
        context: &Context<'_>,
        report: &mut Report<'_>,
    ) -> Self {
        let mut with = Self { own: Vec::new(), shared };
        for (name, node) in entries {
            let select = match parse_select(node.text().unwrap_or_default()) {
                Ok(select) => Some(select),
                Err(problem) => {
                    report.problem(node, problem);
                    None
                }
            };
            let text = name.text().map_or_else(String::new, str::to_owned);
            let is_table = context.schema.is_some_and(|schema| {
                schema.tables.iter().any(|table| table.schema == context.default_schema && table.name == text)
            });
            if is_table {
                let message = format!("`{text}` is also a table of the database");
                let help = "use another name, or write schema.table where the table is meant".to_owned();
                report.push("cte_shadows_table", Severity::Warning, message, Some(help), name.span);
            }
            with.own.push(NamedSelect {
                name: text,
                node,
                id: context.scalar(node),
                select,
                is_used: Cell::new(false),
            });
        }
        with
    }

    /// The select of this name; an error if it has a finding of its own.
    pub(super) fn get(&self, name: &str) -> Option<Result<(&Select, Option<ScalarId>), Problem>> {
        let Some(found) = self.own.iter().find(|with| with.name.to_lowercase() == name.to_lowercase()) else {
            return self.shared?.get(name);
        };
        found.is_used.set(true);
        let broken = || Problem::new("sql_syntax", format!("`{name}` in `with` cannot be read"), START);
        Some(found.select.as_ref().map(|select| (select, found.id)).ok_or_else(broken))
    }

    /// Warns of selects that nothing used.
    pub(super) fn warn_unused(&self, report: &mut Report<'_>) {
        for with in self.own.iter().filter(|with| !with.is_used.get() && with.select.is_some()) {
            let message = format!("nothing uses `{}`", with.name);
            report.push("cte_unused", Severity::Warning, message, Some("remove it".to_owned()), with.node.span);
        }
    }
}
