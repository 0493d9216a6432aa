//! Questions to a running service, by a token for administration.

use std::{error::Error, path::PathBuf, time::Duration};

use kairos_sync_protocol::request::{ErrorBody, Wrapped};
use reqwest::{Client, Url};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::{Config, ConfigError, DEFAULT_PORT, ProcessEnvironment},
    secret::Secret,
};

/// A service that does not answer by then is taken for gone. It gives up a question itself before that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);

/// Where a service is, and what it lets in; as far as it was said.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AdminArguments {
    /// Where the service answers; otherwise on this host, at the port of the configuration.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// A token of `api.tokens`; otherwise the first one of the configuration. Others on this machine see it in the list of
    /// processes: better use the variable.
    #[arg(long, env = "KAIROS_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
    /// Configuration file; found as `serve` finds it otherwise.
    #[arg(short, long = "config-path", visible_alias = "config", value_name = "FILE", env = "POWERSYNC_CONFIG_PATH")]
    pub config: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminClientError {
    /// The configuration has a mistake.
    #[error("the configuration cannot be used: without it, give --url and --token")]
    Config(#[source] ConfigError),
    /// No URL.
    #[error("`--url` must be like http://127.0.0.1:8080")]
    Url(#[source] <Url as std::str::FromStr>::Err),
    /// No token.
    #[error("no token: give --token or KAIROS_ADMIN_TOKEN, or set `api.tokens` in the configuration")]
    NoToken,
    /// The service does not answer.
    #[error("no answer from {url}: is the service running there?")]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The service refuses.
    #[error("{url} refuses with {code} (status {status}): {description}")]
    Refused {
        /// Where it was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Its code.
        code: String,
        /// What it says.
        description: String,
    },
    /// What answers is another release, or something else.
    #[error("what {url} answers is not understood: use the `kairos-sync` that runs there")]
    Answer {
        /// Where it was asked.
        url: String,
        /// What is not understood.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl AdminClientError {
    /// Stable across releases; listed in `docs/errors.md`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Url(_) => "ADMIN-0201",
            Self::NoToken => "ADMIN-0202",
            Self::Unreachable { .. } => "ADMIN-0203",
            Self::Refused { .. } => "ADMIN-0204",
            Self::Answer { .. } => "ADMIN-0205",
        }
    }

    /// Whether the service was there, and said no.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// A service that is asked.
#[derive(Debug)]
pub struct AdminClient {
    client: Client,
    url: Url,
    /// As it is printed: without a password.
    shown: String,
    token: Secret,
}

impl AdminClient {
    /// Prepares to ask. What was not said is taken from the configuration.
    ///
    /// # Errors
    /// [`AdminClientError`] where something is missing or unusable.
    pub fn new(arguments: &AdminArguments) -> Result<Self, AdminClientError> {
        let AdminArguments { url, token, config } = arguments.clone();
        let (url, token) = match (url, token) {
            (Some(url), Some(token)) => (url, token),
            (url, token) => match Config::load(config.as_deref(), &ProcessEnvironment) {
                Ok(config) => (
                    url.unwrap_or_else(|| format!("http://127.0.0.1:{}", config.port)),
                    token.or_else(|| config.admin_tokens.first().cloned()).ok_or(AdminClientError::NoToken)?,
                ),
                // Whoever asks may have no configuration at hand.
                Err(_) if config.is_none() => (
                    url.unwrap_or_else(|| format!("http://127.0.0.1:{DEFAULT_PORT}")),
                    token.ok_or(AdminClientError::NoToken)?,
                ),
                Err(error) => return Err(AdminClientError::Config(error)),
            },
        };
        let url = Url::parse(&url).map_err(AdminClientError::Url)?;
        let mut shown = url.clone();
        // A URL that cannot have them has none.
        let _ = (shown.set_password(None), shown.set_username(""));
        let shown = shown.as_str().trim_end_matches('/').to_owned();
        // It is asked directly: it runs here, or where the operator says.
        let client = Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build();
        let client = client.map_err(|source| AdminClientError::Unreachable { url: shown.clone(), source })?;
        Ok(Self { client, url, shown, token })
    }

    /// Asks with a JSON body, and gives the `data` of the answer.
    ///
    /// # Errors
    /// [`AdminClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, AdminClientError> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        let unreachable = |error: reqwest::Error| AdminClientError::Unreachable {
            url: self.shown.clone(),
            source: error.without_url(),
        };
        let request = self.client.post(url).bearer_auth(self.token.reveal()).json(body);
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            let error = serde_json::from_slice(&body).map(|ErrorBody { error }| error);
            let (code, description) = error.map_or_else(
                |_| ("no code".to_owned(), "too many requests at once, or not the service".to_owned()),
                |error| (error.code, error.description),
            );
            return Err(AdminClientError::Refused {
                url: self.shown.clone(),
                status: status.as_u16(),
                code,
                description,
            });
        }
        let answer = serde_json::from_slice(&body).map(|Wrapped { data }| data);
        answer.map_err(|error| AdminClientError::Answer { url: self.shown.clone(), source: error.into() })
    }
}
