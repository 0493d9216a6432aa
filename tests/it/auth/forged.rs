//! T44: tokens that must not be accepted, at the running service.

use std::{collections::BTreeSet, process::Command, time::Duration};

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey};
use kairos_tests::service::service_binary;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    issuer::{AUDIENCE, Issuer, claims, claims_with, encode, now},
    key_endpoint::{Answer, KeyEndpoint},
    service::{Service, keys_from, write_config},
};

const ISSUER: &str = "https://id.example";

/// A service that takes keys of all kinds, given and fetched, and tokens of one issuer.
async fn service(rsa: &Issuer, secret: &Issuer) -> (Service, KeyEndpoint) {
    let endpoint = KeyEndpoint::start(Answer::keys(&[rsa])).await;
    let given = format!("{}  issuer: {ISSUER}\n  jwks: {{ keys: [{}] }}\n", keys_from(&[&endpoint]), secret.jwk);
    (Service::start(&given).await, endpoint)
}

fn of_issuer(mut claims: Value) -> Value {
    if claims.get("iss").is_none() {
        claims["iss"] = json!(ISSUER);
    }
    claims
}

#[tokio::test]
async fn t44_every_kind_of_key_is_accepted() {
    let issuers = [Issuer::rsa("rsa"), Issuer::elliptic("ec"), Issuer::edwards("ed")];
    let endpoint = KeyEndpoint::start(Answer::keys(&issuers.each_ref())).await;
    let secret = Issuer::secret("secret");
    let service = Service::start(&format!("{}  jwks: {{ keys: [{}] }}\n", keys_from(&[&endpoint]), secret.jwk)).await;
    for issuer in issuers.iter().chain([&secret]) {
        assert_eq!(service.refusal(&issuer.token("anna")).await, None, "{:?}", issuer.algorithm);
    }
    assert_eq!(endpoint.count(), 1);
}

