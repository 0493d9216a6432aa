//! The engine against SQLite. Random rules, rows and clients; after random changes each client reaches the rows that
//! SQLite selects.
//!
//! A family of rules has its own generator, which builds a tree ([`expression`]) and prints it as rules and as SQL.
//! [`engine`] runs the rules, [`database`] the SQL, [`run`] compares them and shrinks what differs.
//!
//! `ORACLE_SEED=n ORACLE_CASES=1` replays a case, `ORACLE_CASES=100000` runs longer.

mod classic;
mod conditions;
mod database;
mod engine;
mod expression;
mod index;
mod kairos;
mod model;
mod random;
mod run;
mod streams;

use model::Numbers;
use run::{Family, check};

#[test]
fn classic_definitions_show_what_sqlite_selects() {
    check(&Family {
        name: "classic",
        table_count: 3,
        numbers: &[Numbers::Mixed],
        rules: |random, schema, _| classic::rules(random, schema),
        expected_refusals: &[],
    });
}

#[test]
fn the_kairos_dialect_shows_what_sqlite_selects() {
    check(&Family {
        name: "kairos",
        table_count: 5,
        numbers: &[Numbers::Mixed],
        rules: |random, schema, _| kairos::rules(random, schema),
        expected_refusals: &[],
    });
}

#[test]
fn streams_show_what_sqlite_selects() {
    check(&Family {
        name: "streams",
        table_count: 4,
        numbers: &[Numbers::Mixed, Numbers::Integers, Numbers::Reals],
        rules: |random, schema, numbers| streams::rules(random, schema, numbers, false),
        expected_refusals: &["too_many_variants", "filter_not_associated", "table_function_inputs"],
    });
}

#[test]
fn streams_joined_at_write_time_show_what_sqlite_selects() {
    check(&Family {
        name: "streams, joined at write time",
        table_count: 4,
        numbers: &[Numbers::Mixed],
        rules: |random, schema, numbers| streams::rules(random, schema, numbers, true),
        expected_refusals: &["too_many_variants", "filter_not_associated", "write_time_join_unsupported"],
    });
}
