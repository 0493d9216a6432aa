//! Endpoints for administration on a real source, as an operator and tools for the reference service use them.

use kairos_tests::service::{ADMIN_TOKEN, PATIENCE, TestService, eventually, service_binary};
use serde_json::{Value, json};

const SCHEMA: &str = "
    CREATE TABLE members (team_id text, user_id text, PRIMARY KEY (team_id, user_id));
    CREATE TABLE cards (id int8 PRIMARY KEY, team_id text, weight float8, cover bytea, price numeric, tags text[]);
    CREATE TABLE apart (id text PRIMARY KEY);
    SELECT kairos.publish_table('members'), kairos.publish_table('cards');
    INSERT INTO members VALUES ('t1', 'ann'), ('t2', 'ann'), ('t1', 'bob');
    INSERT INTO cards SELECT n, 't' || n % 3 FROM generate_series(1, 30) n;
";
const RULES: &str = "
bucket_definitions:
  team:
    parameters: SELECT team_id FROM members WHERE user_id = request.user_id()
    data:
      - SELECT * FROM cards WHERE team_id = bucket.team_id
      - SELECT * FROM apart WHERE id = bucket.team_id
";

async fn start() -> TestService {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    service
}

async fn ask(service: &TestService, path: &str, body: Value) -> Value {
    let (status, mut answer) = service.ask(path, &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"].take()
}

async fn get(service: &TestService, path: &str) -> Value {
    let request = reqwest::Client::new().get(format!("{}{path}", service.process.endpoint()));
    let response = request.bearer_auth(ADMIN_TOKEN).timeout(PATIENCE).send().await.expect("an answer");
    response.json::<Value>().await.expect("JSON")["data"].take()
}

/// Rules as YAML text.
async fn validate_yaml(service: &TestService, rules: &str) -> Value {
    let request = reqwest::Client::new().post(format!("{}/api/sync-rules/v1/validate", service.process.endpoint()));
    let request = request.header("content-type", "application/yaml").body(rules.to_owned()).bearer_auth(ADMIN_TOKEN);
    request.timeout(PATIENCE).send().await.expect("an answer").json().await.expect("JSON")
}

#[tokio::test]
async fn diagnostics_show_source_rules_and_slot_as_they_are() {
    let service = start().await;
    let answer = ask(&service, "/api/admin/v1/diagnostics", json!({})).await;
    let [connection] = &answer["connections"].as_array().expect("a list")[..] else { panic!("{answer:#}") };
    assert_eq!((&connection["connected"], &connection["errors"]), (&json!(true), &json!([])));
    let uri = connection["postgres_uri"].as_str().expect("text");
    assert!(uri.starts_with("postgresql://") && !uri.contains('@') && uri.ends_with(&service.database), "{uri}");
    let rules = &answer["active_sync_rules"];
    assert!(rules.get("content").is_none() && answer.get("deploying_sync_rules").is_none(), "{answer:#}");
    let replication = &rules["connections"][0];
    let slot = replication["slot_name"].as_str().expect("a name");
    let row = service.sql.query_one("SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", &[&slot]).await;
    let wal_status: String = row.expect("the slot is there").get(0);
    assert_eq!(replication["wal_status"], json!(wal_status));
    assert_eq!(replication["initial_replication_done"], json!(true));
    let lsn = replication["last_lsn"].as_str().expect("a position");
    assert!(lsn.len() == 17 && lsn.starts_with("00000000/"), "{lsn}");
    let table = |name: &str| {
        let tables = replication["tables"].as_array().expect("a list");
        tables.iter().find(|table| table["name"] == name).unwrap_or_else(|| panic!("{name}: {replication:#}")).clone()
    };
    let of = |name: &str| {
        let table = table(name);
        let level = table["errors"][0]["level"].clone();
        (table["replication_id"].clone(), table["data_queries"].clone(), table["parameter_queries"].clone(), level)
    };
    assert_eq!(of("cards"), (json!(["id"]), json!(true), json!(false), Value::Null));
    assert_eq!(of("members"), (json!(["team_id", "user_id"]), json!(false), json!(true), Value::Null));
    assert_eq!(of("apart"), (json!([]), json!(true), json!(false), json!("warning")), "it is not published");
    let location = &table("apart")["errors"][0]["location"];
    let place = |name: &str| usize::try_from(location[name].as_u64().expect("a number")).expect("small");
    assert_eq!(&RULES[place("start_offset")..place("end_offset")], "apart");

    let answer = ask(&service, "/api/admin/v1/diagnostics", json!({"sync_rules_content": true})).await;
    assert_eq!(answer["active_sync_rules"]["content"], json!(RULES));
    let current = get(&service, "/api/sync-rules/v1/current").await;
    assert_eq!((&current["current"]["slot_name"], &current["next"]), (&json!(slot), &Value::Null));
}

#[tokio::test]
async fn other_rules_are_judged_and_change_nothing() {
    let service = start().await;
    let other = "bucket_definitions: { all: { data: [SELECT id AS id FROM cards AS notes, SELECT * FROM nowhere] } }";
    let report = ask(&service, "/api/admin/v1/validate", json!({"sync_rules": other})).await;
    let tables = report["connections"][0]["tables"].as_array().expect("a list");
    let names: Vec<_> = tables.iter().map(|table| table["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["cards", "nowhere"]);
    let broken = "bucket_definitions: { all: { data: ['SELECT id, foo(id) AS twice FROM cards'] } }";
    let report = ask(&service, "/api/admin/v1/validate", json!({"sync_rules": broken})).await;
    let errors = report["errors"].as_array().expect("a list").iter().filter(|error| error["level"] == "fatal");
    let errors: Vec<_> = errors.map(|error| error["message"].as_str().expect("text")).collect();
    assert!(errors.iter().any(|error| error.starts_with("[unknown_function]")), "{report:#}");

    let valid = validate_yaml(&service, other).await;
    assert_eq!((&valid["valid"], &valid["data_tables"]), (&json!(true), &json!(["notes", "nowhere"])));
    assert_eq!(valid["bucket_definitions"], json!([{"name": "all"}]));
    let (_, as_json) = service.ask("/api/sync-rules/v1/validate", &json!({"content": other})).await;
    assert_eq!(as_json, valid);
    let invalid = validate_yaml(&service, broken).await;
    assert_eq!(invalid["valid"], json!(false));
    assert!(invalid["errors"].to_string().contains("there is no function foo()"), "{invalid}");
    assert_eq!(get(&service, "/api/sync-rules/v1/current").await["current"]["content"], json!(RULES));
}

#[tokio::test]
async fn the_schema_of_the_source_is_told_with_what_types_are_to_rules() {
    let service = start().await;
    let schema = ask(&service, "/api/admin/v1/schema", json!({})).await;
    assert_eq!((&schema["defaultConnectionTag"], &schema["defaultSchema"]), (&json!("default"), &json!("public")));
    let schemas = schema["connections"][0]["schemas"].as_array().expect("a list");
    let public = schemas.iter().find(|schema| schema["name"] == "public").expect("the schema");
    let cards = public["tables"].as_array().expect("a list").iter().find(|table| table["name"] == "cards");
    let columns = cards.expect("the table")["columns"].as_array().expect("a list").iter();
    let columns: Vec<_> = columns
        .map(|column| {
            (
                column["name"].as_str().expect("a name"),
                column["sqlite_type"].as_u64().expect("a number"),
                column["pg_type"].as_str().expect("a type"),
            )
        })
        .collect();
    let expected = [
        ("id", 4, "bigint"),
        ("team_id", 2, "text"),
        ("weight", 8, "double precision"),
        ("cover", 1, "bytea"),
        ("price", 2, "numeric"),
        ("tags", 2, "text[]"),
    ];
    assert_eq!(columns, expected);
}

#[tokio::test]
async fn the_store_is_counted() {
    let service = start().await;
    // 30 cards in the buckets of three teams; 3 members.
    eventually((json!(30), json!(33)), async || {
        let store = get(&service, "/api/admin/v1/store").await;
        (store["operation_count"].clone(), store["row_count"].clone())
    })
    .await;
    let store = get(&service, "/api/admin/v1/store").await;
    assert!(
        store["size_bytes"].as_u64().expect("a number") > 0 && store["checkpoint"]["op_id"] == json!("30"),
        "{store}"
    );
}

#[tokio::test]
async fn without_a_configured_token_nobody_may_and_the_environment_can_give_one() {
    let mut service = start().await;
    let config = std::fs::read_to_string(&service.config).expect("readable");
    let without: String = config.split_inclusive('\n').filter(|line| !line.starts_with("api:")).collect();
    std::fs::write(&service.config, without).expect("writable");
    service.reconfigure("").await;
    let path = "/api/admin/v1/diagnostics";
    let (status, answer) = service.ask(path, &json!({})).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!("PSYNC_S2101")));
    service.process.terminate().await.expect("it ends");
    service.process.restart_with(&[("KAIROS_ADMIN_TOKEN", ADMIN_TOKEN)]).expect("it starts");
    service.wait_until_ready().await;
    assert_eq!(service.ask(path, &json!({})).await.0, 200);
}

/// A file of the service's folder, with another text.
fn write(service: &TestService, name: &str, text: &str) -> std::path::PathBuf {
    let file = service.folder.path().join(name);
    std::fs::write(&file, text).expect("writes");
    file
}

async fn deployment(service: &TestService) -> Value {
    let text = service.process.get("/status").await.expect("answers");
    serde_json::from_str::<Value>(&text).expect("JSON")["rules"].clone()
}

/// Runs a command of rules on the running service. Its exit code, and what it prints.
async fn rules_command(service: &TestService, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(service_binary());
    command.arg("rules").args(arguments).args(["--url", service.process.endpoint(), "--token", ADMIN_TOKEN]);
    let output = command.output().await.expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

#[tokio::test]
async fn what_a_deployment_would_do_is_asked_and_a_file_is_not_overruled() {
    let service = start().await;
    let other = RULES.replace("SELECT * FROM cards", "SELECT id, weight FROM cards");
    let plan = ask(&service, "/api/admin/v1/rules/plan", json!({"content": other})).await;
    assert_eq!((&plan["built"], &plan["unchanged"]), (&json!(["team"]), &json!([])));
    assert_eq!(plan["evaluated"], json!(["public.apart", "public.cards"]));
    let (status, answer) = service.ask("/api/sync-rules/v1/deploy", &json!({"content": other})).await;
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("PSYNC_S4105")), "{answer}");

    let file = write(&service, "other.yaml", &other);
    let (code, text) = rules_command(&service, &["plan", file.to_str().expect("text")]).await;
    assert_eq!((code, text.contains("clients download them: team")), (Some(0), true), "{text}");
    let (code, text) = rules_command(&service, &["deploy", file.to_str().expect("text")]).await;
    assert_eq!((code, text.contains("PSYNC_S4105")), (Some(1), true), "{text}");

    // Everything anew, beside what is served.
    let (code, text) = rules_command(&service, &["rebuild"]).await;
    assert_eq!((code, text.contains("built anew")), (Some(0), true), "{text}");
    eventually(json!(1), async || deployment(&service).await["deployment"].clone()).await;
    let definitions = get(&service, "/api/admin/v1/store/definitions").await;
    let names: Vec<_> = definitions.as_array().expect("a list").iter().map(|each| &each["definition"]).collect();
    assert!(names.contains(&&json!("1#team")), "{definitions:#}");
    let compacted = ask(&service, "/api/admin/v1/store/compact", json!({})).await;
    assert_eq!(compacted["done"], json!(true));
    let (status, answer) = service.ask("/api/admin/v1/reprocess", &json!({"all": true})).await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test]
