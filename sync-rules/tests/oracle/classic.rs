//! Classic bucket definitions: parameter queries over the request and over tables, data queries that meet them.

use std::fmt::Write as _;

use crate::{
    conditions::{Instance, Language, all, request_condition, row_condition},
    database::Read,
    expression::{Booleans, Comparison, Condition, Outside, Scalar},
    model::Table,
    random::Random,
    run::{Definition, Rules, quoted},
};

const BUCKETS: Language = Language::Buckets;

fn outside((rules, column): (&str, &str)) -> Outside {
    Outside { rules: rules.to_owned(), sqlite: format!("(SELECT {column} FROM request)") }
}

fn request_scalars() -> Vec<Outside> {
    [
        ("request.user_id()", "user"),
        ("token_parameters.user_id", "user"),
        ("request.jwt() ->> 'sub'", "user"),
        ("request.jwt() ->> 'role'", "role"),
        ("token_parameters.role", "role"),
        ("request.jwt() ->> 'level'", "level"),
        ("request.parameters() ->> 'choice'", "choice"),
        ("request.parameter('choice')", "choice"),
        ("user_parameters.choice", "choice"),
    ]
    .map(outside)
    .to_vec()
}

fn request_arrays() -> Vec<Outside> {
    [
        ("request.jwt() -> 'tags'", "tags"),
        ("token_parameters.tags", "tags"),
        ("request.parameters() ->> 'choices'", "choices"),
        ("user_parameters.choices", "choices"),
    ]
    .map(outside)
    .to_vec()
}

/// Rules of two or three definitions.
pub(crate) fn rules(random: &mut Random, schema: &[Table]) -> Rules {
    let header = random.pick(&["", "config: { edition: 2 }\n"]);
    let definitions = (0..=1 + random.below(2)).map(|number| definition(random, schema, number)).collect();
    Rules { header: format!("{header}bucket_definitions:\n"), definitions, streams: Vec::new() }
}

fn definition(random: &mut Random, schema: &[Table], number: usize) -> Definition {
    let names: Vec<_> = ["p", "q"][..random.below(3)].iter().map(|name| (*name).to_owned()).collect();
    let mut queries = Vec::new();
    for _ in 0..=random.below(2) {
        queries.push(if names.is_empty() || random.chance(35) {
            request_query(random, &names)
        } else {
            table_query(random, schema, &names)
        });
    }
    let mut yaml = format!("  d{number}:\n");
    let is_global = names.is_empty() && random.chance(30);
    if !is_global {
        yaml.push_str("    parameters:\n");
        yaml.extend(queries.iter().map(|(rules, _)| format!("      - {}\n", quoted(rules))));
    }
    let parameters = if is_global {
        "SELECT 1 AS everybody".to_owned()
    } else {
        queries.into_iter().map(|(_, sqlite)| sqlite).collect::<Vec<_>>().join(" UNION ALL ")
    };
    yaml.push_str("    data:\n");
    let mut reads = Vec::new();
    for _ in 0..=random.below(2) {
        let (rules, sqlite) = data_query(random, schema, &names, &parameters);
        let _ = writeln!(yaml, "      - {}", quoted(&rules));
        reads.push(Read { stream: None, sql: sqlite });
    }
    Definition { yaml, reads }
}

/// A query in both spellings; one column per name. The rules may list them in another order.
fn print(
    random: &mut Random,
    values: &[(Scalar, &String)],
    from: [&str; 2],
    filter: Option<&Condition>,
) -> (String, String) {
    let item = |text: String, name: &str| format!("{text} AS {name}");
    let mut rules: Vec<_> = values.iter().map(|(value, name)| item(value.rules(), name)).collect();
    if random.chance(50) {
        rules.reverse();
    }
    let mut sqlite: Vec<_> = values.iter().map(|(value, name)| item(value.sqlite(), name)).collect();
    if sqlite.is_empty() {
        sqlite.push("1 AS everybody".to_owned());
    }
    let filters = [Condition::rules, Condition::sqlite]
        .map(|print| filter.map_or_else(String::new, |filter| format!(" WHERE {}", print(filter))));
    let space = if rules.is_empty() { "" } else { " " };
    (
        format!("SELECT{space}{}{}{}", rules.join(", "), from[0], filters[0]),
        format!("SELECT {}{}{}", sqlite.join(", "), from[1], filters[1]),
    )
}

/// `SELECT values WHERE condition`
fn request_query(random: &mut Random, names: &[String]) -> (String, String) {
    let scalars = request_scalars();
    let values: Vec<_> = names.iter().map(|name| (Scalar::Outside(random.pick(&scalars).clone()), name)).collect();
    let filter = (names.is_empty() || random.chance(40)).then(|| {
        let parts = (0..=random.below(2)).map(|_| request_condition(random, &scalars, BUCKETS)).collect();
        if random.chance(50) { Condition::All(parts) } else { Condition::Any(parts) }
    });
    print(random, &values, ["", ""], filter.as_ref())
}

