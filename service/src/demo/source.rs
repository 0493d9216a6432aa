//! The demo's database: on a throw-away server, or as a database of its own on one that is given.

use std::path::Path;

use rand::Rng;
use tokio_postgres::{Client, Config, NoTls};

use crate::{
    demo::{
        DemoError,
        cluster::PgCluster,
        household::{self, Household, Seeded},
    },
    migrate::{Migrations, migrate, set_password},
    secret::Secret,
};

/// Roles the migrations make, dependent ones first.
const ROLES: [&str; 3] = ["kairos_service", "kairos_write", "kairos_replication"];

/// A prepared database. Call [`Self::remove`] at the end; a throw-away server goes by itself.
pub struct DemoSource {
    /// Kept for its end.
    cluster: Option<PgCluster>,
    /// To a superuser's own database, for making and removing ours.
    admin: Client,
    /// To our database, as the superuser.
    sql: Client,
    server: Config,
    database: String,
    /// Roles that were not there before.
    roles: Vec<&'static str>,
    password: String,
}

impl DemoSource {
    /// Makes the database, applies all migrations.
    ///
    /// # Errors
    /// [`DemoError`] when there is no server, or it refuses.
    pub async fn prepare(postgres_bin: Option<&Path>, database_url: Option<&str>) -> Result<Self, DemoError> {
        let cluster = match database_url {
            Some(_) => None,
            None => Some(PgCluster::start(postgres_bin)?),
        };
        let uri = match (&cluster, database_url) {
            (Some(cluster), _) => cluster.uri("postgres", "postgres"),
            (None, uri) => uri.unwrap_or_default().to_owned(),
        };
        let server: Config = uri.parse().map_err(DemoError::Connect)?;
        let admin = connect(&server).await?;
        let number: u32 = rand::rng().next_u32();
        let database = format!("kairos_demo_{number:08x}");
        let existing: Vec<String> = admin
            .query("SELECT rolname::text FROM pg_roles", &[])
            .await
            .map_err(DemoError::Prepare)?
            .iter()
            .map(|row| row.get(0))
            .collect();
        let roles: Vec<_> = ROLES.into_iter().filter(|role| !existing.iter().any(|name| name == role)).collect();
        if cluster.is_none() && roles.len() < ROLES.len() {
            // Their passwords would be overwritten.
            return Err(DemoError::RolesExist);
        }
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.map_err(DemoError::Prepare)?;
        let mut ours = server.clone();
        ours.dbname(&database);
        let sql = connect(&ours).await?;
        let password = format!("{:016x}{:016x}", rand::rng().next_u64(), rand::rng().next_u64());
        let mut source = Self { cluster, admin, sql, server, database, roles, password };
        match source.migrate().await {
            Ok(()) => Ok(source),
            Err(error) => {
                // The first error is the one to report.
                let _ = source.remove().await;
                Err(error)
            }
        }
    }

    async fn migrate(&mut self) -> Result<(), DemoError> {
        migrate(&mut self.sql, Migrations::ServiceAndSample).await?;
        for role in ["kairos_replication", "kairos_service"] {
            set_password(&self.sql, role, &Secret::new(self.password.clone())).await?;
        }
        Ok(())
    }

    /// Fills in the household.
    ///
    /// # Errors
    /// [`DemoError::Prepare`].
    pub async fn seed(&mut self, household: &Household) -> Result<Seeded, DemoError> {
        household::seed(&mut self.sql, household).await.map_err(DemoError::Prepare)
    }

    /// Our database as the superuser.
    pub fn sql(&self) -> &Client {
        &self.sql
    }

    /// Whether the server is a throw-away one.
    pub fn is_throw_away(&self) -> bool {
        self.cluster.is_some()
    }

    /// URI of our database for one of the login roles.
    pub fn uri(&self, role: &str) -> String {
        let host = match self.server.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            _ => "127.0.0.1".to_owned(),
        };
        let port = self.server.get_ports().first().copied().unwrap_or(5432);
        format!("postgresql://{role}:{}@{host}:{port}/{}", self.password, self.database)
    }

    /// A shell command that opens our database.
    pub fn psql_command(&self) -> String {
        let uri = match &self.cluster {
            Some(cluster) => cluster.uri("postgres", &self.database),
            None => format!("$DATABASE_URL (database {})", self.database),
        };
        format!("psql '{uri}'")
    }

    /// Removes database, slots and roles that were made here. The services must have ended.
    ///
    /// # Errors
    /// [`DemoError::Prepare`] with what could not be removed.
    pub async fn remove(self) -> Result<(), DemoError> {
        if self.cluster.is_some() {
            return Ok(());
        }
        let Self { admin, sql, database, roles, .. } = self;
        drop(sql);
        let slots = format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
             WHERE database = '{database}' AND active_pid IS NOT NULL"
        );
        admin.execute(&slots, &[]).await.map_err(DemoError::Prepare)?;
        let drop_slots = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{database}'"
        );
        // A walsender takes a moment to end.
        for _ in 0..50 {
            if admin.execute(&drop_slots, &[]).await.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        admin.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await.map_err(DemoError::Prepare)?;
        for role in roles {
            admin.batch_execute(&format!("DROP ROLE IF EXISTS {role}")).await.map_err(DemoError::Prepare)?;
        }
        Ok(())
    }
}

async fn connect(config: &Config) -> Result<Client, DemoError> {
    let (client, connection) = config.connect(NoTls).await.map_err(DemoError::Connect)?;
    tokio::spawn(connection);
    Ok(client)
}
