//! `auth check` and `auth keygen` as an operator runs them.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey};
use kairos_tests::service::service_binary;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    issuer::{AUDIENCE, Issuer, claims, claims_with, now},
    key_endpoint::{Answer, KeyEndpoint},
    service::write_config,
};

/// Runs `auth` with these arguments in a folder, and with this on its standard input.
async fn auth(folder: &TempDir, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(service_binary());
    command.arg("auth").args(arguments).current_dir(folder.path()).env_remove("POWERSYNC_CONFIG_PATH");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("runs");
        // One that does not read has its reasons.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        child.wait_with_output().expect("ends")
    });
    timeout(Duration::from_mins(1), run).await.expect("ends").expect("runs")
}

/// The verdict about a token as JSON, and as an exit code. Neither form shows the token or its signature.
async fn check(folder: &TempDir, token: &str) -> (Option<i32>, Value) {
    let text = auth(folder, &["check"], token).await;
    let report = auth(folder, &["check", "--json", "-"], token).await;
    assert_eq!(text.status.code(), report.status.code(), "{text:?}");
    for output in [&text, &report] {
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for part in token.split('.').filter(|part| part.len() > 20) {
            assert!(!said.contains(part), "a part of the token is printed: {said}");
        }
    }
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let mut json: Value = serde_json::from_slice(&report.stdout).unwrap_or_else(|error| panic!("{error}: {report:?}"));
    json["text"] = json!(text);
    (report.status.code(), json)
}

fn given(keys: &Value) -> String {
    format!("  audience:\n    - {AUDIENCE}\n  issuer: https://id.example\n  jwks:\n    keys: [{keys}]\n")
}

fn signed(mut claims: Value) -> Value {
    if claims.get("iss").is_none() {
        claims["iss"] = json!("https://id.example");
    }
    claims
}

#[tokio::test]
async fn a_good_token_says_whom_it_makes_one() {
    let issuer = Issuer::secret("key-1");
    let (folder, _) = write_config(&given(&issuer.jwk), 1);
    let mut claims = signed(claims("anna"));
    claims["parameters"] = json!({"team": 7});
    let token = issuer.sign(&claims);
    let (exit, report) = check(&folder, &token).await;
    assert_eq!((exit, &report["verdict"], &report["user_id"]), (Some(0), &json!("accepted"), &json!("anna")));
    assert_eq!((&report["parameters"], &report["expires_at"]), (&json!({"team": 7}), &claims["exp"]));
    assert_eq!((&report["claims"], &report["signed_by"]), (&claims, &json!("client_auth.jwks")));
    assert_eq!(report["keys"][0]["found"], json!([{"kid": "key-1", "algorithms": ["HS256"]}]));
    let text = report["text"].as_str().expect("text");
    assert!(text.starts_with("accepted: user \"anna\"; the token expires in 9 minutes\n"), "{text}");
    assert!(text.contains("token_parameters {\"team\":7}") && text.contains("kid \"key-1\": HS256"), "{text}");
    // As argument, and as people copy it.
    for form in
        [token.clone(), format!("Bearer {token}"), format!("Authorization: Token {token}\n"), format!("\"{token}\"")]
    {
        assert_eq!(auth(&folder, &["check", &form], "").await.status.code(), Some(0));
    }
}

