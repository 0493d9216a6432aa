//! Habits on this device, in step with a server.
//!
//! `cargo run -p kairos-client --example habits -- <endpoint> <token> [habit to add]`
//!
//! Shows the habits whenever they change. Works without the server, too: what is added is uploaded later.

use kairos_client::{Client, ClientError, Schema, StaticConnector, Table};

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let mut arguments = std::env::args().skip(1);
    let connector = match (arguments.next(), arguments.next()) {
        (Some(endpoint), Some(token)) => StaticConnector::new(endpoint, token),
        _ => StaticConnector::not_configured(),
    };
    let schema = Schema::new([Table::new("habits").text("name").index(["name"])]);
    let client = Client::open("habits.db", schema, connector).await?;
    if let Some(name) = arguments.next() {
        client.execute("INSERT INTO habits (id, name) VALUES (uuid(), ?1)", [name]).await?;
    }
    client.connect();

    let mut habits = client.watch(&["habits"]);
    let mut status = client.status_stream();
    loop {
        let names = client.query("SELECT name FROM habits ORDER BY name", [], |row| row.get::<_, String>(0)).await?;
        let status_now = status.borrow_and_update().clone();
        println!("{}: {}", status_now.state.label(), names.join(", "));
        if let Some(problem) = status_now.problem {
            println!("  {}", problem.message());
        }
        tokio::select! {
            _ = habits.changed() => {}
            _ = status.changed() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    client.disconnect().await;
    Ok(())
}