async fn rules_deployed_over_http_are_kept_by_the_store() {
    let mut service = start().await;
    // The same service, told to take its rules over HTTP.
    let data_dir = service.data_dir.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let config = service.folder.path().join(data_dir.replace("-data", ".yaml"));
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let by_api: Vec<_> = text
        .lines()
        .map(|line| {
            if line.trim_start().starts_with("path:") && line.contains("rules.yaml") { "  by_api: true" } else { line }
        })
        .collect();
    std::fs::write(&config, by_api.join("\n")).expect("writes");
    service.process.kill().expect("it runs");
    service.process.restart().await.expect("it starts");
    service.wait_until_ready().await;
    let current = get(&service, "/api/sync-rules/v1/current").await;
    assert_eq!(current["current"]["content"], json!(RULES), "what was deployed before stays");

    let other = RULES.replace("SELECT * FROM cards", "SELECT id, weight FROM cards");
    let (status, answer) = service.ask("/api/sync-rules/v1/deploy", &json!({"content": "bucket_definitions: 1"})).await;
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("PSYNC_R0001")), "{answer}");
    assert!(answer["error"]["details"].as_str().is_some_and(|details| details.contains("rules:1:")), "{answer}");
    let file = write(&service, "other.yaml", &other);
    let (code, text) = rules_command(&service, &["deploy", file.to_str().expect("text")]).await;
    assert_eq!(code, Some(0), "{text}");
    eventually(json!(1), async || deployment(&service).await["deployment"].clone()).await;
    service.process.kill().expect("it runs");
    service.process.restart().await.expect("it starts");
    service.wait_until_ready().await;
    assert_eq!(get(&service, "/api/sync-rules/v1/current").await["current"]["content"], json!(other));
    assert_eq!(deployment(&service).await["deployment"], json!(1));
}
