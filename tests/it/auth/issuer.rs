//! Somebody who signs tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData};
use serde_json::{Value, json};

/// Audience of all tokens here.
pub(super) const AUDIENCE: &str = "kairos";

/// A key, private and public.
pub(super) struct Issuer {
    pub(super) kid: &'static str,
    pub(super) algorithm: Algorithm,
    pub(super) key: EncodingKey,
    /// The public key, or the secret.
    pub(super) jwk: Value,
}

impl Issuer {
    pub(super) fn elliptic(kid: &'static str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let (x, y) = pair.der_bytes()[1..].split_at(32);
        Self {
            kid,
            algorithm: Algorithm::ES256,
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
            jwk: json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": encode(x), "y": encode(y), "use": "sig"}),
        }
    }

    pub(super) fn edwards(kid: &'static str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        Self {
            kid,
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(&pair.serialize_der()),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(pair.der_bytes())}),
        }
    }

    /// Always the same key: making one takes seconds. It protects nothing.
    pub(super) fn rsa(kid: &'static str) -> Self {
        let key = EncodingKey::from_rsa_pem(include_bytes!("../fixtures/token-rsa.key")).expect("a key");
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::RS256).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = json!(kid);
        Self { kid, algorithm: Algorithm::RS256, key, jwk }
    }

    pub(super) fn secret(kid: &'static str) -> Self {
        let secret = b"a secret of more than thirty-two bytes, for tests";
        Self {
            kid,
            algorithm: Algorithm::HS256,
            key: EncodingKey::from_secret(secret),
            jwk: json!({"kty": "oct", "alg": "HS256", "kid": kid, "k": encode(secret)}),
        }
    }

    /// A token for a user, good for some minutes.
    pub(super) fn token(&self, user: &str) -> String {
        self.sign(&claims(user))
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("signs")
    }

    /// Signs exactly this text.
    pub(super) fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = [header, claims].map(encode).join(".");
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm).expect("signs");
        format!("{message}.{signature}")
    }
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Claims that are accepted.
pub(super) fn claims(user: &str) -> Value {
    json!({"sub": user, "aud": AUDIENCE, "iat": now(), "exp": now() + 600})
}

/// The claims of a user with one of them changed; `null` takes it away.
pub(super) fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims("anna");
    if value.is_null() {
        claims.as_object_mut().expect("an object").remove(name);
    } else {
        claims[name] = value;
    }
    claims
}
