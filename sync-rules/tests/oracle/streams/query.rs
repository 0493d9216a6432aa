//! One query of a stream.

use crate::{
    conditions::{Instance, Language, all, request_condition, row_condition},
    expression::{Booleans, Comparison, Condition, Outside, Scalar, Select, Source, SourceKind},
    model::Table,
    random::Random,
};

use super::{Style, request_arrays, request_scalars};

const STREAMS: Language = Language::Streams;

/// How deep subqueries nest.
const NESTING_MAX: usize = 3;

/// An entry of FROM and the name to reach it by.
#[derive(Debug, Clone)]
struct Entry {
    row: Instance,
    name: String,
}

impl Entry {
    /// As a subquery sees it: by its name.
    fn seen_from_inside(&self) -> Instance {
        Instance { qualifier: Some(self.name.clone()), ..self.row.clone() }
    }
}

/// The queries of one scope of names.
pub(super) struct Queries<'a> {
    random: &'a mut Random,
    schema: &'a [Table],
    style: Style,
    /// Queries below `with`, of one column.
    named: &'a [(&'static str, Select)],
    used_names: Vec<String>,
    entries: usize,
}

fn equal(left: Scalar, right: Scalar) -> Condition {
    Condition::Compare(left, Comparison::Equal, right)
}

fn in_array(value: Scalar, array: Scalar) -> Condition {
    Condition::InArray { value, array, booleans: Booleans::Numbers }
}

