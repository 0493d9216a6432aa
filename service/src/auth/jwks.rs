//! Keys that verify tokens, from JSON Web Key Sets.
//!
//! A key knows which algorithms it may be used with; the token only chooses among them.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Shared secrets below this can be guessed from one token.
const SECRET_BYTES_MIN: usize = 32;
/// RSA moduli: below is breakable, above costs too much per request.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// One key.
#[derive(Clone)]
pub struct Key {
    /// Id by which tokens name it. Without one it is tried for every token.
    pub kid: Option<String>,
    /// What it may be used with.
    pub algorithms: Vec<Algorithm>,
    /// The key itself.
    pub decoding: DecodingKey,
}

/// A key in the form of JSON Web Keys. Unknown members are ignored, as the standard asks.
#[derive(Clone, Deserialize)]
pub struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

/// A set of keys.
#[derive(Clone, Deserialize)]
pub struct JwkSet {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// A key that cannot be used. Says nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key {name}: {problem}")]
pub struct InvalidKey {
    /// The key's id, or its position.
    pub name: String,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl Key {
    /// A shared secret as text, for HS256. Tokens need not name it.
    ///
    /// # Errors
    /// When it is too short.
    pub fn from_secret_text(secret: &str) -> Result<Self, String> {
        check_secret(secret.as_bytes())?;
        let decoding = DecodingKey::from_secret(secret.as_bytes());
        Ok(Self { kid: None, algorithms: vec![Algorithm::HS256], decoding })
    }

    /// Names of the algorithms it may be used with, as tokens have them.
    pub fn algorithm_names(&self) -> Vec<String> {
        self.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect()
    }
}

impl Jwk {
    /// The key, ready to verify, if it may come over the network.
    ///
    /// # Errors
    /// As [`Self::to_key`], and for shared secrets.
    pub fn to_public_key(&self, position: usize) -> Result<Key, InvalidKey> {
        if self.kty == "oct" {
            let problem = "a shared secret must not be published; write it under client_auth.jwks".to_owned();
            return Err(self.invalid(position, problem));
        }
        self.to_key(position)
    }

    /// Whether it is meant for verifying signatures at all.
    pub fn is_for_verifying(&self) -> bool {
        self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"))
    }

    /// The key, ready to verify.
    ///
    /// # Errors
    /// When it is incomplete, too weak, of an unknown kind, or its `alg` does not fit its kind.
    pub fn to_key(&self, position: usize) -> Result<Key, InvalidKey> {
        let (decoding, family) = match self.kty.as_str() {
            "oct" => self.secret(),
            "RSA" => self.rsa(),
            "EC" => self.elliptic(),
            "OKP" => self.edwards(),
            kty => Err(format!("kty `{kty}` is not supported: use RSA, EC, OKP or oct")),
        }
        .map_err(|problem| self.invalid(position, problem))?;
        let algorithms = self.algorithms(&family).map_err(|problem| self.invalid(position, problem))?;
        Ok(Key { kid: self.kid.clone(), algorithms, decoding })
    }

    fn invalid(&self, position: usize, problem: String) -> InvalidKey {
        let name = self.kid.clone().map_or_else(|| format!("number {}", position + 1), |kid| format!("`{kid}`"));
        InvalidKey { name, problem }
    }

    /// The one algorithm `alg` names; without it, those which are usual for the kind of key.
    fn algorithms(&self, family: &[Algorithm]) -> Result<Vec<Algorithm>, String> {
        let Some(name) = &self.alg else {
            // RSA-PSS only where the key asks for it.
            return Ok(family.iter().copied().filter(|algorithm| !is_pss(*algorithm)).collect());
        };
        let algorithm = name.parse().ok().filter(|algorithm| family.contains(algorithm));
        let algorithm: Algorithm = algorithm.ok_or_else(|| format!("alg `{name}` does not fit kty `{}`", self.kty))?;
        Ok(vec![algorithm])
    }

    fn secret(&self) -> Result<(DecodingKey, Vec<Algorithm>), String> {
        if self.alg.is_none() {
            return Err("a shared secret needs `alg`, such as HS256".to_owned());
        }
        let secret = bytes("k", self.k.as_deref())?;
        check_secret(&secret)?;
        Ok((DecodingKey::from_secret(&secret), vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]))
    }

