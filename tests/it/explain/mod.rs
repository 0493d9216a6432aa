//! `explain` against real devices: [`compared`] has buckets, rows and operations in the files of clients, for rules of each
//! dialect; [`reasons`] what keeps rows out, one kind after the other; [`devices`] what was sent to whom, and the command.

mod compared;
mod devices;
mod reasons;

use std::path::PathBuf;

use kairos_tests::service::{TestService, service_binary};
use serde_json::{Value, json};
use tokio::process::Command;

const EXPLAIN: &str = "/api/admin/v1/explain";

const SCHEMA: &str = "
    CREATE TABLE teams (id text PRIMARY KEY, lead text, open boolean NOT NULL);
    CREATE TABLE members (team_id text, user_id text, role text, PRIMARY KEY (team_id, user_id));
    CREATE TABLE cards (id int8 PRIMARY KEY, team_id text, owner text, archived boolean NOT NULL, readers jsonb, title text);
    SELECT kairos.publish_table('teams'), kairos.publish_table('members'), kairos.publish_table('cards');
    INSERT INTO teams SELECT 't' || n, CASE n % 3 WHEN 0 THEN 'ann' WHEN 1 THEN 'bob' END, n % 4 <> 0 FROM generate_series(1, 8) n;
    INSERT INTO members SELECT 't' || n, u, CASE WHEN (n + length(u)) % 3 = 0 THEN 'viewer' ELSE 'editor' END
      FROM generate_series(1, 8) n, unnest(ARRAY['ann', 'bob', 'chris']) u WHERE (n * length(u)) % 5 <> 0;
    INSERT INTO cards SELECT n, 't' || n % 9, (ARRAY['ann', 'bob', 'chris', NULL])[n % 4 + 1], n % 5 = 0,
        CASE n % 3 WHEN 0 THEN '[\"ann\",\"bob\"]'::jsonb WHEN 1 THEN '[]' END, 'secret title ' || n FROM generate_series(1, 60) n;
";

const USERS: [&str; 4] = ["ann", "bob", "chris", "nobody"];

const CLASSIC: &str = "
bucket_definitions:
  team:
    priority: 1
    parameters: SELECT team_id FROM members WHERE user_id = request.user_id() AND role = 'editor'
    data:
      - SELECT * FROM teams WHERE id = bucket.team_id
      - SELECT * FROM cards WHERE team_id = bucket.team_id AND archived = 0
  own:
    parameters: SELECT request.user_id() AS user_id
    data: ['SELECT id, title FROM cards AS own_cards WHERE owner = bucket.user_id']
  public:
    data: [SELECT id FROM teams AS open_teams WHERE open = 1 AND lead IS NOT NULL]
";
const STREAMS: &str = "
config: { edition: 3 }
streams:
  cards:
    auto_subscribe: true
    query: SELECT * FROM cards WHERE NOT archived AND team_id IN (SELECT team_id FROM members WHERE user_id = auth.user_id())
  mine:
    auto_subscribe: true
    query: SELECT * FROM cards WHERE owner = auth.user_id() OR auth.user_id() IN readers
  leads:
    auto_subscribe: true
    write_time_joins: true
    query: SELECT cards.* FROM cards JOIN teams ON teams.id = cards.team_id WHERE teams.open = 1 AND teams.lead = auth.user_id()
  one_team:
    query: SELECT * FROM teams WHERE id = subscription.parameter('team')
";
const KAIROS: &str = "
bucket_definitions:
  mine:
    parameters: [{ name: user_id, type: string }]
    data:
      - { table: teams, filter: 'lead = :user_id' }
      - { table: cards, filter: 'NOT archived AND team_id IN (SELECT team_id FROM members WHERE user_id = :user_id)' }
      - { table: cards, filter: 'owner = :user_id AND id > 10' }
";

async fn start(rules: &str) -> TestService {
    let service = TestService::start(SCHEMA, rules).await;
    service.wait_until_ready().await;
    service
}

async fn explain(service: &TestService, question: Value) -> Value {
    let (status, mut answer) = service.ask(EXPLAIN, &question).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"].take()
}

/// What is said of a row in one sentence.
async fn summary(service: &TestService, user: &str, table: &str, id: Value) -> String {
    let answer = explain(service, json!({"user_id": user, "table": table, "id": id})).await;
    answer["summary"].as_str().expect("a sentence").to_owned()
}

fn client(service: &TestService, user: &str, arguments: &[&str]) -> (Command, PathBuf) {
    let db = service.folder.path().join(format!("{user}.db"));
    let mut command = Command::new(service_binary());
    command.args(["client", "--url", service.process.endpoint(), "--db"]).arg(&db).args(arguments).kill_on_drop(true);
    command.env("KAIROS_CLIENT_TOKEN", service.token(user)).env_remove("RUST_LOG");
    (command, db)
}
