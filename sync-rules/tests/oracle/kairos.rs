//! The Kairos dialect: filters over named parameters, with subqueries nested to depth three.

use std::fmt::Write as _;

use crate::{
    conditions::{Instance, Language, all, row_condition},
    database::Read,
    expression::{Booleans, Comparison, Condition, Outside, Scalar, Select, Source, SourceKind},
    model::Table,
    random::Random,
    run::{Definition, Rules, quoted},
};

const BUCKETS: Language = Language::Buckets;
const DEPTH_MAX: usize = 3;

/// Name, type, and the claim as SQLite sees it.
const PARAMETERS: [(&str, &str, &str); 8] = [
    ("user_id", "string", "user_text"),
    ("user_id", "text", "user_text"),
    ("user_id", "string", "user_text"),
    ("role", "text", "role_text"),
    ("role", "string", "role_text"),
    ("level", "integer", "level_integer"),
    ("level", "number", "level"),
    ("level", "real", "level"),
];

/// Rules of two or three definitions.
pub(crate) fn rules(random: &mut Random, schema: &[Table]) -> Rules {
    let definitions = (0..=1 + random.below(2)).map(|number| definition(random, schema, number)).collect();
    Rules { header: "bucket_definitions:\n".to_owned(), definitions, streams: Vec::new() }
}

fn definition(random: &mut Random, schema: &[Table], number: usize) -> Definition {
    let mut parameters: Vec<(&str, &str, &str)> = Vec::new();
    for _ in 0..[1, 1, 1, 2, 2, 0][random.below(6)] {
        let parameter = *random.pick(&PARAMETERS);
        if parameters.iter().all(|known| known.0 != parameter.0) {
            parameters.push(parameter);
        }
    }
    let mut yaml = format!("  d{number}:\n    parameters:\n");
    if parameters.is_empty() {
        yaml = format!("  d{number}:\n");
    }
    yaml.extend(parameters.iter().map(|(name, kind, _)| format!("      - {{ name: {name}, type: {kind} }}\n")));
    yaml.push_str("    data:\n");
    let outside: Vec<_> = parameters
        .iter()
        .map(|(name, _, claim)| Outside { rules: format!(":{name}"), sqlite: format!("(SELECT {claim} FROM request)") })
        .collect();
    let mut reads = Vec::new();
    for _ in 0..=random.below(3) {
        let table = random.below(schema.len());
        let mut filters = Filters { random, schema, chain: vec![table], subqueries: 0 };
        let qualifier = filters.random.chance(20).then(|| schema[table].name.to_owned());
        let row = Instance::of(&schema[table], qualifier, "i".to_owned());
        let filter = filters.filter(&row, &outside, &outside);
        let name = schema[table].name;
        let _ = writeln!(yaml, "      - table: {name}");
        if let Some(filter) = &filter {
            let _ = writeln!(yaml, "        filter: {}", quoted(&filter.rules()));
        }
        if random.chance(20) {
            yaml.push_str("        columns: [id]\n");
        }
        let condition = filter.map_or_else(|| "1".to_owned(), |filter| filter.sqlite());
        let sql = format!("SELECT '{name}', CAST(i.id AS TEXT) FROM {name} AS i WHERE {condition}");
        reads.push(Read { stream: None, sql });
    }
    Definition { yaml, reads }
}

/// A filter being made.
struct Filters<'a> {
    random: &'a mut Random,
    schema: &'a [Table],
    /// Tables from the outermost to this one; none meets itself.
    chain: Vec<usize>,
    /// Number of the next subquery.
    subqueries: usize,
}

impl Filters<'_> {
    /// A filter that uses all of `needed`, here or in subqueries, and perhaps others of `known` as well.
    fn filter(&mut self, row: &Instance, needed: &[Outside], known: &[Outside]) -> Option<Condition> {
        let can_nest = self.chain.len() <= DEPTH_MAX && self.chain.len() < self.schema.len();
        let mut parts = Vec::new();
        let mut rest = Vec::new();
        let mut may_use_array = true;
        for parameter in needed {
            if can_nest && self.random.chance(60) {
                rest.push(parameter.clone());
            } else {
                parts.push(self.leaf(row, parameter, &mut may_use_array));
            }
        }
        if !rest.is_empty() {
            let split = if self.random.chance(30) { 1 } else { rest.len() };
            let (first, second) = rest.split_at(split);
            parts.push(self.subquery(row, first, known));
            if !second.is_empty() {
                parts.push(self.subquery(row, second, known));
            }
        }
        if !known.is_empty() && self.random.chance(15) {
            let parameter = self.random.pick(known).clone();
            parts.push(self.leaf(row, &parameter, &mut may_use_array));
        }
        if can_nest && self.random.chance(12) {
            parts.push(self.subquery(row, &[], known));
        }
        if self.random.chance(20) {
            parts.push(row_condition(self.random, row, BUCKETS, 1));
        }
        if self.random.chance(50) {
            parts.reverse();
        }
        all(parts)
    }

    /// `column = :name`, or `:name IN column`, once per filter.
    fn leaf(&mut self, row: &Instance, parameter: &Outside, may_use_array: &mut bool) -> Condition {
        let value = Scalar::Outside(parameter.clone());
        if *may_use_array
            && self.random.chance(20)
            && let Some(array) = row.array(self.random)
        {
            *may_use_array = false;
            return Condition::InArray { value, array, booleans: Booleans::Alone };
        }
        let column = row.key(self.random, BUCKETS);
        let (left, right) = if self.random.chance(25) { (value, column) } else { (column, value) };
        Condition::Compare(left, Comparison::Equal, right)
    }

    /// `column IN (SELECT column FROM table WHERE …)`
    fn subquery(&mut self, outer: &Instance, needed: &[Outside], known: &[Outside]) -> Condition {
        let free: Vec<_> = (0..self.schema.len()).filter(|table| !self.chain.contains(table)).collect();
        let table = *self.random.pick(&free);
        let name = self.schema[table].name;
        self.subqueries += 1;
        let alias = self.random.chance(30).then(|| format!("s{}", self.subqueries));
        let qualifier = self.random.chance(40).then(|| alias.clone().unwrap_or_else(|| name.to_owned()));
        let sqlite = format!("i{}", self.subqueries);
        let row = Instance::of(&self.schema[table], qualifier, sqlite.clone());
        self.chain.push(table);
        let filter = self.filter(&row, needed, known);
        self.chain.pop();
        let item = row.key(self.random, BUCKETS);
        let from = Source { kind: SourceKind::Table(name.to_owned()), alias, sqlite, on: None };
        let select = Select { items: vec![(item, None)], from: vec![from], filter };
        Condition::InSelect(outer.key(self.random, BUCKETS), Box::new(select))
    }
}
