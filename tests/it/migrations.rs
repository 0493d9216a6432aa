//! The migrations on a real Postgres: what they make, what they forbid, that they can be repeated.

use std::{fs, path::Path};

use kairos_sync::{
    demo::{
        cluster::PgCluster,
        household::{Household, seed},
    },
    migrate::{Migrations, migrate, set_password},
    secret::Secret,
};
use tokio_postgres::{Client, NoTls};

pub(crate) async fn connect(cluster: &PgCluster, user: &str) -> Client {
    connect_to(cluster, user, "postgres").await
}

pub(crate) async fn connect_to(cluster: &PgCluster, user: &str, database: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(&cluster.uri(user, database), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn migrated() -> (PgCluster, Client) {
    let cluster = PgCluster::start(None).expect("a server");
    let mut client = connect(&cluster, "postgres").await;
    migrate(&mut client, Migrations::ServiceAndSample).await.expect("migrates");
    (cluster, client)
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.expect("counts").get(0)
}

async fn sqlstate(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err("refused");
    error.code().expect("an answer of Postgres").code().to_owned()
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let (_cluster, mut client) = migrated().await;
    let again = migrate(&mut client, Migrations::ServiceAndSample).await.expect("repeats");
    assert!(again.files.is_empty(), "{:?}", again.files);
}

#[tokio::test]
async fn nodes_that_start_together_take_turns() {
    let cluster = PgCluster::start(None).expect("a server");
    let mut nodes = Vec::new();
    for _ in 0..4 {
        let mut client = connect(&cluster, "postgres").await;
        nodes.push(tokio::spawn(async move { migrate(&mut client, Migrations::ServiceAndSample).await }));
    }
    let mut applied = Vec::new();
    for node in nodes {
        applied.extend(node.await.expect("no panic").expect("migrates").files);
    }
    applied.sort_unstable();
    let files = applied.len();
    applied.dedup();
    assert_eq!((files, applied.len()), (7, 7), "each file once");
}

#[tokio::test]
async fn a_changed_file_is_an_error_that_names_it() {
    let (_cluster, mut client) = migrated().await;
    client.batch_execute("UPDATE kairos.migration SET checksum = 'x' WHERE name = 'source/0002_roles'").await.unwrap();
    let error = migrate(&mut client, Migrations::Service).await.expect_err("changed");
    assert_eq!(error.code(), "PG-0802");
    assert!(error.to_string().contains("source/0002_roles"), "{error}");
}

#[tokio::test]
async fn a_failed_file_leaves_nothing_behind() {
    let cluster = PgCluster::start(None).expect("a server");
    let mut client = connect(&cluster, "postgres").await;
    client.batch_execute("CREATE SCHEMA kairos; CREATE VIEW kairos.write_ledger AS SELECT 1 AS x").await.unwrap();
    let error = migrate(&mut client, Migrations::Service).await.expect_err("in the way");
    assert_eq!(error.code(), "PG-0801");
    assert_eq!(count(&client, "SELECT count(*) FROM pg_proc WHERE proname = 'current_user_id'").await, 0);
}

#[tokio::test]
async fn files_run_by_hand_up_down_and_up_again() {
    let cluster = PgCluster::start(None).expect("a server");
    let client = connect(&cluster, "postgres").await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut up = Vec::new();
    for part in ["source", "sample"] {
        let mut files: Vec<_> = fs::read_dir(folder.join(part)).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|file| !file.to_str().unwrap().ends_with(".down.sql"));
        files.sort();
        up.extend(files);
    }
    let run = async |file: &Path| client.batch_execute(&fs::read_to_string(file).unwrap()).await.expect("runs");
    for _ in 0..2 {
        for file in up.iter().chain(&up) {
            run(file).await;
        }
        for file in up.iter().rev() {
            run(&file.with_extension("down.sql")).await;
        }
        let left =
            "SELECT count(*) FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'kairos'::regnamespace)";
        assert_eq!(count(&client, left).await, 0);
    }
}

#[tokio::test]
async fn the_service_alone_brings_no_app_tables() {
    let cluster = PgCluster::start(None).expect("a server");
    let mut client = connect(&cluster, "postgres").await;
    migrate(&mut client, Migrations::Service).await.expect("migrates");
    assert_eq!(count(&client, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 0);
    client
        .batch_execute("CREATE TABLE todos (id text PRIMARY KEY); SELECT kairos.publish_table('todos', 'INSERT')")
        .await
        .unwrap();
    client.batch_execute("SELECT kairos.publish_table('todos')").await.expect("repeats");
    let published = "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'kairos_sync'";
    assert_eq!(count(&client, published).await, 2, "the table and kairos.conflicts");
}

#[tokio::test]
async fn the_default_household_has_the_promised_size() {
    let (_cluster, mut client) = migrated().await;
    let seeded = seed(&mut client, &Household::default()).await.expect("seeds");
    assert_eq!((seeded.users, seeded.habits, seeded.completions), (3, 100, 20_000));
    for (table, expected) in [
        ("users", seeded.users),
        ("household_members", seeded.users),
        ("habits", seeded.habits),
        ("completions", seeded.completions),
        ("routines", seeded.routines),
        ("routine_habits", seeded.routine_habits),
        ("recovery_sessions", seeded.recovery_sessions),
    ] {
        assert_eq!(count(&client, &format!("SELECT count(*) FROM {table}")).await, i64::try_from(expected).unwrap());
        assert!(expected > 0, "{table}");
    }
}

#[tokio::test]
async fn an_owner_without_superuser_rights_can_seed() {
    let cluster = PgCluster::start(None).expect("a server");
    let mut admin = connect(&cluster, "postgres").await;
    migrate(&mut admin, Migrations::Service).await.expect("migrates");
    admin
        .batch_execute(
            "CREATE ROLE app LOGIN CREATEROLE; ALTER DATABASE postgres OWNER TO app;
             GRANT CREATE ON SCHEMA public TO app; GRANT USAGE, CREATE ON SCHEMA kairos TO app;
             GRANT ALL ON kairos.migration TO app; ALTER PUBLICATION kairos_sync OWNER TO app;
             GRANT EXECUTE ON FUNCTION kairos.publish_table TO app",
        )
        .await
        .unwrap();
    let mut owner = connect(&cluster, "app").await;
    migrate(&mut owner, Migrations::ServiceAndSample).await.expect("migrates");
    seed(&mut owner, &Household { completions: 300, ..Household::default() }).await.expect("seeds");
    assert_eq!(count(&owner, "SELECT count(*) FROM habits").await, 0, "forced row-level security binds the owner");
    assert_eq!(count(&admin, "SELECT count(*) FROM habits").await, 100);
}

#[tokio::test]
async fn roles_can_do_what_they_need_and_no_more() {
    let (cluster, mut admin) = migrated().await;
    seed(&mut admin, &Household { completions: 300, ..Household::default() }).await.expect("seeds");

    let replication = connect(&cluster, "kairos_replication").await;
    assert_eq!(count(&replication, "SELECT count(*) FROM completions").await, 300, "the copy sees all rows");
    assert_eq!(sqlstate(&replication, "DELETE FROM habits").await, "42501");
    assert_eq!(sqlstate(&replication, "SELECT * FROM kairos.write_ledger").await, "42501");

    let service = connect(&cluster, "kairos_service").await;
    assert_eq!(sqlstate(&service, "SELECT * FROM habits").await, "42501", "not without SET ROLE");
    assert_eq!(count(&service, "SELECT count(*) FROM kairos.write_ledger").await, 0);
    assert_eq!(sqlstate(&service, "SET ROLE kairos_replication").await, "42501");
    assert_eq!(sqlstate(&service, "UPDATE kairos.write_ledger SET outcome = ''").await, "42501", "answers are final");
    assert_eq!(count(&service, "SELECT count(*) FROM kairos.conflicts").await, 0);
    assert_eq!(count(&replication, "SELECT count(*) FROM kairos.conflicts").await, 0);
    assert_eq!(sqlstate(&replication, "SELECT * FROM kairos.conflict_preferences").await, "42501");

    service.batch_execute("SET ROLE kairos_write").await.expect("a member");
    assert_eq!(count(&service, "SELECT count(*) FROM habits").await, 0, "no claims, no rows");
    assert_eq!(sqlstate(&service, "SELECT * FROM kairos.write_ledger").await, "42501");
    assert_eq!(sqlstate(&service, "SELECT * FROM kairos.conflicts").await, "42501", "not with a user's rights");
    assert_eq!(sqlstate(&service, "INSERT INTO household_members VALUES ('x', 'home', 'eve')").await, "42501");
    assert_eq!(sqlstate(&service, "TRUNCATE habits CASCADE").await, "42501");
    assert_eq!(sqlstate(&service, "CREATE TABLE public.mine ()").await, "42501");
    let claims = r#"SELECT set_config('request.jwt.claims', '{"sub":"anna"}', false)"#;
    service.batch_execute(claims).await.unwrap();
    assert_eq!(count(&service, "SELECT count(DISTINCT user_id) FROM habits").await, 1, "one's own rows");
    assert_eq!(sqlstate(&service, "SELECT * FROM household_members").await, "42501", "uploads need it not");
}

#[tokio::test]
async fn a_password_of_any_form_is_set_as_given() {
    let (cluster, client) = migrated().await;
    let password = r#"it's \ "odd" $1 %I"#;
    set_password(&client, "kairos_service", &Secret::new(password)).await.expect("sets");
    let stored: String = client
        .query_one("SELECT rolpassword FROM pg_authid WHERE rolname = 'kairos_service'", &[])
        .await
        .unwrap()
        .get(0);
    assert!(stored.starts_with("SCRAM-SHA-256$"), "{stored}");
    let error = set_password(&client, "nobody here", &Secret::new("x")).await.expect_err("no such role");
    assert_eq!(error.code(), "PG-0803");
    drop(cluster);
}
