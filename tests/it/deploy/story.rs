//! The first evening, as the habit app's users live it: set up, offline, a second device, a partner.

use std::time::Duration;

use kairos_client::{Client, ClientOptions, Schema, StaticConnector, SyncState, Table};
use kairos_tests::service::{PATIENCE, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::stack::Stack;

/// Somebody who is signed in.
struct User {
    id: String,
    token: String,
}

impl Stack {
    /// A request to PocketBase, by the address that devices have.
    async fn accounts(&self, method: Method, path: &str, token: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/api/collections/{path}", self.site());
        let request = self.http.request(method, url).header("authorization", token).json(&body);
        let response = request.timeout(PATIENCE).send().await.expect("PocketBase answers");
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    async fn sign_in(&self, collection: &str, email: &str, password: &str) -> User {
        let who = json!({ "identity": email, "password": password });
        let (status, answer) = self.accounts(Method::POST, &format!("{collection}/auth-with-password"), "", who).await;
        assert_eq!(status, 200, "{answer}");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        User { id: text(&answer["record"]["id"]), token: text(&answer["token"]) }
    }

    /// A device of a user that syncs by that address.
    async fn device(&self, user: &User, name: &str) -> Client {
        let schema = Schema::new([
            Table::new("habits").text("user_id").text("name"),
            Table::new("completions").text("habit_id").text("completed_on"),
        ]);
        let connector = StaticConnector::new(format!("{}/sync-api", self.site()), user.token.as_str());
        let (base, cap) = (Duration::from_millis(20), Duration::from_millis(200));
        let options = ClientOptions { retry_base: base, retry_cap: cap, ..ClientOptions::default() };
        let file = self.folder.path().join(format!("{name}.db"));
        let device = Client::open_with(file, schema, connector, options).await.expect("opens");
        device.connect();
        timeout(PATIENCE, device.wait_for_first_sync()).await.expect("the first sync ends");
        device
    }
}

async fn count(device: &Client, table: &'static str) -> i64 {
    let rows = device.query(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).await;
    rows.expect("readable")[0]
}

#[tokio::test]
async fn a_household_is_in_sync_on_its_first_evening() {
    let stack = Stack::start().await;

    // UC-1: a new user signs up and in, and gets nothing, which is all there is.
    let site = stack.site();
    let answer = stack.http.get(format!("{site}/sync-api/probes/liveness")).send().await.expect("answers");
    assert_eq!(answer.status().as_u16(), 200, "the app's test of the server");
    let new = json!({ "email": "ann@example.com", "password": "ann-secret-1", "passwordConfirm": "ann-secret-1" });
    let (status, answer) = stack.accounts(Method::POST, "users/records", "", new).await;
    assert_eq!(status, 200, "{answer}");
    let ann = stack.sign_in("users", "ann@example.com", "ann-secret-1").await;
    let phone = stack.device(&ann, "phone").await;
    assert_eq!(count(&phone, "habits").await, 0);

    // UC-2: without a network everything works, and is uploaded when there is one.
    phone.disconnect().await;
    let habit = "INSERT INTO habits (id, user_id, name) VALUES ('read', ?1, 'Read')";
    phone.execute(habit, [ann.id.clone()]).await.expect("works offline");
    let done = "INSERT INTO completions (id, habit_id, completed_on) VALUES ('one', 'read', '2026-11-27')";
    phone.execute(done, []).await.expect("works offline");
    assert_eq!(phone.status().state, SyncState::Pending(2));
    phone.connect();
    timeout(PATIENCE, phone.wait_until_synced()).await.expect("it is uploaded");
    assert_eq!(phone.rejected_writes().await.expect("readable"), []);
    let rows =
        stack.sql.query("SELECT h.user_id, c.id FROM habits h JOIN completions c ON c.habit_id = h.id", &[]).await;
    let rows = rows.expect("readable");
    let stored: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(stored, [(ann.id.clone(), "one".to_owned())]);

    // UC-3: what the watch does is on the phone.
    let watch = stack.device(&ann, "watch").await;
    assert_eq!((count(&watch, "habits").await, count(&watch, "completions").await), (1, 1));
    let done = "INSERT INTO completions (id, habit_id, completed_on) VALUES ('two', 'read', '2026-11-28')";
    watch.execute(done, []).await.expect("works");
    eventually(2, || count(&phone, "completions")).await;

    // UC-4: the administrator makes an account for the partner, who sees nothing of Ann's and cannot write into it.
    let email = stack.compose.variable("pocketbase", "ADMIN_EMAIL");
    let password = stack.compose.variable("pocketbase", "ADMIN_PASSWORD");
    let admin = stack.sign_in("_superusers", &email, &password).await;
    // As the guide has it for a server that strangers can reach.
    let closed = json!({ "createRule": null });
    let (status, answer) = stack.accounts(Method::PATCH, "users", &admin.token, closed).await;
    assert_eq!(status, 200, "{answer}");
    let partner = json!({ "email": "ben@example.com", "password": "ben-secret-1", "passwordConfirm": "ben-secret-1" });
    let (status, _) = stack.accounts(Method::POST, "users/records", "", partner.clone()).await;
    assert_eq!(status, 403, "strangers no longer sign up");
    let (status, answer) = stack.accounts(Method::POST, "users/records", &admin.token, partner).await;
    assert_eq!(status, 200, "{answer}");
    let ben = stack.sign_in("users", "ben@example.com", "ben-secret-1").await;
    let bens = stack.device(&ben, "ben").await;
    assert_eq!((count(&bens, "habits").await, count(&bens, "completions").await), (0, 0));
    let stolen = "INSERT INTO completions (id, habit_id, completed_on) VALUES ('three', 'read', '2026-11-28')";
    bens.execute(stolen, []).await.expect("locally");
    eventually(1, async || bens.rejected_writes().await.expect("readable").len()).await;
    timeout(PATIENCE, bens.wait_until_synced()).await.expect("the row is taken back");
    assert_eq!((count(&bens, "completions").await, count(&phone, "completions").await), (0, 2));

    // Only volumes are written to: what an administrator changed is noted there as well.
    let data = stack.folder.path().join("pb_data");
    assert!(data.join("migrations").read_dir().expect("it is there").next().is_some());
    let beside = stack.folder.path().read_dir().expect("readable").filter_map(Result::ok);
    let folders = beside.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name());
    let mut folders: Vec<_> = folders.collect();
    folders.sort();
    assert_eq!(folders, ["caddy-data", "pb_data", "store"]);

    // Operators are on the machine itself.
    for path in ["metrics", "status", "admin", "admin/", "api/admin/v1/diagnostics"] {
        let answer = stack.http.get(format!("{site}/sync-api/{path}")).send().await.expect("answers");
        assert_eq!(answer.status().as_u16(), 404, "{path}");
    }
}
