//! What `kairos-sync client` is told.

use std::{path::PathBuf, time::Duration};

use kairos_client::protocol::request::{StreamSubscription, StreamSubscriptions};
use reqwest::Url;
use serde_json::{Map, Value};

use super::{
    error::ClientCommandError,
    identity::{self, Identity, TokenMint},
};
use crate::secret::Secret;

/// Shown below `kairos-sync client --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  What has anna, and does it add up?
    kairos-sync client --url http://127.0.0.1:8080 --token-file anna.jwt --db anna.db --once --verify
  As any user, with the secret of the service in KAIROS_CLIENT_SECRET; go on and show what changes
    kairos-sync client --url http://127.0.0.1:8080 --sub anna --db anna.db --watch
  Sync, then ask
    kairos-sync client --url … --token-file … --db anna.db --sql 'SELECT * FROM todos ORDER BY id'
  Ask again, without the service
    kairos-sync client --db anna.db --offline --sql 'SELECT count(*) FROM todos' --json

Exit code: 0: fine; 1: the service refuses, or --verify found a difference; 2: it could not be found out.
The file is a SQLite database with a view per table, for any program that reads SQLite.";

/// Sync what a user gets into a SQLite file, as an app would, and look at it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ClientArguments {
    /// Where the service answers, such as `http://127.0.0.1:8080`.
    #[arg(long, value_name = "URL", required_unless_present = "offline")]
    url: Option<String>,
    /// Syncs into this SQLite file, which is made if it is not there. The next run goes on from it.
    #[arg(long, value_name = "FILE")]
    pub(super) db: PathBuf,
    /// End at the first complete checkpoint. So it is with --sql, --verify or --repair, unless there is --watch.
    #[arg(long, conflicts_with_all = ["watch", "offline"])]
    once: bool,
    /// Go on until Ctrl-C, with a line for each checkpoint that changes something. So it is by default.
    #[arg(long, conflicts_with = "offline")]
    watch: bool,
    /// Do not sync: look at what the file has.
    #[arg(long)]
    pub(super) offline: bool,
    /// Give up after so long without progress; not with --watch.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
    #[command(flatten)]
    who: WhoArguments,
    #[command(flatten)]
    what: WhatArguments,
    #[command(flatten)]
    pub(super) look: LookArguments,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Who syncs")]
struct WhoArguments {
    /// A token the service accepts. Others on this machine see it in the list of processes: better use the variable, or
    /// a file.
    #[arg(long, env = "KAIROS_CLIENT_TOKEN", hide_env_values = true)]
    token: Option<Secret>,
    /// A file with a token. It is read again when the token has expired.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Sync as this user, with tokens made and signed (HS256) here.
    #[arg(long, value_name = "USER")]
    sub: Option<String>,
    #[command(flatten)]
    signing: SigningArguments,
}

/// What makes a token a good one.
#[derive(Debug, clap::Args)]
pub(crate) struct SigningArguments {
    /// The secret that signs them: `k` of a key in `client_auth.jwks`. See --token for who can see it.
    #[arg(long, env = "KAIROS_CLIENT_SECRET", hide_env_values = true)]
    secret: Option<Secret>,
    /// A file with the secret.
    #[arg(long, value_name = "FILE", conflicts_with = "secret")]
    secret_file: Option<PathBuf>,
    /// `kid` of the key, if it has one.
    #[arg(long, requires = "sub")]
    kid: Option<String>,
    /// Audience of the tokens: one of `client_auth.audience`.
    #[arg(long, default_value = "kairos")]
    aud: String,
    /// How long each token is good.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    token_seconds: u32,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is synced")]
struct WhatArguments {
    /// Client parameters for the rules, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object)]
    parameters: Option<Map<String, Value>>,
    /// Subscribe to this stream, with these parameters. May be repeated.
    #[arg(long = "stream", value_name = "NAME[=JSON]", value_parser = subscription)]
    streams: Vec<StreamSubscription>,
    /// Without the streams everybody gets.
    #[arg(long)]
    no_defaults: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Look at it")]
pub(super) struct LookArguments {
    /// Recompute every bucket's checksum from what is stored, and compare it with what the service announced; compare
    /// every table with its operations.
    #[arg(long)]
    pub(super) verify: bool,
    /// Drop what does not verify before syncing, so that it is downloaded again.
    #[arg(long, conflicts_with = "offline")]
    pub(super) repair: bool,
    /// Run this query afterwards, with --watch after each checkpoint. May be repeated.
    #[arg(long, value_name = "QUERY")]
    pub(super) sql: Vec<String>,
    /// Print JSON objects, one a line.
    #[arg(long)]
    pub(super) json: bool,
}

impl ClientArguments {
    /// The address, without a slash at the end.
    pub(super) fn endpoint(&self) -> Result<String, ClientCommandError> {
        let url = Url::parse(self.url.as_deref().unwrap_or_default()).map_err(|_| ClientCommandError::Url)?;
        let is_plain = url.username().is_empty() && url.password().is_none();
        if matches!(url.scheme(), "http" | "https") && is_plain {
            Ok(url.as_str().trim_end_matches('/').to_owned())
        } else {
            Err(ClientCommandError::Url)
        }
    }

    /// Who syncs.
    pub(super) fn identity(&self) -> Result<Identity, ClientCommandError> {
        self.who.identity()
    }

