//! The mapping of types that `docs/types.md` promises: read from that page, tried on real servers.
//!
//! Each line is a column. One row is there before the replicator starts and is copied; others are inserted and updated
//! afterwards and streamed. `KAIROS_TEST_POSTGRES` may name folders of server binaries, separated by colons, so that
//! more than one version is tried.

mod changes;
mod reader;
mod settings;

use std::path::Path;

use kairos_sync::demo::cluster::PgCluster;
use tokio_postgres::Client;

use self::reader::{Reader, as_sql, connect};

const PAGE: &str = include_str!("../../docs/types.md");

/// A column of the test's table.
pub(crate) struct Case {
    sql_type: String,
    value: String,
    /// As SQLite's `quote` prints it, or `not sent`.
    pub(crate) arrives: String,
}

/// A form that values take, and the lines of the page that tell of it.
pub(crate) struct Form {
    pub(crate) name: &'static str,
    pub(crate) config: &'static str,
    /// Which cell of a line says what arrives.
    cell: usize,
    /// What the first cell of a line must be, in the table of fraction digits.
    precision: Option<&'static str>,
}

const fn fraction(precision: &'static str, config: &'static str) -> Form {
    Form { name: precision, config, cell: 3, precision: Some(precision) }
}

pub(crate) const LEGACY: Form = Form { name: "legacy", config: "{edition: 1}", cell: 2, precision: None };
pub(crate) const EDITION_2: Form = Form { name: "edition 2", config: "{edition: 2}", cell: 3, precision: None };

const FORMS: [Form; 6] = [
    LEGACY,
    EDITION_2,
    fraction("seconds", "{edition: 2, timestamp_max_precision: seconds}"),
    fraction("milliseconds", "{edition: 2, timestamp_max_precision: milliseconds}"),
    fraction("microseconds", "{edition: 2, timestamp_max_precision: microseconds}"),
    fraction("nanoseconds", "{edition: 2, timestamp_max_precision: nanoseconds}"),
];

#[tokio::test]
async fn copy_and_stream_bring_every_type_as_documented() {
    let folders = std::env::var("KAIROS_TEST_POSTGRES").unwrap_or_default();
    let mut named: Vec<_> = folders.split(':').filter(|folder| !folder.is_empty()).map(Path::new).map(Some).collect();
    if named.is_empty() {
        named.push(None);
    }
    let mut wrong = Vec::new();
    for folder in named {
        let cluster = PgCluster::start(folder).expect("a server");
        for (number, form) in FORMS.iter().enumerate() {
            wrong.extend(try_form(&cluster, &format!("form{number}"), form).await);
        }
    }
    assert!(wrong.is_empty(), "docs/types.md and what arrives differ:\n{}", wrong.join("\n"));
}

/// What differs from the page in a database of its own.
async fn try_form(cluster: &PgCluster, database: &str, form: &Form) -> Vec<String> {
    let admin = connect(&cluster.uri("postgres", "postgres")).await;
    admin.batch_execute(&format!("CREATE DATABASE {database}")).await.expect("a fresh name");
    let uri = cluster.uri("postgres", database);
    let client = prepare(&uri, database).await;
    let version: String = client.query_one("SHOW server_version", &[]).await.expect("a version").get(0);
    let cases = usable_cases(&client, form).await;
    println!("PostgreSQL {version}, {}: {} cases", form.name, cases.len());
    let create = format!("{}; CREATE PUBLICATION kairos_sync FOR TABLE items", table_sql(&cases));
    client.batch_execute(&create).await.expect("the page's types exist");
    if form.precision.is_none() {
        assert_page_names_every_type(&client).await;
    }
    let values = values_sql(&cases);
    let insert = |id: &str| format!("INSERT INTO items VALUES ('{id}', 0, {values})");
    let execute = async |sql: &str| client.batch_execute(sql).await.expect("the page's types and values are valid");
    execute(&insert("copied")).await;

    let reader = Reader::start(&uri, form.config, "SELECT * FROM items");
    reader.rows_at(&client).await;
    execute(&insert("inserted")).await;
    execute("INSERT INTO items VALUES ('empty')").await;
    execute("INSERT INTO items VALUES ('filled')").await;
    let columns: Vec<_> = (0..cases.len()).map(|n| format!("v{n}")).collect();
    execute(&format!("UPDATE items SET ({}) = ROW({values}) WHERE id = 'filled'", columns.join(", "))).await;
    // Values that do not change are not sent again when they lie out of line.
    execute("UPDATE items SET touched = 1 WHERE id <> 'empty'").await;
    let out_of_line = "SELECT pg_relation_size(reltoastrelid) > 0 FROM pg_class WHERE oid = 'items'::regclass";
    let out_of_line: bool = client.query_one(out_of_line, &[]).await.expect("a size").get(0);
    assert!(out_of_line || form.precision.is_some(), "no value lies out of line");
    let rows = reader.rows_at(&client).await;
    reader.stop().await;

    let mut wrong = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        for id in ["copied", "inserted", "filled"] {
            let arrived = as_sql(rows[id].get(format!("v{n}")));
            if arrived != case.arrives {
                let Case { sql_type, value, arrives } = case;
                let form = form.name;
                wrong.push(format!(
                    "{sql_type} {value}, {id}, {form}, {version}: documented {arrives}, arrived {arrived}"
                ));
            }
        }
        let null = as_sql(rows["empty"].get(format!("v{n}")));
        assert_eq!(null, "NULL", "NULL as {}", case.sql_type);
    }
    wrong
}

