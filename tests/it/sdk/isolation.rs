//! Two users at one service: each gets what is theirs and what is their teams', while members come and go and rows
//! change hands. Nothing else reaches a device, not even rows it would not show.

use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::TestService,
};
use serde_json::json;

const SCHEMA: &str = "
    CREATE TABLE members (id text PRIMARY KEY, team text NOT NULL, person text NOT NULL);
    CREATE TABLE notes (id text PRIMARY KEY, owner text NOT NULL, body text NOT NULL);
    CREATE TABLE plans (id text PRIMARY KEY, team text NOT NULL, body text NOT NULL);
    SELECT kairos.publish_table('members');
    SELECT kairos.publish_table('notes');
    SELECT kairos.publish_table('plans');
    INSERT INTO members VALUES ('m1', 'red', 'ann'), ('m2', 'red', 'bob'), ('m3', 'blue', 'bob');
    INSERT INTO notes SELECT 'note-' || n, (ARRAY['ann', 'bob', 'cy'])[n % 3 + 1], 'Note ' || n FROM generate_series(1, 60) n;
    INSERT INTO plans SELECT 'plan-' || n, (ARRAY['red', 'blue', 'green'])[n % 3 + 1], 'Plan ' || n FROM generate_series(1, 60) n;
";

const RULES: &str = r"
bucket_definitions:
  own:
    parameters: SELECT request.user_id() AS owner
    data:
      - SELECT id, body FROM notes WHERE owner = bucket.owner
  team:
    parameters: SELECT team FROM members WHERE person = request.user_id()
    data:
      - SELECT id, team, body FROM plans WHERE team = bucket.team
";

const IN_SOURCE: &str = "
    SELECT 'notes/' || id || ' ' || body FROM notes WHERE owner = $1 UNION ALL
    SELECT 'plans/' || id || ' ' || body FROM plans WHERE team IN (SELECT team FROM members WHERE person = $1)";

const SHOWN: &str = "
    SELECT 'notes/' || id || ' ' || body FROM notes UNION ALL SELECT 'plans/' || id || ' ' || body FROM plans";

/// Everything that was sent and not taken back.
fn kept(sdk: Sdk) -> String {
    format!("SELECT row_type || '/' || row_id || ' ' || json_extract(data, '$.body') FROM {}", sdk.oplog)
}

async fn equal(sdk: Sdk, service: &TestService, devices: &[(&str, &OfficialClient)]) {
    for (user, device) in devices {
        device.converges(service, IN_SOURCE, &[user], SHOWN).await;
        device.converges(service, IN_SOURCE, &[user], &kept(sdk)).await;
    }
}

async fn everyone_gets_their_own(sdk: Sdk) {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tables = json!({"notes": {"body": "text"}, "plans": {"team": "text", "body": "text"}});
    let ann = OfficialClient::open(sdk, service.folder.path(), "ann", &tables).await;
    let bob = ann.open_beside(service.folder.path(), "bob", &tables).await;
    let devices = [("ann", &ann), ("bob", &bob)];
    for (user, device) in devices {
        device.connect(service.process.endpoint(), &service.token(user)).await;
    }
    equal(sdk, &service, &devices).await;
    for sql in [
        // Somebody joins a team, leaves one, changes to another.
        "INSERT INTO members VALUES ('m4', 'blue', 'ann')",
        "DELETE FROM members WHERE id = 'm2'",
        "UPDATE members SET team = 'green' WHERE id = 'm1'",
        // Twice a member, then once, is still a member.
        "INSERT INTO members VALUES ('m5', 'blue', 'bob')",
        "DELETE FROM members WHERE id = 'm3'",
        // Rows change hands, there and back again, alone and with a change.
        "UPDATE notes SET owner = 'bob' WHERE owner = 'ann'",
        "UPDATE notes SET owner = 'ann', body = body || ' of ann' WHERE id < 'note-3'",
        "UPDATE plans SET team = 'blue' WHERE team = 'green'",
        // All at once.
        "BEGIN; UPDATE plans SET team = 'green' WHERE id < 'plan-2'; UPDATE members SET person = 'bob' WHERE team = 'green';
         DELETE FROM notes WHERE id > 'note-5'; COMMIT",
        // A key changes.
        "UPDATE notes SET id = 'renamed-' || id WHERE owner = 'ann'",
        "DELETE FROM members",
    ] {
        service.run(sql).await;
        equal(sdk, &service, &devices).await;
    }
}

#[tokio::test]
async fn over_http_everyone_gets_their_own() {
    everyone_gets_their_own(Sdk::HTTP).await;
}

#[tokio::test]
async fn over_a_web_socket_everyone_gets_their_own() {
    everyone_gets_their_own(Sdk::WEB_SOCKET).await;
}

#[tokio::test]
async fn with_the_javascript_sync_client_everyone_gets_their_own() {
    everyone_gets_their_own(Sdk::JAVASCRIPT).await;
}

#[tokio::test]
async fn with_our_client_everyone_gets_their_own() {
    everyone_gets_their_own(Sdk::RUST).await;
}
