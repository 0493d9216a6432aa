//! Streams of edition 3: joins, subqueries, queries below `with`, arrays on both sides, AND, OR and NOT.

mod query;

use std::fmt::Write as _;

use crate::{
    database::{Read, Stream},
    expression::{Outside, Select},
    model::{Numbers, Table},
    random::Random,
    run::{Definition, Rules, quoted},
};

use query::Queries;

/// What the streams of a case have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// The option `write_time_joins`.
    pub write_time: bool,
    /// At most one condition per alternative meets the request or another table. Two sources of one key compare
    /// INTEGER and REAL strictly, unlike SQL.
    pub one_source: bool,
}

fn outside(choices: &[(&str, &str)]) -> Vec<Outside> {
    let spelled = |(rules, column): &(&str, &str)| Outside {
        rules: (*rules).to_owned(),
        sqlite: format!("(SELECT {column} FROM request)"),
    };
    choices.iter().map(spelled).collect()
}

fn request_scalars() -> Vec<Outside> {
    outside(&[
        ("auth.user_id()", "user"),
        ("auth.user_id()", "user"),
        ("auth.parameter('sub')", "user"),
        ("auth.parameter('$.role')", "role"),
        ("auth.parameters() ->> 'role'", "role"),
        ("auth.parameter('level')", "level"),
        ("connection.parameter('choice')", "choice"),
        ("connection.parameters() ->> '$.choice'", "choice"),
        ("subscription.parameter('s')", "s"),
    ])
}

fn request_arrays() -> Vec<Outside> {
    outside(&[
        ("auth.parameter('tags')", "tags"),
        ("auth.parameters() -> 'tags'", "tags"),
        ("connection.parameter('choices')", "choices"),
        ("subscription.parameter('ss')", "ss"),
    ])
}

/// Rules of one to three streams.
pub(crate) fn rules(random: &mut Random, schema: &[Table], numbers: Numbers, write_time: bool) -> Rules {
    let style = Style { write_time, one_source: numbers == Numbers::Mixed && !write_time };
    let count = 1 + random.below(3);
    let streams: Vec<_> = (0..count).map(|number| format!("s{number}")).collect();
    let shared = random.chance(20).then(|| ("everywhere", Queries::new(random, schema, style, &[]).named()));
    let mut header = "config: { edition: 3 }\n".to_owned();
    if let Some((name, select)) = &shared {
        let _ = writeln!(header, "with:\n  {name}: {}", quoted(&select.rules()));
    }
    header.push_str("streams:\n");
    let definitions = streams.iter().map(|name| stream(random, schema, style, name, shared.as_ref())).collect();
    Rules { header, definitions, streams }
}

fn stream(
    random: &mut Random,
    schema: &[Table],
    style: Style,
    name: &str,
    shared: Option<&(&'static str, Select)>,
) -> Definition {
    let auto_subscribe = random.chance(75);
    let mut yaml = format!("  {name}:\n    auto_subscribe: {auto_subscribe}\n");
    if style.write_time {
        yaml.push_str("    write_time_joins: true\n");
    }
    let mut named: Vec<(&'static str, Select)> = shared.cloned().into_iter().collect();
    if random.chance(25) {
        let own = Queries::new(random, schema, style, &[]).named();
        // A name of the stream's own hides the shared one.
        let own_name = random.text(&["own", "everywhere"]);
        let _ = writeln!(yaml, "    with:\n      {own_name}: {}", quoted(&own.rules()));
        named.retain(|(known, _)| *known != own_name);
        named.push((own_name, own));
    }
    let queries: Vec<_> = (0..=random.below(2)).map(|_| Queries::new(random, schema, style, &named).query()).collect();
    if let [(query, _)] = queries.as_slice() {
        let _ = writeln!(yaml, "    query: {}", quoted(query));
    } else {
        yaml.push_str("    queries:\n");
        yaml.extend(queries.iter().map(|(query, _)| format!("      - {}\n", quoted(query))));
    }
    let read = |(_, sql)| Read { stream: Some(Stream { name: name.to_owned(), auto_subscribe }), sql };
    Definition { yaml, reads: queries.into_iter().map(read).collect() }
}
