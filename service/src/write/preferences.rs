//! How users want conflicts to end in tables whose rule leaves them to people: `kairos.conflict_preferences`.

use std::collections::HashMap;

use deadpool_postgres::{GenericClient, Transaction};
use kairos_sync_protocol::conflict::{ConflictPreference, PreferredStrategy};
use kairos_sync_rules::ConflictStrategy;
use tokio_postgres::Error;

use super::ledger::digest;

/// What a user chose, by table.
pub(super) type Preferences = HashMap<String, ConflictStrategy>;

/// What the user chose, sorted by table.
pub(super) async fn list(client: &impl GenericClient, user_id: &str) -> Result<Vec<ConflictPreference>, Error> {
    let sql = "SELECT table_name, strategy FROM kairos.conflict_preferences WHERE user_key = $1 ORDER BY 1";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&key(user_id)]).await?;
    let preference = |row: &tokio_postgres::Row| {
        let strategy = match row.get(1) {
            "client_wins" => PreferredStrategy::ClientWins,
            "merge_fields" => PreferredStrategy::MergeFields,
            _ => PreferredStrategy::ServerWins,
        };
        ConflictPreference { table: row.get(0), strategy: Some(strategy) }
    };
    Ok(rows.iter().map(preference).collect())
}

/// The same, for looking up.
pub(super) async fn read(tx: &Transaction<'_>, user_id: &str) -> Result<Preferences, Error> {
    let strategy = |preferred| match preferred {
        PreferredStrategy::ClientWins => ConflictStrategy::ClientWins,
        PreferredStrategy::ServerWins => ConflictStrategy::ServerWins,
        PreferredStrategy::MergeFields => ConflictStrategy::MergeFields,
    };
    let chosen = list(tx, user_id).await?.into_iter();
    Ok(chosen.filter_map(|one| Some((one.table, strategy(one.strategy?)))).collect())
}

/// Remembers or forgets a choice.
pub(super) async fn write(
    client: &impl GenericClient,
    user_id: &str,
    preference: &ConflictPreference,
) -> Result<(), Error> {
    let Some(strategy) = preference.strategy else {
        let sql = "DELETE FROM kairos.conflict_preferences WHERE user_key = $1 AND table_name = $2";
        let statement = client.prepare_cached(sql).await?;
        client.execute(&statement, &[&key(user_id), &preference.table]).await?;
        return Ok(());
    };
    let strategy = match strategy {
        PreferredStrategy::ClientWins => "client_wins",
        PreferredStrategy::ServerWins => "server_wins",
        PreferredStrategy::MergeFields => "merge_fields",
    };
    let sql = "INSERT INTO kairos.conflict_preferences (user_key, table_name, strategy) VALUES ($1, $2, $3)
               ON CONFLICT (user_key, table_name) DO UPDATE SET strategy = excluded.strategy, chosen_at = now()";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&key(user_id), &preference.table, &strategy]).await?;
    Ok(())
}

fn key(user_id: &str) -> Vec<u8> {
    digest(&[user_id]).to_vec()
}
