use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;
use crate::auth::{
    KeySource,
    introspection::test_issuer::{introspection, issuer},
    jwks::Jwk,
    test_keys::{self, claims, seconds_since_epoch, sign},
};

/// Accepts what the key `secret` signed, and what those say who are at these addresses.
fn authenticator(urls: &[&str], more: Option<KeySource>) -> Authenticator {
    let jwk: Jwk = serde_json::from_value(test_keys::secret_jwk()).unwrap();
    let rules = TokenRules { audience: vec!["test".to_owned()], ..TokenRules::default() };
    let given = KeySource { keys: KeyOrigin::Given(vec![jwk.to_key(0).unwrap()]), rules };
    let config = AuthConfig {
        sources: [given].into_iter().chain(more).collect(),
        introspections: urls.iter().map(|url| introspection(url)).collect(),
        ..AuthConfig::default()
    };
    Authenticator::new(config, &Metrics::new()).unwrap()
}

async fn code(authenticator: &Authenticator, token: &str) -> &'static str {
    authenticator.examine(token).await.result.err().map_or("accepted", |error| error.code())
}

#[tokio::test]
async fn what_a_key_decides_is_not_shown_to_an_issuer() {
    let issuer = issuer().await;
    let authenticator = authenticator(&[&issuer.url], None);
    let (key, other) = (test_keys::secret(), test_keys::ec());
    let named = |claims| sign(&claims, Algorithm::HS256, Some("secret"), &key);
    let mut foreign = claims("ann");
    foreign["aud"] = json!("another");
    let forged = format!("{}x", named(claims("ann")));
    let confused = sign(&claims("ann"), Algorithm::ES256, Some("secret"), &other);
    for (token, expected) in [
        (named(claims("ann")), "accepted"),
        (named(foreign), "PSYNC_S2105"),
        (forged, "PSYNC_S2101"),
        (confused, "PSYNC_S2101"),
    ] {
        assert_eq!(code(&authenticator, &token).await, expected, "{token}");
    }
    assert_eq!(issuer.questions.load(SeqCst), 0);
    for token in ["opaque".to_owned(), sign(&claims("ann"), Algorithm::ES256, Some("unknown"), &other)] {
        let Examined { signer, result } = authenticator.examine(&token).await;
        let principal = result.unwrap();
        assert_eq!((signer, principal.user_id.as_str()), (None, token.as_str()));
        assert_eq!(principal.claims.keys().collect::<Vec<_>>(), ["sub"], "the token's own claims prove nothing");
        assert!(principal.is_confirmed().await);
    }
    assert_eq!(issuer.questions.load(SeqCst), 2);
}

#[tokio::test]
async fn a_confirmed_token_ends_when_it_says_and_within_a_day() {
    let issuer = issuer().await;
    let authenticator = authenticator(&[&issuer.url], None);
    let now = SystemTime::now();
    let token = |end: SystemTime| {
        let claims = json!({"id": "ann", "exp": seconds_since_epoch(end)});
        sign(&claims, Algorithm::HS256, None, &jsonwebtoken::EncodingKey::from_secret(b"of somebody else"))
    };
    assert_eq!(code(&authenticator, &token(now - Duration::from_mins(2))).await, "PSYNC_S2103");
    assert_eq!(issuer.questions.load(SeqCst), 0, "nobody is asked about what is over");
    let expires = async |token: &str| authenticator.examine(token).await.result.unwrap().expires_at;
    let hour = now + Duration::from_hours(1);
    assert_eq!(seconds_since_epoch(expires(&token(hour)).await), seconds_since_epoch(hour));
    for long in [token(now + Duration::from_hours(120)), "opaque".to_owned()] {
        let life = expires(&long).await.duration_since(now).unwrap();
        assert!((LIFETIME_MAX..LIFETIME_MAX + Duration::from_mins(5)).contains(&life), "{life:?}");
    }
}

#[tokio::test]
async fn the_first_yes_counts_and_one_that_is_silent_is_not_spoken_for() {
    let issuer = issuer().await;
    let away = "http://127.0.0.1:1/me";
    for urls in [[&issuer.url, away], [away, &issuer.url]] {
        let authenticator = authenticator(&urls, None);
        assert_eq!(code(&authenticator, "ann").await, "accepted", "{urls:?}");
        assert_eq!(code(&authenticator, "401").await, "AUTH-0101", "{urls:?}");
    }
    assert_eq!(code(&authenticator(&[], None), "ann").await, "PSYNC_S2101");
    // Keys that are not to be had may be those of this token.
    let keys = KeySource { keys: KeyOrigin::Fetched(away.to_owned()), rules: TokenRules::default() };
    let token = sign(&claims("ann"), Algorithm::ES256, Some("ec"), &test_keys::ec());
    assert_eq!(code(&authenticator(&[&issuer.url], Some(keys.clone())), &token).await, "accepted");
    let refusing = issuer.url.replace("/me", "/nothing");
    assert_eq!(code(&authenticator(&[&refusing], Some(keys)), &token).await, "PSYNC_S2204");
}
