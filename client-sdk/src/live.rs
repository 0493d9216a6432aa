//! Queries whose results follow the data.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use rusqlite::{Connection, Params, Row};
use tokio::time::{Instant, sleep_until};

use crate::{
    changes::TableWatch,
    client::{Client, ClientError},
};

/// Between two runs of a query, unless it is said otherwise: a screen shows no more.
const INTERVAL_MIN: Duration = Duration::from_millis(30);

type Read<T> = dyn Fn(&Connection) -> rusqlite::Result<Vec<T>> + Send + Sync;

/// A query that is run again whenever one of the tables it reads has changed.
pub struct LiveQuery<T> {
    client: Client,
    read: Arc<Read<T>>,
    watch: TableWatch,
    interval_min: Duration,
    /// When it may run again, and what came last.
    last: Option<(Instant, Vec<T>)>,
}

impl<T> std::fmt::Debug for LiveQuery<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveQuery").field("watch", &self.watch).finish_non_exhaustive()
    }
}

impl<T: PartialEq + Clone + Send + 'static> LiveQuery<T> {
    pub(crate) async fn open(
        client: Client,
        sql: String,
        params: impl Params + Clone + Send + Sync + 'static,
        map: impl Fn(&Row<'_>) -> rusqlite::Result<T> + Send + Sync + 'static,
    ) -> Result<Self, ClientError> {
        let tables = client.tables_read_by(sql.clone()).await?;
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let watch = client.watch(&names);
        let read = Arc::new(move |connection: &Connection| {
            connection.prepare_cached(&sql)?.query_map(params.clone(), &map)?.collect()
        });
        Ok(Self { client, read, watch, interval_min: INTERVAL_MIN, last: None })
    }

    /// With another time between two runs of the query.
    #[must_use]
    pub fn throttled(self, interval_min: Duration) -> Self {
        Self { interval_min, ..self }
    }

    /// The rows: at once the first time, then as soon as they are others than before. `None` when the client is gone.
    ///
    /// Cancel safe: what was not delivered comes with the next call.
    ///
    /// # Errors
    /// SQLite refuses the query, which may be because the app's tables have changed.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, ClientError> {
        loop {
            if let Some((earliest, _)) = &self.last {
                if !self.watch.changed().await {
                    return Ok(None);
                }
                sleep_until(*earliest).await;
            }
            let read = Arc::clone(&self.read);
            let rows = self.client.read(move |connection| read(connection)).await?;
            let is_new = self.last.as_ref().is_none_or(|(_, before)| *before != rows);
            self.last = Some((Instant::now() + self.interval_min, rows.clone()));
            if is_new {
                return Ok(Some(rows));
            }
        }
    }

    /// The same query, telling what became of each row. `key` names a row; rows with the same key are one.
    pub fn by_key<K>(self, key: impl Fn(&T) -> K + Send + 'static) -> LiveRows<T, K> {
        LiveRows { query: self, key: Box::new(key), before: Vec::new() }
    }
}

/// What became of the rows of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDifferences<T> {
    /// All of them, in the query's order.
    pub rows: Vec<T>,
    /// New ones.
    pub inserted: Vec<T>,
    /// Those with another content: before and after.
    pub updated: Vec<(T, T)>,
    /// Those that are gone.
    pub deleted: Vec<T>,
}

/// A [`LiveQuery`] that tells differences.
pub struct LiveRows<T, K> {
    query: LiveQuery<T>,
    key: Box<dyn Fn(&T) -> K + Send>,
    before: Vec<T>,
}

impl<T, K> std::fmt::Debug for LiveRows<T, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveRows").field("query", &self.query).finish_non_exhaustive()
    }
}

impl<T: PartialEq + Clone + Send + 'static, K: Eq + Hash> LiveRows<T, K> {
    /// The differences to what came before: the first time every row is new. `None` when the client is gone.
    ///
    /// # Errors
    /// As with [`LiveQuery::next`].
    pub async fn next(&mut self) -> Result<Option<RowDifferences<T>>, ClientError> {
        let Some(rows) = self.query.next().await? else { return Ok(None) };
        let before = std::mem::replace(&mut self.before, rows.clone());
        Ok(Some(differences(before, rows, &self.key)))
    }
}

fn differences<T: PartialEq + Clone, K: Eq + Hash>(
    before: Vec<T>,
    rows: Vec<T>,
    key: &dyn Fn(&T) -> K,
) -> RowDifferences<T> {
    let mut known: HashMap<K, T> = before.into_iter().map(|row| (key(&row), row)).collect();
    let (mut inserted, mut updated) = (Vec::new(), Vec::new());
    for row in &rows {
        match known.remove(&key(row)) {
            None => inserted.push(row.clone()),
            Some(old) if old != *row => updated.push((old, row.clone())),
            Some(_) => {}
        }
    }
    RowDifferences { rows, inserted, updated, deleted: known.into_values().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_each_row_once() {
        let before = vec![(1, "a"), (2, "b"), (3, "c")];
        let rows = vec![(3, "c"), (2, "x"), (4, "d")];
        let found = differences(before, rows.clone(), &|row| row.0);
        assert_eq!(found.rows, rows);
        assert_eq!((found.inserted, found.updated), (vec![(4, "d")], vec![((2, "b"), (2, "x"))]));
        assert_eq!(found.deleted, [(1, "a")]);
    }
}
