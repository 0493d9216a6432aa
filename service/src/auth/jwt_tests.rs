use std::sync::Arc;

use jsonwebtoken::EncodingKey;
use serde_json::json;

use super::*;
use crate::auth::{jwks::Jwk, source::KeySet, test_keys};

fn key(jwk: Value) -> Key {
    serde_json::from_value::<Jwk>(jwk).unwrap().to_key(0).unwrap()
}

fn source(position: usize, keys: Vec<Key>) -> SourceKeys {
    (position, Arc::new(KeySet { keys, left_out: Vec::new() }))
}

fn sources() -> Vec<SourceKeys> {
    let jwks = [test_keys::rsa_jwk(), test_keys::ec_jwk(), test_keys::ed_jwk(), test_keys::secret_jwk()];
    vec![source(0, jwks.into_iter().map(key).collect())]
}

fn rules() -> TokenRules {
    TokenRules { audience: vec!["test".to_owned()], ..TokenRules::default() }
}

fn verify(token: &str) -> Result<Principal, AuthError> {
    let token = UnverifiedToken::parse(token)?;
    find_signer(&token, &sources())?;
    token.principal(&rules(), SystemTime::now())
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
        (Algorithm::RS384, "rsa", test_keys::rsa()),
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
fn each_size_of_a_secret_and_of_pss_is_accepted_where_the_key_says_so() {
    for algorithm in [Algorithm::HS384, Algorithm::HS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512] {
        let is_secret = matches!(algorithm, Algorithm::HS384 | Algorithm::HS512);
        let (mut jwk, signing) = if is_secret {
            (test_keys::secret_jwk(), test_keys::secret())
        } else {
            (test_keys::rsa_jwk(), test_keys::rsa())
        };
        jwk["alg"] = json!(format!("{algorithm:?}"));
        let kid = jwk["kid"].as_str().map(str::to_owned);
        let token = test_keys::sign(&test_keys::claims("anna"), algorithm, kid.as_deref(), &signing);
        let token = UnverifiedToken::parse(&token).unwrap();
        assert_eq!(find_signer(&token, &[source(7, vec![key(jwk)])]), Ok(7), "{algorithm:?}");
        let other = find_signer(&token, &sources()).unwrap_err();
        assert!(matches!(other, AuthError::OtherAlgorithm { .. }), "{algorithm:?}: {other}");
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    let claims = BASE64_URL_SAFE_NO_PAD.encode(test_keys::claims("anna").to_string());
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"alg":"none","kid":"secret"}"#, r#"{"alg":""}"#] {
        let token = format!("{}.{claims}.", BASE64_URL_SAFE_NO_PAD.encode(header));
        assert!(matches!(verify(&token), Err(AuthError::UnknownAlgorithm { .. })), "{header}");
    }
    let token = format!("{}.{claims}.", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"secret"}"#));
    assert!(matches!(verify(&token), Err(AuthError::Signature { .. })), "an empty signature");
}

#[test]
fn a_public_key_is_no_shared_secret() {
    // Everything an attacker can know of the RSA key, used as an HMAC secret.
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(test_keys::rsa_jwk()["n"].as_str().unwrap()).unwrap();
    for secret in [modulus, test_keys::rsa_jwk()["n"].to_string().into_bytes()] {
        let forger = EncodingKey::from_secret(&secret);
        for kid in [Some("rsa"), None] {
            let token = test_keys::sign(&test_keys::claims("anna"), Algorithm::HS256, kid, &forger);
            assert!(verify(&token).is_err_and(|error| error.code() == "PSYNC_S2101"));
            let unnamed = Key { kid: None, ..key(test_keys::rsa_jwk()) };
            let token = UnverifiedToken::parse(&token).unwrap();
            let error = find_signer(&token, &[source(0, vec![unnamed])]).unwrap_err();
            assert!(matches!(error, AuthError::UnknownKey { .. }), "{error}");
        }
    }
}

#[test]
fn only_the_key_that_is_named_is_tried() {
    let claims = test_keys::claims("anna");
    let token = test_keys::sign(&claims, Algorithm::RS256, Some("ec"), &test_keys::rsa());
    let expected =
        AuthError::OtherAlgorithm { kid: "ec".to_owned(), alg: "RS256".to_owned(), expected: "ES256".to_owned() };
    assert_eq!(verify(&token).unwrap_err(), expected);
    let token = test_keys::sign(&claims, Algorithm::RS256, Some("other"), &test_keys::rsa());
    assert!(matches!(verify(&token), Err(AuthError::UnknownKey { .. })));
    let other = EncodingKey::from_secret(b"another secret that has enough bytes for HS256");
    let token = test_keys::sign(&claims, Algorithm::HS256, Some("secret"), &other);
    assert_eq!(verify(&token).unwrap_err(), AuthError::Signature { kid: Some("secret".to_owned()) });
}

