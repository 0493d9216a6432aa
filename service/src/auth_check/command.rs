//! `kairos-sync auth`: arguments and exit codes.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{AuthCheckOptions, Verdict, keygen, run};
use crate::{client_command::SigningArguments, server::chain};

/// What `auth` can do.
#[derive(Debug, Subcommand)]
pub enum AuthCommand {
    /// Say who a token makes one, or which claim or key fails and which line of the configuration mends it. Exits with 0
    /// if the service would accept it, 1 if not, 2 if that could not be found out.
    Check(CheckArguments),
    /// Print a fresh shared secret, with the lines of configuration for it.
    Keygen,
    /// Print a token of a user, made and signed (HS256) here, for trying things out.
    Token(TokenArguments),
}

/// What `auth token` takes.
#[derive(Debug, Args)]
pub struct TokenArguments {
    /// Whose token it is.
    #[arg(long, value_name = "USER")]
    sub: String,
    #[command(flatten)]
    signing: SigningArguments,
}

/// What `auth check` takes.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The token, or a whole `Authorization` header. `-` or nothing: read from standard input, which others on this host
    /// cannot see.
    token: Option<String>,
    /// Configuration file; found as `serve` finds it otherwise.
    #[arg(short, long = "config-path", visible_alias = "config", value_name = "FILE", env = "POWERSYNC_CONFIG_PATH")]
    config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl AuthCommand {
    /// Does it.
    pub async fn run(self) -> ExitCode {
        let CheckArguments { token, config, json } = match self {
            Self::Check(arguments) => arguments,
            Self::Keygen => {
                print!("{}", keygen());
                return ExitCode::SUCCESS;
            }
            Self::Token(TokenArguments { sub, signing }) => {
                return match signing.mint(&sub) {
                    Ok(mint) => {
                        println!("{}", mint.mint().reveal());
                        ExitCode::SUCCESS
                    }
                    Err(error) => {
                        eprintln!("error {}: {}", error.code(), chain(&error));
                        ExitCode::FAILURE
                    }
                };
            }
        };
        match run(&AuthCheckOptions { token, config, json }).await {
            Ok(Verdict::Accepted) => ExitCode::SUCCESS,
            Ok(Verdict::Refused) => ExitCode::FAILURE,
            Ok(Verdict::Unknown) => ExitCode::from(2),
            Err(error) => {
                eprintln!("error {}: {}", error.code(), chain(&error));
                ExitCode::from(2)
            }
        }
    }
}
