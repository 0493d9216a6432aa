//! The mirror: a household's habits in a browser, compared with SQL on Postgres.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use kairos_sync::{
    demo::{
        KAIROS_RULES,
        household::{self, Household},
    },
    migrate::Migrations,
};
use kairos_tests::{
    browser::Tab,
    driver::node,
    official::texts,
    service::{TestService, eventually},
};
use serde_json::{Value, json};

use crate::{
    auth::pocketbase::{PocketBase, password, take_tokens_of},
    status::{NOTES_ONLY, Site},
    tidy::root,
};

const SIZES: [(&str, u32, u32); 4] =
    [("small", 320, 640), ("phone", 390, 844), ("1080p", 1920, 1080), ("4k", 3840, 2160)];

async fn household() -> TestService {
    household_with(KAIROS_RULES).await
}

pub(super) async fn household_with(rules: &str) -> TestService {
    let household = Household { users: ["anna", "ben"].map(str::to_owned).to_vec(), habits: 24, completions: 3000 };
    let service = TestService::prepare(Migrations::ServiceAndSample, rules, async |sql| {
        household::seed(sql, &household).await.expect("seeds");
    });
    let service = service.await;
    service.wait_until_ready().await;
    service
}

pub(super) fn page(service: &TestService) -> String {
    format!("{}/mirror/", service.process.endpoint())
}

/// The mirror with this user's token in its link.
async fn signed_in(service: &TestService, tab: &Tab, user_id: &str) {
    tab.go(&format!("{}#token={}", page(service), service.token(user_id))).await;
    tab.shows("#indicator", "Synced").await;
}

/// Names of habits that a user has to do today, as SQL says.
async fn due_today(service: &TestService, user_id: &str) -> BTreeSet<String> {
    let sql = "SELECT name FROM habits WHERE user_id = $1 AND NOT archived AND (schedule -> 'weekdays' IS NULL
               OR schedule -> 'weekdays' @> to_jsonb(extract(isodow FROM current_date)::int))";
    texts(&service.sql, sql, &[&user_id]).await
}

pub(super) async fn names(tab: &Tab, selector: &str) -> BTreeSet<String> {
    tab.texts(selector).await.into_iter().collect()
}

async fn shows_what_is_due(service: &TestService, tab: &Tab, user_id: &str) {
    eventually(due_today(service, user_id).await, async || names(tab, ".habit .name").await).await;
}

#[tokio::test]
async fn a_mirror_is_set_up_and_shows_the_habits_of_who_signs_in() {
    let service = household().await;
    let tab = Tab::open(service.folder.path()).await;
    tab.go(&page(&service)).await;
    tab.shows("h1", "Connect to Server").await;
    tab.is_accessible().await;
    tab.picture("mirror-server", &SIZES[..2]).await;
    tab.press("Test Connection").await;
    tab.shows("#server-result", "✓ Server reachable").await;
    tab.press("Continue to Login").await;
    tab.shows("h1", "Sign In").await;
    tab.is_accessible().await;
    tab.picture("mirror-sign-in", &SIZES[..2]).await;
    tab.click("#screen-sign-in summary").await;
    tab.fill("Token", "no token").await;
    tab.press("Use this token").await;
    tab.shows("#sign-in-problem", "names nobody").await;
    tab.fill("Token", &service.token("anna")).await;
    tab.press("Use this token").await;
    tab.shows("#indicator", "Synced").await;
    shows_what_is_due(&service, &tab, "anna").await;
    tab.is_accessible().await;
    tab.picture("mirror", &SIZES).await;

    tab.click("#indicator").await;
    tab.shows("h1", "Sync & Account").await;
    tab.shows("#settings-account", "anna").await;
    tab.shows("#last-sync", "just now").await;
    let report = tab.call(json!({"do": "download", "button": "Save a Report"})).await;
    let report: Value = serde_json::from_str(report.as_str().expect("a text")).expect("JSON");
    assert_eq!((&report["state"], &report["storage"]), (&json!("synced"), &json!("opfs")));
    assert!(!report.to_string().contains("anna"), "{report}");
    tab.is_accessible().await;
    tab.picture("mirror-settings", &SIZES[..2]).await;
    tab.has_no_errors().await;
    tab.end().await;
}

