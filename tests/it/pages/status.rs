//! The status page: what an operator reads there, in each state of the service, compared with SQL and with what happened.

use std::{fs, time::Duration};

use kairos_tests::{
    browser::Tab,
    service::{ADMIN_TOKEN, TestService, eventually},
};
use rand::{SeedableRng, rngs::StdRng};
use reqwest::{Client, Response};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    faults::damage,
    sdk::basics::{RULES, SCHEMA},
    status::{NOTES_ONLY, RULES as ITEMS_TOO, Site},
};

const SIZES: [(&str, u32, u32); 2] = [("phone", 390, 844), ("desktop", 1440, 900)];

async fn sign_in(tab: &Tab, url: &str) {
    tab.go(url).await;
    tab.fill("Token", ADMIN_TOKEN).await;
    tab.press("Show the status").await;
    tab.shows("h2", "Replication").await;
}

/// A device with an open stream.
async fn device(service: &TestService, user_id: &str) -> Response {
    let request = Client::new().post(format!("{}/sync/stream", service.process.endpoint()));
    let request = request.bearer_auth(service.token(user_id)).json(&json!({"client_id": "phone", "raw_data": true}));
    request.send().await.expect("an answer")
}

async fn number(service: &TestService, sql: &str) -> i64 {
    service.sql.query_one(sql, &[]).await.expect("answers").get(0)
}

#[tokio::test]
async fn an_operator_signs_in_and_reads_how_the_service_is() {
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.reconfigure("base_path: /sync-api\n").await;
    service.wait_until_ready().await;
    let endpoint = service.process.endpoint().to_owned();
    let tab = Tab::open(service.folder.path()).await;
    tab.go(&format!("{endpoint}/sync-api/admin")).await;
    tab.shows("#sign-in", "Operators only").await;
    tab.is_accessible().await;
    tab.picture("sign-in", &SIZES).await;
    tab.has_no_errors().await;

    tab.fill("Token", "a-guess").await;
    tab.press("Show the status").await;
    tab.shows("[role=alert]", "does not accept this token (PSYNC_S2101)").await;
    tab.shows("[role=alert]", "api: { tokens: [ … ] }").await;
    tab.is_accessible().await;
    // The browser itself notes that something was answered with 401.
    tab.forget_errors().await;

    sign_in(&tab, &format!("{endpoint}/sync-api/admin/")).await;
    tab.shows("#state", "Streaming, ready").await;
    tab.shows("#events", "None since the service was started.").await;
    tab.shows("#connections", "0 of at most").await;
    let (lists, todos) =
        (number(&service, "SELECT count(*) FROM lists").await, number(&service, "SELECT count(*) FROM todos").await);
    tab.shows("#store", "2,020").await;
    assert_eq!(lists + todos, 2020);
    tab.shows("#definitions tr", "todos").await;
    let definitions = tab.texts("#definitions tbody tr").await;
    let of_todos = definitions.iter().find(|row| row.starts_with("todos")).expect("its definition");
    assert_eq!(of_todos.split_whitespace().take(3).collect::<Vec<_>>(), ["todos", "20", "2,000"], "{definitions:?}");

    let _ann = (device(&service, "ann").await, device(&service, "ann").await);
    let _bob = device(&service, "bob").await;
    tab.shows("#connections", "3 of at most 10,000").await;
    assert_eq!(tab.texts("#connections dd").await[1], "2", "users");
    tab.click("#devices-shown summary").await;
    tab.shows("#devices", "bob").await;
    assert_eq!(tab.texts("#devices tbody tr").await.len(), 3);
    tab.is_accessible().await;
    tab.picture("streaming", &SIZES).await;

    // The token is kept in this tab, and in no other.
    tab.call(json!({"do": "reload"})).await;
    tab.shows("#connections", "3 of at most").await;
    let other = tab.open_beside("other").await;
    other.go(&format!("{endpoint}/admin/")).await;
    other.shows("#sign-in", "Operators only").await;
    tab.press("Forget token").await;
    tab.shows("#sign-in", "Operators only").await;
    assert_eq!(tab.evaluate("sessionStorage.length").await, json!(0));
    tab.has_no_errors().await;
    tab.end().await;
}

/// A number does not change for longer than the page lets pass between two questions.
async fn stands_still(number: impl AsyncFn() -> Option<u64>) {
    let before = number().await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(number().await, before);
}

