//! What a real server sends of transactions that show most of the protocol.

use tokio_postgres::{Client, NoTls, error::Error};

use crate::demo::cluster::PgCluster;

/// Small, so that transactions of a few hundred rows are sent in parts.
const SETTINGS: [(&str, &str); 1] = [("logical_decoding_work_mem", "64kB")];

const TABLES: &str = "
    CREATE TYPE mood AS ENUM ('calm', 'cross');
    CREATE TABLE items (id int PRIMARY KEY, title text, mood mood, body text);
    ALTER TABLE items ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE notes (note text);
    ALTER TABLE notes REPLICA IDENTITY FULL;
    CREATE PUBLICATION recorded FOR TABLE items, notes;
    SELECT pg_replication_origin_create('elsewhere');";
const SLOT: &str = "SELECT pg_create_logical_replication_slot('recorded', 'pgoutput')";

const SMALL: [&str; 7] = [
    "INSERT INTO items VALUES (1, 'one', 'calm', repeat('x', 3000)), (2, NULL, NULL, '')",
    "BEGIN; UPDATE items SET title = 'uno' WHERE id = 1; UPDATE items SET id = 3 WHERE id = 2; COMMIT",
    "INSERT INTO notes VALUES ('a'), (NULL); UPDATE notes SET note = 'b' WHERE note = 'a'; DELETE FROM notes",
    "SELECT pg_logical_emit_message(false, 'kairos', 'now'), pg_logical_emit_message(true, 'other', 'then')",
    "SELECT pg_replication_origin_session_setup('elsewhere')",
    "DELETE FROM items WHERE id = 3; TRUNCATE notes",
    "SELECT pg_replication_origin_session_reset()",
];

/// Two at a time, the changes of which come in turns: one with rollbacks and an altered table, one rolled back.
const LARGE: [(usize, &str); 9] = [
    (0, "BEGIN; INSERT INTO items SELECT n, md5(n::text), 'cross' FROM generate_series(100, 1200) n"),
    (1, "BEGIN; INSERT INTO notes SELECT md5(n::text) FROM generate_series(1, 1200) n"),
    (0, "SAVEPOINT one; INSERT INTO items SELECT n, 'gone' FROM generate_series(2000, 3200) n; ROLLBACK TO one"),
    (0, "SAVEPOINT two; UPDATE items SET title = 'kept' WHERE id BETWEEN 100 AND 1100; RELEASE two"),
    (1, "INSERT INTO notes SELECT md5(n::text) FROM generate_series(1, 1200) n"),
    (0, "ALTER TABLE items ADD further int; INSERT INTO items SELECT n FROM generate_series(4000, 5200) n"),
    (1, "ROLLBACK"),
    (0, "TRUNCATE items"),
    (0, "COMMIT"),
];

/// The messages of protocol version 2, in their order.
pub(crate) async fn recorded() -> Vec<Vec<u8>> {
    let cluster = PgCluster::start_with(None, &SETTINGS).expect("a server");
    let sessions = [connect(&cluster).await, connect(&cluster).await];
    record(&sessions).await.expect("the server does what it is told")
}

async fn connect(cluster: &PgCluster) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.uri("postgres", "postgres"), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn record(sessions: &[Client; 2]) -> Result<Vec<Vec<u8>>, Error> {
    for statements in [TABLES, SLOT].into_iter().chain(SMALL) {
        sessions[0].batch_execute(statements).await?;
    }
    for (session, statements) in LARGE {
        sessions[session].batch_execute(statements).await?;
    }
    let rows = sessions[0]
        .query(
            "SELECT data FROM pg_logical_slot_peek_binary_changes('recorded', NULL, NULL, 'proto_version', '2',
                 'publication_names', 'recorded', 'streaming', 'on', 'messages', 'true')",
            &[],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
