//! SQLite, in memory: the same rows, asked by the SQL of the generators.

use std::collections::BTreeSet;

use rusqlite::{Connection, types::Value as SqliteValue};

use crate::model::{Change, Principal, SubscriptionValues, Table, Value};

/// Rows a client sees: output table and id.
pub(crate) type Visible = BTreeSet<(String, String)>;

/// A part of what a client sees, as SQL that gives output table and id.
///
/// The one row of the table `request` is the client: `user`, `user_text`, `role`, `role_text`, `level`,
/// `level_integer`, `tags`, `choice`, `choices`, and of the subscription `s` and `ss`.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub stream: Option<Stream>,
    pub sql: String,
}

/// The stream a read belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub name: String,
    pub auto_subscribe: bool,
}

pub(crate) struct Database {
    connection: Connection,
    columns: Vec<(&'static str, usize)>,
}

fn bound(value: &Value) -> SqliteValue {
    match value {
        Value::Null => SqliteValue::Null,
        Value::Integer(number) => SqliteValue::Integer(*number),
        Value::Real(number) => SqliteValue::Real(*number),
        Value::Text(text) => SqliteValue::Text(text.clone()),
    }
}

impl Database {
    /// Columns have no type, so that SQLite converts nothing when it stores and compares.
    pub(crate) fn new(schema: &[Table]) -> Self {
        let connection = Connection::open_in_memory().expect("SQLite opens in memory");
        for table in schema {
            let columns: Vec<_> = table.columns().collect();
            let sql = format!("CREATE TABLE {} ({}, UNIQUE (id))", table.name, columns.join(", "));
            connection.execute_batch(&sql).expect("the schema is valid");
        }
        let request = "CREATE TABLE request (user, user_text, role, role_text, level, level_integer, tags, choice, \
                       choices, s, ss)";
        connection.execute_batch(request).expect("the schema is valid");
        Self { connection, columns: schema.iter().map(|table| (table.name, table.columns().count())).collect() }
    }

    pub(crate) fn apply(&self, change: &Change) {
        let (sql, values) = match change {
            Change::Put { table, row } => {
                let (name, count) = self.columns[*table];
                let places = vec!["?"; count].join(", ");
                (format!("INSERT OR REPLACE INTO {name} VALUES ({places})"), row.iter().map(bound).collect())
            }
            Change::Delete { table, id } => {
                (format!("DELETE FROM {} WHERE id = ?", self.columns[*table].0), vec![bound(id)])
            }
        };
        self.execute(&sql, values);
    }

    fn execute(&self, sql: &str, values: Vec<SqliteValue>) {
        let mut statement = self.connection.prepare_cached(sql).expect("the statement is valid");
        statement.execute(rusqlite::params_from_iter(values)).expect("a change of valid rows");
    }

    /// What a client sees.
    pub(crate) fn visible(&self, reads: &[Read], principal: &Principal) -> Visible {
        let mut visible = Visible::new();
        for read in reads {
            let Some(stream) = &read.stream else {
                self.become_client(principal, &SubscriptionValues::default());
                self.read(&read.sql, &mut visible);
                continue;
            };
            let named = principal.subscriptions.iter().filter(|(name, _)| *name == stream.name);
            let mut subscriptions: Vec<_> = named.map(|(_, values)| values.clone()).collect();
            if stream.auto_subscribe {
                subscriptions.push(SubscriptionValues::default());
            }
            for subscription in &subscriptions {
                self.become_client(principal, subscription);
                self.read(&read.sql, &mut visible);
            }
        }
        visible
    }

    fn become_client(&self, principal: &Principal, subscription: &SubscriptionValues) {
        let optional = |value: &Option<Value>| value.as_ref().map_or(SqliteValue::Null, bound);
        let text = |value: &Option<String>| value.clone().map_or(SqliteValue::Null, SqliteValue::Text);
        let as_text = |value: &Option<Value>| match value {
            // A claim of the type string counts by its digits.
            Some(Value::Real(number)) => SqliteValue::Text(number.to_string()),
            other => other.as_ref().map_or(SqliteValue::Null, bound),
        };
        let level = principal.level.map_or(SqliteValue::Null, SqliteValue::Real);
        let whole = principal.level.filter(|level| level.fract() == 0.0);
        let Principal { user, role, tags, choice, choices, .. } = principal;
        self.execute("DELETE FROM request", Vec::new());
        self.execute(
            "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            vec![
                optional(user),
                as_text(user),
                optional(role),
                as_text(role),
                level,
                whole.map_or(SqliteValue::Null, SqliteValue::Real),
                text(tags),
                optional(choice),
                text(choices),
                optional(&subscription.scalar),
                text(&subscription.array),
            ],
        );
    }

    fn read(&self, sql: &str, visible: &mut Visible) {
        let mut statement =
            self.connection.prepare_cached(sql).unwrap_or_else(|error| panic!("the oracle's SQL: {error}\n{sql}"));
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        for row in rows.expect("a query without parameters runs") {
            visible.insert(row.unwrap_or_else(|error| panic!("the oracle's SQL: {error}\n{sql}")));
        }
    }
}
