//! `auth check`: who a token makes one, or which of its claims or keys fails and which setting mends that; and
//! `auth keygen`: a fresh shared secret.
//!
//! ```text
//! token + configuration ─► the service's own authenticator ─► verdict ─► remedy (pure) ─► output
//! ```
//!
//! **Invariants**
//!
//! - The verdict is the service's: the same code finds the signer and checks the claims.
//! - Neither the token nor a signature is printed. Claims are: they are what the question is about.
//! - Keys are fetched as the service does, and what was found is said.
//!
//! Start reading at `run`.

mod command;
mod keygen;
mod output;
mod remedy;

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    time::SystemTime,
};

use futures_util::future::join_all;
use serde_json::{Map, Value};

pub use self::command::AuthCommand;
use self::keygen::keygen;
use self::remedy::{Remedy, remedy};
use crate::{
    auth::{AuthError, Authenticator, Examined, KeyOrigin, Principal, jwt::UnverifiedToken},
    config::{AuthSettings, Config, ConfigError, ProcessEnvironment, Setting},
    metrics::Metrics,
};

/// No header is so long, so what is longer is no token.
const INPUT_BYTES_MAX: u64 = 1 << 20;

/// What to check.
#[derive(Debug)]
struct AuthCheckOptions {
    /// The token; `None` or `-`: it is read from standard input.
    token: Option<String>,
    /// The configuration file; `None`: as the service finds it.
    config: Option<PathBuf>,
    /// Print JSON.
    json: bool,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The service lets the token in.
    Accepted,
    /// It does not.
    Refused,
    /// Keys could not be fetched, or an issuer not be asked, without which nobody knows.
    Unknown,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
enum AuthCheckError {
    /// The configuration has a mistake.
    #[error("the configuration cannot be used")]
    Config(#[source] ConfigError),
    /// Keys cannot be used at all.
    #[error("prepare the verification of tokens")]
    Auth(#[source] AuthError),
    /// There is no token.
    #[error("no token: give one as argument, or on standard input: `kairos-sync auth check < token.txt`")]
    NoToken,
    /// Standard input cannot be read.
    #[error("standard input cannot be read as text")]
    Input(#[source] io::Error),
}

impl AuthCheckError {
    /// Stable across releases; listed in `docs/errors.md`.
    const fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Auth(error) => error.code(),
            Self::NoToken => "CONF-0310",
            Self::Input(_) => "CONF-0311",
        }
    }
}

/// What was found out.
struct Report {
    result: Result<Principal, AuthError>,
    /// What the token says, as far as it can be read.
    header: Option<TokenHeader>,
    claims: Option<Map<String, Value>>,
    /// The source whose key signed it.
    signer: Option<usize>,
    sources: Vec<FoundKeys>,
    /// Who is asked about tokens that no key is for.
    issuers: Vec<Issuer>,
    remedy: Option<Remedy>,
    checked_at: SystemTime,
}

struct TokenHeader {
    alg: String,
    kid: Option<String>,
}

/// What a source of keys has.
struct FoundKeys {
    setting: Setting,
    /// Where they were fetched; `None`: they stand in the configuration.
    uri: Option<String>,
    result: Result<Found, AuthError>,
}

/// Somebody who is asked about tokens.
struct Issuer {
    setting: Setting,
    url: String,
}

struct Found {
    keys: Vec<FoundKey>,
    left_out: Vec<String>,
}

struct FoundKey {
    kid: Option<String>,
    algorithms: Vec<String>,
}

impl Report {
    fn verdict(&self) -> Verdict {
        match &self.result {
            Ok(_) => Verdict::Accepted,
            Err(error) if error.is_unknown() => Verdict::Unknown,
            Err(_) => Verdict::Refused,
        }
    }
}

/// Checks a token, and prints what came out.
///
/// # Errors
/// [`AuthCheckError`] when that could not be found out.
async fn run(options: &AuthCheckOptions) -> Result<Verdict, AuthCheckError> {
    let config = Config::load(options.config.as_deref(), &ProcessEnvironment).map_err(AuthCheckError::Config)?;
    let given = match &options.token {
        Some(token) if token != "-" => token.clone(),
        _ => read_input()?,
    };
    let report = examine(&config, bare_token(&given)?).await?;
    let printed = if options.json { output::json(&report) } else { output::text(&report, &config.warnings) };
    // A reader that went away does not change the verdict.
    let _ = io::stdout().lock().write_all(printed.as_bytes());
    Ok(report.verdict())
}

fn read_input() -> Result<String, AuthCheckError> {
    let mut text = String::new();
    io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text).map_err(AuthCheckError::Input)?;
    Ok(text)
}

/// The token itself, also where a whole header was copied: the last word.
fn bare_token(text: &str) -> Result<&str, AuthCheckError> {
    let token = text.trim().trim_matches('"').split_whitespace().last().unwrap_or_default();
    if ["", "Authorization:", "Bearer", "Token"].contains(&token) { Err(AuthCheckError::NoToken) } else { Ok(token) }
}

async fn examine(config: &Config, token: &str) -> Result<Report, AuthCheckError> {
    let authenticator = Authenticator::new(config.auth.clone(), &Metrics::new()).map_err(AuthCheckError::Auth)?;
    let checked_at = SystemTime::now();
    let Examined { signer, result } = authenticator.examine(token).await;
    let sources = found_keys(config, &authenticator).await;
    let settings = config.auth_settings.introspections.iter().zip(&config.auth.introspections);
    let issuers =
        settings.map(|(setting, asked)| Issuer { setting: setting.clone(), url: asked.url.text().to_owned() });
    let token = UnverifiedToken::parse(token).ok();
    let header = token.as_ref().map(|token| TokenHeader { alg: format!("{:?}", token.alg), kid: token.kid.clone() });
    // An issuer's claims, where it has some, are those that count.
    let claims = match &result {
        Ok(principal) => Some(principal.claims.clone()),
        Err(_) => token.and_then(|token| token.claims().ok()),
    };
    let issuers = issuers.collect();
    let mut report = Report { result, header, claims, signer, sources, issuers, remedy: None, checked_at };
    report.remedy = remedy(&report, config);
    Ok(report)
}

async fn found_keys(config: &Config, authenticator: &Authenticator) -> Vec<FoundKeys> {
    let AuthSettings { sources: settings, .. } = &config.auth_settings;
    let sources = config.auth.sources.iter().zip(settings).enumerate();
    join_all(sources.map(async |(position, (source, settings))| {
        let result = authenticator.keys(position).await.map(|set| Found {
            keys: set
                .keys
                .iter()
                .map(|key| FoundKey { kid: key.kid.clone(), algorithms: key.algorithm_names() })
                .collect(),
            left_out: set.left_out.clone(),
        });
        let uri = match &source.keys {
            KeyOrigin::Fetched(uri) => Some(uri.clone()),
            KeyOrigin::Given(_) => None,
        };
        FoundKeys { setting: settings.keys.clone(), uri, result }
    }))
    .await
}