impl<'a> Queries<'a> {
    pub(super) fn new(
        random: &'a mut Random,
        schema: &'a [Table],
        style: Style,
        named: &'a [(&'static str, Select)],
    ) -> Self {
        Self { random, schema, style, named, used_names: Vec::new(), entries: 0 }
    }

    /// A query of a stream: as rules, and as SQL that gives output table and id.
    pub(super) fn query(mut self) -> (String, String) {
        let joined = if self.style.one_source { 0 } else { [0, 0, 0, 1, 1, 2][self.random.below(6)] };
        let (from, entries, mut parts) = self.from(joined, 0);
        if self.random.chance(90) {
            parts.push(self.condition(&entries, 2, 0));
        }
        let output = &entries[0];
        let columns = match self.random.below(3) {
            0 => format!("{}.*", output.name),
            1 if joined == 0 => "*".to_owned(),
            _ => output.row.column("id").rules(),
        };
        let sqlite = format!("'{}', CAST({}.id AS TEXT)", output.name, output.row.sqlite);
        let items = vec![(Scalar::Outside(Outside { rules: columns, sqlite }), None)];
        let select = Select { items, from, filter: all(parts) };
        (select.rules(), select.sqlite())
    }

    /// A query below `with`: one column, `k`.
    pub(super) fn named(mut self) -> Select {
        self.derived(0)
    }

    fn derived(&mut self, nesting: usize) -> Select {
        // It sees nothing of the query around it.
        let hidden = std::mem::take(&mut self.used_names);
        let (from, entries, _) = self.from(0, nesting);
        let filter = self.random.chance(70).then(|| self.condition(&entries, 1, nesting + 1));
        self.used_names = hidden;
        let item = entries[0].row.key(self.random, STREAMS);
        Select { items: vec![(item, Some("k".to_owned()))], from, filter }
    }

    /// FROM with so many tables beside the first, and what WHERE must say of them.
    fn from(&mut self, joined: usize, nesting: usize) -> (Vec<Source>, Vec<Entry>, Vec<Condition>) {
        let must_qualify = joined > 0;
        let (source, entry) = self.table(must_qualify);
        let (mut sources, mut entries, mut conditions) = (vec![source], vec![entry], Vec::new());
        for _ in 0..joined {
            let (mut source, entry) =
                if self.random.chance(20) { self.derived_entry(nesting) } else { self.table(true) };
            let condition = self.join(&entry, &entries);
            if self.random.chance(70) {
                source.on = Some(condition);
            } else if self.random.chance(90) {
                conditions.push(condition);
            }
            sources.push(source);
            entries.push(entry);
        }
        (sources, entries, conditions)
    }

    /// Name and alias in the rules, alias in SQLite.
    fn name(&mut self, name: &str) -> (String, Option<String>, String) {
        self.entries += 1;
        let alias = (self.used_names.iter().any(|used| used == name) || self.random.chance(30))
            .then(|| format!("a{}", self.entries));
        let reached = alias.clone().unwrap_or_else(|| name.to_owned());
        self.used_names.push(reached.clone());
        (reached, alias, format!("i{}", self.entries))
    }

    fn table(&mut self, must_qualify: bool) -> (Source, Entry) {
        let table = &self.schema[self.random.below(self.schema.len())];
        let (name, alias, sqlite) = self.name(table.name);
        let qualifier = (must_qualify || self.random.chance(40)).then(|| name.clone());
        let row = Instance::of(table, qualifier, sqlite.clone());
        (Source { kind: SourceKind::Table(table.name.to_owned()), alias, sqlite, on: None }, Entry { row, name })
    }

    fn derived_entry(&mut self, nesting: usize) -> (Source, Entry) {
        let (kind, name, alias, sqlite) = if !self.named.is_empty() && self.random.chance(50) {
            let (name, select) = self.random.pick(self.named).clone();
            let (reached, alias, sqlite) = self.name(name);
            (SourceKind::Named(name.to_owned(), Box::new(select)), reached, alias, sqlite)
        } else {
            let select = self.derived(nesting);
            self.entries += 1;
            let name = format!("d{}", self.entries);
            (SourceKind::Derived(Box::new(select)), name.clone(), Some(name), format!("i{}", self.entries))
        };
        let row = Instance {
            qualifier: Some(name.clone()),
            sqlite: sqlite.clone(),
            scalars: vec!["k".to_owned()],
            arrays: Vec::new(),
        };
        (Source { kind, alias, sqlite, on: None }, Entry { row, name })
    }

    /// How a table is joined with those before it.
    fn join(&mut self, entry: &Entry, before: &[Entry]) -> Condition {
        let other = before[self.random.below(before.len())].clone();
        let mut parts = vec![match (self.random.below(10), other.row.array(self.random)) {
            (0, Some(array)) => in_array(entry.row.key(self.random, STREAMS), array),
            _ => equal(entry.row.key(self.random, STREAMS), other.row.key(self.random, STREAMS)),
        }];
        if self.random.chance(15) {
            parts.push(equal(other.row.key(self.random, STREAMS), entry.row.key(self.random, STREAMS)));
        }
        if self.random.chance(20) {
            parts.push(row_condition(self.random, &entry.row, STREAMS, 1));
        }
        Condition::All(parts)
    }

    /// AND and OR of what can stand in WHERE.
    fn condition(&mut self, scope: &[Entry], depth: usize, nesting: usize) -> Condition {
        if depth == 0 || self.random.chance(50) {
            return self.term(scope, nesting);
        }
        let first = self.condition(scope, depth - 1, nesting);
        if self.random.chance(40) {
            return Condition::Any(vec![first, self.condition(scope, depth - 1, nesting)]);
        }
        let second =
            if self.style.one_source { self.own_term(scope) } else { self.condition(scope, depth - 1, nesting) };
        Condition::All(vec![first, second])
    }

    fn any_row(&mut self, scope: &[Entry]) -> Instance {
        scope[self.random.below(scope.len())].row.clone()
    }

    fn request_scalar(&mut self) -> Scalar {
        Scalar::Outside(self.random.pick(&request_scalars()).clone())
    }

    fn request_array(&mut self) -> Scalar {
        Scalar::Outside(self.random.pick(&request_arrays()).clone())
    }

    /// A condition on one row, on the request, or NOT around several.
    fn own_term(&mut self, scope: &[Entry]) -> Condition {
        let row = self.any_row(scope);
        let condition = row_condition(self.random, &row, STREAMS, 1);
        let key = row.key(self.random, STREAMS);
        match (self.random.below(6), row.array(self.random)) {
            (0, _) => request_condition(self.random, &request_scalars(), STREAMS),
            (1, Some(array)) => Condition::NotInArray { value: key, array },
            (2, _) => {
                let other = self.any_row(scope);
                let other = row_condition(self.random, &other, STREAMS, 1);
                Condition::Not(Box::new(Condition::Any(vec![condition, other])))
            }
            _ => condition,
        }
    }

    /// A condition that meets the request or another table.
    fn term(&mut self, scope: &[Entry], nesting: usize) -> Condition {
        let row = self.any_row(scope);
        let key = row.key(self.random, STREAMS);
        let array = row.array(self.random);
        let can_nest = nesting < NESTING_MAX;
        match (self.random.below(100), array) {
            (0..=12, _) => self.own_term(scope),
            (13..=19, _) => in_array(key, self.request_array()),
            (20..=26, Some(array)) => in_array(self.request_scalar(), array),
            (27..=33, Some(array)) => Condition::Overlap(array, self.request_array()),
            (34..=36, Some(array)) => Condition::Overlap(self.request_array(), array),
            (37..=40, Some(array)) => in_array(self.any_row(scope).key(self.random, STREAMS), array),
            (41..=66, _) if can_nest => Condition::InSelect(key, Box::new(self.subquery(scope, nesting))),
            (67..=70, Some(array)) if can_nest => {
                Condition::OverlapSelect(array, Box::new(self.subquery(scope, nesting)))
            }
            (71..=74, _) if !self.named.is_empty() => {
                let (name, select) = self.random.pick(self.named).clone();
                Condition::InNamed { value: key, name: name.to_owned(), select: Box::new(select) }
            }
            (75..=78, _) if can_nest && !self.style.write_time => {
                Condition::InSelect(self.request_scalar(), Box::new(self.subquery(scope, nesting)))
            }
            (79..=85, _) => equal(self.request_scalar(), key),
            _ => equal(key, self.request_scalar()),
        }
    }

    fn subquery(&mut self, scope: &[Entry], nesting: usize) -> Select {
        let joined = usize::from(!self.style.one_source && self.random.chance(15));
        let (from, entries, mut parts) = self.from(joined, nesting);
        if self.random.chance(85) {
            parts.push(self.condition(&entries, 1, nesting + 1));
        }
        if !self.style.one_source && self.random.chance(10) {
            let outer = scope[self.random.below(scope.len())].seen_from_inside();
            let inner = self.any_row(&entries);
            parts.push(equal(inner.key(self.random, STREAMS), outer.key(self.random, STREAMS)));
        }
        let item = self.any_row(&entries).key(self.random, STREAMS);
        Select { items: vec![(item, None)], from, filter: all(parts) }
    }
}