    fn rsa(&self) -> Result<(DecodingKey, Vec<Algorithm>), String> {
        let (modulus, exponent) = (bytes("n", self.n.as_deref())?, bytes("e", self.e.as_deref())?);
        if !RSA_BYTES.contains(&modulus.len()) {
            return Err(format!("the RSA key has {} bits, allowed are 2048 to 8192", modulus.len() * 8));
        }
        let family = [
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ];
        Ok((DecodingKey::from_rsa_raw_components(&modulus, &exponent), family.to_vec()))
    }

    fn elliptic(&self) -> Result<(DecodingKey, Vec<Algorithm>), String> {
        let (length, algorithm) = match self.crv.as_deref() {
            Some("P-256") => (32, Algorithm::ES256),
            Some("P-384") => (48, Algorithm::ES384),
            _ => return Err("crv must be P-256 or P-384".to_owned()),
        };
        let (x, y) = (self.x.as_deref(), self.y.as_deref());
        if bytes("x", x)?.len() != length || bytes("y", y)?.len() != length {
            return Err(format!("x and y must have {length} bytes each"));
        }
        let key = DecodingKey::from_ec_components(x.unwrap_or_default(), y.unwrap_or_default())
            .map_err(|_| "x and y are not a point".to_owned())?;
        Ok((key, vec![algorithm]))
    }

    fn edwards(&self) -> Result<(DecodingKey, Vec<Algorithm>), String> {
        let x = self.x.as_deref();
        if self.crv.as_deref() != Some("Ed25519") || bytes("x", x)?.len() != 32 {
            return Err("crv must be Ed25519, and x must have 32 bytes".to_owned());
        }
        let key =
            DecodingKey::from_ed_components(x.unwrap_or_default()).map_err(|_| "x is not base64url".to_owned())?;
        Ok((key, vec![Algorithm::EdDSA]))
    }
}

fn check_secret(secret: &[u8]) -> Result<(), String> {
    if secret.len() >= SECRET_BYTES_MIN {
        return Ok(());
    }
    Err(format!(
        "the shared secret has {} bytes, at least {SECRET_BYTES_MIN} are needed: make one with `kairos-sync auth keygen`",
        secret.len()
    ))
}

const fn is_pss(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512)
}

fn bytes(member: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("`{member}` is missing"))?;
    BASE64_URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|_| format!("`{member}` is not base64url: `-` and `_` instead of `+` and `/`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::test_keys;

    fn problem(jwk: serde_json::Value) -> String {
        let jwk: Jwk = serde_json::from_value(jwk).unwrap();
        jwk.to_key(0).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_short_shared_secret_is_refused_and_named() {
        let problem = problem(json!({"kty": "oct", "alg": "HS256", "kid": "weak", "k": "c2hvcnQ"}));
        assert!(problem.starts_with("key `weak`: the shared secret has 5 bytes"), "{problem}");
        assert!(!problem.contains("c2hvcnQ"), "the secret is not printed");
    }

    #[test]
    fn a_shared_secret_needs_its_algorithm() {
        let secret = BASE64_URL_SAFE_NO_PAD.encode([7; 32]);
        assert_eq!(
            problem(json!({"kty": "oct", "k": secret})),
            "key number 1: a shared secret needs `alg`, such as HS256"
        );
        assert_eq!(problem(json!({"kty": "oct", "alg": "HS256", "k": secret})), "");
    }

    #[test]
    fn the_algorithm_must_fit_the_kind_of_key() {
        let mut jwk = test_keys::rsa_jwk();
        jwk["alg"] = json!("HS256");
        assert!(problem(jwk).ends_with("alg `HS256` does not fit kty `RSA`"));
        let mut jwk = test_keys::ec_jwk();
        jwk["alg"] = json!("ES384");
        assert!(problem(jwk).ends_with("alg `ES384` does not fit kty `EC`"));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for (jwk, expected) in [
            (json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}), "the RSA key has 24 bits"),
            (json!({"kty": "RSA", "e": "AQAB"}), "`n` is missing"),
            (json!({"kty": "EC", "crv": "P-521"}), "crv must be"),
            (json!({"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}), "32 bytes"),
            (json!({"kty": "OKP", "crv": "Ed25519", "x": "+/"}), "not base64url"),
            (json!({"kty": "none"}), "kty `none`"),
        ] {
            let problem = problem(jwk);
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
