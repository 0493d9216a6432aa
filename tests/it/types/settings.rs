//! Settings of role and database change nothing, and copy and stream print alike.

use kairos_sync::demo::cluster::PgCluster;
use tokio_postgres::Client;

use super::reader::{Reader, as_sql, connect};

const TABLE: &str = "
    CREATE TYPE reading AS (at timestamptz, took interval, bytes bytea, level float4);
    CREATE TABLE items (
        id text PRIMARY KEY, day date, at timestamptz, local timestamp, took interval, bytes bytea, levels bytea[],
        single float4, double float8, price money, reading reading, during tstzrange
    );
    CREATE PUBLICATION kairos_sync FOR TABLE items";
const VALUES: &str = r"
    '2023-03-06', '2023-03-06 15:47:00+02', '2023-03-06 15:47:00.5', '1 year 2 mons -3 days 04:05:06.789', '\x00ff61',
    ARRAY['\x61'::bytea], 0.1, 0.1::float8 + 0.2::float8, 1234.5,
    ROW('2023-03-06 15:47:00+02', '1 day', '\x61', 1e-7), '[2023-03-06 15:47:00+02,)'";
/// What arrives, but for the price, which has the form of `lc_monetary`.
const EXPECTED: [(&str, &str); 10] = [
    ("day", "'2023-03-06'"),
    ("at", "'2023-03-06T13:47:00.000000Z'"),
    ("local", "'2023-03-06T15:47:00.500000'"),
    ("took", "'1 year 2 mons -3 days +04:05:06.789'"),
    ("bytes", "'00FF61'"),
    ("levels", "'[null]'"),
    ("single", "0.1"),
    ("double", "0.30000000000000004"),
    ("reading", r#"'{"at":"2023-03-06T13:47:00.000000Z","took":"1 day","bytes":null,"level":1e-7}'"#),
    ("during", r#"'{"lower":"2023-03-06T13:47:00.000000Z","upper":null,"lower_exclusive":0,"upper_exclusive":1}'"#),
];
const QUERY: &str =
    "SELECT id, day, at, local, took, hex(bytes) AS bytes, levels, single, double, price, reading, during FROM items";
/// The first that the server has is used.
const LOCALES: [&str; 4] = ["de_DE.UTF-8", "de_DE.utf8", "en_GB.UTF-8", "en_GB.utf8"];

#[tokio::test]
async fn odd_defaults_of_role_and_database_change_nothing() {
    let cluster = PgCluster::start(None).expect("a server");
    let admin = connect(&cluster.uri("postgres", "postgres")).await;
    admin.batch_execute("CREATE DATABASE odd").await.expect("a fresh name");
    let owner = connect(&cluster.uri("postgres", "odd")).await;
    owner.batch_execute(TABLE).await.expect("a table");
    // Three ways to set a default; each is stronger than the one before.
    let settings = "
        ALTER DATABASE odd SET DateStyle = 'SQL, DMY';
        ALTER DATABASE odd SET TimeZone = 'America/St_Johns';
        ALTER DATABASE odd SET bytea_output = 'hex';
        CREATE ROLE reader LOGIN REPLICATION BYPASSRLS;
        GRANT SELECT ON items TO reader;
        ALTER ROLE reader SET IntervalStyle = 'sql_standard';
        ALTER ROLE reader SET bytea_output = 'escape';
        ALTER ROLE reader SET extra_float_digits = 0;
        ALTER ROLE reader IN DATABASE odd SET extra_float_digits = '-10';
        ALTER ROLE reader IN DATABASE odd SET statement_timeout = 1";
    owner.batch_execute(settings).await.expect("settings");
    let money_mark = set_locale(&owner).await;
    let insert = |id: &str| format!("INSERT INTO items VALUES ('{id}', {VALUES})");
    owner.batch_execute(&insert("copied")).await.expect("valid values");
    assert_settings_matter(&cluster).await;

    let reader = Reader::start(&cluster.uri("reader", "odd"), "{edition: 2}", QUERY);
    reader.rows_at(&owner).await;
    owner.batch_execute(&insert("streamed")).await.expect("valid values");
    let rows = reader.rows_at(&owner).await;
    reader.stop().await;
    for id in ["copied", "streamed"] {
        for (column, expected) in EXPECTED {
            assert_eq!(as_sql(rows[id].get(column)), expected, "{column}, {id}");
        }
        let price = as_sql(rows[id].get("price"));
        assert!(price.contains(money_mark), "{price}, {id}");
    }
    assert_eq!(rows["copied"]["price"], rows["streamed"]["price"]);
}

/// Gives the role another currency where the server has one; tells how its money is recognised.
async fn set_locale(owner: &Client) -> &'static str {
    for locale in LOCALES {
        let set = format!("ALTER ROLE reader IN DATABASE odd SET lc_monetary = '{locale}'");
        if owner.batch_execute(&set).await.is_ok() {
            return if locale.starts_with("de") { "1.234,50" } else { "£1,234.50" };
        }
    }
    println!("SKIPPED: this server has none of {LOCALES:?}");
    "$1,234.50"
}

/// A session without settings of its own prints otherwise, so the test can fail.
async fn assert_settings_matter(cluster: &PgCluster) {
    let plain = connect(&cluster.uri("reader", "odd")).await;
    plain.batch_execute("SET statement_timeout = 0").await.expect("a setting");
    let sql = "SELECT day::text, at::text, took::text, bytes::text, double::text FROM items";
    let row = plain.query_one(sql, &[]).await.expect("a row");
    let printed: Vec<String> = (0..5).map(|column| row.get(column)).collect();
    assert_eq!(printed[..4], ["06/03/2023", "06/03/2023 10:17:00 NST", "+1-2 -3 +4:05:06.789", r"\000\377a"]);
    assert_ne!(printed[4], "0.30000000000000004");
}
