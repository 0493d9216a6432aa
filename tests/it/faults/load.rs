//! Transactions of all kinds, from several sessions at once, whose rows are the same ones.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_postgres::{Client, NoTls};

/// Whose habits there are.
pub(super) const USERS: [&str; 4] = ["ada", "bob", "cyd", "dan"];

const SESSION_SETTINGS: &str = "SET application_name = 'load'; SET deadlock_timeout = '50ms'; SET enable_seqscan = off";
/// Before the server is asked again after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Sessions that write until they are stopped. A server that goes away is awaited.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    sessions: JoinSet<()>,
    committed: Arc<AtomicU64>,
}

impl Load {
    /// `pause` lies between two transactions of a session.
    pub(super) fn start(uri: &str, seed: u64, session_count: u64, pause: Duration) -> Self {
        let (stop, committed) = (watch::Sender::new(false), Arc::default());
        let mut sessions = JoinSet::new();
        for number in 0..session_count {
            let session = Session {
                uri: uri.to_owned(),
                random: StdRng::seed_from_u64(seed.wrapping_add(number)),
                pause,
                committed: Arc::clone(&committed),
            };
            sessions.spawn(session.run(stop.subscribe()));
        }
        Self { stop, sessions, committed }
    }

    /// Transactions that were committed so far.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Lets the sessions end their transactions. Gives how many were committed.
    pub(super) async fn stop(mut self) -> u64 {
        self.stop.send_replace(true);
        while let Some(ended) = self.sessions.join_next().await {
            ended.expect("a session of the load does not panic");
        }
        self.committed()
    }
}

struct Session {
    uri: String,
    random: StdRng,
    pause: Duration,
    committed: Arc<AtomicU64>,
}

impl Session {
    async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut client = None;
        while !*stop.borrow() {
            let Some(session) = &client else {
                client = connect(&self.uri).await;
                if client.is_none() {
                    sleep(RETRY_PAUSE).await;
                }
                continue;
            };
            match session.batch_execute(&transaction(&mut self.random)).await {
                Ok(()) => {
                    self.committed.fetch_add(1, Ordering::Relaxed);
                }
                // Deadlocks are part of it.
                Err(_) if session.batch_execute("ROLLBACK").await.is_ok() => {}
                Err(_) => client = None,
            }
            sleep(self.pause).await;
        }
    }
}

async fn connect(uri: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(uri, NoTls).await.ok()?;
    tokio::spawn(connection);
    client.batch_execute(SESSION_SETTINGS).await.ok()?;
    Some(client)
}

/// One transaction: some changes, parts of which may be undone, with time for others in between.
fn transaction(random: &mut StdRng) -> String {
    let mut sql = "BEGIN;".to_owned();
    for _ in 0..random.random_range(1..6) {
        let change = change(random);
        match random.random_range(0..10) {
            0 => write!(sql, "SAVEPOINT a; {change}; ROLLBACK TO a;"),
            1 => write!(sql, "SAVEPOINT a; {change}; SAVEPOINT b; {change}; RELEASE a;"),
            2 => write!(sql, "{change}; SELECT pg_sleep({});", random.random_range(0.0..0.02)),
            _ => write!(sql, "{change};"),
        }
        .expect("a string takes all");
    }
    sql + if random.random_bool(0.1) { "ROLLBACK" } else { "COMMIT" }
}

/// A change of one row, or now and then of many.
fn change(random: &mut StdRng) -> String {
    let [key, other] = [random.random::<u32>(), random.random()].map(|key| format!("{key:08x}"));
    let user = USERS[random.random_range(0..USERS.len())];
    // An index finds them, however large the table is.
    let near = |table: &str| format!("(SELECT id FROM {table} WHERE id >= '{key}' ORDER BY id LIMIT 1)");
    let (item, habit, completion) = (near("items"), near("habits"), near("completions"));
    let large = format!("repeat(md5('{other}'), {})", random.random_range(80..200));
    match random.random_range(0..100) {
        0..20 => format!("INSERT INTO items VALUES ('{key}', 'new', '{other}') ON CONFLICT DO NOTHING"),
        20..35 => format!("UPDATE items SET title = '{other}' WHERE id = {item}"),
        // Its value is not sent with later changes of the row.
        35..42 => format!("UPDATE items SET body = {large} WHERE id = {item}"),
        42..52 => format!("DELETE FROM items WHERE id = {item}"),
        52..57 => format!("UPDATE items SET id = '{other}', title = 'moved' WHERE id = {item}"),
        57..67 => format!("INSERT INTO habits VALUES ('{key}', '{user}') ON CONFLICT DO NOTHING"),
        67..73 => format!("UPDATE habits SET user_id = '{user}' WHERE id = {habit}"),
        73..76 => format!("UPDATE habits SET id = '{other}' WHERE id = {habit}"),
        76..80 => format!("DELETE FROM habits WHERE id = {habit}"),
        80..92 => format!(
            "INSERT INTO completions SELECT '{other}', {habit} WHERE {habit} IS NOT NULL ON CONFLICT DO NOTHING"
        ),
        92..95 => format!("UPDATE completions SET habit_id = coalesce({habit}, habit_id) WHERE id = {completion}"),
        95..98 => format!("DELETE FROM completions WHERE id = {completion}"),
        98 => format!(
            "INSERT INTO items SELECT '{key}-' || n, 'many', '{other}' FROM generate_series(1, 800) n ON CONFLICT DO NOTHING"
        ),
        _ => format!("DELETE FROM items WHERE id IN (SELECT id FROM items WHERE id >= '{key}' ORDER BY id LIMIT 1000)"),
    }
}