#[tokio::test]
async fn what_fails_is_named_with_the_line_that_mends_it() {
    let issuer = Issuer::secret("key-1");
    let (folder, path) = write_config(&given(&issuer.jwk), 1);
    let forged =
        Issuer { kid: "key-1", algorithm: Algorithm::HS256, key: EncodingKey::from_secret(&[7; 40]), jwk: Value::Null };
    let sign = |name: &str, value: Value| issuer.sign(&signed(claims_with(name, value)));
    let none = Value::Null;
    for (token, code, line, words) in [
        (sign("aud", json!(["app", "web"])), "PSYNC_S2105", Some("audience:"), "allow it"),
        (sign("aud", none.clone()), "PSYNC_S2105", None, "one of: kairos"),
        (sign("iss", json!("https://other.example")), "PSYNC_S2101", Some("issuer:"), "allow it"),
        (sign("exp", json!(now() - 100)), "PSYNC_S2103", None, "get a new token"),
        (sign("exp", json!(now() + 90_000)), "PSYNC_S2104", None, "at most 86400 seconds"),
        (sign("sub", none), "PSYNC_S2101", None, "`sub`"),
        (forged.sign(&signed(claims("anna"))), "PSYNC_S2101", Some("client_auth:"), "another key"),
        (Issuer::elliptic("key-2").token("anna"), "PSYNC_S2101", Some("jwks:"), "no source has the key"),
        (Issuer::elliptic("key-1").token("anna"), "PSYNC_S2101", Some("client_auth:"), "correct `alg`"),
        ("not.a.token".to_owned(), "PSYNC_S2101", None, "signed token"),
    ] {
        let (exit, report) = check(&folder, &token).await;
        assert_eq!(
            (exit, &report["verdict"], &report["error"]["code"]),
            (Some(1), &json!("refused"), &json!(code)),
            "{report:#}"
        );
        let remedy = &report["remedy"];
        let text = report["text"].as_str().expect("text");
        assert!(remedy["help"].as_str().expect("help").contains(words) && text.contains(words), "{words}: {report:#}");
        let config = fs::read_to_string(&path).expect("the configuration");
        let number = line.map(|line| {
            1 + config.lines().position(|text| text.trim_start().starts_with(line)).expect("the line is there")
        });
        let place =
            remedy["place"].as_str().map(|place| place.split(':').nth(1).expect("a line").parse().expect("a number"));
        assert_eq!(place, number, "{words}: {report:#}");
    }
    // What it says to write does it.
    let token = sign("aud", json!(["app", "web"]));
    let (_, report) = check(&folder, &token).await;
    let write = report["remedy"]["write"].as_str().expect("a line");
    let config = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, config.replace(&format!("audience:\n    - {AUDIENCE}"), write)).expect("writes");
    assert_eq!(check(&folder, &token).await.0, Some(0), "{write}");
}

#[tokio::test]
async fn remote_keys_are_fetched_and_told_of() {
    let (good, secret) = (Issuer::elliptic("good"), Issuer::secret("published"));
    let endpoint = KeyEndpoint::start(Answer::keys(&[&good, &secret])).await;
    let (folder, _) = write_config(&format!("  audience: {AUDIENCE}\n  jwks_uri: {}\n", endpoint.uri()), 1);
    let (exit, report) = check(&folder, &good.token("anna")).await;
    assert_eq!(exit, Some(0), "{report:#}");
    let keys = &report["keys"][0];
    assert_eq!(keys["found"], json!([{"kid": "good", "algorithms": ["ES256"]}]));
    assert!(keys["left_out"][0].as_str().expect("a reason").contains("must not be published"), "{report:#}");
    assert_eq!(keys["uri"], json!(endpoint.uri()));
    // What is not there says nothing about the token.
    for answer in
        [Answer::Status(404), Answer::Redirect("/".to_owned()), Answer::Body("<html>".to_owned(), Duration::ZERO)]
    {
        endpoint.answer(answer);
        let (exit, report) = check(&folder, &good.token("anna")).await;
        assert_eq!(
            (exit, &report["verdict"], &report["error"]["code"]),
            (Some(2), &json!("unknown"), &json!("PSYNC_S2204"))
        );
        assert!(report["remedy"]["place"].as_str().expect("a place").contains("kairos.yaml:7:"), "{report:#}");
        assert!(report["text"].as_str().expect("text").contains("(not proven)"), "{report:#}");
    }
}

#[tokio::test]
async fn what_cannot_be_found_out_is_no_verdict() {
    let (folder, _) = write_config("  audience: kairos\n", 1);
    for (arguments, input, code) in [
        (vec!["check"], "", "CONF-0310"),
        (vec!["check", "Bearer "], "", "CONF-0310"),
        (vec!["check", "a.b.c", "-c", "none.yaml"], "", "CONF-0101"),
    ] {
        let output = auth(&folder, &arguments, input).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(code), "{said}");
    }
    let (exit, report) = check(&folder, &Issuer::elliptic("a").token("anna")).await;
    assert_eq!(exit, Some(1));
    let text = report["text"].as_str().expect("text");
    assert!(text.contains("there are no keys") && text.contains("warning: client_auth has no keys"), "{text}");
}

#[tokio::test]
async fn a_fresh_secret_is_ready_to_use() {
    let (folder, path) = write_config("  audience: nobody\n", 1);
    let output = auth(&folder, &["keygen"], "").await;
    assert_eq!(output.status.code(), Some(0));
    let section = String::from_utf8(output.stdout).expect("text");
    let config = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, config.replace("client_auth:\n  audience: nobody\n", &section)).expect("writes");
    let (exit, report) = check(&folder, &Issuer::secret("kairos-1").token("anna")).await;
    assert_eq!((exit, &report["error"]["code"]), (Some(1), &json!("PSYNC_S2101")), "another secret");
    assert_eq!(report["keys"][0]["found"], json!([{"kid": "kairos-1", "algorithms": ["HS256"]}]));
    assert_eq!(report["text"].as_str().expect("text").matches("warning").count(), 0, "{report:#}");
}
