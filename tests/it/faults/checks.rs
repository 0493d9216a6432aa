//! What clients would hold, compared with SQL.

use std::collections::BTreeMap;

use kairos_sync::demo::oracle::TableCheck;
use serde_json::Value;
use tokio_postgres::Client;

use super::load::USERS;
use crate::replica::Replica;

/// The tables of a user's device.
pub(super) const USER_TABLES: [TableCheck; 3] = [
    TableCheck {
        table: "items",
        device_sql: "SELECT id, title, body FROM items",
        source_sql: "SELECT id, title, body FROM items WHERE $1::text IS NOT NULL",
    },
    TableCheck {
        table: "habits",
        device_sql: "SELECT id, user_id FROM habits",
        source_sql: "SELECT id, user_id FROM habits WHERE user_id = $1",
    },
    TableCheck {
        table: "completions",
        device_sql: "SELECT id, habit_id FROM completions",
        source_sql: "SELECT c.id, c.habit_id FROM completions c JOIN habits h ON h.id = c.habit_id WHERE h.user_id = $1",
    },
];

/// Rows as clients hold them: table, id and data.
type Rows = BTreeMap<(String, String), Value>;

async fn rows(client: &Client, sql: &str, user: &str) -> Rows {
    let rows = client.query(sql, &[&user]).await.expect("valid SQL");
    let row = |row: &tokio_postgres::Row| {
        let (table, id, data): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        ((table, id), serde_json::from_str(&data).expect("JSON"))
    };
    rows.iter().map(row).collect()
}

/// What a replica's buckets and SQL do not have in common.
pub(super) async fn differences(replica: &Replica, client: &Client) -> Vec<String> {
    const ITEMS: &str = "SELECT 'items', id, row_to_json(items)::text FROM items WHERE $1::text IS NOT NULL";
    const OWN: &str = "SELECT 'habits', id, row_to_json(habits)::text FROM habits WHERE user_id = $1 UNION ALL \
                       SELECT 'completions', c.id, row_to_json(c)::text \
                       FROM completions c JOIN habits h ON h.id = c.habit_id WHERE h.user_id = $1";
    let mut found = Vec::new();
    let buckets = [("everything", ITEMS)].into_iter().chain(USERS.map(|user| (user, OWN)));
    for (bucket, sql) in buckets {
        let (expected, held) = (rows(client, sql, bucket).await, replica.contents(bucket));
        let missing = expected.iter().filter(|(key, data)| held.get(key) != Some(data));
        found.extend(missing.map(|((table, id), _)| format!("{bucket}: {table} {id} is missing or different")));
        let surplus = held.keys().filter(|key| !expected.contains_key(key));
        found.extend(surplus.map(|(table, id)| format!("{bucket}: {table} {id} is not in the source")));
    }
    found
}

/// Fails with the first differences.
pub(super) async fn assert_equal(replica: &Replica, client: &Client, context: &str) {
    let differences = differences(replica, client).await;
    let first = &differences[..differences.len().min(10)];
    assert!(first.is_empty(), "{context}: {} rows differ from SQL, such as {first:#?}", differences.len());
}
