//! What an official SDK's upload did not bring into a row comes back to the device, and its user decides.

use std::collections::BTreeSet;

use kairos_tests::{
    official::{OfficialClient, Sdk},
    service::{TestService, eventually},
};
use serde_json::{Value, json};

const SCHEMA: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, owner text NOT NULL, title text NOT NULL CHECK (title <> 'forbidden'));
    SELECT kairos.publish_table('notes', 'INSERT, UPDATE, DELETE');
    INSERT INTO notes VALUES ('n1', 'ann', 'first'), ('n2', 'ann', 'first'), ('n3', 'eve', 'first')";

const RULES: &str = "
bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS user_id
    data:
      - SELECT * FROM notes WHERE owner = bucket.user_id
      - SELECT * FROM kairos.conflicts AS attention WHERE user_id = bucket.user_id
write_rules:
  notes: { allow: [put, patch, delete], check: row.owner = auth.user_id(), conflict: manual }
";

fn tables() -> Value {
    json!({
        "notes": { "owner": "text", "title": "text", "$trackPrevious": true },
        "attention": {
            "table_name": "text", "row_id": "text", "op": "text", "outcome": "text", "code": "text", "base": "text",
            "mine": "text", "theirs": "text", "status": "text", "resolution": "text",
        },
    })
}

const ATTENTION: &str = "SELECT row_id || ' ' || outcome || ' ' || code || ' ' || (mine ->> 'title') || ' '
    || coalesce(theirs ->> 'title', '-') || ' ' || status FROM attention";
const TITLES: &str = "SELECT id || ' ' || title FROM notes";

/// The id of what is kept about a row.
async fn path(phone: &OfficialClient, row_id: &str) -> String {
    let ids = phone.texts(&format!("SELECT id FROM attention WHERE row_id = '{row_id}'")).await;
    format!("/api/sync/conflicts/{}/resolve", ids.first().expect("one"))
}

fn set<const N: usize>(lines: [&str; N]) -> BTreeSet<String> {
    lines.map(str::to_owned).into()
}

#[tokio::test]
async fn the_device_shows_what_needs_attention_until_its_user_decides() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let (folder, endpoint, token) = (service.folder.path(), service.process.endpoint(), service.token("ann"));
    let phone = OfficialClient::open(Sdk::HTTP, folder, "phone", &tables()).await;
    phone.connect(endpoint, &token).await;
    eventually(set(["n1 first", "n2 first"]), || phone.texts(TITLES)).await;
    phone.call(json!({"do": "disconnect"})).await;
    service.run("UPDATE notes SET title = 'theirs' WHERE id = 'n1'").await;
    phone.execute("UPDATE notes SET title = 'mine' WHERE id = 'n1'").await;
    phone.execute("UPDATE notes SET title = 'forbidden' WHERE id = 'n2'").await;
    phone.execute("INSERT INTO notes (id, owner, title) VALUES ('n4', 'ann', 'new')").await;
    phone.connect(endpoint, &token).await;

    // The queue went on, the rows are as the server has them, and what was not taken is on the device.
    eventually(set(["n1 theirs", "n2 first", "n4 new"]), || phone.texts(TITLES)).await;
    let waiting = ["n1 conflict WRITE_CONFLICT mine theirs open", "n2 refused WRITE_CONSTRAINT forbidden - open"];
    eventually(set(waiting), || phone.texts(ATTENTION)).await;

    let (conflict, refused) = (path(&phone, "n1").await, path(&phone, "n2").await);
    let (status, answer) = service.ask_as(&service.token("eve"), &conflict, &json!({ "choice": "mine" })).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("WRITE_CONFLICT_UNKNOWN")));
    let (_, resolved) = service.ask_as(&token, &conflict, &json!({ "choice": "mine" })).await;
    assert_eq!(resolved["data"]["conflict"]["status"], "resolved", "{resolved}");
    let corrected = json!({ "choice": "merged", "data": { "title": "allowed" } });
    let (_, resolved) = service.ask_as(&token, &refused, &corrected).await;
    assert_eq!(resolved["data"]["result"]["outcome"], "applied", "{resolved}");
    eventually(set(["n1 mine", "n2 allowed", "n4 new"]), || phone.texts(TITLES)).await;
    eventually(set([]), || phone.texts("SELECT id FROM attention WHERE status = 'open'")).await;

    // Nobody else's device has any of it.
    let other = OfficialClient::open(Sdk::HTTP, folder, "other", &tables()).await;
    other.connect(endpoint, &service.token("eve")).await;
    eventually(set(["n3 first"]), || other.texts(TITLES)).await;
    assert_eq!(other.texts(ATTENTION).await, set([]));
    for device in [phone, other] {
        device.call(json!({"do": "close"})).await;
    }
}
