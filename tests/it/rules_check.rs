//! `rules check` as a user runs it: what it says about a file and a database, its exit code, and that what it says to
//! do mends it.

use std::{fs, path::PathBuf, process::Output};

use kairos_sync::demo::cluster::PgCluster;
use kairos_tests::service::{connect, service_binary};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Duration, timeout},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// A rules file in a folder of its own.
struct Rules {
    folder: TempDir,
}

impl Rules {
    fn new(text: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        fs::write(folder.path().join("rules.yaml"), text).expect("writes the rules");
        Self { folder }
    }

    /// A stream with one query per line.
    fn queries(queries: &[&str]) -> Self {
        let list: Vec<_> = queries.iter().map(|query| format!("      - {query}")).collect();
        Self::new(&format!("config: {{ edition: 3 }}\nstreams:\n  mine:\n    queries:\n{}\n", list.join("\n")))
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rules.yaml")
    }

    async fn check(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(service_binary());
        command.args(["rules", "check"]).arg(self.path()).args(arguments).env_remove("KAIROS_CHECK_DATABASE");
        timeout(PATIENCE, command.output()).await.expect("the check ends").expect("the check runs")
    }

    async fn check_json(&self, uri: &str) -> (Option<i32>, Value) {
        let output = self.check(&["--json", "--database", uri]).await;
        let stdout = String::from_utf8_lossy(&output.stdout);
        (output.status.code(), serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {output:?}")))
    }
}

/// Codes and the text each finding points at, in the order printed.
fn findings<'r>(report: &'r Value, rules: &str) -> Vec<(&'r str, String)> {
    let finding = |finding: &'r Value| {
        let place = |part: &str| usize::try_from(finding["span"][part].as_u64().unwrap_or(0)).expect("small");
        let line = rules.lines().nth(place("line").wrapping_sub(1)).unwrap_or_default();
        let rest: String = line.chars().skip(place("column").saturating_sub(1)).collect();
        let word: String = rest.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
        (finding["code"].as_str().expect("a code"), word)
    };
    report["diagnostics"].as_array().expect("a list").iter().map(finding).collect()
}

const QUERIES: [&str; 7] = [
    "SELECT * FROM nothing WHERE owner = auth.user_id()",
    "SELECT * FROM keyless WHERE owner = auth.user_id()",
    "SELECT * FROM unpublished WHERE owner = auth.user_id()",
    "SELECT * FROM filtered WHERE owner = auth.user_id()",
    "SELECT id, secret FROM listed WHERE owner = auth.user_id()",
    "SELECT * FROM quick WHERE owner = auth.user_id()",
    "SELECT * FROM closed.things WHERE owner = auth.user_id()",
];

/// A source with one fault per table, and some in the publication and the role.
const FAULTS: &str = "
    CREATE TABLE nothing (id text PRIMARY KEY, owner text);
    ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE keyless (id text, owner text);
    CREATE TABLE unpublished (id text PRIMARY KEY, owner text);
    CREATE TABLE filtered (id text PRIMARY KEY, owner text, is_hidden boolean);
    ALTER TABLE filtered REPLICA IDENTITY FULL;
    ALTER TABLE filtered ENABLE ROW LEVEL SECURITY;
    CREATE TABLE listed (id text PRIMARY KEY, owner text, secret text);
    CREATE UNLOGGED TABLE quick (id text PRIMARY KEY, owner text);
    CREATE SCHEMA closed;
    CREATE TABLE closed.things (id text PRIMARY KEY, owner text);
    CREATE ROLE app LOGIN;
    GRANT SELECT ON ALL TABLES IN SCHEMA public, closed TO app;
    CREATE PUBLICATION kairos_sync
       FOR TABLE nothing, keyless, filtered WHERE (NOT is_hidden), listed (id, owner), closed.things
      WITH (publish = 'insert');";