async fn number(service: &TestService, sql: &str) -> i64 {
    service.sql.query_one(sql, &[]).await.expect("answers").get(0)
}

const ANNAS: &str = "SELECT count(*) FROM completions c JOIN habits h ON h.id = c.habit_id
                     WHERE h.user_id = 'anna' AND completed_on = current_date";

/// The buttons of habits that are done once, on whatever day of the week the test runs: each third one is for some days only.
const HABIT: &str = "[data-habit=anna-habit-001]";
const ANOTHER: &str = "[data-habit=anna-habit-003]";
const BENS: &str = "[data-habit=ben-habit-015]";

#[tokio::test]
async fn a_touch_completes_a_habit_and_changes_in_postgres_are_shown() {
    let service = household().await;
    service
        .run(
            "INSERT INTO completions (id, habit_id, completed_on)
              SELECT 'streak-' || n, 'anna-habit-001', current_date - n FROM generate_series(1, 3) n
              ON CONFLICT DO NOTHING;
              DELETE FROM completions WHERE habit_id = 'anna-habit-001' AND completed_on = current_date - 4",
        )
        .await;
    let tab = Tab::open(service.folder.path()).await;
    signed_in(&service, &tab, "anna").await;
    assert_eq!(tab.evaluate("location.hash").await, json!(""), "the token is taken out of the address");
    tab.shows(&format!("{HABIT} .streak"), "3 days").await;
    tab.click(HABIT).await;
    tab.shows(".member .count", "1 of").await;
    tab.shows(&format!("{HABIT} .streak"), "4 days").await;
    eventually(1, async || number(&service, ANNAS).await).await;
    tab.shows("#indicator", "Synced").await;

    // A target of several times a day is counted up to.
    let counted = "[data-habit=anna-habit-000]";
    tab.click(counted).await;
    tab.shows(counted, "1/8").await;
    tab.click(counted).await;
    tab.shows(counted, "2/8").await;
    assert_eq!(tab.evaluate(&format!("document.querySelector('{counted}').ariaPressed")).await, json!("false"));
    eventually(3, async || number(&service, ANNAS).await).await;
    tab.click(HABIT).await;
    eventually(2, async || number(&service, ANNAS).await).await;
    tab.shows(".member .count", "0 of").await;

    service.run("UPDATE habits SET name = 'Read twenty pages' WHERE id = 'anna-habit-001'").await;
    let committed = Instant::now();
    tab.shows(HABIT, "Read twenty pages").await;
    println!("a change in Postgres is on the screen after {} ms", committed.elapsed().as_millis());
    service.run("UPDATE habits SET user_id = 'ben' WHERE id = 'anna-habit-001'").await;
    tab.hides("#members", "Read twenty pages").await;
    shows_what_is_due(&service, &tab, "anna").await;

    // With the keyboard alone.
    tab.evaluate(&format!("document.querySelector('{ANOTHER}').focus()")).await;
    tab.call(json!({"do": "press", "key": "Enter"})).await;
    eventually(3, async || number(&service, ANNAS).await).await;
    let focused = async || tab.evaluate("document.activeElement.dataset.habit").await;
    eventually(json!("anna-habit-003"), focused).await;
    tab.is_accessible().await;
    tab.has_no_errors().await;
    tab.picture("mirror-done", &SIZES[1..3]).await;
    tab.end().await;
}

#[tokio::test]
async fn without_the_server_it_opens_takes_writes_and_sends_each_of_them_once_when_it_is_back() {
    let mut service = household().await;
    let tab = Tab::open(service.folder.path()).await;
    signed_in(&service, &tab, "anna").await;
    eventually(json!(true), async || tab.evaluate("navigator.serviceWorker.controller !== null").await).await;
    service.process.terminate().await.expect("it ends");
    tab.shows("#indicator", "Offline").await;
    tab.shows("#status-message", "Can't reach server. Working offline.").await;
    tab.click(HABIT).await;
    tab.shows("#indicator", "1 pending").await;
    tab.picture("mirror-offline", &SIZES[1..3]).await;

    tab.call(json!({"do": "reload"})).await;
    tab.shows(".member .count", "1 of").await;
    tab.shows("#indicator", "1 pending").await;
    let due = due_today(&service, "anna").await;
    assert_eq!(names(&tab, ".habit .name").await, due);
    tab.click(ANOTHER).await;
    tab.shows("#indicator", "2 pending").await;
    tab.is_accessible().await;

    assert_eq!(number(&service, ANNAS).await, 0);
    service.process.restart().await.expect("it starts again");
    tab.click("#indicator").await;
    tab.press("Sync Now").await;
    tab.shows("#screen-settings [data-status]", "Synced").await;
    assert_eq!(number(&service, ANNAS).await, 2);
    let habits = texts(&service.sql, "SELECT habit_id FROM completions WHERE completed_on = current_date", &[]).await;
    assert_eq!(habits, ["anna-habit-001", "anna-habit-003"].map(str::to_owned).into());
    tab.end().await;
}

