//! The `kairos-sync` binary: arguments, logging, exit code; nothing else.

use std::{
    io::{self, IsTerminal, Write, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use indicatif::MultiProgress;
use kairos_sync::{
    admin_client::AdminArguments,
    auth_check::AuthCommand,
    client_command::ClientArguments,
    commands::{self, StatusCommand},
    config_command::ConfigCommand,
    copy_bars::CopyBars,
    demo::DemoOptions,
    doctor::DoctorOptions,
    examples::with_examples,
    explain::ExplainArguments,
    migrate_command::MigrateArguments,
    recent_events::RecentEvents,
    rules_check::CheckOptions,
    rules_plan::{self, DeployArguments, PlanArguments},
    store_command::StoreCommand,
    teardown::TeardownArguments,
    traces::{self, Export},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Rows wait in memory for their fold in many small pieces, freed on another thread than the one that made them, which
/// the system's allocator takes a quarter of all processor time for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a thread for blocking work waits for more. Each keeps memory of its own, a megabyte or two after a burst.
const THREADS_KEPT: Duration = Duration::from_secs(1);

/// Self-hosted sync from Postgres to SQLite on devices, and back.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    log: LogArguments,
    #[command(subcommand)]
    command: Command,
}

/// What is logged, to standard error, and how.
#[derive(Args)]
#[command(next_help_heading = "Log")]
struct LogArguments {
    /// `error`, `warn`, `info`, `debug` or `trace`, also by part: `info,kairos_sync::write=debug`. `serve` says `info`,
    /// other commands what goes wrong.
    #[arg(long, global = true, value_name = "LEVEL", env = "PS_LOG_LEVEL")]
    log_level: Option<String>,
    /// A line of text for each event, or a JSON object.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "PS_LOG_FORMAT",
        default_value = "text",
        ignore_case = true
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service.
    Serve(ServeArguments),
    /// Say how a running service is: replication, lag, copies of tables. Exits with 0 if replication reports no error, 1
    /// if it does, 2 if the service does not answer.
    Status(StatusArguments),
    /// Prepare the source database: write ledger, roles and publication. Safe to repeat.
    Migrate(MigrateArguments),
    /// Take what a service leaves in its source when it is gone for good: replication slots, for which Postgres would keep
    /// WAL for ever. Says what it would do, and does it with --yes. Tables, roles and publication stay.
    Teardown(TeardownArguments),
    /// Check everything the service needs of its source and its host, and say with which SQL to mend it. Exits with 0
    /// if the service can run, 1 if not, 2 if that could not be found out.
    Doctor(DoctorArguments),
    /// Work with the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Work with a rules file.
    Rules {
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// Work with tokens and the keys for them.
    Auth {
        #[command(subcommand)]
        command: AuthCommand,
    },
    Explain(Box<ExplainArguments>),
    Client(Box<ClientArguments>),
    /// Look at the bucket store of a service that does not run.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Print what the HTTP API takes and answers, as an OpenAPI document.
    Openapi,
    /// Play the main job on a throw-away Postgres: a household, three devices, and the mirror in a browser.
    Demo(DemoArguments),
    /// Print what makes a shell complete these commands, e.g. `kairos-sync completions bash >
    /// /etc/bash_completion.d/kairos-sync`.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Write a man page for each command into a folder, e.g. /usr/local/share/man/man1.
    Man {
        /// The folder, which must be there.
        folder: PathBuf,
    },
}

#[derive(Args)]
struct ConfigArguments {
    /// Configuration file; the keys of a PowerSync service's file work.
    #[arg(short, long = "config-path", visible_alias = "config", value_name = "FILE", env = "POWERSYNC_CONFIG_PATH")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct ServeArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Draw no progress bars. There are none either where standard error is no terminal.
    #[arg(long)]
    no_progress: bool,
}

#[derive(Args)]
struct StatusArguments {
    /// Where the service answers; otherwise on this host, at the port of the configuration.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    config: ConfigArguments,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    /// Go on until all tables are copied; with progress bars in a terminal.
    #[arg(long)]
    watch: bool,
    /// Exit with 0 if clients can sync, 1 if not, for checks of a container's health. A service that lost its source goes
    /// on serving what it has, and is ready.
    #[arg(long)]
    ready: bool,
}

#[derive(Args)]
struct DoctorArguments {
    /// Configuration file; found as `serve` finds it otherwise.
    #[arg(short, long = "config-path", visible_alias = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check this source database alone, without configuration and rules: best with the URI the service will have.
    #[arg(long, value_name = "URI", env = "KAIROS_DOCTOR_DATABASE", hide_env_values = true, conflicts_with = "config")]
    database: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Mend what is safe to mend: create the publication, add tables to it, grant. Never changes settings of the server
    /// and never drops anything.
    #[arg(long)]
    fix: bool,
    /// Mend through this connection, where the service's role may not.
    #[arg(long, value_name = "URI", env = "KAIROS_DOCTOR_ADMIN", hide_env_values = true, requires = "fix")]
    admin: Option<String>,
}

#[derive(Subcommand)]
enum RulesCommand {
    /// Say what is wrong in a rules file, and where. Exits with 0 if it can be deployed, 1 if not, 2 if that could not be
    /// found out.
    Check(CheckArguments),
    /// Run test cases: reads rules, rows and requests from stdin, a JSON object per line, and prints a line with all
    /// that comes of them. Exits with 1 if a line is not a case.
    Eval,
    /// Print what the rules do: which rows go into which bucket, which lookups there are, how a client's buckets are
    /// found. Exits with 1 if the file cannot be deployed.
    Explain {
        /// The rules file.
        file: PathBuf,
        /// Print the compiled plan and the hash of each definition as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Deploy a file to a running service that takes its rules over HTTP (`sync_config.by_api`). Exits with 1 if it is
    /// refused, 2 if the service could not be asked.
    Deploy(DeployArguments),
    /// Say what a deployment would do: which definitions are as before, which are built, what clients download, which
    /// tables are copied. Exits with 1 if the file cannot be deployed, 2 if that could not be found out.
    Plan(PlanArguments),
    /// Have a running service build everything anew by the rules that are in force, beside what is served. Clients download
    /// all of it then. Exits with 1 if that is refused, 2 if the service could not be asked.
    Rebuild(AdminArguments),
    /// Print the JSON Schema of the rules file, for editors.
    Schema,
}

#[derive(Args)]
struct CheckArguments {
    /// The rules file.
    file: PathBuf,
    /// Check against this source database, too: best with the URI the service has. Nothing is changed there.
    #[arg(long, value_name = "URI", env = "KAIROS_CHECK_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// The publication; found as the service finds it otherwise.
    #[arg(long, value_name = "NAME", requires = "database")]
    publication: Option<String>,
    /// Print findings as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct DemoArguments {
    /// End after the checks: exit code 0 if every device equals Postgres, 1 otherwise.
    #[arg(long)]
    once: bool,
    /// Folder with the PostgreSQL server's programs; found in PATH or under /usr/lib/postgresql otherwise.
    #[arg(long, value_name = "FOLDER")]
    postgres_bin: Option<PathBuf>,
    /// Use this server instead of a throw-away one; the role must be a superuser. A database is made there and removed.
    #[arg(long, value_name = "URI", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Port of the service, and so of its pages; a free one otherwise.
    #[arg(long, value_name = "PORT")]
    page_port: Option<u16>,
    /// Open the mirror in the browser.
    #[arg(long, conflicts_with = "once")]
    open: bool,
}

fn main() -> ExitCode {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_keep_alive(THREADS_KEPT).build();
    runtime.expect("threads can be started").block_on(run())
}

/// Does what the arguments say.
async fn run() -> ExitCode {
    let matches = program().get_matches();
    let Arguments { log, command } = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("another TLS provider was installed first");
    }
    match command {
        Command::Serve(options) => serve(&log, &options).await,
        Command::Status(StatusArguments { url, config, json, watch, ready }) => {
            commands::status(StatusCommand { url, config: config.config, json, watch, ready }).await
        }
        Command::Migrate(arguments) => {
            log.start("warn");
            commands::migrate(&arguments).await
        }
        Command::Teardown(arguments) => {
            log.start("warn");
            commands::teardown(&arguments).await
        }
        Command::Doctor(DoctorArguments { config, database, json, fix, admin }) => {
            commands::doctor(&DoctorOptions { config, database, json, fix, admin }).await
        }
        Command::Explain(arguments) => commands::explain(&arguments).await,
        Command::Auth { command } => command.run().await,
        Command::Config { command } => {
            log.start("warn");
            command.run()
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut program(), "kairos-sync", &mut io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { folder } => write_manual(&folder),
        Command::Rules { command: RulesCommand::Check(CheckArguments { file, database, publication, json }) } => {
            commands::check_rules(&CheckOptions { file, database, publication, json }).await
        }
        Command::Rules { command: RulesCommand::Explain { file, json } } => commands::explain_rules(&file, json),
        Command::Rules { command: RulesCommand::Deploy(arguments) } => {
            commands::print_or_refuse(rules_plan::deploy(&arguments).await)
        }
        Command::Rules { command: RulesCommand::Plan(arguments) } => {
            commands::print_or_refuse(rules_plan::plan(&arguments).await)
        }
        Command::Rules { command: RulesCommand::Rebuild(service) } => {
            commands::print_or_refuse(rules_plan::rebuild(&service).await)
        }
        Command::Rules { command: RulesCommand::Schema } => commands::print_rules_schema(),
        Command::Rules { command: RulesCommand::Eval } => commands::eval_rules(),
        Command::Openapi => commands::print_openapi(),
        Command::Store { command } => {
            log.start("warn");
            tokio::task::spawn_blocking(move || command.run()).await.unwrap_or(ExitCode::FAILURE)
        }
        Command::Client(arguments) => {
            log.start("warn");
            commands::client(&arguments).await
        }
        Command::Demo(options) => {
            log.start("error");
            commands::demo(options.into()).await
        }
    }
}

/// The whole command line.
fn program() -> clap::Command {
    with_examples(Arguments::command())
}

/// `serve`. The configuration comes before the log, since it says whether there are traces.
async fn serve(log: &LogArguments, options: &ServeArguments) -> ExitCode {
    let Some(config) = commands::load_config(options.config.config.as_deref()) else { return ExitCode::FAILURE };
    let Some(traces) = commands::begin_traces(&config) else { return ExitCode::FAILURE };
    let bars = (stderr().is_terminal() && !options.no_progress).then(CopyBars::new);
    let events = log.start_with("info", bars.as_ref().map(CopyBars::screen), Some(&traces));
    commands::serve(config, bars, events, traces).await
}

/// `man`: a page for each command.
fn write_manual(folder: &Path) -> ExitCode {
    let Err(error) = clap_mangen::generate_to(program(), folder) else { return ExitCode::SUCCESS };
    let code = "CONF-0303";
    eprintln!("error {code}: no man pages in {}: {error}", folder.display());
    ExitCode::FAILURE
}

impl From<DemoArguments> for DemoOptions {
    fn from(arguments: DemoArguments) -> Self {
        let DemoArguments { once, postgres_bin, database_url, page_port, open } = arguments;
        Self { once, postgres_bin, database_url, page_port, opens_browser: open }
    }
}

/// A line of the log, printed above the bars if there are any.
struct LogLine(Option<MultiProgress>);

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(screen) => screen.suspend(|| stderr().write(line)),
            None => stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

impl LogArguments {
    /// Begins to log what a command has to say.
    fn start(&self, default_level: &str) {
        self.start_with(default_level, None, None);
    }

    /// As [`Self::start`], above the bars on `screen`, and with `traces`. `RUST_LOG` comes first: who sets it knows what they want. Gives the warnings and errors among it, which
    /// are kept whatever is logged.
    fn start_with(&self, default_level: &str, screen: Option<MultiProgress>, traces: Option<&Export>) -> RecentEvents {
        let variable = std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty());
        let filter = variable.or_else(|| self.log_level.clone()).unwrap_or_else(|| default_level.to_owned());
        let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new(default_level));
        let filter = filter.and(traces::log_filter());
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(stderr().is_terminal())
            .with_writer(move || LogLine(screen.clone()));
        let lines = match self.log_format {
            LogFormat::Text => lines.with_filter(filter).boxed(),
            LogFormat::Json => lines.json().with_filter(filter).boxed(),
        };
        let events = RecentEvents::default();
        let mut layers = vec![lines, events.clone().with_filter(LevelFilter::WARN).boxed()];
        layers.extend(traces.and_then(Export::layer));
        tracing_subscriber::registry().with(layers).init();
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The help of each command that does something, with its name.
    fn helps(command: &mut clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        if !command.has_subcommands() {
            found.push((path.to_owned(), command.render_help().to_string()));
        }
        for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
            let path = format!("{path} {}", below.get_name());
            helps(below, &path, found);
        }
    }

    /// What a shell makes of a call, as far as examples go: single quotes, redirections, `<(…)`.
    fn words(call: &str) -> Vec<String> {
        let (mut words, mut is_quoted) = (vec![String::new()], false);
        for letter in call.trim_end_matches(')').chars() {
            match letter {
                '\'' => is_quoted = !is_quoted,
                '<' | '>' if !is_quoted => break,
                ' ' if !is_quoted => words.push(String::new()),
                letter => words.last_mut().expect("never empty").push(letter),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_command_has_examples_that_it_takes() {
        let mut found = Vec::new();
        helps(&mut program(), "kairos-sync", &mut found);
        assert!(found.len() > 20, "{found:?}");
        for (command, help) in found {
            let examples = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{command} has no example")).1;
            let calls = examples.lines().filter_map(|line| {
                line.starts_with("    ").then(|| line.find("kairos-sync").map(|at| line[at..].to_owned()))?
            });
            for call in calls {
                let words = words(&call);
                let parsed = program().try_get_matches_from(&words);
                assert!(call.starts_with(&command), "{command} shows {call}");
                assert!(parsed.is_ok(), "{call}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
            }
        }
    }
}
