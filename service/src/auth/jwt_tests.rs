use jsonwebtoken::EncodingKey;
use serde_json::json;

use super::*;
use crate::auth::{jwks::Jwk, test_keys};

fn keys() -> Vec<Key> {
    let jwks = [test_keys::rsa_jwk(), test_keys::ec_jwk(), test_keys::ed_jwk(), test_keys::secret_jwk()];
    jwks.into_iter().map(|jwk| serde_json::from_value::<Jwk>(jwk).unwrap().to_key(0).unwrap()).collect()
}

fn rules() -> TokenRules {
    TokenRules { audience: vec!["test".to_owned()], lifetime_max: Duration::from_hours(24) }
}

fn verify(token: &str) -> Result<Principal, AuthError> {
    UnverifiedToken::parse(token)?.verify(&keys(), &rules(), SystemTime::now())
}

fn verify_claims(claims: &Value) -> Result<Principal, AuthError> {
    verify(&test_keys::sign(claims, Algorithm::HS256, Some("secret"), &test_keys::secret()))
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = test_keys::claims("anna");
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = test_keys::claims("anna");
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn every_kind_of_key_is_accepted() {
    let claims = test_keys::claims("anna");
    for (algorithm, kid, key) in [
        (Algorithm::RS256, "rsa", test_keys::rsa()),
        (Algorithm::RS512, "rsa", test_keys::rsa()),
        (Algorithm::ES256, "ec", test_keys::ec()),
        (Algorithm::EdDSA, "ed", test_keys::ed()),
        (Algorithm::HS256, "secret", test_keys::secret()),
    ] {
        let principal = verify(&test_keys::sign(&claims, algorithm, Some(kid), &key)).unwrap();
        assert_eq!(principal.user_id, "anna", "{algorithm:?}");
        assert_eq!(test_keys::seconds_since_epoch(principal.expires_at), claims["exp"].as_u64().unwrap());
    }
}

#[test]
fn the_header_has_one_exact_form() {
    assert_eq!(extract(Some("Token a.b.c")), Ok("a.b.c"));
    assert_eq!(extract(Some("Bearer a.b.c")), Ok("a.b.c"));
    for header in ["", "Token", "Token ", "token a", "Basic a", "Token  a", "Token a b", "Token a\n", " Token a"] {
        assert_eq!(extract(Some(header)), Err(AuthError::Missing), "{header:?}");
    }
    assert_eq!(extract(None).unwrap_err().code(), "PSYNC_S2106");
}

#[test]
fn an_unsigned_token_is_refused() {
    let claims = BASE64_URL_SAFE_NO_PAD.encode(test_keys::claims("anna").to_string());
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"alg":"none","kid":"secret"}"#, r#"{"alg":""}"#] {
        let token = format!("{}.{claims}.", BASE64_URL_SAFE_NO_PAD.encode(header));
        assert!(matches!(verify(&token), Err(AuthError::UnknownKey { .. })), "{header}");
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    // Everything an attacker can know of the RSA key, used as an HMAC secret.
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(test_keys::rsa_jwk()["n"].as_str().unwrap()).unwrap();
    for secret in [modulus, test_keys::rsa_jwk()["n"].to_string().into_bytes()] {
        let key = EncodingKey::from_secret(&secret);
        let token = test_keys::sign(&test_keys::claims("anna"), Algorithm::HS256, Some("rsa"), &key);
        assert!(matches!(verify(&token), Err(AuthError::UnknownKey { .. })));
    }
}

#[test]
fn only_the_key_that_is_named_is_tried() {
    let claims = test_keys::claims("anna");
    let token = test_keys::sign(&claims, Algorithm::RS256, Some("ec"), &test_keys::rsa());
    assert!(matches!(verify(&token), Err(AuthError::UnknownKey { .. })));
    let token = test_keys::sign(&claims, Algorithm::RS256, Some("other"), &test_keys::rsa());
    assert!(matches!(verify(&token), Err(AuthError::UnknownKey { .. })));
    let other = EncodingKey::from_secret(b"another secret that has enough bytes for HS256");
    let token = test_keys::sign(&claims, Algorithm::HS256, Some("secret"), &other);
    assert_eq!(verify(&token).unwrap_err(), AuthError::Signature { kid: Some("secret".to_owned()) });
}