#[tokio::test]
async fn the_page_loads_only_its_own_files_and_asks_nobody_while_it_is_not_seen() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let page = format!("{}/admin/", service.process.endpoint());
    let answer = reqwest::get(&page).await.expect("an answer");
    let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(reqwest::get(format!("{page}secrets")).await.expect("an answer").status(), 404);

    let tab = Tab::open(service.folder.path()).await;
    // The link in the demo has the token, which is taken out of the address.
    tab.go(&format!("{page}#token={ADMIN_TOKEN}")).await;
    tab.shows("#state", "Streaming, ready").await;
    assert_eq!(tab.evaluate("location.href").await, json!(page));
    let loaded =
        tab.evaluate("performance.getEntriesByType('resource').map((each) => new URL(each.name).origin)").await;
    let foreign = loaded.as_array().expect("a list").iter().find(|origin| **origin != service.process.endpoint());
    assert_eq!(foreign, None);

    let count = "const fetched = window.fetch; window.asked = 0; window.fetch = (address, ...rest) => { \
                 if (address.endsWith('/overview')) window.asked += 1; return fetched(address, ...rest); }; 0";
    tab.evaluate(count).await;
    let asked = async || tab.evaluate("window.asked").await.as_u64();
    eventually(true, async || asked().await > Some(0)).await;
    tab.press("Pause").await;
    stands_still(asked).await;
    tab.press("Go on").await;
    let before = asked().await;
    eventually(true, async || asked().await > before).await;
    let hide = "Object.defineProperty(document, 'hidden', { value: true, configurable: true }); \
                document.dispatchEvent(new Event('visibilitychange'))";
    tab.evaluate(hide).await;
    stands_still(asked).await;
    let before = asked().await;
    tab.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))").await;
    eventually(true, async || asked().await > before).await;
    tab.has_no_errors().await;
    tab.end().await;
}

#[tokio::test]
async fn a_user_is_looked_up_with_reasons() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tab = Tab::open(service.folder.path()).await;
    sign_in(&tab, &format!("{}/admin/", service.process.endpoint())).await;
    tab.fill("User", "ann").await;
    tab.press("Explain").await;
    let buckets = 1 + number(&service, "SELECT count(*) FROM lists WHERE owner = 'ann'").await;
    tab.shows("#explanation .summary", &format!("ann has {buckets} buckets")).await;
    assert_eq!(tab.texts("#explanation tbody tr").await.len(), usize::try_from(buckets).expect("few"));
    tab.shows("#explanation", "value 1 of step 1").await;
    tab.is_accessible().await;

    // A row of bob's is not ann's, and the page says which condition is in the way.
    tab.call(json!({"do": "fill", "selector": "#table", "value": "lists"})).await;
    tab.call(json!({"do": "fill", "selector": "#key", "value": "list-1"})).await;
    tab.press("Explain").await;
    tab.shows("#explanation", "Row list-1 of public.lists").await;
    let (_, told) =
        service.ask("/api/admin/v1/explain", &json!({"user_id": "ann", "table": "lists", "id": "list-1"})).await;
    tab.shows("#explanation .summary", told["data"]["summary"].as_str().expect("a sentence")).await;
    tab.shows("#explanation", "owner is 'bob'").await;
    tab.is_accessible().await;
    tab.picture("explained", &SIZES).await;
    tab.call(json!({"do": "fill", "selector": "#key", "value": ""})).await;
    tab.press("Explain").await;
    tab.shows("#explanation", "A row has a table and an id").await;

    tab.click("text=What would other rules do?").await;
    tab.fill("Rules in YAML", "bucket_definitions: {mine: {data: [SELECT id FROM lists]}}").await;
    tab.press("Plan").await;
    tab.shows("#planned", "These rules are built beside those in force").await;
    let (_, plan) = service
        .ask(
            "/api/admin/v1/rules/plan",
            &json!({"content": "bucket_definitions: {mine: {data: [SELECT id FROM lists]}}"}),
        )
        .await;
    assert_eq!(plan["data"]["forgotten"], json!(["public.todos"]));
    tab.shows("#planned", "public.todos").await;
    tab.has_no_errors().await;
    tab.fill("Rules in YAML", "bucket_definitions: {mine: {data: [SELECT FROM]}}").await;
    tab.press("Plan").await;
    tab.shows("#planned", "The rules cannot be deployed (PSYNC_R0001)").await;
    tab.is_accessible().await;
    tab.end().await;
}

/// So that a copy goes on for longer than anybody looks at it.
const BYTES_PER_SECOND: u32 = 50_000;

fn deploy(site: &Site, rules: &str) {
    fs::write(site.folder.path().join("rules.yaml"), rules).expect("writes the rules");
}