/// `SELECT columns FROM table WHERE condition`
fn table_query(random: &mut Random, schema: &[Table], names: &[String]) -> (String, String) {
    let table = random.pick(schema);
    let qualifier = random.chance(30).then(|| table.name.to_owned());
    let row = Instance::of(table, qualifier, "i".to_owned());
    let scalars = request_scalars();
    let value = |random: &mut Random| {
        if random.chance(80) { row.scalar(random) } else { Scalar::Outside(random.pick(&scalars).clone()) }
    };
    let values: Vec<_> = names.iter().map(|name| (value(random), name)).collect();
    let mut asked: Vec<_> = (0..random.below(3)).map(|_| Asked::Scalar(random.pick(&scalars).clone())).collect();
    if random.chance(25) {
        asked.push(Asked::Array(random.pick(&request_arrays()).clone()));
    }
    let mut parts = Vec::new();
    if !asked.is_empty() {
        parts.push(matching(random, &row, &asked, true));
    }
    if random.chance(40) {
        parts.push(row_condition(random, &row, BUCKETS, 2));
    }
    if random.chance(25) {
        parts.push(request_condition(random, &scalars, BUCKETS));
    }
    let from = [format!(" FROM {}", table.name), format!(" FROM {} AS i", table.name)];
    print(random, &values, [&from[0], &from[1]], all(parts).as_ref())
}

/// `SELECT columns FROM table WHERE condition`, which meets the parameters.
fn data_query(random: &mut Random, schema: &[Table], names: &[String], parameters: &str) -> (String, String) {
    let table = random.pick(schema);
    let alias = random.chance(25).then(|| "copies".to_owned());
    let qualifier = random.chance(30).then(|| alias.clone().unwrap_or_else(|| table.name.to_owned()));
    let row = Instance::of(table, qualifier, "i".to_owned());
    let bucket =
        |name: &String| Asked::Scalar(Outside { rules: format!("bucket.{name}"), sqlite: format!("p.{name}") });
    let asked: Vec<_> = names.iter().map(bucket).collect();
    let mut parts = Vec::new();
    if !asked.is_empty() {
        parts.push(matching(random, &row, &asked, true));
    }
    if random.chance(40) {
        parts.push(row_condition(random, &row, BUCKETS, 2));
    }
    if random.chance(50) {
        parts.reverse();
    }
    let filter = all(parts);
    let columns = random.pick(&["*", "id", "id, 1 AS one"]);
    let output = alias.as_deref().unwrap_or(table.name);
    let rules = format!(
        "SELECT {columns} FROM {}{}{}",
        table.name,
        alias.as_ref().map_or_else(String::new, |alias| format!(" AS {alias}")),
        filter.as_ref().map_or_else(String::new, |filter| format!(" WHERE {}", filter.rules())),
    );
    let condition = filter.map_or_else(|| "1".to_owned(), |filter| filter.sqlite());
    let sqlite = format!(
        "SELECT '{output}', CAST(i.id AS TEXT) FROM {} AS i WHERE EXISTS (SELECT 1 FROM ({parameters}) AS p WHERE {condition})",
        table.name
    );
    (rules, sqlite)
}

/// What rows are compared with.
#[derive(Debug, Clone)]
enum Asked {
    Scalar(Outside),
    Array(Outside),
}

/// A condition that speaks of all that is asked, also on both sides of each OR. At most one part of an AND looks into
/// an array.
fn matching(random: &mut Random, row: &Instance, asked: &[Asked], may_use_array: bool) -> Condition {
    if random.chance(15) {
        let side = |random: &mut Random| {
            let side = matching(random, row, asked, may_use_array);
            if random.chance(40) {
                return Condition::All(vec![side, row_condition(random, row, BUCKETS, 1)]);
            }
            side
        };
        return Condition::Any(vec![side(random), side(random)]);
    }
    if let [first, rest @ ..] = asked
        && !rest.is_empty()
    {
        let is_array = |asked: &Asked| matches!(asked, Asked::Array(_));
        let array_comes_later = rest.iter().any(is_array);
        let is_first = may_use_array && !array_comes_later && random.chance(50);
        let parts =
            vec![matching(random, row, &asked[..1], is_first), matching(random, row, rest, may_use_array && !is_first)];
        debug_assert!(!is_array(first), "the array is asked last");
        return Condition::All(parts);
    }
    match &asked[0] {
        Asked::Array(array) => Condition::InArray {
            value: row.key(random, BUCKETS),
            array: Scalar::Outside(array.clone()),
            booleans: Booleans::Numbers,
        },
        Asked::Scalar(value) => {
            let equal = |left, right| Condition::Compare(left, Comparison::Equal, right);
            let value = Scalar::Outside(value.clone());
            match (random.below(5), row.array(random)) {
                (0, Some(array)) if may_use_array => Condition::InArray { value, array, booleans: Booleans::Alone },
                (1, _) => equal(value, row.key(random, BUCKETS)),
                // The same value twice: both must hold.
                (2, _) => Condition::All(vec![
                    equal(row.key(random, BUCKETS), value.clone()),
                    equal(row.key(random, BUCKETS), value),
                ]),
                _ => equal(row.key(random, BUCKETS), value),
            }
        }
    }
}
