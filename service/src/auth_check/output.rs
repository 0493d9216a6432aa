//! The report for people and for programs.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{Found, FoundKey, FoundKeys, Issuer, Report, Verdict};
use crate::auth::Principal;

/// Who it is or what fails, what to do, then what the token says and which keys there are.
pub(super) fn text(report: &Report, warnings: &[String]) -> String {
    let mut out = verdict(report);
    if let Some(remedy) = &report.remedy {
        let _ = writeln!(out, "  {}", remedy.help);
        if let (Some(place), Some(setting)) = (&remedy.place, &remedy.setting) {
            let _ = writeln!(out, "  {place}: {}", remedy.write.as_ref().unwrap_or(setting));
        }
    }
    if let Some(header) = &report.header {
        let kid = header.kid.as_ref().map_or("no kid".to_owned(), |kid| format!("kid {kid:?}"));
        let _ = writeln!(out, "token: {}, {kid}", header.alg);
    }
    if let Some(claims) = &report.claims {
        let is_proven = if report.signer.is_some() || report.result.is_ok() { "" } else { " (not proven)" };
        let _ = writeln!(out, "claims{is_proven}:");
        for (name, value) in claims {
            // Values are JSON, which escapes what a terminal would obey; names are not.
            let (shown, time) = (name.escape_debug(), time_of(name, value, report.checked_at));
            let _ = writeln!(out, "  {shown}: {value}{time}");
        }
    }
    for (position, source) in report.sources.iter().enumerate() {
        out += &source_text(source, report.signer == Some(position));
    }
    for Issuer { setting, url } in &report.issuers {
        let _ = writeln!(out, "tokens that no key is for are shown to {} at {}: {url}", setting.key, setting.place);
    }
    for warning in warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

fn verdict(report: &Report) -> String {
    match (&report.result, report.verdict()) {
        (Ok(principal), _) => {
            let Principal { user_id, claims, expires_at, .. } = principal;
            let expires = from_now(*expires_at, report.checked_at);
            let parameters = claims.get("parameters").map(|value| format!(", token_parameters {value}"));
            format!(
                "accepted: user {user_id:?}; the token expires {expires}\n  rules see auth.user_id() {user_id:?}, \
                 auth.parameters() with all claims below{}\n",
                parameters.unwrap_or_default()
            )
        }
        (Err(error), Verdict::Unknown) => format!("not known: {error} [{}]\n", error.code()),
        (Err(error), _) => format!("refused: {error} [{}]\n", error.code()),
    }
}

fn source_text(source: &FoundKeys, is_signer: bool) -> String {
    let FoundKeys { setting, uri, result } = source;
    let from = uri.as_ref().map(|uri| format!(" from {uri}")).unwrap_or_default();
    let signed = if is_signer { ", one of which signed the token" } else { "" };
    let mut out = format!("keys of {} at {}{from}{signed}:\n", setting.key, setting.place);
    match result {
        Ok(Found { keys, left_out }) => {
            for FoundKey { kid, algorithms } in keys {
                let kid = kid.as_ref().map_or("without kid".to_owned(), |kid| format!("kid {kid:?}"));
                let _ = writeln!(out, "  {kid}: {}", algorithms.join(", "));
            }
            for reason in left_out {
                let _ = writeln!(out, "  left out: {reason}");
            }
            if keys.is_empty() && left_out.is_empty() {
                out += "  none\n";
            }
        }
        Err(error) => {
            let _ = writeln!(out, "  {error} [{}]", error.code());
        }
    }
    out
}

/// One JSON object.
pub(super) fn json(report: &Report) -> String {
    let verdict = match report.verdict() {
        Verdict::Accepted => "accepted",
        Verdict::Refused => "refused",
        Verdict::Unknown => "unknown",
    };
    let mut object = json!({ "verdict": verdict, "claims": report.claims, "keys": report.sources.iter().map(source_json).collect::<Vec<_>>() });
    if let Some(header) = &report.header {
        object["token"] = json!({ "alg": header.alg, "kid": header.kid });
    }
    if !report.issuers.is_empty() {
        object["introspection"] = report.issuers.iter().map(issuer_json).collect();
    }
    if let Some(source) = report.signer {
        object["signed_by"] = json!(report.sources[source].setting.key);
    }
    match &report.result {
        Ok(principal) => {
            object["user_id"] = json!(principal.user_id);
            object["expires_at"] = json!(seconds(principal.expires_at));
            object["parameters"] = principal.claims.get("parameters").cloned().unwrap_or(Value::Null);
        }
        Err(error) => object["error"] = json!({ "code": error.code(), "message": error.to_string() }),
    }
    if let Some(remedy) = &report.remedy {
        object["remedy"] = json!(remedy);
    }
    format!("{object}\n")
}

fn issuer_json(issuer: &Issuer) -> Value {
    json!({ "setting": issuer.setting.key, "place": issuer.setting.place.to_string(), "url": issuer.url })
}

fn source_json(source: &FoundKeys) -> Value {
    let mut object = json!({ "setting": source.setting.key, "place": source.setting.place.to_string() });
    if let Some(uri) = &source.uri {
        object["uri"] = json!(uri);
    }
    match &source.result {
        Ok(Found { keys, left_out }) => {
            let keys = keys.iter().map(|key| json!({ "kid": key.kid, "algorithms": key.algorithms }));
            object["found"] = keys.collect();
            object["left_out"] = json!(left_out);
        }
        Err(error) => object["error"] = json!({ "code": error.code(), "message": error.to_string() }),
    }
    object
}

/// Times are seconds since 1970 in tokens, which nobody can read.
fn time_of(name: &str, value: &Value, now: SystemTime) -> String {
    let is_time = ["exp", "iat", "nbf", "auth_time"].contains(&name);
    let since_epoch = value.as_f64().filter(|_| is_time).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = since_epoch.and_then(|duration| UNIX_EPOCH.checked_add(duration));
    time.map(|time| format!(" ({})", from_now(time, now))).unwrap_or_default()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map(|duration| duration.as_secs()).unwrap_or_default()
}

fn from_now(time: SystemTime, now: SystemTime) -> String {
    match (time.duration_since(now), now.duration_since(time)) {
        (Ok(left), _) => format!("in {}", span(left)),
        (_, Ok(past)) => format!("{} ago", span(past)),
        // One of the two is not before the other.
        _ => "now".to_owned(),
    }
}

/// In the largest unit of which there are two.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= 2 * unit);
    unit.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (name, value, text) in [
            ("exp", json!(1_000_119), " (in 119 s)"),
            ("exp", json!(1_000_120.5), " (in 2 minutes)"),
            ("nbf", json!(1_010_000), " (in 2 hours)"),
            ("iat", json!(0), " (11 days ago)"),
            ("exp", json!(1e300), ""),
            ("exp", json!(-1), ""),
            ("exp", json!("x"), ""),
            ("sub", json!(0), ""),
        ] {
            assert_eq!(time_of(name, &value, now), text, "{name} {value}");
        }
    }
}