#[tokio::test]
async fn a_wrong_address_is_told_and_not_taken() {
    let service = household().await;
    let tab = Tab::open(service.folder.path()).await;
    tab.go(&page(&service)).await;
    tab.fill("Server URL", &format!("{}/nothing/here", service.process.endpoint())).await;
    tab.press("Test Connection").await;
    tab.shows("#server-result", "Server not found at this address").await;
    tab.press("Continue to Login").await;
    tab.shows("#server-result", "Server not found at this address").await;
    tab.shows("h1", "Connect to Server").await;
    tab.fill("Server URL", "http://127.0.0.1:1").await;
    tab.press("Test Connection").await;
    tab.shows("#server-result", "Can't reach server").await;
    tab.is_accessible().await;
    assert_eq!(tab.evaluate("localStorage.length").await, json!(0));
    tab.fill("Server URL", service.process.endpoint()).await;
    tab.press("Continue to Login").await;
    tab.shows("h1", "Sign In").await;
    tab.fill("PocketBase URL", "http://127.0.0.1:1").await;
    tab.fill("E-mail", "anna@example.com").await;
    tab.fill("Password", "a guess").await;
    tab.press("Sign In").await;
    tab.shows("#sign-in-problem", "PocketBase does not answer").await;
    tab.end().await;
}

#[tokio::test]
async fn an_expired_token_asks_to_sign_in_again_and_nothing_is_lost() {
    let service = household().await;
    let tab = Tab::open(service.folder.path()).await;
    let short = service.mint.mint("anna", Duration::from_secs(8));
    tab.go(&format!("{}#token={short}", page(&service))).await;
    tab.shows("#members", "Anna").await;
    tab.shows("#remedy", "Sign in").await;
    tab.shows("#indicator", "Sync error").await;
    tab.shows("#status-message", "Please sign in again").await;
    tab.click(HABIT).await;
    tab.shows(".member .count", "1 of").await;
    tab.is_accessible().await;
    tab.picture("mirror-expired", &SIZES[1..2]).await;
    assert_eq!(number(&service, ANNAS).await, 0);
    tab.click("#remedy").await;
    tab.click("#screen-sign-in summary").await;
    tab.fill("Token", &service.token("anna")).await;
    tab.press("Use this token").await;
    tab.shows("#indicator", "Synced").await;
    eventually(1, async || number(&service, ANNAS).await).await;
    tab.end().await;
}

#[tokio::test]
async fn who_signs_in_at_pocketbase_gets_new_tokens_without_a_word() {
    let pocketbase = PocketBase::start().await;
    pocketbase.shorten_tokens(Duration::from_secs(10)).await;
    let mut service = household().await;
    take_tokens_of(&mut service, &pocketbase).await;
    let (id, _) = pocketbase.sign_up("carla").await;
    let tab = Tab::open(service.folder.path()).await;
    tab.go(&page(&service)).await;
    tab.press("Continue to Login").await;
    tab.shows("h1", "Sign In").await;
    tab.fill("PocketBase URL", &pocketbase.url()).await;
    tab.fill("E-mail", "carla@example.com").await;
    tab.fill("Password", "a guess").await;
    tab.press("Sign In").await;
    tab.shows("#sign-in-problem", "E-mail or password is wrong.").await;
    tab.fill("Password", &password("carla")).await;
    tab.press("Sign In").await;
    tab.shows("#indicator", "Synced").await;
    tab.shows("#empty", "Make the first one on your phone").await;
    let token = async || tab.evaluate("JSON.parse(localStorage['kairos-mirror']).account.token").await;
    let first = token().await;
    eventually(true, async || token().await != first).await;
    let second = token().await;
    eventually(true, async || token().await != second).await;
    let habit = format!("INSERT INTO habits (id, user_id, name) VALUES ('carlas', '{id}', 'Water the plants')");
    service.run(&habit).await;
    tab.shows("#members", "Water the plants").await;
    tab.shows("#indicator", "Synced").await;
    tab.click("#indicator").await;
    tab.shows("#settings-account", "carla@example.com").await;
    tab.end().await;
}

