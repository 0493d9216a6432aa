//! The report for people and for programs.

use std::fmt::Write;

use serde_json::json;

use super::{
    Report,
    check::{Check, Status},
};

/// A line for each check, what to do below it, then the verdict.
pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    for applied in &report.applied {
        let _ = match &applied.refusal {
            None => writeln!(out, "ran   {}", applied.sql),
            Some(refusal) => writeln!(out, "ran   {}\n      refused: {refusal}", applied.sql),
        };
    }
    for check in &report.checks {
        out += &line(check);
    }
    let verdict = if report.is_ok() { "the service can run" } else { "the service cannot run" };
    let [passed, warned, failed] = [Status::Pass, Status::Warn, Status::Fail].map(|status| report.count(status));
    out + &format!("{}: {verdict}; {passed} passed, {warned} warned, {failed} failed\n", report.place)
}

fn line(check: &Check) -> String {
    let status = match check.status {
        Status::Pass => "pass",
        Status::Warn => "warn",
        Status::Fail => "fail",
    };
    let code = check.code.map(|code| format!(" [{code}]")).unwrap_or_default();
    let mut out = format!("{status}  {}: {}{code}\n", check.topic, check.message);
    if let Some(help) = &check.help {
        let _ = writeln!(out, "      {help}");
    }
    let said = check.help.as_deref().unwrap_or_default();
    for sql in check.sql.iter().filter(|sql| !said.contains(sql.as_str())) {
        let _ = writeln!(out, "      {sql}");
    }
    out
}

/// One JSON object.
pub(super) fn json(report: &Report, is_mended: bool) -> String {
    let mut object = json!({ "ok": report.is_ok(), "source": report.place, "checks": report.checks });
    if is_mended {
        object["applied"] = json!(report.applied);
    }
    format!("{object}\n")
}
