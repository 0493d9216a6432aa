//! What a deployment would do, before anybody does it. Pure.

use std::fmt::Write;

use kairos_sync_rules::{SyncPlan, TablePattern};
use serde::{Deserialize, Serialize};

use super::{Deployment, Rules, RulesState};

/// What a deployment of rules would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Definitions, or parts of streams, whose buckets stay: clients download nothing for them.
    pub unchanged: Vec<String>,
    /// Those whose buckets are new or others: clients that get them download them as a whole.
    pub built: Vec<String>,
    /// Those whose buckets go: clients forget them.
    pub removed: Vec<String>,
    /// Tables whose stored rows are evaluated once more; nothing is read from Postgres for them.
    pub evaluated: Vec<String>,
    /// Tables that are copied from Postgres, being new to the rules.
    pub copied: Vec<String>,
    /// Tables whose stored rows are forgotten.
    pub forgotten: Vec<String>,
}

impl Preview {
    /// Of a change from what is in force to these rules.
    pub fn of(serving: &Deployment, wanted: &Rules) -> Self {
        let before = RulesState::first(&serving.rules);
        let mut after = before.clone();
        after.follow(wanted);
        let (old, new) = (before.serving(), after.building().unwrap_or(after.serving()));
        let built = new.buckets_unlike(old);
        let removed = old.buckets_unlike(new);
        let unchanged = new.bucket_names().into_iter().filter(|name| !built.contains(name)).collect();
        let (tables_before, tables_after) = (old.rules.plan.source_tables(), new.rules.plan.source_tables());
        let read_anew = after.plans().get(1).map(SyncPlan::source_tables).unwrap_or_default();
        let (evaluated, copied) = read_anew.into_iter().partition::<Vec<_>, _>(|table| tables_before.contains(table));
        let forgotten = tables_before.into_iter().filter(|table| !tables_after.contains(table));
        Self {
            unchanged,
            built,
            removed,
            evaluated: names(evaluated),
            copied: names(copied),
            forgotten: names(forgotten),
        }
    }

    /// Whether nothing that clients have changes.
    pub fn is_empty(&self) -> bool {
        self.built.is_empty() && self.removed.is_empty()
    }

    /// The same for people, a line each.
    pub fn text(&self) -> String {
        let Self { unchanged, built, removed, evaluated, copied, forgotten } = self;
        let lines = [
            ("as before, nothing is downloaded", unchanged),
            ("new or changed, clients download them", built),
            ("gone or replaced, clients forget them", removed),
            ("tables evaluated once more from the store", evaluated),
            ("tables copied from Postgres", copied),
            ("tables forgotten", forgotten),
        ];
        let mut text = String::new();
        for (what, names) in lines.iter().filter(|(_, names)| !names.is_empty()) {
            let _ = writeln!(text, "{what}: {}", names.join(", "));
        }
        if built.is_empty() && evaluated.is_empty() && copied.is_empty() {
            text.push_str("nothing is to be built: clients are served by these rules at once\n");
        }
        text
    }
}

fn names(tables: impl IntoIterator<Item = TablePattern>) -> Vec<String> {
    tables.into_iter().map(|table| format!("{}.{}", table.schema, table.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "bucket_definitions: {a: {data: [SELECT id FROM items]}, b: {data: [SELECT id FROM notes]}}";

    fn preview(wanted: &str) -> Preview {
        let rules = |text: &str| Rules::compile("rules", text).unwrap();
        Preview::of(RulesState::first(&rules(RULES)).serving(), &rules(wanted))
    }

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn it_names_what_is_built_and_what_clients_download() {
        let wanted = "bucket_definitions: {a: {data: [SELECT * FROM items, SELECT * FROM lists]}, b: {data: [SELECT id FROM notes]}}";
        let expected = Preview {
            unchanged: texts(&["b"]),
            built: texts(&["a"]),
            removed: texts(&["a"]),
            evaluated: texts(&["public.items"]),
            copied: texts(&["public.lists"]),
            forgotten: Vec::new(),
        };
        assert_eq!(preview(wanted), expected);
        assert!(preview(wanted).text().starts_with("as before, nothing is downloaded: b\nnew or changed"));
    }

    #[test]
    fn less_needs_no_building() {
        let fewer = preview("bucket_definitions: {b: {data: [SELECT id FROM notes]}}");
        assert_eq!((fewer.removed.clone(), fewer.forgotten.clone()), (texts(&["a"]), texts(&["public.items"])));
        assert!(fewer.text().ends_with("served by these rules at once\n") && !fewer.is_empty());
        let same = preview(&format!("# A comment.\n{RULES}"));
        assert!(same.is_empty());
        assert_eq!(same.unchanged, texts(&["a", "b"]));
    }
}