    /// Parameters for the rules.
    pub(super) fn parameters(&self) -> Map<String, Value> {
        self.what.parameters.clone().unwrap_or_default()
    }

    /// Streams to sync.
    pub(super) fn streams(&self) -> StreamSubscriptions {
        let WhatArguments { streams, no_defaults, .. } = &self.what;
        StreamSubscriptions { include_defaults: !no_defaults, subscriptions: streams.clone() }
    }

    /// Ends at the first complete checkpoint.
    pub(super) fn is_once(&self) -> bool {
        let LookArguments { verify, repair, sql, .. } = &self.look;
        self.once || (!self.watch && (*verify || *repair || !sql.is_empty()))
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }
}

impl WhoArguments {
    fn identity(&self) -> Result<Identity, ClientCommandError> {
        match (&self.sub, &self.token, &self.token_file) {
            (Some(user), None, None) => Ok(Identity::Mint(self.signing.mint(user)?)),
            (None, Some(token), None) => Ok(Identity::Token(Secret::new(token.reveal().trim()))),
            (None, None, Some(file)) => Ok(Identity::File(file.clone())),
            _ => Err(ClientCommandError::Who),
        }
    }
}

impl SigningArguments {
    /// What makes tokens of this user.
    ///
    /// # Errors
    /// Where there is no secret, or it is none.
    pub(crate) fn mint(&self, user: &str) -> Result<TokenMint, ClientCommandError> {
        let secret = match (&self.secret, &self.secret_file) {
            (Some(secret), None) => secret.clone(),
            (None, Some(file)) => identity::read(file)?,
            _ => return Err(ClientCommandError::NoSecret),
        };
        let life = Duration::from_secs(self.token_seconds.into());
        TokenMint::new(user, &secret, self.kid.clone(), &self.aud, life)
    }
}

pub(crate) fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|_| "it must be a JSON object, like {\"project\":\"p1\"}".to_owned())
}

pub(crate) fn subscription(text: &str) -> Result<StreamSubscription, String> {
    let (name, parameters) = match text.split_once('=') {
        Some((name, parameters)) => (name, Some(object(parameters)?)),
        None => (text, None),
    };
    if name.is_empty() {
        return Err("the name of a stream is missing".to_owned());
    }
    Ok(StreamSubscription { stream: name.to_owned(), parameters, override_priority: None })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ClientArguments,
    }

    const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA";

    fn parse(line: &str) -> Result<ClientArguments, String> {
        let line = ["client", "--db", "x.db"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(line).map(|line| line.arguments).map_err(|error| error.to_string())
    }

    fn code<T>(result: Result<T, ClientCommandError>) -> &'static str {
        result.err().map_or("", |error| error.code())
    }

    #[test]
    fn a_url_is_an_address_and_nothing_else() {
        let endpoint = |url: &str| parse(&format!("--url {url} --token t")).unwrap().endpoint();
        assert_eq!(endpoint("http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(endpoint("https://home/kairos/").unwrap(), "https://home/kairos");
        for url in ["nowhere", "ftp://home", "http://me:secret@home", "http://me@home"] {
            let error = endpoint(url).unwrap_err();
            assert!(error.code() == "CLIENT-0403" && !error.to_string().contains("secret"), "{error}");
        }
        assert!(parse("--token t").is_err(), "there is no address");
        assert!(parse("--offline").is_ok(), "none is needed");
    }

    #[test]
    fn there_is_one_proof_of_who_syncs() {
        let identity = |line: &str| parse(&format!("--url http://home {line}")).unwrap().identity();
        assert_eq!(code(identity("")), "CLIENT-0401");
        assert_eq!(code(identity("--token t --sub anna")), "CLIENT-0401");
        assert_eq!(code(identity("--token t --token-file f")), "CLIENT-0401");
        assert_eq!(code(identity("--sub anna")), "CLIENT-0402");
        assert_eq!(code(identity("--sub anna --secret +/+/")), "CLIENT-0402");
        assert!(matches!(identity(&format!("--sub anna --secret {SECRET}")), Ok(Identity::Mint(_))));
        assert!(matches!(identity("--token t"), Ok(Identity::Token(_))));
        assert!(parse("--url http://home --token t --kid k").is_err(), "a given token has its own");
    }

    #[test]
    fn streams_and_parameters_are_json() {
        let line = r#"--url http://home --token t --stream lists --stream todos={"list":"a=b"} --no-defaults"#;
        let streams = parse(line).unwrap().streams();
        let names: Vec<_> = streams.subscriptions.iter().map(|stream| stream.stream.as_str()).collect();
        assert_eq!((names, streams.include_defaults), (vec!["lists", "todos"], false));
        assert_eq!(streams.subscriptions[1].parameters.as_ref().unwrap()["list"], "a=b");
        for wrong in ["--stream =1", "--stream todos=1", "--parameters []"] {
            assert!(parse(&format!("--url http://home --token t {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_question_is_answered_once_unless_it_is_watched() {
        let is_once = |line: &str| parse(&format!("--url http://home --token t {line}")).unwrap().is_once();
        assert!(is_once("--once") && is_once("--verify") && is_once("--sql x") && is_once("--repair"));
        assert!(!is_once("") && !is_once("--watch") && !is_once("--watch --sql x"));
    }
}