#[tokio::test]
async fn two_tabs_show_the_same_and_the_one_that_is_left_goes_on() {
    let service = household().await;
    let first = Tab::open(service.folder.path()).await;
    signed_in(&service, &first, "anna").await;
    let second = first.open_beside("second").await;
    second.go(&page(&service)).await;
    second.shows("#indicator", "Synced").await;
    second.click(HABIT).await;
    first.shows(".member .count", "1 of").await;
    eventually(1, async || number(&service, ANNAS).await).await;
    let streams =
        async || service.process.metric("powersync_concurrent_connections").await.expect("metrics are served");
    eventually(1, streams).await;
    first.call(json!({"do": "close_tab"})).await;
    service.run("UPDATE habits SET name = 'From the source' WHERE id = 'anna-habit-003'").await;
    second.shows("#members", "From the source").await;
    second.click(ANOTHER).await;
    eventually(2, async || number(&service, ANNAS).await).await;
    second.has_no_errors().await;
    second.end().await;
}

#[tokio::test]
async fn a_screen_on_a_wall_changes_nothing_and_another_member_sees_only_his_own() {
    let mut service = household().await;
    let tab = Tab::open(service.folder.path()).await;
    tab.go(&format!("{}?readonly#token={}", page(&service), service.token("anna"))).await;
    tab.shows("#indicator", "Synced").await;
    shows_what_is_due(&service, &tab, "anna").await;
    assert_eq!(tab.texts("#members button").await, Vec::<String>::new());
    tab.is_accessible().await;
    tab.click("#members .habit").await;
    tab.go(&page(&service)).await;
    tab.shows("#members button", "Drink water").await;
    tab.click("#indicator").await;
    tab.click("#read-only").await;
    tab.press("Back").await;
    assert_eq!(tab.texts("#members button").await, Vec::<String>::new());
    assert_eq!(number(&service, ANNAS).await, 0);

    // What is not uploaded is not removed without a word.
    tab.click("#indicator").await;
    tab.click("#read-only").await;
    tab.press("Back").await;
    service.process.terminate().await.expect("it ends");
    tab.click(HABIT).await;
    tab.shows("#indicator", "1 pending").await;
    tab.click("#indicator").await;
    tab.press("Sign Out").await;
    tab.shows("#leave", "One change is not uploaded").await;
    tab.is_accessible().await;
    service.process.restart().await.expect("it starts again");
    tab.press("Sign out, remove data").await;
    tab.shows("h1", "Sign In").await;
    assert_eq!(tab.texts("#members *").await, Vec::<String>::new());
    tab.click("#screen-sign-in summary").await;
    tab.fill("Token", &service.token("ben")).await;
    tab.press("Use this token").await;
    tab.shows("#indicator", "Synced").await;
    shows_what_is_due(&service, &tab, "ben").await;
    assert_eq!(names(&tab, ".member h2 span:not(.count)").await, ["Ben".to_owned()].into());
    tab.end().await;
}

/// Files of a folder with what is in them.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
            all.insert(name, fs::read(&path).expect("readable"));
        }
    }
    all
}