#[test]
fn of_two_keys_with_one_id_the_first_counts() {
    let impostor = Key { kid: Some("rsa".to_owned()), ..key(test_keys::secret_jwk()) };
    let both = [source(0, vec![key(test_keys::rsa_jwk())]), source(1, vec![impostor])];
    let forged = test_keys::sign(&test_keys::claims("anna"), Algorithm::HS256, Some("rsa"), &test_keys::secret());
    let forged = UnverifiedToken::parse(&forged).unwrap();
    assert!(matches!(find_signer(&forged, &both), Err(AuthError::OtherAlgorithm { .. })));
    let token = test_keys::sign(&test_keys::claims("anna"), Algorithm::RS256, Some("rsa"), &test_keys::rsa());
    assert_eq!(find_signer(&UnverifiedToken::parse(&token).unwrap(), &both), Ok(0));
}

#[test]
fn keys_without_id_are_tried_for_every_token_that_names_no_known_key() {
    let unnamed = |jwk| Key { kid: None, ..key(jwk) };
    let sources = [
        source(3, vec![unnamed(test_keys::ec_jwk()), key(test_keys::secret_jwk())]),
        source(4, vec![unnamed(test_keys::rsa_jwk())]),
    ];
    let claims = test_keys::claims("anna");
    for kid in [None, Some("whatever")] {
        let token = test_keys::sign(&claims, Algorithm::RS256, kid, &test_keys::rsa());
        assert_eq!(find_signer(&UnverifiedToken::parse(&token).unwrap(), &sources), Ok(4), "{kid:?}");
    }
    let token = test_keys::sign(&claims, Algorithm::HS256, None, &test_keys::secret());
    let error = find_signer(&UnverifiedToken::parse(&token).unwrap(), &sources).unwrap_err();
    assert!(matches!(error, AuthError::UnknownKey { .. }), "a key with an id is for tokens that name it: {error}");
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
        assert_eq!(verify_claims(&claims).err().map(|error| error.code()), Some(code), "{claims}");
    }
}

#[test]
fn a_token_from_the_future_does_not_live_longer() {
    let now = test_keys::seconds_since_epoch(SystemTime::now());
    let mut claims = with("iat", json!(now + 800_000));
    claims["exp"] = json!(now + 800_060);
    assert_eq!(verify_claims(&claims).err().map(|error| error.code()), Some("PSYNC_S2104"));
}

#[test]
fn the_issuer_must_be_one_of_those_where_any_are_named() {
    let rules = TokenRules { issuer: vec!["https://id.example/".to_owned()], ..rules() };
    for (claims, is_accepted) in [
        (with("iss", json!("https://id.example/")), true),
        (with("iss", json!("https://id.example")), false),
        (with("iss", json!(["https://id.example/"])), false),
        (without("iss"), false),
    ] {
        let token = test_keys::sign(&claims, Algorithm::HS256, Some("secret"), &test_keys::secret());
        let result = UnverifiedToken::parse(&token).unwrap().principal(&rules, SystemTime::now());
        assert_eq!(result.err(), (!is_accepted).then_some(AuthError::Issuer), "{claims}");
        assert!(verify(&token).is_ok(), "not looked at otherwise");
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

fn signed_text(header: &str, claims: &str) -> String {
    let message = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = crypto::sign(message.as_bytes(), &test_keys::secret(), Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

#[test]
fn a_claim_that_occurs_twice_is_refused() {
    let header = r#"{"alg":"HS256","kid":"secret"}"#;
    let claims = test_keys::claims("anna").to_string();
    assert!(verify(&signed_text(header, &claims)).is_ok());
    for twice in [r#"{"sub":"ben","#, r#"{"parameters":{"a":1,"a":2},"#] {
        let token = signed_text(header, &claims.replacen('{', twice, 1));
        assert!(matches!(verify(&token), Err(AuthError::Malformed(_))), "{twice}");
    }
    for header in [r#"{"alg":"HS256","alg":"HS256","kid":"secret"}"#, r#"{"alg":"HS256","kid":"other","kid":"secret"}"#]
    {
        assert!(matches!(verify(&signed_text(header, &claims)), Err(AuthError::Malformed(_))), "{header}");
    }
}

#[test]
fn malformed_tokens_are_refused() {
    let huge = "a".repeat(1024 * 1024);
    let bomb = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"#.to_owned() + &"[".repeat(5000));
    let deep = format!("{bomb}.e30.e30");
    for token in ["", ".", "..", "a.b", "a.b.c.d", "e30.e30.e30", "é.é.é", &huge, &deep] {
        assert!(matches!(verify(token), Err(AuthError::Malformed(_))), "{token:.20}");
    }
    let claims = test_keys::claims("anna").to_string();
    for header in [
        r#"{"alg":"HS256","kid":"secret","crit":["exp"],"exp":1}"#,
        r#"{"alg":"HS256","kid":"secret","crit":null}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"alg":["HS256"],"kid":"secret"}"#,
        r#"["HS256","secret",null]"#,
        r#"{"kid":"secret"}"#,
        &format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "x".repeat(300)),
    ] {
        assert!(matches!(verify(&signed_text(header, &claims)), Err(AuthError::Malformed(_))), "{header:.60}");
    }
}
