//! Who syncs: a token that is given, or tokens made here.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use kairos_client::{Connector, Credentials, CredentialsReason, TransportError};

use super::error::ClientCommandError;
use crate::{access_token::AccessToken, secret::Secret};

/// A longer file is no token and no secret.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The proof of who syncs.
pub(super) enum Identity {
    /// A token that stays the same.
    Token(Secret),
    /// A file that somebody may renew.
    File(PathBuf),
    /// Tokens as they are needed.
    Mint(TokenMint),
}

impl Identity {
    /// A token to show the service now.
    pub(super) fn token(&self) -> Result<Secret, ClientCommandError> {
        match self {
            Self::Token(token) => Ok(token.clone()),
            Self::File(file) => read(file),
            Self::Mint(mint) => Ok(mint.mint()),
        }
    }
}

/// Makes tokens for one user.
pub(crate) struct TokenMint {
    user: String,
    key: EncodingKey,
    kid: Option<String>,
    audience: String,
    life: Duration,
}

impl TokenMint {
    /// Signs with `secret`, which is base64url as in a JWK.
    pub(super) fn new(
        user: &str,
        secret: &Secret,
        kid: Option<String>,
        audience: &str,
        life: Duration,
    ) -> Result<Self, ClientCommandError> {
        let secret = secret.reveal().trim().trim_end_matches('=');
        let key = BASE64_URL_SAFE_NO_PAD.decode(secret).map_err(|_| ClientCommandError::Secret)?;
        if key.is_empty() {
            return Err(ClientCommandError::Secret);
        }
        let (key, audience) = (EncodingKey::from_secret(&key), audience.to_owned());
        Ok(Self { user: user.to_owned(), key, kid, audience, life })
    }

    pub(crate) fn mint(&self) -> Secret {
        let token = AccessToken {
            user_id: &self.user,
            audience: &self.audience,
            key_id: self.kid.as_deref(),
            issued_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            lifetime: self.life,
        };
        Secret::new(token.sign(&self.key))
    }
}

/// The text of a file with a token or a secret in it.
pub(super) fn read(file: &Path) -> Result<Secret, ClientCommandError> {
    let failed = |source| ClientCommandError::File { file: file.to_path_buf(), source };
    let length = fs::metadata(file).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(io::Error::other("it is too long")));
    }
    let text = fs::read_to_string(file).map_err(failed)?;
    if text.trim().is_empty() {
        return Err(failed(io::Error::other("it is empty")));
    }
    Ok(Secret::new(text.trim()))
}

/// Shows the service tokens of an [`Identity`].
pub(super) struct IdentityConnector {
    pub(super) endpoint: String,
    pub(super) identity: Identity,
}

#[async_trait]
impl Connector for IdentityConnector {
    async fn credentials(&self, _: CredentialsReason) -> Result<Option<Credentials>, TransportError> {
        let token = self.identity.token().map_err(|error| TransportError::Unreachable(error.into()))?;
        Ok(Some(Credentials::new(&self.endpoint, token.reveal())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_a_token_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = || read(&path).map(|secret| secret.reveal().to_owned()).map_err(|error| error.code());
        assert_eq!(read(), Err("CLIENT-0404"));
        fs::write(&path, " \n").unwrap();
        assert_eq!(read(), Err("CLIENT-0404"));
        fs::write(&path, "x".repeat(70_000)).unwrap();
        assert_eq!(read(), Err("CLIENT-0404"));
        fs::write(&path, " token\n").unwrap();
        assert_eq!(read(), Ok("token".to_owned()));
    }

    #[test]
    fn a_minted_token_says_who_for_whom_and_until_when() {
        let secret = Secret::new("c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA==");
        let mint = TokenMint::new("anna", &secret, Some("k".to_owned()), "app", Duration::from_mins(1)).unwrap();
        let token = mint.mint();
        let part = |index| {
            let part = token.reveal().split('.').nth(index).unwrap();
            serde_json::from_slice::<serde_json::Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!((&part(0)["alg"], &part(0)["kid"]), (&"HS256".into(), &"k".into()));
        let claims = part(1);
        assert_eq!((&claims["sub"], &claims["aud"]), (&"anna".into(), &"app".into()));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
    }
}