/// Tokens that are refused, each with the name of the attack. `evil` is where the attacker publishes its key.
fn attacks(rsa: &Issuer, secret: &Issuer, attacker: &Issuer, evil: &str) -> Vec<(&'static str, String)> {
    let good = of_issuer(claims("anna"));
    let as_secret = |secret: &[u8], kid| Issuer {
        kid,
        algorithm: Algorithm::HS256,
        key: EncodingKey::from_secret(secret),
        jwk: Value::Null,
    };
    let modulus = rsa.jwk["n"].as_str().expect("text");
    let text = good.to_string();
    let signed = |header: &str| secret.sign_text(header, &text);
    let elsewhere = |member: &str| {
        let header = json!({"alg": "ES256", "kid": "attacker", member: evil});
        attacker.sign_text(&header.to_string(), &text)
    };
    let twice = |member: &str| secret.sign_text(r#"{"alg":"HS256","kid":"secret"}"#, &text.replacen('{', member, 1));
    let unsigned = |header: &str| format!("{}.{}.", encode(header), encode(&text));
    let mut other_claims = rsa.sign(&good);
    let signature = other_claims.rsplit('.').next().expect("three parts").to_owned();
    other_claims = format!(
        "{}.{}.{signature}",
        other_claims.split('.').next().expect("a header"),
        encode(text.replace("anna", "ben"))
    );
    vec![
        ("alg none", unsigned(r#"{"alg":"none"}"#)),
        ("alg none for a known key", unsigned(r#"{"alg":"nOnE","kid":"rsa"}"#)),
        ("no signature", unsigned(r#"{"alg":"HS256","kid":"secret"}"#)),
        ("the public key's modulus as secret", as_secret(modulus.as_bytes(), "rsa").sign(&good)),
        ("the public key's text as secret", as_secret(rsa.jwk.to_string().as_bytes(), "rsa").sign(&good)),
        ("another secret", as_secret(b"a guess with more than thirty-two bytes in it", "secret").sign(&good)),
        ("signature of other claims", other_claims),
        ("unknown kid", attacker.sign(&good)),
        ("jku", elsewhere("jku")),
        ("x5u", elsewhere("x5u")),
        (
            "jwk",
            attacker.sign_text(&json!({"alg": "ES256", "kid": "attacker", "jwk": attacker.jwk}).to_string(), &text),
        ),
        ("critical extensions", signed(r#"{"alg":"HS256","kid":"secret","crit":["b64"],"b64":true}"#)),
        ("kid twice", signed(r#"{"alg":"HS256","kid":"rsa","kid":"secret"}"#)),
        ("sub twice", twice(r#"{"sub":"ben","#)),
        ("a parameter twice", twice(r#"{"parameters":{"team":1,"team":2},"#)),
        ("empty sub", secret.sign(&of_issuer(claims_with("sub", json!(""))))),
        ("no sub", secret.sign(&of_issuer(claims_with("sub", Value::Null)))),
        ("no exp", secret.sign(&of_issuer(claims_with("exp", Value::Null)))),
        ("no iat", secret.sign(&of_issuer(claims_with("iat", Value::Null)))),
        ("not before", secret.sign(&of_issuer(claims_with("nbf", json!(now() + 300))))),
        ("wrong issuer", secret.sign(&claims_with("iss", json!("https://id.example/")))),
        ("no issuer", secret.sign(&claims("anna"))),
        ("20 kB", "x".repeat(20_000)),
        ("50 kB", "x".repeat(50_000)),
        ("no token at all", "..".to_owned()),
        ("nested deep", format!("{}.e30.e30", encode("[".repeat(5000)))),
    ]
}

#[tokio::test]
async fn t44_forged_tokens_are_refused_with_the_same_answer() {
    let (rsa, secret) = (Issuer::rsa("rsa"), Issuer::secret("secret"));
    let (service, endpoint) = service(&rsa, &secret).await;
    let good = of_issuer(claims("anna"));
    assert_eq!(service.refusal(&secret.sign(&good)).await, None, "otherwise nothing here says anything");
    assert_eq!(service.refusal(&rsa.sign(&good)).await, None);

    let attacker = Issuer::elliptic("attacker");
    let evil = KeyEndpoint::start(Answer::keys(&[&attacker])).await;
    let attacks = attacks(&rsa, &secret, &attacker, &evil.uri());
    let mut answers = BTreeSet::new();
    for (attack, token) in &attacks {
        let (status, body) = service.open(Some(&format!("Bearer {token}"))).await;
        assert_eq!(status, 401, "{attack}");
        answers.insert(body.to_string());
    }
    let expected = json!({"error": {
        "code": "PSYNC_S2101", "status": 401, "description": "Authorization failed", "name": "AuthorizationError",
    }});
    assert_eq!(answers, BTreeSet::from([expected.to_string()]));
    assert_eq!(service.refused("PSYNC_S2101").await, attacks.len() as u64);
    assert_eq!((endpoint.count(), evil.count()), (1, 0), "a token does not say where its key is");
    let log = service.log();
    assert!(log.contains("request refused"), "{log}");
    for (attack, token) in &attacks {
        let signature = token.rsplit('.').next().filter(|part| part.len() > 20);
        assert!(signature.is_none_or(|part| !log.contains(part)), "the log has the token: {attack}");
    }
}

/// These have codes of their own, which clients act upon; only who holds a token that was once signed for somebody sees
/// them. All else is the same.
#[tokio::test]
async fn t44_expired_too_long_and_for_others_have_their_codes_and_else_the_same_answer() {
    let (rsa, secret) = (Issuer::rsa("rsa"), Issuer::secret("secret"));
    let (service, _endpoint) = service(&rsa, &secret).await;
    let token = |name: &str, value: Value| format!("Token {}", secret.sign(&of_issuer(claims_with(name, value))));
    for (header, code) in [
        (Some(token("exp", json!(now() - 61))), "PSYNC_S2103"),
        (Some(token("iat", json!(now() - 90_000))), "PSYNC_S2104"),
        (Some(token("exp", json!(now() + 100_000))), "PSYNC_S2104"),
        (Some(token("aud", json!("other"))), "PSYNC_S2105"),
        (Some(token("aud", Value::Null)), "PSYNC_S2105"),
        (Some("Basic YW5uYTpwYXNz".to_owned()), "PSYNC_S2106"),
        (Some(format!("token {}", secret.token("anna"))), "PSYNC_S2106"),
        (None, "PSYNC_S2106"),
    ] {
        let before = service.refused(code).await;
        let (status, mut body) = service.open(header.as_deref()).await;
        assert_eq!((status, body["error"]["code"].take()), (401, json!(code)));
        let expected = json!({"error": {
            "code": null, "status": 401, "description": "Authorization failed", "name": "AuthorizationError",
        }});
        assert_eq!(body, expected);
        assert_eq!(service.refused(code).await, before + 1);
    }
}

/// So much is not read before it is known who sends it: the answer is that of the HTTP server.
#[tokio::test]
async fn t44_a_token_of_a_mebibyte_is_refused_unread() {
    let secret = Issuer::secret("secret");
    let service = Service::start(&format!("  audience: [{AUDIENCE}]\n  jwks: {{ keys: [{}] }}\n", secret.jwk)).await;
    service.warm_up(&secret.token("anna")).await;
    let memory = service.memory();
    let request = service.http.post(format!("{}/sync/stream", service.process.endpoint()));
    match request.header("authorization", format!("Token {}", "x".repeat(1 << 20))).send().await {
        Ok(response) => assert_eq!(response.status(), 431),
        // It hung up while we were sending.
        Err(error) => assert!(error.is_request() || error.is_body(), "{error:?}"),
    }
    let grown = memory.grown();
    println!("a token of 1 MiB: {} KiB more", grown / 1024);
    assert!(grown < 2 << 20, "{grown} bytes more");
    assert_eq!(service.refusal(&secret.token("anna")).await, None, "others are served");
}

#[tokio::test]
async fn t44_a_flood_of_unknown_keys_makes_one_fetch_per_half_minute() {
    let (rsa, attacker) = (Issuer::rsa("rsa"), Issuer::elliptic("unknown"));
    let endpoint = KeyEndpoint::start(Answer::keys(&[&rsa])).await;
    let service = Service::start(&keys_from(&[&endpoint])).await;
    let began = Instant::now();
    assert_eq!(service.refusal(&rsa.token("anna")).await, None);
    for round in 0..8 {
        let header = |n: usize| format!(r#"{{"alg":"ES256","kid":"unknown {round} {n}"}}"#);
        let tokens = (0..50).map(|n| attacker.sign_text(&header(n), &claims("anna").to_string()));
        let codes = join_all(tokens.map(async |token| service.refusal(&token).await)).await;
        assert!(codes.iter().all(|code| code.as_deref() == Some("PSYNC_S2101")), "{codes:?}");
    }
    assert_eq!(service.refusal(&rsa.token("anna")).await, None, "known keys work meanwhile");
    let allowed = 1 + began.elapsed().as_secs() / 30;
    println!("400 unknown keys in {:?}: {} fetches", began.elapsed(), endpoint.count());
    assert!(endpoint.count() as u64 <= allowed, "{} fetches", endpoint.count());
}

#[tokio::test]
async fn t44_a_weak_secret_in_the_configuration_refuses_to_start() {
    for (client_auth, secret) in [
        (
            format!("  jwks: {{ keys: [{{ kty: oct, alg: HS256, kid: weak, k: {} }}] }}\n", encode("hunter2")),
            encode("hunter2"),
        ),
        ("  supabase: true\n  supabase_jwt_secret: hunter2\n".to_owned(), "hunter2".to_owned()),
    ] {
        let (_folder, config) = write_config(&client_auth, 1);
        let run = move || Command::new(service_binary()).args(["serve", "-c"]).arg(&config).output();
        let started = tokio::task::spawn_blocking(run);
        let output =
            tokio::time::timeout(Duration::from_mins(1), started).await.expect("ends").expect("runs").expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("CONF-0107") && said.contains("at least 32 are needed"), "{said}");
        assert!(said.contains("kairos.yaml:") && !said.contains(&secret), "{said}");
    }
}