/// A database whose own settings would change what Postgres prints.
async fn prepare(uri: &str, database: &str) -> Client {
    let set = |setting: &str| format!("ALTER DATABASE {database} SET {setting};");
    let settings = [
        "DateStyle = 'German'",
        "TimeZone = 'Asia/Kolkata'",
        "IntervalStyle = 'iso_8601'",
        "bytea_output = 'escape'",
        "extra_float_digits = 0",
    ];
    let client = connect(uri).await;
    client.batch_execute(&settings.map(set).concat()).await.expect("settings");
    create_types(&client).await;
    client
}

/// The page's types of one's own.
pub(crate) async fn create_types(client: &Client) {
    let (_, types) = PAGE.split_once("```sql\n").expect("the page shows its types");
    let (types, _) = types.split_once("```").expect("the block ends");
    client.batch_execute(types).await.expect("types");
}

/// A table with a column for each case: `v0`, `v1` and so on.
pub(crate) fn table_sql(cases: &[Case]) -> String {
    let columns: Vec<_> = cases.iter().enumerate().map(|(n, case)| format!("v{n} {}", case.sql_type)).collect();
    // Values of twenty bytes and more are to lie out of line.
    format!(
        "CREATE TABLE items (id text PRIMARY KEY, touched int, {}) WITH (toast_tuple_target = 128)",
        columns.join(", ")
    )
}

/// Its values, without those of `id` and `touched`.
pub(crate) fn values_sql(cases: &[Case]) -> String {
    let values: Vec<_> = cases.iter().map(|case| format!("({})::{}", case.value, case.sql_type)).collect();
    values.join(", ")
}

/// The table has a column of every built-in type but those that only the server itself can make.
async fn assert_page_names_every_type(client: &Client) {
    let missing = "
        SELECT typname::text FROM pg_type
        WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typcategory NOT IN ('A', 'Z')
            AND typname NOT IN ('gtsvector', 'xml')
            AND oid NOT IN (SELECT atttypid FROM pg_attribute WHERE attrelid = 'items'::regclass)";
    let missing = client.query(missing, &[]).await.expect("types");
    let missing: Vec<String> = missing.iter().map(|row| row.get(0)).collect();
    assert!(missing.is_empty(), "docs/types.md lacks {missing:?}");
}

/// The page's cases for a form, without those that need what the server lacks.
pub(crate) async fn usable_cases(client: &Client, form: &Form) -> Vec<Case> {
    let (_, tables) = PAGE.split_once("## The mapping").expect("the page has its tables");
    let mut cases = Vec::new();
    for section in tables.split("\n### ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        if (title == "Fraction digits") != form.precision.is_some() {
            continue;
        }
        let need = title.strip_prefix("Needs ").map_or("", |sql| sql.trim_matches('`'));
        if client.batch_execute(need).await.is_err() {
            println!("SKIPPED: this server refuses {need}");
            continue;
        }
        cases.extend(section.lines().filter_map(|line| case(line, form)));
    }
    assert!(cases.len() > 2, "the page has lines for {}", form.name);
    if form.precision.is_none() {
        cases.extend(long_numbers());
    }
    cases
}

/// Numbers too long for the page.
fn long_numbers() -> [Case; 3] {
    let digits = "1234567890".repeat(100);
    let case = |sql_type: &str, number: &str| Case {
        sql_type: sql_type.to_owned(),
        value: format!("'{number}'"),
        arrives: format!("'{number}'"),
    };
    let array = Case { arrives: format!("'[\"{digits}\",null]'"), ..case("numeric[]", &format!("{{{digits},NULL}}")) };
    [case("numeric(1000,0)", &digits), case("numeric", &format!("-{digits}.{digits}")), array]
}

/// A line of a table as a case; `None` for other lines.
fn case(line: &str, form: &Form) -> Option<Case> {
    let cells: Vec<_> = line.strip_prefix("| `")?.strip_suffix("` |")?.split("` | `").collect();
    let [first, second, third, fourth] = cells[..] else { panic!("a line has four cells: {line}") };
    let (sql_type, value) = match form.precision {
        None => (first, second),
        Some(precision) if precision == first => (second, third),
        Some(_) => return None,
    };
    let arrives = if form.cell == 2 || fourth == "same" { third } else { fourth };
    Some(Case { sql_type: sql_type.to_owned(), value: value.to_owned(), arrives: arrives.to_owned() })
}