#[tokio::test]
async fn a_wall_shows_each_member_of_a_household_whose_rules_say_so() {
    const RULES: &str = "bucket_definitions: {home: {data: [SELECT * FROM habits, SELECT * FROM completions,
        SELECT * FROM routines, SELECT * FROM routine_habits, SELECT * FROM users]}}";
    let service = household_with(RULES).await;
    let tab = Tab::open(service.folder.path()).await;
    tab.go(&format!("{}?readonly#token={}", page(&service), service.token("wall"))).await;
    tab.shows("#indicator", "Synced").await;
    let both: BTreeSet<_> =
        due_today(&service, "anna").await.union(&due_today(&service, "ben").await).cloned().collect();
    eventually(both, async || names(&tab, ".habit .name").await).await;
    assert_eq!(tab.texts(".member h2 span:not(.count)").await, ["Anna", "Ben"]);
    service
        .run("INSERT INTO completions (id, habit_id, completed_on) VALUES ('c', 'ben-habit-013', current_date)")
        .await;
    tab.shows(".member:nth-child(2) .count", "1 of").await;
    tab.is_accessible().await;
    tab.picture("mirror-wall", &SIZES).await;

    // Row-level security holds whatever the page shows.
    tab.go(&page(&service)).await;
    tab.click(BENS).await;
    tab.shows("#refused", "A change was not taken").await;
    tab.picture("mirror-refused", &SIZES).await;
    eventually(json!("false"), async || tab.evaluate(&format!("document.querySelector('{BENS}').ariaPressed")).await)
        .await;
    tab.is_accessible().await;
    tab.press("OK").await;
    tab.hides("#refused", "A change was not taken").await;
    tab.end().await;
}

#[tokio::test]
async fn it_is_served_where_it_is_wanted_and_its_files_are_kept_for_ever() {
    let site = Site::open_with(NOTES_ONLY, 1_000_000).await;
    let without = site.serve_into("log");
    site.answer(|answer| answer["started"] == true).await;
    let answer = reqwest::get(format!("{}/mirror/", site.url)).await.expect("an answer");
    assert_eq!(answer.status(), 404);
    assert!(answer.text().await.expect("text").contains("mirror: true"));
    drop(without);

    let service = household().await;
    let get = async |path: &str| reqwest::get(format!("{}{path}", page(&service))).await.expect("an answer");
    let cache = |answer: &reqwest::Response| answer.headers()["cache-control"].to_str().expect("text").to_owned();
    let html = get("").await;
    assert_eq!(cache(&html), "no-cache");
    let policy = html.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe-inline"), "{policy}");
    let html = html.text().await.expect("text");
    let script = html.split('"').find(|part| part.ends_with("/app.js")).expect("a script");
    let answer = get(script).await;
    assert_eq!(cache(&answer), "public, max-age=31536000, immutable");
    assert_eq!(answer.headers()["content-type"], "text/javascript; charset=utf-8");
    let wasm = get(&script.replace("app.js", "core.wasm")).await;
    assert_eq!(wasm.headers()["content-type"], "application/wasm");
    assert_eq!(get("0123456789abcdef/app.js").await.status(), 404, "another build's");
    assert_eq!(cache(&get("sw.js").await), "no-cache");
}

#[test]
fn what_it_makes_of_rows_is_right() {
    let package = root().join("client-sdk/web");
    let ran = Command::new(node()).args(["--test", "mirror/test/*.test.mjs"]).current_dir(package).output();
    let ran = ran.expect("Node.js starts");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}

#[test]
fn the_build_in_the_service_is_that_of_the_sources() {
    let folder = tempfile::tempdir().expect("a folder");
    let built = folder.path().join("mirror");
    let package = root().join("client-sdk/web");
    let run = |arguments: &[&OsStr]| {
        let ran = Command::new(node()).args(arguments).current_dir(&package).output().expect("Node.js starts");
        let said = [ran.stdout, ran.stderr].concat();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&said));
        println!("{}", String::from_utf8_lossy(&said));
    };
    for project in ["mirror", "mirror/tsconfig.sw.json"] {
        run(&["node_modules/typescript/bin/tsc", "-p", project].map(OsStr::new));
    }
    run(&[OsStr::new("mirror/build.mjs"), built.as_os_str()]);
    let (fresh, committed) = (files(&built), files(&root().join("service/src/api/pages/mirror")));
    let differ = |name: &&String| fresh.get(*name) != committed.get(*name);
    let others: BTreeSet<_> = fresh.keys().chain(committed.keys()).filter(differ).collect();
    assert!(others.is_empty(), "run `node client-sdk/web/mirror/build.mjs` and commit {others:?}");
    let own: usize = ["app.js", "page.css", "worker.js", "sw.js"].iter().map(|name| fresh[*name].len()).sum();
    assert!(own < 120_000, "{own} bytes beside WebAssembly and SQLite");
}