#[test]
fn a_key_without_id_is_tried_for_every_token() {
    let mut jwk = test_keys::rsa_jwk();
    jwk.as_object_mut().unwrap().remove("kid");
    let key = serde_json::from_value::<Jwk>(jwk).unwrap().to_key(0).unwrap();
    for kid in [None, Some("whatever")] {
        let token = test_keys::sign(&test_keys::claims("anna"), Algorithm::RS256, kid, &test_keys::rsa());
        let token = UnverifiedToken::parse(&token).unwrap();
        assert!(token.verify(std::slice::from_ref(&key), &rules(), SystemTime::now()).is_ok(), "{kid:?}");
    }
}

#[test]
fn claims_that_are_missing_or_wrong_are_refused_with_their_code() {
    let now = test_keys::seconds_since_epoch(SystemTime::now());
    for (claims, code) in [
        (without("sub"), "PSYNC_S2101"),
        (without("exp"), "PSYNC_S2101"),
        (without("iat"), "PSYNC_S2101"),
        (without("aud"), "PSYNC_S2105"),
        (with("sub", json!("")), "PSYNC_S2101"),
        (with("sub", json!(null)), "PSYNC_S2101"),
        (with("aud", json!("other")), "PSYNC_S2105"),
        (with("aud", json!(["other", 1])), "PSYNC_S2105"),
        (with("aud", json!("tes")), "PSYNC_S2105"),
        (with("exp", json!(now - 61)), "PSYNC_S2103"),
        (with("exp", json!("soon")), "PSYNC_S2101"),
        (with("exp", json!(1e300)), "PSYNC_S2104"),
        (with("exp", json!(now + 90_000)), "PSYNC_S2104"),
        (with("iat", json!(now - 90_000)), "PSYNC_S2104"),
        (with("nbf", json!(now + 120)), "PSYNC_S2101"),
        (with("parameters", json!("text")), "PSYNC_S2101"),
    ] {
        assert_eq!(verify_claims(&claims).map_err(|error| error.code()), Err(code), "{claims}");
    }
}

#[test]
fn clocks_may_differ_by_a_minute() {
    let now = test_keys::seconds_since_epoch(SystemTime::now());
    assert!(verify_claims(&with("exp", json!(now - 30))).is_ok());
    assert!(verify_claims(&with("nbf", json!(now + 30))).is_ok());
}

#[test]
fn one_of_several_audiences_is_enough_and_a_number_is_a_user() {
    assert!(verify_claims(&with("aud", json!(["other", "test"]))).is_ok());
    assert_eq!(verify_claims(&with("sub", json!(42))).unwrap().user_id, "42");
}

#[test]
fn a_claim_that_occurs_twice_is_refused() {
    let text = test_keys::claims("anna").to_string().replacen('{', r#"{"sub":"ben","#, 1);
    let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"secret"}"#);
    let message = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(text));
    let signature = crypto::sign(message.as_bytes(), &test_keys::secret(), Algorithm::HS256).unwrap();
    assert!(matches!(verify(&format!("{message}.{signature}")), Err(AuthError::Malformed(_))));
}

#[test]
fn malformed_tokens_are_refused() {
    let huge = "a".repeat(1024 * 1024);
    let bomb = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"#.to_owned() + &"[".repeat(5000));
    let deep = format!("{bomb}.e30.e30");
    let critical = format!("{}.e30.e30", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","crit":["exp"]}"#));
    for token in ["", ".", "..", "a.b", "a.b.c.d", "e30.e30.e30", "é.é.é", &huge, &deep, &critical] {
        assert!(matches!(verify(token), Err(AuthError::Malformed(_))), "{token:.20}");
    }
}
