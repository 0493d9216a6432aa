//! `kairos-sync config`: is a configuration good, and what may one say.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};

use crate::{
    config::{self, Config, ProcessEnvironment},
    deployment::Rules,
};

/// What to do with the configuration.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong in the configuration and its rules, and where, without starting anything: `doctor` looks at the
    /// source as well. Exits with 0 if the service could start by it, else with 1.
    Check(ConfigArguments),
    /// Print all settings there are, as Markdown.
    Reference,
    /// Print the JSON Schema of the file, for editors.
    Schema,
}

/// Which configuration.
#[derive(Args)]
pub struct ConfigArguments {
    /// Configuration file; found as `serve` finds it otherwise.
    #[arg(short, long = "config-path", visible_alias = "config", value_name = "FILE", env = "POWERSYNC_CONFIG_PATH")]
    config: Option<PathBuf>,
}

impl ConfigCommand {
    /// Runs the command.
    pub fn run(&self) -> ExitCode {
        let (printed, exit) = match self {
            Self::Check(arguments) => match arguments.check() {
                Ok(said) => (said, ExitCode::SUCCESS),
                Err(said) => {
                    eprint!("{said}");
                    (String::new(), ExitCode::FAILURE)
                }
            },
            Self::Reference => (config::reference(), ExitCode::SUCCESS),
            Self::Schema => (format!("{:#}\n", config::schema()), ExitCode::SUCCESS),
        };
        // A reader that went away has seen what it wanted.
        let _ = io::stdout().lock().write_all(printed.as_bytes());
        exit
    }
}

impl ConfigArguments {
    /// What is good about it, or what is not.
    fn check(&self) -> Result<String, String> {
        let config = Config::load(self.config.as_deref(), &ProcessEnvironment)
            .map_err(|error| format!("error {}: {error}\n", error.code()))?;
        let rules = Rules::compile(&config.rules.file, &config.rules.text)
            .map_err(|error| format!("error {}: {error}\n", error.code()))?;
        let mut said = String::new();
        for warning in &config.warnings {
            let _ = writeln!(said, "warning: {warning}");
        }
        let count = rules.plan.definition_hashes().len();
        let _ = writeln!(said, "good, with {count} definitions in {}", config.rules.file);
        Ok(said)
    }
}