#[tokio::test]
async fn rules_being_built_are_shown_with_their_copies_until_they_are_served_or_given_up() {
    let site = Site::open_with(NOTES_ONLY, BYTES_PER_SECOND).await;
    let service = site.serve_into("log");
    site.answer(|answer| answer["replication"]["phase"] == "streaming" && answer["ready"] == true).await;
    let tab = Tab::open(site.folder.path()).await;
    sign_in(&tab, &format!("{}/admin/", site.url)).await;
    tab.shows("#state", "Streaming, ready").await;
    tab.shows("#rules", "0, which clients are served by").await;
    tab.picture("fresh", &SIZES).await;

    deploy(&site, ITEMS_TOO);
    tab.shows("#copies", "public.items").await;
    tab.shows("#rebuild", "Deployment 1 is being built").await;
    tab.shows("#problems", "Other rules are being built").await;
    let bar = tab.evaluate("document.querySelector('#copies progress').value").await;
    assert!(bar.as_f64().is_some_and(|percent| (0.0..100.0).contains(&percent)), "{bar}");
    tab.is_accessible().await;
    tab.picture("building", &SIZES).await;

    deploy(&site, "bucket_definitions: {everything: {data: [SELECT name FROM notes]}}");
    tab.shows("#problems", "were refused with CONF-0201; the old ones stay").await;
    tab.shows("#problems", "id_column_missing").await;
    deploy(&site, "bucket_definitions: {everything: {data: ['SELECT id, id AS name FROM notes']}}");
    tab.shows("#rules", "2, which clients are served by").await;
    tab.hides("#problems", "Other rules are being built").await;
    tab.hides("#copies", "public.items").await;
    tab.has_no_errors().await;
    tab.end().await;
    drop(service);
}

#[tokio::test]
async fn a_first_copy_is_shown_and_why_clients_wait() {
    let site = Site::open_with(ITEMS_TOO, BYTES_PER_SECOND).await;
    let service = site.serve_into("log");
    let tab = Tab::open(site.folder.path()).await;
    sign_in(&tab, &format!("{}/admin/", site.url)).await;
    tab.shows("#state", "Copying tables, not ready").await;
    tab.shows("#problems", "Clients cannot sync").await;
    tab.shows("#copies", "2 tables to copy").await;
    tab.shows("#copies", "public.notes").await;
    tab.is_accessible().await;
    tab.picture("copying", &SIZES).await;
    tab.end().await;
    drop(service);
}

#[tokio::test]
async fn damaged_buckets_are_shown_until_they_are_whole() {
    let mut service = TestService::start_alone(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    service.process.terminate().await.expect("it ends");
    // While it is away nothing is built again.
    service.cluster.stop("fast").expect("it stops");
    damage(&service, "%todos%", 1, &mut StdRng::seed_from_u64(7));
    service.process.restart().await.expect("it starts");
    let tab = Tab::open(service.folder.path()).await;
    sign_in(&tab, &format!("{}/admin/", service.process.endpoint())).await;
    tab.shows("#problems", "todos: 1, of which 0 are being built again").await;
    tab.is_accessible().await;
    tab.picture("damaged", &SIZES).await;
    service.cluster.start_server().expect("it starts");
    tab.hides("#problems", "being built again").await;
    tab.shows("#state", "Streaming, ready").await;
    tab.end().await;
}

#[tokio::test]
async fn a_source_that_is_gone_is_told_with_its_code_and_forgotten_when_it_is_back() {
    let mut service = TestService::start_alone(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tab = Tab::open(service.folder.path()).await;
    sign_in(&tab, &format!("{}/admin/", service.process.endpoint())).await;
    tab.shows("#state", "Streaming, ready").await;
    service.cluster.stop("immediate").expect("it stops");
    tab.shows("#problems", "Replication failed with PG-").await;
    tab.shows("#state", "Connecting to the source").await;
    tab.shows("#events td", "PG-").await;
    tab.is_accessible().await;
    tab.picture("source-gone", &SIZES).await;
    service.cluster.start_server().expect("it starts");
    tab.shows("#state", "Streaming, ready").await;
    tab.hides("#problems", "Replication failed").await;
    tab.shows("#events td", "PG-").await;

    service.process.terminate().await.expect("it ends");
    tab.shows("#state", "The service does not answer").await;
    tab.picture("service-gone", &SIZES).await;
    service.process.restart().await.expect("it starts again");
    tab.shows("#state", "Streaming, ready").await;
    tab.end().await;
}
