//! `rules check`: whether a rules file can be deployed, and on which database.
//!
//! ```text
//! file ─► compile, review ──────────┐
//!           ▲ schema       │ places ├─► findings ─► output
//! database ─┴ catalog ─► source ────┘
//! ```
//!
//! **Invariants**
//!
//! - Nothing is changed in the database, and every question to it has a deadline.
//! - What would keep the service from starting is an error; what it would leave out, or somebody should look at twice,
//!   is a warning.
//! - No password is printed.
//!
//! Start reading at [`run`].

mod findings;
mod output;
mod source;

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use kairos_sync_rules::{
    CompileOptions, Compiled, Diagnostic, Places, Severity, Span, SyncPlan, TablePattern, TablePlace, compile_with,
    review,
};
use tokio_postgres::Client;

use self::source::Source;
use crate::postgres::{
    PgError, SourceConfig,
    preflight::{CONNECTION_TAG, Inspection},
};

/// Schema of unqualified table names.
pub(crate) const DEFAULT_SCHEMA: &str = "public";
/// Of what is read; the compiler refuses far less, and says so.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What to check.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// The rules file.
    pub file: PathBuf,
    /// Connection URI of the source; `None`: the file alone.
    pub database: Option<String>,
    /// The publication; `None`: as the service finds it.
    pub publication: Option<String>,
    /// Print JSON.
    pub json: bool,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The database cannot be asked.
    #[error("the database cannot be checked")]
    Database(#[source] PgError),
}

impl CheckError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "CONF-0203",
            Self::Database(error) => error.code(),
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
struct Checked {
    /// All findings, in the order of the file; those about the database as a whole first.
    diagnostics: Vec<Diagnostic>,
    /// Names of the definitions.
    definitions: Vec<String>,
    /// Tables the rules read, as `schema.table`.
    tables: Vec<String>,
    /// Where the database is, and its publication if there is one.
    database: Option<String>,
}

impl Checked {
    fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// Whether the rules can be deployed.
    fn is_ok(&self) -> bool {
        self.count(Severity::Fatal) == 0
    }
}

/// Checks, and prints what was found. Tells whether the rules can be deployed.
///
/// # Errors
/// [`CheckError`] when that could not be found out.
pub async fn run(options: &CheckOptions) -> Result<bool, CheckError> {
    let text = read_rules(&options.file)?;
    let checked = match &options.database {
        None => check_alone(&text),
        Some(uri) => {
            let mut config = SourceConfig::from_uri(uri).map_err(CheckError::Database)?;
            config.publications.extend(options.publication.clone());
            check_with_database(&text, &config).await.map_err(CheckError::Database)?
        }
    };
    let file_name = options.file.display().to_string();
    let printed = if options.json { output::json(&checked) } else { output::text(&checked, &file_name, &text) };
    // A reader that went away does not change the verdict.
    let _ = io::Write::write_all(&mut io::stdout().lock(), printed.as_bytes());
    Ok(checked.is_ok())
}

/// The text of a rules file.
pub(crate) fn read_rules(file: &Path) -> Result<String, CheckError> {
    let mut text = String::new();
    let read = fs::File::open(file).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| CheckError::File { path: file.to_owned(), source })?;
    Ok(text)
}

fn check_alone(text: &str) -> Checked {
    let compiled = compile_with(text, &CompileOptions { default_schema: DEFAULT_SCHEMA, schema: None });
    let tables = compiled.plan.iter().flat_map(SyncPlan::source_tables);
    let tables = tables.map(|table| format!("{}.{}", table.schema, table.name)).collect();
    assemble(compiled, Vec::new(), tables, None)
}

/// What the source has to say about rules.
pub(crate) struct SourceReport {
    /// The rules, compiled with the schema of the source.
    pub(crate) compiled: Compiled,
    /// The tables they read there.
    pub(crate) patterns: Vec<TablePattern>,
    /// Those of them which are named one by one, exist and can be published, quoted for SQL.
    pub(crate) publishable: Vec<String>,
    /// What is wrong with the source, at the places of the rules.
    pub(crate) found: Vec<Diagnostic>,
    /// What the service will find when it starts.
    pub(crate) inspection: Inspection,
}

/// Looks at a source as the service will, for these rules; without rules, at all that is published.
pub(crate) async fn look_at_source(
    client: &Client,
    config: &SourceConfig,
    text: Option<&str>,
) -> Result<SourceReport, PgError> {
    let source = Source::read(client).await?;
    let schema = source.schema();
    let options = CompileOptions { default_schema: DEFAULT_SCHEMA, schema: Some(&schema) };
    let compiled = text.map_or_else(everything, |text| compile_with(text, &options));
    // Another connection's tables are not here; the compiler has said so.
    let is_here = |table: &&TablePattern| table.connection == CONNECTION_TAG;
    let patterns: Vec<_> = compiled.places.tables.keys().filter(is_here).cloned().collect();
    let setup = source.inspect(client, config, &patterns).await?;
    let found = findings::of_database(&source, &setup, &compiled.places);
    let exact = patterns.iter().filter(|pattern| !pattern.is_wildcard());
    let named = exact.flat_map(|pattern| source.named_by(pattern)).filter(|relation| relation.kind.is_publishable());
    let publishable = named.map(source::Relation::sql_name).collect();
    Ok(SourceReport { compiled, patterns, publishable, found, inspection: setup.inspection })
}

/// In the place of rules: what reads all tables.
fn everything() -> Compiled {
    let pattern = TablePattern { connection: CONNECTION_TAG.to_owned(), schema: "%".to_owned(), name: "%".to_owned() };
    let place = TablePlace { span: Span { line: 1, column: 1 }, columns: BTreeMap::new() };
    let places = Places { definitions: Vec::new(), tables: BTreeMap::from([(pattern, place)]) };
    Compiled { plan: None, diagnostics: Vec::new(), places }
}

async fn check_with_database(text: &str, config: &SourceConfig) -> Result<Checked, PgError> {
    let client = config.connect().await?;
    let SourceReport { compiled, patterns, found, inspection, .. } =
        look_at_source(&client, config, Some(text)).await?;
    let database = format!("database {} at {}", config.database, config.address());
    let database = match &inspection.publications[..] {
        [] => database,
        [publication] => format!("{database}, publication {publication}"),
        publications => format!("{database}, publications {}", publications.join(", ")),
    };
    let tables = patterns.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
    Ok(assemble(compiled, found, tables, Some(database)))
}

fn assemble(compiled: Compiled, found: Vec<Diagnostic>, tables: Vec<String>, database: Option<String>) -> Checked {
    let reviewed = review(&compiled);
    let mut diagnostics = compiled.diagnostics;
    diagnostics.extend(reviewed.into_iter().chain(found));
    diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    let definitions = compiled.places.definitions.into_iter().map(|place| place.name).collect();
    Checked { diagnostics, definitions, tables, database }
}