#[tokio::test]
async fn every_fault_is_named_at_its_place_and_the_sql_named_mends_it() {
    let cluster = PgCluster::start(None).expect("a server");
    let admin = connect(&cluster.uri("postgres", "postgres")).await;
    admin.batch_execute(FAULTS).await.expect("prepares");
    let rules = Rules::queries(&QUERIES);
    let uri = cluster.uri("app", "postgres");
    let (exit, report) = rules.check_json(&uri).await;
    assert_eq!((exit, &report["ok"]), (Some(1), &Value::Bool(false)));
    let text = fs::read_to_string(rules.path()).expect("the rules");
    let mut found = findings(&report, &text);
    found.sort();
    let expected = [
        ("PG-0205", ""),
        ("PG-0207", ""),
        ("PG-0208", "unpublished"),
        ("PG-0209", "things"),
        ("PG-0210", "filtered"),
        ("PG-0211", "keyless"),
        ("PG-0211", "nothing"),
        ("column_not_published", "secret"),
        ("rows_not_published", "filtered"),
        ("unlogged_table_not_replicated", "quick"),
    ];
    assert_eq!(found.iter().map(|(code, word)| (*code, word.as_str())).collect::<Vec<_>>(), expected);

    // What no SQL of ours can mend: only who owns the table knows what its key should be.
    let is_for_a_person = |code: &str| code == "PG-0214";
    let mut rounds = 0;
    let mut report = report;
    while findings(&report, &text).iter().any(|(code, _)| !is_for_a_person(code)) {
        rounds += 1;
        assert!(rounds < 5, "{report:#}");
        let found = report["diagnostics"].as_array().expect("a list").iter();
        for finding in found.filter(|finding| !finding["code"].as_str().is_some_and(is_for_a_person)) {
            let help = finding["help"].as_str().expect("a remedy");
            let sql = help.split_once("run `").and_then(|(_, rest)| rest.split_once('`')).expect("the SQL").0;
            admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        let (exit, next) = rules.check_json(&uri).await;
        assert_eq!(exit == Some(0), next["ok"] == Value::Bool(true), "{next:#}");
        report = next;
    }
    assert_eq!(report["ok"], Value::Bool(true));
    assert_eq!(findings(&report, &text), [("PG-0214", "keyless".to_owned())]);
    assert_eq!(report["definitions"], serde_json::json!(["mine"]));
    assert_eq!(report["tables"].as_array().map(Vec::len), Some(QUERIES.len()));
}

#[tokio::test]
async fn what_postgres_cannot_replicate_is_said_though_it_can_be_deployed() {
    let cluster = PgCluster::start(None).expect("a server");
    let uri = cluster.uri("postgres", "postgres");
    let admin = connect(&uri).await;
    let source = "
        CREATE TABLE items (id text PRIMARY KEY, owner text, old text, twice int GENERATED ALWAYS AS (1 + 1) STORED);
        ALTER TABLE items DROP old;
        CREATE VIEW seen AS SELECT * FROM items;
        CREATE MATERIALIZED VIEW kept AS SELECT * FROM items;
        CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far;
        CREATE FOREIGN TABLE borrowed (id text, owner text) SERVER away;
        CREATE TABLE parts (id text PRIMARY KEY, owner text) PARTITION BY LIST (id);
        CREATE TABLE part_a PARTITION OF parts FOR VALUES IN ('a');
        CREATE PUBLICATION kairos_sync FOR TABLE items, parts;";
    admin.batch_execute(source).await.expect("prepares");
    let rules = Rules::queries(&[
        "SELECT id, twice FROM items WHERE owner = auth.user_id() AND old IS NULL",
        "SELECT * FROM seen WHERE owner = auth.user_id()",
        "SELECT * FROM kept WHERE owner = auth.user_id()",
        "SELECT * FROM borrowed WHERE owner = auth.user_id()",
        "SELECT * FROM parts WHERE owner = auth.user_id()",
        "SELECT * FROM item WHERE owner = auth.user_id()",
    ]);
    let text = fs::read_to_string(rules.path()).expect("the rules");
    let (exit, report) = rules.check_json(&uri).await;
    let expected = [
        ("column_not_published", "twice"),
        ("column_not_found", "old"),
        ("view_not_replicated", "seen"),
        ("view_not_replicated", "kept"),
        ("foreign_table_not_replicated", "borrowed"),
        ("partitions_published_apart", "parts"),
        ("table_not_found", "item"),
    ];
    assert_eq!(findings(&report, &text), expected.map(|(code, word)| (code, word.to_owned())));
    assert_eq!(exit, Some(0), "the service would start, and leave them out");

    admin.batch_execute("ALTER PUBLICATION kairos_sync SET (publish_via_partition_root)").await.expect("alters");
    let rules = Rules::queries(&["SELECT * FROM part_a WHERE owner = auth.user_id()"]);
    let (_, report) = rules.check_json(&uri).await;
    let text = fs::read_to_string(rules.path()).expect("the rules");
    assert_eq!(findings(&report, &text), [("partition_published_as_root", "part_a".to_owned())]);

    let rules = Rules::queries(&["SELECT * FROM \"%\" WHERE owner = auth.user_id()"]);
    let (exit, report) = rules.check_json(&uri).await;
    assert_eq!((exit, findings(&report, "")), (Some(0), Vec::new()), "a wildcard means what is published");
}

#[tokio::test]
async fn a_server_that_is_not_set_up_is_no_obstacle_to_finding_the_rest() {
    let settings = [("wal_level", "replica"), ("max_replication_slots", "1")];
    let cluster = PgCluster::start_with(None, &settings).expect("a server");
    let uri = cluster.uri("postgres", "postgres");
    let admin = connect(&uri).await;
    admin.batch_execute("CREATE TABLE keyless (id text, owner text)").await.expect("prepares");
    admin.batch_execute("SELECT pg_create_physical_replication_slot('taken')").await.expect("takes the slot");
    let rules = Rules::new(
        "bucket_definitions:\n  mine:\n    parameters: [{ name: user_id, type: string }]\n    data:\n      \
         - { table: keyless, filter: 'owner = :user_id', columns: [id, title] }\n",
    );
    let text = fs::read_to_string(rules.path()).expect("the rules");
    let (exit, report) = rules.check_json(&uri).await;
    let expected =
        [("PG-0202", ""), ("PG-0204", ""), ("PG-0206", ""), ("PG-0211", "keyless"), ("column_not_found", "title")];
    assert_eq!(findings(&report, &text), expected.map(|(code, word)| (code, word.to_owned())));
    assert_eq!(exit, Some(1));

    admin.batch_execute("CREATE PUBLICATION other FOR TABLE keyless").await.expect("publishes");
    let output = rules.check(&["--database", &uri, "--publication", "other"]).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    for expected in ["error[PG-0202]: wal_level is replica\n  --> database postgres at ", ", publication other\n"] {
        assert!(printed.contains(expected), "no {expected:?} in\n{printed}");
    }
    assert!(!printed.contains("PG-0206"), "{printed}");
    assert!(printed.ends_with("cannot be deployed; 2 errors, 2 warnings, 1 definition, 1 table read\n"), "{printed}");
}

#[tokio::test]
async fn the_exit_code_tells_faults_from_files_that_cannot_be_checked() {
    let open = Rules::queries(&["SELECT * FROM items"]);
    let output = open.check(&[]).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.starts_with("warning[bucket_for_everybody]: "), "{printed}");
    assert!(printed.contains("rules.yaml:3:3\n   |\n 3 |   mine:\n   |   ^^^^\n"), "{printed}");

    let broken = Rules::queries(&["SELECT foo(id) FROM items"]);
    assert_eq!(broken.check(&[]).await.status.code(), Some(1));

    let nobody = "postgres://app:s3cret@127.0.0.1:1/app";
    for (arguments, code) in [
        (vec!["--database", nobody], "PG-0102"),
        (vec!["--database", "mysql://app:s3cret@localhost/app"], "PG-0101"),
        (vec!["--publication", "other"], "--database"),
    ] {
        let output = open.check(&arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(code) && !said.contains("s3cret"), "{said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    fs::remove_file(open.path()).expect("removes the rules");
    let output = open.check(&[]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error CONF-0203: "), "{output:?}");
}
