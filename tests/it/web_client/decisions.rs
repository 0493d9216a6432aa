//! Writes that were not taken, and how their user ends them.

use std::collections::BTreeSet;

use kairos_tests::{
    official::texts,
    service::{TestService, eventually},
    web_client::WebClient,
};
use serde_json::{Value, json};

const SCHEMA: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, title text, size int8, pinned boolean);
    CREATE TABLE wares (id text PRIMARY KEY, price numeric(8, 2), version int NOT NULL DEFAULT 1);
    SELECT kairos.publish_table(name::regclass, 'INSERT, UPDATE, DELETE') FROM unnest('{notes,wares}'::text[]) name;
    INSERT INTO notes SELECT id, 'first', 9007199254740993, true FROM unnest('{keep,yield,join,gone}'::text[]) id;
    INSERT INTO wares VALUES ('ware', 1.50);
";

const RULES: &str = "
bucket_definitions:
  all: {data: [SELECT * FROM notes, SELECT * FROM wares]}
write_rules:
  notes: {allow: [put, patch, delete], check: true, conflict: manual}
  wares: {allow: [patch], check: true, conflict: {strategy: version, column: version}}
";

const IN_SOURCE: &str = "SELECT id || ' ' || title || ' ' || size FROM notes UNION ALL
    SELECT id || ' ' || price || ' ' || version FROM wares";
const ON_DEVICE: &str = "SELECT id || ' ' || title || ' ' || size AS line FROM notes UNION ALL
    SELECT id || ' ' || price || ' ' || version FROM wares";

fn tables() -> Value {
    json!({
        "notes": {"columns": {"title": "text", "size": "integer", "pinned": "integer"}, "trackPrevious": true},
        "wares": {"columns": {"price": "text", "version": "integer"}, "trackPrevious": true},
    })
}

async fn resolve(tab: &WebClient, row: &str, choice: &str, merged: Value) -> Value {
    let writes = tab.rejected().await;
    let write = writes.iter().find(|write| write["rowId"] == row).unwrap_or_else(|| panic!("{row} in {writes:?}"));
    let mut command = json!({"do": "resolve", "write": write["id"], "choice": choice});
    if !merged.is_null() {
        command["merged"] = merged;
    }
    tab.call(command).await
}

#[tokio::test]
async fn a_conflict_ends_with_mine_theirs_or_both() {
    let service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let tab = WebClient::open(service.folder.path(), &tables()).await;
    tab.connect(service.process.endpoint(), &[&service.token("ann")]).await;
    tab.reaches("synced").await;

    // The whole row goes up as it was: the version is none of the columns written.
    tab.execute("UPDATE wares SET price = '2.75' WHERE id = 'ware'").await;
    let wares = async || texts(&service.sql, "SELECT price || ' ' || version FROM wares", &[]).await;
    eventually(["2.75 2".to_owned()].into(), wares).await;

    tab.call(json!({"do": "disconnect"})).await;
    service.run("UPDATE notes SET title = 'theirs'; DELETE FROM notes WHERE id = 'gone'").await;
    tab.execute("UPDATE notes SET title = 'mine'").await;
    tab.call(json!({"do": "connect"})).await;
    eventually(4, async || tab.rejected().await.len()).await;
    tab.reaches("synced").await;
    tab.converges(&service, IN_SOURCE, &[], ON_DEVICE).await;
    let writes = tab.rejected().await;
    let kept = writes.iter().find(|write| write["rowId"] == "keep").expect("it was not taken");
    let sides = ["outcome", "code"].map(|field| kept[field].clone());
    assert_eq!(sides, ["conflict", "WRITE_CONFLICT"].map(|text| json!(text)), "{kept}");
    assert_eq!((&kept["data"], &kept["theirs"]["title"]), (&json!({"title": "mine"}), &json!("theirs")), "{kept}");
    assert_eq!(kept["base"]["title"], "first", "{kept}");

    assert_eq!(resolve(&tab, "keep", "mine", json!(null)).await, json!(true));
    assert_eq!(resolve(&tab, "yield", "theirs", json!(null)).await, json!(true));
    assert_eq!(resolve(&tab, "join", "merged", json!({"title": "both", "pinned": false})).await, json!(true));
    assert_eq!(resolve(&tab, "gone", "mine", json!(null)).await, json!(true));
    assert_eq!(tab.call(json!({"do": "resolve", "write": kept["id"], "choice": "mine"})).await, json!(false));
    let decided: BTreeSet<String> =
        ["gone mine 9007199254740993", "join both 9007199254740993", "keep mine 9007199254740993"]
            .into_iter()
            .chain(["yield theirs 9007199254740993"])
            .map(str::to_owned)
            .collect();
    eventually(decided, async || texts(&service.sql, "SELECT id || ' ' || title || ' ' || size FROM notes", &[]).await)
        .await;
    tab.reaches("synced").await;
    tab.converges(&service, IN_SOURCE, &[], ON_DEVICE).await;
    assert_eq!((tab.rejected().await.len(), tab.status("rejected").await), (0, json!(0)));
    tab.call(json!({"do": "close"})).await;
}
