//! A throw-away Postgres with one big table, and a service on it.

use std::{error::Error, fs, path::PathBuf};

use kairos_sync::{
    demo::{
        cluster::{PgCluster, free_port},
        process::ServiceProcess,
        setup::ServiceSetup,
        token::TokenMint,
    },
    migrate::{Migrations, migrate},
};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Users the rows belong to, evenly.
pub(crate) const USER_COUNT: u64 = 100;

/// Each row into one bucket.
pub(crate) const RULES: &str = "\
bucket_definitions:
  mine:
    parameters: SELECT request.user_id() AS owner
    data:
      - SELECT * FROM items WHERE owner = bucket.owner
";

/// The same rows, joined: each asks a lookup and depends on it.
pub(crate) const JOINED_RULES: &str = "\
bucket_definitions:
  mine:
    parameters:
      - name: user_id
        type: string
    data:
      - table: owners
        filter: 'user_id = :user_id'
      - table: items
        filter: 'owner IN (SELECT id FROM owners WHERE user_id = :user_id)'
";

/// The tables those rules read, published.
pub(crate) const SCHEMA: &str = "\
CREATE TABLE items (id bigint PRIMARY KEY, owner text NOT NULL, title text NOT NULL, note text NOT NULL,
    done boolean NOT NULL, amount double precision NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE owners (id text PRIMARY KEY, user_id text NOT NULL);
CREATE PUBLICATION kairos_sync FOR TABLE items, owners;";

/// The source and everything needed to start a service on it.
pub(crate) struct BenchSource {
    pub(crate) cluster: PgCluster,
    pub(crate) sql: Client,
    pub(crate) mint: TokenMint,
    pub(crate) row_count: u64,
    folder: TempDir,
    setup: ServiceSetup,
}

impl BenchSource {
    /// Fills a table with `row_count` rows of about 180 bytes.
    pub(crate) async fn start(row_count: u64) -> Result<Self, Box<dyn Error>> {
        let schema = format!(
            "{SCHEMA}
             INSERT INTO owners SELECT 'user' || n, 'user' || n FROM generate_series(0, {USER_COUNT} - 1) n;
             INSERT INTO items SELECT n, 'user' || n % {USER_COUNT}, 'item number ' || n, repeat(md5(n::text), 3), \
             n % 3 = 0, n / 7.0, '2026-01-01'::timestamptz + n * interval '1 second' FROM generate_series(1, {row_count}) n;"
        );
        let source = Self::with(&schema, RULES, row_count).await?;
        // Cannot run in the transaction that several statements make.
        source.sql.batch_execute("VACUUM ANALYZE items").await?;
        Ok(source)
    }

    /// With tables and rules of another kind, of `row_count` rows.
    pub(crate) async fn with(schema: &str, rules_text: &str, row_count: u64) -> Result<Self, Box<dyn Error>> {
        let cluster = PgCluster::start(None)?;
        Self::on(cluster, schema, rules_text, row_count).await
    }

    /// A database that takes uploads, as it is prepared for production: written to as the role for uploads.
    pub(crate) async fn for_writing(schema: &str, rules_text: &str) -> Result<Self, Box<dyn Error>> {
        let cluster = PgCluster::start(None)?;
        migrate(&mut connect(&cluster).await?, Migrations::Service).await?;
        let mut source = Self::on(cluster, schema, rules_text, 0).await?;
        source.setup.write_uri = Some(source.cluster.uri("kairos_service", "postgres"));
        source.setup.write_role = Some("kairos_write".to_owned());
        Ok(source)
    }

    async fn on(cluster: PgCluster, schema: &str, rules_text: &str, row_count: u64) -> Result<Self, Box<dyn Error>> {
        let sql = connect(&cluster).await?;
        sql.batch_execute(schema).await?;
        let folder = tempfile::Builder::new().prefix("kairos-bench-").tempdir()?;
        let rules = folder.path().join("rules.yaml");
        fs::write(&rules, rules_text)?;
        let mint = TokenMint::new();
        let setup = ServiceSetup {
            folder: folder.path().to_path_buf(),
            name: "bench".to_owned(),
            source_uri: cluster.uri("postgres", "postgres"),
            write_uri: None,
            write_role: None,
            rules,
            port: free_port()?,
            mint: mint.clone(),
        };
        Ok(Self { cluster, sql, mint, row_count, folder, setup })
    }

    /// Starts the release binary beside this one.
    pub(crate) async fn start_service(&self) -> Result<ServiceProcess, Box<dyn Error>> {
        let binary = std::env::current_exe()?.with_file_name("kairos-sync");
        Ok(ServiceProcess::start(&binary, &self.setup.write()?, self.setup.port).await?)
    }

    /// How to reach the source.
    pub(crate) fn uri(&self) -> String {
        self.cluster.uri("postgres", "postgres")
    }

    /// Drops slots nobody reads any more, which would keep WAL while other things are measured.
    pub(crate) async fn drop_slots(&self, pattern: &str) -> Result<(), Box<dyn Error>> {
        let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE $1";
        self.sql.execute(sql, &[&pattern]).await?;
        Ok(())
    }

    /// A scratch file.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A session of its own.
pub(crate) async fn connect(cluster: &PgCluster) -> Result<Client, Box<dyn Error>> {
    let (sql, connection) = tokio_postgres::connect(&cluster.uri("postgres", "postgres"), NoTls).await?;
    tokio::spawn(connection);
    Ok(sql)
}
